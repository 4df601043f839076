# fit:loss differed
KIND = 'wild'
w1 = fs.to_tensor([0.9, 1.0])

def f(x4, x5):
    v9 = w1
    return 1.0 - (1.0 - v9[0] + w1[-2])
ARGUMENTS = [np.array([1.0]), np.array([-1.0])]
PLAN = [('fit', 'SGD', 2, 1, 1)]
