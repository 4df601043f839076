"""gradcheck where a function jumps: wide and narrow differences disagree, and the report says so; kinks are none."""

from __future__ import annotations

import math as python_math
from collections.abc import Callable
from typing import Any

import pytest

import fastscalar as fs
from fastscalar import math


def falling_ball(speed: Any, step: float = 0.01, exact_end: bool = False) -> Any:
    """How far a ball flies that is thrown straight ahead and upwards from a height of 10."""
    x, y, v = 0.0, 10.0, speed
    while y > 0.0:
        x, y, v = x + speed * step, y + v * step, v - 9.81 * step
    return x - speed * (y / (v + 9.81 * step)) if exact_end else x


def counting(x: Any, step: float = 0.01) -> Any:
    k = 0
    while k * step < x:
        k += 1
    return k * step


def counting_with_a_gradient(x: Any, step: float = 0.01) -> Any:
    """As before, but x takes part in the result: its derivative is there, and is not the slope."""
    total, k = x * 0.5, 0
    while k * step < x:
        total, k = total + step, k + 1
    return total


def bisection(c: Any, tolerance: float = 1e-6, newton: bool = False) -> Any:
    """The square root of c."""
    low, high = 0.0, 10.0
    while high - low > tolerance:
        middle = 0.5 * (low + high)
        if middle * middle > c:
            high = middle
        else:
            low = middle
    return low - (low * low - c) / (2.0 * low) if newton else low


def projectile(speed: Any, angle: Any, step: float = 0.01) -> Any:
    x, y = 0.0, 0.0
    u, v = speed * math.cos(angle), speed * math.sin(angle)
    while y >= 0.0:
        x, y, v = x + u * step, y + v * step, v - 9.81 * step
    return x


def interest(rate: Any) -> Any:
    """How much there is when it has first doubled."""
    amount = 1.0
    while amount < 2.0:
        amount = amount * (1.0 + rate)
    return amount


JUMPS: dict[str, tuple[Callable[..., Any], float, float | None]] = {  # function, point, slope that everybody sees
    "falling ball": (falling_ball, 3.0, 2.16),
    "falling ball, small steps": (lambda v: falling_ball(v, 1e-3), 3.0, 2.15),
    "counting": (counting, 0.505, 1.0),
    "counting, from its very jump": (counting, 0.5, 1.0),
    "counting in large steps": (lambda x: counting(x, 0.05), 1.02, 1.0),
    "counting with a gradient": (counting_with_a_gradient, 1.003, 1.5),
    "bisection to 1e-3": (lambda c: bisection(c, 1e-3), 2.0, 0.354),
    "bisection to 1e-6": (bisection, 2.0, 0.354),
    "bisection to 1e-10": (lambda c: bisection(c, 1e-10), 2.0, 0.354),
    "interest": (interest, 0.0501, None),
    "rounding": (lambda x: round(x, 1) * x, 1.23, None),
    "a branch that jumps": (lambda x: x * x if x < 1.01 else x * x + 0.1, 1.0, None),
    "floor": (lambda x: x * math.floor(x), 2.97, None),
    "counting, around zero": (lambda x: counting(x + 0.505), 0.0, 1.0),
    "counting below zero": (lambda x: -counting(-x), -1.005, 1.0),
}


@pytest.mark.dear
@pytest.mark.parametrize("name", JUMPS)
def test_a_jump_nearby_is_reported(name: str) -> None:
    f, x, slope = JUMPS[name]
    report = fs.gradcheck(f, x)
    assert not report
    (jump,) = report.jumps
    assert jump.input == "argument 0"
    assert slope is None or jump.difference == pytest.approx(slope, rel=0.5)
    assert abs(jump.at - x) <= 0.051 * abs(x or 1.0)
    values = [float(f(v)) for v in (jump.at, python_math.nextafter(jump.at, -python_math.inf))]
    assert values[0] - values[1] == pytest.approx(jump.by, rel=1e-6), "it is where the report says"
    text = str(report)
    assert "the function takes another way nearby: its value jumps, or its number of steps depends on the input" in text


def test_the_derivative_between_two_jumps_is_not_called_wrong() -> None:
    report = fs.gradcheck(lambda x: x % 1.0, 0.97)
    assert (report.mismatches, len(report.jumps)) == ((), 1)
    assert str(report).startswith("gradcheck: 1 of 1 derivatives hold only up to where the function takes another way")


SMOOTH_OR_KINKED: dict[str, tuple[Callable[..., Any], float]] = {
    "the ball that lands between two steps": (lambda v: falling_ball(v, 1e-3, exact_end=True), 3.0),
    "bisection and a step of Newton's": (lambda c: bisection(c, 1e-9, newton=True), 2.0),
    "a kink": (lambda x: abs(x - 1.01) + fs.relu(x - 0.99) + fs.maximum(x, 1.02), 1.0),
    "a branch that does not jump": (lambda x: x * x if x < 1.01 else 2.02 * x - 1.01**2, 1.0),
    "fast oscillation": (lambda x: math.sin(300.0 * x), 3.0),
    "a pole": (lambda x: 1.0 / (x - 1.013), 1.0),
    "a vertical tangent": (lambda x: math.cbrt(x - 1.013), 1.0),
    "steep": (lambda x: math.tanh(1e6 * (x - 1.013)), 1.0),
    "the end of the domain": (lambda x: math.sqrt(1.01 - x), 1.0),
    "a loop of constant length": (lambda x: sum(x * k for k in range(50)), 1.0),
    "huge": (lambda x: x * x, 1e150),
    "floor far away": (lambda x: x * math.floor(x), 2.5),
}


@pytest.mark.dear
@pytest.mark.parametrize("name", SMOOTH_OR_KINKED)
def test_kinks_and_curvature_are_not_reported(name: str) -> None:
    f, x = SMOOTH_OR_KINKED[name]
    report = fs.gradcheck(f, x)
    assert report.jumps == ()
    assert report, str(report)


def test_a_wrong_derivative_beside_a_jump_stays_wrong() -> None:
    wrong = fs.custom_op(lambda x: x * x, lambda x: 1.9 * x)
    report = fs.gradcheck(lambda x: wrong(x) + counting(x), 3.005)
    assert len(report.mismatches) == len(report.jumps) == 1
    assert "are wrong" in str(report)
    assert fs.gradcheck(wrong, 3.0).jumps == ()


@pytest.mark.dear
def test_only_the_input_that_the_steps_depend_on_is_named() -> None:
    report = fs.gradcheck(lambda speed, height: falling_ball(speed) * height, (3.0, 2.0))
    assert [(j.result, j.input) for j in report.jumps] == [("result", "argument 0")]


@pytest.mark.dear
def test_the_range_of_a_projectile() -> None:
    report = fs.gradcheck(projectile, (30.0, python_math.radians(45.0)))
    by_speed, by_angle = report.jumps
    assert by_speed.derivative == pytest.approx(3.06, abs=0.05)
    assert by_speed.difference == pytest.approx(2 * 30.0 / 9.81, rel=0.1)
    assert abs(by_angle.difference) < 0.2 * abs(by_angle.derivative)


def test_a_search_down_to_the_last_bit_is_wrong_and_says_why() -> None:
    """Its jumps are no larger than rounding: to differences it is smooth, with a slope that its derivative 0 is not."""
    report = fs.gradcheck(lambda c: bisection(c, 4e-15), 2.0)
    (mismatch,) = report.mismatches
    assert (mismatch.derivative, mismatch.difference) == (0.0, pytest.approx(0.354, abs=1e-3))
    assert "nothing but comparisons" in str(report)
