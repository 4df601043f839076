# map:message differed
KIND = 'exact'

def f(k1, k2):
    t3 = 1.0
    c4 = 0
    while c4 < 4:
        t3 = t3 - t3
        c4 += 1
    v6w = [[t3 - t3 * j for j in range(3)] for i in range(2)]
    v6 = []
    for j in range(3):
        s = t3
        for i in range(2):
            s = s + [fs.clip(t3, -1.0, 2), k2 - t3][i] * v6w[i][j]
        v6.append(s)
    t3 = v6[abs(k1) % 3]
    v10 = sorted([k2 // t3, -t3])
    return t11 * sum(v10) * k2
ARGUMENTS = [np.array([2]), np.array([2])]
PLAN = [('map', None, 2)]
