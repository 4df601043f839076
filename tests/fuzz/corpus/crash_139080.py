# crash differed
# crash differed
KIND = 'wild'
w3 = fs.to_tensor([[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, 1.0, -1.0]])

def f(x4):
    t6 = w3[1, 2]
    for i9 in range(12):
        v10 = fs.softmax([x4, t6])
        t6 = math.tanh(t6 + len(f'{v10[0]:.1f}'))
    return 1.0
ARGUMENTS = [np.array([-1.0])]
PLAN = [('found',), ('backward', False, None, 1)]
