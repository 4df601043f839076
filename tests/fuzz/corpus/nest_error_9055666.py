# nest:error differed
KIND = 'wild'

def f(x1):
    t2 = math.copysign(x1[2], x1[0])
    try:
        if not (x1.maximum(x1)).sum() == (t2 / 1.0):
            t3 = math.sin(((x1[0] ** 3) / (x1[-2] / x1[1])))
            t4 = math.copysign((t3 * t2), t3)
            t2 = math.cbrt(t3)
        else:
            t5 = t2
            v6 = x1[1:]
            t2 = math.remainder(t2, t5)
        t2 = int(fs.cross_entropy(x1, 0))
    except Exception:
        t2 = x1[-1]
    v7w = [[math.sin(t2 + i * -1.0 + j) for j in range(2)] for i in range(3)]
    v7 = [sum(x1[i] * v7w[i][j] for i in range(3)) + t2 for j in range(2)]
    t2 = fs.while_loop(lambda z8: z8[1] < 2 and math.isinf(0.5), lambda z8: (z8[0] * 0.5 + math.degrees(0.0), z8[1] + 1), (t2, 0))[0]
    t9 = 0.5
    try:
        t9 = (t2 * t2) % t9
        t9 = t9 + int(t2)
    except (ValueError, ZeroDivisionError):
        pass
    t10 = math.tanh(math.pow(fs.clip(t9, 0, 2), (t2 * v7[0])))
    t11 = fs.maximum(fs.squared_loss([fs.squared_loss(x1, [1.0, 1.0, 1.0]), fs.log_softmax([(t10 ** -1), (t10 + t2)])[1]], [1.0, 1.0]), min(t2, x1[1]))
    return t11

ARGUMENTS = [np.array([[0.049, 1e+308, 100000.0], [0.5, -0.766, -3.0], [710.0, -1.0, 0.311], [-3.0, 0.628, 2.8], [0.973, 1e-200, 1.1], [1e-200, 0.5, -0.9745380486823404], [-0.5, 0.5, 0.468], [0.3, -3.0, 1e+200]])]
PLAN = [('found',), ('nest', [3, 0, 1, 2, 6, 4], 3), ('backward', True, None, 1), ('shared', 2, False, 1), ('backward', False, [3, 4, 0, 7, 5], 1)]
