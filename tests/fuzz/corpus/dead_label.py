# map:message differed: another row was named
KIND = 'wild'

def f(x, k):
    t = fs.cross_entropy([x, 1.0], k)
    s = sorted([x, 0.5])
    return s[0] + 1.0

ARGUMENTS = [np.array([-1.0, 2.0, 0.25]), np.array([1, 2, 2])]
PLAN = [('backward', False, None, 1), ('map', [2, 1], 1), ('map', [0], 1)]
