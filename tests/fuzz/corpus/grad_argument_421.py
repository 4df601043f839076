# grad:argument differed
KIND = 'wild'

def f(x3):
    t4 = x3
    try:
        t6 = t4 ** (-1)
    except ZeroDivisionError:
        t6 = 1.0
    return t6
ARGUMENTS = [np.array([1.0, 0.0])]
PLAN = [('grad', [0], None, 1)]
