"""Functions of NumPy that only put elements elsewhere.

NumPy itself says where: it is called with arrays of places, whole numbers, in place of the arrays, and what comes back
says which element goes where.  So shapes, axes and errors are its own, and the result is one instruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.arrays.convert import array, objects, shape_of
from fastscalar.arrays.masks import TracedMask, as_exact_as_numbers, chosen, each, plain
from fastscalar.engine import _axes
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import select
from fastscalar.engine._axes import assemble
from fastscalar.engine._modes import is_recording
from fastscalar.engine._traced import TracedBool


class Places:
    """Arrays of places for arrays of elements; place 0 is the number 0.0, which some functions fill with."""

    def __init__(self) -> None:
        self.parts: list[Any] = [0.0]
        self.n = 1

    def of(self, x: Any, deep: int = 0) -> Any:
        """The places of what stands for an array; of a list of arrays, `deep` levels down, a list of them."""
        if deep and isinstance(x, (list, tuple)):
            return [self.of(e, deep - 1) for e in x]
        x = array(x, "an array")
        shape = x.shape if isinstance(x, TensorArray) else ()
        size = math.prod(shape)
        self.parts.append(x)
        self.n += size
        return np.arange(self.n - size, self.n).reshape(shape)

    def elements(self, found: Any) -> Any:
        """What lies at places that NumPy arranged."""
        if isinstance(found, (list, tuple)):
            made = [*map(self.elements, found)]
            return tuple(made) if isinstance(found, tuple) else made
        if np.all(found):
            return assemble(self.parts[1:], found - 1)
        return assemble(self.parts, found)


def _moved(function: Any, args: tuple[Any, ...], options: dict[str, Any], which: dict[Any, int]) -> Any:
    """which: the arguments that are arrays, by position or name, and how deep in lists they lie."""
    places = Places()
    args = tuple(places.of(a, which[k]) if k in which else plain(a) for k, a in enumerate(args))
    options = {name: places.of(a, which[name]) if name in which else plain(a) for name, a in options.items()}
    return places.elements(function(*args, **options))


MOVES: dict[Any, dict[Any, int]] = {}
for _names, _which in (
    ("concatenate stack vstack hstack dstack column_stack", {0: 1, "arrays": 1, "tup": 1}),
    ("block", {0: 9}),
    ("roll flip fliplr flipud rot90 tile repeat take take_along_axis delete diag diagflat diagonal tril triu "
     "split array_split hsplit vsplit dsplit resize unstack", {0: 0}),
    ("append", {0: 0, 1: 0, "values": 0}),
    ("insert", {0: 0, 2: 0, "values": 0}),
    ("extract compress", {1: 0}),
    ("choose", {1: 1}),
):  # fmt: skip
    for _name in _names.split():
        if hasattr(np, _name):
            MOVES[getattr(np, _name)] = _which


MOVES[np.lib.stride_tricks.sliding_window_view] = {0: 0}


def move(function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    if options.pop("out", None) is not None or options.pop("dtype", None) not in (None, float, np.float64):
        raise TypeError(f"numpy.{function.__name__}: takes no out= and no other dtype than float64 for a TensorArray")
    options.pop("casting", None)
    return _moved(function, args, options, MOVES[function])


def meshgrid(*arrays: Any, **options: Any) -> Any:
    return list(_moved(np.meshgrid, arrays, options, dict.fromkeys(range(len(arrays)), 0)))


def broadcast_arrays(*arrays: Any, **options: Any) -> Any:
    given = [array(x, "broadcast_arrays") for x in arrays]
    shape = np.broadcast_shapes(*map(shape_of, given))
    return tuple(broadcast_to(x, shape) for x in given)


def broadcast_to(x: Any, shape: Any, subok: bool = False) -> Any:
    """A view in which axes of length 1 are as long as they have to be."""
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not isinstance(x, TensorArray) or len(shape) < x.ndim or np.broadcast_shapes(x.shape, shape) != shape:
        return _moved(np.broadcast_to, (x, shape), {}, {0: 0})
    if not x.size or 0 in shape:
        return x._nothing(shape)
    return x._view((-1,) * (len(shape) - x.ndim) + tuple(range(x.ndim)), shape)


def pad(x: Any, pad_width: Any, mode: Any = "constant", **options: Any) -> Any:
    if callable(mode) or mode in ("linear_ramp", "maximum", "mean", "median", "minimum", "empty"):
        raise TypeError(f"pad: mode {mode!r} computes numbers; here: constant, edge, reflect, symmetric, wrap")
    if options.get("reflect_type", "even") != "even":
        raise TypeError(f"pad: reflect_type {options['reflect_type']!r} computes numbers; here: even")
    return _moved(np.pad, (x, pad_width, mode), options, {0: 0, "constant_values": 0})


def _place_of(mask: Any) -> bool:
    """Whether a condition is decided when it is replayed."""
    if isinstance(mask, TracedMask):
        return mask.written is None
    return type(mask) is TracedBool or (
        isinstance(mask, np.ndarray) and mask.dtype == object and is_recording())  # fmt: skip


def where(condition: Any, *choices: Any) -> Any:
    """a where the condition holds, else b, of broadcast arrays; without choices the indices where it holds."""
    if isinstance(condition, (TensorArray, Tensor)):
        condition = condition != 0.0
    if isinstance(condition, TracedMask) and (not choices or condition.written is not None):
        condition = condition.decided()
    if not choices:
        return np.nonzero(condition)
    a, b = choices
    if isinstance(condition, TracedMask) and not as_exact_as_numbers(choices):
        return np.where(condition.decided(), plain(a), plain(b))
    if type(condition) is TracedBool and not isinstance(a, TensorArray) and not isinstance(b, TensorArray):
        return select(condition, a, b)
    if _place_of(condition):
        outcomes = condition.outcomes if isinstance(condition, TracedMask) else objects(condition)
        found = each(chosen, outcomes, a, b)
        return array(found, "where") if found.ndim else found.item()
    if type(condition) is np.ndarray and condition.dtype == bool and condition.ndim:
        found = _axes.where(condition, a, b)
        if found is not None:
            return found
    shape = np.broadcast_shapes(np.shape(condition), shape_of(a), shape_of(b))
    return _moved(lambda x, y: np.broadcast_to(np.where(condition, x, y), shape), (a, b), {}, {0: 0, 1: 0})


def select_(conditions: Any, choices: Any, default: Any = 0) -> Any:
    """Of the first condition that holds the choice, else the default."""
    for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
        default = where(condition, choice, default)
    return default


# --- into an array that was computed --------------------------------------------------------------

# Which argument has the values, and its name.
PUTS: dict[Any, tuple[int, str]] = {
    np.copyto: (1, "src"), np.put: (2, "v"), np.putmask: (2, "values"), np.place: (2, "vals"),
    np.fill_diagonal: (1, "val"), np.put_along_axis: (2, "values"),
}  # fmt: skip


def put(function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Replace those elements of the first argument that NumPy's function replaces."""
    at, name = PUTS[function]
    to, given = args[0], list(args[1:])
    if not isinstance(to, TensorArray):
        raise TypeError(f"numpy.{function.__name__}: an array of {to.dtype} cannot hold Tensors; make it one of them: "
                        "fs.to_tensor(x).copy()")  # fmt: skip
    value = array(options[name] if name in options else given[at - 1], function.__name__)
    places = np.arange(value.size).reshape(value.shape) if isinstance(value, TensorArray) else np.zeros((), np.int64)
    given[at - 1 : at], options = [places], {k: plain(v) for k, v in options.items() if k != name}
    source = np.full(to.shape, -1)
    function(source, *map(plain, given), **options)
    chosen = source >= 0
    if chosen.any():
        to[chosen] = value.ravel()[source[chosen]] if isinstance(value, TensorArray) else value


