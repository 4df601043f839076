# grad:argument differed
KIND = 'exact'

def f(x4):
    t5 = x4[1]
    t5 = math.sqrt(t5 * t5)
    t11 = math.sqrt(x4[1] * x4[1]) - t5
    return t11
ARGUMENTS = [np.array([[-1.0, 0.0]])]
PLAN = [('grad', [0], None, 1)]
