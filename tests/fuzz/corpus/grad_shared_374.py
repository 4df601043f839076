# grad:shared differed
KIND = 'tame'

def f(x4, x5):
    v9w = [[x4 for j in range(1)] for i in range(17)]
    v9 = [sum((x5[i] * v9w[i][j] for i in range(17))) for j in range(1)]
    t11 = v9[0]
    t14 = t11
    return t14
ARGUMENTS = [-1.0, np.array([[-1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 0.0, 1.0, -1.0, 1.0, -1.0, 0.0, 1.0, -1.0, -1.0, -1.0, 1.0]])]
PLAN = [('grad', [0], None, 1)]
