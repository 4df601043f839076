# map:error differed
KIND = 'tame'

def f(k4):
    return math.trunc(k4)
ARGUMENTS = [np.array([2])]
PLAN = [('map', None, 1)]
