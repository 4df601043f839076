"""The loops inside `fit` that call the function: what a user would write, and what that costs.

Each has `epoch(order, watch)`: train on the samples in this order, tell who watches, return the mean of their losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array_ops import total as sum_of
from fastscalar.engine._rules import scale_gradients
from fastscalar.nn.course import Before, Course
from fastscalar.nn.evaluation import SAME, far_rows
from fastscalar.nn.optimizers import Optimizer
from fastscalar.nn.progress import Watch
from fastscalar.program._trace import leaves_before
from fastscalar.program.api import Program
from fastscalar.program.recorded import RowFailure, raise_naming
from fastscalar.program.rolled import draws_in
from fastscalar.program.rows import Rows

REPORT_EVERY = 512  # samples, at least, between two updates of the progress bar


class rows_named:
    """Context in which a row that raises does it as itself, saying which row it is.  Whatever calls a program stands in
    one of these."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, RowFailure):
            raise_naming(error.row, error.error)


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

    def replace(self, *columns: np.ndarray) -> None:
        """Other samples for the same targets, or with others."""
        n = len(columns)
        self.data = (*columns, *self.data[n:])
        self.rows = [columns[0], *(c.tolist() if c.ndim == 1 else c for c in columns[1:]), *self.rows[n:]]

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
            marker = None if course.doubt is None and course.is_constant is False else Tensor(0.0)
            result = self._of_one(batch[0]) if self.batch_size == 1 else self._of_batch(batch)
            value = result.data
            if not math.isfinite(value):
                raise course.bad_loss(value, batch)
            if marker is not None:
                course.look_at(marker, [result])
            if marker is not None and course.doubt is not None:
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
                self.at_once = self._is_mean(together, mean.data, 1) and self._alone(batch, mean.data)
                if self.at_once:                 # as all others: a run that goes on begins with another batch
                    return together
            except Exception:  # row by row it may well work: as it just did
                self.at_once = False
        return mean

    def _is_mean(self, together: Any, mean: float, least: float) -> bool:
        return type(together) is Tensor and math.isclose(together.data, mean, rel_tol=SAME, abs_tol=SAME * abs(least))

    def _alone(self, batch: list[int], mean: float) -> bool:
        """Whether the losses of these rows are the same beside rows far from them: a later batch may be the first in
        which it shows that the function looks at all of them (`x / x.max()`)."""
        n = len(batch)
        for k in range(2):
            columns = [column[batch] for column in self.data]
            far = [far_rows(c)[k] if c.dtype.kind == "f" or not i else c[:1] for i, c in enumerate(columns)]
            loss = self.sample(*[f[0].item() if i and f.ndim == 1 else f[0] for i, f in enumerate(far)])
            together = self.sample(*[np.concatenate([c, f]) for c, f in zip(columns, far, strict=True)])
            value = loss.data if type(loss) is Tensor else float(loss)
            if not self._is_mean(together, (n * mean + value) / (n + 1), value / (n + 1)):
                return False
        return True

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
        self.own = self.alone and is_ours(course.optimizer)
        self.bind = bind or self._bind
        self.before = Before()
        self._bind()

    def _bind(self) -> None:
        if self.own:
            self.course.bind(self.program.parameters)
        if self.alone:
            self.before.add(self.course.optimizer._distinct)

    def replace(self, *columns: np.ndarray) -> None:
        for k, column in enumerate(columns):
            self.rows.replace(k, column)

    def epoch(self, order: np.ndarray, watch: Watch) -> float:
        return self.run(order, watch, 0.0) / len(order)

    def run(self, order: np.ndarray, watch: Watch, total: float) -> float:
        """Train on these; total: the sum of the losses of the epoch so far, which is what comes back."""
        optimizer = self.course.optimizer
        wanted = self.program._wants_leaves
        self.program._wants_leaves = wanted or self.own or self.course.doubt is not None
        self.before = Before(optimizer if self.alone else None)
        try:
            way = self._one_by_one if self.batch_size == 1 else self._by_batches
            total = way(order, watch, total)
            if self.alone:
                settle(self.course, self.program, self.own)
            if (overflow := self.before.overflowed()) is not None:
                raise self.course.bad_step(overflow)
        except FloatingPointError:
            if self.before.overflowed() is not None:
                self.before.restore()
            raise
        finally:
            optimizer.lr = self.course.first_rate
            self.program._wants_leaves = wanted
        return total

    def _by_batches(self, order: np.ndarray, watch: Watch, total: float) -> float:
        optimizer = self.course.optimizer
        for first, count in stretches(len(order), self.batch_size):
            batch = order[first : first + count]
            marker = Tensor(0.0)
            with rows_named():
                losses = self.program.eager_losses(self.rows, batch)
            self.course.look_at(marker, losses)
            values = [loss.data for loss in losses]          # before the step: one may be a parameter itself
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
        return total

    def _one_by_one(self, order: np.ndarray, watch: Watch, total: float) -> float:
        """Batches of one: the loop that a user would write, and what it costs."""
        done, course, optimizer = 0, self.course, self.course.optimizer
        self.bind()
        optimizer.zero_grad()
        while done < len(order):
            # Of an optimiser that came with parameters the first row says whether it is one for this function.
            size = REPORT_EVERY if course.doubt is None else 1
            some = order[done : done + watch.room(size, 1)]
            rates, marker = iter(course.rates_of(len(some)).tolist()), Tensor(0.0)
            with rows_named(), self.program.losses_in_turn(self.rows, some) as results:
                for i, loss, is_news in results:
                    value = loss.data            # before the step: it may be a parameter itself
                    if not math.isfinite(value):
                        raise course.bad_loss(value, [i])
                    course.look_at(marker, [loss])
                    if is_news:
                        self.bind()
                        optimizer.zero_grad()
                    loss.backward()
                    optimizer.lr = next(rates)
                    optimizer.step()
                    optimizer.zero_grad()
                    course.done += 1
                    total += value
            done += len(some)
            watch.tell(len(some), total)
            if self.alone and course.doubt is not None and course.doubt.settled(self.program.parameters):
                course.doubt, self.program._wants_leaves = None, self.own
        return total


def settle(course: Course, program: Program, own: bool = False) -> None:
    """After an epoch: whether there are parameters, and among what was read.  own: they are what the program reads.

    What a function draws may send it other ways in the next epoch: then only the last one tells."""
    nothing = not course.optimizer._distinct or (own and course.is_constant)
    doubt = course.doubt
    if doubt is not None and doubt.settled(program.parameters):
        doubt = None
    if (nothing or doubt is not None) and course.streams.epoch < course.epochs and _draws(course, program):
        course.is_constant = None
        return
    if nothing:
        raise ValueError(f"fit: {program.__name__} reads no Tensor that was made before, so there is nothing to train")
    if doubt is not None:
        raise doubt.error()
    course.doubt = None


def _draws(course: Course, program: Program) -> bool:
    return course.streams.drew or any(draws_in(one.graph) for _, one in program._specializations())


def is_ours(optimizer: Optimizer) -> bool:
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


def stretches(n: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n, size):
        yield first, min(size, n - first)
