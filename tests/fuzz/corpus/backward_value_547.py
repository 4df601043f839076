# backward:value differed
KIND = 'exact'

def f(x2):
    try:
        t3 = math.exp(800.0 * x2[1])
    except OverflowError:
        t3 = 1.0
    return t3
ARGUMENTS = [np.array([[-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])]
PLAN = [('backward', True, None, 1)]
