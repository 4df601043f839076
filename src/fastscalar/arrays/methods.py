"""Methods of a TensorArray, its indices and assignments.

`_array` calls what stands here by name (`take`, `assign`, `in_place`, `matmul`, `compare`, `only`, `contains`,
`numbers`, `ufunc`, `function`); METHODS become methods of the class.
"""

from __future__ import annotations

import builtins
import html
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.arrays import products
from fastscalar.arrays.convert import (  # fmt: skip
    Flat,
    array,
    axes_of,
    axis_of,
    binary,
    filled,
    in_order,
    numbers,
    objects,
    rounded,
    shape_of,
    unsupported,
)
from fastscalar.arrays.functions import function
from fastscalar.arrays.masks import TracedMask, compare, plain
from fastscalar.arrays.products import matmul
from fastscalar.arrays.ufuncs import ufunc
from fastscalar.engine._array import TensorArray
from fastscalar.engine._axes import along, assemble, cumulative_sum, places
from fastscalar.engine._modes import is_recording

__all__ = ["METHODS", "assign", "compare", "contains", "function", "in_place", "matmul", "numbers", "only", "take",
           "ufunc"]  # fmt: skip

METHODS: dict[str, Any] = {}


def method(f: Callable[..., Any]) -> Callable[..., Any]:
    """A method of TensorArrays; its parameters are NumPy's, which refuses none of them silently (`unsupported`)."""
    name = f.__name__
    f.__qualname__ = f"TensorArray.{name}"
    if f.__doc__ and f.__code__.co_argcount > 1 and hasattr(np.ndarray, name):
        f.__doc__ += f"\n\nParameters as of `numpy.ndarray.{name}`."
    METHODS[name] = f
    return f


def attribute(f: Callable[..., Any]) -> Callable[..., Any]:
    METHODS[f.__name__] = property(f)
    return f


# --- indices and assignments ----------------------------------------------------------------------


def take(x: Any, key: Any) -> Any:
    """x[key] where the key holds arrays, lists or truth values: elements in a new array, as in NumPy."""
    return assemble([x._run()], x._positions(plain(key)))


def assign(x: Any, key: Any, value: Any) -> None:
    """x[key] = value, of an array that was computed."""
    if isinstance(key, TracedMask) and key.shape == x.shape and shape_of(value) == ():
        key, value = Ellipsis, function(np.where, (key, value, x), {})
    places = np.asarray(x._positions(plain(key)))
    if not places.size:
        return
    given = array(value, "an assignment")
    shape = given.shape if isinstance(given, TensorArray) else ()
    order = np.arange(given.size if isinstance(given, TensorArray) else 1).reshape(shape)
    while order.ndim > places.ndim and order.shape[0] == 1:
        order = order[0]
    try:
        order = np.broadcast_to(order, places.shape)
    except ValueError:
        raise ValueError(f"an assignment: a value of shape {shape} does not fit in {places.shape}") from None
    run = x._run()
    changed = np.arange(run.size)
    changed[places] = run.size + order
    x._follow(assemble([run, given], changed, True))


def in_place(x: Any, result: Any) -> Any:
    """What `x += y` leaves in x: the new elements in all views, of a parameter or argument a new array."""
    if x._is_fixed():
        return result
    if shape_of(result) != x.shape:
        raise ValueError(f"in place: a result of shape {shape_of(result)} does not fit in {x.shape}")
    if not x._become(result):
        assign(x, Ellipsis, result)
    return x


def only(x: Any) -> Any:
    """The one element."""
    if x.size != 1:
        raise TypeError(f"only an array of one element is a number, this has shape {x.shape}")
    return next(iter(x.flat))


def contains(x: Any, value: Any) -> bool:
    return bool((x == value).any())


# --- shape ----------------------------------------------------------------------------------------


@attribute
def dtype(self: Any) -> np.dtype[Any]:
    """float64: what each element holds."""
    return np.dtype(np.float64)


@attribute
def T(self: Any) -> Any:
    """The array with its axes in reverse order; a view."""
    return self._view(tuple(range(self.ndim - 1, -1, -1)))


@attribute
def mT(self: Any) -> Any:
    """The array with its last two axes exchanged; a view."""
    return swapaxes(self, -1, -2)


@attribute
def real(self: Any) -> Any:
    """The array itself: elements are real."""
    return self


@attribute
def imag(self: Any) -> Any:
    """Zeros: elements are real."""
    return filled(self.shape, 0.0)


