# grad:value differed
KIND = 'exact'

def f(x3):
    try:
        t5 = x3
        t5 = math.exp(800.0 * t5)
    except OverflowError:
        t5 = 1.0
    return t5
ARGUMENTS = [np.array([1.0, -1.0])]
PLAN = [('grad', [0], None, 1)]
