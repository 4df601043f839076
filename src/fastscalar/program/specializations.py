"""The recordings of a program for arguments of one signature, and which rows each is for.

The boundary: knows graphs, and asks `_lower` for plans and `_replay` for replays; calls no function of the user's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fastscalar.engine._lock import Lock
from fastscalar.program import _data, _replay
from fastscalar.program._graph import ARE_EQUAL, NODE_CONSTANT, NODE_INPUT, NODE_ITEM, READ_SAME, line_of
from fastscalar.program._lower import lower
from fastscalar.program.reach import reaches_leaves
from fastscalar.program.rolled import places_in
from fastscalar.program.rows import Rows
from fastscalar.program.selections import Family

NO_NEST = object()  # nothing has been returned yet
REPLAYS = 8  # that one specialization keeps for the next call
# Microseconds: of a recording that is tried, whatever the number of rows; of an operation, replayed and in Python.
# Counted, not measured: what comes out must not depend on the clock.
ONE_TRY, ONE_REPLAYED, ONE_CALLED = 20.0, 0.003, 0.1


class Specialization:
    """One recording: its graph, its plans, and replays that are not in use."""

    def __init__(self, graph: Any, sizes: list[int]) -> None:
        self.graph = graph
        self.sizes = sizes
        self.called = called(graph)
        self.key = whole_numbers_read(graph)
        self.served = 0                          # rows that it fitted
        self.after: dict[int, Specialization] = {}       # by guard: what fitted the first row that failed it here
        self.divides = False                     # rows that came here from another one did not all stay
        self.lost: list[Any] = []                # places where gradients get lost, until that was said
        self.examples: list[Rows] = []           # rows that it was recorded of
        self.known: tuple[int, np.ndarray] | None = None     # an input, and its values, if it holds for no others
        self.plans: dict[Any, Any] = {}
        self.free: dict[Any, list[Any]] = {}
        self._lock = Lock()

    @property
    def captures(self) -> list[Any]:
        """The leaves of the user's that it reads."""
        shared = set(self.graph.shared.values())
        return [c for at, c in enumerate(self.graph.captures) if at not in shared] if shared else self.graph.captures

    def may_fit(self, rows: Rows, some: np.ndarray) -> np.ndarray:
        """Which rows have whole numbers that it is for: a mask."""
        if self.known is None:
            return np.ones(len(some), bool)
        at, known = self.known
        return np.isin(rows.whole_columns()[at][some], known)

    def plan(self, shared: frozenset[int], parameters: list[Any] | None = None, plain: bool = False) -> Any:
        """How it is computed; plain: in the order of the function, for rows with numbers for which that matters.

        parameters: the leaves whose gradients are wanted; None: all, but for those that stand for arguments."""
        if parameters is None and self.graph.shared:
            parameters = self.captures
        trained = None if parameters is None else _data.trained_elements(self.graph.captures, parameters)
        key = (shared, None if trained is None else tuple(map(_which, trained)), plain)
        with self._lock:
            if key not in self.plans:
                self.plans[key] = lower(self.graph, self.sizes, shared, trained, plain)
            return self.plans[key]

    def take(self, plan: Any, batch: int, float64: bool, threads: int, way: str = "") -> Any:
        """way: what it is prepared for, which it keeps."""
        key = (id(plan), batch, float64, threads, way, _replay.kernel_set())
        with self._lock:
            if self.free.get(key):
                return self.free[key].pop()
        return _replay.Replay(plan, batch, float64, threads)

    def give(self, replay: Any, batch: int, way: str = "") -> None:
        replay.release_inputs()
        key = (id(replay.plan), batch, replay.float64, replay.threads, way, _replay.kernel_set())
        with self._lock:
            self.free.setdefault(key, []).append(replay)
            while sum(map(len, self.free.values())) > REPLAYS:
                oldest = next(iter(self.free))
                self.free[oldest].pop()
                if not self.free[oldest]:
                    del self.free[oldest]


def _which(elements: np.ndarray) -> Any:
    """Which elements of a capture are trained, to compare; short for millions of which all are."""
    return True if len(elements) > 1 and elements.all() else elements.tobytes()


def called(graph: Any) -> float:
    """Microseconds that a call of the function takes, or so."""
    scalars = np.count_nonzero((graph.op > NODE_CONSTANT) & (graph.op != NODE_ITEM))
    arrays = sum(20 + 0.003 * len(item[3]) * (item[2] if item[0] == "affine" else 1) for item in graph.items)
    return float(ONE_CALLED * (scalars + arrays))


Attempt = Callable[[Specialization, np.ndarray], tuple[np.ndarray, np.ndarray]]
Pair = tuple[Specialization, np.ndarray]
Finish = Callable[[list[Pair]], list[bool]]


