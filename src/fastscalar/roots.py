"""implicit: numbers that are defined by an equation, and their derivatives by the implicit function theorem."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar._core import Tensor, no_grad
from fastscalar._settings import real_number
from fastscalar.engine._modes import is_recording, watches
from fastscalar.engine._traced import TracedInt
from fastscalar.program.solving import inverted, newton
from fastscalar.transforms import grad, jacobian

STEPS = 100
HALVINGS = 30


def implicit(residual: Callable[..., Any], *, tolerance: float = 1e-12) -> Callable[..., Any]:
    """A function that solves residual(x, ...) = 0 for x, beginning at a guess, and is differentiable.

    `solve = implicit(residual)`; `solve(guess, ...)` gives the root next to the guess, by Newton's method with halved
    steps, and hands what follows the guess on to the residual.  x is a number, and the residual gives one; or a list or
    an array of n numbers, and the residual gives n.  Of a root that another solver has found the guess is that root.

    The derivative by everything that the residual reads, arguments and captured Tensors, is that of the equation,
    dx = -(df/dx)^-1 df, whatever the steps were; no gradient passes to the guess.  First and second derivatives are
    exact, to the accuracy of the root.
    In a program it is a loop of its own (`while_loop`): each row takes as many steps as it needs.

    tolerance: the last step, relative to the larger of 1 and |x|.
    ValueError if the derivative of the residual is singular on the way, if steps find nothing better, or if the
    residual gives another number of numbers.

    >>> import fastscalar as fs
    >>> root = fs.implicit(lambda x, a: x * x - a)
    >>> a = fs.Tensor(2.0)
    >>> x = root(1.0, a)
    >>> x.backward()
    >>> round(x.data, 12), round(a.grad, 12)         # 1 / (2 sqrt(2))
    (1.414213562373, 0.353553390593)
    >>> circle = fs.implicit(lambda p, r: (p[0] * p[0] + p[1] * p[1] - r, p[0] - p[1]))
    >>> [round(t.data, 6) for t in circle([1.0, 2.0], fs.Tensor(8.0))]
    [2.0, 2.0]
    """
    name = getattr(residual, "__name__", "residual")
    tolerance = real_number("implicit: tolerance", tolerance)

    def solve(guess: Any, *arguments: Any, **named: Any) -> Any:
        single = isinstance(guess, (Tensor, TracedInt, int, float, np.number))
        begin = [guess] if single else list(guess)

        def at(x: list[Any]) -> list[Any]:
            found = residual(x[0] if single else x, *arguments, **named)
            found = [found] if isinstance(found, (Tensor, int, float, np.number)) else list(found)
            if len(found) != len(begin):
                wanted = f"expected {len(begin)} numbers, one for each unknown"
                raise ValueError(f"implicit: {name}: {wanted}, got {len(found)}")
            return found

        def partials(x: list[Any]) -> Any:
            """df/dx at numbers, or at Tensors: then Tensors themselves, if they are differentiated once more."""
            if single:
                return [[grad(lambda t: at([t])[0])(x[0])]]
            return jacobian(lambda *t: at(list(t)), argnums=tuple(range(len(x))))(*x)

        root: Any = None                         # as numbers; unknown while a program is recorded
        if is_recording():
            found = newton(at, lambda x: _rows(partials(x)), begin, tolerance, name)
            with no_grad():
                inverse = [[_tensor(s) for s in row] for row in _rows(partials(found))]
                inverse = inverted(inverse, name, found)
            found = _stepped(at, found, inverse)
        else:
            root = _newton(at, partials, np.array([_value(t) for t in begin]), tolerance, name)
            found = _stepped(at, [Tensor(v) for v in root.tolist()], np.linalg.inv(_matrix(partials, root)), exact=root)
        if watches() or root is not None:        # a transform, or `create_graph`, may want second derivatives
            rows = [[_tensor(s) for s in row] for row in _rows(partials(found))]
            found = _stepped(at, found, inverted(rows, name, found), exact=root)
        return found[0] if single else found

    solve.__name__ = solve.__qualname__ = f"root_of_{name}"
    return solve


def _value(t: Any) -> float:
    return float(t.data) if isinstance(t, Tensor) else float(t)


def _tensor(t: Any) -> Any:
    return t if isinstance(t, Tensor) else float(t)


def _rows(partials: Any) -> list[list[Any]]:
    """A Jacobian, row by row: of a scalar root, of the transform's tuples by argument, ..."""
    if isinstance(partials, tuple):                # by argument: columns
        columns = [list(np.asarray(column, dtype=object).ravel()) for column in partials]
        return [list(row) for row in zip(*columns, strict=True)]
    return [list(row) for row in partials]


def _matrix(partials: Callable[[list[Any]], Any], x: np.ndarray) -> np.ndarray:
    return np.array([[_value(s) for s in row] for row in _rows(partials(x.tolist()))])


def _newton(
    at: Callable[[list[Any]], list[Any]],
    partials: Callable[[list[Any]], Any],
    x: np.ndarray,
    tolerance: float,
    name: str,
) -> np.ndarray:
    def values(x: np.ndarray) -> np.ndarray:
        with no_grad():
            return np.array([_value(f) for f in at([Tensor(v) for v in x.tolist()])])

    f = values(x)
    for _ in range(STEPS):
        if not f.any():
            return x
        matrix = _matrix(partials, x)
        try:
            step = np.linalg.solve(matrix, f)
        except np.linalg.LinAlgError:
            step = np.full(len(x), math.nan)
        if not np.isfinite(step).all():
            raise ValueError(f"implicit: {name}: its derivative is singular or not finite at x = {_said(x)}")
        size = np.linalg.norm(f)
        for k in range(HALVINGS):
            tried = x - step * 0.5**k
            try:
                found = values(tried)
            except (ValueError, ArithmeticError):  # outside of its domain
                continue
            if np.linalg.norm(found) < size:
                break
        else:
            if (np.abs(step) <= 1e3 * tolerance * np.maximum(1.0, np.abs(x))).all():
                return x                         # as near as rounding lets it come
            raise ValueError(f"implicit: {name}: no step from x = {_said(x)} makes it smaller; begin nearer to a root")
        x, f = tried, found
        if (np.abs(step) <= tolerance * np.maximum(1.0, np.abs(x))).all():
            return x
    raise ValueError(f"implicit: {name}: no root found in {STEPS} steps; the last x = {_said(x)}")


def _said(x: np.ndarray) -> str:
    return repr(x.item() if len(x) == 1 else x.tolist())


def _stepped(at: Callable[[list[Any]], list[Any]], x: list[Any], inverse: Any, exact: Any = None) -> list[Tensor]:
    """One step of Newton's method: it moves nothing, and has one order of derivatives more than x has."""
    f = at(x)
    centred = [t - t.detach() if isinstance(t, Tensor) else 0.0 for t in f]
    found = []
    for i in range(len(x)):
        total: Any = x[i]
        for j, t in enumerate(centred):
            total = total - inverse[i][j] * t
        if exact is not None:
            value = float(exact[i])
            total = total - (total.detach() - value) if isinstance(total, Tensor) else Tensor(value)
        found.append(total)
    return found
