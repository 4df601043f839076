# backward:value differed
KIND = 'exact'

def f(x4, x5):
    try:
        t6 = 1.0 + math.exp(800.0 * x5)
    except OverflowError:
        t6 = x4.sum()
    return t6
ARGUMENTS = [np.array([[-1.0, 1.0, -1.0], [-2.0, 1.0, 1.0]]), np.array([1.0, -1.0])]
PLAN = [('backward', False, None, 1)]
