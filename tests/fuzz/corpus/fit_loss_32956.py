# fit:loss differed
KIND = 'wild'
w1 = fs.to_tensor([[0.2661504066538685], [3.0], [-1.0], [2.0]])
w2 = fs.Tensor(-1.3)
table3 = [0.39141750427263283, 0.4211524202249743, -0.3, -2.536]

def f(x4, k5):
    t6 = max(w1[k5, k5 % 1], fs.minimum(max(x4, x4), abs(w1[0][0])), key=lambda e: -e)
    return t6

ARGUMENTS = [np.array([100000.0, 0.958, -1.5871963548577859, -1.578, 1.2950289620773519, 0.0]), np.array([2, 2, 1, 1, 0, 0])]
PLAN = [('call', 2), ('backward', False, None, 1), ('map', [4, 3, 1, 0, 5], 3), ('fit', 'SGD', 1, 1, 1)]
