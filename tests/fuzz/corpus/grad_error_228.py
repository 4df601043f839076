# grad:error differed
KIND = 'wild'

def f(k2):
    t6 = k2[1]
    t10 = fs.maximum(3, t6)
    return 1.0
ARGUMENTS = [np.array([[1, 0]])]
PLAN = [('grad', [], None, 1)]
