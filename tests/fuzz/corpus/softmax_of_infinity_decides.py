# grad:value differed: NaN where the plain function has 1.0
KIND = 'wild'

def f(x):
    s = fs.softmax([x, 1.0])[0]
    t = 1.0 + fs.min([1.0, s])
    if t > 1.5:
        t = t * 2.0
    return t + fs.logsumexp([x, 2.0]) * 0.0

ARGUMENTS = [np.array([1.0, inf, -inf, nan, 0.0, 3.0])]
PLAN = [('map', None, 1), ('map', [1, 2], 1), ('new',), ('map', [2, 1, 0], 1), ('call', 1)]
