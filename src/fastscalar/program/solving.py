"""Newton's method in the recording of a program: a `while_loop`, so that each row takes the steps that it needs.

The boundary: knows Tensors, and decides on them; `fastscalar.roots` says what is solved and what its derivatives are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastscalar._core import Tensor, no_grad
from fastscalar.functions import maximum
from fastscalar.program.loops import while_loop

STEPS = 100
SMALLEST = 2.0**-30  # part of a step
Numbers = list[Any]


def newton(
    at: Callable[[Numbers], Numbers], partials: Callable[[Numbers], list[Numbers]], begin: Numbers, tolerance: float,
    name: str,
) -> Numbers:
    """A root of `at` next to numbers, by steps that are halved until the residual is smaller; no gradient passes.

    ValueError as of `fastscalar.implicit`."""
    first = [t.detach() if isinstance(t, Tensor) else Tensor(float(t)) for t in begin]

    def length(move: Numbers, x: Numbers) -> Any:
        """Of a step, 1 where it is as small as the tolerance."""
        longest: Any = 0.0
        for m, t in zip(move, x, strict=True):
            longest = maximum(longest, abs(m) / maximum(1.0, abs(t)))
        return longest / tolerance

    def step(state: Any) -> Any:
        x, _, k = state
        if k >= STEPS:
            raise ValueError(f"implicit: {name}: no root found in {STEPS} steps; the last x = {said(x)}")
        f = at(x)
        size = squares(f)
        if size == 0.0:
            return x, 0.0, k
        move = solved(partials(x), f, name, x)

        def no_better(part: Any) -> Any:
            try:
                return not squares(at([t - part * m for t, m in zip(x, move, strict=True)])) < size
            except (ValueError, ArithmeticError):          # outside of its domain
                return True

        part = while_loop(lambda part: part > SMALLEST and no_better(part), lambda part: 0.5 * part, 1.0)
        if part <= SMALLEST:
            if length(move, x) <= 1e3:                     # as near as rounding lets it come
                return x, 0.0, k
            raise ValueError(f"implicit: {name}: no step from x = {said(x)} makes it smaller; begin nearer to a root")
        x = [t - part * m for t, m in zip(x, move, strict=True)]
        return x, length(move, x), k + 1

    try:
        with no_grad():
            found = while_loop(lambda state: state[1] > 1.0, step, (first, 2.0, 0.0))[0]
    except Exception as error:
        error.iterations = getattr(error, "iterations", ())[1:]  # type: ignore[attr-defined]  # not the user's
        raise
    return [t.detach() for t in found]


def squares(f: Numbers) -> Any:
    total: Any = 0.0
    for t in f:
        total = total + t * t
    return total


def said(x: Sequence[Any]) -> str:
    numbers = [t.data if isinstance(t, Tensor) else float(t) for t in x]
    return repr(numbers[0] if len(numbers) == 1 else numbers)


def solved(matrix: list[Numbers], f: Numbers, name: str, x: Numbers) -> Numbers:
    """What a matrix takes to f."""
    return [row[-1] for row in eliminated([[*row, t] for row, t in zip(matrix, f, strict=True)], name, x)]


def inverted(matrix: list[Numbers], name: str, x: Numbers) -> list[Numbers]:
    """The inverse; name, x: for the error of a matrix that is singular."""
    n = len(matrix)
    wide = [[*row, *(1.0 if i == j else 0.0 for j in range(n))] for i, row in enumerate(matrix)]
    return [row[n:] for row in eliminated(wide, name, x)]


def eliminated(rows: list[Numbers], name: str, x: Numbers) -> list[Numbers]:
    """By Gauss and Jordan, with the largest pivots; x: where this is, for the error of a matrix that is singular."""
    n = len(rows)
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(rows[i][k]) > abs(rows[pivot][k]):
                pivot = i
        if not 0.0 < abs(rows[pivot][k]) < float("inf"):
            raise ValueError(f"implicit: {name}: its derivative is singular or not finite at x = {said(x)}")
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [t / rows[k][k] for t in rows[k]]
        for i in range(n):
            if i != k:
                factor = rows[i][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return rows
