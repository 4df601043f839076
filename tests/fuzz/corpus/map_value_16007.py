# map:value differed
KIND = 'wild'

def f(x4):
    v5 = [e for e in x4]
    return sum(v5)
ARGUMENTS = [np.array([[-1.0, -1.0, -inf, 1e+308, 1.0, 1.0, 1.0, 1.0, 1.0, 1e+308, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0]])]
PLAN = [('map', None, 1)]
