# backward:lost differed
KIND = 'wild'
w1 = fs.to_tensor([1.5, -1.273])
@fs.compile
def h2(a, b):
    v3w = [[math.tanh(0.5) ** 2 * (j + 1) for j in range(3)] for i in range(2)]
    v3 = [0.0] * 3
    for i in range(2):
        for j in range(3):
            v3[j] = v3[j] + v3w[i][j] * [(a * b), float(math.copysign(1.0, b))][i]
    return fs.logsumexp(v3) + a
table4 = [0.286, -0.164, 2.2]

def f(x5, x6):
    v7w = [[math.sin(w1[0] + i * w1[-1] + j) for j in range(3)] for i in range(2)]
    v7 = [0.0 - sum(v7w[i][j] * w1[i] for i in range(2)) for j in range(3)]
    v7 = [fs.relu(e) for e in v7]
    t8 = (x5 - x5)
    t8 = fs.loop(0, lambda z9: math.tanh(math.pow(abs(v7[2].item()) + 0.5, 2)), t8)
    t10 = math.erf((x5 - t8))
    if max(v7[1], v7[-1]) > fs.squared_loss(v7, [1.0, 1.0, 1.0]):
        t11 = ((max(x5, 3) / (fs.min([v7[0], w1[1], v7[1]]) * fs.min([v7[0], w1[1], v7[1]]) + 0.5)) / (x6 * x6 + 0.5))
        t8 = fs.softplus(t11)
    else:
        t8 = h2(fs.Tensor(0.0) + (x6 / (t8 * t8 + 0.5)), t8)
    v12 = v7
    t13 = (t10 - (x5 + x6))
    return t13 * v7[1]

ARGUMENTS = [np.array([-0.58, 710.0, 0.9, 0.5, 1.5267365880263275, 0.2, 0.01721234796989858, -0.4916708737621993, 0.7]), np.array([-1.8, -0.3, 1.0, 100000.0, -0.044, 5e-324, -0.6, -0.1528587601462122, 0.2591919989778295])]
PLAN = [('map', [0, 4, 5, 7, 1, 2, 6], 1), ('shared', 8, True, 1), ('grad', [1, 0], [8, 5, 6], 1), ('fit', 'SGD', 3, 1, 1), ('nest', [8, 3, 4], 2), ('backward', True, [8], 1), ('fit', 'Adam', 9, 2, 1)]
