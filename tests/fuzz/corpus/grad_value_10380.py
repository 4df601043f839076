# grad:value differed
KIND = 'wild'

def f(x3):
    t4 = x3[1]
    try:
        t5 = math.acos(1.0)
        t5 = int(t5 * t4)
    except ValueError:
        t5 = 1.0
    return t5
ARGUMENTS = [np.array([[-1.0, inf, 1.0], [1.0, 1.0, -1.0]])]
PLAN = [('grad', [0], None, 1)]
