"""The loop inside `fit` by replays of a compiled program.

It has `epoch(order, watch)`, as those of `eager`: train on the samples in this order, tell who watches, return the mean
of their losses.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from fastscalar.nn.course import Before, Course
from fastscalar.nn.eager import (
    REPORT_EVERY,
    EagerProgramTrainer,
    is_ours,
    rows_named,
    settle,
    step_by_mean,
    stretches,
)
from fastscalar.nn.optimizers import SGD, Adam, AdamW, RMSprop, RuleOptimizer
from fastscalar.nn.progress import Watch
from fastscalar.program._data import state_places
from fastscalar.program.api import Program
from fastscalar.program.portions import AT_ONCE
from fastscalar.program.recorded import RowFailure
from fastscalar.program.rows import Rows
from fastscalar.program.specializations import ONE_TRY, Specialization

PORTION = 0.1  # seconds between two looks at signals
LOOKED_AT = 256  # rows, to see how many the first recording fits
MISSES = 16  # batches, before that is looked into; then twice as many
ONE_MISS = 60.0  # microseconds of a batch that the replay has to be left for, beside those of the recordings tried


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
        self.own = own and is_ours(optimizer)   # then all that the program reads is trained
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
        self.missed, self.judge_at = 0, MISSES   # batches that the replay was left for; when that is looked into
        self.seen = 0                            # recordings by then
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

    def replace(self, *columns: np.ndarray) -> None:
        """Other samples for the same targets, or with others."""
        for k, column in enumerate(columns):
            self.rows.replace(k, column)
        if len(columns) > 1:                     # a recording may hold for some labels only
            self.version = next(filter(self._is_for_all, self.site.all()), None)
            self.inside = self.way != "" and self.version is not None and self._takes(self.version)

    def look_again(self) -> None:
        """Callbacks may have changed what is frozen in the program: where a row says so, the function is called from
        now on."""
        version = self.version
        if version is None or not version.examples or version.graph.draws or version.graph.uncertain:
            return
        row, some = version.examples[-1], np.zeros(1, np.int64)
        called = np.empty((1, self.site.width))
        status, replayed = self.program._replay_values(version, row, some, 1, True)
        if status.any():                         # by now it goes another way
            return
        try:
            self.program._eager_values(row, some, called)
        except RowFailure:
            return                               # which is said when its turn comes
        if not np.allclose(replayed, called, rtol=1e-6, atol=1e-9, equal_nan=True):
            self.program.forget(self.site)
            self.version, self.inside = None, False

    def epoch(self, order: np.ndarray, watch: Watch) -> float:
        order = np.ascontiguousarray(order, dtype=np.int64)
        self.before, self.losses = None, 0.0
        self.judge_at = MISSES // 2
        others = self.trained is not self.course.optimizer._distinct     # they have been bound since,
        if others:
            self.trained, self.plans = self.course.optimizer._distinct, {}
            self.own = self.own and is_ours(self.course.optimizer)
        self.program._wants_leaves = self.own or self.course.doubt is not None or self.course.is_constant is not False
        if others or self._way() != self.way:    # or has given the optimiser a momentum
            self.way, self.places = self._way(), {}
            self.inside = self.way != "" and self.version is not None and self._takes(self.version)
        try:
            if self.version is None or self._is_slow(order):
                self._eagerly(order, watch)
            elif self.inside:
                self._by_replays(order, watch)
            else:
                self._keep()
                self._by_batches(order, watch, 0)
            if self.course.is_constant is not False:
                self.course.is_constant = not (self.program._eager_leaves or self.site.has_gradients())
            settle(self.course, self.program, self.own)
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

    # --- where it is faster to call the function ---

    def _eagerly(self, order: np.ndarray, watch: Watch) -> None:
        self._keep()
        if self.batch_size > 1 or self.version is not None:
            self.program.warn_of_loss(self.site)
        self.losses = self.eager.run(order, watch, self.losses)

    def _is_slow(self, order: np.ndarray) -> bool:
        """Whether so many batches have rows that the first recording does not fit that the function itself is faster.

        Counted, not measured: what comes out must not depend on the clock.  As long as more is recorded, it is not
        asked: there may be too many ways, and that is said."""
        self.missed, self.judge_at = 0, 2 * self.judge_at
        known, self.seen = self.seen, self.site.recorded
        if self.version is None or not (self.site.eager or self.site.recorded == known > 1):
            return False
        some = order[: max(1, LOOKED_AT // self.batch_size) * self.batch_size]
        fits = self.program.fitted_by_one(self.site, self.rows, self.threads, some, self.float64)
        missed = sum(not fits[k : k + self.batch_size].all() for k in range(0, len(some), self.batch_size))
        replays = missed * (ONE_MISS + ONE_TRY * len(self.site.all()))
        return replays > len(some) * self.version.called

    # --- the net, while an epoch runs ---

    def _keep(self) -> None:
        """The net is going to be written to: remember what it was."""
        if self.before is None:
            self.before = Before(self.course.optimizer)

    # --- steps inside the replay ---

    def _way(self) -> str:
        """How a replay is prepared for the optimiser: "plain", "decay" (and nothing else), "rows" (of single rows, with
        their gradients), "momentum" (into which gradients are added), or "rule"; "" for one with a step of its own,
        which it takes itself."""
        optimizer = self.course.optimizer
        if type(optimizer) not in (SGD, Adam, AdamW, RMSprop):
            return ""
        assert isinstance(optimizer, RuleOptimizer)
        if type(optimizer) is SGD and optimizer._memoryless:
            return "decay" if optimizer.weight_decay else "plain"
        if self.batch_size == 1 and not optimizer.clip_norm:
            return "rows"
        if type(optimizer) is not SGD or optimizer.nesterov or optimizer.clip_norm or optimizer.clip_value:
            return "rule"
        return "momentum" if optimizer.momentum >= 0.1 else "rule"      # it fades slowly: is scaled once in a while

    def _open(self, version: Specialization) -> Any:
        optimizer = self.course.optimizer
        assert isinstance(optimizer, RuleOptimizer)
        self.program.warn_of_loss(version)
        if version not in self.plans:
            self.plans[version] = version.plan(frozenset(), None if self.own else optimizer._distinct)
        plan = self.plans[version]
        if version not in self.places:
            self.places[version] = state_places(plan.captures, optimizer._distinct) if self.way != "plain" else []
        replay = version.take(plan, self.batch_size, self.float64, self.threads, self.way)
        replay.load()
        self.rows.streams.begin(replay)
        self.rows.bind(replay)
        rule = None if self.way == "plain" else optimizer._ready()
        replay.prepare_training(rule, self.way not in ("rule", "momentum"), self.way == "momentum")
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
                self.missed += 1
                if self.missed >= self.judge_at and at < len(order) and self._is_slow(order[at:]):
                    self._close(replay)
                    self._eagerly(order[at:], watch)
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
        for first, count in stretches(len(order) - done, self.batch_size):
            at = done + first
            self.missed += self.site.eager or len(self.site.all()) > 1
            if self.missed >= self.judge_at and self._is_slow(order[at:]):
                self._eagerly(order[at:], watch)
                return
            self._one_batch(order[at : at + count])
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
