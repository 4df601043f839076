"""A check of derivatives by differences: narrow ones for the derivative, wide ones for what the function does nearby.

A derivative is that of the way which the function took.  Beside the point it may take another: a branch, one step
more of a loop that runs until something is reached.  Where its value jumps there, narrow differences agree with the
derivative and yet neither is the slope over any distance that matters, so differences over a few per cent of the input
are taken too.  Where they disagree, bisection tells a jump from a kink or mere curvature: of these the increments
shrink.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastscalar import _core
from fastscalar._core import Tensor
from fastscalar._settings import real_number
from fastscalar.transforms.inputs import Leaf, Run, as_arguments, leaves_of
from fastscalar.transforms.recorded import plain

__all__ = ["GradCheck", "Jump", "Mismatch", "gradcheck"]

_EPSILON = float(np.finfo(np.float64).eps)
_APART = 1e-2  # wide differences that are off by less agree: curvature, and what is left of a jump that is made up for
_WIDE = 0.025  # part of an input's size; the difference reaches twice as far


@dataclass(frozen=True)
class Mismatch:
    """One derivative that is wrong: of which result, by which input, and by how much."""

    result: str
    input: str
    derivative: float
    difference: float
    allowed: float

    def __str__(self) -> str:
        return (
            f"d {self.result} / d {self.input}: the derivative is {self.derivative:.10g}, differences give "
            f"{self.difference:.10g}; they differ by {abs(self.derivative - self.difference):.2g}, allowed "
            f"{self.allowed:.2g}"
            + (" (nothing but comparisons leads from the input to the result?)" if self.derivative == 0.0 else "")
        )


@dataclass(frozen=True)
class Jump:
    """One derivative that wide differences do not agree with, because the value jumps: where, and by how much."""

    result: str
    input: str
    derivative: float
    difference: float
    at: float
    by: float

    def __str__(self) -> str:
        return (
            f"d {self.result} / d {self.input}: the derivative is {self.derivative:.4g}, wide differences give "
            f"{self.difference:.4g}: the function takes another way nearby: its value jumps, or its number of steps "
            f"depends on the input (by {self.by:.2g} at {self.input} = {self.at:.6g})"
        )


@dataclass(frozen=True)
class GradCheck:
    """What `gradcheck` found; true if all is well.  `print` it to read which input is wrong by how much."""

    checked: int
    mismatches: tuple[Mismatch, ...]
    jumps: tuple[Jump, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.mismatches and not self.jumps

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.ok:
            return f"gradcheck: {self.checked} derivatives agree with differences"
        lines = []
        for found, what in (
            (self.mismatches, "are wrong"),
            (self.jumps, "hold only up to where the function takes another way"),
        ):
            if found:
                lines.append(f"gradcheck: {len(found)} of {self.checked} derivatives {what}")
                lines += [str(m) for m in found[:20]]
            if len(found) > 20:
                lines.append(f"... and {len(found) - 20} more")
        return "\n".join(lines)


def gradcheck(
    f: Callable[..., Any], inputs: Any, *, step: float = 1e-3, rtol: float = 1e-6, atol: float = 1e-8
) -> GradCheck:
    """Compare every derivative of f with fourth-order central differences.

    At a kink there is no right answer: choose points away from them.  Differences over 5 % of an input (at zero: 0.05)
    to either side are taken too.  Where they are off by 1 % because the value of f jumps there, at a branch or with a
    loop that makes one step more, the report says so (`jumps`) and is false: the derivative is that of the way which f
    takes at this very point.

    Parameters
    ----------
    f : callable
        Its result may have any structure of numbers and arrays.
    inputs : tuple, or anything else as the only argument
        The arguments: numbers, arrays, Tensors, and lists, tuples and dictionaries of these.
    step : float
        The part of an input's size that it is moved by; a derivative that is off is tried again with smaller ones.
    rtol, atol : float
        A derivative may be off by atol + rtol * its size + what rounding does to the difference.

    Returns
    -------
    GradCheck
        True if all agree; `print` it for what is wrong, and by how much.

    Raises
    ------
    TypeError
        If an argument or the result holds anything but real numbers, Tensors and arrays of them.
    ValueError
        If f is undefined so close to the point that no differences can be taken, or a step or a tolerance is none.

    Examples
    --------
    >>> import fastscalar as fs
    >>> print(fs.gradcheck(lambda x, y: x * y.exp(), (2.0, 0.5)))
    gradcheck: 2 derivatives agree with differences
    """
    step = real_number("gradcheck: step", step)
    rtol, atol = real_number("gradcheck: rtol", rtol, "from 0 on"), real_number("gradcheck: atol", atol, "from 0 on")
    arguments = as_arguments(inputs)
    run = Run(f, arguments, {}, tuple(range(len(arguments))), "gradcheck")
    results = [(e, name) for leaf in leaves_of(run.result, "result", "gradcheck") for e, name in _names(leaf)]
    derivatives = [run.gradients(e, False) for e, _ in results]
    names = [name for leaf in run.leaves for _, name in _names(leaf)]
    start = [t.data for t in run.tensors]

    def at(k: int, x: float) -> list[float]:
        with _core.no_grad():
            moved = [Tensor(x if j == k else v) for j, v in enumerate(start)]
            other = f(*run.like_inputs(moved))
        return [plain(e) for leaf in leaves_of(other, "result", "gradcheck") for e in leaf.elements]

    def differences(k: int, h: float) -> tuple[list[float], float]:
        x = start[k]
        h = (x + h) - x  # a step that the floating-point number really makes
        values = [at(k, x + m * h) for m in (-2, -1, 1, 2)]
        largest = max((abs(v) for row in values for v in row), default=0.0)
        slopes = [(a - d + 8.0 * (c - b)) / (12.0 * h) for a, b, c, d in zip(*values, strict=True)]
        return slopes, 16.0 * _EPSILON * largest / h

    wrong: list[Mismatch] = []
    jumps: list[Jump] = []
    for k, name in enumerate(names):
        size = abs(start[k])
        unsettled: dict[int, Mismatch | None] = dict.fromkeys(range(len(results)))
        outside: Exception | None = None
        for part, least in ((1.0, 1e-2), (0.1, 1e-3), (0.01, 0.0), (0.001, 0.0)):
            try:
                slopes, noise = differences(k, step * part * (max(size, least) or 1e-3))
            except (ValueError, ZeroDivisionError, OverflowError) as error:
                outside = error  # not in the domain of f: a smaller step may stay inside
                continue
            for j in list(unsettled):
                d, n = derivatives[j][k], slopes[j]
                allowed = atol + rtol * max(abs(d), abs(n)) + noise
                if abs(d - n) <= allowed:
                    del unsettled[j]
                else:
                    unsettled[j] = Mismatch(results[j][1], name, d, n, allowed)
            if not unsettled:
                break
        for mismatch in unsettled.values():
            if mismatch is None:
                raise ValueError(f"gradcheck: no differences by {name}: too close to where f ends") from outside
            wrong.append(mismatch)
        reach = _WIDE * max(size or 1.0, 1e-2)  # zero has no size of its own
        try:
            slopes, noise = differences(k, reach)
        except (ArithmeticError, ValueError, LookupError):
            continue  # f ends nearby, or its result has another shape there
        for j, wide in enumerate(slopes):
            d = derivatives[j][k]
            if abs(d - wide) > atol + _APART * max(abs(d), abs(wide)) + noise:
                found = _jump(lambda x: at(k, x)[j], start[k] - 2.0 * reach, start[k] + 2.0 * reach, d)  # noqa: B023
                if found is not None:
                    jumps.append(Jump(results[j][1], name, d, wide, *found))
    return GradCheck(len(names) * len(results), tuple(wrong), tuple(jumps))


def _jump(f: Callable[[float], float], low: float, high: float, slope: float) -> tuple[float, float] | None:
    """Where between `low` and `high` a function jumps, and by how much, or None.

    Bisection goes where a line of the given slope is missed by most.  Over a jump the gap stays as the interval
    shrinks; of a continuous function it shrinks too.
    """
    gaps: list[float] = []
    try:
        below, above = f(low), f(high)
        largest = max(abs(below), abs(above))
        while low < (middle := low + 0.5 * (high - low)) < high:
            value = f(middle)
            left, right = value - below - slope * (middle - low), above - value - slope * (high - middle)
            if abs(left) >= abs(right):
                high, above = middle, value
            else:
                low, below = middle, value
            gaps.append(max(abs(left), abs(right)))
    except (ArithmeticError, ValueError, LookupError):
        return None
    if len(gaps) < 20 or not math.isfinite(gaps[-1]) or gaps[-1] <= 64.0 * _EPSILON * largest:
        return None
    return (high, above - below) if gaps[-1] > 0.5 * gaps[-11] else None


def _names(leaf: Leaf) -> list[tuple[Any, str]]:
    """Each element with its name."""
    if leaf.shape is None:
        return [(leaf.elements[0], leaf.where)]
    return [
        (e, leaf.where + "".join(f"[{k}]" for k in index))
        for e, index in zip(leaf.elements, np.ndindex(leaf.shape), strict=True)
    ]
