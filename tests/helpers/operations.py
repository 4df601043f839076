"""The rows of the operation table as functions, and points at which they are smooth."""

import operator
import random

from fastscalar.engine._functions import operations

ROWS = {name: (code, arity) for code, name, arity, _ in operations()}
DOMAIN = {  # where a function is smooth; elsewhere -3..3
    "log": (0.1, 9.0), "log2": (0.1, 9.0), "log10": (0.1, 9.0), "log1p": (-0.8, 9.0), "sqrt": (0.1, 9.0),
    "cbrt": (0.1, 9.0), "asin": (-0.9, 0.9), "acos": (-0.9, 0.9), "atanh": (-0.9, 0.9), "acosh": (1.1, 9.0),
    "lgamma": (0.2, 30.0), "digamma": (0.2, 30.0), "gamma": (0.2, 9.0), "tan": (-1.3, 1.3),
}  # fmt: skip

# Functions that arrays compute by series, within 4 ulp; the C library's are within one.  The scalar formulas of those
# at the end round their argument first, which is x^2 ulp.
BY_SERIES = {
    **dict.fromkeys(("exp", "tanh", "sigmoid", "log", "exp2", "expm1", "log2", "log10", "log1p", "cbrt", "sin", "cos",
                     "tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf", "erfc",
                     "softplus", "silu", "atan2"), 5),
    "**": 1, "pow": 1, "hypot": 1, "ndtr": 150, "gelu": 150,
}  # fmt: skip


OPERATORS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "**": operator.pow,
    "%": operator.mod,
    "//": operator.floordiv,
    "neg": operator.neg,
}


def operation(name):
    return OPERATORS.get(name) or (lambda *xs: getattr(xs[0], name)(*xs[1:]))


def difference(f, x, h=1e-3):
    """f'(x) to about 1e-11, of the fourth order; f may give an array."""
    return (f(x - 2 * h) - 8 * f(x - h) + 8 * f(x + h) - f(x + 2 * h)) / (12 * h)


def points(name, seed=0):
    draw = random.Random(f"{name} {seed}")
    low, high = DOMAIN.get(name, (-3.0, 3.0))
    if ROWS[name][1] == 1:
        return [(draw.uniform(low, high),) for _ in range(8)]
    if name == "polygamma":
        return [(draw.uniform(0.2, 9.0), float(n)) for n in range(6)]
    return [(draw.uniform(0.1, 3.0), draw.uniform(0.2, 3.0)) for _ in range(8)]
