# backward:value differed
KIND = 'tame'

def f(x3):
    t7 = x3[0] ** 2
    try:
        t8 = math.exp(800.0 * (1 - t7))
    except OverflowError:
        t8 = 1.0
    return t8
ARGUMENTS = [np.array([[-0.0, -0.0], [-2.0, -1.0]])]
PLAN = [('backward', False, None, 1)]
