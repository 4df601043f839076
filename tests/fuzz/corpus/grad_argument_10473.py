# grad:argument differed
KIND = 'wild'

def f(x4):
    v5 = [1.0 / (x4 * x4), 1.0]
    return v5[0]
ARGUMENTS = [np.array([1e+308])]
PLAN = [('grad', [0], None, 1)]
