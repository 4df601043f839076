"""A drop-in for Python's `math` that takes numbers and Tensors: `from fastscalar import math`.

Of plain numbers every function is that of Python's `math` itself, errors included; with a Tensor among the arguments it
records and returns a Tensor; of a TensorArray, element by element, a TensorArray.  Python's own `math.exp(t)` would
quietly return a plain number, and the gradient would be gone.

>>> from fastscalar import Tensor, math
>>> x = Tensor(1.0)
>>> y = math.exp(math.sin(x)) + math.pi
>>> y.backward()
>>> math.isclose(x.grad, math.exp(math.sin(1.0)) * math.cos(1.0))
True
"""

from __future__ import annotations

import math as _math
from collections.abc import Iterable
from math import *  # noqa: F403 - what takes no Tensor, or where only the value counts (isnan, comb, pi ...)
from typing import Any

from fastscalar import functions as _functions
from fastscalar._array import TensorArray as _TensorArray
from fastscalar._core import Tensor as _Tensor
from fastscalar._core import _function as _table_function
from fastscalar._core import operations as _operations


def _drop_in(code: int, name: str) -> Any:
    """The function of `math` for numbers, the row of the operation table for Tensors and arrays."""
    plain = getattr(_math, name)

    def otherwise(*operands: Any) -> Any:
        if isinstance(operands[0], _TensorArray):
            return getattr(operands[0], name)(*operands[1:])
        return plain(*operands)

    function = _table_function(code, otherwise)
    function.__doc__ = plain.__doc__
    function.__module__ = __name__
    return function


for _code, _name, _arity, _is_method in _operations():
    if _is_method and hasattr(_math, _name):
        globals()[_name] = _drop_in(_code, _name)

_log = globals()["log"]
_hypot = globals()["hypot"]
digamma = _functions.digamma
ndtr = _functions.ndtr


def _recorded(*operands: Any) -> bool:
    return any(isinstance(x, (_Tensor, _TensorArray)) for x in operands)


def log(x: Any, *base: Any) -> Any:
    """The natural logarithm, or the one to a base: log(x) / log(base)."""
    if not base:
        return _log(x)
    return _log(x) / _log(base[0]) if _recorded(x, *base) else _math.log(x, *base)


def pow(x: Any, y: Any, /) -> Any:
    """x ** y."""
    return x**y if _recorded(x, y) else _math.pow(x, y)


def fabs(x: Any, /) -> Any:
    """The absolute value; its derivative at 0 is 0."""
    return abs(x) if _recorded(x) else _math.fabs(x)


def hypot(*coordinates: Any) -> Any:
    """sqrt(x*x + y*y + ...); at the origin the derivative is 0."""
    if not _recorded(*coordinates):
        return _math.hypot(*coordinates)
    return _hypot(*coordinates) if len(coordinates) == 2 else _functions.norm(coordinates)


def dist(p: Iterable[Any], q: Iterable[Any], /) -> Any:
    """The Euclidean distance of two points."""
    p, q = list(p), list(q)
    return hypot(*[a - b for a, b in zip(p, q, strict=True)]) if _recorded(*p, *q) else _math.dist(p, q)


def fsum(xs: Iterable[Any], /) -> Any:
    """The sum; of plain numbers exactly rounded, with Tensors added in order."""
    xs = list(xs)
    return _functions.sum(xs) if _recorded(*xs) else _math.fsum(xs)


def gamma(x: Any, /) -> Any:
    """The gamma function; of a Tensor by way of lgamma and the reflection formula."""
    if not _recorded(x):
        return _math.gamma(x)
    if x.data > 0.0:
        return x.lgamma().exp()
    return _math.pi / ((x * _math.pi).sin() * gamma(1.0 - x))


def _of_values(name: str) -> Any:
    plain = getattr(_math, name)

    def function(*operands: Any, **options: Any) -> Any:
        return plain(*[x.data if isinstance(x, _Tensor) else x for x in operands], **options)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = plain.__doc__
    return function


for _name in ("isclose", "isfinite", "isinf", "isnan"):  # they look at a number and lose no gradient
    globals()[_name] = _of_values(_name)


def modf(x: Any, /) -> tuple[Any, Any]:
    """The fractional and the integer part, both with the sign of x."""
    return (x - x.trunc(), x.trunc()) if _recorded(x) else _math.modf(x)


def ldexp(x: Any, i: int, /) -> Any:
    """x * 2**i."""
    return x * 2.0**i if _recorded(x) else _math.ldexp(x, i)


def remainder(x: Any, y: Any, /) -> Any:
    """x - n * y, where n is the whole number nearest to x / y; n is a constant of the operation."""
    if not _recorded(x, y):
        return _math.remainder(x, y)
    a, b = float(x), float(y)
    return x - y * round((a - _math.remainder(a, b)) / b)
