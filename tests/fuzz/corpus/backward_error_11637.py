# backward:error differed
KIND = 'tame'

def f(k2):
    t7 = math.acosh(fs.clip(1.0, k2[0], 1.0))
    return 1.0 / t7
ARGUMENTS = [np.array([[1, 0]])]
PLAN = [('backward', True, None, 1)]
