# backward:error differed
KIND = 'wild'

def f(x1):
    t3 = math.acosh(x1[2])
    return 1.0
ARGUMENTS = [np.array([[1.0, inf, inf, 1.0, -0.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 0.0, 1.0, 0.0, -1.0], [inf, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0]])]
PLAN = [('backward', False, None, 1)]
