# derive:lost differed
KIND = 'exact'

def f(x1, x2, k3, x4):
    t5 = abs(x2)
    t6 = (-k3)
    t6 = fs.while_loop(lambda z7: z7[1] < 0 and k3 == x1, lambda z7: (z7[0] + (x4 * x4), z7[1] + 1), (t6, 0))[0]
    v8w = [[x4 - 0 * j for j in range(3)] for i in range(3)]
    v8 = [0.0] * 3
    for i in range(3):
        for j in range(3):
            v8[j] = v8[j] + v8w[i][j] * [math.ceil(t6), math.sqrt(k3 * k3), max(k3, t6)][i]
    t9 = math.ceil(fs.maximum(v8[0], 0.0))
    t6 = fs.loop(3, lambda z10: z10 + (k3 * k3), t6)
    t11 = (fs.sign(k3) ** 2.0)
    return t11 - sum(v8) - float(fs.where(fs.argmax([e * t9 for e in v8]) == 2, t9, 0.0)) - 0.5

ARGUMENTS = [np.array([2.0, 1.0, 3.0, 1.0, 1.5, -0.5, 0.5, -3.0, 0.0, 1.5, 0.5, 0.0]), np.array([0.0, 0.5, 3.0, 0.5, -3.0, -0.5, 0.0, 0.0, 0.0, 0.0, 2.0, -0.5]), np.array([2, 0, 1, 2, 0, 1, 0, 1, 2, 1, 2, 1]), np.array([2.0, 0.0, -0.5, -0.5, 0.5, 0.0, -0.5, -1.0, -0.5, 3.0, -0.5, -0.5])]
PLAN = [('backward', True, None, 1), ('backward', False, None, 1), ('derive', None, True, 2), ('map', None, 1), ('derive', None, False, 3)]
