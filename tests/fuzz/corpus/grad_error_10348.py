# grad:error differed
KIND = 'tame'

def f(k5):
    t6 = 1.0
    t6 += fs.clip(1.0, 1.0, k5)
    return 1.0
ARGUMENTS = [np.array([1])]
PLAN = [('grad', [], None, 1)]
