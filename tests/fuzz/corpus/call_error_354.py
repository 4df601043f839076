# call:error differed
KIND = 'exact'

def f(k2):
    t3 = fs.minimum(1.0, k2)
    return 1.0
ARGUMENTS = [np.array([2])]
PLAN = [('call', 0)]
