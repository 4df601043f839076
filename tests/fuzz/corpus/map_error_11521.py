# map:error differed
KIND = 'exact'

def f(k1):
    t3 = k1 - 1.0
    v6 = math.fmod(1.0, t3)
    t9 = k1
    s = math.trunc(t9)
    return 1.0
ARGUMENTS = [np.array([0, 1])]
PLAN = [('map', None, 1)]
