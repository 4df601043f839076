# grad:error differed
KIND = 'wild'

def f(x1):
    t4 = x1
    t4 = math.tan(t4)
    return 1.0
ARGUMENTS = [np.array([-1.0, inf])]
PLAN = [('grad', [0], None, 1)]
