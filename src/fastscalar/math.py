"""A drop-in for Python's `math` that takes numbers and Tensors: `from fastscalar import math`.

Of plain numbers every function is that of Python's `math` itself, errors included; with a Tensor among the arguments it
records and returns a Tensor with the value that Python gives, and raises the type of exception that Python raises; of a
TensorArray, element by element and as IEEE 754 has it, a TensorArray.  Python's own `math.exp(t)` would quietly return
a plain number, and the gradient would be gone.

What is different with Tensors:
1. Values have the bits that Python gives, but for `lgamma` and `gamma` (Python has code of its own; they differ by
   about 2e-15 of the larger of 1 and the value), `hypot` and `dist` of three or more numbers (some units in the last
   place), and `hypot` where the result is below 2.2e-308.  `fsum`, `sumprod` and `fma` round each step.
2. `floor`, `ceil`, `trunc` give Tensors, not ints; like `ulp` they have the derivative 0.  (Of plain numbers they give
   ints, in a program of numbers too that are computed from whole numbers of a row alone.)
3. `frexp` gives the exponent as an int, and a mantissa that records.
4. What takes whole numbers (`comb`, `gcd`, `isqrt` ...) takes no Tensors.
5. While a program is recorded nothing here reads a value: `isnan`, `isinf` and `isfinite` are comparisons, which
   `fastscalar.where` takes without a decision.

>>> from fastscalar import Tensor, math
>>> x = Tensor(1.0)
>>> y = math.exp(math.sin(x)) + math.pi
>>> y.backward()
>>> math.isclose(x.grad, math.exp(math.sin(1.0)) * math.cos(1.0))
True
"""

from __future__ import annotations

import math as _math
import operator as _operator
import sys as _sys
from collections.abc import Iterable
from fractions import Fraction as _Fraction
from math import *  # noqa: F403 - what takes no Tensor (comb, gcd, pi ...), and prod, which multiplies what it is given
from typing import Any

from fastscalar import functions as _functions
from fastscalar._core import Tensor as _Tensor
from fastscalar.engine._array import TensorArray as _TensorArray
from fastscalar.engine._functions import function_of as _table_function
from fastscalar.engine._functions import operation as _operation
from fastscalar.engine._functions import operations as _operations
from fastscalar.engine._traced import as_whole as _as_whole
from fastscalar.engine.functions import of_arrays as _of_arrays
from fastscalar.engine.functions import public_function as _public_function

_LARGEST = _sys.float_info.max
_SMALLEST = 5e-324


def _drop_in(code: int, name: str) -> Any:
    """The function of `math` for numbers, the row of the operation table for Tensors and arrays."""
    plain = getattr(_math, name)

    def otherwise(*operands: Any) -> Any:
        if any(isinstance(x, _TensorArray) for x in operands):
            return _of_arrays(name, *operands)
        return plain(*operands)

    function = _table_function(code, otherwise)
    function.__doc__ = plain.__doc__
    function.__module__ = __name__
    return function


for _code, _name, _arity, _is_method in _operations():
    if _is_method and hasattr(_math, _name):
        globals()[_name] = _drop_in(_code, _name)
    elif _operation(_code)["kind"] == "of math":
        globals()[_name] = _public_function(_name)



def _of_an_int(name: str) -> Any:
    """One that gives an int of a float: see `as_whole`."""
    function, plain = globals()[name], getattr(_math, name)

    def rounded(x: Any, /) -> Any:
        return _as_whole(function, plain, x) if type(x) is _Tensor else function(x)

    rounded.__name__ = rounded.__qualname__ = name
    rounded.__doc__, rounded.__module__ = function.__doc__, __name__
    return rounded


for _name in ("floor", "ceil", "trunc"):
    globals()[_name] = _of_an_int(_name)

_log = globals()["log"]
_hypot = globals()["hypot"]


def _recorded(*operands: Any) -> bool:
    return any(isinstance(x, (_Tensor, _TensorArray)) for x in operands)


def _scalars(name: str, *operands: Any) -> bool:
    """Whether there is a Tensor among the operands; TypeError if there is an array."""
    for x in operands:
        if isinstance(x, _TensorArray):
            raise TypeError(f"{name}: expected a Tensor or a real number, got TensorArray")
    return _recorded(*operands)


def log(x: Any, *base: Any) -> Any:
    """The natural logarithm, or the one to a base: log(x) / log(base)."""
    if not base:
        return _log(x)
    return _log(x) / _log(*base) if _recorded(x, *base) else _math.log(x, *base)


