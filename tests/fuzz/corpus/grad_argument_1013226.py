# fs.grad:argument differed
KIND = 'wild'

def f(x3):
    t5 = max(x3)
    return fs.softmax([t5 for e in x3])[3]
ARGUMENTS = [np.array([[1.0, 100000.0, 0.0, 0.0]])]
PLAN = [('modes', 0)]
