"""Where a run stands: the learning rate of the next step, the samples done, what an epoch began with."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._imports import importing
from fastscalar._settings import scalar, shown
from fastscalar.engine._rules import values_of
from fastscalar.engine._step import distinct_parameters, place_of, storage_of
from fastscalar.nn.optimizers import Optimizer
from fastscalar.nn.samples import what_is_not_finite
from fastscalar.nn.schedules import Rate
from fastscalar.program._trace import leaves_before
from fastscalar.program.streams import Streams


class Course:
    """The learning rate over a run, and how far the run is.

    steps: of one epoch, in samples and in batches, as `samples` and `batch_size` make them."""

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Rate,
        samples: int,
        batch_size: int,
        epochs: int,
        first_epoch: int = 1,
        data: dict[str, np.ndarray] | None = None,
        seed: Any = None,
    ) -> None:
        self.optimizer, self.first_rate, self.schedule = optimizer, optimizer.lr, schedule
        self.samples, self.batch_size, self.total = samples, batch_size, samples * epochs
        self.steps = -(-samples // batch_size)   # of an epoch
        self.epochs = epochs
        self.done = self.begun = samples * (first_epoch - 1)     # begun: by an earlier call
        self.rates = np.empty(0)                 # of the steps of this epoch,
        self.first = self.done                   # which began after so many samples
        self.data = data or {}
        self.doubt: Doubt | None = None
        self.is_constant: bool | None = None     # whether no loss so far had a gradient by any leaf
        self.streams = Streams(seed_of(seed), epoch=first_epoch)     # what samples draw at random

    def spread_over(self, samples: int) -> None:
        """There are so many samples, of which those that it was made for are a part, or the other way round."""
        epochs = self.begun // self.samples
        self.samples, self.total, self.steps = samples, samples * self.epochs, -(-samples // self.batch_size)
        self.done = self.begun = self.first = samples * epochs

    def look_at(self, marker: Tensor, losses: Iterable[Tensor]) -> None:
        """Losses that were computed since there is a marker: whether one of them has a gradient by what is older."""
        for loss in losses if self.is_constant is not False else ():
            self.is_constant = not leaves_before(marker, loss)
            if not self.is_constant:
                return

    def begin_epoch(self, number: int) -> None:
        """Another rate may have been set."""
        self.streams.epoch = number
        self.first_rate, self.first = self.optimizer.lr, self.done
        within = np.arange(self.steps)
        step = self.done // self.samples * self.steps + within
        part = (self.done + within * self.batch_size) / self.total
        self.rates = self.first_rate * self.schedule.factors(step, self.steps * self.epochs, part)

    def rate(self) -> float:
        return float(self.rates_of(1)[0])

    def rates_of(self, samples: int) -> np.ndarray:
        """The rates of the next batches, of so many samples."""
        first = (self.done - self.first) // self.batch_size
        return self.rates[first : first - (-samples // self.batch_size)]

    def bad_loss(self, value: float, rows: Any) -> FloatingPointError:
        """The error of a batch of these rows, with the likeliest reason."""
        why = what_is_not_finite(self.data, rows)
        if why is None and not all(map(_is_finite, self.optimizer._distinct)) and self.done == self.begun:
            why = "a parameter of the net is not finite"
        if why is None and self.done == self.begun:
            why = "nothing was trained yet, so the net, or the loss, is not defined there, or its numbers are too large"
        return self._diverged(f"the loss is {value}", why)

    def bad_step(self, value: float) -> FloatingPointError:
        return self._diverged(f"a parameter is {value}", None)

    def _diverged(self, what: str, why: str | None) -> FloatingPointError:
        why = why or f"the learning rate {self.first_rate:g} may be too large"
        return FloatingPointError(f"{what} after {self.done:,} samples; {why}")

    def bind(self, parameters: list[Any]) -> None:
        """What `fit` found is what is trained; an optimiser that had the parameters of another net starts anew."""
        optimizer = self.optimizer
        held = _storages(optimizer._distinct) if optimizer._bound_by_fit and self.begun else set()
        if held and parameters and not held & _storages(distinct_parameters(parameters)):
            raise ValueError(
                "fit: first_epoch: the optimiser holds the parameters of another net, and what it knows is of those; "
                "copy or pickle net and optimiser together"
            )
        optimizer._bind_by_fit(parameters)


def generator_of(seed: Any) -> np.random.Generator:
    """NumPy's, which imports its generators when they are first used."""
    with importing():
        import numpy.random
    try:
        return numpy.random.default_rng(scalar(seed))
    except (TypeError, ValueError):
        raise ValueError(f"fit: seed: expected a whole number from 0 on, or None, got {shown(seed)}") from None


def seed_of(seed: Any) -> int:
    """A whole number for what may be the seed of a NumPy generator; None is another one each time."""
    if isinstance(seed, (int, np.integer)) and 0 <= seed < 1 << 63:
        return int(seed)
    return int(generator_of(seed).integers(1 << 63))


class Doubt:
    """An optimiser that came with parameters, and a net that may be another one: what it reads decides.

    patient: it may read them in any sample of the first epoch; else it has to in the first."""

    def __init__(self, optimizer: Optimizer, patient: bool) -> None:
        self.held, self.patient = _storages(optimizer._distinct), patient

    def settled(self, leaves: Iterable[Any]) -> bool:
        return bool(self.held & _storages(leaves))

    def error(self) -> ValueError:
        return ValueError(
            "fit: the optimiser holds the parameters of another net, this one reads none of them; "
            "leave them out, as in SGD(lr=0.02), or give it net.parameters()"
        )


def _storages(parameters: Iterable[Any]) -> set[int]:
    return set(map(storage_of, parameters))


class Before:
    """What an optimiser holds, its parameters and what it knows of them, as it was when an epoch began."""

    def __init__(self, optimizer: Optimizer | None = None) -> None:
        self.parts: list[tuple[list[Any], np.ndarray]] = []     # lists of parameters, and all their values
        self.optimizer = optimizer
        if optimizer is not None:
            self.state = optimizer._state()
            self.add(optimizer._distinct)

    def add(self, parameters: list[Any]) -> None:
        """Those that are not here yet, with the values that they have now; asked for each batch, mostly in vain."""
        if any(known is parameters for known, _ in self.parts):
            return
        if self.parts:
            here = {place_of(p) for known, _ in self.parts for p in known}
            parameters = [p for p in parameters if place_of(p) not in here]
        self.parts.append((parameters, values_of(parameters)))

    def overflowed(self, float64: bool = True) -> float | None:
        """A number that a step has made NaN, or so large that products of such numbers are infinite; None."""
        limit = math.sqrt(np.finfo(np.float64 if float64 else np.float32).max)
        for parameters, value in self.parts:
            now = values_of(parameters)
            if not now.size or np.abs(now).max() <= limit:
                continue
            large = (np.abs(value) <= limit) & ~(np.abs(now) <= limit)
            wrong = now[large | (np.isfinite(value) & ~np.isfinite(now))]
            if wrong.size:
                return float(wrong[0])
        return None

    def restore(self) -> None:
        for parameters, values in self.parts:
            at = 0
            for p in parameters:
                if isinstance(p, Tensor):
                    p.data = values[at]
                    at += 1
                else:
                    p.data = values[at : at + p.size].reshape(p.shape)
                    at += p.size
                p.grad = 0.0
        if self.optimizer is not None:
            self.optimizer._set_state(self.state)


def _is_finite(p: Any) -> bool:
    return math.isfinite(p.data) if isinstance(p, Tensor) else bool(np.isfinite(p.numpy()).all())
