# backward:value differed
KIND = 'exact'
w1 = fs.to_tensor([[-2.0], [3.0], [0.0]])
@fs.compile
def h2(a, b):
    v3w = [[b * a for j in range(4)] for i in range(3)]
    v3 = [fs.dot([(0 / 2.0), fs.sign(b), 0], [v3w[i][j] for i in range(3)]) for j in range(4)]
    v3 = [fs.maximum(e, 0.0) for e in v3]
    t4 = (b * a)
    for i5 in range(1):
        t4 = t4 + (a + i5)
    return (fs.leaky_relu(-1.0, 0.5) * math.floor(b)) + a
table6 = [2.0, -2.0, -1.0, 3.0]

def f(k7, k8, x9):
    t10 = fs.where((w1[2][0] + 2.0) > 3, h2(fs.Tensor(0.0) + (x9[13] * -2), x9[2]), fs.leaky_relu(max([(x9[10] - x9[-15]), (x9[5] ** 2), x9[5]]), 2))
    t11 = x9[k8]
    try:
        t11 = math.sqrt(sorted([t11, t11, t11])[2])
    except ValueError:
        pass
    if h2(fs.Tensor(0.0) + x9[5], t10) == fs.maximum(x9[7], 0.0):
        t10 = t11
    elif (-t11) == 0.0:
        if fs.sum(x9.detach()) >= 0.0:
            t10 = h2(fs.Tensor(0.0) + 0, t11)
        else:
            v12 = [t11 - e for e in [e * e for e in x9]]
            v13 = [e * k8 for e in [fs.maximum(e, -1.0) for e in x9]]
            t10 = ((-w1[2][0]) ** 1)
        t10 = ((t11 * x9[2]) * sorted(x9)[4])
    else:
        if all(e <= 0 for e in x9):
            raise KeyError(3)
        t10 = fs.maximum(h2(fs.Tensor(0.0) + k8, t10), (k8 + t11))
    if math.isinf(x9[11]):
        with fs.no_grad():
            t11 = (math.sqrt(w1[2, 0]) * 0.0 - math.floor(t11))
        t14 = (t11 - x9[13])
        try:
            t14 = 1.0 / t14
        except ZeroDivisionError:
            t14 = t11
        t10 = (-fs.maximum(x9[10], 0.0))
    if any(e >= 2.0 for e in x9):
        t10 = ((t11 - t11) * math.floor(t11))
    return t11 - sum(x9) - max(math.fabs(t11), (t10 - x9[1]))

ARGUMENTS = [2, 2, np.array([[0.5, -2.0, 3.0, 1.5, 0.5, -3.0, 0.0, -1.0, -2.0, 0.0, 1.0, -1.0, -0.5, 1.5, 0.5], [-0.5, 2.0, -0.5, 3.0, -0.5, 0.5, 0.5, 1.5, -1.0, -2.0, -2.0, 0.0, -3.0, 0.5, 0.5], [-2.0, 0.0, 2.0, 3.0, 3.0, 0.0, 1.0, 0.5, 2.0, 2.0, 3.0, -3.0, 0.5, -1.0, -0.5], [1.5, 1.5, 0.5, 2.0, -3.0, -1.0, -3.0, 3.0, 1.5, 0.5, -2.0, 1.5, 1.5, -2.0, -1.0]])]
PLAN = [('backward', True, [1, 3, 0, 2], 3), ('backward', True, None, 2), ('backward', False, [2, 0, 3], 1), ('change', 51), ('backward', False, None, 2)]
