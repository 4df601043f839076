"""NumPy's functions of a TensorArray, `__array_function__`: reductions, products, statistics, shapes."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from math import inf
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.arrays import linalg, moves, products
from fastscalar.arrays.convert import (
    FUNCTIONS,
    array,
    axes_of,
    axis_of,
    binary,
    filled,
    numbers,
    shape_of,
)
from fastscalar.arrays.masks import TracedMask
from fastscalar.engine._array import TensorArray
from fastscalar.engine._axes import assemble
from fastscalar.engine._modes import is_recording


def of_numpy(*names: str) -> Callable[..., Any]:
    """The function of NumPy with these names (with a dot: in a module of it), as far as this NumPy has them."""

    def register(f: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            where: Any = np
            for part in name.split("."):
                where = getattr(where, part, None)
            if where is not None:
                FUNCTIONS[where] = f
        return f

    return register


def _as_method(name: str) -> Callable[..., Any]:
    def f(x: Any, *args: Any, **options: Any) -> Any:
        if isinstance(x, (list, tuple)):
            x = array(x, name)
        if isinstance(x, np.ndarray):
            x = array(x, name)
        return getattr(x, name)(*args, **options)

    return f


for _numpy, _method in (
    ("sum", "sum"), ("prod", "prod"), ("mean", "mean"), ("var", "var"), ("std", "std"), ("amax", "max"), ("max", "max"),
    ("amin", "min"), ("min", "min"), ("argmax", "argmax"), ("argmin", "argmin"), ("any", "any"), ("all", "all"),
    ("cumsum", "cumsum"), ("cumprod", "cumprod"), ("ptp", "ptp"), ("clip", "clip"), ("round", "round"),
    ("around", "round"), ("ravel", "ravel"), ("reshape", "reshape"), ("transpose", "transpose"),
    ("permute_dims", "transpose"), ("swapaxes", "swapaxes"), ("squeeze", "squeeze"),
    ("copy", "copy"), ("diagonal", "diagonal"), ("trace", "trace"), ("astype", "astype"), ("fix", "trunc"),
):  # fmt: skip
    of_numpy(_numpy)(_as_method(_method))

for _f, _of in moves.MOVES.items():
    FUNCTIONS[_f] = lambda *args, _f=_f, **options: moves.move(_f, args, options)
for _name in ("meshgrid", "broadcast_arrays", "broadcast_to", "pad", "where", "argsort", "sort", "partition",
              "argpartition"):  # fmt: skip
    of_numpy(_name)(getattr(moves, _name))
of_numpy("select")(moves.select_)
for _name in ("dot", "vdot", "inner", "outer", "tensordot", "kron", "einsum"):
    of_numpy(_name)(getattr(products, _name))
for _name in linalg.__all__:
    of_numpy(f"linalg.{_name}")(getattr(linalg, _name))
of_numpy("linalg.matmul")(products.matmul)
of_numpy("linalg.outer")(products.outer)
of_numpy("linalg.tensordot")(products.tensordot)


# --- shape ----------------------------------------------------------------------------------------


@of_numpy("matrix_transpose", "linalg.matrix_transpose")
def matrix_transpose(x: Any) -> Any:
    return x.swapaxes(-1, -2)


@of_numpy("linalg.diagonal")
def matrix_diagonal(x: Any, *, offset: int = 0) -> Any:
    return x.diagonal(offset, -2, -1)


@of_numpy("linalg.trace")
def matrix_trace(x: Any, *, offset: int = 0, dtype: Any = None) -> Any:
    return x.trace(offset, -2, -1)


@of_numpy("shape")
def shape(x: Any) -> tuple[int, ...]:
    return shape_of(x)


@of_numpy("ndim")
def ndim(x: Any) -> int:
    return len(shape_of(x))


@of_numpy("size")
def size(x: Any, axis: Any = None) -> int:
    return int(np.prod([shape_of(x)[d] for d in axes_of(axis, len(shape_of(x)), "size")]))


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
    def f(x: Any, *args: Any, dtype: Any = None, shape: Any = None, **options: Any) -> Any:
        given = args[0] if value is None and args else options.get("fill_value", value)
        made = x.shape if shape is None else shape
        if dtype is not None and np.dtype(dtype).kind not in "fO":
            return np.full(made, given, dtype)
        return filled(made, given)

    return f


of_numpy("zeros_like", "empty_like")(_like(0.0))
of_numpy("ones_like")(_like(1.0))
of_numpy("full_like")(_like(None))


@of_numpy("real", "real_if_close", "conj", "ascontiguousarray", "asfortranarray")
def itself(x: Any, *args: Any, **options: Any) -> Any:
    return x


@of_numpy("imag", "angle")
def no_imaginary_part(x: Any, *args: Any) -> Any:
    return x.imag


@of_numpy("isrealobj")
def isrealobj(x: Any) -> bool:
    return True


@of_numpy("iscomplexobj")
def iscomplexobj(x: Any) -> bool:
    return False


@of_numpy("isreal")
def isreal(x: Any) -> Any:
    return np.ones(x.shape, dtype=bool)


# --- values that are looked at --------------------------------------------------------------------


@of_numpy("count_nonzero")
def count_nonzero(x: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return (x != 0.0).sum(axis, keepdims=keepdims) if axis is not None or keepdims else (x != 0.0).sum()


def _of_truth(name: str) -> None:
    function = getattr(np, name)

    @of_numpy(name)
    def f(x: Any) -> Any:
        condition = x != 0.0
        return function(condition.decided() if isinstance(condition, TracedMask) else condition)


for _name in ("nonzero", "flatnonzero", "argwhere"):
    _of_truth(_name)


@of_numpy("isclose")
def isclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    if not is_recording():
        return np.isclose(numbers(a), numbers(b), rtol, atol, equal_nan)
    a, b = array(a, "isclose"), array(b, "isclose")
    close = abs(a - b) <= abs(b) * rtol + atol
    return np.logical_or(close, a == b)


@of_numpy("allclose")
def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> bool:
    return bool(isclose(a, b, rtol, atol, equal_nan).all())


@of_numpy("array_equal", "array_equiv")
def array_equal(a: Any, b: Any, equal_nan: bool = False) -> bool:
    if not is_recording():
        return np.array_equal(numbers(a), numbers(b), equal_nan)
    return shape_of(a) == shape_of(b) and bool((array(a, "array_equal") == array(b, "array_equal")).all())


@of_numpy("isposinf")
def isposinf(x: Any) -> Any:
    return x == inf


@of_numpy("isneginf")
def isneginf(x: Any) -> Any:
    return x == -inf


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


for _name, _instead in (("sum", 0.0), ("prod", 1.0), ("max", -inf), ("min", inf)):
    _without_nan(_name, _instead)


@of_numpy("nanmean")
def nanmean(x: Any, axis: Any = None, **options: Any) -> Any:
    present = (x == x).astype(float) if is_recording() else (x == x).astype(np.float64)
    return moves.where(x != x, 0.0, x).sum(axis, **options) / present.sum(axis, **options)


# --- statistics, differences ----------------------------------------------------------------------


@of_numpy("average")
def average(x: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    if returned:
        raise TypeError("average: takes no returned= for a TensorArray; the sum of the weights is weights.sum()")
    if weights is None:
        return array(x, "average").mean(axis, keepdims=keepdims)
    weights = weights if isinstance(weights, TensorArray) else np.asarray(weights)
    if weights.shape != x.shape:
        weights = weights.reshape([x.shape[d] if d == axis_of(axis, x.ndim, "average") else 1 for d in range(x.ndim)])
        weights = weights + binary("*", x.detach(), 0.0).numpy() if isinstance(weights, np.ndarray) else (
            moves.broadcast_to(weights, x.shape))  # fmt: skip
    return binary("*", x, weights).sum(axis, keepdims=keepdims) / weights.sum(axis, keepdims=keepdims)


@of_numpy("diff")
def diff(x: Any, n: int = 1, axis: int = -1) -> Any:
    at = (slice(None),) * axis_of(axis, x.ndim, "diff")
    for _ in range(n):
        x = x[(*at, slice(1, None))] - x[(*at, slice(None, -1))]
    return x


@of_numpy("trapezoid", "trapz")
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    y = array(y, "trapezoid")
    axis = axis_of(axis, y.ndim, "trapezoid")
    at = (slice(None),) * axis
    if x is not None:
        x = x if isinstance(x, TensorArray) else np.asarray(x)
        dx = diff(x) if isinstance(x, TensorArray) else np.diff(x)
        if len(dx.shape) == 1 and y.ndim > 1:
            dx = dx.reshape([-1 if d == axis else 1 for d in range(y.ndim)])
    return (dx * (y[(*at, slice(1, None))] + y[(*at, slice(None, -1))]) / 2.0).sum(axis)


@of_numpy("cross", "linalg.cross")
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: Any = None) -> Any:
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = moveaxis(array(a, "cross"), axisa, -1), moveaxis(array(b, "cross"), axisb, -1)
    if a.shape[-1] != 3 or b.shape[-1] != 3:
        raise ValueError(f"cross: expected vectors of three, got shapes {a.shape} and {b.shape}")
    parts = [a[..., i] * b[..., j] - a[..., j] * b[..., i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return moves.move(np.stack, (parts,), {"axis": axisc})


@of_numpy("convolve", "correlate")
def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    raise TypeError("numpy.convolve and correlate are not there for a TensorArray; np.stack shifted slices and use @")


@of_numpy("polyval")
def polyval(p: Any, x: Any) -> Any:
    y: Any = 0.0
    for c in p:
        y = y * x + c
    return y


@of_numpy("vander")
def vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    columns = [x**k for k in range(x.size if N is None else N)]
    return moves.move(np.stack, (columns if increasing else columns[::-1],), {"axis": 1})


@of_numpy("median")
def median(x: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: bool = False) -> Any:
    return quantile(x, 0.5, axis, out, keepdims=keepdims)


@of_numpy("percentile")
def percentile(x: Any, q: Any, *args: Any, **options: Any) -> Any:
    return quantile(x, np.asarray(q) / 100.0, *args, **options)


@of_numpy("quantile")
def quantile(x: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
             keepdims: bool = False, **options: Any) -> Any:  # fmt: skip
    """Between the two elements that are next to it, in ascending order."""
    if out is not None or options or method != "linear":
        raise TypeError('quantile: takes the method "linear" alone, and no out= or weights=, for a TensorArray')
    if isinstance(q, (Tensor, TensorArray)) or np.ndim(q):
        raise TypeError("quantile: expected one number q for a TensorArray; np.stack those of several")
    axes = axes_of(axis, x.ndim, "quantile")
    kept = [d for d in range(x.ndim) if d not in axes]
    flat = x.transpose([*kept, *axes]).reshape([*(x.shape[d] for d in kept), -1])
    n = flat.shape[-1]
    ordered = moves.sort(flat)
    at = float(q) * (n - 1)
    if not 0.0 <= at <= n - 1:
        raise ValueError(f"quantile: expected q between 0 and 1, got {q}")
    low = int(at)
    below, above = ordered[..., low], ordered[..., builtins.min(low + 1, n - 1)]
    found = below + (above - below) * (at - low) if at > low else below
    if keepdims:
        found = found.reshape([1 if d in axes else k for d, k in enumerate(x.shape)]) if kept else filled(
            (1,) * x.ndim, found)  # fmt: skip
    return found


@of_numpy("interp")
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """On straight lines between the points (xp[i], fp[i]), xp ascending numbers; in a program without a decision."""
    if period is not None:
        raise TypeError("interp: takes no period= here; np.interp(x % period, ...)")
    if isinstance(xp, (Tensor, TensorArray)) or np.asarray(xp).dtype.kind not in "fiub":
        raise TypeError("interp: the points xp are numbers: interpolate along them by hand to differentiate by them")
    xp = np.asarray(xp, dtype=np.float64)
    if xp.ndim != 1 or shape_of(fp) != xp.shape or not len(xp):
        raise ValueError(f"interp: expected as many points xp as values fp, got shapes {xp.shape} and {shape_of(fp)}")
    values = [v if isinstance(v, Tensor) else float(v) for v in (fp if isinstance(fp, TensorArray) else list(fp))]
    x = x if isinstance(x, (Tensor, TensorArray)) else array(x, "interp") if shape_of(x) else float(x)
    if is_recording() and not isinstance(x, float):
        found: Any = values[-1] if right is None else right
        found = moves.where(x == xp[-1], values[-1], found)
        for k in range(len(xp) - 2, -1, -1):
            line = (x - xp[k]) * ((values[k + 1] - values[k]) / (xp[k + 1] - xp[k])) + values[k]
            found = moves.where(x < xp[k + 1], line, found)
        found = moves.where(x < xp[0], values[0] if left is None else left, found)
        return moves.where(x != x, x, found)
    if isinstance(x, TensorArray):
        each = [interp(t, xp, fp, left, right) for t in x.flat]
        return assemble([each], np.arange(x.size).reshape(x.shape)) if each else x
    at = x.data if isinstance(x, Tensor) else x
    k = int(np.searchsorted(xp, at, side="right")) - 1
    if at != at:
        result: Any = x
    elif k < 0:
        result = values[0] if left is None else left
    elif k >= len(xp) - 1:
        result = values[-1] if at == xp[-1] or right is None else right
    else:
        result = (x - xp[k]) * ((values[k + 1] - values[k]) / (xp[k + 1] - xp[k])) + values[k]
    return result if isinstance(result, Tensor) else Tensor(result)


@of_numpy("apply_along_axis")
def apply_along_axis(f: Any, axis: int, x: Any, *args: Any, **options: Any) -> Any:
    moved = moveaxis(x, axis, -1)
    rows = moved.reshape(-1, moved.shape[-1])
    made = [array(f(row, *args, **options), "apply_along_axis") for row in rows]
    inside = made[0].shape if isinstance(made[0], TensorArray) else ()
    found = moves.move(np.stack, (made,), {}).reshape(moved.shape[:-1] + inside) if moved.ndim > 1 else made[0]
    return moveaxis(found, -1, axis) if inside and moved.ndim > 1 else found


@of_numpy("array_repr")
def array_repr(x: Any, *args: Any, **options: Any) -> str:
    return repr(x)


@of_numpy("array_str", "array2string")
def array_str(x: Any, *args: Any, **options: Any) -> str:
    return np.array2string(x.numpy(), *args, **options)


# --- what is not there ----------------------------------------------------------------------------

INSTEAD = {
    "unique": "np.unique(a.numpy())", "searchsorted": "np.searchsorted(a.numpy(), ...)",
    "histogram": "np.histogram(a.numpy())", "digitize": "np.digitize(a.numpy(), ...)",
    "copyto": "a[...] = value, of an array that was computed", "put": "a[index] = value, of an array that was computed",
    "putmask": "a[mask] = value, of an array that was computed", "place": "a[mask] = value",
    "fill_diagonal": "np.where(np.eye(n, dtype=bool), value, a)", "cov": "(d.T @ d) / (n - 1) with d = a - a.mean(0)",
    "corrcoef": "np.std and means of products", "gradient": "np.diff, or slices",
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

