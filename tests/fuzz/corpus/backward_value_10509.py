# backward:value differed
KIND = 'exact'

def f(x3):
    t8 = x3 + 1.0
    try:
        t9 = math.acos(t8)
    except ValueError:
        t9 = 1.0
    return t9
ARGUMENTS = [np.array([1.0, -1.0])]
PLAN = [('backward', True, None, 1)]
