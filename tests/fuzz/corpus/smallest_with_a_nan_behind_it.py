# grad:argument differed: NaN went to what was not chosen
KIND = 'wild'

def f(x):
    t = fs.min([1.0, x[0], x[1]])
    return t * sum(x)

ARGUMENTS = [np.array([[1.0, 1.0, nan], [0.5, 2.0, 1.0], [2.0, -1.0, inf]])]
PLAN = [('grad', [0], None, 1)]
