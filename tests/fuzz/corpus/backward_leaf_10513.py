# backward:leaf differed
KIND = 'wild'
w1 = fs.to_tensor([1.0, 1.0, 0.0, -1.0])

def f(x4):
    if abs(x4 - w1).sum():
        c11 = 0
    return 1.0
ARGUMENTS = [np.array([[1.0, 1.0, nan, 1.0]])]
PLAN = [('backward', False, None, 1)]
