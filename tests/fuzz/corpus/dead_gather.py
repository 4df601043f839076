# grad:error differed: nothing was raised
KIND = 'wild'
w = fs.to_tensor([1.0, 0.0])

def f(x, k):
    t = w[k]
    return x * 1.0

ARGUMENTS = [np.array([1.0, 2.0, 3.0]), np.array([3, 1, 0])]
PLAN = [('grad', [0], [1, 2], 1), ('grad', [0], [2, 1, 0], 1), ('map', None, 1)]