# --- in the order of their values -----------------------------------------------------------------


class _NaNLast:
    """An element among others of which some are NaN, in NumPy's order."""

    def __init__(self, element: Any, is_nan: bool) -> None:
        self.element, self.is_nan = element, is_nan

    def __lt__(self, other: _NaNLast) -> bool:
        if self.is_nan or other.is_nan:
            return other.is_nan and not self.is_nan
        return bool(self.element < other.element)


def argsort(x: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """The places in ascending order, NaN last; in a program comparisons of elements are decisions."""
    if not is_recording():
        return np.argsort(x.numpy(), axis, kind="stable")
    elements = objects(x)
    nan = [bool(e != e) for e in elements.flat]
    if any(nan):
        elements = np.array([*map(_NaNLast, elements.flat, nan)], dtype=object).reshape(elements.shape)
    return np.argsort(elements, axis, kind="stable").astype(np.int64)


def sort(x: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """The elements in ascending order, NaN last."""
    if axis is None:
        x, axis = x.ravel(), -1
    return _moved(np.take_along_axis, (x, argsort(x, axis), axis), {}, {0: 0})


def _kth(function: Callable[..., Any]) -> Callable[..., Any]:
    def sorted_to(x: Any, kth: Any, axis: Any = -1, kind: Any = None, order: Any = None) -> Any:
        return function(x, axis)

    return sorted_to


partition, argpartition = _kth(sort), _kth(argsort)
