# grad:state differed: gradients of leaves changed
KIND = 'exact'
w = fs.to_tensor([1.0, 1.0, -1.0])
h = fs.custom_op(lambda a, b: a * b, lambda a, b: (b, a), name='h')

def f(x):
    return h(x, w[0]) - fs.sum(w)

ARGUMENTS = [np.array([2.0, 3.0])]
PLAN = [('grad', [0], None, 1), ('backward', False, None, 1), ('backward', True, None, 1), ('grad', [0], [1], 1)]
