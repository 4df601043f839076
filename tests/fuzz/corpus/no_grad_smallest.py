# backward:leaf differed: what fs.min gives inside no_grad
KIND = 'exact'
w = fs.Tensor(1.0)
v = fs.Tensor(0.5)

def f(x):
    with fs.no_grad():
        t = fs.min([fs.max([v, w, x]), 3.0, w + 2.0])
    return t + x

ARGUMENTS = [np.array([-1.0, 2.0, 7.0])]
PLAN = [('backward', False, None, 1), ('grad', [0], None, 1)]
