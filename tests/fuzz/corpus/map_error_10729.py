# map:error differed
KIND = 'exact'

def f(k3):
    s = fs.minimum(1.0, k3[0])
    return 1.0
ARGUMENTS = [np.array([[0, 1]])]
PLAN = [('map', None, 1)]
