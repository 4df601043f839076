# grad:error differed
KIND = 'exact'

def f(x2, k3):
    t8 = k3
    t4 = math.trunc(t8)
    return 1.0
ARGUMENTS = [np.array([[-1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, 1.0]]), 2]
PLAN = [('grad', [0], None, 1)]
