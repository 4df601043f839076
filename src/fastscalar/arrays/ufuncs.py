"""NumPy's element-wise functions of a TensorArray, `__array_ufunc__`: `np.exp(x)`, `ndarray + x`, `np.fmax(x, 0)`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.arrays.convert import array, binary, numbers, objects, shape_of, unsupported
from fastscalar.arrays.masks import TracedMask, compare, plain
from fastscalar.arrays.moves import where as _where
from fastscalar.arrays.products import matmul
from fastscalar.engine._array import TensorArray
from fastscalar.engine._functions import operations
from fastscalar.engine._modes import is_recording
from fastscalar.engine._traced import TracedBool

# Those that are a row of the operation table, by its name.
ROWS: dict[Any, str] = {
    np.negative: "neg", np.absolute: "abs", np.fabs: "abs", np.rint: "rint", np.deg2rad: "radians",
    np.rad2deg: "degrees", np.add: "+", np.subtract: "-", np.multiply: "*", np.divide: "/", np.power: "**",
    np.float_power: "**", np.remainder: "%", np.floor_divide: "//", np.fmod: "fmod", np.maximum: "maximum",
    np.minimum: "minimum", np.arctan2: "atan2", np.hypot: "hypot", np.copysign: "copysign",
}  # fmt: skip
UNARY: dict[Any, Callable[[Any], Any]] = {
    np.positive: lambda x: x,
    np.square: lambda x: x * x,
    np.reciprocal: lambda x: 1.0 / x,
    np.conjugate: lambda x: x,
}
for _name in ("exp", "log", "exp2", "expm1", "log2", "log10", "log1p", "sqrt", "cbrt", "sin", "cos", "tan", "sinh",
              "cosh", "tanh", "floor", "ceil", "trunc", "sign", "degrees", "radians"):  # fmt: skip
    ROWS[getattr(np, _name)] = _name
for _name in ("sin", "cos", "tan", "sinh", "cosh", "tanh"):
    ROWS[getattr(np, "arc" + _name)] = "a" + _name
CODES = {f: code for f, row in ROWS.items() for code, name, _, _ in operations() if name == row}
for _code, _ufuncs in (
    (-1, (np.square,)),
    (-7, (np.less, np.less_equal, np.equal, np.not_equal, np.greater, np.greater_equal)),
    (-11, (np.isnan, np.isfinite, np.isinf, np.signbit)),
    (-12, (np.fmin,)),
    (-13, (np.fmax,)),
):  # as `_array` counts what is no row
    CODES |= {f: _code + k for k, f in enumerate(_ufuncs)}


LN2 = float(np.log(2.0))


def logaddexp(x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)) without overflow."""
    x, y = array(x, "logaddexp"), array(y, "logaddexp")
    if isinstance(x, Tensor) and isinstance(y, Tensor):
        if x == y:  # also of infinities
            return x * 0.5 + y * 0.5 + LN2 if abs(x) < inf else x
        return x + (y - x).softplus() if x > y else y + (x - y).softplus()
    same = compare(operator.eq, x, y) if is_recording() else numbers(x) == numbers(y)
    above = compare(operator.gt, x, y) if is_recording() else numbers(x) > numbers(y)
    apart = _where(same, 0.0, binary("-", x, y))
    largest = _where(above, x, y)
    return binary("+", largest, _where(above, -apart, apart).softplus()) if isinstance(apart, TensorArray) else largest


def _heaviside(x: Any, middle: Any) -> Any:
    if isinstance(x, TensorArray) and not is_recording():
        known = 0.0 if isinstance(middle, (TensorArray, Tensor)) else middle
        steps = binary("*", np.heaviside(numbers(x), known), 1.0)
        zero = x == 0.0
        if known is middle or (shape_of(middle) in ((), shape_of(steps)) and not np.any(zero)):
            return steps
        return _where(zero, middle, steps)
    return _where(x == 0.0, middle, _where(x < 0.0, 0.0, _where(x > 0.0, 1.0, nan)))


COMPARISONS: dict[Any, Any] = {
    np.less: operator.lt, np.less_equal: operator.le, np.greater: operator.gt, np.greater_equal: operator.ge,
    np.equal: operator.eq, np.not_equal: operator.ne,
}  # fmt: skip
TESTS: dict[Any, Callable[[Any], Any]] = {
    np.isnan: lambda x: x != x,
    np.isfinite: lambda x: abs(x) < inf,
    np.isinf: lambda x: abs(x) == inf,
    np.signbit: lambda x: np.copysign(1.0, x) < 0.0,
}
OTHERS: dict[Any, Callable[..., Any]] = {
    np.matmul: lambda x, y: matmul(x, y, "matmul"),
    np.logaddexp: logaddexp,
    np.logaddexp2: lambda x, y: logaddexp(*(array(t, "logaddexp2") * LN2 for t in (x, y))) / LN2,
    np.heaviside: _heaviside,
    np.fmax: lambda x, y: _where(_test(np.isnan, x), y, _where(_test(np.isnan, y), x, binary("maximum", x, y))),
    np.fmin: lambda x, y: _where(_test(np.isnan, x), y, _where(_test(np.isnan, y), x, binary("minimum", x, y))),
    np.divmod: lambda x, y: (binary("//", x, y), binary("%", x, y)),
    np.modf: lambda x: (_where(TESTS[np.isinf](x), np.copysign(0.0, x), x.fmod(1.0)), x.trunc()),
}
for _name, _f in {
    "vecdot": lambda x, y: binary("*", x, y).sum(-1),
    "matvec": lambda x, y: matmul(x, array(y, "matvec")[..., None], "matvec")[..., 0],
    "vecmat": lambda x, y: matmul(array(x, "vecmat")[..., None, :], y, "vecmat")[..., 0, :],
}.items():
    if hasattr(np, _name):
        OTHERS[getattr(np, _name)] = _f
