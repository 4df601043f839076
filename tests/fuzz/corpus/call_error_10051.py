# call:error differed
KIND = 'tame'

def f(k5):
    t11 = fs.maximum(1.0, k5)
    return 1.0
ARGUMENTS = [np.array([2])]
PLAN = [('call', 0)]
