# backward:leaf differed
KIND = 'exact'
w1 = fs.Tensor(2.0)

def f(x2):
    t3 = w1
    c4 = 0
    while (math.ceil(w1) < -1.0 or math.sqrt(t3 * t3) >= fs.where(1 - w1 >= x2[0].detach(), t3, 3)) and c4 < 4:
        t3 = t3 - w1
        c4 += 1
    return t3 * max(sum((e for e in [abs(e) for e in x2] if e > 0)), fs.leaky_relu(x2[0], 0.5), key=lambda e: -e)
ARGUMENTS = [np.array([[-3.0]])]
PLAN = [('backward', False, None, 1)]
