# derive:lost differed
KIND = 'wild'
table1 = [-1.0945216201225325, 0.0, -3.0]

def f(x2, x3):
    t4 = math.floor(x2[0, 0])
    for i5 in x3:
        t4 = t4 * 0.5 + (i5 * t4)
    t4 = fs.loop(2, lambda z6: math.tanh(x3[2].detach()), t4)
    if 0 <= t4 <= t4:
        t4 = float(t4)
    else:
        with fs.no_grad():
            t4 = ((x3[2] + x3[0]) - fs.softmax([math.tanh(e) for e in x3])[1])
        t4 = math.tan(fs.maximum(x3[-2], t4))
    v7 = list([fs.clip(t4, -1.0, 2), sorted([x3[2], t4, t4])[1]])
    return t4 + x3[1]

ARGUMENTS = [np.array([[[1e-200, -1.1], [-1.5304957031764492, 0.5], [0.7338371208897027, 1.0]], [[710.0, -1.3], [-inf, 1.286], [-1.9, 1.0]]]), np.array([[0.6, -0.305, 1.505], [1e+200, -2.0, -0.814]])]
PLAN = [('rolled',), ('derive', None, True, 1), ('derive', [0], False, 1)]
