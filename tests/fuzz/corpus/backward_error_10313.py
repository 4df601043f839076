# backward:error differed
KIND = 'tame'

def f(x3):
    if x3[2][2] == 1:
        raise KeyError
    try:
        t5 = math.pow(x3[0, 0], -0.5)
    except ZeroDivisionError:
        t5 = 1.0
    return 1.0
ARGUMENTS = [np.array([[[0.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, -1.0]], [[-1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, 1.0, -1.0]], [[-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0], [1.0, -1.0, 1.0]]])]
PLAN = [('backward', False, None, 1)]
