# grad:argument differed
KIND = 'wild'

def f(x4, x5):
    v7 = [e * x5 for e in x4]
    t8 = v7[-2].detach()
    return t8
ARGUMENTS = [np.array([[inf, 1.0]]), np.array([-1.0])]
PLAN = [('grad', [1], None, 1)]
