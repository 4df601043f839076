# grad:error differed
KIND = 'exact'

def f(k1):
    v7 = [1.0 for e in [fs.maximum(1.0, k1[0]), 1.0]]
    return v7[k1[0]]
ARGUMENTS = [np.array([[2, 2]])]
PLAN = [('grad', [], None, 1)]
