"""Comparisons of arrays while a program is recorded: each element is decided for each row of a replay.

`np.where(x > 0, a, b)` and `(x > 0) * y` take them as they are, without a decision.  As an index, in an `if`, in `&`
and `~` they are decisions: from then on the program holds only for rows where they come out the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.arrays.convert import FUNCTIONS, as_ndarray, objects, shape_of
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import select, total
from fastscalar.engine._axes import assemble, places
from fastscalar.engine._traced import TracedBool, TracedInt, of_array


def chosen(condition: Any, a: Any, b: Any) -> Any:
    """a or b, of two numbers or Tensors, without a decision."""
    return select(condition, a, b) if type(condition) is TracedBool else a if condition else b


SIMPLE = {np.add, np.subtract, np.multiply}  # what `as_numbers` gives exactly, beside these:
EXACT_NUMBERS = (int, float, TracedInt)


class TracedMask(np.lib.mixins.NDArrayOperatorsMixin):
    """What stands for an array of bool: outcomes (`TracedBool`) that replays decide for themselves.

    No ndarray, whose type would be that of the outcomes (objects, which add up and are inverted as NumPy's bool is
    not).  Whatever is asked of it that is not here is asked of the array of bool, and a decision."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, outcomes: np.ndarray[Any, Any]) -> None:
        self.outcomes = outcomes                 # an array of objects
        self.written: np.ndarray[Any, Any] | None = None     # of bool: what has become of them

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """What `isinstance` is told."""
        return np.ndarray

    def decided(self) -> np.ndarray[Any, Any]:
        """The outcomes, which are decisions from now on."""
        found = np.array([bool(b) for b in self.outcomes.ravel().tolist()], dtype=bool).reshape(self.outcomes.shape)
        return found if self.written is None else self.written

    def _to_write(self) -> np.ndarray[Any, Any]:
        self.written = self.decided()
        return self.written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to_write(), name)

    def as_numbers(self) -> Any:
        """1.0 where it holds, else 0.0, without a decision."""
        if self.written is not None:
            return self.written.astype(float)
        flat = [chosen(b, 1.0, 0.0) for b in self.outcomes.ravel().tolist()]
        return assemble([flat], np.arange(self.size).reshape(self.shape))

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.array(self._to_write(), dtype) if copy or dtype is not None else self._to_write()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = (), **options: Any) -> Any:
        others = [x for x in inputs if not isinstance(x, TracedMask)]
        into = tuple(x._to_write() if isinstance(x, TracedMask) else x for x in out)
        simple = ufunc in SIMPLE and method == "__call__" and not into and not options
        if any(map(_is_traced, others)) or (others and simple and as_exact_as_numbers(others)):
            inputs = tuple(x.as_numbers() if isinstance(x, TracedMask) else x for x in inputs)
        else:
            inputs = tuple(x.decided() if isinstance(x, TracedMask) else x for x in inputs)
        found = getattr(ufunc, method)(*inputs, **options, **({"out": into} if into else {}))
        return out[0] if len(out) == 1 else found

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        if function in (np.where, np.select):
            return FUNCTIONS[function](*args, **options)
        method = {np.sum: "sum", np.mean: "mean", np.count_nonzero: "sum"}.get(function)
        if method and args and args[0] is self:
            return getattr(self, method)(*args[1:], **options)
        return function(*_decided(args), **{name: _decided(x) for name, x in options.items()})

    def sum(self, axis: Any = None, **options: Any) -> Any:
        """How many hold, without a decision."""
        if self.written is not None or set(options) - {"keepdims"}:
            return self.decided().sum(axis, **options)
        if axis is not None or options or not self.size:
            return self.as_numbers().sum(axis, **options)
        return places(total(self.as_numbers()))

    def mean(self, axis: Any = None, **options: Any) -> Any:
        plainly = self.written is not None or set(options) - {"keepdims"}
        return (self.decided() if plainly else self.as_numbers()).mean(axis, **options)

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        same = np.dtype(dtype) == np.float64
        return self.as_numbers() if same else self.decided().astype(dtype, *args, **options)

    def dot(self, other: Any) -> Any:
        return np.dot(self, other)

    # --- parts of it, in another shape ---

    @property
    def shape(self) -> tuple[int, ...]:
        return self.outcomes.shape

    @property
    def ndim(self) -> int:
        return self.outcomes.ndim

    @property
    def size(self) -> int:
        return self.outcomes.size

    @property
    def T(self) -> Any:
        return self.transpose()

    def __len__(self) -> int:
        return len(self.outcomes)

    def __iter__(self) -> Any:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        found = (self.outcomes if self.written is None else self.written)[plain(key)]
        return TracedMask(found) if isinstance(found, np.ndarray) and found.dtype == object else found

    def __setitem__(self, key: Any, value: Any) -> None:
        self._to_write()[plain(key)] = plain(value)

    def _moved(name: str) -> Any:  # type: ignore[misc]
        def method(self: TracedMask, *args: Any, **options: Any) -> Any:
            if self.written is not None:
                return getattr(self.written, name)(*args, **options)
            return TracedMask(getattr(self.outcomes, name)(*args, **options))

        return method

    for _name in ("copy", "flatten", "ravel", "reshape", "squeeze", "swapaxes", "transpose"):
        locals()[_name] = _moved(_name)
    del _moved

    # --- what Python looks for in the class ---

    def _asked(name: str) -> Any:  # type: ignore[misc]
        return lambda self, *args: getattr(self.decided(), name)(*args)

    for _name in ("bool", "complex", "contains", "copy", "deepcopy", "float", "format", "index", "int", "reduce_ex",
                  "repr", "str"):  # fmt: skip
        locals()[f"__{_name}__"] = _asked(f"__{_name}__")
    del _asked, _name


