# backward:value differed
KIND = "wild"


def f(x3):
    a5 = np.sort(x3)
    return a5[0]


ARGUMENTS = [np.array([[nan, -1.0, 1.0], [2.0, -1.0, 1.0]])]
PLAN = [("backward", False, None, 2), ("nest", None, 1), ("map", [1, 0], 1)]
