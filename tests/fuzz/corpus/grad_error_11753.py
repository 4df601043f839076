# grad:error differed
KIND = 'wild'

def f(k6):
    t7 = 1.0
    t7 += fs.clip(1.0, k6, 1.0)
    raise ZeroDivisionError
    return 1.0
ARGUMENTS = [np.array([0])]
PLAN = [('grad', [], None, 1)]
