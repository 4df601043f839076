# grad:error differed
KIND = 'tame'

def f(x3, k4):
    t5 = x3
    v7 = [x3, x3, math.copysign(t5, k4)]
    return max((e.data for e in v7))
ARGUMENTS = [np.array([1.0]), np.array([0])]
PLAN = [('grad', [0], None, 1)]
