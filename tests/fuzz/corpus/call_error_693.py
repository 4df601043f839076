# call:error differed
KIND = 'tame'

def f(k2, x3):
    t5 = fs.minimum(1.0, k2)
    return 1.0
ARGUMENTS = [1, np.array([[1.0, 1.0, -1.0, 0.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0]])]
PLAN = [('call', 0)]
