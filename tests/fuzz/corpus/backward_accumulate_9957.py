# backward:accumulate differed
KIND = 'wild'
w1 = fs.to_tensor([-1.0, 1.0, 1.0, 1.0])

def f(x4, x5):
    v9 = [math.exp(e) for e in w1]
    return x4 * v9[-4]
ARGUMENTS = [1e+308, np.array([[-1.0, 0.0, -1.0, 1.0, -1.0, 1.0, 1.0, 0.0, -inf, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0], [1.0, 1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, inf, 1.0, -1.0, -1.0, -1.0, -1.0]])]
PLAN = [('backward', True, None, 1)]