LOGICAL = {np.logical_and, np.logical_or, np.logical_xor, np.logical_not}
INSTEAD = {np.frexp: "fastscalar.math.frexp of each element", np.ldexp: "x * 2.0**n", np.spacing: "fastscalar.math.ulp",
           np.nextafter: "fastscalar.math.nextafter"}  # fmt: skip


def _test(test: Any, x: Any) -> Any:
    return TESTS[test](x) if isinstance(x, (TensorArray, Tensor)) else test(x)


def _unary(name: str, x: Any) -> Any:
    return -x if name == "neg" else getattr(x, name)()


def _truth(x: Any) -> Any:
    if isinstance(x, TensorArray):
        return x != 0.0
    return bool(x) if isinstance(x, (Tensor, TracedBool)) else x


def _compared(comparison: Any, x: Any, y: Any) -> Any:
    if isinstance(x, TensorArray):
        return comparison(x, y)
    if is_recording():
        return compare(comparison, x, y)
    return comparison(numbers(x), numbers(y))


def call(ufunc: Any, inputs: tuple[Any, ...]) -> Any:
    """A ufunc of arrays and numbers; NotImplemented: it has no meaning here."""
    inputs = tuple(x.as_numbers() if isinstance(x, TracedMask) and ufunc not in LOGICAL else x for x in inputs)
    if ufunc in ROWS:
        return binary(ROWS[ufunc], *inputs) if ufunc.nin == 2 else _unary(ROWS[ufunc], *inputs)
    if ufunc in UNARY:
        return UNARY[ufunc](*inputs)
    if ufunc in COMPARISONS:
        return _compared(COMPARISONS[ufunc], *inputs)
    if ufunc in TESTS:
        return TESTS[ufunc](*inputs)
    if ufunc in OTHERS:
        return OTHERS[ufunc](*inputs)
    if ufunc in LOGICAL:
        return ufunc(*map(_truth, inputs))
    return NotImplemented


def refuse(ufunc: Any, what: str, kind: str = "TensorArray") -> TypeError:
    instead = INSTEAD.get(ufunc, "of the values, without gradients: a.numpy()")
    return TypeError(f"numpy.{what} is not there for a {kind}; {instead}")


REDUCE = {np.add: "sum", np.multiply: "prod", np.maximum: "max", np.minimum: "min", np.logical_and: "all",
          np.logical_or: "any"}  # fmt: skip


def ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What `TensorArray.__array_ufunc__` does."""
    out = options.pop("out", None)
    for name in ("where", "dtype", "casting", "order", "subok"):
        if name in options and name != "dtype":
            raise refuse(ufunc, f"{ufunc.__name__}({name}=)")
    unsupported(f"numpy.{ufunc.__name__}", {"dtype": options.pop("dtype", None)})
    if method == "reduce" and ufunc in REDUCE:
        axis = options.pop("axis", inputs[1] if len(inputs) > 1 else 0)
        result = getattr(inputs[0], REDUCE[ufunc])(axis=axis, keepdims=options.pop("keepdims", False))
    elif method == "accumulate" and ufunc in (np.add, np.multiply):
        axis = options.pop("axis", inputs[1] if len(inputs) > 1 else 0)
        result = inputs[0].cumsum(axis) if ufunc is np.add else inputs[0].cumprod(axis)
    elif method == "outer":
        x, y = (array(x, ufunc.__name__) for x in inputs)
        if isinstance(x, TensorArray):
            x = x.reshape(x.shape + (1,) * len(shape_of(y)))
        result = call(ufunc, (x, y))
    elif method == "at" and isinstance(inputs[0], TensorArray) and not options and out is None:
        return _at(ufunc, *inputs)
    elif method == "__call__":
        result = call(ufunc, inputs)
    else:
        raise refuse(ufunc, f"{ufunc.__name__}.{method}")
    if result is NotImplemented:
        raise refuse(ufunc, ufunc.__name__)
    if options:
        raise refuse(ufunc, f"{ufunc.__name__}({next(iter(options))}=)")
    return _put(ufunc, result, out) if out is not None else result


def _at(ufunc: Any, to: Any, key: Any, *others: Any) -> None:
    """to[key] = ufunc(to[key], ...), one after the other where an element comes more than once."""
    places = np.arange(to.size).reshape(to.shape)[plain(key)]
    values = [objects(x) for x in others]
    values = [np.broadcast_to(x, np.broadcast_shapes(x.shape, places.shape)).ravel() for x in values]
    places, left = places.ravel(), np.arange(places.size)
    while left.size:
        _, first = np.unique(places[left], return_index=True)
        now = left[first]
        where = np.unravel_index(places[now], to.shape)
        result = call(ufunc, (to[where], *(array(x[now], ufunc.__name__) for x in values)))
        if result is NotImplemented:
            raise refuse(ufunc, f"{ufunc.__name__}.at")
        to[where], left = result, np.delete(left, first)


def _put(ufunc: Any, result: Any, out: tuple[Any, ...]) -> Any:
    """Into `out`: an array that was computed, or one of objects."""
    to = out[0]
    if len(out) != 1 or not (isinstance(to, TensorArray) or (isinstance(to, np.ndarray) and to.dtype == object)):
        kind = f"an array of {to.dtype}" if isinstance(to, np.ndarray) else type(to).__name__
        raise TypeError(f"numpy.{ufunc.__name__}: {kind} cannot hold Tensors (out=, or an operation in place); "
                        "write y = y + x")  # fmt: skip
    if isinstance(to, TensorArray):
        to[...] = result
    else:
        to[...] = objects(result)
    return to
