"""An operation of the user's own, in its tidy form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from fastscalar._core import Tensor
from fastscalar._elementwise import of_rows
from fastscalar.engine._modes import (
    current_recording,
    is_recording,
    refuse_replays,
    require_operands_unchanged,
    tell_call,
    watches,
)
from fastscalar.engine._rules import values_of

Derivatives = Callable[..., Sequence[float] | float]


@overload
def custom_op(
    value: Callable[..., float], derivatives: Derivatives, *, name: str | None = None
) -> Callable[..., Tensor]: ...
@overload
def custom_op(
    *, derivatives: Derivatives, name: str | None = None
) -> Callable[[Callable[..., float]], Callable[..., Tensor]]: ...
def custom_op(
    value: Callable[..., float] | None = None,
    derivatives: Derivatives | None = None,
    *,
    name: str | None = None,
) -> Callable[..., Tensor] | Callable[[Callable[..., float]], Callable[..., Tensor]]:
    """A function of Tensors and numbers from a function of floats and its derivatives; without `value` a decorator.

    value: of as many floats as the operation has operands, gives a float.
    derivatives: of the same floats, gives the derivative by each of them, in order (a single number if there is one
    operand).  It is called in the backward pass; not if the result's gradient is zero, which contributes nothing.
    name: what `_op` says; the name of `value` if left out.

    The result records one node.  In a program functions that are written in operations of Tensors are recorded.  Others
    are called for many rows at once if they do with their operands only what treats each row alone: operators, NumPy's
    ufuncs, `np.where`, `np.clip`.  Others, as of the module math or with an `if`, are called row by row.  What else
    than their operands they depend on is not noticed there.
    TypeError for operands that are neither Tensors nor numbers, ValueError if `derivatives` gives a wrong number of
    them.

    >>> import fastscalar as fs
    >>> area = fs.custom_op(lambda r: 3.0 * r * r, lambda r: 6.0 * r, name="area")
    >>> r = fs.Tensor(2.0)
    >>> a = area(r)
    >>> a.backward()
    >>> a, r.grad
    (Tensor(data=12.0), 12.0)
    >>> @fs.custom_op(derivatives=lambda a, b: (b, a))
    ... def times(a, b):
    ...     return a * b
    >>> times(r, 4)
    Tensor(data=8.0)
    """
    if derivatives is None:
        raise TypeError("custom_op: expected the derivatives, a function of the operands' values")
    if value is None:
        return lambda value: _operation(value, derivatives, name)
    return _operation(value, derivatives, name)


class _Rows:
    """A function of floats for many rows at once: in one call where that is the same for each, else row by row.

    exact: a decision reads it, so that it has to have the bits of the plain call."""

    def __init__(self, function: Callable[..., Any], listed: Callable[[Any, int], list[Any]],
                 checked: Callable[[Any, int], list[Any]]) -> None:  # fmt: skip
        self.function, self.listed, self.checked = function, listed, checked
        self.together: bool | None = None          # None: not known yet

    def __call__(self, x: np.ndarray, count: int, exact: bool) -> np.ndarray:
        operands = x.shape[1]

        def alone(row: Any) -> list[Any]:
            return self.checked(self.function(*row), operands)

        if not exact and self.together is not False and len(x) > 1:
            found = of_rows(lambda *columns: self.listed(self.function(*columns), operands), x, count)
            if self.together is None:
                self.together = found is not None and _agree(found, alone, x)
            if self.together and found is not None:
                return found
        return np.array(list(map(alone, x.tolist())), dtype=float)


class _ForRows:
    """An operation for many rows at once, as programs call it."""

    outputs = 1

    def __init__(self, value: Callable[..., float], derivatives: Derivatives, name: str) -> None:
        self.name = name
        self.values = _Rows(value, lambda found, _: [found], lambda found, _: [float(found)])
        self.partials = _Rows(derivatives, lambda found, count: _listed_partials(found, count, name),
                              lambda found, count: _checked_partials(found, count, name))  # fmt: skip

    def forward(self, x: np.ndarray, exact: bool) -> np.ndarray:
        return self.values(x, 1, exact)

    def backward(self, x: np.ndarray, y: np.ndarray, adjoint: np.ndarray, exact: bool) -> np.ndarray:
        """What the adjoints of the results are for the operands; zero sends zero, either way."""
        out = np.zeros_like(x)
        some = np.flatnonzero(adjoint[:, 0])
        if len(some):
            partials = self.partials(x[some], x.shape[1], exact)
            with np.errstate(all="ignore"):
                out[some] = np.where(partials == 0.0, 0.0, partials * adjoint[some])
        return out


def _listed_partials(found: Any, count: int, name: str) -> list[Any]:
    several = isinstance(found, Sequence) or (count > 1 and isinstance(found, np.ndarray) and found.ndim > 0)
    partials = list(found) if several else [found]
    if len(partials) != count:
        raise ValueError(f"{name}: {count} operands but {len(partials)} derivatives")
    return partials


def _checked_partials(found: Any, count: int, name: str) -> list[Any]:
    """One for each operand: Tensors, and floats."""
    partials = _listed_partials(found, count, name)
    try:
        return [partial if isinstance(partial, Tensor) else float(partial) for partial in partials]
    except (TypeError, ValueError):
        types = ", ".join(type(partial).__name__ for partial in partials)
        raise TypeError(f"{name}: expected a number for each derivative, got {types}") from None


def _agree(found: np.ndarray, alone: Callable[[Any], list[float]], x: np.ndarray) -> bool:
    """Whether one call gave what single numbers give, of up to 16 rows: functions of math and of NumPy differ in the
    last bits, and a function may ask for the type of what it is given."""
    some = np.unique(np.linspace(0, len(x) - 1, 16).astype(int))
    return bool(np.allclose(found[some], [alone(row) for row in x[some].tolist()], rtol=1e-12, atol=0.0))


def _is_of_tensors(value: Callable[..., Any], derivatives: Derivatives, operands: tuple[Tensor, ...]) -> bool:
    """Whether both functions are written in operations of Tensors, which a program can have for its own: looked at
    by a call with others, of which nothing stays."""
    around = current_recording()
    trial = type(around)()
    trial.inside(around)
    try:
        handles = [Tensor(v) for v in values_of(list(operands)).tolist()]
        trial.begin()
        found = value(*handles)
        partials = _checked_partials(derivatives(*handles), len(handles), "")
        single = type(found) is Tensor and all(isinstance(s, (Tensor, int, float)) for s in partials)
        return single and not trial.reads and any(t is not found for t in handles)
    except Exception:                            # as plain numbers it may be something
        return False
    finally:
        trial.lost.clear()
        trial.leave()


def _in_operations(value: Any, partials: Any, operands: tuple[Tensor, ...]) -> Any:
    """The value, with the derivatives that were given and not those of how it was computed; operands are finite."""
    out = value.detach()
    for x, partial in zip(operands, partials, strict=True):
        partial = partial.detach() if isinstance(partial, Tensor) else Tensor(partial)
        nothing = (x.detach() - x).send(partial) + 0.0       # and not -0.0: less 0.0, a zero keeps its sign
        out = out - nothing                  # has the derivative that was given
    return out


def _operation(value: Callable[..., float], derivatives: Derivatives, name: str | None) -> Callable[..., Tensor]:
    op = name if name is not None else getattr(value, "__name__", "custom")
    for_rows = _ForRows(value, derivatives, op)

    def partials_at(*operands: Any) -> list[Any]:
        return _checked_partials(derivatives(*operands), len(operands), op)

    def operation(*operands: Tensor | float) -> Tensor:
        made_of = tuple(x if isinstance(x, Tensor) else Tensor(x) for x in operands)
        written_in_tensors = is_recording() and _is_of_tensors(value, derivatives, made_of)
        computed = None
        if written_in_tensors and all(abs(x) < math.inf for x in made_of):       # decides: rows of others are called
            computed = _in_operations(value(*made_of), partials_at(*made_of), made_of)
            if not watches():
                return computed
        # a recording is told below how other rows compute it: it holds not only for these values
        given = values_of(list(made_of)).tolist() if is_recording() else [x.data for x in made_of]
        try:
            out = Tensor(value(*given), made_of, op)
        except Exception:
            refuse_replays(f"an error of the operation {op!r}, which the function may catch,")
            raise

        def step() -> None:
            require_operands_unchanged(out)
            if out.grad == 0.0:  # zero sends zero, whatever the derivatives are
                return
            nodes = out._parents  # not captured: a closure that holds only `out` keeps no other node
            for x, partial in zip(nodes, partials_at(*[x.data for x in nodes]), strict=True):
                if partial != 0.0:  # nothing passes it, also where the gradient is infinite
                    x.grad += out.grad * partial

        if out._parents:  # under no_grad it is a leaf
            step.derivatives = partials_at  # type: ignore[attr-defined]  # for a backward pass that is recorded
            out._backward = step
            tell_call(out, for_rows if computed is None else computed)      # which a program has instead
            recording: Any = current_recording()
            if computed is not None and watches() and hasattr(recording, "cut"):
                # in the step of a loop, and in what is rolled up, it would have first derivatives only
                if recording.cut:
                    recording.leaked = True
                else:
                    recording.shorten = None
        else:
            for x in made_of:
                x.data
        return out

    operation.__name__ = operation.__qualname__ = op
    operation.__doc__ = value.__doc__
    return operation
