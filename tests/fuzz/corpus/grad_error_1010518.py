# grad:error differed
KIND = 'wild'
w1 = fs.Tensor(1.4)
w2 = fs.to_tensor([-0.2, 0.16006092248870715, -0.5661053365894003, 1.191])
w3 = [fs.Tensor(0.9), fs.Tensor(-0.8)]

def f(x4):
    t5 = fs.prod(w2)
    try:
        if t5 < 1:
            t6 = math.tanh((math.trunc(x4[0]) + abs(x4 - w2).sum()))
            t5 = ((w2[3] + t6) * fs.max([w3[1], t6, w2[1]]))
        else:
            t5 = ((t5 / t5) + (t5 * x4[1]))
        t5 = math.pow(math.tanh(t5), -0.5)
        t5 = t5 + (w3[1].detach()) ** 0.5
    except (ValueError, ZeroDivisionError):
        pass
    c7 = 0
    while ((w1 + x4[1]) == (t5 * x4[3]) or (w1 * w3[1]) >= (w2[2] if all(e <= 0 for e in w2) else w2[2])) and c7 < 4:
        if (t5 / t5) > abs(-2):
            t5 = (abs(w2 - w2).sum() * (w1 * w3[0]))
        t5 = math.tanh(t5 + 0.0)
        c7 += 1
        if not w3[0] <= 0.5:
            break
    return t5 + w3[0] + sum(x4)

ARGUMENTS = [np.array([[-0.4, 0.5, 1e+200, 0.4898718377414919], [inf, -0.9, 0.5, -1e-300], [nan, 0.5, -0.36, -2.0], [-0.991, -0.9136398902644397, -1e+200, -0.7285721849558952], [710.0, 3.0, 1.1814822866694923, 0.9], [1.481299159815737, 1.0, -0.4, 0.7], [-0.206931191425556, 0.353, -2.0, inf], [1.3, -0.588, -0.5, -0.756707978191862]])]
PLAN = [('backward', False, [0, 4, 1, 6], 1), ('grad', [0], [2, 4, 1, 3, 6, 5, 7], 1), ('backward', False, [2, 4, 1, 5], 1), ('grad', [0], [3, 7, 5, 2], 2)]
