# backward:lost differed
KIND = 'tame'

def f(k3, x4):
    v6 = [1.0, x4, 1.0]
    v10 = [e for e in v6]
    v11 = [sum(v10) for e in v10]
    if float(fs.where(v11[0] == 3, 1.0, 1.0)):
        t15 = 1.0
    return 1.0
ARGUMENTS = [np.array([2]), -1.0]
PLAN = [('backward', False, None, 1)]
