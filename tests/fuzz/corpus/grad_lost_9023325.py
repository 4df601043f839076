# grad:lost differed
KIND = 'tame'
w1 = fs.Linear(2, 3, seed=1)
w2 = fs.Tensor(1.3293118437446263)

def f(x3, x4):
    t5 = w2
    for i6 in x4:
        t5 = t5 * 0.5 + (w2 + t5)
    if (w2 - t5) < math.cos(-2):
        t5 = ((0.0 if math.fmod(abs(w2) + 0.5, 2) >= 0.0 else w2) ** 1)
    elif 1.0 < x4[1] < -1.0:
        t5 = (x4 * x4).sum()
    t5 = fs.while_loop(lambda z7: z7[1] < 2 and (x4[0] * w2) > 0.0, lambda z7: (z7[0] * 0.5 + fs.where((z7[0] + t5) > 0, w2, 0.0), z7[1] + 1), (t5, 0))[0]
    t8 = math.tanh(abs(x4[2]))
    t9 = math.tanh(float(math.atan2(t5, -1.0)))
    return t9 - x3[0] - x4[0] - math.ceil((w2 - w2))

ARGUMENTS = [np.array([[0.0, 0.0], [-1.119, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.2324264049996729]]), np.array([[0.6, -0.167, 1.0], [-0.557, 1.5, 1.5], [-0.8, 0.549, -0.54], [2.0, 1.834, 1.9415490833090123], [1.5, -1.0, -0.8], [-0.373, -0.534, -0.1]])]
PLAN = [('rolled',), ('grad', [0], None, 1), ('change', 94), ('map', None, 1)]
