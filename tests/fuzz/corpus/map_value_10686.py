# map:value differed
KIND = 'tame'

def f(x5):
    try:
        t6 = math.log(x5[1][1])
    except ValueError:
        t6 = 1.0
    t9 = t6
    return t9
ARGUMENTS = [np.array([[[-1.0, -1.0], [-1.0, -1.0]], [[1.0, 1.0], [0.0, 1.0]]])]
PLAN = [('map', None, 1)]
