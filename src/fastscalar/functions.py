"""Functions of numbers and Tensors that Python's `math` does not have, and of sequences of them.

Of plain numbers they give a float; with a Tensor among the arguments a Tensor; of a TensorArray, element by element, a
TensorArray.  What each one does at a kink is in its docstring.  Those of the operation table are in `_table`.

>>> import fastscalar as fs
>>> fs.sigmoid(fs.Tensor(0.0)), fs.sigmoid(-800.0), fs.softplus(fs.Tensor(800.0))
(Tensor(data=0.5), 0.0, Tensor(data=800.0))
>>> round(fs.gelu(fs.Tensor(1.0)).data, 12), fs.silu(fs.Tensor(0.0)), fs.sign(fs.Tensor(-3.0))
(0.841344746069, Tensor(data=0.0), Tensor(data=-1.0))
>>> fs.minimum(fs.Tensor(2.0), 5), fs.maximum(0, fs.Tensor(-2.0))
(Tensor(data=2.0), Tensor(data=0.0))
>>> round(fs.math.digamma(fs.Tensor(1.0)).data, 12), fs.math.ndtr(fs.Tensor(0.0))
(-0.577215664902, Tensor(data=0.5))
"""

from __future__ import annotations

import builtins
import numbers
import operator
from collections.abc import Iterable
from typing import Any, overload

import numpy as np

from fastscalar import _table
from fastscalar._core import Tensor
from fastscalar._table import *  # noqa: F403
from fastscalar._table import maximum, minimum
from fastscalar._typing import Array, Number, Row, Scalar, Unary
from fastscalar.arrays.moves import where as where_of_arrays
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import best_of, dot, elementwise, logsumexp, select, softmax, total
from fastscalar.engine._modes import is_recording
from fastscalar.engine._traced import TracedBool, TracedInt
from fastscalar.engine.functions import public_function

__all__ = [
    "argmax",
    "argmin",
    "clip",
    "digamma",
    "dot",
    "elu",
    "leaky_relu",
    "log_softmax",
    "logsumexp",
    "max",
    "mean",
    "min",
    "ndtr",
    "norm",
    "prod",
    "softmax",
    "sum",
    "where",
]
__all__ += _table.__all__

_CHOSEN = (Tensor, float, int, TensorArray, np.bool_, numbers.Real)

digamma: Unary = public_function("digamma", -1.963510026021)
ndtr: Unary = public_function("ndtr", 0.691462461274)
_leaky_relu = public_function("leaky_relu")
_hypot = public_function("hypot")
_elu = public_function("elu")


@overload
def leaky_relu(x: Tensor, slope: Scalar = 0.01) -> Tensor: ...
@overload
def leaky_relu(x: Number, slope: Tensor) -> Tensor: ...
@overload
def leaky_relu(x: Array, slope: Scalar | Array = 0.01) -> TensorArray: ...
@overload
def leaky_relu(x: Scalar, slope: Array) -> TensorArray: ...
@overload
def leaky_relu(x: Number, slope: Number = 0.01) -> float: ...
def leaky_relu(x: Any, slope: Any = 0.01) -> Any:
    """x if x > 0, else slope * x; the derivative at 0 is the slope.

    >>> import fastscalar as fs
    >>> fs.leaky_relu(fs.Tensor(-2.0), 0.5)
    Tensor(data=-1.0)
    """
    return _leaky_relu(x, slope)


@overload
def elu(x: Tensor, alpha: Scalar = 1.0) -> Tensor: ...
@overload
def elu(x: Number, alpha: Tensor) -> Tensor: ...
@overload
def elu(x: Array, alpha: Scalar | Array = 1.0) -> TensorArray: ...
@overload
def elu(x: Scalar, alpha: Array) -> TensorArray: ...
@overload
def elu(x: Number, alpha: Number = 1.0) -> float: ...
def elu(x: Any, alpha: Any = 1.0) -> Any:
    """x if x > 0, else alpha * (exp(x) - 1); the derivative at 0 is alpha (Clevert et al. 2015, arXiv:1511.07289).

    >>> import fastscalar as fs
    >>> fs.elu(fs.Tensor(2.0))
    Tensor(data=2.0)
    """
    return _elu(x, alpha)


