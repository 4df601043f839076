# backward:error differed
KIND = 'tame'

def f(k4):
    k5 = k4
    t6 = fs.minimum(1.0, k5)
    return 1.0
ARGUMENTS = [np.array([1])]
PLAN = [('backward', False, None, 1)]
