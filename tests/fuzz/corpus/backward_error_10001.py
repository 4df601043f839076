# backward:error differed
KIND = 'tame'

def f(x2):
    t13 = 1.0
    for i14 in x2:
        t16 = t13 ** 0.5
        t13 = i14
    return 1.0
ARGUMENTS = [np.array([[1.0, 1.0, 1.0], [-1.0, 1.0, -1.0]])]
PLAN = [('backward', False, None, 1)]
