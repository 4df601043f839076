# grad:error differed
KIND = 'exact'

def f(x2, k3):
    t5 = math.fmod(1.0, x2[-3])
    t6 = math.trunc(k3)
    return 1.0
ARGUMENTS = [np.array([[-1.0, 1.0, -1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 0.0, 1.0, 1.0]]), np.array([3, 0])]
PLAN = [('grad', [0], None, 1)]
