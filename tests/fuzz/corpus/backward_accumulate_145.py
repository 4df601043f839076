# backward:accumulate differed
KIND = 'tame'
w2 = fs.Tensor(1.0)

def f(x4):
    t6 = x4
    try:
        t6 = 1.0 % t6
    except ZeroDivisionError:
        t6 = w2
    return t6
ARGUMENTS = [np.array([-1.0, 0.0])]
PLAN = [('backward', True, None, 1)]
