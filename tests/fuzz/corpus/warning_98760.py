# warning differed
KIND = 'tame'
w1 = fs.to_tensor([1.0, 1.0, 0.0, -1.0, 1.0, 0.0, -1.0, 1.0, -1.0, -1.0, 1.0, 0.0, 1.0, -1.0, -1.0])

def f(x3):
    try:
        t4 = fs.loop(300, lambda z5: refuses(z5), w1[14])
    except ValueError:
        t4 = 1.0
    return 1.0
ARGUMENTS = [np.array([[-1.0]])]
PLAN = [('shared', 0, False, 2), ('shared', 0, True, 1)]
