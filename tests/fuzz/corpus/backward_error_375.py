# backward:error differed
KIND = 'exact'

def f(x4, k5):
    v8 = fs.maximum(1.0, k5)
    return 1.0
ARGUMENTS = [np.array([[-1.0, -1.0, 1.0]]), 2]
PLAN = [('backward', True, None, 1)]
