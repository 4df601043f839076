# map:error differed
KIND = 'tame'

def f(k1):
    return fs.minimum(1.0, k1)
ARGUMENTS = [np.array([1])]
PLAN = [('map', None, 1)]
