# grad:argument differed
KIND = "wild"
h2 = fs.custom_op(lambda a, b: a * b, lambda a, b: (b, a), name="h2")


def f(x3):
    t4 = h2(x3[1], 1.0)
    return t4


ARGUMENTS = [np.array([[1.0, -inf, -1.0], [1.0, nan, 2.0], [0.5, 2.0, 1.0]])]
PLAN = [("grad", [0], None, 1), ("map", [2, 1, 0], 1), ("derive", None, False, 2)]