def pow(x: Any, y: Any, /) -> Any:
    """x ** y; zero to a negative power is a ValueError, as in Python's `math`."""
    if not _recorded(x, y):
        return _math.pow(x, y)
    try:
        return x**y
    except ZeroDivisionError as error:
        raise ValueError(str(error)) from None


def fabs(x: Any, /) -> Any:
    """The absolute value; its derivative at 0 is 0."""
    return abs(x) if _recorded(x) else _math.fabs(x)


def fma(x: Any, y: Any, z: Any, /) -> Any:
    """x * y + z; of plain numbers rounded once, with Tensors after each operation, as the operators have it."""
    if _recorded(x, y, z):
        return x * y + z
    plain = getattr(_math, "fma", _rounded_once)  # Python's own since 3.13
    return plain(x, y, z)


def _rounded_once(x: float, y: float, z: float) -> float:
    if not (_math.isfinite(x) and _math.isfinite(y)):
        value = x * y + z
        if _math.isnan(value) and not (_math.isnan(x) or _math.isnan(y) or _math.isnan(z)):
            raise ValueError("invalid operation in fma")
        return value
    if not _math.isfinite(z):
        return float(z)
    value = float(_Fraction(x) * _Fraction(y) + _Fraction(z))  # OverflowError
    return value if value or (x and y) else x * y + z  # a product of zero: the sign is that of the sum


# --- distances and sums ---------------------------------------------------------------------------


def hypot(*coordinates: Any) -> Any:
    """sqrt(x*x + y*y + ...) without overflow or underflow on the way; at the origin all its derivatives are 0."""
    if not _recorded(*coordinates):
        return _math.hypot(*coordinates)
    if len(coordinates) == 1:
        return abs(coordinates[0])
    if len(coordinates) == 2:
        return _hypot(*coordinates)
    if any(isinstance(x, _TensorArray) for x in coordinates):
        return _hypot(coordinates[0], hypot(*coordinates[1:]))
    return _functions.norm(coordinates)


def dist(p: Iterable[Any], q: Iterable[Any], /) -> Any:
    """The Euclidean distance of two points."""
    p, q = list(p), list(q)
    if not _recorded(*p, *q):
        return _math.dist(p, q)
    if len(p) != len(q):
        raise ValueError(f"dist: both points must have the same number of dimensions, got {len(p)} and {len(q)}")
    return hypot(*[a - b for a, b in zip(p, q, strict=True)])


def fsum(xs: Iterable[Any], /) -> Any:
    """The sum; of plain numbers exactly rounded, with Tensors added in order."""
    xs = list(xs)
    if not _recorded(*xs):
        return _math.fsum(xs)
    total = _functions.sum(xs)
    if not isfinite(total):
        up, down = any(x == _math.inf for x in xs), any(x == -_math.inf for x in xs)
        if up and down:
            raise ValueError("fsum: -inf + inf")
        if not (up or down or any(isnan(x) for x in xs)):
            raise OverflowError("fsum: the sum of finite numbers is too large for a float")
    return total


def sumprod(p: Iterable[Any], q: Iterable[Any], /) -> Any:
    """p[0] * q[0] + p[1] * q[1] + ...; of plain numbers exactly rounded, with Tensors added in order."""
    p, q = list(p), list(q)
    if len(p) != len(q):
        raise ValueError(f"sumprod: inputs are not the same length, {len(p)} and {len(q)}")
    if _recorded(*p, *q):
        return _functions.dot(p, q)
    if hasattr(_math, "sumprod"):  # since 3.12
        return _math.sumprod(p, q)
    if all(isinstance(x, int) or (isinstance(x, float) and _math.isfinite(x)) for x in (*p, *q)):
        exact = sum((_Fraction(a) * _Fraction(b) for a, b in zip(p, q, strict=True)), _Fraction(0))
        return float(exact) if any(isinstance(x, float) for x in (*p, *q)) else int(exact)
    return sum(a * b for a, b in zip(p, q, strict=True))


# --- looking at a number --------------------------------------------------------------------------


def isnan(x: Any, /) -> bool:
    """Whether x is NaN."""
    return x != x if isinstance(x, _Tensor) else _math.isnan(x)


def isinf(x: Any, /) -> bool:
    """Whether x is an infinity."""
    return abs(x) == _math.inf if isinstance(x, _Tensor) else _math.isinf(x)


def isfinite(x: Any, /) -> bool:
    """Whether x is neither an infinity nor NaN."""
    return abs(x) < _math.inf if isinstance(x, _Tensor) else _math.isfinite(x)


