"""The rules of differentiation: the partial derivatives of each operation as expressions in Tensors.

One function for each operand of each row of the operation table: the derivative by that operand, of the operands and
the result `v`, as a Tensor or, where it is constant around the point, a float.  Its value is that of the table's
derivative; a test compares them.  Rules are evaluated under `_modes.ieee`: 1 / 0 is inf here, as it is in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from math import copysign, isinf
from typing import Any

import numpy as np

from fastscalar._core import Tensor

_LN2, _LN10 = 0.69314718055994530942, 2.30258509299404568402
_TWO_OVER_SQRT_PI, _ONE_OVER_SQRT_2PI = 1.12837916709551257390, 0.39894228040143267794
_DEGREES = 180.0 / 3.141592653589793
_RADIANS = 3.141592653589793 / 180.0

Rule = Callable[..., Any]


def _power_by_base(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if b._op == "const":  # a number stays a number: x**3 -> 3 * x**2, and not an exponent 3 - 1 with its own gradient
        n = b.data
        return n * a ** (n - 1.0) if n != 0.0 else 0.0
    partial = b * a ** (b - 1.0)
    return partial if b.data != 0.0 or partial.data == 0.0 else 0.0


def _power_by_exponent(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if a.data > 0.0:
        return v * a.log()
    return 0.0 if a.data == 0.0 and b.data >= 0.0 else float("nan")


def _silu_partial(a: Tensor, v: Tensor) -> Any:
    s = a.sigmoid()
    return s if abs(a.data) > 1e3 else s * (1.0 + a * (-a).sigmoid())


def _gelu_partial(a: Tensor, v: Tensor) -> Any:
    return a.ndtr() if abs(a.data) > 1e3 else a.ndtr() + a * (_ONE_OVER_SQRT_2PI * (-0.5 * a * a).exp())


def _asinh_partial(a: Tensor, v: Tensor) -> Any:
    return 1.0 / (a * a + 1.0).sqrt() if abs(a.data) < 1e150 else 1.0 / abs(a)


def _atan2_partial(a: Tensor, b: Tensor) -> Any:
    """b / (a * a + b * b) without its overflow."""
    if a.data == 0.0 and b.data == 0.0:
        return 0.0
    if abs(a.data) > abs(b.data):
        r = b / a
        return r / (1.0 + r * r) / a
    r = a / b
    return 1.0 / (1.0 + r * r) / b


def _hypot_by_left(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if isinf(v.data):
        return copysign(1.0, a.data) if isinf(a.data) else 0.0
    return a / v if v.data else 0.0


def _hypot_by_right(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if isinf(v.data):
        return copysign(1.0, b.data) if isinf(b.data) and not isinf(a.data) else 0.0
    return b / v if v.data else 0.0


def _minus_quotient(a: Tensor, b: Tensor, v: Tensor) -> Any:
    """-n of v = a - n * b: constant between the jumps."""
    return -(a / b - v / b + 0.5).floor()


def _chosen(first: bool) -> float:
    return 1.0 if first else 0.0


def _is_nan(a: Tensor) -> bool:
    return a.data != a.data


def _zero(*_: Tensor) -> float:
    return 0.0


RULES: dict[str, tuple[Rule, ...]] = {
    "+": (lambda a, b, v: 1.0, lambda a, b, v: 1.0),
    "-": (lambda a, b, v: 1.0, lambda a, b, v: -1.0),
    "*": (lambda a, b, v: b, lambda a, b, v: a),
    "/": (lambda a, b, v: 1.0 / b, lambda a, b, v: -(v / b)),
    "**": (_power_by_base, _power_by_exponent),
    "%": (lambda a, b, v: 1.0, _minus_quotient),
    "//": (_zero, _zero),
    "neg": (lambda a, v: -1.0,),
    "relu": (lambda a, v: _chosen(not a.data <= 0.0),),
    "exp": (lambda a, v: v,),
    "log": (lambda a, v: 1.0 / a,),
    "exp2": (lambda a, v: v * _LN2,),
    "expm1": (lambda a, v: v + 1.0,),
    "log2": (lambda a, v: 1.0 / (a * _LN2),),
    "log10": (lambda a, v: 1.0 / (a * _LN10),),
    "log1p": (lambda a, v: 1.0 / (1.0 + a),),
    "sqrt": (lambda a, v: 0.5 / v,),
    "cbrt": (lambda a, v: 1.0 / (3.0 * v * v),),
    "sin": (lambda a, v: a.cos(),),
    "cos": (lambda a, v: -a.sin(),),
    "tan": (lambda a, v: 1.0 + v * v,),
    "asin": (lambda a, v: 1.0 / ((1.0 - a) * (1.0 + a)).sqrt(),),
    "acos": (lambda a, v: -1.0 / ((1.0 - a) * (1.0 + a)).sqrt(),),
    "atan": (lambda a, v: 1.0 / (1.0 + a * a),),
    "sinh": (lambda a, v: a.cosh(),),
    "cosh": (lambda a, v: a.sinh(),),
    "tanh": (lambda a, v: (1.0 - v) * (1.0 + v),),
    "asinh": (_asinh_partial,),
    "acosh": (lambda a, v: 1.0 / ((a - 1.0).sqrt() * (a + 1.0).sqrt()),),
    "atanh": (lambda a, v: 1.0 / ((1.0 - a) * (1.0 + a)),),
    "erf": (lambda a, v: _TWO_OVER_SQRT_PI * (-a * a).exp(),),
    "erfc": (lambda a, v: -(_TWO_OVER_SQRT_PI * (-a * a).exp()),),
    "ndtr": (lambda a, v: _ONE_OVER_SQRT_2PI * (-0.5 * a * a).exp(),),
    "lgamma": (lambda a, v: a.digamma(),),
    "gamma": (lambda a, v: v * a.digamma(),),
    "digamma": (lambda a, v: a.polygamma(1.0),),
    "polygamma": (lambda a, b, v: a.polygamma(b.data + 1.0), _zero),
    "abs": (lambda a, v: a.sign().data if a.data != 0.0 else 0.0,),
    "sign": (_zero,),
    "floor": (_zero,),
    "ceil": (_zero,),
    "trunc": (_zero,),
    "degrees": (lambda a, v: _DEGREES,),
    "radians": (lambda a, v: _RADIANS,),
    # sigmoid(x) * sigmoid(-x): keeps both tails, and has no kink that a formula in |x| would have in the next order
    "sigmoid": (lambda a, v: v * (-a).sigmoid(),),
    "softplus": (lambda a, v: a.sigmoid(),),
    "silu": (_silu_partial,),
    "gelu": (_gelu_partial,),
    "minimum": (
        lambda a, b, v: _chosen(a.data <= b.data or _is_nan(a)),
        lambda a, b, v: _chosen(not (a.data <= b.data or _is_nan(a))),
    ),
    "maximum": (
        lambda a, b, v: _chosen(a.data >= b.data or _is_nan(a)),
        lambda a, b, v: _chosen(not (a.data >= b.data or _is_nan(a))),
    ),
    "atan2": (lambda a, b, v: _atan2_partial(a, b), lambda a, b, v: -_atan2_partial(b, a)),
    "hypot": (_hypot_by_left, _hypot_by_right),
    "copysign": (lambda a, b, v: float(np.copysign(1.0, a.data) * np.copysign(1.0, b.data)), _zero),
    "fmod": (lambda a, b, v: 1.0, _minus_quotient),
    "remainder": (lambda a, b, v: 1.0, _minus_quotient),
    "leaky_relu": (
        lambda a, b, v: 1.0 if a.data > 0.0 or _is_nan(a) else b,
        lambda a, b, v: 0.0 if a.data > 0.0 else a,
    ),
    "elu": (
        lambda a, b, v: 1.0 if a.data > 0.0 or _is_nan(a) else b * a.exp(),
        lambda a, b, v: 0.0 if a.data > 0.0 else a.expm1(),
    ),
    "send": (lambda a, b, v: b, lambda a, b, v: a),
}
