# backward:accumulate differed
KIND = 'exact'
w1 = fs.to_tensor([1.0, 1.0, 0.0, -1.0, 1.0, -1.0, 0.0, 1.0, -1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 1.0])

def f(x4):
    t7 = math.sqrt(w1[6])
    t8 = t7
    return t8 * sum(x4)
ARGUMENTS = [np.array([[-1.0, 1.0, 1.0, 1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 0.0, -1.0, 1.0, 0.0, 1.0], [-1.0, 1.0, 0.0, -1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, 1.0, -1.0, -1.0, -1.0, -1.0]])]
PLAN = [('backward', True, None, 1)]
