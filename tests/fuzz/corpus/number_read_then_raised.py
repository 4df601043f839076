# tape differed: its marks were left set
KIND = 'exact'
w = fs.Tensor(1.0)

def f(x):
    t = fs.maximum(x, w)
    if float(t) > 1.5:
        raise ValueError('no')
    return t

ARGUMENTS = [np.array([2.0, 1.0, 0.5])]
PLAN = [('map', None, 1), ('backward', False, None, 1), ('map', [1, 2], 1), ('call', 0)]
