"""What looks on while `fit` runs: functions, objects, and early stopping.

A callback is a function that is called with each Epoch, or an object with any of these methods:

    on_begin(course)      before the first epoch: `course.optimizer`, `course.epochs`
    on_samples(samples)   after every `self.every` samples of an epoch (about: at the end of a batch): a Samples
    on_epoch(epoch)       after each epoch: an Epoch
    on_end(history)       at the end, however it came

Any of them may raise StopTraining to end the run in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastscalar._settings import real_number, shown, whole_number
from fastscalar.engine._rules import values_of
from fastscalar.nn.course import Before, Course
from fastscalar.nn.history import Epoch, History
from fastscalar.nn.optimizers import RuleOptimizer
from fastscalar.nn.parameters import numbers_in


class StopTraining(Exception):
    """Raised by a callback: `fit` ends and returns its History, whose `stopped` is the message.

    Raised in the middle of an epoch the net is as it was before that epoch; eagerly, it keeps its steps.

    >>> import fastscalar as fs, numpy as np
    >>> def enough(epoch):
    ...     raise fs.StopTraining("enough")
    >>> net = fs.Linear(1, 2, seed=0)
    >>> fs.fit(net, np.ones((4, 1)), [0, 1, 0, 1], callbacks=[enough], progress=False).stopped
    'enough'
    """


@dataclass(frozen=True)
class Samples:
    """A moment in an epoch."""

    epoch: int  # from 1
    samples: int  # of this epoch, so far
    loss: float  # their mean


MEASURES = {"loss": 1.0, "validation_loss": 1.0, "validation_metric": -1.0, "accuracy": -1.0}  # -1: more is better
METHODS = ("on_begin", "on_samples", "on_epoch", "on_end")


class EarlyStopping:
    """Ends a run when the validation loss has not fallen for `patience` epochs, and gives back the best weights.

    monitor: "validation_loss", "validation_metric", "accuracy" or "loss".  min_delta: what counts as better.
    restore_best: net and optimiser end as they were after the best epoch; else after the last.
    After the run `best` is that epoch's number, `value` what it had.

    >>> import fastscalar as fs, numpy as np
    >>> X = np.random.default_rng(0).normal(size=(40, 2))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> stop = fs.EarlyStopping(patience=2)
    >>> history = fs.fit(fs.MLP(2, [4, 2], seed=0), X, y, validation_data=(X, 1 - y), epochs=50, callbacks=[stop],
    ...                  progress=False)
    >>> len(history.epochs), stop.best, history.stopped
    (3, 1, 'validation_loss has not improved since epoch 1')
    """

    def __init__(
        self,
        patience: int = 3,
        *,
        monitor: str = "validation_loss",
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        self.patience = whole_number("EarlyStopping: patience", patience)
        self.min_delta = real_number("EarlyStopping: min_delta", min_delta, "from 0 on")
        if monitor not in MEASURES:
            raise ValueError(f"EarlyStopping: monitor: expected one of {', '.join(MEASURES)}, got {monitor!r}")
        self.monitor, self.restore_best = monitor, restore_best
        self.best: int | None = None
        self.value: float | None = None

    def on_begin(self, course: Course) -> None:
        """Forget the run before; `course` is the one that begins."""
        self._optimizer = course.optimizer
        self._kept: Before | None = None
        self._then: dict[str, Any] | None = None
        self.best = self.value = None

    def on_epoch(self, epoch: Epoch) -> None:
        """Keep what an `epoch` left if it is the best so far, or end the run."""
        found = getattr(epoch, self.monitor)
        if found is None:
            raise ValueError(f"EarlyStopping: there is no {self.monitor}; give fit validation_data, or monitor='loss'")
        sign = MEASURES[self.monitor]
        if self.value is None or sign * found < sign * self.value - self.min_delta:
            self.best, self.value = epoch.epoch, found
            self._kept = Before(self._optimizer) if self.restore_best else None
            if self._kept is not None and isinstance(self._optimizer, RuleOptimizer):
                self._then = self._optimizer.state_dict()
        elif epoch.epoch - (self.best or 0) >= self.patience:
            raise StopTraining(f"{self.monitor} has not improved since epoch {self.best}")

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on elsewhere: the best epoch, its value, its weights and the optimiser's state then."""
        parts = [] if self._kept is None else [values for _, values in self._kept.parts]
        kept = None if self._kept is None else np.concatenate([np.empty(0), *parts])
        return {"best": self.best, "value": self.value, "weights": kept, "optimizer": self._then}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a `state` of `state_dict`: inside a run, after `on_begin`."""
        best, value, then, weights = (state[key] for key in ("best", "value", "optimizer", "weights"))
        if best is not None:
            best, value = whole_number("EarlyStopping: best", best), real_number("EarlyStopping: value", value, "")
        if weights is not None:
            weights = numbers_in(state, ["weights"], "EarlyStopping")["weights"]
            size = values_of(self._optimizer._distinct).size
            if best is None or weights.shape != (size,) or not np.isfinite(weights).all():
                raise ValueError(f"EarlyStopping: weights: expected {size} finite numbers, of a best epoch")
        self.best, self.value, self._then = best, value, then
        if weights is not None:
            self._kept = Before(self._optimizer)
            self._kept.parts = [(self._optimizer._distinct, weights)]
            if self._then is not None and isinstance(self._optimizer, RuleOptimizer):
                now = self._optimizer.state_dict()
                self._optimizer.load_state_dict(self._then)
                self._kept.state = self._optimizer._state()
                self._optimizer.load_state_dict(now)

    def on_end(self, history: History) -> None:
        """Give back the best weights, unless the last epoch of the `history` has them."""
        if self._kept is not None and history.epochs and history.epochs[-1].epoch != self.best:
            self._kept.restore()
        self._kept = None


class Callbacks:
    """All that look on, by what they look at."""

    def __init__(self, given: Any, on_epoch: Callable[[Epoch], None] | None) -> None:
        if given is None:
            given = []
        elif not isinstance(given, Iterable):
            raise TypeError(f"fit: callbacks: expected a list of functions and objects, got {given!r}")
        self.all: list[Any] = list(given)
        for callback in self.all:
            if not callable(callback) and not any(hasattr(callback, name) for name in METHODS):
                raise TypeError(
                    f"fit: callbacks: expected functions of an Epoch, or objects with {', '.join(METHODS)}, "
                    f"got {callback!r}"
                )
        self.watching = [c for c in self.all if hasattr(c, "on_samples")]
        for callback in self.watching:
            whole_number(f"fit: callbacks: {type(callback).__name__}.every", getattr(callback, "every", None))
        if on_epoch is not None:
            if not callable(on_epoch):
                raise TypeError(f"fit: on_epoch: expected a function of an Epoch, got {shown(on_epoch)}")
            self.all.append(on_epoch)

    def begin(self, course: Course) -> None:
        for callback in self.all:
            if hasattr(callback, "on_begin"):
                callback.on_begin(course)

    def epoch(self, epoch: Epoch) -> None:
        stop: StopTraining | None = None
        for callback in self.all:                # all of them see it, whichever has enough
            try:
                if hasattr(callback, "on_epoch"):
                    callback.on_epoch(epoch)
                elif not any(hasattr(callback, name) for name in METHODS):
                    callback(epoch)
            except StopTraining as enough:
                stop = stop or enough
        if stop is not None:
            raise stop

    def end(self, history: History) -> None:
        for callback in self.all:
            if hasattr(callback, "on_end"):
                callback.on_end(history)