@attribute
def flat(self: Any) -> Any:
    """The elements in row-major order, to iterate over, to take and to replace."""
    return Flat(self)


@method
def transpose(self: Any, *axes: Any) -> Any:
    """The array with its axes in another order, by default the reverse; a view."""
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        axes = tuple(axes[0] or ())
    if not axes:
        return self.T
    order = axes_of(tuple(axes), self.ndim, "transpose")
    if len(order) != self.ndim:
        raise ValueError(f"transpose: expected {self.ndim} axes, got {len(order)}")
    return self._view(order)


@method
def swapaxes(self: Any, axis1: int, axis2: int) -> Any:
    """The array with two axes exchanged; a view."""
    order = list(range(self.ndim))
    a, b = axis_of(axis1, self.ndim, "swapaxes"), axis_of(axis2, self.ndim, "swapaxes")
    order[a], order[b] = b, a
    return self._view(tuple(order))


@method
def reshape(self: Any, *shape: Any, order: str = "C", copy: bool | None = None) -> Any:
    """The elements in another shape, one length may be -1; a view where their order allows it, else a copy."""
    if order == "F":
        return self.T.reshape(_new_shape(shape, self)[::-1], copy=copy).T
    in_order("reshape", order, self.ndim)
    wanted = _new_shape(shape, self)
    if not self.size:
        return self._nothing(wanted)
    if not wanted:
        return only(self)
    view = self._reshaped(wanted)
    if view is not None and not copy:
        return view
    if copy is False:
        raise ValueError("reshape: the elements do not lie so that a view could have that shape")
    return assemble([self], np.arange(self.size).reshape(wanted))


def _new_shape(given: tuple[Any, ...], x: Any) -> tuple[int, ...]:
    if len(given) == 1 and isinstance(given[0], (tuple, list)):
        given = tuple(given[0])
    shape = [operator.index(n) for n in given]
    if shape.count(-1) == 1 and (rest := -math.prod(shape)):
        shape[shape.index(-1)] = x.size // rest if x.size % rest == 0 else -1
    if builtins.any(n >> 63 for n in shape) or math.prod(shape) != x.size:
        raise ValueError(f"reshape: an array of shape {x.shape} has no shape {tuple(given)}")
    return tuple(shape)


@method
def ravel(self: Any, order: str = "C") -> Any:
    """All elements in row-major order, of one dimension; a view where possible."""
    return self.reshape(-1, order=order)


@method
def flatten(self: Any, order: str = "C") -> Any:
    """A copy of all elements in row-major order, of one dimension."""
    return self.reshape(-1, order=order, copy=True)


@method
def squeeze(self: Any, axis: Any = None) -> Any:
    """The array without axes of length 1; a view."""
    gone = [d for d in range(self.ndim) if self.shape[d] == 1] if axis is None else axes_of(axis, self.ndim, "squeeze")
    if builtins.any(self.shape[d] != 1 for d in gone):
        raise ValueError(f"squeeze: an axis of {axis!r} has another length than 1 in shape {self.shape}")
    return self[tuple(0 if d in gone else slice(None) for d in range(self.ndim))]


@method
def copy(self: Any, order: str = "C") -> Any:
    """A new array with the same values that passes gradients on; its elements can be replaced."""
    return assemble([self], np.arange(self.size).reshape(self.shape))


@method
def astype(self: Any, dtype: Any, *args: Any, **options: Any) -> Any:
    """A copy, for a type of floats; TypeError for others: whole numbers have no gradient."""
    kind = np.dtype(dtype)
    if kind == np.dtype(object):
        return objects(self)
    if kind.kind != "f":
        raise TypeError(f"astype: elements are float64 and stay differentiable, got {kind}; without gradients: "
                        f"a.numpy().astype({kind.name!r})")  # fmt: skip
    return self.copy()


