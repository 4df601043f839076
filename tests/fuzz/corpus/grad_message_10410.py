# grad:message differed
KIND = 'tame'

def f(k3):
    v7 = sum(k3)
    return 1.0
ARGUMENTS = [np.array([0])]
PLAN = [('grad', [], None, 1)]
