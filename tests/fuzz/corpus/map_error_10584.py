# map:error differed
KIND = 'tame'

def f(x5):
    t7 = 1.0 / x5[0]
    return 1.0
ARGUMENTS = [np.array([[-0.0], [-1.0]])]
PLAN = [('map', [1, 0], 1)]
