# fit:error differed
KIND = 'tame'

def f(x4, x5):
    t6 = math.fmod(0.0, x5[0])
    return 1.0
ARGUMENTS = [np.array([1.0, 1.0]), np.array([[-1.0], [0.0]])]
PLAN = [('fit', 'SGD', 4, 1, 1)]
