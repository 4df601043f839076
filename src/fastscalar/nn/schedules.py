"""Learning rates over a run: what `fit(schedule=)` takes.

A schedule gives, for a step of a run, the factor by which the optimiser's learning rate is multiplied.  "constant",
"linear" and "cosine" are there by name; `step` and `warmup` take numbers; and any function of the step will do.

>>> import fastscalar as fs
>>> warm = fs.schedules.warmup(100, then="cosine")
>>> [round(warm(step, 1000), 3) for step in (0, 49, 99, 550, 999)]
[0.01, 0.5, 1.0, 0.5, 0.0]
>>> fs.schedules.step(every=30, factor=0.1)(60, 90)
0.01
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastscalar._settings import shown

__all__ = ["constant", "cosine", "linear", "step", "warmup"]


@dataclass(frozen=True)
class Rate:
    """What the functions below return.  Called with a step, from 0, and the number of steps it gives the factor."""

    def __call__(self, step: int, steps: int) -> float:
        return float(self.factors(np.array([step]), steps, np.array([step / steps]))[0])

    def factors(self, step: np.ndarray, steps: int, part: np.ndarray) -> np.ndarray:
        """For some steps at once.  part: of the samples of the run, those that come before the step."""
        raise NotImplementedError


@dataclass(frozen=True)
class constant(Rate):
    """The learning rate stays as it is.

    >>> import fastscalar as fs
    >>> fs.schedules.constant()(7, 10)
    1.0
    """

    def factors(self, step: np.ndarray, steps: int, part: np.ndarray) -> np.ndarray:
        return np.ones(len(step))


@dataclass(frozen=True)
class linear(Rate):
    """It falls by the same amount from step to step, to the part `to` of what it was, 0 if left out.

    >>> import fastscalar as fs
    >>> fs.schedules.linear()(7, 10), fs.schedules.linear(to=0.5)(5, 10)
    (0.30000000000000004, 0.75)
    """

    to: float = 0.0

    def factors(self, step: np.ndarray, steps: int, part: np.ndarray) -> np.ndarray:
        fall: np.ndarray = 1.0 - part if self.to == 0.0 else 1.0 - (1.0 - self.to) * part
        return fall


@dataclass(frozen=True)
class cosine(Rate):
    """It falls along half a cosine to the part `to` of what it was (Loshchilov and Hutter 2017, arXiv:1608.03983).

    >>> import fastscalar as fs
    >>> fs.schedules.cosine()(5, 10)
    0.5
    """

    to: float = 0.0

    def factors(self, step: np.ndarray, steps: int, part: np.ndarray) -> np.ndarray:
        fall: np.ndarray = self.to + (1.0 - self.to) * (0.5 + 0.5 * np.sin(np.pi * (0.5 - part)))
        return fall


@dataclass(frozen=True)
class step(Rate):
    """It is multiplied by `factor` every so many steps of the optimiser; a float below 1 is that part of the run.

    >>> import fastscalar as fs
    >>> decay = fs.schedules.step(every=0.5, factor=0.1)
    >>> decay(49, 100), decay(50, 100)
    (1.0, 0.1)
    """

    every: float
    factor: float = 0.1

    def __post_init__(self) -> None:
        _check_steps("step: every", self.every)

    def factors(self, step: np.ndarray, steps: int, part: np.ndarray) -> np.ndarray:
        falls: np.ndarray = self.factor ** (step // _in_steps(self.every, steps)).astype(float)
        return falls


@dataclass(frozen=True)
class warmup(Rate):
    """It rises over the first steps, as in `step` a number of them or a part of the run; then another schedule begins,
    over the steps that are left.

    >>> import fastscalar as fs
    >>> rate = fs.schedules.warmup(4)
    >>> [rate(k, 10) for k in range(6)]
    [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    """

    steps: float
    then: Any = "constant"

    def __post_init__(self) -> None:
        _check_steps("warmup: steps", self.steps)
        object.__setattr__(self, "then", schedule_of(self.then))

    def factors(self, step: np.ndarray, steps: int, part: np.ndarray) -> np.ndarray:
        first = _in_steps(self.steps, steps)
        left = max(1, steps - first)
        later = np.maximum(step - first, 0)
        rest = self.then.factors(later, left, later / left)
        return np.where(step < first, (step + 1) / first, rest)


class Function(Rate):
    """A function of the user's: of the step, or of the step and the number of steps."""

    def __init__(self, function: Callable[..., float]) -> None:
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "both", _takes_two(function))

    function: Callable[..., float]
    both: bool

    def factors(self, step: np.ndarray, steps: int, part: np.ndarray) -> np.ndarray:
        found = np.empty(len(step))
        for k, number in enumerate(step.tolist()):
            value = self.function(number, steps) if self.both else self.function(number)
            if isinstance(value, (str, bytes, bool)) or not 0.0 <= float(value) < math.inf:
                raise ValueError(f"fit: schedule: expected a factor of at least 0, got {value!r} for step {number}")
            found[k] = float(value)
        return found

    def __repr__(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


NAMES: dict[str, Callable[[], Rate]] = {"constant": constant, "linear": linear, "cosine": cosine}


def schedule_of(schedule: Any) -> Rate:
    """What was given as one: a name, None for "constant", one of ours, or a function."""
    if schedule is None:
        return constant()
    if isinstance(schedule, str) and schedule in NAMES:
        return NAMES[schedule]()
    if isinstance(schedule, Rate):
        return schedule
    names = ", ".join(f'"{name}"' for name in NAMES)
    if isinstance(schedule, type) and issubclass(schedule, Rate):
        raise TypeError(f"schedule: {schedule.__name__} takes its numbers: {schedule.__name__}(...)")
    if not callable(schedule):
        raise ValueError(
            f"schedule: expected {names}, None, or a function of the step, as fs.schedules makes them, got {schedule!r}"
        )
    return Function(schedule)


def _takes_two(function: Callable[..., float]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):              # some of those that are compiled do not say
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in places if p.default is p.empty]
    return len(needed) == 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters)


def _check_steps(name: str, value: Any) -> None:
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (whole and value >= 1) and not (isinstance(value, (float, np.floating)) and 0.0 < value < 1.0):
        raise ValueError(
            f"{name}: expected a number of steps, or a part of the run between 0 and 1, got {shown(value)}"
        )


def _in_steps(value: float, steps: int) -> int:
    return int(value) if value >= 1 else max(1, round(value * steps))
