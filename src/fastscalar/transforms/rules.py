"""The rules of differentiation: the partial derivatives of each operation as expressions in Tensors.

One function for each operand of each row of the operation table: the derivative by that operand, of the operands and
the result `v`, as a Tensor or, where it is constant around the point, a float.  Its value is that of the table's
derivative; a test compares them.  Rules are evaluated under `_modes.ieee`: 1 / 0 is inf here, as it is in the table.
The expressions stand in the rows of the table (`engine/operations.pxd`); here are the names that they use.

A rule reads no value: where it depends on one, it asks `where`.  While a program is recorded the choice is part of the
recording, which holds for all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from math import copysign, inf
from typing import Any, NamedTuple

from fastscalar._core import Tensor
from fastscalar.engine import _inspect
from fastscalar.engine._functions import operation, operations
from fastscalar.engine._modes import is_recording
from fastscalar.engine._traced import TracedBool

Rule = Callable[..., Any]


class Choice(NamedTuple):
    """A partial derivative in the recording of a program: `yes` for rows in which a comparison holds, else `no`; each
    of them a partial derivative, and one that is 0.0 passes nothing."""

    condition: TracedBool
    yes: Any
    no: Any


def where(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where a comparison holds, else `no`: partial derivatives, or what gives them."""
    if type(condition) is TracedBool:
        return Choice(condition, yes() if callable(yes) else yes, no() if callable(no) else no)
    chosen = yes if condition else no
    return chosen() if callable(chosen) else chosen


def unless_nan(a: Tensor, holds: Any, yes: float, no: Any = None) -> Any:
    """`yes` where a comparison holds or a is NaN, else `no`, or 1 - yes."""
    return where(holds, yes, lambda: where(a != a, yes, 1.0 - yes if no is None else no))


def number(t: Tensor) -> Any:
    """A number that the program wrote, the same for all rows; anything else stays a Tensor."""
    return _inspect._constant(t) if t._op == "const" else t


def sign(a: Tensor) -> Any:
    """The sign, as a number if that is known."""
    return a.sign() if is_recording() else a.sign().data


def sign_bit(a: Tensor) -> Any:
    """1 or -1, also of zeros."""
    return Tensor(1.0).copysign(a) if is_recording() else copysign(1.0, a.data)


def power_by_base(a: Tensor, b: Tensor, v: Tensor) -> Any:
    n = number(b)
    if n is not b:  # a number stays a number: x**3 -> 3 * x**2, and not an exponent 3 - 1 with its own gradient
        return n * a ** (n - 1.0) if n != 0.0 else 0.0
    partial = b * a ** (b - 1.0)
    return where(b != 0.0, partial, lambda: where(partial == 0.0, partial, 0.0))


def power_by_exponent(a: Tensor, b: Tensor, v: Tensor) -> Any:
    nan = float("nan")
    return where(a > 0.0, lambda: v * a.log(), lambda: where(a == 0.0, lambda: where(b >= 0.0, 0.0, nan), nan))


def atan2_partial(a: Tensor, b: Tensor, sign: float) -> Any:
    """sign * b / (a * a + b * b) without its overflow."""

    def steep() -> Any:
        r = b / a
        return r / (1.0 + r * r) / (a * sign)

    def flat() -> Any:
        r = a / b
        return 1.0 / (1.0 + r * r) / (b * sign)

    def otherwise() -> Any:
        return where(abs(a) > abs(b), steep, flat)

    return where(a == 0.0, lambda: where(b == 0.0, 0.0, otherwise), otherwise)


def _hypot_by(a: Tensor, v: Tensor, infinite: Any) -> Any:
    def quotient() -> Any:
        return where(v != 0.0, lambda: a / v, 0.0)

    return where(v == inf, lambda: where(abs(a) == inf, infinite, 0.0), quotient)


def hypot_by_left(a: Tensor, b: Tensor, v: Tensor) -> Any:
    return _hypot_by(a, v, lambda: sign_bit(a))


def hypot_by_right(a: Tensor, b: Tensor, v: Tensor) -> Any:
    return _hypot_by(b, v, lambda: where(abs(a) == inf, 0.0, lambda: sign_bit(b)))


def minus_quotient(a: Tensor, b: Tensor, v: Tensor) -> Any:
    """-n of v = a - n * b: constant between the jumps."""
    return -(a / b - v / b + 0.5).floor()


_NAMES = {
    **{f.__name__: f for f in (abs, where, unless_nan, number, sign, sign_bit, power_by_base, power_by_exponent)},
    **{f.__name__: f for f in (atan2_partial, hypot_by_left, hypot_by_right, minus_quotient)},
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
