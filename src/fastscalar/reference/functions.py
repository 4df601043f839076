"""The table of functions: value and derivative of each, and the special functions that Python does not have.

A function of the table becomes a method of Tensor.
"""

import math

from fastscalar.reference.framework import _DERIVATIVES, Tensor
from fastscalar.reference.numbers import is_number
from fastscalar.reference.operators import floor, ieee_power, quotient, whole_quotient


def _trunc(a):
    return math.copysign(floor(abs(a)), a)


def _of_finite(function):
    """As `floor` of a float: OverflowError of an infinity, ValueError of NaN."""

    def checked(a):
        math.floor(a)
        return function(a)

    return checked


def _quiet(function, a):
    """A function of `math` as IEEE 754 has it."""
    try:
        return function(a)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


def _sigmoid(a):
    e = math.exp(-abs(a))
    return 1.0 / (1.0 + e) if a >= 0.0 else e / (1.0 + e)


def _sigmoid_partial(a):
    e = math.exp(-abs(a))
    return e / ((1.0 + e) * (1.0 + e))


def _ndtr(a):
    return 0.5 * math.erfc(-a * 0.70710678118654752440)


def _normal_density(a):
    return 0.39894228040143267794 * math.exp(-0.5 * a * a)


def _digamma(x):
    """The derivative of lgamma: recurrence up to 10, then the asymptotic series (Abramowitz and Stegun 6.3)."""
    if x <= 0.0 and x == floor(x):
        raise ValueError(f"digamma({x!r}): outside the function's domain")
    if x < 0.0:
        return _digamma(1.0 - x) - math.pi / math.tan(math.pi * (x - floor(x + 0.5)))
    r = 0.0
    while x < 10.0:
        r, x = r - 1.0 / x, x + 1.0
    y = 1.0 / (x * x)
    series = 1 / 132 - (y * (691 / 32760 - y / 12))
    for coefficient in (1 / 240, 1 / 252, 1 / 120, 1 / 12):
        series = coefficient - y * series
    return r + math.log(x) - 0.5 / x - y * series


def _rint(x):
    return math.copysign(round(x), x) if math.isfinite(x) else x


def _finite_digamma(x):
    v = _digamma(x)
    if math.isinf(v) and not math.isinf(x):
        raise OverflowError(f"digamma({x!r}): the result is too large for a float")
    return v


def _trigamma(x):
    if x <= 0.0:
        if x == floor(x):
            return math.nan if math.isinf(x) else math.inf
        y = math.pi / math.sin(math.pi * (x - floor(x + 0.5)))
        return y * y - _trigamma(1.0 - x)
    r = 0.0
    while x < 10.0:
        r, x = r + quotient(1.0, x * x), x + 1.0
    y = 1.0 / (x * x)
    series = 5 / 66 - (y * (691 / 2730 - y * 7 / 6))
    for coefficient in (1 / 30, 1 / 42, 1 / 30, 1 / 6):
        series = coefficient - y * series
    return r + 1.0 / x + 0.5 * y + y / x * series


_EULER_MACLAURIN = 1 / 12, 1 / 720, 1 / 30240, 1 / 1209600, 1 / 47900160, 691 / 1307674368000


def _zeta(x, n):
    """n! (1 / x**(n + 1) + 1 / (x + 1)**(n + 1) + ...) for x > 0."""
    s, total = n + 1.0, 0.0
    while x < 10.0 + 2.0 * n:
        total, x = total + ieee_power(x, -s), x + 1.0
    y = quotient(1.0, x * x)
    t = y * (s + 11.0) * (s + 12.0) / 74724249600.0
    for k in range(5, 0, -1):
        t = y * (s + (2 * k - 1)) * (s + 2 * k) * (_EULER_MACLAURIN[k] - t)
    t = s * (1.0 / 12 - t)
    total = total + ieee_power(x, -n) * (1.0 / n + (0.5 + t / x) / x)
    for k in range(2, int(n) + 1):
        total = total * k
    return total


