"""A function and its recordings: by signature of the arguments, made when rows come that none fits.

The boundary: calls the function once for a recording; `replayed` computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._warnings import warn, warn_of_loss
from fastscalar.engine._lock import Lock
from fastscalar.engine._traced import TracedInt
from fastscalar.program._graph import line_of
from fastscalar.program._trace import NotReplayable, Recording, extract
from fastscalar.program.rows import Rows, handles_of
from fastscalar.program.selections import Family
from fastscalar.program.specializations import SignatureCache, Specialization, where_they_part, whole_numbers_read

# Of one program for arguments of one shape, and the same whole numbers where those are read.
SPECIALIZATIONS = 64
KEYED_OPERATIONS = 10_000_000  # of all recordings that whole numbers choose: some 600 MB


class RowFailure(Exception):
    """A row that raises: `row`, `error`."""

    def __init__(self, row: int, error: BaseException) -> None:
        self.row, self.error = row, error


def naming_row(row: int, error: BaseException) -> BaseException:
    """The same error, saying which row it was."""
    if type(error) in (ValueError, ZeroDivisionError, OverflowError, IndexError, FloatingPointError, ArithmeticError):
        return type(error)(f"row {row}: {error}").with_traceback(error.__traceback__)
    error.add_note(f"row {row}")
    return error


class RecordedFunction:
    """The part of a Program that records."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"compile: expected a function, got {type(function).__name__}")
        self.function = function
        self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__doc__ = getattr(function, "__doc__", None)
        self._caches: dict[Any, SignatureCache] = {}
        self._lock = Lock()
        self._eager_leaves: dict[Any, Any] = {}  # read by rows that ran eagerly,
        self._wants_leaves = False               # while fit wants to know

    def _specializations(self) -> list[tuple[Any, Specialization]]:
        """With their signatures; a copy, since other threads may record."""
        return [(signature, v) for signature, cache in list(self._caches.items()) for v in cache.all()]

    def forget(self, cache: SignatureCache) -> None:
        """The function does not repeat itself: from now on it is called for every row."""
        cache.give_up(cache.all())
        cache.eager = True
        self._warn(
            "does something else when it is called again (it draws random numbers, counts, or reads something that has "
            "changed), which a program would freeze: it runs eagerly. Draw them outside and pass them as arguments; "
            "reset() where something has changed for good"
        )

    def _record(self, cache: SignatureCache, rows: Rows, i: int) -> tuple[Specialization | None, float]:
        """A specialization for row i, and its value.  None if this program cannot be replayed, or not any more."""
        with self._lock:
            try:
                graph, value, sizes, lost = self._recorded(rows.kinds, rows.row(i))
            except NotReplayable as reason:
                cache.eager = True
                cache.lost += reason.lost
                self._warn(f"{reason} cannot be replayed: this program runs eagerly")
                return None, float("nan")
            except Exception as error:
                raise RowFailure(i, rows.explained(error)) from error
            specialization = Specialization(graph, sizes)
            specialization.lost = lost
            families = len(cache.families)
            relative = cache.relative(specialization)
            if relative is not None:
                if len(cache.families) > families:
                    relative = self._complete(cache, rows, *cache.families[-1])
                return relative, value
            bucket = cache.bucket(specialization.key)
            keyed = graph.operations if specialization.key else 0
            too_many = len(bucket) + cache.misfits >= SPECIALIZATIONS
            if too_many or (keyed and cache.operations + keyed > KEYED_OPERATIONS):
                cache.eager = True
                self._warn(self._why(cache))
                cache.give_up([known for known in cache.all() if known.served <= 1])     # they only cost time
                return None, value
            bucket.append(specialization)
            cache.recorded += 1
            cache.operations += keyed
            if cache.first is None and len(cache.all()) == 1:
                cache.first = rows.one(i), specialization
            return specialization, value

    def _complete(
        self, cache: SignatureCache, rows: Rows, family: Family, specialization: Specialization
    ) -> Specialization:
        """Record a row of each other value that the rows have: the plan of all of them is made once.

        Of one of them, if lists have said what all select, to see whether that is so."""
        values, first = np.unique(rows.whole_columns()[family.at], return_index=True)
        for value, i in reversed(list(zip(values.tolist(), first.tolist(), strict=True))):
            if value in family.recorded:
                continue
            try:
                graph = self._recorded(rows.kinds, rows.row(i))[0]
            except Exception:
                break                            # its row will say it when its turn comes
            if family.predicts(graph, value):
                break
            family.forget_lists()
            if whole_numbers_read(graph) != ((family.at, value),) or not family.add(graph, value):
                break
            family.complete(graph, value)
        cache.specializations.remove(specialization)
        cache.families.pop()
        cache.families.append((family, cache._grown(family, specialization, specialization)))
        return cache.families[-1][1]

    def _recorded(self, kinds: list[Any], row: list[Any]) -> tuple[Any, float, list[int], list[Any]]:
        """The graph of a call, its value, by input how many numbers it is, and where gradients got lost."""
        recording = Recording()
        with recording:
            arguments, recording.inputs = handles_of(kinds, row)
            recording.begin()
            result = self._one_number(self.function(*arguments))
            try:
                graph = extract(recording, result)
            except NotReplayable as reason:
                reason.lost = recording.lost
                raise
        sizes = [handle.size if kind == "array" else 1 for kind, handle in recording.inputs]
        return graph, result.item(), sizes, recording.lost

    def _one_number(self, result: Any) -> Tensor:
        if isinstance(result, TracedInt):
            return result.tensor
        if isinstance(result, Tensor):
            return result
        if isinstance(result, bool) or not isinstance(result, (int, float, np.number)):
            got = type(result).__name__
            raise TypeError(f"{self.__name__}: expected one number (a Tensor) as result, got {got}")
        return Tensor(result)

    def _why(self, cache: SignatureCache) -> str:
        file, line = where_they_part(cache.all())
        return (
            f"more than {SPECIALIZATIONS} ways through {self.__name__}; they part at {file}:{line}. "
            "Rows that none of them fits run eagerly. fastscalar.max, maximum, minimum or where instead of a decision "
            "on a value or reading it, and a TensorArray instead of a list that is indexed, make one way of them"
        )

    def warn_of_loss(self, of: Specialization | SignatureCache) -> None:
        """Gradients are asked for: say where some get lost."""
        places, of.lost = of.lost, []
        for place in dict.fromkeys(places):
            warn_of_loss(*line_of(place), getattr(self.function, "__module__", None), vars(self))

    def _warn(self, message: str) -> None:
        warn(f"{self.__name__}: {message}")
