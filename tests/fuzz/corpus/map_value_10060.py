# map:value differed
KIND = 'tame'

def f(x4):
    t6 = x4[11]
    try:
        t7 = (x4[4] * t6) ** 0.5
    except Exception:
        t7 = 1.0
    t9 = t7
    return t9
ARGUMENTS = [np.array([[1.0, -1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -2.0, -1.0, 1.0, -1.0], [-1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 0.0, -1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0]])]
PLAN = [('backward', False, [1], 1), ('map', None, 1)]
