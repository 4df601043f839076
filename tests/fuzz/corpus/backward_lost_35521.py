# backward:lost differed
KIND = 'exact'
w1 = fs.to_tensor([-0.5, -3.0])
w2 = fs.Tensor(-3.0)
w3 = [fs.Tensor(-0.5), fs.Tensor(-2.0), fs.Tensor(0.5)]
@fs.compile
def h4(a, b):
    return float(math.trunc(a)) + a

def f(x5, x6, x7):
    t8 = (w2 * x5)
    try:
        t8 = math.floor(t8) + 0.0 * (math.log(math.floor(t8)))
    except ValueError:
        t8 = fs.sign(min(x5, t8))
    t9 = (max(w2, 0.5, key=lambda e: e * e) - h4(fs.Tensor(0.0) + 0, t8))
    try:
        t9 = math.sqrt(fs.min([x6[0], x7, t9]))
        t9 = t9 + h4(fs.Tensor(0.0) + x7, w1[0]) % w2
    except ValueError:
        t9 = abs(h4(fs.Tensor(0.0) + t9, t9))
    return t9 + t8

ARGUMENTS = [np.array([0.5, 0.5]), np.array([[1.0], [-3.0]]), np.array([-1.0, -2.0])]
PLAN = [('backward', False, None, 3), ('map', None, 1), ('backward', False, [1], 1), ('call', 1)]
