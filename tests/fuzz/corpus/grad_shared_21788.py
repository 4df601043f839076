# grad:shared differed
KIND = 'wild'
w1 = fs.to_tensor([-1.0, 1.0, -1.0])

def f(x2, x3):
    t4 = x2
    v11w = [[t4 * x3[0] for j in range(2)] for i in range(3)]
    v11 = [fs.dot(w1, [v11w[i][j] for i in range(3)]) for j in range(2)]
    return v11[0]
ARGUMENTS = [-1.0, np.array([[-inf]])]
PLAN = [('grad', [0], None, 1)]
