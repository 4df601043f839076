"""What stands for an array, as one: lists with Tensors in them, arrays of objects, numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import elementwise
from fastscalar.engine._axes import assemble
from fastscalar.engine._traced import TracedBool, TracedInt
from fastscalar.engine.views import ArrayView

FUNCTIONS: dict[Any, Callable[..., Any]] = {}  # by function of NumPy, what it does of TensorArrays


def of_numpy(*names: str) -> Callable[..., Any]:
    """The function of NumPy with these names (with a dot: in a module of it), as far as this NumPy has them."""

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        if "<" in f.__qualname__:
            f.__qualname__ = names[0]            # what an error calls it
        for name in names:
            where: Any = np
            for part in name.split("."):
                where = getattr(where, part, None)
            if where is not None:
                FUNCTIONS[where] = f
        return f

    return register


def shape_of(x: Any) -> tuple[int, ...]:
    if isinstance(x, (TensorArray, np.ndarray, ArrayView)):
        return x.shape
    return () if isinstance(x, (Tensor, TracedInt)) else np.shape(np.asarray(x, dtype=object))


def flat(x: TensorArray) -> Iterator[Tensor]:
    """Its elements in row-major order."""
    if x.ndim == 1:
        yield from x
    else:
        for row in x:
            yield from flat(row)


class Flat:
    """The elements of an array in row-major order: iterated over, taken and replaced."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __iter__(self) -> Any:
        return flat(self.of)

    def __len__(self) -> int:
        return int(self.of.size)

    def __getitem__(self, key: Any) -> Any:
        return self.of.ravel()[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.of[np.unravel_index(np.arange(self.of.size)[key], self.of.shape)] = value


def is_array_like(x: Any) -> bool:
    """Whether it says of itself that it is an array, as those of other libraries do."""
    return hasattr(type(x), "__array__") or hasattr(type(x), "__dlpack__")


def is_buffer(x: Any) -> bool:
    """Whether it lends its memory, as a memoryview and an `array.array` do."""
    try:
        memoryview(x)
    except TypeError:
        return False
    return True


def as_ndarray(x: Any) -> Any:
    """An array of another library (pandas, PyTorch, Arrow), or memory that is lent (memoryview), as one of NumPy;
    everything else as it is."""
    if type(x) in (float, int) or isinstance(x, (np.ndarray, np.generic, TensorArray, Tensor, str, bytes)):
        return x
    if not is_array_like(x):
        return np.asarray(x) if is_buffer(x) else x
    return np.asarray(x) if hasattr(type(x), "__array__") else np.from_dlpack(x)


def objects(x: Any) -> np.ndarray[Any, Any]:
    """An array of objects: Tensors and numbers."""
    if isinstance(x, TensorArray):
        return np.fromiter(flat(x) if x.size else (), dtype=object, count=x.size).reshape(x.shape)
    if isinstance(x, (Tensor, TracedInt)) or type(x) is TracedBool:
        out = np.empty((), dtype=object)
        out[()] = x
        return out
    return np.asarray(x, dtype=object)


def numbers(x: Any) -> Any:
    """What a comparison of plain values is with: views and arrays of Tensors as their numbers."""
    if isinstance(x, TensorArray):
        return x.numpy()
    if isinstance(x, Tensor):
        return x.data
    if isinstance(x, (list, tuple)) or (isinstance(x, np.ndarray) and x.dtype == object):
        return np.asarray(x, dtype=np.float64) if shape_of(x) is not None else x
    return np.asarray(x) if hasattr(type(x), "__array__") else x


def array(x: Any, what: str) -> Any:
    """A TensorArray, or a Tensor, of anything that stands for one; what is none yet becomes new nodes."""
    if isinstance(x, (TensorArray, Tensor)):
        return x
    if isinstance(x, TracedInt):
        return x.tensor
    x = np.asarray(x)
    if x.dtype.kind not in "fiubO":
        raise TypeError(f"{what}: expected real numbers or Tensors, got an array of {x.dtype}")
    if x.ndim == 0 and x.dtype != object:
        return Tensor(x.item())
    return assemble([x], np.arange(x.size).reshape(x.shape))


def filled(shape: int | Sequence[int], value: Any) -> Any:
    """A new array of one value; its elements can be replaced."""
    return assemble([value], np.zeros(shape, np.int64))


def axes_of(axis: Any, ndim: int, what: str) -> tuple[int, ...]:
    """Axes as NumPy takes them, None for all: each once, from 0."""
    if axis is None:
        return tuple(range(ndim))
    given = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    found = []
    for a in given:
        if not hasattr(type(a), "__index__"):
            raise TypeError(f"{what}: axis is a whole number or a tuple of them, got {axis!r}")
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(int(a), ndim)
        found.append(int(a) % ndim)
    if len(set(found)) != len(found):
        raise ValueError(f"{what}: an axis twice in {axis!r}")
    return tuple(found)


def axis_of(axis: Any, ndim: int, what: str) -> int:
    if isinstance(axis, (tuple, list)):
        raise TypeError(f"{what}: expected one axis, got {axis!r}")
    return axes_of(axis, ndim, what)[0]


def unsupported(what: str, options: dict[str, Any], instead: str = "") -> None:
    """TypeError for an argument of NumPy's that means nothing here; those at their defaults are nothing."""
    for name, value in options.items():
        if value is not None and value is not np._NoValue and not (name == "dtype" and np.dtype(value) == np.float64):
            raise TypeError(f"{what}: takes no {name}= for a TensorArray" + (f"; {instead}" if instead else ""))


def rounded(x: Any, decimals: int) -> Any:
    """The nearest number of so many decimals, of two the even one, of an array or a Tensor."""
    if decimals == 0:
        return x.rint()
    if abs(operator.index(decimals)) > 308:
        raise ValueError(f"round: expected from -308 to 308 decimals, got {decimals}")
    scale = 10.0 ** abs(decimals)
    return (x * scale).rint() / scale if decimals > 0 else (x / scale).rint() * scale


def in_order(what: str, order: str, ndim: int) -> None:
    """ValueError for an order that depends on memory: elements need not lie as NumPy would lay them."""
    if order not in ("C", "F") and (ndim > 1 or order not in ("A", "K")):
        raise ValueError(f"{what}: order is 'C' or 'F', got {order!r}")


def binary(name: str, left: Any, right: Any) -> Any:
    """A row of the operation table, element by element, of which one operand is an array."""
    found = elementwise(name, left, right)
    if found is NotImplemented:
        kinds = " and ".join(type(x).__name__ for x in (left, right))
        raise TypeError(f"{name}: expected arrays, Tensors or real numbers, got {kinds}")
    return found