@overload
def clip(x: Tensor, low: Scalar, high: Scalar) -> Tensor: ...
@overload
def clip(x: Array, low: Scalar | Array, high: Scalar | Array) -> TensorArray: ...
@overload
def clip(x: Number, low: Number, high: Number) -> float: ...
@overload
def clip(x: Scalar, low: Scalar, high: Scalar) -> Tensor | float: ...
def clip(x: Any, low: Any, high: Any) -> Any:
    """x, but at least `low` and at most `high`; at an end x has the derivative.

    >>> import fastscalar as fs
    >>> fs.clip(fs.Tensor(7.0), 0.0, 5.0)
    Tensor(data=5.0)
    """
    return minimum(maximum(x, low), high)


@overload
def where(condition: Any, a: Scalar, b: Scalar) -> Tensor: ...
@overload
def where(condition: Any, a: TensorArray, b: TensorArray) -> TensorArray: ...
@overload
def where(condition: Any, a: Any, b: Any) -> Any: ...
def where(condition: Any, a: Any, b: Any) -> Any:
    """a if the condition holds, else b, as a Tensor; both are evaluated, only the chosen one gets a gradient.

    Of an array of conditions, element by element and broadcast, a TensorArray.

    >>> import fastscalar as fs
    >>> x = fs.Tensor(-3.0)
    >>> fs.where(x < 0, -x, x)
    Tensor(data=3.0)
    """
    if isinstance(condition, (np.ndarray, TensorArray)) or (
        isinstance(condition, TracedBool) and (isinstance(a, TensorArray) or isinstance(b, TensorArray))
    ):
        return where_of_arrays(condition, a, b)
    if isinstance(condition, TracedBool):
        return select(condition, a, b)
    chosen, other = (a, b) if condition else (b, a)
    for x in (chosen, other):
        if not isinstance(x, _CHOSEN):
            raise TypeError(f"where: expected real numbers or Tensors, got {type(x).__name__}")
    return _as_tensor(chosen)


def _as_tensor(x: Any) -> Any:
    return x if isinstance(x, (Tensor, TensorArray)) else Tensor(x)


# --- of sequences ---------------------------------------------------------------------------------


def _listed(xs: Iterable[Any]) -> list[Any]:
    return list(np.asarray(xs) if isinstance(xs, memoryview) else xs)    # which gives elements of one dimension only


def _checked(xs: Iterable[Any], name: str) -> list[Any]:
    items = [] if isinstance(xs, TensorArray) and not xs.size else _listed(xs)
    if not items:
        raise ValueError(f"{name}: expected at least one element")
    return items


def _one_row(xs: Iterable[Any], name: str) -> list[Any]:
    items = _checked(xs, name)
    long = {kind for kind in set(map(type, items)) if hasattr(kind, "__len__")}
    if long and builtins.any(type(x) in long and getattr(x, "ndim", 1) for x in items):
        raise ValueError(f"{name}: expected one dimension, got several")
    if is_recording():  # whole numbers of a row are numbers here, and no decision
        items = [x.tensor if type(x) is TracedInt else bool(x) if type(x) is TracedBool else x for x in items]
    return items


def sum(xs: Row | Iterable[Any]) -> Tensor:
    """x[0] + x[1] + ..., added in order from 0.0; one instruction, whatever the length.  0.0 of nothing.

    >>> import fastscalar as fs
    >>> fs.sum([fs.Tensor(1.0), 2, 3.0])
    Tensor(data=6.0)
    """
    xs = xs if isinstance(xs, TensorArray) else _listed(xs)
    return total(xs) if len(xs) else Tensor(0.0)


def mean(xs: Row | Iterable[Any]) -> Tensor:
    """sum(xs) / number of elements.  ValueError of nothing.

    >>> import fastscalar as fs
    >>> fs.mean([fs.Tensor(1.0), 2.0])
    Tensor(data=1.5)
    """
    xs = xs if isinstance(xs, TensorArray) and xs.size else _checked(xs, "mean")
    return total(xs) / (xs.size if isinstance(xs, TensorArray) else len(xs))


def prod(xs: Row | Iterable[Any]) -> Tensor:
    """x[0] * x[1] * ..., from left to right.  1.0 of nothing.  A zero among them is no trouble for the gradient.

    >>> import fastscalar as fs
    >>> fs.prod([fs.Tensor(2.0), 3.0])
    Tensor(data=6.0)
    """
    result: Any = 1.0
    for x in xs:
        result = result * x
    return _as_tensor(result)


def max(xs: Row | Iterable[Any]) -> Tensor:
    """The largest: the first of equals, and it alone has the derivative; NaN if one is.  ValueError of nothing.

    In a program it is no decision.

    >>> import fastscalar as fs
    >>> fs.max([fs.Tensor(1.0), 2.0])
    Tensor(data=2.0)
    """
    return _as_tensor(_best(xs, "max"))


