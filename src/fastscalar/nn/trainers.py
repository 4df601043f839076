"""The loops inside `fit`: sample by sample in Python, or by replays of a compiled program.

Both have `epoch(order, watch)`: train on the samples in this order, tell `watch`, return the mean of their losses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array_ops import total as sum_of
from fastscalar.engine._rules import scale_gradients
from fastscalar.nn.course import Before, Course
from fastscalar.nn.evaluation import SAME
from fastscalar.nn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop, RuleOptimizer
from fastscalar.nn.progress import Watch
from fastscalar.program._data import state_places
from fastscalar.program._trace import leaves_before
from fastscalar.program.api import Program
from fastscalar.program.recorded import RowFailure, naming_row
from fastscalar.program.replayed import AT_ONCE
from fastscalar.program.rows import Rows
from fastscalar.program.specializations import Specialization

REPORT_EVERY = 512  # samples, at least, between two updates of the progress bar
PORTION = 0.1  # seconds between two looks at signals


class rows_named:
    """Context in which a row that raises does it as itself, saying which row it is.  Whatever calls a program stands in
    one of these."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, RowFailure):
            raise naming_row(error.row, error.error) from error.error


class EagerTrainer:
    """`loss(net(x), y)`, `backward()`, `step()`: the loop that a user would write.

    A batch is one call with all of its rows where that is known, or seen with the first one, to give the mean of what
    the rows give; else a call for each row.  at_once: it is known, or that it is not."""

    def __init__(
        self,
        sample: Callable[..., Tensor],
        data: tuple[np.ndarray, ...],
        batch_size: int,
        course: Course,
        at_once: bool | None = None,
    ) -> None:
        self.sample, self.data, self.batch_size, self.course = sample, data, batch_size, course
        self.rows: list[Any] = [data[0], *(c.tolist() if c.ndim == 1 else c for c in data[1:])]
        self.at_once = at_once

    def epoch(self, order: np.ndarray, watch: Watch) -> float:
        total = 0.0
        before = Before(self.course.optimizer)
        try:
            done, size = 0, -(-REPORT_EVERY // self.batch_size) * self.batch_size
            while done < len(order):
                some = order[done : done + watch.room(size, self.batch_size)].tolist()
                total = self._some(some, total)
                done += len(some)
                watch.tell(len(some), total)
            if self.course.doubt is not None:
                raise self.course.doubt.error()
            if (value := before.overflowed()) is not None:
                raise self.course.bad_step(value)
        except FloatingPointError:
            if before.overflowed() is not None:
                before.restore()
            raise
        finally:
            self.course.optimizer.lr = self.course.first_rate
        return total / len(order)

    def _some(self, indices: list[int], total: float) -> float:
        """Train on these; total: the sum of the losses so far, which is what comes back."""
        course, optimizer = self.course, self.course.optimizer
        for k in range(0, len(indices), self.batch_size):
            batch = indices[k : k + self.batch_size]
            marker = None if course.doubt is None else Tensor(0.0)
            result = self._of_one(batch[0]) if self.batch_size == 1 else self._of_batch(batch)
            value = result.data
            if not math.isfinite(value):
                raise course.bad_loss(value, batch)
            if marker is not None:
                self._look_at(leaves_before(marker, result))
            optimizer.lr = course.rate()
            result.backward()
            optimizer.step()
            optimizer.zero_grad()
            course.done += len(batch)
            total += value * len(batch)
        return total

    def _of_one(self, i: int) -> Tensor:
        with self.course.streams.called(i) as stream:
            result = self.sample(*[column[i] for column in self.rows])
        if stream.drawn:                         # each row has numbers of its own
            self.at_once = False
        if type(result) is Tensor:
            return result
        if isinstance(result, bool) or not isinstance(result, (int, float, np.number)):
            shape = f" of shape {np.shape(result)}" if np.shape(result) else ""
            raise TypeError(f"fit: expected one number (a Tensor) as loss, got {type(result).__name__}{shape}")
        return Tensor(float(result))

    def _of_batch(self, batch: list[int]) -> Tensor:
        """The mean of the losses of its samples."""
        if self.at_once:
            with self.course.streams.called(batch[0]) as stream:
                together = self.sample(*[column[batch] for column in self.data])
            if not stream.drawn:
                return together
        mean = sum_of(list(map(self._of_one, batch))) / len(batch)
        if self.at_once is None:
            try:
                together = self.sample(*[column[batch] for column in self.data])
                self.at_once = type(together) is Tensor and math.isclose(together.data, mean.data, rel_tol=SAME)
            except Exception:  # row by row it may well work: as it just did
                self.at_once = False
        return mean

    def _look_at(self, leaves: list[Any]) -> None:
        doubt = self.course.doubt
        assert doubt is not None
        if doubt.settled(leaves):
            self.course.doubt = None
        elif not doubt.patient:
            raise doubt.error()


class EagerProgramTrainer:
    """A program's function row by row, for what is not replayed; a batch is the mean of its rows.

    bind: called when a batch has run, which may have read leaves that none read before.  If it is left out, the
    optimiser is given them all, unless the user gave it parameters."""

    def __init__(
        self,
        program: Program,
        rows: Rows,
        batch_size: int,
        course: Course,
        bind: Callable[[], None] | None = None,
    ) -> None:
        self.program, self.rows, self.batch_size, self.course = program, rows, batch_size, course
        self.alone = bind is None
        self.own = self.alone and _is_ours(course.optimizer)
        self.bind = bind or self._bind
        self.before = Before()
        self._bind()

    def _bind(self) -> None:
        if self.own:
            self.course.bind(self.program.parameters)
        if self.alone:
            self.before.add(self.course.optimizer._distinct)

    def epoch(self, order: np.ndarray, watch: Watch) -> float:
        total = 0.0
        optimizer = self.course.optimizer
        wanted = self.program._wants_leaves
        self.program._wants_leaves = wanted or self.own or self.course.doubt is not None
        self.before = Before(optimizer if self.alone else None)
        try:
            for first, count in _stretches(len(order), self.batch_size):
                batch = order[first : first + count]
                with rows_named():
                    losses = self.program.eager_losses(self.rows, batch)
                values = [loss.data for loss in losses]      # before the step: one may be a parameter itself
                for i, value in zip(batch.tolist(), values, strict=True):
                    if not math.isfinite(value):
                        raise self.course.bad_loss(value, [i])
                self.bind()
                optimizer.zero_grad()
                for loss in losses:
                    loss.backward(accumulate=True)
                step_by_mean(optimizer, count, self.course)
                total += sum(values)
                watch.tell(count, total)
            if self.alone:
                settle(self.course, self.program)
            if (overflow := self.before.overflowed()) is not None:
                raise self.course.bad_step(overflow)
        except FloatingPointError:
            if self.before.overflowed() is not None:
                self.before.restore()
            raise
        finally:
            optimizer.lr = self.course.first_rate
            self.program._wants_leaves = wanted
        return total / len(order)


def settle(course: Course, program: Program) -> None:
    """After an epoch: whether there are parameters, and among what was read."""
    if not course.optimizer._distinct:
        raise ValueError(f"fit: {program.__name__} reads no Tensor that was made before, so there is nothing to train")
    if course.doubt is not None and not course.doubt.settled(program.parameters):
        raise course.doubt.error()
    course.doubt = None


def _is_ours(optimizer: Optimizer) -> bool:
    """Whether `fit` says what it trains."""
    return optimizer.parameters is None or optimizer._bound_by_fit


def step_by_mean(optimizer: Optimizer, count: int, course: Course) -> None:
    """One step of an optimiser when the gradients are sums over `count` rows."""
    if count > 1:
        scale_gradients(optimizer._distinct, 1.0 / count, math.inf)
    optimizer.lr = course.rate()
    optimizer.step()
    optimizer.zero_grad()
    course.done += count


class CompiledTrainer:
    """Replays of a program.  The parameters are trained in a private block and copied back after each epoch: if
    something stops it, the net is as it was when the epoch began.  own: the program is the user's, not a net's."""

    def __init__(
        self,
        program: Program,
        data: tuple[np.ndarray, ...],
        batch_size: int,
        course: Course,
        threads: int,
        float64: bool,
        own: bool,
    ) -> None:
        self.program, self.batch_size, self.course = program, batch_size, course
        self.threads, self.float64 = threads, float64
        self.rows = Rows(data, "fit", streams=course.streams)
        self.site = program._cache_of(self.rows)
        optimizer = course.optimizer
        if not self.site:
            with rows_named():
                program._record(self.site, self.rows, 0)
        program.require_one_number(self.rows)
        self.own = own and _is_ours(optimizer)   # then all that the program reads is trained
        self.known = -1
        self.before: Before | None = None        # of an epoch that touched the net
        self.plans: dict[Specialization, Any] = {}      # which elements are trained stays the same until more are read
        self.places: dict[Specialization, list[np.ndarray]] = {}  # and where the optimiser keeps what it knows of them
        doubt = course.doubt
        if doubt is not None and doubt.settled(program.parameters):
            course.doubt = None
        elif doubt is not None and not doubt.patient and self.site.all():
            raise doubt.error()
        self._bind()
        self.trained = optimizer._distinct
        optimizer.zero_grad()
        self.version: Specialization | None = next(filter(self._is_for_all, self.site.all()), None)
        self.eager = EagerProgramTrainer(program, self.rows, batch_size, course, self._bind)
        self.losses = 0.0
        self.way = self._way()
        # Asking makes plan and sparse rows: once, before the first epoch.
        self.inside = self.way != "" and self.version is not None and self._takes(self.version)

    def _bind(self) -> None:
        """What is trained; a new version may read more."""
        known = self.site.recorded + len(self.program._eager_leaves)
        if self.own and known != self.known:
            self.course.bind(self.program.parameters)
            self.known = known
            self.trained, self.plans, self.places = self.course.optimizer._distinct, {}, {}
        if self.before is not None:              # nothing has trained the new ones yet
            self.before.add(self.course.optimizer._distinct)

    def epoch(self, order: np.ndarray, watch: Watch) -> float:
        order = np.ascontiguousarray(order, dtype=np.int64)
        self.before, self.losses = None, 0.0
        others = self.trained is not self.course.optimizer._distinct     # they have been bound since,
        if others:
            self.trained, self.plans = self.course.optimizer._distinct, {}
            self.own = self.own and _is_ours(self.course.optimizer)
        self.program._wants_leaves = self.own or self.course.doubt is not None
        if others or self._way() != self.way:    # or has given the optimiser a momentum
            self.way, self.places = self._way(), {}
            self.inside = self.way != "" and self.version is not None and self._takes(self.version)
        try:
            if self.version is None:
                self._keep()
                self.losses = self.eager.epoch(order, watch) * len(order)
            elif self.inside:
                self._by_replays(order, watch)
            else:
                self._keep()
                self._by_batches(order, watch, 0)
            settle(self.course, self.program)
            if self.before is not None and (value := self.before.overflowed(self.float64)) is not None:
                raise self.course.bad_step(value)
        except BaseException:
            if self.before is not None:
                self.before.restore()
            raise
        finally:
            self.course.optimizer.lr = self.course.first_rate
            self.program._wants_leaves = False
        return self.losses / len(order)

    # --- the net, while an epoch runs ---

    def _keep(self) -> None:
        """The net is going to be written to: remember what it was."""
        if self.before is None:
            self.before = Before(self.course.optimizer)

    # --- steps inside the replay ---

    def _way(self) -> str:
        """How a replay is prepared for the optimiser; "" for one with a step of its own, which it takes itself."""
        optimizer = self.course.optimizer
        if type(optimizer) not in (SGD, Adam, AdamW, RMSprop):
            return ""
        return "plain" if type(optimizer) is SGD and optimizer._plain else "rule"

    def _open(self, version: Specialization) -> Any:
        optimizer = self.course.optimizer
        assert isinstance(optimizer, RuleOptimizer)
        self.program.warn_of_loss(version)
        if version not in self.plans:
            self.plans[version] = version.plan(frozenset(), None if self.own else optimizer._distinct)
        plan = self.plans[version]
        if version not in self.places:
            self.places[version] = state_places(plan.captures, optimizer._distinct) if self.way == "rule" else []
        replay = version.take(plan, self.batch_size, self.float64, self.threads, self.way)
        replay.load()
        self.rows.streams.begin(replay)
        self.program._bind(replay, self.rows)
        replay.prepare_training(optimizer._ready() if self.way == "rule" else None)
        replay.load_state(self.places[version], *optimizer._kept, optimizer._steps)
        return replay

    def _is_for_all(self, version: Specialization) -> bool:
        """Whether a version knows the whole numbers of all rows."""
        return bool(version.may_fit(self.rows, np.arange(self.rows.n)).all())

    def _takes(self, version: Specialization) -> bool:
        """Whether a replay has room for a whole batch, and moves all that the optimiser would."""
        replay = self._open(version)
        fits = self._does(version, replay)
        version.give(replay, self.batch_size, self.way)
        return fits

    def _does(self, version: Specialization, replay: Any) -> bool:
        optimizer = self.course.optimizer
        assert isinstance(optimizer, RuleOptimizer)
        covers = self.way == "plain" or replay.covers(self.places[version], optimizer._size)
        return covers and replay.batch >= self.batch_size

    def _by_replays(self, order: np.ndarray, watch: Watch) -> None:
        assert self.version is not None
        course = self.course
        some = min(REPORT_EVERY, AT_ONCE // (self.version.graph.operations + 1))
        size = max(1, -(-some // self.batch_size)) * self.batch_size
        at = 0
        replay = self._open(self.version)
        while at < len(order):
            start = time.perf_counter()
            some_rows = order[at : at + watch.room(size, self.batch_size)]
            rates = course.rates_of(len(some_rows))
            done, self.losses = replay.train(some_rows, self.batch_size, rates, self.losses)
            at += done
            course.done += done
            if done:
                watch.tell(done, self.losses)
            if done < len(some_rows):
                count = min(self.batch_size, len(order) - at)
                replay, progressed = self._look(replay, order[at : at + count])
                at += progressed
                if replay is None:               # from here on the optimiser steps itself
                    self.inside = False
                    self._by_batches(order, watch, at)
                    return
            elif time.perf_counter() - start < PORTION / 2:
                size *= 2
        self._keep()
        self._close(replay)

    def _close(self, replay: Any) -> None:
        assert self.version is not None
        optimizer = self.course.optimizer
        assert isinstance(optimizer, RuleOptimizer)
        replay.commit()
        optimizer._steps = replay.commit_state(self.places[self.version], *optimizer._kept)
        self.version.give(replay, self.batch_size, self.way)

    def _look(self, replay: Any, batch: np.ndarray) -> tuple[Any, int]:
        """A replay stopped before this batch: (the replay to go on with, samples that were trained on here).

        No replay: none moves all that the optimiser would."""
        assert self.version is not None
        losses, status = replay.batch_status()
        if not status.any():
            raise self.course.bad_loss(float(losses[~np.isfinite(losses)][0]), batch[~np.isfinite(losses)])
        self._keep()
        self._close(replay)                      # a version is recorded, and rows run eagerly, with what was learned
        with rows_named():
            _, found, eager = self.program._classify(self.rows, self.threads, batch, self.float64)
        self._bind()
        one = found[0][0] if len(found) == 1 and not len(eager) else self.version
        if one is not self.version and self._is_for_all(one) and self._takes(one):
            self.version = one
            return self._open(one), 0
        self._one_batch(batch)
        again = self._open(self.version)
        if not self._does(self.version, again):  # others have been found that it does not read
            self.version.give(again, self.batch_size, self.way)
            return None, len(batch)
        return again, len(batch)

    # --- gradients by the replay, steps by the optimiser ---

    def _by_batches(self, order: np.ndarray, watch: Watch, done: int) -> None:
        for first, count in _stretches(len(order) - done, self.batch_size):
            self._one_batch(order[done + first : done + first + count])
            watch.tell(count, self.losses)

    def _one_batch(self, batch: np.ndarray) -> None:
        with rows_named():
            values = self.program._gradients(
                self.rows, self.threads, None, False, batch, self.float64, self._zero_grad
            )[batch, 0]
        self._check(values, batch)
        step_by_mean(self.course.optimizer, len(batch), self.course)
        self.losses += float(values.sum())


    def _check(self, values: np.ndarray, batch: np.ndarray) -> None:
        wrong = ~np.isfinite(values)
        if wrong.any():
            raise self.course.bad_loss(float(values[wrong][0]), batch[wrong])

    def _zero_grad(self) -> None:
        """By now all versions of the batch are recorded, and what its other rows read is known."""
        self._bind()
        self.course.optimizer.zero_grad()


def _stretches(n: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n, size):
        yield first, min(size, n - first)

