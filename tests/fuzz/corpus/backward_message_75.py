# backward:message differed
KIND = 'tame'

def f(x3):
    v7 = [e for e in x3]
    m14 = max(v7)
    t13 = fs.prod([1.0 - e for e in x3]) ** 0.5
    return 1.0
ARGUMENTS = [np.array([[-1.0, 1.0, 1.0], [0.5, 2.0, 0.5], [-1.0, -1.0, 2.0]])]
PLAN = [('backward', False, None, 1)]
