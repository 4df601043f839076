# backward:accumulate differed
KIND = 'tame'
w1 = fs.to_tensor([[0.244, 0.0], [0.558, -0.5698714543314234], [2.0, -0.5]])

def f(x2):
    t5 = w1[2][1]
    c6 = 0
    while math.pow(t5, w1[2, 0]) and c6:
        c6 += 1
    return 1.0
ARGUMENTS = [np.array([-0.526980966970064])]
PLAN = [('backward', True, None, 1)]
