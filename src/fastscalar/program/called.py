"""The function of a program called for rows: what a user would write, for those that no recording fits.

The boundary: knows rows, and which leaves were read; `replayed` decides which rows these are.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array_ops import total
from fastscalar.engine._modes import record
from fastscalar.engine._step import storage_of
from fastscalar.program._one_row import PlainWay, values_of_calls
from fastscalar.program._trace import leaves_before
from fastscalar.program.recorded import RecordedFunction, RowFailure
from fastscalar.program.rows import Rows, eager_column
from fastscalar.program.specializations import SignatureCache
from fastscalar.program.streams import Streams

eagerly = threading.local()  # .rows: how many functions of programs this thread runs for a row


class CalledFunction(RecordedFunction):
    """The part of a Program that calls the function."""

    @contextmanager
    def _called(self, rows: Rows, some: np.ndarray) -> Iterator[Iterator[tuple[tuple[Any, ...], list[Tensor]]]]:
        """Context of `_calls`, which ends with it: an interrupt between two rows leaves nothing open."""
        with closing(self._calls(rows, some)) as calls:
            yield calls

    def _calls(self, rows: Rows, some: np.ndarray) -> Generator[tuple[tuple[Any, ...], list[Tensor]], None, None]:
        """The loop that a user would write: the leaves that the function was called with for a row, and its results.

        Raises the RowFailure of the first that raises."""
        function, at, plain, cache = self.function, -1, rows.nests is None, rows.cache
        called = rows.streams.called
        columns = [eager_column(kind, data, some) for kind, data in zip(rows.kinds, rows.data, strict=True)]
        calls = zip(*columns, strict=False) if columns else itertools.repeat(())
        state = vars(eagerly)
        state["rows"] = state.get("rows", 0) + 1
        try:
            for at, leaves in zip(some.tolist(), calls, strict=False):
                with called(at):
                    result = function(*leaves) if plain else rows.call(function, leaves)
                one = type(result) is Tensor and cache is not None and cache.nest is None
                yield leaves, [result] if one else self._results(rows, result)
        except Exception as error:
            raise RowFailure(at, rows.explained(error)) from error
        finally:
            state["rows"] -= 1

    def _keep_plain_way(self, rows: Rows, arguments: Sequence[Any]) -> None:
        """A call with numbers that fell back, as the next ones of such numbers will: they need not go the long way."""
        cache, types = rows.cache, tuple(map(type, arguments))
        if cache is None or not cache.eager or self._shared or cache.worth_trying(1) or any(
            recordings for table in cache.keyed.values() for recordings in table.values()
        ):
            return
        if rows.nests is None and cache.nest is None and set(types) <= {float, int}:
            self._plain_ways = (*self._plain_ways, PlainWay(self.function, types, cache))

    def _plain_value(self, found: Any, cache: SignatureCache) -> float:
        """What a PlainWay found, as a number."""
        return found if type(found) is float else self._numbers(cache, found[0])[0].data

    def _eager_values(self, rows: Rows, some: np.ndarray, values: np.ndarray) -> None:
        if rows.nests is None and rows.cache is not None and rows.cache.nest is None and rows.kinds and (
            type(rows.streams) is Streams
        ):
            self._eager_numbers(rows, some, values, rows.cache)
            return
        with self._called(rows, some) as calls:
            values[some] = [[result.data for result in results] for _, results in calls]

    @staticmethod
    def _sum(results: list[list[Tensor]], seeds: np.ndarray | None) -> Tensor:
        """Of all results, each times its adjoint."""
        with record():
            flat = [t for one in results for t in one]
            if seeds is None:
                return total(flat)
            weighted = zip(flat, seeds.ravel().tolist(), strict=True)
            return total([Tensor(0.0), *(t if s == 1.0 else t * s for t, s in weighted if s != 0.0)])

    def eager_results(
        self, rows: Rows, some: np.ndarray
    ) -> tuple[list[list[Tensor]], list[tuple[Any, ...]], list[Any]]:
        """Results for some rows, the leaves that the function was called with, and the captured ones that it read."""
        marker = Tensor(0.0)
        found, given = [], []
        with record(), self._called(rows, some) as calls:       # as replays do, also in a block of no_grad
            for arguments, results in calls:
                found.append(results)
                given.append(arguments)
            leaves = leaves_before(marker, self._sum(found, None)) if found else []
        if self._wants_leaves:
            for leaf in leaves:
                self._eager_leaves.setdefault(storage_of(leaf), leaf)
        return found, given, leaves

    def eager_losses(self, rows: Rows, some: np.ndarray) -> list[Tensor]:
        """The same of a program of one result."""
        return list(map(self._only, self.eager_results(rows, some)[0]))

    def _only(self, results: list[Tensor]) -> Tensor:
        if len(results) != 1:
            raise TypeError(f"{self.__name__}: expected one number (a Tensor) as result, got {len(results)}")
        return results[0]

    @contextmanager
    def losses_in_turn(self, rows: Rows, some: np.ndarray) -> Iterator[Iterator[tuple[int, Tensor, bool]]]:
        """Context of an iterator over rows: the row, its result, and whether it has read leaves that no row had."""
        with (
            record(),
            self._called(rows, some) as calls,
            closing(self._with_news(zip(some.tolist(), calls, strict=False))) as results,
        ):
            yield results

    def _with_news(self, calls: Iterator[Any]) -> Generator[tuple[int, Tensor, bool], None, None]:
        known, wanted, state = self._eager_leaves, self._wants_leaves, vars(eagerly)
        marker = Tensor(0.0)
        for i, (_, found) in calls:
            result, is_news = self._only(found), False
            if wanted:
                for leaf in leaves_before(marker, result):
                    if (storage := storage_of(leaf)) not in known:
                        known[storage], is_news = leaf, True
            state["rows"] -= 1                   # while others run
            try:
                yield i, result, is_news
            finally:
                state["rows"] += 1
            if wanted:
                marker = Tensor(0.0)

    def _eager_numbers(self, rows: Rows, some: np.ndarray, values: np.ndarray, cache: SignatureCache) -> None:
        """The same where each row is one number, and its arguments are numbers and arrays."""
        columns = tuple(iter(eager_column(kind, data, some)) for kind, data in zip(rows.kinds, rows.data, strict=True))
        state, at, first = vars(eagerly), [-1], 0
        before = state.get("rows", 0)
        state["rows"] = before + 1
        stream, column = rows.streams.of(0), np.empty(len(values))
        try:
            while (stopped := values_of_calls(
                self.function, columns, some, column, stream, rows.streams.row_offset, first, at
            )) is not None:
                column[some[stopped[0]]] = self._numbers(cache, stopped[1])[0].data
                first = stopped[0] + 1
        except Exception as error:
            raise RowFailure(int(some[max(at[0], 0)]), rows.explained(error)) from error
        finally:
            state["rows"] = before
        values[some, 0] = column[some]
