# backward:error differed
KIND = 'exact'

def f(k5):
    return fs.clip(1.0, 1.0, k5)
ARGUMENTS = [np.array([0])]
PLAN = [('backward', False, None, 1)]
