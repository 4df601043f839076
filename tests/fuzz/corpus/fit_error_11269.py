# fit:error differed
KIND = 'wild'

def f(x4, x5):
    t6 = x5[1]
    t7 = math.acos(x4[1])
    t6 *= t6 ** (-1)
    return t7
ARGUMENTS = [np.array([[1.0, -1.0], [-1.0, 1.0], [-1.0, -inf]]), np.array([[1.0, 0.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, 1.0, 1.0]])]
PLAN = [('call', 1), ('fit', 'Adam', 9, 1, 1)]
