# backward:error differed
KIND = 'wild'

def f(x2, k3):
    v6w = math.sin(x2[10])
    t11 = fs.leaky_relu(1.0, k3)
    return 1.0
ARGUMENTS = [np.array([[-1.0, -1.0, 1.0, 1.0, 1.0, -0.0, -1.0, 1.0, 1.0, inf, inf, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -inf, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0]]), np.array([0, 2])]
PLAN = [('backward', False, [1, 0], 1)]
