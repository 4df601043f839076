# backward:message differed
KIND = 'exact'

def f(x1, k2):
    t3 = math.fmod(k2, x1)
    return 1.0
ARGUMENTS = [np.array([0.0]), 1]
PLAN = [('backward', True, None, 1)]