def _polygamma(a, b):
    """The derivative of order b, a whole number up to 100, of digamma."""
    if a != a or b != b:
        return a + b
    if b == 0.0:
        return _finite_digamma(a)
    if not 0.0 < b <= 100.0 or b != floor(b) or a == -math.inf:
        raise ValueError(f"polygamma({a!r}, {b!r}): outside the function's domain")
    sign = -1.0 if b % 2.0 == 0.0 else 1.0
    if a > 0.0:
        v = sign * _zeta(a, b)
    elif a == floor(a):
        raise ValueError(f"polygamma({a!r}, {b!r}): a pole")
    else:
        r = a - floor(a + 0.5)
        v = _zeta(1.0 - r if r > 0.0 else -r, b) + sign * _zeta(r if r > 0.0 else 1.0 + r, b) - _zeta(1.0 - a, b)
    if math.isinf(v):
        raise OverflowError(f"polygamma({a!r}, {b!r}): the result is too large for a float")
    return v


def _polygamma_partials(a, b, v):
    try:
        return _polygamma(a, b + 1.0), 0.0
    except OverflowError:
        above = a > 0.0 or a - floor(a + 0.5) > 0.0  # the pole that it is beside
        return (-math.inf if b % 2.0 == 1.0 and above else math.inf), 0.0
    except ValueError:
        return math.nan, 0.0


def _same_sign(a, b):
    return math.copysign(1.0, a) * math.copysign(1.0, b)


def _atan2_partial(a, b):
    """b / (a * a + b * b) without its overflow."""
    if a == 0.0 and b == 0.0:
        return 0.0
    if abs(a) > abs(b):
        r = b / a
        return r / (1.0 + r * r) / a
    r = quotient(a, b)
    return quotient(1.0 / (1.0 + r * r), b)


def _hypot_partials(a, b, v):
    if math.isinf(v):  # the first operand that is infinite outweighs the other
        first = math.isinf(a)
        by_b = math.copysign(1.0, b) if math.isinf(b) and not first else 0.0
        return (math.copysign(1.0, a) if first else 0.0), by_b
    return (a / v, b / v) if v else (0.0, 0.0)

