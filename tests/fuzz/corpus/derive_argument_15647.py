# derive:argument differed
KIND = 'wild'
w1 = [fs.Tensor(1.2), fs.Tensor(1.4959908307174248)]

def f(x2):
    v3 = fs.softmax(x2)
    t4 = fs.where(sum(e * e for e in [(v3[5] ** 1), w1[-1], x2[7]]) <= 2.0, math.sinh(0.25 * 0), (x2[10] - 1.0))
    t5 = math.tanh((3 - t4))
    v6w = [[t5 * (0.1 * i - 0.2 * j) for j in range(3)] for i in range(3)]
    v6 = [sum([t4, (t5 * t4), abs(x2 - x2).sum()][i] * v6w[i][j] for i in range(3)) + t5 for j in range(3)]
    v6 = [math.tanh(e) for e in v6]
    t7 = t5
    t8 = math.tanh(v6[1])
    for i9 in w1:
        m10 = max(v3)
        v11 = [math.exp(e - m10) for e in v3]
        v12 = [e / sum(v11) for e in v11]
        t8 = t8 * 0.5 + t5
    return t8 * sum(v3)

ARGUMENTS = [np.array([[710.0, -0.05241944615606307, -0.0, -0.17618994015182285, 1.0, -0.6, -0.04952004583444439, 1.0, -inf, -0.3, -1.4, 0.2, 2.0, -2.0, 1.0, 0.08976968935787027], [-1e-300, 0.4, -0.313, -2.0, 0.0, -0.598, 1.966, 1.3, 0.685, 0.787, 0.694, 0.5, -0.9, -3.0, -3.0, -0.987486696807009], [-0.658, 0.3, 1.0, 0.0, 1e+200, 3.0, 1.0489476474152553, 0.5, 2.611, 0.7532209787056412, -0.9, inf, -0.0, 0.5, inf, 1.6249074560419776]])]
PLAN = [('derive', None, True, 1), ('new',), ('grad', [0], None, 2)]
