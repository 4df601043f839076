# backward:error differed
KIND = 'tame'

def f(x2):
    t3 = x2[1] ** (-1)
    return 1.0
ARGUMENTS = [np.array([[1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0, -1.0], [1.0, 0.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, 1.0]])]
PLAN = [('backward', False, None, 1)]
