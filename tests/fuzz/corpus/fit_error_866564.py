# fit:error differed
KIND = 'tame'
w1 = fs.Tensor(-1.6)

def f(x2, k3):
    t4 = math.copysign(k3, w1)
    if (k3 != (k3 * k3) or fs.random.normal(3)[1] < 0.0):
        c5 = 0
        while fs.cross_entropy([(-k3), math.asinh(k3), math.cosh(0.25 * x2)], k3) >= 0.5 and c5 < 3:
            t4 = t4 * 1.5 + -0.75
            c5 += 1
            if k3 > 0:
                break
        t6 = (t4 / (x2 * x2 + 0.5))
        t4 = fs.sum(fs.random.uniform((2, 2)))
    elif not (k3 / (k3 * k3 + 0.5)) != fs.maximum(k3, 0.0):
        t7 = (k3 - t4)
        t7 = fs.loop(1, lambda z8: math.tanh((fs.random.bernoulli(abs(math.sin(t4))) - fs.random.normal())), t7)
        t4 = (k3 * fs.clip(x2, 0, 1.0))
    else:
        t4 = (-math.asin(0.9 * math.sin(w1)))
    return t4

ARGUMENTS = [np.array([0.575, -0.377, -0.107, 1.0, -0.884, -0.7]), np.array([0, 0, 2, 0, 1, 0])]
PLAN = [('found',), ('grad', [0], [2, 5, 4], 3), ('backward', False, [3, 2], 1), ('nest', [4, 2, 0], 1), ('fit', 'Adam', 2, 2, 1)]