def isclose(a: Any, b: Any, *, rel_tol: Any = 1e-09, abs_tol: Any = 0.0) -> bool:
    """Whether a and b differ by at most rel_tol of the larger one, or by at most abs_tol."""
    if not _scalars("isclose", a, b, rel_tol, abs_tol):
        return _math.isclose(a, b, rel_tol=rel_tol, abs_tol=abs_tol)
    if rel_tol < 0.0 or abs_tol < 0.0:
        raise ValueError("tolerances must be non-negative")
    if a == b:
        return True
    if isinf(a) or isinf(b):
        return False
    difference = abs(a - b)
    return bool(difference <= abs(rel_tol * a) or difference <= abs(rel_tol * b) or difference <= abs_tol)


# --- the parts of a number ------------------------------------------------------------------------


def modf(x: Any, /) -> tuple[Any, Any]:
    """The fractional and the integer part, both with the sign of x."""
    if not _recorded(x):
        return _math.modf(x)
    fraction = x.maximum(-_LARGEST).minimum(_LARGEST).fmod(1.0)  # that of an infinity is 0
    return fraction, (x - fraction).copysign(x)


def _exponent(x: Any) -> int:
    """The e with 2**(e - 1) <= abs(x) < 2**e, by comparisons; 0 for 0, infinities and NaN."""
    size = abs(x)
    if size == 0.0 or not size < _math.inf:
        return 0
    low, high = -1074, 1024
    while high - low > 1:
        middle = (low + high) // 2
        if size < 2.0**middle:
            high = middle
        else:
            low = middle
    return high


def frexp(x: Any, /) -> tuple[Any, int]:
    """(m, e) with x == m * 2**e and 0.5 <= abs(m) < 1.  The mantissa records; the exponent is a constant of it."""
    if not _scalars("frexp", x):
        return _math.frexp(x)
    e = _exponent(x)
    return ldexp(x, -e), e


def ldexp(x: Any, i: Any, /) -> Any:
    """x * 2**i, rounded once."""
    if not _recorded(x):
        return _math.ldexp(x, i)
    if not hasattr(type(i), "__index__"):
        raise TypeError(f"ldexp: expected an int as second argument, got {type(i).__name__}")
    left = max(-2200, min(2200, _operator.index(i)))
    value = x
    while left > 1023:  # in steps: 2.0**i itself may be too large or too small
        value, left = value * 2.0**1023, left - 1023
    while left < -1022:
        step = max(left + 1022, -1022)  # the last step alone rounds
        value, left = value * 2.0**step, left - step
    value = value * 2.0**left
    if isinstance(x, _Tensor) and isinf(value) and not isinf(x):
        raise OverflowError(f"ldexp(x, {i}): the result is too large for a float")
    return value


def ulp(x: Any, /) -> Any:
    """The value of the least significant bit of x; a Tensor whose derivative is 0."""
    if not _scalars("ulp", x):
        return _math.ulp(x)
    if isnan(x):
        return _Tensor(_math.nan)
    if isinf(x):
        return _Tensor(_math.inf)
    return _Tensor(_SMALLEST if x == 0.0 else 2.0 ** max(_exponent(x) - 53, -1074))


def nextafter(x: Any, y: Any, /, **steps: int) -> Any:
    """The next float after x towards y; the derivative by x is 1, by y 0.  `steps` (Python 3.12): that many floats."""
    if not _scalars("nextafter", x, y):
        return _math.nextafter(x, y, **steps)
    count = _operator.index(steps.pop("steps", 1))
    if steps:
        raise TypeError(f"nextafter: unexpected keyword argument {next(iter(steps))!r}")
    if count < 0:
        raise ValueError("nextafter: steps must be a non-negative integer")
    value = x if isinstance(x, _Tensor) else _Tensor(x)
    if isnan(value) or isnan(y):
        return value + y
    for _ in range(count):
        if value == y:
            return value.copysign(y)  # -0.0 towards 0.0 is 0.0
        value = _next(value, y)
    return value


def _next(x: Any, y: Any) -> Any:
    if x < 0.0:
        return -_next(-x, -y)
    if x == 0.0:
        return x + (_SMALLEST if y > x else -_SMALLEST)
    if isinf(x):
        return _Tensor(_LARGEST)
    e = _exponent(x)
    step = 2.0 ** max(e - 53, -1074)
    if y > x:
        return x + step
    return x - (step / 2.0 if step > _SMALLEST and x == 2.0 ** (e - 1) else step)  # below it floats are twice as dense
