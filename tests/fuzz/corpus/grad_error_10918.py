# grad:error differed
KIND = 'tame'

def f(x5):
    t6 = math.acos(x5)
    return 1.0
ARGUMENTS = [np.array([-1.0, 2.0])]
PLAN = [('grad', [], None, 1)]