@method
def diagonal(self: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The elements with the same index in two axes; a view."""
    if self.ndim < 2:
        raise ValueError(f"diagonal: expected two dimensions or more, got shape {self.shape}")
    return self._diagonal(axis_of(axis1, self.ndim, "diagonal"), axis_of(axis2, self.ndim, "diagonal"), offset)


@method
def trace(self: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    """The sum of a diagonal."""
    return self.diagonal(offset, axis1, axis2).sum(axis=-1, dtype=dtype, out=out)


@method
def item(self: Any, *index: Any) -> float:
    """The value of the one element, or of that at an index, a float."""
    if not index and self.size != 1:
        raise ValueError(f"item: shape {self.shape} has more or less than one element; expected an index")
    index = index[0] if len(index) == 1 and isinstance(index[0], tuple) else index
    flat = len(index) == 1
    return float((only(self) if not index else self.ravel()[index[0]] if flat else self[index]).item())


@method
def fill(self: Any, value: Any) -> None:
    """Replace all elements of an array that was computed."""
    self[...] = value


# --- reductions -----------------------------------------------------------------------------------


def _given(option: Any) -> bool:
    return option is not None and option is not np._NoValue


def _reduced(name: str, x: Any, axis: Any, keepdims: Any, initial: Any, where: Any, empty: float | None = None) -> Any:
    """empty: what it is of nothing; initial: what it begins with; where: what counts."""
    if empty is None and _given(initial):
        empty = initial
    if _given(where) and where is not True:
        if empty is None:
            raise ValueError(f"{name}: with where= it needs an initial= value")
        x = function(np.where, (where, x, empty), {})
    axes = axes_of(axis, x.ndim, name)
    if x.size:
        found = along(name, x, axes, bool(keepdims) and keepdims is not np._NoValue)
    else:
        shape = [1 if d in axes else n for d, n in enumerate(x.shape) if keepdims is True or d not in axes]
        if builtins.all(shape) and empty is None:
            raise ValueError(f"{name}: of nothing, shape {x.shape}")
        found = filled(shape, empty or 0.0) if shape else Tensor(empty or 0.0)
    if not _given(initial):
        return found
    if name in ("sum", "prod"):
        return found + initial if name == "sum" else found * initial
    return getattr(found, f"{name}imum")(initial)


@method
def sum(self: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None,
        where: Any = None) -> Any:  # fmt: skip
    """The sum of all elements, or along axes, added in order; 0.0 of nothing."""
    unsupported("sum", {"dtype": dtype, "out": out})
    return _reduced("sum", self, axis, keepdims, initial, where, 0.0)


@method
def prod(self: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None,
         where: Any = None) -> Any:  # fmt: skip
    """The product of all elements, or along axes; 1.0 of nothing.  Zeros are no trouble for its gradient."""
    unsupported("prod", {"dtype": dtype, "out": out})
    return _reduced("prod", self, axis, keepdims, initial, where, 1.0)


@method
def max(self: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None,
        where: Any = None) -> Any:  # fmt: skip
    """The largest: the first of equals alone has the derivative, NaN if one is.  ValueError of nothing."""
    unsupported("max", {"out": out})
    return _reduced("max", self, axis, keepdims, initial, where)


@method
def min(self: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = None,
        where: Any = None) -> Any:  # fmt: skip
    """The smallest: the first of equals alone has the derivative, NaN if one is.  ValueError of nothing."""
    unsupported("min", {"out": out})
    return _reduced("min", self, axis, keepdims, initial, where)


def _count(x: Any, axis: Any, what: str, where: Any = None, keepdims: Any = False) -> Any:
    """How many elements there are along axes, or of these how many count."""
    if _given(where) and where is not True:
        return np.broadcast_to(plain(where), x.shape).sum(axis, keepdims=keepdims) * 1.0
    count = math.prod([x.shape[d] for d in axes_of(axis, x.ndim, what)])
    if not count:
        raise ValueError(f"{what}: of nothing, shape {x.shape}")
    return float(count)


@method
def mean(self: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, **some: Any) -> Any:
    """The mean of all elements, or along axes.  ValueError of nothing."""
    total = self.sum(axis, dtype, out, keepdims, **some)
    return total / _count(self, axis, "mean", some.get("where"), keepdims)


@method
def var(self: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = False, *,
        where: Any = None, correction: Any = None) -> Any:  # fmt: skip
    """The mean of the squared distances from the mean; `ddof` less are counted."""
    unsupported("var", {"dtype": dtype, "out": out})
    ddof = correction if _given(correction) else ddof
    distance = self - self.mean(axis, keepdims=True, where=where)
    squares = (distance * distance).sum(axis, keepdims=keepdims, where=where)
    return squares / (_count(self, axis, "var", where, keepdims) - ddof)


@method
def std(self: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = False,
        **options: Any) -> Any:  # fmt: skip
    """The square root of `var`; where all are equal its derivatives are 0."""
    return self.var(axis, dtype, out, ddof, keepdims, **options).sqrt()


@method
def ptp(self: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    """The largest minus the smallest, along `axis` with `keepdims` as in `max`; there is no `out`."""
    unsupported("ptp", {"out": out})
    return self.max(axis, keepdims=keepdims) - self.min(axis, keepdims=keepdims)


def _place(name: str, x: Any, axis: Any, keepdims: Any) -> Any:
    if not is_recording():
        more = {"keepdims": True} if keepdims is True else {}
        return getattr(np, name)(x.numpy(), axis, **more)
    if axis is None:
        x, axis = x.ravel(), None if keepdims is not True else 0
    return places(along(name, x, (axis_of(0 if axis is None else axis, x.ndim, name),), keepdims is True))


@method
def argmax(self: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    """Where the largest is, the first of equals or the first NaN: an int, along an axis an array of ints."""
    unsupported("argmax", {"out": out})
    return _place("argmax", self, axis, keepdims)


@method
def argmin(self: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    """Where the smallest is, the first of equals or the first NaN: an int, along an axis an array of ints."""
    unsupported("argmin", {"out": out})
    return _place("argmin", self, axis, keepdims)


@method
def any(self: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Any:
    """Whether one element is not zero: a bool, or an array of them."""
    unsupported("any", {"out": out})
    return (self != 0.0).any(axis, keepdims=bool(keepdims), where=plain(where))


@method
def all(self: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = True) -> Any:
    """Whether no element is zero: a bool, or an array of them."""
    unsupported("all", {"out": out})
    return (self != 0.0).all(axis, keepdims=bool(keepdims), where=plain(where))


@method
def cumsum(self: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """self[0], self[0] + self[1], ... along an axis, or of all elements in row-major order."""
    unsupported("cumsum", {"dtype": dtype, "out": out})
    if axis is None:
        self, axis = self.ravel(), 0
    return cumulative_sum(self, axis_of(axis, self.ndim, "cumsum")) if self.size else self


@method
def cumprod(self: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """self[0], self[0] * self[1], ... along an axis, or of all elements in row-major order."""
    unsupported("cumprod", {"dtype": dtype, "out": out})
    if axis is None:
        self, axis = self.ravel(), 0
    axis = axis_of(axis, self.ndim, "cumprod")
    parts = (self[(slice(None),) * axis + (k,)] for k in range(self.shape[axis]))
    so_far = list(itertools.accumulate(parts, operator.mul))
    return function(np.stack, (so_far,), {"axis": axis}) if so_far else self


# --- elements -------------------------------------------------------------------------------------


@method
def clip(self: Any, min: Any = None, max: Any = None, out: Any = None, **options: Any) -> Any:
    """At least `min` and at most `max`; at an end the element has the derivative."""
    unsupported("clip", {"out": out, **options})
    self = self if min is None else binary("maximum", self, min)
    return self if max is None else binary("minimum", self, max)


@method
def round(self: Any, decimals: int = 0, out: Any = None) -> Any:
    """The nearest number of so many decimals, of two the even one; its derivative is 0."""
    unsupported("round", {"out": out})
    return rounded(self, decimals)


@method
def conj(self: Any) -> Any:
    """The array itself: elements are real."""
    return self


METHODS["conjugate"] = conj
METHODS["__round__"] = lambda self, digits=None: self.round(digits or 0)
METHODS["__pandas_priority__"] = 5000  # a Series on the left leaves its operators to the array


@method
def dot(self: Any, other: Any) -> Any:
    """The sum over the last axis of this and the last but one of the other; with a number, times it."""
    return products.dot(self, other)


def _of_numpy(name: str, doc: str) -> None:
    def f(self: Any, *args: Any, **options: Any) -> Any:
        return function(getattr(np, name), (self, *args), options)

    f.__name__, f.__doc__ = name, doc
    method(f)


_of_numpy("repeat", "Each element so many times, along an axis or of all.")
_of_numpy("take", "The elements at some indices, along an axis or of all.")
_of_numpy("argsort", "The indices that would sort along an axis.")
_of_numpy("nonzero", "The indices of the elements that are not zero, an array for each axis.")


@method
def sort(self: Any, axis: int = -1, kind: Any = None) -> None:
    """Sort an array that was computed, in place; `np.sort` gives a sorted copy."""
    self[...] = function(np.sort, (self, axis), {})


@method
def _repr_html_(self: Any) -> str:
    """What notebooks show: shape and numbers, rounded, of large arrays the ends."""
    text = np.array2string(self.numpy(), precision=4, threshold=60, suppress_small=True)
    return f"<code>TensorArray, shape {self.shape}</code><pre>{html.escape(text)}</pre>"
