"""The function of a program called for rows: what a user would write, for those that no recording fits.

The boundary: knows rows, and which leaves were read; `replayed` decides which rows these are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array_ops import total
from fastscalar.engine._modes import Watching, record, row_begun
from fastscalar.engine._step import storage_of
from fastscalar.program._called import A_NUMBER, AN_ARRAY, AS_IT_IS, LossesInTurn, PlainWay, RowCalls, go_inside
from fastscalar.program._trace import leaves_before
from fastscalar.program.recorded import RecordedFunction, RowFailure, naming_row
from fastscalar.program.rows import Rows, eager_column
from fastscalar.program.specializations import SignatureCache
from fastscalar.program.streams import Streams


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
        function, at, cache = self.function, -1, rows.cache
        called = rows.streams.called
        columns = [eager_column(kind, data, some) for kind, data in zip(rows.kinds, rows.data, strict=True)]
        calls = zip(*columns, strict=False) if columns else itertools.repeat(())
        go_inside(1)
        try:
            for at, leaves in zip(some.tolist(), calls, strict=False):
                with called(at), row_begun(leaves):
                    result = rows.call(function, leaves)
                one = type(result) is Tensor and cache is not None and cache.nest is None
                yield leaves, [result] if one else self._results(rows, result)
        except Exception as error:
            raise RowFailure(at, rows.explained(error)) from error
        finally:
            go_inside(-1)

    def _keep_plain_way(self, rows: Rows) -> None:
        """A call that fell back, as the next ones of such arguments will: they need not go the long way."""
        cache = rows.cache
        if cache is None or not cache.eager or self._shared or any(way.cache is cache for way in self._plain_ways):
            return
        if any(recordings for table in cache.keyed.values() for recordings in table.values()):
            return
        kinds = tuple(kind if kind[0] == "array" else kind[:1] for kind in cache.kinds)
        if rows.nests is None and cache.nest is None and {kind[0] for kind in kinds} <= {"number", "whole", "array"}:
            names = tuple(name for name, k in self._places().items() if k >= 0)
            most = cache.rows_not_worth_trying()
            made = PlainWay(self.function, kinds, names, cache, most, self._as_number(cache), self._explained)
            self._plain_ways = (*self._plain_ways, made)

    def _as_number(self, cache: SignatureCache) -> Callable[[Any], Tensor]:
        """What makes a Tensor of the one number that the function returned."""
        numbers = self._numbers                  # Program's own
        return lambda result: numbers(cache, result)[0]

    def _explained(self, method: str, arguments: tuple[Any, ...], row: int, error: Exception) -> BaseException:
        """What a method raises where the function has, for a row."""
        return naming_row(row, Rows(arguments, f"{self.__name__}.{method}").explained(error))

    def _row_calls(self, rows: Rows, some: np.ndarray, kind_of: type[Any] = RowCalls) -> Any:
        """The calls for some rows in a native loop; None: where arguments or results are nests."""
        cache = rows.cache
        if rows.nests is not None or cache is None or cache.nest is not None or type(rows.streams) is not Streams:
            return None
        columns, kinds = [], []
        for kind, data in zip(rows.kinds, rows.data, strict=True):
            is_number = kind[0] == "number" and data.ndim == 1
            columns.append(data[some].tolist() if is_number else eager_column(kind, data, some))
            kinds.append(A_NUMBER if is_number else AN_ARRAY if kind[0] == "array" else AS_IT_IS)
        streams = rows.streams
        return kind_of(
            self.function, columns, tuple(kinds), some, streams.of(0), streams.row_offset, self._as_number(cache)
        )

    @contextmanager
    def _naming(self, calls: RowCalls, rows: Rows, some: np.ndarray) -> Iterator[None]:
        """Context in which an error of the function is the RowFailure of its row."""
        try:
            yield
        except Exception as error:
            if not calls.calling:
                raise
            raise RowFailure(int(some[calls.at]), rows.explained(error)) from error

    def _eager_values(self, rows: Rows, some: np.ndarray, values: np.ndarray) -> None:
        native = self._row_calls(rows, some)
        if native is None:
            with self._called(rows, some) as calls:
                values[some] = [[result.data for result in results] for _, results in calls]
            return
        column = np.empty(len(values))
        with self._naming(native, rows, some):
            native.into(column)
        values[some, 0] = column[some]

    @staticmethod
    def _sum(results: list[list[Tensor]], seeds: np.ndarray | None) -> Tensor:
        """Of all results, each times its adjoint."""
        with record():
            flat = [t for one in results for t in one]
            if seeds is None:
                return total(flat)
            weighted = zip(flat, seeds.ravel().tolist(), strict=True)
            return total([Tensor(0.0), *(t if s == 1.0 else t * s for t, s in weighted)])     # 0 resets what it reaches

    def eager_results(
        self, rows: Rows, some: np.ndarray
    ) -> tuple[list[list[Tensor]], list[tuple[Any, ...]], list[Any]]:
        """Results for some rows, the leaves that the function was called with, and the captured ones that it read."""
        marker = Tensor(0.0)
        found: list[list[Tensor]] = []
        given: list[Any] = []
        native = self._row_calls(rows, some)
        with record(), Watching(self._said):      # the first: as replays do, also in a block of no_grad
            if native is not None:
                with self._naming(native, rows, some):
                    found = [[result] for result in native.results(given, len(some))]
            else:
                with self._called(rows, some) as calls:
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
        native = self._row_calls(rows, some, LossesInTurn)
        if native is not None:
            with record(), Watching(self._said), self._naming(native, rows, some):
                yield native.asking(self._eager_leaves if self._wants_leaves else None)
            return
        with (
            record(),
            Watching(self._said),
            self._called(rows, some) as calls,
            closing(self._with_news(zip(some.tolist(), calls, strict=False))) as results,
        ):
            yield results

    def _with_news(self, calls: Iterator[Any]) -> Generator[tuple[int, Tensor, bool], None, None]:
        known, wanted = self._eager_leaves, self._wants_leaves
        marker = Tensor(0.0)
        for i, (_, found) in calls:
            result, is_news = self._only(found), False
            for leaf in leaves_before(marker, result, known) if wanted else ():
                known[storage_of(leaf)], is_news = leaf, True
            go_inside(-1)                        # while others run
            try:
                yield i, result, is_news
            finally:
                go_inside(1)
            if wanted:
                marker = Tensor(0.0)
