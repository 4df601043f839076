"""Comparisons of arrays while a program is recorded: each element is decided for each row of a replay.

`np.where(x > 0, a, b)` and `(x > 0) * y` take them as they are, without a decision.  As an index, in an `if`, in `&`
and `~` they are decisions: from then on the program holds only for rows where they come out the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar.arrays.convert import FUNCTIONS, as_ndarray, objects, shape_of
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import select, total
from fastscalar.engine._axes import assemble, places
from fastscalar.engine._traced import TracedBool, TracedInt

LOGICAL = {np.logical_and, np.logical_or, np.logical_xor, np.logical_not, np.bitwise_and, np.bitwise_or, np.bitwise_xor,
           np.invert}  # fmt: skip


def chosen(condition: Any, a: Any, b: Any) -> Any:
    """a or b, of two numbers or Tensors, without a decision."""
    return select(condition, a, b) if type(condition) is TracedBool else a if condition else b


class TracedMask(np.ndarray[Any, Any]):
    """An array of outcomes (`TracedBool`) that replays decide for themselves."""

    def decided(self) -> np.ndarray[Any, Any]:
        """The outcomes, which are decisions from now on."""
        return np.array([bool(b) for b in self.outcomes()], dtype=bool).reshape(self.shape)

    def outcomes(self) -> list[Any]:
        return self.view(np.ndarray).ravel().tolist()

    def as_numbers(self) -> Any:
        """1.0 where it holds, else 0.0, without a decision."""
        flat = [chosen(b, 1.0, 0.0) for b in self.outcomes()]
        return assemble([flat], np.arange(self.size).reshape(self.shape))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if ufunc in LOGICAL or method != "__call__":
            inputs = tuple(x.decided() if isinstance(x, TracedMask) else x for x in inputs)
        else:
            inputs = tuple(x.as_numbers() if isinstance(x, TracedMask) else x for x in inputs)
        return getattr(ufunc, method)(*inputs, **options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if function in (np.where, np.select):
            return FUNCTIONS[function](*args, **options)
        method = {np.any: "any", np.all: "all", np.sum: "sum", np.mean: "mean", np.count_nonzero: "sum"}.get(function)
        if method and args and args[0] is self:
            return getattr(self, method)(*args[1:], **options)
        args = tuple(x.decided() if isinstance(x, TracedMask) else x for x in args)
        return function(*args, **options)

    def any(self, axis: Any = None, **options: Any) -> Any:  # type: ignore[override]
        return self.decided().any(axis, **options)

    def all(self, axis: Any = None, **options: Any) -> Any:  # type: ignore[override]
        return self.decided().all(axis, **options)

    def sum(self, axis: Any = None, **options: Any) -> Any:  # type: ignore[override]
        """How many hold, without a decision."""
        if axis is not None or options or not self.size:
            return self.as_numbers().sum(axis, **options)
        return places(total(self.as_numbers()))

    def mean(self, axis: Any = None, **options: Any) -> Any:  # type: ignore[override]
        return self.as_numbers().mean(axis, **options)

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        return self.as_numbers() if np.dtype(dtype).kind == "f" else self.decided().astype(dtype, *args, **options)

    def nonzero(self) -> Any:
        return self.decided().nonzero()

    def tolist(self) -> Any:
        return self.decided().tolist()

    def __repr__(self) -> str:
        return repr(self.decided())


def plain(x: Any) -> Any:
    """A key or condition with decided outcomes, and places that are whole numbers of a program read."""
    if isinstance(x, TracedMask):
        return x.decided()
    if isinstance(x, np.ndarray) and x.dtype == object and x.size and all(type(k) is TracedInt for k in x.flat):
        return np.array([int(k) for k in x.flat], dtype=np.int64).reshape(x.shape)
    return tuple(map(plain, x)) if isinstance(x, tuple) else as_ndarray(x)


def each(function: Callable[..., Any], *operands: Any) -> Any:
    """A comparison of the elements of broadcast operands."""
    arrays = np.broadcast_arrays(*map(objects, operands))
    out = np.empty(arrays[0].shape, dtype=object)
    out.ravel()[:] = [function(*elements) for elements in zip(*(a.ravel().tolist() for a in arrays), strict=True)]
    return out.view(TracedMask)


def compare(comparison: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """What `left < right` is in the recording of a program."""
    if not isinstance(right, (TensorArray, np.ndarray)) and not np.isscalar(right) and shape_of(right) is None:
        return NotImplemented
    return each(comparison, left, right)
