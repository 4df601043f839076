# backward:error differed
KIND = 'exact'

def f(k2):
    t4 = fs.clip(1.0, k2, 1.0)
    1.0[1.0] = math.log(k2)
    return 1.0
ARGUMENTS = [np.array([0])]
PLAN = [('backward', False, None, 1)]
