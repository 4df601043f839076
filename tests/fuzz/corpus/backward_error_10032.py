# backward:error differed
KIND = 'exact'

def f(k3):
    v7 = [0.0] * 3
    for j in range(3):
        v7[j] = fs.minimum(1.0, k3[1])
    return 1.0
ARGUMENTS = [np.array([[2, 1]])]
PLAN = [('backward', False, None, 1)]
