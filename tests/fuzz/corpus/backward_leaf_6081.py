# backward:leaf differed
KIND = 'wild'
w1 = fs.Tensor(1.5)

def f(x1, x2):
    return x1 * fs.softmax([x2 + x2, math.sqrt(w1)])[1]
ARGUMENTS = [np.array([-inf, 1.0]), np.array([0.06, 0.5])]
PLAN = [('backward', False, None, 1), ('grad', [0, 1], None, 1)]
