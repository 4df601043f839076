# map:value differed
KIND = 'exact'

def f(x2):
    try:
        t6 = math.sqrt(x2)
    except ValueError:
        t6 = 1.0
    return t6
ARGUMENTS = [np.array([-1.0, 0.0])]
PLAN = [('map', None, 1)]
