# map:message differed
KIND = 'tame'

def f(k2):
    while 1.0 / k2:
        continue
    return 1.0
ARGUMENTS = [np.array([0])]
PLAN = [('map', None, 1)]