def share_out(
    specializations: list[Specialization], some: np.ndarray, attempt: Attempt, finish: Finish | None = None
) -> np.ndarray:
    """Some rows to the specializations that they fit; those that none fits.

    attempt: which of some rows do not fit a specialization, and the number of the first guard that says so, -1 if it
    is something else.  finish: does all there is to do with rows that come from another recording, for those
    specializations all of whose rows fit, and says by pair whether it has; which have not, `divides` says from then on.

    Recordings of a function have their decisions in common up to where they part: so the one with the most guards
    looks at all rows, and the guard at which a row leaves it says which one comes next.  That is remembered."""
    order = sorted(specializations, key=lambda one: -len(one.graph.guards))
    known = set(order)
    unknown: list[tuple[np.ndarray, list[Specialization], Specialization | None, int]] = []
    work = [(order[0], some, [order[0]])] if order and len(some) else []
    while work:
        one, some, tried = work.pop()
        coming = []
        for guard, part in by_number(*attempt(one, some)):
            following = one.after.get(guard)
            if following in known and following not in tried:
                coming.append((following, part, [*tried, following]))
            else:
                unknown.append((part, tried, one if guard >= 0 else None, guard))
        done = finish([(following, part) for following, part, _ in coming]) if finish else [False] * len(coming)
        for (following, part, path), is_done in zip(coming, done, strict=True):
            if not is_done:
                following.divides = following.divides or finish is not None
                work.append((following, part, path))
    pending = [np.empty(0, np.int64)] if order else [some]
    for part, tried, parted, guard in unknown:
        for one in order:
            if one not in tried and len(part):
                left = attempt(one, part)[0]
                if len(left) < len(part) and parted is not None:
                    parted.after.setdefault(guard, one)
                part = left
        pending.append(part)
    return np.sort(np.concatenate(pending))


