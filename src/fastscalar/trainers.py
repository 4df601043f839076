"""The loops inside `fit`: sample by sample in Python, or by replays of a compiled program.

Both have `epoch(order, bar)`: train on the samples in this order, tell the bar, return the mean of their losses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastscalar._array import flatten_parameters, storage_of
from fastscalar._core import Tensor
from fastscalar.optim import SGD, Optimizer
from fastscalar.programs import AT_ONCE, Program, Rows, Version, _Failure, _named

REPORT_EVERY = 512  # samples, at least, between two updates of the progress bar
PORTION = 0.1  # seconds between two looks at signals


class Schedule:
    """The learning rate, which falls linearly over a run or stays; counts the samples that were trained on."""

    def __init__(self, optimizer: Optimizer, kind: str | None, total: int, done: int) -> None:
        self.optimizer, self.first_rate, self.total, self.done = optimizer, optimizer.lr, total, done
        self.falls = kind == "linear"

    def begin_epoch(self) -> None:
        """Somebody may have set another rate."""
        self.first_rate = self.optimizer.lr

    def rate(self) -> float:
        return self.first_rate * (1.0 - self.done / self.total) if self.falls else self.first_rate

    def bad_loss(self, value: float) -> FloatingPointError:
        return FloatingPointError(
            f"the loss is {value} after {self.done:,} samples; the learning rate {self.first_rate:g} may be too large"
        )


@contextmanager
def rows_named() -> Iterator[None]:
    """A row that raises does it as itself, saying which row it is.  Whatever calls a program stands in one of these."""
    try:
        yield
    except _Failure as failure:
        raise _named(failure.row, failure.error) from failure.error


class EagerTrainer:
    """`loss(net(x), y)`, `backward()`, `step()`: the loop that a user would write."""

    def __init__(
        self, sample: Callable[[Any, Any], Tensor], X: np.ndarray, y: np.ndarray, batch_size: int, schedule: Schedule
    ) -> None:
        self.sample, self.X, self.y, self.batch_size, self.schedule = sample, X, y, batch_size, schedule
        self.labels = y.tolist() if y.ndim == 1 else y

    def epoch(self, order: np.ndarray, bar: Any) -> float:
        total = 0.0
        try:
            for first, count in _stretches(len(order), -(-REPORT_EVERY // self.batch_size) * self.batch_size):
                total += self._some(order[first : first + count].tolist())
                bar.set_postfix_str(f"loss {total / (first + count):.4f}", refresh=False)
                bar.update(count)
        finally:
            self.schedule.optimizer.lr = self.schedule.first_rate
        return total / len(order)

    def _some(self, indices: list[int]) -> float:
        X, labels, schedule, optimizer = self.X, self.labels, self.schedule, self.schedule.optimizer
        total = 0.0
        for k in range(0, len(indices), self.batch_size):
            if self.batch_size == 1:
                i = indices[k]
                result = self.sample(X[i], labels[i])
                count = 1
            else:
                batch = indices[k : k + self.batch_size]
                result = self.sample(X[batch], self.y[batch])
                count = len(batch)
            value = result.data
            if not math.isfinite(value):
                raise schedule.bad_loss(value)
            optimizer.lr = schedule.rate()
            result.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.done += count
            total += value * count
        return total


class EagerProgramTrainer:
    """A program's function row by row, for what is not replayed; a batch is the mean of its rows.

    bind: called when a batch has run, which may have read leaves that none read before.  If it is left out, an
    optimiser without parameters is given them all."""

    def __init__(
        self,
        program: Program,
        rows: Rows,
        batch_size: int,
        schedule: Schedule,
        bind: Callable[[], None] | None = None,
    ) -> None:
        self.program, self.rows, self.batch_size, self.schedule = program, rows, batch_size, schedule
        self.own = bind is None and schedule.optimizer.parameters is None
        self.bind = bind or self._bind

    def _bind(self) -> None:
        found = self.program.parameters if self.own else []
        if len(found) > len(flatten_parameters(self.schedule.optimizer.parameters or [], [])):
            self.schedule.optimizer.bind(found)

    def epoch(self, order: np.ndarray, bar: Any) -> float:
        total = 0.0
        optimizer = self.schedule.optimizer
        wanted, self.program._wants_leaves = self.program._wants_leaves, self.own or self.program._wants_leaves
        try:
            for first, count in _stretches(len(order), self.batch_size):
                losses = []
                with rows_named():
                    for i in order[first : first + count].tolist():
                        losses.append(self.program._eager(self.rows, i)[0])
                for loss in losses:
                    if not math.isfinite(loss.item()):
                        raise self.schedule.bad_loss(loss.item())
                self.bind()
                if optimizer.parameters is not None:
                    optimizer.zero_grad()
                for loss in losses:
                    loss.backward(accumulate=True)
                step_by_mean(optimizer, count, self.schedule)
                total += sum(loss.item() for loss in losses)
                bar.update(count)
        finally:
            optimizer.lr = self.schedule.first_rate
            self.program._wants_leaves = wanted
        return total / len(order)


def step_by_mean(optimizer: Optimizer, count: int, schedule: Schedule) -> None:
    """One step of an optimiser when the gradients are sums over `count` rows.  Without parameters it waits for some:
    no row has read a leaf so far."""
    if optimizer.parameters is not None:
        if count > 1:
            for p in flatten_parameters(optimizer.parameters, []):
                p.grad = p.grad / count if isinstance(p, Tensor) else np.asarray(p.grad) / count
        optimizer.lr = schedule.rate()
        optimizer.step()
        optimizer.zero_grad()
    schedule.done += count


class CompiledTrainer:
    """Replays of a program.  The parameters are trained in a private block and copied back after each epoch: if
    something stops it, the net is as it was when the epoch began."""

    def __init__(
        self,
        program: Program,
        X: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        schedule: Schedule,
        threads: int,
        wide: bool,
    ) -> None:
        self.program, self.batch_size, self.schedule = program, batch_size, schedule
        self.threads, self.wide = threads, wide
        self.rows = Rows((X, y), "fit")
        self.site = program._site(self.rows.signature)
        optimizer = schedule.optimizer
        if not self.site.versions and not self.site.eager:
            with rows_named():
                program._record(self.site, self.rows, 0)
        self.own = optimizer.parameters is None      # then all that the program reads is trained
        self.known = 0
        # parameters and their values from the beginning of an epoch that touched the net
        self.before: list[tuple[Any, Any]] | None = None
        self.plans: dict[Version, Any] = {}      # which elements are trained stays the same until more are read
        self._bind()
        if self.parameters:
            optimizer.zero_grad()
        self.version: Version | None = self.site.versions[0] if self.site.versions else None
        self.eager = EagerProgramTrainer(program, self.rows, batch_size, schedule, self._bind)
        self.losses = 0.0
        # Whether SGD is done inside the replay.  Asking makes plan and sparse rows: once, before the first epoch.
        self.inside = type(optimizer) is SGD and self.version is not None and self._fits()

    def _bind(self) -> None:
        """What is trained; a new version may read more."""
        known = len(self.site.versions) + len(self.program._eager_leaves)
        if self.own and known > self.known:
            if len(self.program.parameters) > self.known_parameters():
                self.schedule.optimizer.bind(self.program.parameters)
            self.known = known
            self.plans = {}
        self.parameters = flatten_parameters(self.schedule.optimizer.parameters or [], [])
        if self.before is not None:              # nothing has trained the new ones yet
            kept = {storage_of(p) for p, _ in self.before}
            self.before += _values_of(p for p in self.parameters if storage_of(p) not in kept)

    def known_parameters(self) -> int:
        return len(flatten_parameters(self.schedule.optimizer.parameters or [], []))

    def epoch(self, order: np.ndarray, bar: Any) -> float:
        order = np.ascontiguousarray(order, dtype=np.int64)
        self.before, self.losses = None, 0.0
        self.program._wants_leaves = self.own
        try:
            if self.version is None:
                self._keep()
                return self.eager.epoch(order, bar)
            if self.inside:
                self._by_replays(order, bar)
            else:
                self._keep()
                for first, count in _stretches(len(order), self.batch_size):
                    self._one_batch(order[first : first + count])
                    self._tell(bar, count, first + count)
        except BaseException:
            self._restore()
            raise
        finally:
            self.schedule.optimizer.lr = self.schedule.first_rate
            self.program._wants_leaves = False
        return self.losses / len(order)

    def _tell(self, bar: Any, count: int, done: int) -> None:
        bar.set_postfix_str(f"loss {self.losses / done:.4f}", refresh=False)
        bar.update(count)

    # --- the net, while an epoch runs ---

    def _keep(self) -> None:
        """The net is going to be written to: remember what it was."""
        if self.before is None:
            self.before = _values_of(self.parameters)

    def _restore(self) -> None:
        for p, value in self.before or ():
            p.data = value
            p.grad = 0.0

    # --- SGD inside the replay ---

    def _open(self, version: Version) -> Any:
        if version not in self.plans:
            self.plans[version] = version.plan(frozenset(), None if self.own else self.parameters)
        plan = self.plans[version]
        replay = version.take(plan, self.batch_size, self.wide, self.threads)
        replay.trusting = False
        replay.load()
        self.program._bind(replay, self.rows)
        replay.prepare_training()
        return replay

    def _fits(self) -> bool:
        """Whether a replay has room for a whole batch."""
        assert self.version is not None
        replay = self._open(self.version)
        fits = replay.batch >= self.batch_size
        self.version.give(replay, self.batch_size)
        return fits

    def _by_replays(self, order: np.ndarray, bar: Any) -> None:
        assert self.version is not None
        schedule = self.schedule
        some = min(REPORT_EVERY, AT_ONCE // (self.version.graph.operations + 1))
        size = max(1, -(-some // self.batch_size)) * self.batch_size
        at = 0
        replay = self._open(self.version)
        while at < len(order):
            start = time.perf_counter()
            done, self.losses = replay.train(
                order[at : at + size], self.batch_size, schedule.first_rate, schedule.falls, schedule.done,
                schedule.total, self.losses,
            )  # fmt: skip
            at += done
            schedule.done += done
            if done:
                self._tell(bar, done, at)
            if done < size and at < len(order):
                count = min(self.batch_size, len(order) - at)
                replay, progressed = self._look(replay, order[at : at + count])
                at += progressed
            elif time.perf_counter() - start < PORTION / 2:
                size *= 2
        self._close(replay)

    def _close(self, replay: Any) -> None:
        assert self.version is not None
        replay.commit()
        self.version.give(replay, self.batch_size)

    def _look(self, replay: Any, batch: np.ndarray) -> tuple[Any, int]:
        """A replay stopped before this batch: (the replay to go on with, samples that were trained on here)."""
        assert self.version is not None
        losses, status = replay.batch_status()
        if not status.any():
            raise self.schedule.bad_loss(float(losses[~np.isfinite(losses)][0]))
        self._keep()
        self._close(replay)                      # a version is recorded, and rows run eagerly, with what was learned
        values, found = self._classify(batch)
        self._bind()
        if not np.isfinite(values[batch]).all():
            raise self.schedule.bad_loss(float(values[batch][~np.isfinite(values[batch])][0]))
        if len(found) == 1 and found[0][0] is self.version:
            replay = self._open(self.version)    # a result that is infinite and right
            replay.trusting = True
            done, self.losses = replay.train(
                batch, self.batch_size, self.schedule.rate(), False, 0, 1, self.losses
            )
            replay.trusting = False
            if not done:
                raise self.schedule.bad_loss(float(replay.batch_status()[0].sum()))
            self.schedule.done += done
            return replay, done
        if len(found) == 1 and found[0][0] is not None:
            self.version = found[0][0]
            return self._open(self.version), 0
        self._one_batch(batch)
        return self._open(self.version), len(batch)

    def _classify(self, batch: np.ndarray) -> Any:
        with rows_named():
            return self.program._classify(self.rows, self.threads, batch, self.wide)

    # --- gradients by the replay, steps by the optimiser ---

    def _one_batch(self, batch: np.ndarray) -> None:
        with rows_named():
            values = self.program._gradients(
                self.rows, self.threads, None, False, batch, self.wide, self._zero_grad
            )[batch]
        if not np.isfinite(values).all():
            raise self.schedule.bad_loss(float(values[~np.isfinite(values)][0]))
        step_by_mean(self.schedule.optimizer, len(batch), self.schedule)
        self.losses += float(values.sum())


    def _zero_grad(self) -> None:
        """By now all versions of the batch are recorded, and what its other rows read is known."""
        self._bind()
        if self.schedule.optimizer.parameters is not None:
            self.schedule.optimizer.zero_grad()


def _values_of(parameters: Iterable[Any]) -> list[tuple[Any, Any]]:
    return [(p, p.data if isinstance(p, Tensor) else p.numpy()) for p in parameters]


def _stretches(n: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n, size):
        yield first, min(size, n - first)

