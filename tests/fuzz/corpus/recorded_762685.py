# recorded differed
KIND = 'wild'
w1 = fs.Tensor(0.313597543055692)
w2 = [fs.Tensor(-1.042120785648379), fs.Tensor(-3.0)]

def f(x3):
    t4 = 1
    v5 = [e + w1 for e in w2]
    t4 += math.copysign(t4, w1)
    t4 = fs.while_loop(lambda z6: z6[1] < 2 and 0.5 <= t4 <= t4, lambda z6: (math.tanh(x3[2]), z6[1] + 1), (t4, 0))[0]
    t7 = w1 if fs.dot(v5, v5) > 1.0 else w1
    c8 = 0
    while w1 - v5[1] >= t4 ** 3 and c8 < 4:
        c8 += 1
    return t7 + sum(x3) + fs.min([t4 - w1, t4, fs.gelu(t7)]) + 0.5
ARGUMENTS = [np.array([[0.5, 1.3, 1e+308], [0.7, -0.3, 1e+308], [1.2, nan, inf], [0.758, 0.4, nan], [1e-300, 0.5, -1e+200], [0.1, -0.2, 0.3]])]
PLAN = [('threads',)]
