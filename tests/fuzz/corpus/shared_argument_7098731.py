# shared:argument differed
KIND = 'wild'
w1 = fs.to_tensor([[-1.03, 0.4], [1.0, 0.778], [0.191, -0.06439243524337722]])

def f(k2, k3, x4):
    t5 = math.radians(x4[1])
    t6 = fs.prod(x4)
    with fs.no_grad():
        t6 = math.cbrt(math.pow(t5, t5))
    t7 = np.prod(x4)
    return t7 + math.radians(math.gamma(t7)) + np.sum(w1)

ARGUMENTS = [np.array([2, 2, 0, 0, 0, 2, 2, 0, 1]), np.array([2, 1, 2, 3, 1, 2, 1, 1, 0]), np.array([[1e+200, 0.0, -0.871], [0.5, 0.0, -inf], [-0.895, -0.19961765579318289, -0.713], [1.0, 0.0, 0.2], [-2.0, -1.727533526539447, nan], [1.0, 0.0, -1.4], [0.0, -inf, 0.0], [0.9, -0.5, 0.44281610742433225], [0.0, -0.2, 0.0]])]
PLAN = [('shared', 6, False, 1), ('backward', False, [1, 4, 6, 7], 1), ('grad', [2], None, 1), ('shared', 0, False, 1)]
