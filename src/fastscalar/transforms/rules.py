"""The rules of differentiation: the partial derivatives of each operation as expressions in Tensors.

One function for each operand of each row of the operation table: the derivative by that operand, of the operands and
the result `v`, as a Tensor or, where it is constant around the point, a float.  Its value is that of the table's
derivative; a test compares them.  Rules are evaluated under `_modes.ieee`: 1 / 0 is inf here, as it is in the table.
The expressions stand in the rows of the table (`engine/operations.pxd`); here are the names that they use.
"""

from __future__ import annotations

from collections.abc import Callable
from math import copysign, isinf, isnan
from typing import Any

from fastscalar._core import Tensor, operation, operations

Rule = Callable[..., Any]


def power_by_base(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if b._op == "const":  # a number stays a number: x**3 -> 3 * x**2, and not an exponent 3 - 1 with its own gradient
        n = b.data
        return n * a ** (n - 1.0) if n != 0.0 else 0.0
    partial = b * a ** (b - 1.0)
    return partial if b.data != 0.0 or partial.data == 0.0 else 0.0


def power_by_exponent(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if a.data > 0.0:
        return v * a.log()
    return 0.0 if a.data == 0.0 and b.data >= 0.0 else float("nan")


def atan2_partial(a: Tensor, b: Tensor) -> Any:
    """b / (a * a + b * b) without its overflow."""
    if a.data == 0.0 and b.data == 0.0:
        return 0.0
    if abs(a.data) > abs(b.data):
        r = b / a
        return r / (1.0 + r * r) / a
    r = a / b
    return 1.0 / (1.0 + r * r) / b


def hypot_by_left(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if isinf(v.data):
        return copysign(1.0, a.data) if isinf(a.data) else 0.0
    return a / v if v.data else 0.0


def hypot_by_right(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if isinf(v.data):
        return copysign(1.0, b.data) if isinf(b.data) and not isinf(a.data) else 0.0
    return b / v if v.data else 0.0


def minus_quotient(a: Tensor, b: Tensor, v: Tensor) -> Any:
    """-n of v = a - n * b: constant between the jumps."""
    return -(a / b - v / b + 0.5).floor()


_NAMES = {
    **{f.__name__: f for f in (abs, copysign, isnan, power_by_base, power_by_exponent, atan2_partial)},
    **{f.__name__: f for f in (hypot_by_left, hypot_by_right, minus_quotient)},
    "PI": 3.141592653589793,
    "LN2": 0.69314718055994530942,
    "LN10": 2.30258509299404568402,
    "TWO_OVER_SQRT_PI": 1.12837916709551257390,
    "ONE_OVER_SQRT_2PI": 0.39894228040143267794,
}


def _rules(code: int) -> tuple[Rule, ...]:
    row = operation(code)
    operands = "a, b, v" if row["arity"] == 2 else "a, v"
    return tuple(eval(f"lambda {operands}: {text}", _NAMES) for text in row["rules"])


RULES: dict[str, tuple[Rule, ...]] = {name: _rules(code) for code, name, _, _ in operations()}
