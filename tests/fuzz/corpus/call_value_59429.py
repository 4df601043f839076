# call:value differed
KIND = 'tame'
h3 = fs.custom_op(lambda a, b: a * b, lambda a, b: (b, a), name='h3')

def f(x4, x5):
    t6 = math.atan2(h3(fs.Tensor(0.0), x4), x4)
    return t6
ARGUMENTS = [-1.0, np.array([[-1.0, -1.0, 1.0, 1.0, 1.0, -1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0]])]
PLAN = [('call', 0)]
