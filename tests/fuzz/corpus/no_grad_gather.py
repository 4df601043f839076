# grad:argument differed: indexing is no operation that no_grad could stop
KIND = 'exact'

def f(x, k):
    with fs.no_grad():
        t = x[k]
    return t

ARGUMENTS = [np.array([[-1.0, 2.0, 3.0], [0.5, 1.0, -2.0]]), np.array([0, 2])]
PLAN = [('grad', [0], None, 1), ('backward', False, None, 1), ('map', None, 1)]
