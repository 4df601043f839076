# call:message differed
KIND = 'wild'

def f(k2):
    v4 = 1.0 / k2
    return 1.0
ARGUMENTS = [np.array([0])]
PLAN = [('call', 0)]