def min(xs: Row | Iterable[Any]) -> Tensor:
    """The smallest: the first of equals, and it alone has the derivative; NaN if one is.  ValueError of nothing.

    In a program it is no decision.

    >>> import fastscalar as fs
    >>> fs.min([fs.Tensor(1.0), 2.0])
    Tensor(data=1.0)
    """
    return _as_tensor(_best(xs, "min"))


def argmax(xs: Row | Iterable[Any]) -> int:
    """The index of what `max` gives, an int; of NaN the first.  ValueError of nothing.

    In a program it is a whole number in which rows may differ: arithmetic with floats and Tensors, comparisons for
    `where`, and as an index of a TensorArray are no decisions on it; an index of a list, or arithmetic with ints, is.

    >>> import fastscalar as fs
    >>> fs.argmax([fs.Tensor(1.0), 2.0, 2.0])
    1
    """
    return _best(xs, "argmax")


def argmin(xs: Row | Iterable[Any]) -> int:
    """The index of what `min` gives, an int; of NaN the first.  ValueError of nothing.  In a program as `argmax`.

    >>> import fastscalar as fs
    >>> fs.argmin([fs.Tensor(1.0), 2.0, 1.0])
    0
    """
    return _best(xs, "argmin")


_BEST = ("max", "min", "argmax", "argmin")  # codes of `best_of`
_OF_ALL: dict[str, Any] = {"max": builtins.max, "min": builtins.min, "argmax": builtins.max, "argmin": builtins.min}


def _best(xs: Iterable[Any], name: str) -> Any:
    """The first that is the largest or the smallest, or its place; the first NaN, which Python's may pass over.

    In a program one instruction without a decision."""
    items = _one_row(xs, name)
    if len(items) > 1 and is_recording() and Tensor in set(map(type, items)):
        return best_of(xs if isinstance(xs, TensorArray) else items, _BEST.index(name))
    if builtins.any(map(operator.ne, items, items)):
        best = next(x for x in items if x != x)
    else:
        best = _OF_ALL[name](items)
    return items.index(best) if name.startswith("arg") else best


def log_softmax(xs: Row | Iterable[Any]) -> TensorArray:
    """x[i] - logsumexp(x), a TensorArray.

    >>> import fastscalar as fs
    >>> fs.log_softmax(fs.to_tensor([0.0, 0.0])).tolist()
    [-0.6931471805599453, -0.6931471805599453]
    """
    xs = xs if isinstance(xs, TensorArray) else _checked(xs, "log_softmax")
    return elementwise("-", xs, logsumexp(xs))


def norm(xs: Row | Iterable[Any]) -> Tensor:
    """sqrt(x[0]**2 + x[1]**2 + ...), without overflow or underflow on the way.

    At the origin, where it has a kink, all its derivatives, of any order, are 0.  An infinity outweighs NaN, as in
    Python's `math.hypot`: the result is inf, and the first infinite element has the derivative 1 or -1.

    >>> import fastscalar as fs
    >>> fs.norm([fs.Tensor(3.0), 4.0]), fs.norm([fs.Tensor(3e-200), 4e-200])
    (Tensor(data=5.0), Tensor(data=5e-200))
    """
    if not isinstance(xs, TensorArray) or len(xs) == 2 or is_recording():
        xs = _one_row(xs, "norm")
        if len(xs) == 2:
            return _as_tensor(_hypot(*xs))
        if is_recording():
            return _scaled_norm(xs)
    square = dot(xs, xs)
    return square.sqrt() if 1e-280 < square.data < 1e300 else _scaled_norm(xs)


def _scaled_norm(xs: Any) -> Any:
    """Of numbers scaled by 2**600 or 2**-600, which is exact, if the largest needs it.  Without a decision."""
    largest: Any = 0.0
    for x in xs:
        size = abs(x)
        largest = where(size > largest, size, largest)  # not `maximum`: NaN has no size
    scale = where(largest > 2.0**500, 2.0**600, where(largest < 2.0**-500, 2.0**-600, 1.0))
    scaled = elementwise("/", xs, scale)
    square = dot(scaled, scaled)
    root = where(square == 0.0, 1.0, square).sqrt() * scale  # 1.0: at the origin the slope of sqrt is infinite
    return where(largest == float("inf"), largest, where(square == 0.0, square * 0.0, root))
