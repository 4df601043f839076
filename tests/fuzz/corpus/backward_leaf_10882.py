# backward:leaf differed
KIND = 'wild'
w1 = fs.to_tensor([[1.0, 1.0, -1.0], [1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0], [-1.0, -0.0, 0.0], [-1.0, -1.0, 0.0], [-1.0, -1.0, -1.0], [1.0, -1.0, 1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, -1.0], [1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [0.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, 1.0, 1.0]])

def f(x2, x4):
    v8w = [[e for e in row] for row in w1]
    v8 = []
    for j in range(3):
        for i in range(15):
            s = 1.0 + [x4 for e in x2][i] * v8w[i][j]
        v8.append(s)
    t10 = min(v8)
    return 1.0
ARGUMENTS = [np.array([[-1.0, 1.0, 1.0, 1.0, 1.0, 1.0, nan, 1.0, inf, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0]]), np.array([inf])]
PLAN = [('backward', False, None, 1)]
