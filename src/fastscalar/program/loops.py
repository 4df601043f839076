"""Loops that say what goes from one step to the next: `fs.loop` and `fs.while_loop`.

The boundary: calls a step again and again and looks at what it returns; a loop is what its steps do.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._modes import is_recording
from fastscalar.engine._traced import TracedInt
from fastscalar.program.rolling import is_rolled, rolled

State = TypeVar("State")

PLAIN = (ValueError, ZeroDivisionError, OverflowError, IndexError, FloatingPointError, ArithmeticError)


def loop(n: int, step: Callable[..., State], state: State) -> State:
    """The state after n steps: `for k in range(n): state = step(state)`; `step(k, state)` for a step of two arguments.

    state: a number, a Tensor, an array, or tuples, lists and dictionaries of these.  Its structure and the shapes in it
    stay what they are.  n: a whole number from 0; in a program it may be one of the row.
    TypeError if a step returns another structure, with the leaf named; what a step raises says in which iteration.

    >>> import fastscalar as fs
    >>> x = fs.Tensor(3.0)
    >>> y = fs.loop(4, lambda s: 0.5 * (s + 2.0 / s), x)
    >>> y.backward()
    >>> round(y.data, 6), fs.loop(0, lambda s: 1 / 0, 5.0)
    (1.414214, 5.0)
    >>> fs.loop(3, lambda k, s: (s[0] + k, s[1] * s[0]), (1.0, 1.0))
    (4.0, 2.0)
    """
    if isinstance(n, bool) or not isinstance(n, TracedInt):
        try:
            n = operator.index(n)
        except TypeError:
            raise TypeError(f"loop: expected a whole number of steps, got {type(n).__name__}") from None
    count = n.value if isinstance(n, TracedInt) and is_rolled(n) else int(n)
    if count < 0:
        raise ValueError(f"loop: expected a number of steps from 0, got {count}")
    numbered = _takes_two(step)
    kept = _Kept("loop", state)
    if is_rolled(n):
        return rolled("loop", n, numbered, _Step(None, step, kept, numbered), state)
    for k in range(count):
        try:
            state = step(k, state) if numbered else step(state)
        except Exception as error:
            raise _in_iteration(k, error) from error.__cause__
        kept.look_at(state, k)
    return state


def while_loop(condition: Callable[[State], Any], step: Callable[[State], State], state: State) -> State:
    """The state when the condition does not hold any more: `while condition(state): state = step(state)`.

    State, errors: as in `loop`.  How often a step is done is a decision on values: no gradient passes through the
    number of steps.  What depends on it smoothly (the time when a limit is crossed) is to be computed from the states
    before and after, or with `fastscalar.implicit`.

    >>> import fastscalar as fs
    >>> x = fs.Tensor(3.0)
    >>> y = fs.while_loop(lambda s: s < 100.0, lambda s: s * 2.0, x)
    >>> y.backward()
    >>> y.data, x.grad
    (192.0, 64.0)
    """
    kept = _Kept("while_loop", state)
    if is_rolled(None):
        return rolled("while_loop", None, False, _Step(condition, step, kept, False), state)
    k = 0
    while True:
        try:
            if not condition(state):
                return state
            state = step(state)
        except Exception as error:
            raise _in_iteration(k, error) from error.__cause__
        kept.look_at(state, k)
        k += 1


def _takes_two(step: Callable[..., Any]) -> bool:
    """Whether a step wants the number of the iteration too."""
    try:
        parameters = inspect.signature(step).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) == 2


class _Step:
    """A step of a loop, which is looked at."""

    def __init__(self, condition: Any, step: Callable[..., Any], kept: _Kept, numbered: bool) -> None:
        self.condition, self.step, self.kept, self.numbered = condition, step, kept, numbered

    def __call__(self, k: int, number: Any, state: Any) -> Any:
        """The next state; None if the condition does not hold."""
        try:
            if self.condition is not None and not self.condition(state):
                return None
            state = self.step(number, state) if self.numbered else self.step(state)
        except Exception as error:
            raise _in_iteration(k, error) from error.__cause__
        self.kept.look_at(state, k)
        return state


class _Kept:
    """The structure of a state, which each step has to keep."""

    def __init__(self, what: str, state: Any) -> None:
        self.what, self.shape = what, _shape_of(state, f"{what}: state")
        self.is_number = self.shape == ()

    def look_at(self, state: Any, k: int) -> None:
        if self.is_number and type(state) is Tensor:
            return
        name = f"{self.what}: step {k}: state"
        found = _shape_of(state, name)
        if found != self.shape:
            raise TypeError(_difference(self.shape, found, name))


def _shape_of(state: Any, name: str) -> Any:
    """What is to stay: () of a number, the shape of an array, and for nests that of each leaf."""
    if isinstance(state, (Tensor, TracedInt, int, float, np.number)):
        return ()
    if isinstance(state, (TensorArray, np.ndarray)):
        return tuple(state.shape)
    if isinstance(state, dict):
        return "dict", {key: _shape_of(value, f"{name}[{key!r}]") for key, value in state.items()}
    if isinstance(state, (tuple, list)):
        return type(state).__name__, {k: _shape_of(value, f"{name}[{k}]") for k, value in enumerate(state)}
    raise TypeError(f"{name}: expected a number, an array, or tuples, lists and dictionaries of them, got "
                    f"{type(state).__name__}")  # fmt: skip


def _is_nest(shape: Any) -> bool:
    return len(shape) == 2 and isinstance(shape[0], str)


def _said(shape: Any) -> str:
    if _is_nest(shape):
        return f"a {shape[0]} of {len(shape[1])}"
    return f"an array of shape {shape}" if shape else "a number"


def _difference(expected: Any, found: Any, name: str) -> str:
    """The first leaf that is not what it was."""
    if _is_nest(expected) and _is_nest(found) and expected[0] == found[0]:
        for key, shape in expected[1].items():
            if key not in found[1]:
                return f"{name}[{key!r}]: expected {_said(shape)}, as it was, got nothing"
            if shape != found[1][key]:
                return _difference(shape, found[1][key], f"{name}[{key!r}]")
        more = next(key for key in found[1] if key not in expected[1])
        return f"{name}[{more!r}]: expected nothing, as it was, got {_said(found[1][more])}"
    return f"{name}: expected {_said(expected)}, as it was, got {_said(found)}"


def _in_iteration(k: int, error: Exception) -> Exception:
    """The same error, saying in which iteration it was; while a program is recorded its text is not to be read."""
    if is_recording():
        return error
    where = f"iteration {k}"
    if type(error) in PLAIN:
        return type(error)(f"{where}: {error}").with_traceback(error.__traceback__)
    error.add_note(where)
    return error
