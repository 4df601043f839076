# threads differed
# threads differed
KIND = 'tame'
w1 = [fs.Tensor(1.0), fs.Tensor(1.0), fs.Tensor(1.0)]

def f(x5):
    a6 = fs.to_tensor(np.ones(4)) * [1.0, w1[0], 1.0, 1.0]
    if any((e for e in x5)):
        t9 = 1.0
    return a6[2]
ARGUMENTS = [np.array([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, -1.0, 1.0, -1.0, 1.0], [0.0, 0.0, -1.0, 0.0, 1.0, 1.0, 0.0, -1.0, 1.0, -1.0, 1.0, 1.0, 0.0, 1.0, -1.0, -1.0]])]
PLAN = [('limited',), ('derive', None, False, 1), ('threads',)]
