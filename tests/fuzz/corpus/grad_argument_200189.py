# grad:argument differed
KIND = 'wild'
w1 = fs.to_tensor([-0.1, 2.0, 1.4, 0.06])
w2 = [fs.Tensor(-0.5651733833427541), fs.Tensor(-3.0), fs.Tensor(-0.6)]
w3 = fs.Tensor(-0.691)
table4 = [-1.166, -0.026, 1.638, -0.296]

def f(k5, x6):
    t7 = w3
    if (t7 * t7) < -1.0:
        t7 = fs.softplus((w3 / w3))
    elif (w2[2] / t7) > fs.silu(w3):
        t7 = fs.maximum(math.fmod(t7, w3), 0.0)
    t8 = (w3 + w3)
    for i9 in w2:
        v10w = [[i9 * (0.1 * i - 0.2 * j) for j in range(3)] for i in range(3)]
        v10 = [0.0 - sum(v10w[i][j] * w2[i] for i in range(3)) for j in range(3)]
        v10 = [fs.maximum(e, 0.0) for e in v10]
        t8 = t8 * 0.5 + fs.where(fs.argmin(w2) == 2, k5, -2)
    t11 = math.tanh((math.copysign(fs.cross_entropy(x6, k5 % 1), (t8 - w3)) + min((t8 + k5), fs.clip(w2[2], k5, 2))))
    for i12 in range(2):
        t13 = fs.max([math.copysign(t11, t8), fs.where(w3 <= w1[2].detach(), i12, i12)])
        c14 = 0
        while sorted(w1)[3] <= (w3 + k5) and c14 < 3:
            t13 = t13 * 1.5 + -0.75
            c14 += 1
        t8 = t8 * 0.5 + w2[2].detach()
    try:
        t8 = math.exp(800.0 * fs.min(w2))
    except OverflowError:
        t8 = w2[0].detach()
    else:
        t8 = t8 + w2[-1].detach()
    finally:
        t8 = t8 * 0.5
    return t11 * sum(w2) * x6[0]

ARGUMENTS = [np.array([0, 1, 0, 2, 2, 2, 1, 0, 2, 2, 2, 2]), np.array([[-inf], [-0.574], [1e+200], [1e+200], [0.329], [-0.8555372561626038], [0.7], [-3.0], [1.826], [-0.9], [-1.8928631504879005], [0.5]])]
PLAN = [('modes', 8), ('backward', True, [5], 1), ('grad', [1], None, 3)]
