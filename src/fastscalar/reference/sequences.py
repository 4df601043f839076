"""Functions of Tensors and numbers, and of sequences of them."""

import math

from fastscalar.reference.framework import Tensor


def _lift(name):
    """A function of Tensors and numbers for a method of Tensor."""

    def function(x, *others):
        if isinstance(x, Tensor) or any(isinstance(y, Tensor) for y in others):
            return getattr(x if isinstance(x, Tensor) else Tensor(x, (), "const"), name)(*others)
        return getattr(Tensor(x), name)(*others).data

    return function


sigmoid, softplus, silu, gelu, sign = map(_lift, ["sigmoid", "softplus", "silu", "gelu", "sign"])
minimum, maximum = map(_lift, ["minimum", "maximum"])


def leaky_relu(x, slope=0.01):
    return _lift("leaky_relu")(x, slope)


def elu(x, alpha=1.0):
    return _lift("elu")(x, alpha)


def clip(x, low, high):
    return minimum(maximum(x, low), high)


def where(condition, a, b):
    chosen = a if condition else b
    return chosen if isinstance(chosen, Tensor) else Tensor(chosen)


# --- of sequences; never the built-in sum(), which compensates rounding since Python 3.12 ---


def total(xs):
    result = 0.0
    for x in xs:
        result = result + x
    return result


sum = total


def mean(xs):
    return total(xs) / len(xs)


def dot(xs, ys):
    return total([x * y for x, y in zip(xs, ys, strict=True)])


def prod(xs):
    result = 1.0
    for x in xs:
        result = result * x
    return result


def argmax(xs):
    """The place of the largest: the first of equals, the first NaN if there is one."""
    best = 0
    for k, x in enumerate(xs):
        if not (xs[best] >= x or xs[best] != xs[best]):
            best = k
    return best


def argmin(xs):
    best = 0
    for k, x in enumerate(xs):
        if not (xs[best] <= x or xs[best] != xs[best]):
            best = k
    return best


def max(xs):
    return xs[argmax(xs)]


def min(xs):
    return xs[argmin(xs)]


def _powers(xs):
    """exp(x - shift) of each, and the shift, the largest: exp() of anything larger could overflow.

    Where that is infinite, what they tend to: those at +inf have equal powers, all others 0.
    """
    shift = max(xs).data
    if not math.isinf(shift):
        return [(x - shift).exp() for x in xs], shift
    return [Tensor(x.data if x.data != x.data else float(x.data == shift > 0.0), (x,), "exp") for x in xs], shift


def logsumexp(xs):
    powers, shift = _powers(xs)
    whole = total(powers)
    return whole.log() + shift if whole.data != 0.0 else Tensor(shift, xs, "logsumexp")  # all -inf: no derivative


def softmax(xs):
    powers, _ = _powers(xs)
    whole = total(powers)
    return [p / whole for p in powers] if whole.data != 0.0 else powers


def log_softmax(xs):
    whole = logsumexp(xs)
    return [x - whole for x in xs]


def norm(xs):
    """sqrt(x[0]**2 + x[1]**2 + ...); where the squares would be too large or too small, of numbers scaled by 2**600."""
    if len(xs) == 2:
        return xs[0].hypot(xs[1])
    square = dot(xs, xs)
    if 1e-280 < square.data < 1e300:
        return square.sqrt()
    largest = Tensor(0.0)
    for x in xs:
        largest = where(abs(x) > largest, abs(x), largest)
    if largest == math.inf:
        return largest
    scale = 2.0**600 if largest > 2.0**500 else 2.0**-600 if largest < 2.0**-500 else 1.0
    scaled = [x / scale for x in xs]
    square = dot(scaled, scaled)
    return square.sqrt() * scale if square != 0.0 else square * 0.0  # the kink: all derivatives are 0