def _is_traced(x: Any) -> bool:
    return isinstance(x, (Tensor, TensorArray))


def as_exact_as_numbers(operands: Sequence[Any]) -> bool:
    """Whether what NumPy computes with these and its bool has the same numbers where they are Tensors instead."""
    return any(map(_is_traced, operands)) or all(
        type(x) in EXACT_NUMBERS or (isinstance(x, (np.ndarray, np.generic)) and x.dtype in (np.float64, np.int64))
        for x in operands
    )


def _decided(x: Any) -> Any:
    """The same with all masks decided, in lists and tuples too."""
    if isinstance(x, (list, tuple)):
        return type(x)(map(_decided, x)) if type(x) in (list, tuple) else x
    return x.decided() if isinstance(x, TracedMask) else x


def plain(x: Any) -> Any:
    """A key or condition with decided outcomes, and places that are whole numbers of a program read."""
    if isinstance(x, TracedMask):
        return x.decided()
    if isinstance(x, np.ndarray) and x.dtype == object and x.size and all(type(k) is TracedInt for k in x.flat):
        return np.array([int(k) for k in x.flat], dtype=np.int64).reshape(x.shape)
    return tuple(map(plain, x)) if isinstance(x, tuple) else as_ndarray(x)


def each(function: Callable[..., Any], *operands: Any) -> Any:
    """A function of the elements of broadcast operands: an array of objects."""
    arrays = np.broadcast_arrays(*map(objects, operands))
    found = (function(*elements) for elements in zip(*(a.ravel().tolist() for a in arrays), strict=True))
    return np.fromiter(found, dtype=object, count=arrays[0].size).reshape(arrays[0].shape)


def compare(comparison: Callable[[Any, Any], Any], left: Any, right: Any) -> Any:
    """What `left < right` is in the recording of a program."""
    if not isinstance(right, (TensorArray, np.ndarray)) and not np.isscalar(right) and shape_of(right) is None:
        return NotImplemented
    found = each(lambda x, y: of_array(comparison(x, y)), left, right)
    return TracedMask(found) if found.ndim else found.item()
