# backward:message differed
KIND = 'exact'

def f(x2):
    t4 = x2[1]
    try:
        t4 = t4 ** (-1)
        t4 = math.log([1.0, 0.0, 1.0])
    except ZeroDivisionError:
        t4 = fs.min(x2)
    return 1.0
ARGUMENTS = [np.array([[1.0, 1.0, 1.0], [0.0, 1.0, -1.0], [-1.0, 0.0, -1.0]])]
PLAN = [('backward', False, [2], 1), ('backward', False, None, 1)]
