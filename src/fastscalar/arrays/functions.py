"""NumPy's functions of a TensorArray, `__array_function__`: reductions, products, statistics, shapes."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from fastscalar.arrays import linalg, moves, products, statistics  # noqa: F401 - statistics register themselves
from fastscalar.arrays.convert import (
    FUNCTIONS,
    array,
    axes_of,
    axis_of,
    filled,
    numbers,
    of_numpy,
    shape_of,
    unsupported,
)
from fastscalar.arrays.masks import TracedMask
from fastscalar.engine._array import TensorArray
from fastscalar.engine._modes import is_recording


def _as_method(name: str) -> Callable[..., Any]:
    def f(x: Any, *args: Any, **options: Any) -> Any:
        if isinstance(x, (list, tuple, np.ndarray)):
            x = array(x, name)
        return getattr(x, name)(*args, **options)

    return f


@of_numpy("clip")
def clip(x: Any, a_min: Any = None, a_max: Any = None, out: Any = None, **options: Any) -> Any:
    ends = {"min": options.pop("min", a_min), "max": options.pop("max", a_max)}
    return _as_method("clip")(x, out=out, **{k: v for k, v in ends.items() if v is not np._NoValue}, **options)


for _numpy, _method in (
    ("sum", "sum"), ("prod", "prod"), ("mean", "mean"), ("var", "var"), ("std", "std"), ("amax", "max"), ("max", "max"),
    ("amin", "min"), ("min", "min"), ("argmax", "argmax"), ("argmin", "argmin"), ("any", "any"), ("all", "all"),
    ("cumsum", "cumsum"), ("cumprod", "cumprod"), ("ptp", "ptp"), ("round", "round"),
    ("around", "round"), ("ravel", "ravel"), ("reshape", "reshape"), ("transpose", "transpose"),
    ("permute_dims", "transpose"), ("swapaxes", "swapaxes"), ("squeeze", "squeeze"),
    ("copy", "copy"), ("diagonal", "diagonal"), ("trace", "trace"), ("astype", "astype"), ("fix", "trunc"),
):  # fmt: skip
    of_numpy(_numpy)(_as_method(_method))

for _f, _of in moves.MOVES.items():
    FUNCTIONS[_f] = lambda *args, _f=_f, **options: moves.move(_f, args, options)
for _f in moves.PUTS:
    FUNCTIONS[_f] = lambda *args, _f=_f, **options: moves.put(_f, args, options)
for _name in ("meshgrid", "broadcast_arrays", "broadcast_to", "pad", "where", "argsort", "sort", "partition",
              "argpartition"):  # fmt: skip
    of_numpy(_name)(getattr(moves, _name))
of_numpy("select")(moves.select_)
for _name in ("dot", "vdot", "inner", "outer", "tensordot", "kron", "einsum"):
    of_numpy(_name)(getattr(products, _name))
for _name in linalg.__all__:
    of_numpy(f"linalg.{_name}")(getattr(linalg, _name))
of_numpy("linalg.matmul")(products.matmul)
of_numpy("linalg.tensordot")(products.tensordot)


# --- shape ----------------------------------------------------------------------------------------


of_numpy("matrix_transpose", "linalg.matrix_transpose")(lambda x: x.swapaxes(-1, -2))
of_numpy("linalg.diagonal")(lambda x, *, offset=0: x.diagonal(offset, -2, -1))
of_numpy("linalg.trace")(lambda x, *, offset=0, dtype=None: x.trace(offset, -2, -1))
of_numpy("shape")(shape_of)
of_numpy("ndim")(lambda x: len(shape_of(x)))


@of_numpy("size")
def size(x: Any, axis: Any = None) -> int:
    return math.prod([shape_of(x)[d] for d in axes_of(axis, len(shape_of(x)), "size")])


@of_numpy("expand_dims")
def expand_dims(x: Any, axis: Any) -> Any:
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    new = axes_of(tuple(given), x.ndim + len(given), "expand_dims")
    return x[tuple(None if d in new else slice(None) for d in range(x.ndim + len(new)))]


@of_numpy("moveaxis")
def moveaxis(x: Any, source: Any, destination: Any) -> Any:
    return x.transpose(
        _moved_axes(x.ndim, axes_of(source, x.ndim, "moveaxis"), axes_of(destination, x.ndim, "moveaxis"))
    )


def _moved_axes(n: int, source: tuple[int, ...], destination: tuple[int, ...]) -> list[int]:
    order = [d for d in range(n) if d not in source]
    for to, d in sorted(zip(destination, source, strict=True)):
        order.insert(to, d)
    return order


@of_numpy("rollaxis")
def rollaxis(x: Any, axis: int, start: int = 0) -> Any:
    axis = axis_of(axis, x.ndim, "rollaxis")
    start = start + x.ndim if start < 0 else start
    return moveaxis(x, axis, start - 1 if start > axis else start)


for _n in (1, 2):

    def _atleast(*arrays: Any, n: int = _n) -> Any:
        made = [array(x, "atleast") for x in arrays]
        made = [x if isinstance(x, TensorArray) else filled((1,), x) for x in made]
        made = [x[(None,) * builtins.max(0, n - x.ndim)] for x in made]
        return made[0] if len(made) == 1 else tuple(made)

    of_numpy(f"atleast_{_n}d")(_atleast)


def _like(value: Any) -> Callable[..., Any]:
    def f(x: Any, dtype: Any = None, order: Any = "K", subok: Any = True, shape: Any = None, **options: Any) -> Any:
        return full_like(x, value, dtype, order, subok, shape, **options)

    return f


@of_numpy("full_like")
def full_like(x: Any, fill_value: Any, dtype: Any = None, order: Any = "K", subok: Any = True, shape: Any = None, *,
              device: Any = None) -> Any:  # fmt: skip
    made = x.shape if shape is None else shape
    if dtype is not None and np.dtype(dtype).kind not in "fO":
        return np.full(made, numbers(fill_value), dtype)
    return filled(made, fill_value) if shape_of(fill_value) == () else moves.broadcast_to(fill_value, made).copy()


of_numpy("zeros_like", "empty_like")(_like(0.0))
of_numpy("ones_like")(_like(1.0))


of_numpy("real", "real_if_close", "conj", "ascontiguousarray", "asfortranarray")(lambda x, *args, **options: x)
of_numpy("imag")(lambda x, *args: x.imag)
of_numpy("isrealobj")(lambda x: True)
of_numpy("iscomplexobj")(lambda x: False)
of_numpy("isreal")(lambda x: np.ones(x.shape, dtype=bool))


@of_numpy("angle")
def angle(x: Any, deg: bool = False) -> Any:
    return moves.where(x != x, x, moves.where(np.copysign(1.0, x) < 0.0, 180.0 if deg else np.pi, 0.0))


# --- values that are looked at --------------------------------------------------------------------


@of_numpy("count_nonzero")
def count_nonzero(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return (x != 0.0).sum(axis, keepdims=keepdims) if axis is not None or keepdims else (x != 0.0).sum()


def _of_truth(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: f(c.decided() if isinstance(c := x != 0.0, TracedMask) else c)


for _f in (np.nonzero, np.flatnonzero, np.argwhere):
    FUNCTIONS[_f] = _of_truth(_f)


@of_numpy("isclose")
def isclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    if not is_recording():
        return np.isclose(numbers(a), numbers(b), rtol, atol, equal_nan)
    a, b = array(a, "isclose"), array(b, "isclose")
    close = np.logical_and(abs(a - b) <= abs(b) * rtol + atol, abs(b) < inf)
    found = np.logical_or(close, a == b)
    return np.logical_or(found, np.logical_and(a != a, b != b)) if equal_nan else found


@of_numpy("allclose")
def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> bool:
    return bool(isclose(a, b, rtol, atol, equal_nan).all())


@of_numpy("array_equal")
def array_equal(a: Any, b: Any, equal_nan: bool = False) -> bool:
    if not is_recording():
        return np.array_equal(numbers(a), numbers(b), equal_nan)
    if shape_of(a) != shape_of(b):
        return False
    a, b = array(a, "array_equal"), array(b, "array_equal")
    same = a == b
    return bool((np.logical_or(same, np.logical_and(a != a, b != b)) if equal_nan else same).all())


@of_numpy("array_equiv")
def array_equiv(a: Any, b: Any) -> bool:
    if not is_recording():
        return np.array_equiv(numbers(a), numbers(b))
    try:
        return bool((array(a, "array_equiv") == array(b, "array_equiv")).all())
    except ValueError:
        return False


of_numpy("isposinf")(lambda x: x == inf)
of_numpy("isneginf")(lambda x: x == -inf)


@of_numpy("nan_to_num")
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    largest = float(np.finfo(np.float64).max)
    x = moves.where(x != x, nan, x)
    x = moves.where(x == inf, largest if posinf is None else posinf, x)
    return moves.where(x == -inf, -largest if neginf is None else neginf, x)


def _without_nan(name: str, instead: float) -> None:
    @of_numpy("nan" + name)
    def f(x: Any, axis: Any = None, **options: Any) -> Any:
        return getattr(moves.where(x != x, instead, x), name)(axis, **options)


for _name, _instead in (("sum", 0.0), ("prod", 1.0), ("cumsum", 0.0), ("cumprod", 1.0)):
    _without_nan(_name, _instead)


def _present(x: Any) -> Any:
    return (x == x).astype(np.float64)


def _largest_but_nan(name: str, instead: float) -> None:
    @of_numpy("nan" + name)
    def f(x: Any, axis: Any = None, out: Any = None, keepdims: Any = False, **options: Any) -> Any:
        unsupported("nan" + name, {"out": out})
        found = getattr(moves.where(x != x, instead, x), name)(axis, keepdims=keepdims, **options)
        if options.get("initial", np._NoValue) is not np._NoValue:
            return found
        none = _present(x).sum(axis, keepdims=keepdims) == 0.0
        if not name.startswith("arg"):
            return moves.where(none, np.nan, found)
        if np.any(none):
            raise ValueError(f"nan{name}: nothing but NaN along the axis")
        return found


for _name, _instead in (("max", -inf), ("min", inf), ("argmax", -inf), ("argmin", inf)):
    _largest_but_nan(_name, _instead)


@of_numpy("nanmean")
def nanmean(x: Any, axis: Any = None, **options: Any) -> Any:
    return moves.where(x != x, 0.0, x).sum(axis, **options) / _present(x).sum(axis, **options)


@of_numpy("nanvar")
def nanvar(x: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, **options: Any) -> Any:
    unsupported("nanvar", {"dtype": dtype, "out": out})
    distance = moves.where(x != x, 0.0, x - nanmean(x, axis, keepdims=True))
    return (distance * distance).sum(axis, **options) / (_present(x).sum(axis, **options) - ddof)


@of_numpy("nanstd")
def nanstd(x: Any, *args: Any, **options: Any) -> Any:
    return np.sqrt(nanvar(x, *args, **options))


@of_numpy("cross", "linalg.cross")
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None) -> Any:
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = moveaxis(array(a, "cross"), axisa, -1), moveaxis(array(b, "cross"), axisb, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise ValueError(f"cross: expected vectors of three, got shapes {a.shape} and {b.shape}")
    parts = [a[..., i] * b[..., j] - a[..., j] * b[..., i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return moves.move(np.stack, (parts,), {"axis": axisc})


def _cumulative(name: str, initial: float) -> Callable[..., Any]:
    def f(x: Any, /, *, axis: Any = None, include_initial: bool = False) -> Any:
        if axis is None and x.ndim > 1:
            raise ValueError(f"{name}: of more than one dimension the axis has to be said")
        axis = 0 if axis is None else axis_of(axis, x.ndim, name)
        found = getattr(x, name)(axis)
        if not include_initial:
            return found
        first = filled([1 if d == axis else n for d, n in enumerate(x.shape)], initial)
        return moves.move(np.concatenate, ([first, found],), {"axis": axis})

    return f


of_numpy("cumulative_sum")(_cumulative("cumsum", 0.0))
of_numpy("cumulative_prod")(_cumulative("cumprod", 1.0))


@of_numpy("linalg.outer")
def outer(x: Any, y: Any, /) -> Any:
    if len(shape_of(x)) != 1 or len(shape_of(y)) != 1:
        raise ValueError(f"outer: expected two vectors, got shapes {shape_of(x)} and {shape_of(y)}")
    return products.outer(x, y)


of_numpy("linalg.vecdot")(lambda x, y, /, *, axis=-1: (array(x, "vecdot") * array(y, "vecdot")).sum(axis))


@of_numpy("apply_along_axis")
def apply_along_axis(f: Any, axis: int, x: Any, *args: Any, **options: Any) -> Any:
    moved = moveaxis(x, axis, -1)
    rows = moved.reshape(-1, moved.shape[-1])
    made = [array(f(row, *args, **options), "apply_along_axis") for row in rows]
    inside = made[0].shape if isinstance(made[0], TensorArray) else ()
    if moved.ndim == 1:
        return made[0]
    found = moves.move(np.stack, (made,), {}).reshape(moved.shape[:-1] + inside)
    to, k = axis_of(axis, x.ndim, "apply_along_axis"), len(inside)
    return moveaxis(found, tuple(range(-k, 0)), tuple(range(to, to + k)))


of_numpy("array_repr")(lambda x, *args, **options: repr(x))
of_numpy("array_str", "array2string")(lambda x, *args, **options: np.array2string(x.numpy(), *args, **options))


# --- what is not there ----------------------------------------------------------------------------

INSTEAD = {
    "unique": "np.unique(a.numpy())", "searchsorted": "np.searchsorted(a.numpy(), ...)",
    "histogram": "np.histogram(a.numpy())", "digitize": "np.digitize(a.numpy(), ...)",
    "unwrap": "np.unwrap(a.numpy())", "linalg.lstsq": "np.linalg.solve(a.T @ a, a.T @ b)",
    "linalg.pinv": "np.linalg.solve(a.T @ a, a.T)", "linalg.qr": "np.linalg.cholesky(a.T @ a).T is its R",
    "fft.fft": "sums with np.cos and np.sin, as a matrix product", "save": "np.save(file, a.numpy())",
    "savetxt": "np.savetxt(file, a.numpy())", "linalg.eigh": "np.linalg.eigh(a.numpy()), without gradients",
    "linalg.svd": "np.linalg.svd(a.numpy()), without gradients",
}  # fmt: skip


def function(f: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What `TensorArray.__array_function__` does."""
    found = FUNCTIONS.get(f)
    if found is None:
        module = f.__module__.removeprefix("numpy").lstrip(".")
        name = f"{module}.{f.__name__}" if module and not module.startswith("lib") else f.__name__
        instead = INSTEAD.get(name, "of the values, without gradients: a.numpy(); of Tensors: np.asarray(a)")
        raise TypeError(f"numpy.{name} is not there for a TensorArray; {instead}")
    return found(*args, **options)

