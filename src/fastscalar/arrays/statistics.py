"""NumPy's statistics, differences, polynomials and interpolation of TensorArrays."""

from __future__ import annotations

import builtins
import operator
from numbers import Real
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.arrays import moves
from fastscalar.arrays.convert import array, axes_of, axis_of, binary, filled, of_numpy, shape_of
from fastscalar.arrays.products import einsum
from fastscalar.engine._array import TensorArray
from fastscalar.engine._axes import assemble
from fastscalar.engine._modes import is_recording


@of_numpy("average")
def average(x: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    if returned:
        raise TypeError("average: takes no returned= for a TensorArray; the sum of the weights is weights.sum()")
    if weights is None:
        return array(x, "average").mean(axis, keepdims=keepdims)
    weights = weights if isinstance(weights, TensorArray) else np.asarray(weights)
    if weights.shape != x.shape:
        if axis is None:
            raise TypeError(f"average: weights of shape {weights.shape} for an array of shape {x.shape} need an axis")
        axes = axes_of(axis, x.ndim, "average")
        if weights.shape != tuple(x.shape[d] for d in axes):
            raise ValueError(f"average: weights of shape {weights.shape} along axis {axis} of shape {x.shape}")
        weights = weights.transpose(sorted(range(len(axes)), key=axes.__getitem__))
        weights = weights.reshape([n if d in axes else 1 for d, n in enumerate(x.shape)])
        broadcast = np.broadcast_to if isinstance(weights, np.ndarray) else moves.broadcast_to
        weights = broadcast(weights, x.shape)
    return binary("*", x, weights).sum(axis, keepdims=keepdims) / weights.sum(axis, keepdims=keepdims)


@of_numpy("diff")
def diff(x: Any, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None) -> Any:
    x, axis = array(x, "diff"), axis_of(axis, x.ndim, "diff")
    if operator.index(n) < 0:
        raise ValueError(f"diff: expected an order of 0 or more, got {n}")
    at = (slice(None),) * axis
    ends = [None if e is None or e is np._NoValue else array(e, "diff") for e in (prepend, append)]
    if ends[0] is not None or ends[1] is not None:
        edge = tuple(1 if d == axis else k for d, k in enumerate(x.shape))
        parts = [moves.broadcast_to(e, edge) if shape_of(e) == () else e for e in ends if e is not None]
        parts.insert(ends[0] is not None, x)
        x = moves.move(np.concatenate, (parts,), {"axis": axis})
    for _ in range(min(n, x.shape[axis])):
        x = x[(*at, slice(1, None))] - x[(*at, slice(None, -1))]
    return x


@of_numpy("ediff1d")
def ediff1d(x: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """The differences of elements in row-major order, with others before and after."""
    parts = [np.ravel(to_begin)] if to_begin is not None else []
    parts += [diff(array(x, "ediff1d").ravel())] + ([np.ravel(to_end)] if to_end is not None else [])
    return moves.move(np.concatenate, (parts,), {}) if len(parts) > 1 else parts[0]


@of_numpy("trapezoid", "trapz")
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    y = array(y, "trapezoid")
    axis = axis_of(axis, y.ndim, "trapezoid")
    at = (slice(None),) * axis
    if x is not None:
        x = x if isinstance(x, TensorArray) else np.asarray(x)
        dx = np.diff(x, axis=axis if x.ndim > 1 else -1)
        if x.ndim == 1 and y.ndim > 1:
            dx = dx.reshape([-1 if d == axis else 1 for d in range(y.ndim)])
    return (dx * (y[(*at, slice(1, None))] + y[(*at, slice(None, -1))]) / 2.0).sum(axis)


@of_numpy("gradient")
def gradient(f: Any, *spacing: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Central differences, at the ends one-sided ones; of several axes a list.  spacing: a distance, or the places
    of the elements along an axis."""
    if edge_order != 1:
        raise TypeError("gradient: takes edge_order 1 for a TensorArray")
    axes = axes_of(axis, f.ndim, "gradient")
    steps = list(spacing) * (len(axes) if len(spacing) == 1 else 1) or [1.0] * len(axes)
    if len(steps) != len(axes):
        raise TypeError(f"gradient: {len(spacing)} distances for {len(axes)} axes")
    found = []
    for d, h in zip(axes, steps, strict=True):
        if f.shape[d] < 2:
            raise ValueError(f"gradient: expected at least 2 elements along an axis, got shape {f.shape}")
        at = (slice(None),) * d
        if np.ndim(h):
            h = diff(h) if isinstance(h, TensorArray) else np.diff(np.asarray(h))
            h = h.reshape([-1 if e == d else 1 for e in range(f.ndim)])
            if h.size != f.shape[d] - 1:
                raise ValueError(f"gradient: {h.size + 1} places for {f.shape[d]} elements")
            p, q = h[(*at, slice(None, -1))], h[(*at, slice(1, None))]
            left, middle, right = f[(*at, slice(None, -2))], f[(*at, slice(1, -1))], f[(*at, slice(2, None))]
            inside = left * (-q / (p * (p + q))) + middle * ((q - p) / (p * q)) + right * (p / (q * (p + q)))
            quotients = diff(f, axis=d) / h
            first, last = quotients[(*at, slice(0, 1))], quotients[(*at, slice(-1, None))]
        else:
            inside = (f[(*at, slice(2, None))] - f[(*at, slice(None, -2))]) / (2.0 * h)
            first = (f[(*at, slice(1, 2))] - f[(*at, slice(0, 1))]) / h
            last = (f[(*at, slice(-1, None))] - f[(*at, slice(-2, -1))]) / h
        found.append(moves.move(np.concatenate, ([first, inside, last],), {"axis": d}))
    return found[0] if len(found) == 1 else found


@of_numpy("convolve")
def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    """The sums of a[i - j] * v[j] over j."""
    a, v = (filled((1,), x) if isinstance(x, Tensor) else x for x in (array(a, "convolve"), array(v, "convolve")))
    for x in (a, v):
        if x.ndim != 1 or not x.size:
            raise ValueError("convolve: expected two sequences of numbers, neither empty")
    if a.size < v.size:
        a, v = v, a
    n, m = a.size, v.size
    if mode not in ("full", "same", "valid"):
        raise ValueError(f"convolve: mode is full, same or valid, got {mode!r}")
    first, count = {"full": (0, n + m - 1), "same": ((m - 1) // 2, n), "valid": (m - 1, n - m + 1)}[mode]
    places = np.arange(first - m + 1, first - m + 1 + count)[:, None] + np.arange(m)  # in a
    there = (places >= 0) & (places < n)
    whole, parts, v = there.all(1), [], v[::-1]
    for rows in (slice(0, whole.argmax()), whole, slice(count - whole[::-1].argmax(), count)):
        if rows is whole:
            parts.append(a[places[rows]] @ v)
        elif rows.start < rows.stop:                # at the ends, where a term that is not there is 0 times 0
            x, y = (moves.pad(t, (1, 0))[np.where(there[rows], k[rows] + 1, 0)]
                    for t, k in ((a, places), (v, np.arange(m) + 0 * places)))  # fmt: skip
            parts.append(einsum("ij,ij->i", x, y))
    return moves.move(np.concatenate, (parts,), {}) if len(parts) > 1 else parts[0]


@of_numpy("correlate")
def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    """The sums of a[i + j] * v[j] over j."""
    a, v = array(a, "correlate"), array(v, "correlate")
    if a.size < v.size:
        return convolve(v, a[::-1], mode)[::-1]
    return convolve(a, v[::-1], mode)


@of_numpy("cov")
def cov(m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None, **options: Any) -> Any:
    """The covariances of variables, one a row; of one variable its variance, a Tensor."""
    if any(value is not None for value in options.values()):
        raise TypeError("cov: takes no weights and no dtype for a TensorArray")
    if ddof is not None and ddof != int(ddof):
        raise ValueError(f"cov: expected a whole number ddof, got {ddof}")
    x = _variables(m, rowvar)
    if y is not None:
        x = moves.move(np.concatenate, ([x, _variables(y, rowvar)],), {})
    d = x - x.mean(1, keepdims=True)
    found = d @ d.T / (x.shape[1] - (ddof if ddof is not None else 0 if bias else 1))
    return found if x.shape[0] > 1 else found[0, 0]


def _variables(x: Any, rowvar: bool) -> Any:
    x = array(x, "cov")
    if x.ndim > 2:
        raise ValueError(f"cov: expected one or two dimensions, got shape {x.shape}")
    return x[None] if x.ndim == 1 else x if rowvar else x.T


@of_numpy("corrcoef")
def corrcoef(x: Any, y: Any = None, rowvar: bool = True) -> Any:
    """The coefficients of correlation of variables, one a row."""
    c = cov(x, y, rowvar)
    if isinstance(c, Tensor):
        return c / c
    deviation = np.sqrt(c.diagonal())
    return c / deviation[:, None] / deviation[None, :]


@of_numpy("sinc")
def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), 1 at 0, where its derivative is 0."""
    zero = x == 0.0
    t = moves.where(zero, 1.0, x) * float(np.pi)
    return moves.where(zero, 1.0, np.sin(t) / t)


@of_numpy("piecewise")
def piecewise(x: Any, condlist: Any, funclist: Any, *args: Any, **options: Any) -> Any:
    """Where a condition holds, the last of them, its function or number; else the one that is left over, or 0."""
    stacked = not isinstance(condlist, (list, tuple)) and len(shape_of(condlist)) > len(shape_of(x))
    conditions = list(condlist) if stacked or isinstance(condlist, (list, tuple)) else [condlist]
    values = [g(x, *args, **options) if callable(g) else g for g in funclist]
    if len(values) - len(conditions) not in (0, 1):
        raise ValueError(f"piecewise: {len(conditions)} conditions and {len(values)} functions")
    found = values.pop() if len(values) > len(conditions) else 0.0
    for condition, value in zip(conditions, values, strict=True):
        found = moves.where(condition, value, found)
    return found


@of_numpy("polyval")
def polyval(p: Any, x: Any) -> Any:
    y: Any = 0.0 if len(p) else np.zeros_like(x)
    for c in p:
        y = y * x + c
    return y


@of_numpy("vander")
def vander(x: Any, N: Any = None, increasing: bool = False) -> Any:
    if x.ndim != 1:
        raise ValueError(f"vander: expected one dimension, got shape {x.shape}")
    columns = [x**k for k in range(x.size if N is None else N)]
    if not columns:
        return x[:, None][:, :0]
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
    """Between the two elements that are next to it, in ascending order; NaN where one of them is."""
    if out is not None or options or method != "linear":
        raise TypeError('quantile: takes the method "linear" alone, and no out= or weights=, for a TensorArray')
    if isinstance(q, (Tensor, TensorArray)):
        raise TypeError("quantile: expected numbers q, got Tensors, by which it has no derivative")
    if np.ndim(q):
        found = moves.move(np.stack, ([quantile(x, p, axis, keepdims=keepdims) for p in np.ravel(q)],), {})
        return found.reshape(np.shape(q) + found.shape[1:])
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
    t = at - low
    found = below if not t else below + (above - below) * t if t < 0.5 else above - (above - below) * (1.0 - t)
    last = ordered[..., -1]
    found = moves.where(last != last, last, found)
    if keepdims:
        found = found.reshape([1 if d in axes else k for d, k in enumerate(x.shape)]) if kept else filled(
            (1,) * x.ndim, found)  # fmt: skip
    return found


def _of_numbers(fp: Any) -> Any:
    """Values between which is interpolated, one after the other; TypeError if they are no numbers."""
    if isinstance(fp, TensorArray):
        return fp
    given = np.asarray(fp)
    wrong = [type(v).__name__ for v in given.flat if not isinstance(v, (Tensor, Real, np.bool_))]
    if wrong:
        raise TypeError(f"interp: expected real numbers or Tensors, got {wrong[0]}")
    return given


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
    values = [v if isinstance(v, Tensor) else float(v) for v in _of_numbers(fp)]
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
