# grad:argument differed
KIND = 'wild'

def f(x4):
    v6w = [[x4[-13] * x4[4] for j in range(1)] for i in range(15)]
    v6 = [sum((x4[i] * v6w[i][j] for i in range(15))) for j in range(1)]
    return v6[0]
ARGUMENTS = [np.array([[-1.0, -1.0, 1.0, 1.0, inf, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0]])]
PLAN = [('grad', [0], None, 1)]
