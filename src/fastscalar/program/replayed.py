"""Values and gradients of rows: which recording fits which of them, replays of these, and the function for the rest.

The boundary: knows rows and recordings; what a user calls stands in `api`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import chain, compress
from typing import Any, NamedTuple

import numpy as np

from fastscalar._core import Tensor
from fastscalar.program import _data
from fastscalar.program._graph import same_graph
from fastscalar.program._one_row import OneRow, has_room
from fastscalar.program._replay import BY_ARGUMENTS, BY_LEAVES, Replay, RowStatus, gradients_of_each
from fastscalar.program._trace import NotReplayable
from fastscalar.program.called import CalledFunction
from fastscalar.program.portions import BATCH, portions
from fastscalar.program.recorded import RowFailure
from fastscalar.program.rows import Rows, first_inputs, shared_inputs
from fastscalar.program.specializations import Pair, SignatureCache, Specialization, groups_of_rows, share_out

ONE_ROWS = 32  # signatures of which single rows go the short way


class Swept(NamedTuple):
    """Gradients of rows, still in replays; which recordings have which rows, and those that none has."""

    values: np.ndarray
    replays: list[tuple[Specialization, Any]]
    ways: list[tuple[Specialization, np.ndarray]]
    eager: np.ndarray


def unfit(status: np.ndarray) -> np.ndarray:
    """Rows that a replay does not fit, whatever the order of additions: a mask."""
    return (status != 0) & ((status & RowStatus.ORDER_MATTERS) == 0)


class ReplayedFunction(CalledFunction):
    """The part of a Program that computes."""

    # --- does the function repeat itself? ---

    def _cache_of(self, rows: Rows) -> SignatureCache:
        """Of the rows' signature; the second time, whether the function does what it did."""
        with self._lock:
            key = rows.key()
            cache = rows.cache = self._caches.get(key) or self._caches.setdefault(
                key, SignatureCache(rows.kinds, rows.nests, rows.names)
            )
            if cache.loose:
                self._attach(cache)
            if cache.first is not None:
                first = cache.first
                try:
                    same = self.repeats(cache)
                except RowFailure:                 # of a row that may not be among these
                    same = not self._holds(*first)
                if not same:
                    self.forget(cache)
            return cache

    def _prepared(self, rows: Rows, chosen: np.ndarray | None) -> SignatureCache:
        """The recordings of the rows' signature; at least one, if there are to be any."""
        if rows.prepared:
            rows.prepared = False                 # the next time they are looked at again
            return rows.cache
        cache = self._cache_of(rows)
        if not cache:
            with self._lock:
                if not cache:                     # else another thread has just recorded
                    self._record(cache, rows, 0 if chosen is None else int(chosen.min()))
        return cache

    def repeats(self, cache: SignatureCache) -> bool:
        """Whether a second recording of the first row is like the first one; asked once.  The RowFailure of row 0 if it
        raises.

        Where leaves have changed and decide otherwise now, it may be another: then the next one has to be like it."""
        assert cache.first is not None
        (row, specialization), cache.first = cache.first, None
        try:
            graph = self._recorded(row, 0)[0]
            if same_graph(specialization.graph, graph):
                return True
            return not self._holds(row, specialization) and same_graph(
                graph, self._recorded(row, 0)[0]
            )
        except NotReplayable:
            return not self._holds(row, specialization)
        except MemoryError:
            cache.first = row, specialization     # it says nothing of the function
            raise
        except Exception as error:
            raise RowFailure(0, error) from error

    def _holds(self, row: Rows, specialization: Specialization) -> bool:
        """Whether the row decides as it did when that was recorded of it."""
        values = np.empty((1, len(specialization.graph.results)))
        return bool(self._try(specialization, row, np.zeros(1, np.int64), values, 1, True)[0].size)

    # --- one row ---

    def _keep_short_way(self, rows: Rows) -> None:
        """A call with one row went the long way: if all of these go by one recording, the next ones need not."""
        self._keep_plain_way(rows)
        cache, one = rows.cache, rows.cache.only()
        settled = one is not None and one.known is None and not one.lost and not cache.eager and cache.first is None
        draws = settled and (one.graph.draws or one.graph.uncertain)
        if cache.short_way or not settled or draws or self._shared or len(self._one_rows) >= ONE_ROWS:
            return
        if rows.nests is not None or not has_room(rows.kinds):
            return
        cache.short_way = True
        with suppress(MemoryError):              # this call has its result
            made = OneRow(Replay(one.plan(frozenset()), 1, True), rows.kinds)
            self._one_rows = (*self._one_rows, (cache.nest, made))

    # --- replays ---

    def _replay(
        self,
        specialization: Specialization,
        rows: Rows,
        threads: int,
        float64: bool,
        gradients: Any = None,
        plain: bool = False,
        bound_as: Any = None,
    ) -> Any:
        """bound_as: a replay of another recording for the same."""
        shared = specialization.graph.shared
        parameters = None
        if gradients is not None and shared:
            parameters = [specialization.graph.captures[at] for k, at in shared.items() if k in gradients]
        plan = specialization.plan(shared_inputs(rows.signature), parameters, plain)
        replay = specialization.take(plan, BATCH, float64, threads)
        if shared:
            replay.load({at: rows.data[k].reshape(-1) for k, at in shared.items()})
        else:
            replay.load()
        rows.streams.begin(replay)
        if bound_as is None or not replay.bind_as(bound_as):
            rows.bind(replay, gradients)
        return replay

    def _values(self, rows: Rows, threads: int, float64: bool = True) -> np.ndarray:
        if rows.sharing is not None:
            return rows.sharing.values(self, rows, threads, float64)
        values, found, eager = self._classify(rows, threads, None, float64)
        if self._exact_where_not_finite:
            eager = np.union1d(eager, np.flatnonzero(~np.isfinite(values).all(axis=1)))
        if len(eager):
            self._eager_values(rows, eager, values)
        for specialization, some in found:
            if specialization.graph.uncertain and rows.streams.goes_on:
                self._eager_values(rows, some, values)     # only the function knows how many numbers it drew
            else:
                rows.streams.replayed(specialization.graph)
        return values

    def _classify(
        self,
        rows: Rows,
        threads: int,
        chosen: np.ndarray | None = None,
        float64: bool = True,
        finish: Callable[[list[Pair], np.ndarray], list[bool]] | None = None,
    ) -> tuple[np.ndarray, list[tuple[Specialization, np.ndarray]], np.ndarray]:
        """Which specialization fits which rows, of all or of the chosen ones, and their values; rows that none fits.

        finish: see `share_out`; it sets values, too, and its rows are not among those that are returned.
        Raises the RowFailure of the lowest row that raises while it is recorded: all below it fit a specialization."""
        cache = self._prepared(rows, chosen)
        values = np.empty((rows.n, cache.width))
        found: dict[Specialization, list[np.ndarray]] = {}
        pending = np.arange(rows.n, dtype=np.int64) if chosen is None else chosen
        misfits: list[int] = []                  # rows that do not fit their own recording

        def attempt(specialization: Specialization, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            may_fit = specialization.may_fit(rows, some)
            others, some = some[~may_fit], some[may_fit]
            if not len(some):
                return others, np.full(len(others), -1)
            fits, left, guards = self._try(specialization, rows, some, values, threads, float64)
            if len(fits):
                found.setdefault(specialization, []).append(fits)
                specialization.served += len(fits)
            if len(others):
                left, guards = np.append(left, others), np.append(guards, np.full(len(others), -1))
            return left, guards

        def finished(pairs: list[Pair]) -> list[bool]:
            assert finish is not None
            done = finish(pairs, values)
            for (specialization, some), is_done in zip(pairs, done, strict=True):
                specialization.served += len(some) if is_done else 0
            return done

        known = cache.recorded
        pending = share_out(cache.worth_trying(len(pending)), pending, attempt, finished if finish else None)
        for inputs, table in list(cache.keyed.items()):
            left = []
            for key, some in groups_of_rows(rows, inputs, pending) if len(pending) else ():
                for specialization in list(table.get(key, ())):
                    if len(some):
                        some = attempt(specialization, some)[0]
                left.append(some)
            pending = np.concatenate(left) if left else pending
        while len(pending) and not cache.eager:
            i = int(pending.min())
            made = None
            with self._lock:
                if cache.recorded == known:
                    made = self._record(cache, rows, i)
                    if made is None:
                        break
                following = cache.all() if made is None else [made]       # all: another thread has recorded meanwhile
                known = cache.recorded
            for specialization in following:
                same = np.ones(len(pending), bool)
                for k, value in specialization.key:
                    same &= rows.whole_columns()[k][pending] == value
                others, pending = pending[~same], pending[same]
                pending = np.concatenate([attempt(specialization, pending)[0] if len(pending) else pending, others])
            if made is not None and (pending == i).any():
                misfits.append(i)
                pending = pending[pending != i]
                self._count_misfit(cache, made)
        ways = [(one, np.sort(np.concatenate(parts))) for one, parts in found.items()]
        ways.sort(key=lambda way: int(way[1][0]))        # sums over rows are the same whoever was asked first
        return values, ways, np.sort(np.concatenate([pending, np.array(misfits, np.int64)]))

    def fitted_by_one(
        self, cache: SignatureCache, rows: Rows, threads: int, some: np.ndarray, float64: bool
    ) -> np.ndarray:
        """Which of some rows the recording fits that fits most of them: a mask.  Nothing is recorded or called."""
        best = np.zeros(len(some), bool)
        values = np.empty((rows.n, cache.width))
        for specialization in cache.all():
            may_fit = specialization.may_fit(rows, some)
            for k, value in specialization.key:
                may_fit &= rows.whole_columns()[k][some] == value
            if np.count_nonzero(may_fit) > np.count_nonzero(best):
                fits = self._try(specialization, rows, some[may_fit], values, threads, float64)[0]
                best = max(np.isin(some, fits), best, key=np.count_nonzero)
        return best

    def _count_misfit(self, cache: SignatureCache, specialization: Specialization) -> None:
        """A recording that its own row does not fit: something overflows in it where the function's order does not, or
        a float32 falls on the other side of a decision."""
        with self._lock:
            cache.misfits += 1
            bucket = cache.bucket(specialization.key)
            if not specialization.served and specialization in bucket:
                cache.give_up([specialization])

    def _try(
        self, specialization: Specialization, rows: Rows, some: np.ndarray, values: np.ndarray, threads: int,
        float64: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `parted`: the rows that a specialization fits, whose values are set; the others, and by which guard."""
        status, found = self._replay_values(specialization, rows, some, threads, float64)
        order_matters = (status & RowStatus.ORDER_MATTERS) != 0          # and guards may have looked at what it changed
        if order_matters.any():
            again, found[order_matters] = self._replay_values(
                specialization, rows, some[order_matters], threads, float64, True
            )
            status[order_matters] = again
        return _data.parted(some, status, found, values)

    def _replay_values(
        self, specialization: Specialization, rows: Rows, some: np.ndarray, threads: int, float64: bool,
        plain: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a replay says about some rows, and its results; the first is the guard, of rows that fail one."""
        replay = self._replay(specialization, rows, threads, float64, None, plain)
        found = np.empty((len(some), len(specialization.graph.results)))
        status = np.empty(len(some), np.uint8)
        for part in portions(len(some), replay.batch, specialization.graph.operations):
            replay.values(some[part], found[part], status[part])
        specialization.give(replay, BATCH)
        return status, found

    def _gradients(
        self,
        rows: Rows,
        threads: int,
        gradients: dict[int, np.ndarray] | None,
        accumulate: bool = False,
        chosen: np.ndarray | None = None,
        float64: bool = True,
        reset: Callable[[], None] | None = None,
        seeds: np.ndarray | None = None,
    ) -> np.ndarray:
        """Results; derivatives by arguments are added to `gradients`, or those by captured leaves left in them.

        chosen: only these rows.  reset: called before gradients are left in the leaves.
        seeds: the adjoint of each result for each row; None: 1."""
        if rows.sharing is not None:
            return rows.sharing.gradients(self, rows, threads, gradients, accumulate, float64, seeds)
        values, replays, _, eager = self._swept(rows, threads, gradients, chosen, float64, seeds)
        if gradients is not None:
            self._collect(replays, rows, eager, values, gradients, seeds)
        else:
            results, _, leaves = self.eager_results(rows, eager)       # before anything changes
            if results:
                values[eager] = [[t.data for t in one] for one in results]
            if reset is not None:
                reset()
            self._commit(replays, results, leaves, accumulate or reset is not None,
                         None if seeds is None else seeds[eager])
        for specialization, replay in replays:
            specialization.give(replay, BATCH)
        return values

    def _swept(
        self,
        rows: Rows,
        threads: int,
        gradients: dict[int, np.ndarray] | None,
        chosen: np.ndarray | None,
        float64: bool,
        seeds: np.ndarray | None,
    ) -> Swept:
        """Replays that have the gradients of the rows in them, and which rows are left to the function."""
        cache = self._prepared(rows, chosen)
        all_rows = np.arange(rows.n, dtype=np.int64) if chosen is None else chosen
        values = np.empty((rows.n, cache.width))
        replays: list[tuple[Specialization, Any]] = []
        specialization = cache.only()                    # the common case: one way for all rows
        if specialization is not None and (
            not specialization.may_fit(rows, all_rows).all() or not cache.worth_trying(len(all_rows))
        ):
            specialization = None
        if specialization is not None:
            replays = self._backward(specialization, rows, all_rows, values, threads, gradients, float64, seeds)
            if replays:
                return Swept(values, replays, [(specialization, all_rows)], np.empty(0, np.int64))
        ways: list[tuple[Specialization, np.ndarray]] = []

        def finish(pairs: list[Pair], values: np.ndarray) -> list[bool]:
            """Values and gradients in one look."""
            asked = [one.known is None and not one.divides for one, _ in pairs]
            some = list(compress(pairs, asked))
            made = self._backward_of_each(some, rows, values, threads, gradients, float64, seeds)
            replays.extend(chain.from_iterable(made))
            found = iter(made)
            done = [was_asked and bool(next(found)) for was_asked in asked]
            ways.extend(compress(pairs, done))
            return done

        # Which looks there are depends on the calls before: what is added up over rows must not.
        each_its_own = gradients is not None and all(rows.kinds[k][0] not in ("shared", "leaf") for k in gradients)
        values, found, eager = self._classify(rows, threads, chosen, float64, finish if each_its_own else None)
        missed = []
        for specialization, fits in found:
            made = self._backward(specialization, rows, fits, values, threads, gradients, float64, seeds)
            replays += made
            if made:
                ways.append((specialization, fits))
            else:                                # at the edge of an error, by another rounding
                missed.append(fits)
        eager = np.sort(np.concatenate([eager, *missed]))
        if len(eager):
            self.warn_of_loss(cache)
        return Swept(values, replays, ways, eager)

    def _backward(
        self,
        specialization: Specialization,
        rows: Rows,
        some: np.ndarray,
        values: np.ndarray,
        threads: int,
        gradients: Any,
        float64: bool,
        seeds: np.ndarray | None,
        plain: bool = False,
    ) -> list[tuple[Specialization, Any]]:
        """Replays of a specialization with the gradients of some rows in them; none if it does not fit all of them.

        Rows for which the order of additions matters are replayed in that of the function."""
        replay = self._replay(specialization, rows, threads, float64, gradients, plain)
        found = np.empty((len(some), values.shape[1]))
        status = np.zeros(len(some), np.uint8)
        fits = True
        mode = BY_LEAVES if gradients is None else BY_ARGUMENTS
        if gradients is not None and not gradients.keys().isdisjoint(specialization.graph.shared):
            mode |= BY_LEAVES
        for part in portions(len(some), replay.batch, specialization.graph.operations):
            last = part.stop == len(some)
            fits = replay.gradients(some[part], found[part], status[part], mode, part.start == 0, last, seeds)
            if not fits and unfit(status).any():
                break
        if fits and not status.any():
            self.warn_of_loss(specialization)
            values[some] = found
            return [(specialization, replay)]
        specialization.give(replay, BATCH)
        if unfit(status).any():
            return []
        order_matters = status != 0
        replays: list[tuple[Specialization, Any]] = []
        for way, chosen in ((False, some[~order_matters]), (True, some[order_matters])):
            if not len(chosen):
                continue
            made = self._backward(specialization, rows, chosen, values, threads, gradients, float64, seeds, way)
            if not made:
                for _, replay in replays:
                    specialization.give(replay, BATCH)
                return []
            replays += made
        return replays

    def _backward_of_each(
        self, pairs: list[Pair], rows: Rows, values: np.ndarray, threads: int, gradients: Any, float64: bool,
        seeds: np.ndarray | None,
    ) -> list[list[tuple[Specialization, Any]]]:
        """`_backward` by arguments for several specializations, those of few rows in one call of compiled code."""
        few = [(one, some) for one, some in pairs if len(some) <= BATCH]
        ready: list[Any] = []
        for one, _ in few:
            ready.append(self._replay(one, rows, threads, float64, gradients, bound_as=ready[0] if ready else None))
        fit = gradients_of_each(ready, [some for _, some in few], values, BY_ARGUMENTS, seeds)
        fitted = zip(ready, fit, strict=True)
        made = []
        for one, some in pairs:
            replay, fits = next(fitted) if len(some) <= BATCH else (None, False)
            if fits:
                self.warn_of_loss(one)
                made.append([(one, replay)])
                continue
            if replay is not None:
                one.give(replay, BATCH)
            made.append(self._backward(one, rows, some, values, threads, gradients, float64, seeds))
        return made

    def _collect(
        self,
        replays: list[tuple[Specialization, Any]],
        rows: Rows,
        eager: np.ndarray,
        values: np.ndarray,
        gradients: dict[int, np.ndarray],
        seeds: np.ndarray | None,
    ) -> None:
        """Derivatives by arguments: what replays have summed up of shared ones, and all of rows that ran eagerly."""
        inputs = first_inputs(rows.kinds)
        for specialization, replay in replays:
            for k, gradient in gradients.items():
                if rows.kinds[k] == ("shared",):
                    gradient += replay.shared_gradient(inputs[k])
                elif k in specialization.graph.shared:
                    replay.gradient_of_capture(specialization.graph.shared[k], gradient.reshape(-1))
        with _data.KeptGradients(always=True) as kept:
            for part in np.split(eager, range(BATCH, len(eager), BATCH)) if len(eager) else ():
                results, arguments, leaves = self.eager_results(rows, part)
                kept.add(leaves)
                values[part] = [[t.data for t in one] for one in results]
                self._sum(results, None if seeds is None else seeds[part]).backward()
                for k, gradient in gradients.items():
                    if rows.kinds[k][0] not in ("shared", "leaf"):
                        gradient[part] = [np.asarray(given[k].grad) for given in arguments]
                    else:
                        gradient += np.asarray(arguments[0][k].grad)

    def _commit(
        self,
        replays: list[tuple[Specialization, Any]],
        results: list[list[Tensor]],
        leaves: list[Any],
        accumulate: bool,
        seeds: np.ndarray | None,
    ) -> None:
        """The gradients of replays and of results that were computed eagerly, to the leaves."""
        if len(replays) == 1 and not results:
            replays[0][1].commit_gradients(accumulate)
            return
        with _data.KeptGradients(always=False) as kept:
            for specialization, _ in replays:
                kept.add(specialization.captures)
            kept.add(leaves)
            if not accumulate:
                for _, replay in replays:
                    replay.commit_gradients(False, True)
                if results:                      # of an array that it reads, it resets the elements that it reaches
                    self._sum(results, seeds).backward()
            for _, replay in replays:
                replay.commit_gradients(True)
            if results and accumulate:
                self._sum(results, seeds).backward(accumulate=True)
