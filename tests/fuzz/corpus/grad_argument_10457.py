# grad:argument differed
KIND = 'wild'

def f(x2, k4):
    t6 = fs.maximum(k4, x2[2])
    return t6
ARGUMENTS = [np.array([[1.0, 1.0, 1.0, -1.0]]), np.array([-1])]
PLAN = [('grad', [0], None, 1)]
