# fit:error differed
KIND = 'tame'
w1 = fs.Tensor(1.0)

def f(x2, x3):
    t4 = sorted([x3, 1.0, x2[0]])
    t7 = fs.where(fs.logsumexp(x2) < 0.0, w1, 1.0)
    return t7
ARGUMENTS = [np.array([[-1.0, -1.0], [-2.0, -1.0], [-1.0, 0.0], [0.0, -1.0]]), np.array([1.0, -1.0, -0.5, -1.0])]
PLAN = [('limited',), ('fit', 'SGD', 3, 2, 1)]
