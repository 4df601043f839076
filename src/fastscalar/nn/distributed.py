"""The loop inside `fit` where several processes train one net: each computes a part of the gradients of a batch.

What they add up is added in the order of the rows' blocks, in a binary tree, so that any number of processes takes the
same steps, to the last bit; with `deterministic=False` in whatever order is fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._rules import values_of
from fastscalar.nn.course import Before, Course
from fastscalar.nn.eager import EagerProgramTrainer, EagerTrainer, rows_named, step_by_mean
from fastscalar.nn.progress import Watch
from fastscalar.nn.trainers import CompiledTrainer
from fastscalar.program._replay import BY_LEAVES
from fastscalar.program.ranks import Ranks, Tree, blocks_of, checksum, digest
from fastscalar.program.recorded import raise_naming

BLOCK = 64  # rows, at least, whose gradients a rank adds up before it adds them to those of others;
BLOCKS = 8  # and at most so many of these in a batch: each costs writing and adding all gradients once
CACHE = 1 << 20  # bytes of gradients that stay near: then fewer rows at once, whose numbers do as well
SLOW, FAILED = 1.0, float(1 << 20)  # what a rank says beside its gradients: a batch is to be looked at; it has an error

Trainer = EagerTrainer | EagerProgramTrainer | CompiledTrainer


class Shares:
    """Which rows of a batch this rank computes, as blocks with numbers that all ranks know.

    lengths: the samples of each rank, if each has its own; None: all have all of them."""

    def __init__(
        self, ranks: Ranks, samples: int, batch_size: int, deterministic: bool, lengths: list[int] | None
    ) -> None:
        self.ranks, self.batch_size, self.deterministic, self.lengths = ranks, batch_size, deterministic, lengths
        self.samples = samples if lengths is None else sum(lengths)
        self.block = max(BLOCK, -(-batch_size // BLOCKS))
        self.steps = -(-self.samples // batch_size)

    @property
    def most(self) -> int:
        """Rows of a block, at most."""
        if self.lengths is not None:
            return max(1, *(-(-n // self.steps) for n in self.lengths))
        return min(self.block, self.batch_size) if self.deterministic else -(-self.batch_size // self.ranks.size)

    def of(self, step: int) -> tuple[int, int, Callable[[int], slice]]:
        """Of a step: its rows on all ranks, the number of blocks, and where in this rank's order a block is."""
        ranks = self.ranks
        if self.lengths is not None:
            count = sum(n * (step + 1) // self.steps - n * step // self.steps for n in self.lengths)
            mine = self.lengths[ranks.rank]
            own = slice(mine * step // self.steps, mine * (step + 1) // self.steps)
            return count, ranks.size, lambda b: own
        first = step * self.batch_size
        count = min(self.batch_size, self.samples - first)
        if not self.deterministic:
            part = [first + count * r // ranks.size for r in range(ranks.size + 1)]
            return count, ranks.size, lambda b: slice(part[b], part[b + 1])
        block = self.block
        return count, -(-count // block), lambda b: slice(first + b * block, first + min(count, (b + 1) * block))


class DistributedTrainer:
    """Steps that all ranks take together.  alone: the trainer that would take them if there were no others."""

    def __init__(self, alone: Trainer, ranks: Ranks, shares: Shares, course: Course, dtype: str) -> None:
        self.alone, self.ranks, self.shares, self.course = alone, ranks, shares, course
        self.dtype = np.dtype(dtype)
        self.error: BaseException | None = None
        self.replay: Any = None
        self.layout: str | None = None           # of its gradients
        self.tree = Tree(0, self.dtype)
        if isinstance(alone, CompiledTrainer):
            alone.batch_size, alone.way, alone.places = shares.most, "rule" if alone.way else "", {}
            self.fast = alone.way == "rule" and alone.version is not None and alone._takes(alone.version)
        else:
            self.fast = False

    @property
    def samples(self) -> int:
        return self.shares.samples

    @property
    def parameters(self) -> list[Any]:
        return self.course.optimizer._distinct

    # --- an epoch ---

    def epoch(self, order: np.ndarray, watch: Watch) -> float:
        order = np.ascontiguousarray(order, dtype=np.int64)
        self.losses = np.zeros(len(order))
        alone, total, seen = self.alone, 0.0, 0
        before = Before(self.course.optimizer)
        if isinstance(alone, CompiledTrainer):
            alone.before, alone.program._wants_leaves = None, alone.own
        fast = self._all_fast()
        try:
            if fast:
                self._open()
            for step in range(self.shares.steps):
                count, blocks, where = self.shares.of(step)
                if self.replay is None or not self._fast_step(order, count, blocks, where):
                    self._slow_step(order, count, blocks, where)
                    if fast:
                        self._open()
                for b in range(*blocks_of(blocks, self.ranks.rank, self.ranks.size)):
                    total += float(self.losses[where(b)].sum())
                    seen += where(b).stop - where(b).start
                try:
                    watch.tell(count, total / max(1, seen) * (watch.done + count))
                except BaseException as error:   # of a callback: said where the others are told
                    self.error = error
            if self.replay is not None:
                self._close()
            self.ranks.settle(self.error)
            if (value := before.overflowed(self.dtype == np.float64)) is not None:
                raise self.course.bad_step(value)
        except BaseException:
            self.replay = None
            before.restore()
            raise
        finally:
            self.course.optimizer.lr = self.course.first_rate
            if isinstance(alone, CompiledTrainer):
                alone.program._wants_leaves = False
        return self._mean()

    def _mean(self) -> float:
        """The mean of all losses, added in the order of the samples, which is the same whoever computed them."""
        if self.shares.lengths is None:
            losses = self.ranks.sum(self.losses, np.empty_like(self.losses))
        else:
            losses = np.concatenate(self.ranks.gather_known(self.losses, self.shares.lengths))
        return float(losses.sum()) / self.shares.samples

    # --- steps inside a replay ---

    def _all_fast(self) -> bool:
        """Whether all have replays whose gradients stand in the same places: a rank may have recorded another way."""
        if self.fast and self.layout is None:
            alone = self.alone
            assert isinstance(alone, CompiledTrainer)
            assert alone.version is not None
            self._open()
            plan, places = self.replay.plan, alone.places[alone.version]
            self._close()
            where = (plan.capture_of, plan.offset_of, plan.address_of, plan.count_of)
            self.layout = f"{self.tree.size} {digest(*where, *places)}"
        layouts = set(self.ranks.tell(self.layout))
        return None not in layouts and len(layouts) == 1

    def _open(self) -> None:
        assert isinstance(self.alone, CompiledTrainer)
        assert self.alone.version is not None
        self.replay = self.alone._open(self.alone.version)
        self._size(self.replay.gradient_size)

    def _close(self) -> None:
        assert isinstance(self.alone, CompiledTrainer)
        replay, self.replay = self.replay, None
        replay.gradients_in(None)
        self.alone._close(replay)

    def _size(self, numbers: int) -> None:
        if self.tree.size != numbers:
            self.tree = Tree(numbers, self.dtype)

    def _fast_step(self, order: np.ndarray, count: int, blocks: int, where: Callable[[int], slice]) -> bool:
        """False: some row fits no recording, or may have raised, or is not finite; nothing has changed."""

        def leaf(b: int) -> np.ndarray:
            out, rows = self.tree.take(), where(b)
            values, status = self.losses[rows], np.zeros(rows.stop - rows.start, np.uint8)
            if not len(status):
                out[...] = 0.0
                return out
            self.replay.gradients_in(out)
            sound, portion = True, 128 if out.nbytes <= CACHE else 512
            for first in range(0, len(status), portion):
                some, last = slice(first, first + portion), first + portion >= len(status)
                sound &= self.replay.gradients(
                    order[rows][some], values[some, None], status[some], BY_LEAVES, first == 0, last
                )
            sound &= bool(np.isfinite(values).all())
            out[-1] = 0.0 if sound else SLOW
            return out

        summed = self._sum(blocks, leaf)
        if summed[-1]:
            self.tree.give(summed)
            return False
        self.replay.gradients_in(summed)
        self.replay.step_by(count, self.course.rate())
        self.tree.give(summed)
        self.course.done += count
        return True

    # --- steps of the optimiser ---

    def _slow_step(self, order: np.ndarray, count: int, blocks: int, where: Callable[[int], slice]) -> None:
        if self.replay is not None:
            self._close()
        parameters = self.parameters
        self._size(len(values_of(parameters)) + 1)

        def leaf(b: int) -> np.ndarray:
            out, rows = self.tree.take(), where(b)
            out[...] = 0.0
            if rows.stop > rows.start:
                self.course.optimizer.zero_grad()
                values = self._gradients(order[rows])
                self.losses[rows] = values
                wrong = ~np.isfinite(values)
                if wrong.any():
                    raise self.course.bad_loss(float(values[wrong][0]), order[rows][wrong])
                out[:-1] = gradients_of(self.parameters)
            return out

        summed = self._sum(blocks, leaf)
        self.course.optimizer.zero_grad()
        put(parameters, summed[:-1].astype(np.float64), "grad")
        self.tree.give(summed)
        step_by_mean(self.course.optimizer, count, self.course)

    def _gradients(self, rows: np.ndarray) -> np.ndarray:
        """The losses of some rows; the sums of their gradients are in the parameters."""
        alone = self.alone
        if isinstance(alone, EagerTrainer):
            values = []
            for i in rows.tolist():
                try:
                    loss = alone._of_one(i)
                except Exception as error:
                    raise_naming(i, error)
                values.append(loss.data)
                loss.backward(accumulate=True)
            return np.array(values)
        with rows_named():
            if isinstance(alone, CompiledTrainer):
                found = alone.program._gradients(
                    alone.rows, alone.threads, None, False, rows, alone.float64, self.course.optimizer.zero_grad
                )
                return np.asarray(found[rows, 0])
            losses = alone.program.eager_losses(alone.rows, rows)
            values = [loss.data for loss in losses]
            for loss in losses:
                loss.backward(accumulate=True)
        return np.array(values)

    # --- what all ranks add up ---

    def _sum(self, blocks: int, leaf: Callable[[int], np.ndarray]) -> np.ndarray:
        """The sum over all blocks, the same on all ranks; if a rank failed in its own, all raise."""
        ranks, tree = self.ranks, self.tree

        def block(b: int) -> np.ndarray:
            try:
                if self.error is not None:
                    raise self.error
                return leaf(b)
            except BaseException as error:       # said where the others are told
                self.error = error
                out = tree.take()
                out[...] = FAILED
                return out

        found = tree.own_nodes(ranks, blocks, block)
        if self.shares.deterministic or ranks.size == 1:
            summed = tree.over_ranks(ranks, blocks, found)
        else:
            summed = ranks.sum(found[0], tree.take())
            tree.give(found[0])
        if not summed[-1] < FAILED:
            ranks.settle(self.error)
        return summed

class LocalTrainer:
    """Every rank trains by itself for some batches; then all go on from the mean of their weights.

    What an optimiser with a memory remembers stays each rank's own."""

    def __init__(
        self, alone: Trainer, ranks: Ranks, course: Course, local_steps: int, lengths: list[int] | None
    ) -> None:
        self.alone, self.ranks, self.course, self.lengths = alone, ranks, course, lengths
        self.samples = course.samples if lengths is None else sum(lengths)
        self.most = -(-course.samples // ranks.size) if lengths is None else max(lengths)
        self.rows = local_steps * course.batch_size
        mine = len(range(ranks.rank, course.samples, ranks.size)) if lengths is None else lengths[ranks.rank]
        course.spread_over(max(1, mine))

    def epoch(self, order: np.ndarray, watch: Watch) -> float:
        mine = order if self.lengths is not None else order[self.ranks.rank :: self.ranks.size]
        before, total = Before(self.course.optimizer), 0.0
        try:
            for first in range(0, self.most, self.rows):
                some = mine[first : first + self.rows]
                with self.ranks.together():
                    if len(some):
                        total += self.alone.epoch(some, watch) * len(some)
                self._meet()
        except BaseException:
            before.restore()
            raise
        losses = self.ranks.gather(np.array([total]))
        return float(np.concatenate(losses).sum()) / self.samples

    def _meet(self) -> None:
        parameters = self.course.optimizer._distinct
        every = self.ranks.gather(values_of(parameters))
        put(parameters, sum(every[1:], every[0]) / len(every), "data")


# --- parameters as one array ---------------------------------------------------------------------


def gradients_of(parameters: list[Any]) -> np.ndarray:
    return np.concatenate([np.ravel(p.grad) for p in parameters])


def put(parameters: list[Any], numbers: np.ndarray, name: str) -> None:
    """Set `data` or `grad` of all parameters."""
    at = 0
    for p in parameters:
        size = 1 if isinstance(p, Tensor) else p.size
        setattr(p, name, float(numbers[at]) if isinstance(p, Tensor) else numbers[at : at + size].reshape(p.shape))
        at += size


# --- one net ------------------------------------------------------------------


def share_net(ranks: Ranks, course: Course) -> None:
    """Every rank has rank 0's parameters, and what its optimiser knows of them."""
    optimizer = course.optimizer
    shapes = [getattr(p, "shape", ()) for p in optimizer._distinct]
    ranks.agree(net=str(shapes), optimiser=f"{type(optimizer).__name__} {getattr(optimizer, '_constants', dict)()}")
    put(optimizer._distinct, ranks.from_first(values_of(optimizer._distinct)), "data")
    for kept in _kept(optimizer):
        ranks.from_first(kept)
    if hasattr(optimizer, "_steps"):
        optimizer._steps = ranks.hear(optimizer._steps)
    optimizer.lr = ranks.hear(optimizer.lr)


def _kept(optimizer: Any) -> list[np.ndarray]:
    return [kept for kept in getattr(optimizer, "_kept", ()) if kept is not None]


def same_net(ranks: Ranks, course: Course) -> str:
    """The checksum of the parameters; RankError if those of ranks differ."""
    mine = checksum(values_of(course.optimizer._distinct))
    ranks.agree(net=mine)
    return mine
