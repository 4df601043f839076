# call:error differed
KIND = 'wild'

def f(k3):
    t8 = fs.maximum(1.0, k3[1])
    return 1.0
ARGUMENTS = [np.array([[1, 2]])]
PLAN = [('call', 0)]
