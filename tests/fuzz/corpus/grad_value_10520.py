# grad:value differed
KIND = 'exact'

def f(x4):
    t8 = x4.sum()
    try:
        t9 = math.exp(800.0 * t8)
    except Exception:
        t9 = 1.0
    return t9
ARGUMENTS = [np.array([[1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0], [1.0, -1.0, -1.0, -1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, 0.0, -1.0]])]
PLAN = [('grad', [], None, 1)]
