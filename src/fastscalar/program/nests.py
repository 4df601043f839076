"""Arguments and results of any nest: what a structure of numbers and arrays is, apart from its numbers.

A *nest* says how leaves are put together: None for a single leaf, else a node of this page.  It is part of the
signature of a recording, so it can be compared and hashed, and it is the same for all rows.

The boundary: knows containers, Tensors and arrays; no rows and no recordings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._traced import TracedInt
from fastscalar.engine.views import ArrayView


@dataclass(frozen=True)
class Static:
    """A string, None or Python's own bool: no number, and part of the signature."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and type(self.value) is type(other.value) and self.value == other.value

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


@dataclass(frozen=True)
class Container:
    """A tuple, list, named tuple or dictionary of nests."""

    kind: Any = field(compare=False)             # its type
    keys: tuple[Any, ...] | None                 # of a dictionary
    items: tuple[Any, ...]
    sort: tuple[Any, ...] = ()                   # of named tuples: those of the same fields are the same

    def __post_init__(self) -> None:
        fields = getattr(self.kind, "_fields", ())
        object.__setattr__(self, "sort", (self.kind.__name__, *fields))


@dataclass(frozen=True)
class Array:
    """An array of numbers among results."""

    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)


STATIC = (str, bytes, bool, type(None))
_LEAVES = (np.ndarray, float, int, Tensor, TensorArray, TracedInt)


def is_nest(x: Any, inside: tuple[int, ...] = ()) -> bool:
    """Whether an argument is a structure of arguments, not a number or an array.

    Lists and tuples of numbers are arrays, as in NumPy; they are structures if there is a dictionary in them, a tuple
    also if there is an array, a list if there are arrays of several shapes."""
    if type(x) in _LEAVES:
        return False
    if isinstance(x, dict):
        return True
    if not isinstance(x, (list, tuple)) or id(x) in inside:
        return False
    if hasattr(type(x), "_fields"):
        return True
    arrays = [e for e in x if isinstance(e, (np.ndarray, TensorArray, ArrayView)) and e.ndim]
    if arrays and (isinstance(x, tuple) or any(np.shape(e) != arrays[0].shape for e in x)):
        return True
    return any(is_nest(e, (*inside, id(x))) for e in x if isinstance(e, (list, tuple, dict)))


def flattened(x: Any, where: str, add: Callable[[Any, str], None], inside: tuple[int, ...] = ()) -> Any:
    """The nest of an argument, whose leaves are added with their names, in order."""
    if isinstance(x, STATIC):
        return Static(x)
    if not is_nest(x):
        add(x, where)
        return None
    if id(x) in inside:
        raise ValueError(f"{where}: a {type(x).__name__} that contains itself")
    inside = (*inside, id(x))
    if isinstance(x, dict):
        items = tuple(flattened(value, f"{where}[{key!r}]", add, inside) for key, value in x.items())
        return Container(dict, tuple(x), items)
    items = tuple(flattened(value, f"{where}[{k}]", add, inside) for k, value in enumerate(x))
    return Container(type(x) if hasattr(type(x), "_fields") else tuple if isinstance(x, tuple) else list, None, items)


def assembled(nest: Any, leaf: Callable[[], Any], array: Callable[[Array], Any] | None = None) -> Any:
    """The structure whose leaves, and arrays, are what is called gives, one after the other."""
    if nest is None:
        return leaf()
    if isinstance(nest, Static):
        return nest.value
    if isinstance(nest, Array):
        assert array is not None
        return array(nest)
    items = [assembled(item, leaf, array) for item in nest.items]
    if nest.keys is not None:
        return dict(zip(nest.keys, items, strict=True))
    if nest.kind is list:
        return items
    return tuple(items) if nest.kind is tuple else nest.kind(*items)


def leaf_count(nest: Any) -> int:
    if isinstance(nest, Container):
        return sum(map(leaf_count, nest.items))
    return 0 if isinstance(nest, Static) else 1


def _elements(a: TensorArray) -> list[Tensor]:
    return list(a) if a.ndim == 1 else [t for row in a for t in _elements(row)]


# --- results --------------------------------------------------------------------------------------------


