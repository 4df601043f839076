"""A function and its recordings: by signature of the arguments, made when rows come that none fits.

The boundary: calls the function once for a recording; `replayed` computes.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from fastscalar._core import Tensor
from fastscalar._warnings import warn, warn_of_loss
from fastscalar.engine._lock import Lock
from fastscalar.engine._step import storage_of
from fastscalar.program._called import PlainWay
from fastscalar.program._graph import columns_of, line_of, same_nodes, same_operands
from fastscalar.program._one_row import OneRow
from fastscalar.program._trace import BodyLeaks, NotReplayable, Recording, extract
from fastscalar.program.found import with_found_loops
from fastscalar.program.identities import Wants, names_kept, wants
from fastscalar.program.nests import described, results_of
from fastscalar.program.rolled import take_in
from fastscalar.program.rolling import shortened
from fastscalar.program.rows import Rows, eager_column, handles_of, read_whole
from fastscalar.program.selections import Family
from fastscalar.program.specializations import (
    NO_NEST,
    SignatureCache,
    Specialization,
    where_they_part,
    whole_numbers_read,
)

# Of one program for arguments of one shape, and the same whole numbers where those are read.
SPECIALIZATIONS = 64
Shared = int | str | Sequence[int | str]  # names or positions of arguments that are one for all rows
KEYED_OPERATIONS = 10_000_000  # of all recordings that whole numbers choose: some 600 MB


class RowFailure(Exception):
    """A row that raises: `row`, `error`."""

    def __init__(self, row: int, error: BaseException) -> None:
        self.row, self.error = row, error


def naming_row(row: int, error: BaseException) -> BaseException:
    """The same error, saying which row it was."""
    if isinstance(error, UnrecordedPath):
        return type(error)(f"row {row}: {error}").with_traceback(error.__traceback__)
    if type(error) in (ValueError, ZeroDivisionError, OverflowError, IndexError, FloatingPointError, ArithmeticError):
        return type(error)(f"row {row}: {error}").with_traceback(error.__traceback__)
    error.add_note(f"row {row}")
    return error


def raise_naming(row: int, error: BaseException) -> NoReturn:
    """Raise the same error, saying which row it was."""
    named = naming_row(row, error)
    raise named from (error.__cause__ if named is error else error)  # no error is its own cause: chains end


class UnrecordedPath(LookupError):
    """A row, or a kind of arguments, that no recording of a program without its function fits."""


class Gone:
    """What stands for the function of a program that was loaded without it."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise UnrecordedPath(
            f"{self.__name__} was loaded without its function, and no saved recording fits: this decides or raises as "
            "nothing did that was called before it was saved"
        )


def same_operations(g: Any, h: Any) -> bool:
    """Whether two recordings did the same, whichever leaves they read."""
    return same_nodes(columns_of(g), columns_of(h)) and same_operands(g.items, h.items)


