# backward:value differed
KIND = 'exact'

def f(x2):
    try:
        t5 = 1.0 / x2[1][2]
    except ZeroDivisionError:
        t5 = 1.0
    return t5
ARGUMENTS = [np.array([[[1.0, 1.0, -1.0], [-1.0, -1.0, 0.0]], [[-1.0, 1.0, 0.0], [-1.0, 0.0, -1.0]]])]
PLAN = [('backward', True, None, 1)]
