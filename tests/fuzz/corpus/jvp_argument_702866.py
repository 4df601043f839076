# jvp:argument differed
KIND = 'wild'

def f(x3):
    t5 = math.acos(x3)
    return t5 + (1.0 - t5) + x3 * 2.0
ARGUMENTS = [np.array([1.0])]
PLAN = [('modes', 0)]