class RecordedFunction:
    """The part of a Program that records."""

    def __init__(self, function: Callable[..., Any], *, shared: Shared = ()) -> None:
        if not callable(function):
            raise TypeError(f"compile: expected a function, got {type(function).__name__}")
        self._shared = (shared,) if isinstance(shared, (int, str)) else tuple(shared)
        self._is_loss = False                    # of one number, whatever else it could be
        self._known_places: dict[str, int] | None = None
        self.function = function
        self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__doc__ = getattr(function, "__doc__", None)
        self._caches: dict[Any, SignatureCache] = {}
        self._unrolled = False                   # its loops cannot be instructions
        self._shortens = True                    # found loops are loops before they are differentiated
        self._exact_where_not_finite = False     # such rows are the function's own
        self._derivatives: dict[Any, Any] = {}   # programs of derivatives of the function
        self._lock = Lock()
        self._said: dict[Any, Any] = {}          # where losses were said, and that rows run eagerly
        self._eager_leaves: dict[Any, Any] = {}  # read by rows that ran eagerly,
        self._wants: Wants | None = None         # known when something is recorded
        self._wants_leaves = False               # while fit wants to know
        self._stand_ins: dict[Any, Any] = {}     # captured leaves that stand for arrays which all rows share
        self._one_rows: tuple[tuple[Any, OneRow], ...] = ()      # nests of results, and the short way to them
        self._plain_ways: tuple[PlainWay, ...] = ()              # numbers for which a call is the function's

        for one in self._shared:
            if isinstance(one, bool) or not isinstance(one, (int, str)):
                raise TypeError(f"compile: shared: expected names or positions of arguments, got {one!r}")
            if isinstance(one, str) and one not in self._places() and not self._takes_any_name():
                raise TypeError(f"compile: shared: {self.__name__} has no argument {one!r}")

    def _parameters_of_function(self) -> list[inspect.Parameter]:
        try:
            return list(inspect.signature(self.function).parameters.values())
        except (TypeError, ValueError):          # a function in C that says nothing
            return []

    def _places(self) -> dict[str, int]:
        """By name, the position of each argument that has both; -1: it has only a name."""
        if self._known_places is None:
            positional = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
            self._known_places = {
                p.name: k if p.kind in positional else -1
                for k, p in enumerate(self._parameters_of_function())
                if p.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            }
        return self._known_places

    def _takes_any_name(self) -> bool:
        known = self._parameters_of_function()
        return not known or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known)

    def _bound(
        self, arguments: Sequence[Any], named: dict[str, Any]
    ) -> tuple[Sequence[Any], tuple[str, ...], frozenset[int]]:
        """All arguments, those by name last and in one order; the names of these; which all rows share.

        An argument that could be given by position counts as given so: that is one signature, not two."""
        if named:
            places = self._places()
            arguments = list(arguments)
            named = dict(named)
            by_place = {places[name]: name for name in named if places.get(name, -1) >= 0}
            while len(arguments) in by_place:
                arguments.append(named.pop(by_place[len(arguments)]))
        names = tuple(sorted(named))
        shared: frozenset[int] = frozenset()
        if self._shared:
            last = len(arguments)
            at = {name: place for name, place in self._places().items() if 0 <= place < last}
            at |= {name: last + k for k, name in enumerate(names)}
            shared = frozenset(
                k for k in (at.get(s, -1) if isinstance(s, str) else s + last * (s < 0) for s in self._shared)
                if 0 <= k < last + len(names)
            )
        return [*arguments, *(named[name] for name in names)] if named else arguments, names, shared

    def _by_position(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...] | None:
        """All arguments by position; None: some have none."""
        if not named:
            return arguments
        places, first = self._places(), len(arguments)
        at = {places.get(name, -1): value for name, value in named.items()}
        try:
            return (*arguments, *[at[k] for k in range(first, first + len(named))])
        except KeyError:
            return None

    def _argument_number(self, rows: Rows, given: Any, what: str) -> int:
        count = len(rows.nests) if rows.nests is not None else len(rows.kinds)
        if isinstance(given, str) and given.isidentifier():
            place = self._places().get(given)
            if given in rows.names:
                return count - len(rows.names) + rows.names.index(given)
            if place is None or place >= count - len(rows.names):
                raise ValueError(f"{what}: no argument {given!r}")
            return place
        try:
            k = operator.index(given)
        except TypeError:
            raise TypeError(f"{what}: expected a whole number or several, got {given!r}") from None
        if not -count <= k < count:
            raise ValueError(f"{what}: no argument {k}, there are {count}")
        return k % count

    def _specializations(self) -> list[tuple[Any, Specialization]]:
        """With the kinds of their arguments; a copy, since other threads may record."""
        return [(cache.kinds, v) for cache in list(self._caches.values()) for v in cache.all()]

    def forget(self, cache: SignatureCache) -> None:
        """The function does not repeat itself: from now on it is called for every row."""
        self._one_rows = ()
        cache.give_up(cache.all())
        cache.eager = True
        self._warn(
            "does something else when it is called again (it draws random numbers, counts, or reads something that has "
            "changed), which a program would freeze: it runs eagerly. Draw with fastscalar.random.normal(), uniform() "
            "or bernoulli(p), which programs know, or outside and pass the numbers as arguments; reset() where "
            "something has changed for good"
        )

    def _record(self, cache: SignatureCache, rows: Rows, i: int) -> Specialization | None:
        """A specialization for row i.  None if this program cannot be replayed, or not any more."""
        with self._lock:
            try:
                graph, sizes, lost = self._recorded(rows, i)
            except NotReplayable as reason:
                cache.eager = True
                cache.lost += reason.lost
                self._warn(f"{reason} cannot be replayed: this program runs eagerly")
                return None
            except Exception as error:
                raise RowFailure(i, rows.explained(error)) from error
            specialization = Specialization(graph, sizes)
            specialization.lost, specialization.examples = lost, [rows.one(i)]
            cache.example = cache.example or specialization.examples[0]
            families = len(cache.families)
            relative = cache.relative(specialization)
            if relative is not None:
                if len(cache.families) > families:
                    relative = self._complete(cache, rows, *cache.families[-1])
                return relative
            bucket = cache.bucket(specialization.key)
            replaced = [known for known in bucket if take_in(specialization.graph, known.graph)]
            for known in replaced:
                specialization.lost, specialization.served = specialization.lost + known.lost, known.served
                specialization.examples = known.examples + specialization.examples
                bucket.remove(known)
                cache.operations -= known.graph.operations if known.key else 0
            keyed = graph.operations if specialization.key else 0
            too_many = len(bucket) + cache.misfits >= SPECIALIZATIONS or (
                len(bucket) > 0 < keyed and cache.fit_one_row_each() >= SPECIALIZATIONS
            )
            full = keyed and cache.operations + keyed > KEYED_OPERATIONS
            if (too_many or full) and not replaced:      # then it is no further way
                cache.eager = True
                cache.lost += [*lost, *(place for known in cache.all() for place in known.lost)]
                self._warn(self._why(cache))
                cache.give_up([known for known in cache.all() if known.served <= 1])     # they only cost time
                return None
            bucket.append(specialization)
            cache.recorded += 1
            cache.operations += keyed
            if cache.first is None and len(cache.all()) == cache.recorded == 1:
                cache.first = rows.one(i), specialization
            return specialization

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
                graph = self._recorded(rows, i)[0]
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

    def _recorded(self, rows: Rows, i: int) -> tuple[Any, list[int], list[Any]]:
        """The graph of a call for row i, by input how many numbers it is, and where gradients got lost.

        Raises what the plain call raises.  A plain number of it may be a Tensor here, which words its errors in another
        way, or raises where the number does not: then loops are recorded step by step, or nothing is."""
        first: Exception | None = None
        try:
            while True:
                again = first is not None
                try:
                    made = self._recorded_as(rows, i, self._unrolled)
                except BodyLeaks:
                    self._unrolled = True
                    continue
                except (NotReplayable, MemoryError, RuntimeError):       # the last: what programs refuse
                    raise
                except Exception as error:
                    first = error
                else:
                    if first is not None:        # once, and not again
                        raise first
                    return made
                if not again:
                    self._call_plainly(rows, i)
                elif self._unrolled:
                    what = f"{type(first).__name__} ({first})"
                    raise NotReplayable(f"{what}, which a plain call does not raise,")
                else:
                    self._unrolled, first = True, None
        finally:
            first = None                         # whose traceback has this frame

    def _call_plainly(self, rows: Rows, i: int) -> None:
        """Call the function as a user would, for what it raises."""
        some = np.array([i])
        leaves = [next(iter(eager_column(kind, data, some))) for kind, data in zip(rows.kinds, rows.data, strict=True)]
        with rows.streams.recorded(i):
            self._results(rows, rows.call(self.function, leaves))

    def _recorded_as(self, rows: Rows, i: int, unrolled: bool) -> tuple[Any, list[int], list[Any]]:
        recording = Recording()
        recording.unrolled, recording.shorten = unrolled, shortened if self._shortens and not unrolled else None
        with names_kept(), recording, rows.streams.recorded(i):
            leaves, recording.inputs = handles_of(rows.kinds, rows.row(i))
            recording.begin()
            if self._wants is None:
                self._wants = wants(self.function)
            recording.plain_floats = self._wants.floats
            if self._wants.truths:
                leaves = read_whole(leaves, not self._wants.ints)
            results = self._results(rows, rows.call(self.function, leaves))
            if recording.raised_in_loop:         # and was caught: step by step there are guards that say so
                raise BodyLeaks
            try:
                graph = extract(recording, results)
            except NotReplayable as reason:
                reason.lost = recording.lost
                raise
        self._share(graph, rows, leaves)
        graph = with_found_loops(graph)
        sizes = [handle.size if kind == "array" else 1 for kind, handle in recording.inputs]
        return graph, sizes, recording.lost

    def _share(self, graph: Any, rows: Rows, leaves: list[Any]) -> None:
        """Arrays that all rows share were recorded as captured leaves: the same ones in all recordings."""
        for k, kind in enumerate(rows.kinds):
            if kind[0] == "leaf":
                stand_in = self._stand_ins.setdefault((k, kind[1]), leaves[k])
                for at, capture in enumerate(graph.captures):
                    if storage_of(capture) == storage_of(leaves[k]):
                        graph.captures[at] = stand_in
                        graph.shared[k] = at

    def _results(self, rows: Rows, result: Any) -> list[Tensor]:
        """The numbers that the function returned.  TypeError if their nest is not that of the rows before."""
        return self._numbers(rows.cache, result)

    def _numbers(self, cache: SignatureCache | None, result: Any) -> list[Tensor]:
        found, nest = results_of(result, self.__name__)
        if nest is not None and self._is_loss:
            got = type(result).__name__
            raise TypeError(f"{self.__name__}: expected one number (a Tensor) as result, got {got}")
        if not found:
            raise TypeError(f"{self.__name__}: expected numbers as result, got {described(nest)}")
        if cache is not None and cache.nest != nest:
            if cache.nest is not NO_NEST:
                known, this = described(cache.nest), described(nest)
                raise TypeError(f"{self.__name__}: returns {this} here, and {known} for the rows before")
            cache.nest, cache.width = nest, len(found)
        return found

    def _attach(self, cache: SignatureCache) -> None:
        """Of recordings that were pickled with the function: the leaves that it reads here become theirs.

        Its first row is recorded once more.  Where that does not do what was recorded, or where a recording reads
        leaves that the first row does not, it is forgotten."""
        cache.loose = False
        found: dict[Any, Any] = {}
        assert cache.example is not None
        try:
            graph = self._recorded(cache.example, 0)[0]
        except Exception:                        # its row will say it when its turn comes
            graph = None
        for one in cache.all() if graph is not None else ():
            if len(one.graph.captures) == len(graph.captures) and same_operations(one.graph, graph):
                pairs = zip(one.graph.captures, graph.captures, strict=True)
                found = {storage_of(old): new for old, new in pairs}
                break
        stand_ins = {storage_of(one.graph.captures[at]) for one in cache.all() for at in one.graph.shared.values()}
        known = {*found, *stand_ins}
        for one in cache.all():
            if graph is None or not all(storage_of(c) in known for c in one.graph.captures):
                cache.bucket(one.key).remove(one)
            else:
                one.graph.captures = [found.get(storage_of(c), c) for c in one.graph.captures]

    def require_one_number(self, rows: Rows) -> None:
        """TypeError if the function has returned anything else for these rows."""
        nest = rows.cache.nest if rows.cache is not None else NO_NEST
        if nest is not None and nest is not NO_NEST:
            raise TypeError(f"{self.__name__}: expected one number (a Tensor) as result, got {described(nest)}")

    def _why(self, cache: SignatureCache) -> str:
        return (
            f"more than {SPECIALIZATIONS} ways through {self.__name__}{where_they_part(cache.all())}. "
            "Rows that none of them fits run eagerly. fastscalar.max, maximum, minimum or where instead of a decision "
            "on a value or reading it, and a TensorArray instead of a list that is indexed, make one way of them"
        )

    def warn_of_loss(self, of: Specialization | SignatureCache) -> None:
        """Gradients are asked for: say where some get lost."""
        places, of.lost = of.lost, []
        for line in dict.fromkeys(map(line_of, places)):
            if line not in self._said:
                self._said[line] = None
                warn_of_loss(*line, getattr(self.function, "__module__", None), vars(self))

    def _warn(self, message: str) -> None:
        """Once, whatever kinds of arguments it is true for."""
        if message not in self._said:
            self._said[message] = None
            warn(f"{self.__name__}: {message}")
