# map:value differed
KIND = 'exact'
w1 = [fs.Tensor(1.0), fs.Tensor(-1.0), fs.Tensor(2.0)]

def f(x3):
    t5 = w1[2] * x3[0]
    t5 = sum([1.0 + t5, 1.0])
    try:
        t5 = t5 ** (-1)
    except ZeroDivisionError:
        t5 = 1.0
    return t5
ARGUMENTS = [np.array([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0]])]
PLAN = [('map', None, 1)]
