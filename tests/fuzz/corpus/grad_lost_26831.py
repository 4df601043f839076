# grad:lost differed
KIND = 'tame'
w1 = fs.MLP(2, [3, 1], seed=4)
w2 = fs.to_tensor([[1.0, 1.0, -1.0, 1.0], [-0.0, -1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, -1.0], [-1.0, -1.0, 1.0, -1.0]])
w3 = fs.to_tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]])

def h4(a, b):
    return 1.0

def f(x9, x10):
    t11 = math.tanh(fs.clip(fs.where(fs.argmax([w2[0, 2] + w3[0, 1], min(x9, x10), x10 + w2[0][1]]) == 0, x10, 0), 0, 2))
    v12 = w2[1]
    t13 = float(t11 + -2)
    if t13 > (x10 if v12[0].detach() == x9 * v12[1] else -2):
        t13 = h4(fs.Tensor(0.0) + v12[0] / (t13 * t13 + 0.5), t13)
    else:
        t13 = fs.leaky_relu(w3[1][0], 0.1) - v12[-2].detach()
    t14 = fs.where(t11 + t11 >= 0.0 - x9, (v12[0] - w3[1][0]) * (w3[0][1] - t11), fs.maximum(x9 - v12[2], 0.0))
    return t14 - sum(v12) - t13
ARGUMENTS = [np.array([1.0]), np.array([-0.5])]
PLAN = [('backward', False, None, 1), ('change', 6), ('grad', [1, 0], None, 1)]

