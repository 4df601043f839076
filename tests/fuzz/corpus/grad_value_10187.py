# grad:value differed
KIND = 'tame'

def f(x3, x4):
    t5 = sorted([x4[3], x3, x3])[2]
    try:
        t5 = math.log(t5)
    except ValueError:
        t5 = 1.0
    return t5
ARGUMENTS = [np.array([-1.0, -1.0]), np.array([[-1.0, 1.0, 1.0, -0.5, 1.0, 1.0, -0.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0]])]
PLAN = [('grad', [1], None, 1)]
