# map:value differed
KIND = 'wild'

def f(x4):
    return sum(x4)
ARGUMENTS = [np.array([[1.0, -1.0, 1.0, 0.0, -1.0, 1.0, 1.0, -inf, 1.0, 1.0, 0.0, 1e+308, -1.0, 1.0, 1.0, 1.0, 1e+308]])]
PLAN = [('map', None, 1)]