_LN2, _LN10, _TWO_OVER_SQRT_PI = 0.69314718055994530942, 2.30258509299404568402, 1.12837916709551257390
_UNARY = {
    "exp": (math.exp, lambda a, v: v),
    "exp2": (math.exp2, lambda a, v: v * _LN2),
    "expm1": (math.expm1, lambda a, v: v + 1.0),
    "log": (math.log, lambda a, v: quotient(1.0, a)),
    "log2": (math.log2, lambda a, v: quotient(1.0, a * _LN2)),
    "log10": (math.log10, lambda a, v: quotient(1.0, a * _LN10)),
    "log1p": (math.log1p, lambda a, v: quotient(1.0, 1.0 + a)),
    "sqrt": (math.sqrt, lambda a, v: quotient(0.5, v)),
    "cbrt": (math.cbrt, lambda a, v: quotient(1.0, 3.0 * v * v)),
    "sin": (math.sin, lambda a, v: _quiet(math.cos, a)),
    "cos": (math.cos, lambda a, v: -_quiet(math.sin, a)),
    "tan": (math.tan, lambda a, v: 1.0 + v * v),
    "asin": (math.asin, lambda a, v: quotient(1.0, _quiet(math.sqrt, (1.0 - a) * (1.0 + a)))),
    "acos": (math.acos, lambda a, v: -quotient(1.0, _quiet(math.sqrt, (1.0 - a) * (1.0 + a)))),
    "atan": (math.atan, lambda a, v: 1.0 / (1.0 + a * a)),
    "sinh": (math.sinh, lambda a, v: _quiet(math.cosh, a)),
    "cosh": (math.cosh, lambda a, v: math.copysign(_quiet(math.sinh, abs(a)), a)),
    "tanh": (math.tanh, lambda a, v: (1.0 - v) * (1.0 + v)),
    "asinh": (math.asinh, lambda a, v: 1.0 / math.sqrt(a * a + 1.0) if abs(a) < 1e150 else 1.0 / abs(a)),
    "acosh": (
        math.acosh,
        lambda a, v: quotient(1.0, _quiet(math.sqrt, a - 1.0) * _quiet(math.sqrt, a + 1.0)),
    ),
    "atanh": (math.atanh, lambda a, v: quotient(1.0, (1.0 - a) * (1.0 + a))),
    "erf": (math.erf, lambda a, v: _TWO_OVER_SQRT_PI * math.exp(-a * a)),
    "erfc": (math.erfc, lambda a, v: -(_TWO_OVER_SQRT_PI * math.exp(-a * a))),
    "ndtr": (_ndtr, lambda a, v: _normal_density(a)),
    "lgamma": (math.lgamma, lambda a, v: _quiet(_digamma, a)),
    "gamma": (math.gamma, lambda a, v: v * _quiet(_digamma, a)),
    "digamma": (_finite_digamma, lambda a, v: _trigamma(a)),
    "abs": (abs, lambda a, v: 1.0 if a > 0.0 else -1.0 if a < 0.0 else a * 0.0),
    "sign": (lambda a: 1.0 if a > 0.0 else -1.0 if a < 0.0 else a, lambda a, v: 0.0),
    "floor": (_of_finite(floor), lambda a, v: 0.0),
    "ceil": (_of_finite(lambda a: -floor(-a)), lambda a, v: 0.0),
    "rint": (_rint, lambda a, v: 0.0),
    "trunc": (_of_finite(_trunc), lambda a, v: 0.0),
    "degrees": (math.degrees, lambda a, v: 180.0 / math.pi),
    "radians": (math.radians, lambda a, v: math.pi / 180.0),
    "sigmoid": (_sigmoid, lambda a, v: _sigmoid_partial(a)),
    "softplus": (
        lambda a: (0.0 if a <= 0.0 else a) + math.log1p(math.exp(-abs(a))),
        lambda a, v: _sigmoid(a),
    ),
    "silu": (
        lambda a: -0.0 if a < -1e3 else a * _sigmoid(a),
        lambda a, v: _sigmoid(a) if abs(a) > 1e3 else _sigmoid(a) * (1.0 + a * (1.0 - _sigmoid(a))),
    ),
    "gelu": (
        lambda a: -0.0 if a < -1e3 else a * _ndtr(a),
        lambda a, v: _ndtr(a) + (0.0 if abs(a) > 1e3 else a * _normal_density(a)),
    ),
}
_BINARY = {
    "minimum": (
        lambda a, b: a if a <= b or a != a else b,
        lambda a, b, v: (1.0, 0.0) if a <= b or a != a else (0.0, 1.0),
    ),
    "maximum": (
        lambda a, b: a if a >= b or a != a else b,
        lambda a, b, v: (1.0, 0.0) if a >= b or a != a else (0.0, 1.0),
    ),
    "atan2": (math.atan2, lambda a, b, v: (_atan2_partial(a, b), -_atan2_partial(b, a))),
    "hypot": (math.hypot, _hypot_partials),
    "copysign": (math.copysign, lambda a, b, v: (_same_sign(a, b), 0.0)),
    "fmod": (math.fmod, lambda a, b, v: (1.0, -whole_quotient(a, b, v))),
    "remainder": (math.remainder, lambda a, b, v: (1.0, -whole_quotient(a, b, v))),
    "leaky_relu": (
        lambda a, b: a if a > 0.0 or a != a else b * a,
        lambda a, b, v: (1.0 if a > 0.0 or a != a else b, 0.0 if a > 0.0 else a),
    ),
    "polygamma": (_polygamma, _polygamma_partials),
    "send": (lambda a, b: a * b if a and b else 0.0, lambda a, b, v: (b, a)),
    "elu": (
        lambda a, b: a if a > 0.0 or a != a else b * math.expm1(a),
        lambda a, b, v: (1.0, 0.0) if a > 0.0 else (1.0 if a != a else b * math.exp(a), math.expm1(a)),
    ),
}


def _register(name, value, partials):
    """A function of the table becomes a method of Tensor."""
    if name in _UNARY:

        def method(self):
            return Tensor(value(self._data), (self,), name)

        _DERIVATIVES[name] = lambda a, v: (partials(a, v),)
    else:

        def method(self, other):
            if not isinstance(other, Tensor):
                if not is_number(other):
                    raise TypeError(f"{name}: expected a Tensor or a real number, got {type(other).__name__}")
                other = Tensor(other, (), "const")
            return Tensor(value(self._data, other._data), (self, other), name)

        _DERIVATIVES[name] = partials
    setattr(Tensor, name, method)


for _name, (_value, _slopes) in (_UNARY | _BINARY).items():
    _register(_name, _value, _slopes)