def by_number(some: np.ndarray, by: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows with the same number, together and in their order."""
    order = np.argsort(by.astype(np.int16) if by.max(initial=0) < 1 << 15 else by, kind="stable")
    numbers, some = by[order], some[order]
    ends = [*(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(some)]
    for first, stop in zip([0, *ends], ends, strict=False):
        if first < stop:
            yield int(numbers[first]), some[first:stop]


Key = tuple[tuple[int, int], ...]  # of a recording: (input, its value) of each whole number that it holds for


def whole_numbers_read(graph: Any) -> Key:
    """The whole numbers of a row that a recording read: it holds for no others."""
    guards = graph.guards
    read = guards[(guards["op"] == READ_SAME) | ((guards["op"] == ARE_EQUAL) & (guards["value"] != 0.0))]
    found = {}
    for guard in read:
        left, right = int(guard["left"]), int(guard["right"])
        if graph.op[left] != NODE_INPUT or graph.inputs[graph.a[left]] != "whole":
            continue
        if guard["op"] == READ_SAME:
            found[int(graph.a[left])] = int(guard["value"])
        elif graph.op[right] == NODE_CONSTANT and float(graph.value[right]).is_integer():
            found[int(graph.a[left])] = int(graph.value[right])
    return tuple(sorted(found.items()))


class SignatureCache:
    """The specializations of a program for arguments of one signature.

    Whole numbers of the data that were read (as an index of a list, by `range`) are known beforehand: they choose among
    recordings by a table, `keyed`, by inputs and by their values, and these have no other limit than memory."""

    def __init__(
        self, kinds: Sequence[Any] = (), nests: tuple[Any, ...] | None = None, names: tuple[str, ...] = ()
    ) -> None:
        self.nests, self.names = nests, names    # of the arguments, as of Rows
        self.example: Rows | None = None         # the row that was recorded first
        self.loose = False                       # the leaves of its recordings are not yet those of the function
        self.kinds: tuple[Any, ...] = tuple(("number",) if kind == ("shared",) else kind for kind in kinds)
        self.specializations: list[Specialization] = []        # that hold for any whole numbers
        self.keyed: dict[tuple[int, ...], dict[tuple[int, ...], list[Specialization]]] = {}
        self.families: list[tuple[Family, Specialization]] = []     # whole numbers select an operand
        self.recorded = 0                        # specializations, those included that were given up
        self.operations = 0                      # of the keyed ones
        self.misfits = 0                         # recordings that their own row did not fit
        self.nest: Any = NO_NEST                 # of the results,
        self.width = 0                           # and how many they are
        self.had_gradients = False               # of recordings that were given up: whether one had any by leaves,
        self.captures: list[Any] = []            # these leaves, which are still trained,
        self.lost: list[Any] = []                # and where gradients get lost is still to be said
        self.short_way = False                   # single rows have been given one
        self.eager = False                       # no more specializations: what none fits runs eagerly
        self.first: tuple[Rows, Specialization] | None = None        # the first recording, until it was looked at

    def __bool__(self) -> bool:
        """Whether there is a recording, or there will be none."""
        return bool(self.specializations or self.keyed or self.eager)

    def all(self) -> list[Specialization]:
        keyed = (v for table in list(self.keyed.values()) for some in list(table.values()) for v in list(some))
        return [*self.specializations, *keyed]

    def bucket(self, key: Key) -> list[Specialization]:
        """Where the recordings with a key stand."""
        if not key:
            return self.specializations
        inputs, values = zip(*key, strict=True)
        return self.keyed.setdefault(inputs, {}).setdefault(values, [])

    def give_up(self, some: list[Specialization]) -> None:
        for specialization in some:
            self.bucket(specialization.key).remove(specialization)
            self.families = [pair for pair in self.families if pair[1] is not specialization]
            self.captures += specialization.captures
            self.had_gradients = self.had_gradients or reaches_leaves(specialization.graph)
            self.lost += specialization.lost

    def has_gradients(self) -> bool:
        """Whether a recording, or one that was given up, has any by leaves."""
        return self.had_gradients or any(reaches_leaves(one.graph) for one in self.all())

    def only(self) -> Specialization | None:
        """The one recording, if there is no other."""
        found = self.all()
        return found[0] if len(found) == 1 and not found[0].key else None

    def worth_trying(self, rows: int) -> list[Specialization]:
        """The recordings that hold for any whole numbers; none of them where the rows run eagerly if none fits, and to
        find that out would cost half of what they do then."""
        some = list(self.specializations)
        if not self.eager or not some:
            return some
        return some if rows > self.rows_not_worth_trying() else []

    def fit_one_row_each(self) -> int:
        """How many of the recordings for the same whole numbers as another one fitted their own row alone; 0 if others
        fit more than a few rows: then it is worth while to record more."""
        beside = [v for table in self.keyed.values() for some in table.values() if len(some) > 1 for v in some]
        alone = sum(one.served <= 1 for one in beside)
        return alone if alone > 0.9 * len(beside) else 0

    def rows_not_worth_trying(self) -> float:
        """For how many rows that may be so, at most."""
        some = self.specializations
        if not some:
            return math.inf
        called = 0.5 * sum(one.called for one in some) / len(some)
        replayed = sum(one.graph.operations for one in some) * ONE_REPLAYED
        return len(some) * ONE_TRY / (called - replayed) if called > replayed else math.inf

    def relative(self, specialization: Specialization) -> Specialization | None:
        """A specialization that a recording fits in, since it only selects another operand; that one may be new."""
        if len(specialization.key) != 1:
            return None
        ((at, value),) = specialization.key
        for k, (family, old) in enumerate(self.families):
            if family.at == at and family.add(specialization.graph, value):
                if old in self.specializations:
                    self.specializations.remove(old)
                self.families[k] = family, self._grown(family, specialization, old)
                return self.families[k][1]
        for values, bucket in list(self.keyed.get((at,), {}).items())[:4]:
            for known in bucket:
                family = Family(known.graph, at, values[0])
                if family.add(specialization.graph, value):
                    family.complete(specialization.graph, value)
                    bucket.remove(known)
                    self.operations -= known.graph.operations
                    self.families.append((family, self._grown(family, specialization, known)))
                    return self.families[-1][1]
        return None

    def _grown(self, family: Family, specialization: Specialization, old: Specialization) -> Specialization:
        made = Specialization(family.graph(), specialization.sizes)
        made.known = family.at, np.array(sorted(family.selected))
        made.examples = specialization.examples
        made.lost, made.served = specialization.lost + old.lost, old.served
        self.specializations.append(made)
        self.recorded += 1
        return made


def groups_of_rows(
    rows: Rows, inputs: tuple[int, ...], some: np.ndarray
) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Rows with the same values of these inputs, together."""
    columns = rows.whole_columns()
    values = np.stack([columns[i][some] for i in inputs], axis=1)
    if len(some) == 1:
        yield tuple(values[0].tolist()), some
        return
    order = np.lexsort(values.T)
    ordered = values[order]
    ends = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
    for part in np.split(order, ends):
        yield tuple(values[part[0]].tolist()), some[np.sort(part)]


def where_they_part(specializations: list[Specialization]) -> str:
    """"; they part at " file and line where most specializations part; nothing where they decide nothing."""
    places: dict[Any, int] = {}
    for specialization in specializations:
        for place, count in places_in(specialization.graph):
            places[place] = places.get(place, 0) + count
    most = max(places, key=places.__getitem__) if places else None
    return "; they part at {}:{}".format(*line_of(most)) if most is not None else ""
