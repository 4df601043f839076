# derive:lost differed
KIND = 'tame'
w1 = fs.to_tensor([-3.0, 0.6, 0.996, 0.5])

def f(x2, x3, x4):
    t5 = (float(fs.where((x3[1] * x4) == 0.0, 3, x2[0])) / (math.fmod(abs((x4 * x4)) + 0.5, 3.0) * math.fmod(abs((x4 * x4)) + 0.5, 3.0) + 0.5))
    t6 = fs.maximum(t5, x4)
    if w1[2].item() < -1.0:
        if fs.maximum(3, x2[-1]) > -2:
            t5 = (-fs.sign(x3[2]))
        elif (min(-2, 1.0) <= abs(w1 - w1).sum() or x2[0].detach() <= 1):
            t5 = (math.radians(t5) - fs.maximum(t5, 0.0))
        t6 = fs.clip((t6 * x2[0]), 0, 1.0)
    elif fs.leaky_relu(x3[0], 2) > 0.0:
        if ((x4 * t5) < t5 and float((t6 * x4)) >= fs.softplus(t5)):
            t7 = 1.0 + abs(x4)
            c8 = 0
            while abs((t7 * t7 - 2.0)) > 1e-3 and c8 < 6:
                t7 = 0.5 * (t7 + 2.0 / t7)
                c8 += 1
            t6 = t7
        t6 = ((x2[0] * x4) - fs.where(x2[0].item() <= math.copysign(t5, x4), w1[0], x3[-3]))
    else:
        return fs.min(x2)
    if fs.clip(t6, 0, x2[0]) == abs(w1 - w1).sum():
        t5 = (fs.maximum(t5, t5) * max(x4, x4))
    t9 = (t5 * (fs.where(max(t5, -2) >= -1.0, t5, -1.0) + w1[2].detach()))
    t10 = math.tanh(fs.log_softmax([math.atan2(e, t5) for e in x3])[2])
    return t10

ARGUMENTS = [np.array([[0.5], [-3.0], [-2.0]]), np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), np.array([-0.5, 0.7, 0.6522295164564851])]
PLAN = [('found',), ('derive', [0, 2], False, 3), ('derive', [0], True, 1), ('shared', 0, False, 2), ('shared', 0, True, 1), ('new',), ('backward', False, None, 1)]
