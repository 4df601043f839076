# derive:error differed
KIND = 'wild'
w1 = fs.Tensor(-1.3451544053444533)

def f(x2, k3):
    t4 = k3
    return t4

ARGUMENTS = [np.array([1.0, 1e-200, 0.275, 1.8]), np.array([1, 2, 0, 1])]
PLAN = [('derive', None, False, 2), ('backward', False, [0, 3, 2], 2), ('nest', None, 2)]
