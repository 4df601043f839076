# grad:error differed
KIND = 'exact'

def f(k3):
    k7 = k3
    t6 = math.trunc(k7)
    return 1.0
ARGUMENTS = [np.array([0])]
PLAN = [('grad', [], None, 1)]
