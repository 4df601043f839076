"""What NumPy and users ask of a number, for Tensors: `np.rint(t)`, `np.isnan(t)`, `t.hex()`, `np.interp(t, ...)`.

NumPy's operators with a Tensor beside an array go on as they do for any object: they give arrays of Tensors.
"""

from __future__ import annotations

import operator
import sys
from math import inf
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._warnings import GradientLossWarning, warn
from fastscalar.arrays.convert import FUNCTIONS, as_ndarray, objects, rounded
from fastscalar.arrays.ufuncs import INSTEAD, OTHERS, ROWS, TESTS, refuse
from fastscalar.engine._array import TensorArray
from fastscalar.engine.functions import public_function

METHODS: dict[str, Any] = {}
_larger, _smaller = public_function("maximum"), public_function("minimum")
# What NumPy has for no objects, asks the left one for alone, or decides by comparisons.
OF_NUMBERS: dict[Any, Any] = {
    **TESTS,
    **{f: OTHERS[f] for f in (np.logaddexp, np.logaddexp2, np.heaviside, np.modf)},
    **{f: public_function(ROWS[f]) for f in (np.arctan2, np.hypot, np.fmod, np.copysign, np.sign)},
    np.maximum: _larger,
    np.minimum: _smaller,
    np.fmax: lambda x, y: y if x != x else x if y != y else _larger(x, y),
    np.fmin: lambda x, y: y if x != x else x if y != y else _smaller(x, y),
    np.float_power: operator.pow,
    np.divmod: lambda x, y: (x // y, x % y),
    np.logical_and: lambda x, y: bool(x) and bool(y),
    np.logical_or: lambda x, y: bool(x) or bool(y),
    np.logical_xor: lambda x, y: bool(x) != bool(y),
}


def method(f: Any) -> Any:
    f.__qualname__ = f"Tensor.{f.__name__}"
    METHODS[f.__name__] = f
    return f


@method
def round(self: Tensor, decimals: int = 0, out: None = None) -> Tensor:
    """The nearest number of so many decimals, a Tensor; its derivative is 0.  (`round(t)` gives a plain number.)

    `out` is there for NumPy, which passes None."""
    if out is not None:
        raise TypeError("round: takes no out= for a Tensor")
    return rounded(self, decimals)


@method
def fabs(self: Tensor) -> Tensor:
    """The absolute value; its derivative at 0 is 0."""
    return abs(self)


@method
def deg2rad(self: Tensor) -> Tensor:
    """Degrees in radians, as NumPy calls it."""
    return self.radians()


@method
def rad2deg(self: Tensor) -> Tensor:
    """Radians in degrees, as NumPy calls it."""
    return self.degrees()


@method
def is_integer(self: Tensor) -> bool:
    """Whether it is a whole number, as of a float."""
    return bool(abs(self) < inf) and bool(self.fmod(1.0) == 0.0)


@method
def as_integer_ratio(self: Tensor) -> tuple[int, int]:
    """Two ints whose quotient it is, as of a float; they have no gradient.

    `statistics.mean` and `variance` ask for them, and get a GradientLossWarning that says what to use."""
    if sys._getframe(1).f_globals.get("__name__") == "statistics":
        warn("the module statistics takes the values of Tensors, and the gradient is gone; fs.mean(x), or np.mean, "
             "np.var and np.std of an array of them, keep it", GradientLossWarning)  # fmt: skip
    return float(self).as_integer_ratio()


@method
def hex(self: Tensor) -> str:
    """The value in hexadecimal digits, as of a float."""
    return float(self).hex()


def _real(self: Tensor) -> Tensor:
    """The Tensor itself: it has no imaginary part."""
    return self


def _imag(self: Tensor) -> float:
    """0.0: a Tensor has no imaginary part."""
    return 0.0


METHODS["real"], METHODS["imag"] = property(_real), property(_imag)


def _of_python(x: Any, kinds: str) -> Any:
    """An element of NumPy's extended precision stays one as an object: its operation would come back here."""
    extended = isinstance(x, np.ndarray | np.generic) and x.dtype.char in kinds
    return x.astype("D" if x.dtype.char == "G" else "d") if extended else x


@method
def __array_ufunc__(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """NumPy's element-wise functions; with arrays of numbers they give arrays of Tensors."""
    if any(isinstance(x, TensorArray) for x in (*inputs, *options.get("out", ()))):
        return NotImplemented
    if ufunc in INSTEAD:
        raise refuse(ufunc, ufunc.__name__, "Tensor")
    inputs = tuple(_of_python(x, "G" if ufunc in OF_NUMBERS else "gG") for x in inputs)
    if method == "__call__" and not options and ufunc in OF_NUMBERS:
        inputs = tuple(map(as_ndarray, inputs))
        if any(isinstance(x, np.ndarray) and x.ndim for x in inputs):
            return np.frompyfunc(OF_NUMBERS[ufunc], ufunc.nin, ufunc.nout)(*map(objects, inputs))
        return OF_NUMBERS[ufunc](*inputs)
    plain = tuple(objects(x) if isinstance(x, Tensor) else as_ndarray(x) for x in inputs)
    return getattr(ufunc, method)(*plain, **options)


@method
def __array_function__(self: Tensor, function: Any, types: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """`np.interp` of a Tensor; all other functions as of any object."""
    if function is np.interp:
        return FUNCTIONS[function](*args, **options)
    if any(issubclass(kind, TensorArray) for kind in types):
        return NotImplemented
    return function._implementation(*args, **options)
