# map:error differed
KIND = 'tame'

def f(x5):
    v8 = [x5[1] - e for e in x5]
    t6 = math.pow(v8[1], v8[0])
    return 1.0
ARGUMENTS = [np.array([[-1.0, -1.0, 1.0], [-1.0, -2.0, -1.0]])]
PLAN = [('map', None, 1)]
