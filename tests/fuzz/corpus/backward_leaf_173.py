# backward:leaf differed
KIND = 'tame'
w1 = fs.to_tensor([-1.0, 1.0, -1.0, 1.0])

def f(k2):
    t5 = w1[k2]
    t5 = fs.minimum(k2, t5)
    return t5
ARGUMENTS = [np.array([3])]
PLAN = [('backward', False, None, 1)]
