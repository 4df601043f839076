# grad:message differed
KIND = 'exact'

def f(x2, x5):
    v6 = [x5[2] for j in range(4)]
    t7 = math.sqrt(x2)
    if v6[0] < 0:
        t12 = 1.0
    return 1.0
ARGUMENTS = [np.array([1.0, -1.0, -1.0]), np.array([[-1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])]
PLAN = [('grad', [0], None, 1)]
