# grad:shared differed
KIND = 'wild'

def f(x1, x2):
    v5w = [[x2 for j in range(4)] for i in range(17)]
    v5 = [fs.dot(x1, [v5w[i][j] for i in range(17)]) for j in range(4)]
    return v5[0]
ARGUMENTS = [np.array([[1.0, 1.0, 1.0, -0.0, -1.0, 1.0, -0.0, inf, 0.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0]]), 1.0]
PLAN = [('grad', [1], None, 1)]