def results_of(x: Any, name: str, where: str = "", inside: tuple[int, ...] = ()) -> tuple[list[Tensor], Any]:
    """The numbers of what a function returned, as Tensors, and their nest.  TypeError for what is no number."""
    if type(x) is Tensor:
        return [x], None
    if isinstance(x, TracedInt) and not x.is_truth:          # a bool is no number among results
        return [x.tensor], None
    if isinstance(x, (int, float, np.number)) and not isinstance(x, bool):
        return [Tensor(x)], None
    if x is None and where:
        return [], Static(None)
    if isinstance(x, ArrayView):
        x = np.asarray(x)
    if isinstance(x, TensorArray):
        return _elements(x), Array(x.shape)
    if isinstance(x, np.ndarray) and x.dtype.kind in "fiuO":
        if not x.ndim:
            return results_of(x.item(), name, where, inside)
        found = [results_of(e, name, f"{where}[...]", inside) for e in x.ravel().tolist()]
        if any(nest is not None for _, nest in found):
            raise TypeError(f"{name}: the result{where} is an array that holds more than numbers")
        return [t for some, _ in found for t in some], Array(x.shape)
    if isinstance(x, (dict, list, tuple)):
        if id(x) in inside:
            raise ValueError(f"{name}: the result{where} is a {type(x).__name__} that contains itself")
        inside = (*inside, id(x))
        keys = tuple(x) if isinstance(x, dict) else None
        parts = list(x.values() if isinstance(x, dict) else x)
        names = keys if keys is not None else range(len(parts))
        found = [results_of(e, name, f"{where}[{k!r}]", inside) for k, e in zip(names, parts, strict=True)]
        kind = type(x) if hasattr(type(x), "_fields") else next(t for t in (dict, list, tuple) if isinstance(x, t))
        return [t for some, _ in found for t in some], Container(kind, keys, tuple(nest for _, nest in found))
    what = "one number (a Tensor)" if not where else "a number (a Tensor)"
    got = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
    hint = "" if where else ", or numbers in tuples, lists, dictionaries and arrays"
    raise TypeError(f"{name}: expected {what} as result{where}{hint}, got {got}")


def is_float64(dtype: Any, what: str) -> bool:
    """Whether numbers are computed in double precision.  ValueError unless in that or in single precision."""
    if dtype not in ("float64", "float32"):
        raise ValueError(f"{what}: dtype: expected 'float64' or 'float32', got {dtype!r}")
    return bool(dtype == "float64")


def of_rows(nest: Any, values: np.ndarray, dtype: str = "float64") -> Any:
    """The nest of results with an axis of rows before all others; values: (n, results)."""
    if nest is None:
        return values.reshape(len(values)).astype(dtype, copy=False)
    at = 0

    def take(count: int, shape: tuple[int, ...]) -> np.ndarray:
        nonlocal at
        at += count
        return values[:, at - count : at].reshape(len(values), *shape).astype(dtype)

    return assembled(nest, lambda: take(1, ()), lambda array: take(array.size, array.shape))


def of_one(nest: Any, values: np.ndarray) -> Any:
    """The results of one row: floats, and arrays."""
    if nest is None:
        return float(values[0])
    at = 0

    def take(count: int, shape: tuple[int, ...]) -> np.ndarray:
        nonlocal at
        at += count
        return values[at - count : at].reshape(shape).copy()

    return assembled(nest, lambda: float(take(1, ())), lambda array: take(array.size, array.shape))


def described(nest: Any) -> str:
    """A nest as a reader would write it."""
    if nest is None:
        return "a number"
    if isinstance(nest, Static):
        return repr(nest.value)
    if isinstance(nest, Array):
        return f"an array of shape {nest.shape}"
    if nest.keys is not None:
        return "{" + ", ".join(f"{k!r}: {described(v)}" for k, v in zip(nest.keys, nest.items, strict=True)) + "}"
    inner = ", ".join(map(described, nest.items))
    return f"[{inner}]" if nest.kind is list else f"({inner})"


def weights_of(given: Any, nest: Any, n: int, results: int, what: str) -> np.ndarray:
    """Cotangents, (n, results), from a nest like that of the results, with or without the axis of rows."""
    out = np.empty((n, results))
    at = 0

    def fill(x: Any, shape: tuple[int, ...], where: str) -> None:
        nonlocal at
        try:
            values = np.asarray(x.numpy() if isinstance(x, TensorArray) else x, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{what}{where}: expected numbers, got {type(x).__name__}") from None
        if values.shape not in (shape, (n, *shape)):
            raise ValueError(f"{what}{where} has the shape {values.shape}, expected {(n, *shape)} or {shape}")
        count = math.prod(shape)
        out[:, at : at + count] = np.broadcast_to(values, (n, *shape)).reshape(n, count)
        at += count

    def walk(x: Any, nest: Any, where: str) -> None:
        if nest is None or isinstance(nest, Array):
            fill(x, () if nest is None else nest.shape, where)
        elif isinstance(nest, Container):
            fits = isinstance(x, dict) and x.keys() == set(nest.keys) if nest.keys is not None else (
                isinstance(x, (list, tuple)) and len(x) == len(nest.items))
            if not fits:
                raise ValueError(f"{what}{where}: expected the structure of the results, {described(nest)}")
            for k, item in zip(nest.keys or range(len(nest.items)), nest.items, strict=True):
                walk(x[k], item, f"{where}[{k!r}]")

    walk(given, nest, "")
    return out


def placed(nests: Sequence[Any]) -> list[range]:
    """By argument, its leaves."""
    out, at = [], 0
    for nest in nests:
        out.append(range(at, at + leaf_count(nest)))
        at += leaf_count(nest)
    return out
