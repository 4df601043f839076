"""The operators of a Tensor beside + - *, and the context in which nothing is recorded.

Values raise as Python's floats do.  Derivatives follow IEEE 754: nothing raises there, since a value may have been
changed since the forward pass.
"""

import math

from fastscalar.reference import framework
from fastscalar.reference.framework import _DERIVATIVES, Tensor, operator


def method(function):
    """Put it into Tensor."""
    setattr(Tensor, function.__name__, function)
    return function


@method
def detach(self):
    return Tensor(self._data)


@method
def __neg__(self):
    return Tensor(-self._data, (self,), "neg")


@method
def __abs__(self):
    return self.abs()


@method
def __divmod__(self, other):
    return self // other, self % other


@method
def __rdivmod__(self, other):
    return other // self, other % self


Tensor._prev = property(lambda self: self._parents, doc="The same as `_parents`, the name that micrograd has for it.")


def _dividing(op, divide):
    def checked(a, b):
        if b == 0.0:
            raise ZeroDivisionError(f"{a!r} {op} {b!r}: division by zero")
        return divide(a, b)

    return checked


def _is_complex(a, b):
    """Whether a**b is not a real number.  Python would compute it, or overflow while it does."""
    return a < 0.0 and math.isfinite(a) and math.isfinite(b) and not b.is_integer()


def _power(a, b):
    if _is_complex(a, b):
        raise ValueError(f"{a!r} ** {b!r}: the result is complex (a negative base needs an integer exponent)")
    try:
        return a**b
    except ZeroDivisionError:
        raise ZeroDivisionError(f"{a!r} ** {b!r}: zero to a negative power") from None
    except OverflowError:
        raise OverflowError(f"{a!r} ** {b!r}: the result is too large for a float") from None


Tensor.__truediv__, Tensor.__rtruediv__ = operator("/", _dividing("/", lambda a, b: a / b))
Tensor.__mod__, Tensor.__rmod__ = operator("%", _dividing("%", lambda a, b: a % b))
Tensor.__floordiv__, Tensor.__rfloordiv__ = operator("//", _dividing("//", lambda a, b: a // b))
Tensor.__pow__, Tensor.__rpow__ = operator("**", _power)


# --- derivatives ---


def quotient(a, b):
    if b != 0.0:
        return a / b
    return math.copysign(1.0, b) * a * math.inf  # 0 / 0 and nan / 0 are nan


def ieee_power(a, b):
    if _is_complex(a, b):
        return math.nan
    try:
        return a**b
    except (ZeroDivisionError, OverflowError):
        odd = b % 2.0 == 1.0
        return math.copysign(math.inf, a) if odd else math.inf


def _power_partials(a, b, v):
    by_base = 0.0 if b == 0.0 else b * ieee_power(a, b - 1.0)
    by_exponent = v * math.log(a) if a > 0.0 else 0.0 if a == 0.0 and b >= 0.0 else math.nan
    return by_base, by_exponent


def floor(a):
    return math.copysign(float(math.floor(a)), a) if math.isfinite(a) else a


def whole_quotient(a, b, v):
    """The whole n with v = a - n * b; a / b alone would miss it by one beside a multiple of b."""
    return floor(quotient(a, b) - quotient(v, b) + 0.5)


_DERIVATIVES.update(
    {
        "/": lambda a, b, v: (quotient(1.0, b), -quotient(v, b)),
        "**": _power_partials,
        "neg": lambda a, v: (-1.0,),
        "%": lambda a, b, v: (1.0, -whole_quotient(a, b, v)),
        "//": lambda a, b, v: (0.0, 0.0),
    }
)


class no_grad:
    """Operations inside this context are not recorded: their results are leaves."""

    def __enter__(self):
        self._before, framework._recording = framework._recording, False

    def __exit__(self, *exc):
        framework._recording = self._before
