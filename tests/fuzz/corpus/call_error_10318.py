# call:error differed
KIND = 'tame'

def f(k4):
    t7 = fs.clip(1.0, 1.0, k4)
    return 1.0
ARGUMENTS = [np.array([0])]
PLAN = [('call', 0)]
