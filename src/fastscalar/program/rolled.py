"""Loops as one instruction of a program: bodies that were recorded once, and are run again and again.

Which body a row takes is asked in every iteration.  Backwards, states are there again or computed again (`_iterate`).

The boundary: is what the executor calls for the rows of a chunk; `rolling` makes the bodies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastscalar.engine._functions import operations
from fastscalar.engine._lock import Lock
from fastscalar.program._graph import (
    NODE_CONSTANT,
    NODE_INPUT,
    columns_of,
    graph_of,
    places_of,
    same_captures,
    same_guards,
    same_nodes,
    same_operands,
)
from fastscalar.program._iterate import Iterations
from fastscalar.program._lower import lower
from fastscalar.program._replay import RowStatus, kernel_set
from fastscalar.program.composed import composed, may_be_composed, reaching

MEMORY = 1 << 26  # bytes of states that the way back keeps; beyond, some of them are computed again
FOREVER = 1 << 62
CHOOSING = ("where", "max", "min")
FOUND = "found loop"  # the kind of those that were not said
STEPS = 1_024  # nodes of a body, or so, that stands for many steps, and
MANY = 32  # how many these are at most, where a row may need less
KEPT = 4  # sets of replays of a loop for so many rows, between calls
ADD = next(code for code, name, _, _ in operations() if name == "+")


class Body:
    """One recording of a step, or of a condition that did not hold: then it ends the loop.

    `graph` is of what stands in `columns` and `items`, for what is known of the loop so far: `settle` makes it."""

    def __init__(
        self, graph: Any, numbers: list[int], leaves: list[int], drawn: dict[int, int], ends: bool,
        own: Sequence[int] = (),
    ) -> None:
        self.graph, self.ends = graph, ends
        self.columns = columns_of(graph)
        self.items = graph.items
        self.numbers = numbers                   # nodes that are the number of the iteration
        self.own = list(own)                     # nodes that are what an iteration has of its own
        self.leaves = leaves                     # by capture, the place of the leaf among those of the loop
        self.drawn = drawn                       # by site, how many numbers it draws

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Body) and self._is_like(other) and same_operands(self.items, other.items)

    def _is_like(self, other: Body) -> bool:
        """Whether all but the items is the same."""
        return (
            (self.ends, self.leaves, self.own, self.graph.draws)
            == (other.ends, other.leaves, other.own, other.graph.draws)
            and same_nodes(self.columns, other.columns)
            and same_guards(self.graph, other.graph)
        )

    def take_in(self, other: Body) -> bool:
        """Whether another one differs in nothing but the bodies of loops in it; then this one has those of both."""
        return self._is_like(other) and _taken_in(self.items, other.items)

    __hash__ = None  # type: ignore[assignment]

    def copied(self) -> Body:
        """For another loop, which settles it by itself."""
        columns = self.columns
        items = [(*item[:4], item[4].copied()) if is_loop(item) else item for item in self.items]
        graph = graph_of(self.graph, columns, columns, items, self.graph.guards, columns["results"])
        return Body(graph, self.numbers, self.leaves, self.drawn, self.ends, self.own)

    def settle(self, outputs: int, captured: int, numbered: bool, sites: list[int], own: bool) -> None:
        """Its inputs: the state and what was drawn by site, what is captured of the row, the iteration's number, what
        it has of its own."""
        graph, number = self.graph, 1 + (captured > 0)
        n = len(self.columns["op"])
        new: list[tuple[int, int, int, float]] = []
        results, collected = self.columns["results"].tolist()[:outputs], self.columns["results"].tolist()[outputs:]
        for d, site in enumerate(sites):
            new.append((NODE_INPUT, 0, outputs + d, 0.0))
            if site in self.drawn and not self.ends:
                new.append((NODE_CONSTANT, 0, 0, float(self.drawn[site])))
                new.append((ADD, n + len(new) - 2, n + len(new) - 1, 0.0))
            results.append(n + len(new) - 1)
        for k, name in enumerate(("op", "a", "b", "value")):
            known = self.columns[name]
            setattr(graph, name, np.concatenate([known, np.array([one[k] for one in new], known.dtype)]))
        graph.stopped = np.concatenate([self.columns["stopped"], np.zeros(len(new), np.uint8)])
        graph.results = np.array(results + collected, np.int32)
        graph.a[self.numbers], graph.b[self.numbers] = number, 0
        graph.a[self.own] = number + numbered
        graph.set_items([(*item[:4], number, *item[5:]) if _of_number(item) else item for item in self.items])
        graph.inputs = ["array", *(["array"] if captured else []), *(["whole"] if numbered else []),
                        *(["array"] if own else [])]


def is_loop(item: Any) -> bool:
    """Of a loop, or of the way back through one."""
    return item[0] == "call" and hasattr(item[4], "bodies")


def places_in(graph: Any) -> Iterator[tuple[Any, int]]:
    """Where a recorded call decided, in the steps of its loops too: as `places_of` has it."""
    yield from places_of(graph)
    for item in filter(is_loop, graph.items):
        for body in item[4].bodies:
            yield from places_in(body.graph)


def draws_in(graph: Any) -> bool:
    """Whether anything is drawn, in steps of loops too."""
    return bool(graph.draws) or any(item[4].sites for item in graph.items if is_loop(item))


def take_in(g: Any, h: Any) -> bool:
    """Whether two recordings differ in nothing but the bodies of their loops; then the first has those of both."""
    same = g.draws == h.draws and same_nodes(columns_of(g), columns_of(h)) and same_guards(g, h) and same_captures(g, h)
    return same and _taken_in(g.items, h.items)


def _taken_in(some: list[Any], others: list[Any]) -> bool:
    """The same for items."""
    if not any(map(is_loop, some)) or len(some) != len(others):
        return False
    pairs = list(zip(some, others, strict=True))
    for x, y in pairs:
        if len(x) != len(y) or (is_loop(x) and not (is_loop(y) and x[4].is_like(y[4]))) or not all(
            np.array_equal(a, b) for a, b in zip(x, y, strict=True) if not hasattr(a, "bodies")
        ):
            return False
    for x, y in pairs:
        for body in y[4].bodies if is_loop(x) else ():
            if body not in x[4].bodies:
                x[4].add(body.copied(), x[4].captured, x[4].leaves)
    return True


def _of_number(item: Any) -> bool:
    """Whether the number of the iteration chooses."""
    return item[0] in ("gather", "cross_entropy") and item[4] >= 0


class Stage(NamedTuple):
    """A part of a loop; the next one takes up the rows where it leaves them."""

    loop: Rolled
    each: int  # so many iterations of the loop in one of its own
    most: int  # iterations of its own
    lenient: bool  # where its body does not fit a row it leaves the row


class Rolled:
    """A loop, as a program calls it for the rows of a chunk: the callee of an item.

    Operands: the numbers of the state, what the steps capture of the row, the leaves that they read, what each
    iteration has of its own, and the number of steps if that is one of the row.  Results: the numbers of the state, and
    what is collected of each iteration."""

    def __init__(
        self, kind: str, outputs: int, numbered: bool, count: int | None, own: int = 0,
        table: np.ndarray | None = None, collected: int = 0,
    ) -> None:
        self.kind, self.state, self.numbered = kind, outputs, numbered
        self.own, self.collected = own, collected        # how many numbers of each iteration
        self.table = table                       # by iteration, what it has of its own that is the same for all rows
        self.count = count                       # of steps; None: the last operand, or a `while`
        self.bodies: list[Body] = []
        self.captured = 0                        # how many numbers of the row, and
        self.leaves = 0                          # how many leaves the steps read
        self.sites: dict[int, int] = {}          # where steps draw -> what was drawn there before the loop
        self.free: dict[Any, list[Iterations]] = {}
        self.plans: dict[str, list[Any]] = {}
        self.tangents: dict[tuple[int, ...], Rolled] = {}        # by operands with a tangent (`differentiated`)
        self._sources: list[list[int]] | None = None
        self._stages: list[Stage] | None = None
        self._lock = Lock()

    @property
    def width(self) -> int:
        return self.state + len(self.sites)

    @property
    def outputs(self) -> int:
        return self.state + self.collected * (self.count or 0)

    @property
    def operands(self) -> int:
        counted = self.count is None and self.kind == "loop"
        return self.state + self.captured + self.leaves + self.own * (self.count or 0) + counted

    @property
    def has_own(self) -> bool:
        return self.own > 0 or (self.table is not None and self.table.shape[1] > 0)

    def stages(self) -> list[Stage]:
        """The same loop one part after the other, with bodies of many steps where one body is all that goes on."""
        with self._lock:
            if self._stages is None:
                self._stages = self._composed()
            return self._stages

    def _composed(self) -> list[Stage]:
        going_on = [body for body in self.bodies if not body.ends]
        if self.kind == FOUND or len(going_on) != 1 or not may_be_composed(body := going_on[0]):
            return []
        known = self.count is not None and not self.decides
        each = min(STEPS // max(1, len(body.columns["op"])), (self.count or MANY) // 4, STEPS if known else MANY)
        if each < 2:
            return []
        made = Rolled(self.kind, self.state, self.numbered, self.count)
        made.sites = dict(self.sites)
        graph, numbers, drawn = composed(body, each)
        made.add(Body(graph, numbers, body.leaves, drawn, False), self.captured, self.leaves)
        begun = [Stage(self, 1, each, False)] if self.kind == "while_loop" else []
        return [*begun, Stage(made, each, FOREVER, self.decides), Stage(self, 1, FOREVER, False)]

    @property
    def ways(self) -> int:
        """How many bodies there are, with those of loops in them."""
        return sum(1 + sum(item[4].ways for item in body.items if is_loop(item)) for body in self.bodies)

    @property
    def decides(self) -> bool:
        return any(
            len(body.graph.guards) or any(is_loop(item) and item[4].decides for item in body.items)
            for body in self.bodies
        )

    @property
    def said(self) -> str:
        """For a report."""
        some = " or ".join(f"{body.graph.operations:,}" for body in self.bodies if not body.ends)
        return f"{self.kind} of {some or 'no'} operations"

    @property
    def draws_alike(self) -> bool:
        """Whether as many numbers are drawn for each row."""
        first, *others = [body.drawn for body in self.bodies if not body.ends] or [{}]
        return self.count is not None and all(drawn == first for drawn in others)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Rolled)
            and (self.kind, self.outputs, self.numbered, self.count, self.sites, self.own, self.collected) == (
                other.kind, other.outputs, other.numbered, other.count, other.sites, other.own, other.collected)
            and (self.table is other.table or (self.table is not None and other.table is not None
                 and self.table.tobytes() == other.table.tobytes()))
            and self.bodies == other.bodies
        )  # fmt: skip

    __hash__ = object.__hash__

    first = property(lambda self: self.state + self.captured)        # where the leaves stand among the operands, and
    second = property(lambda self: self.first + self.leaves)         # what the iterations have of their own

    @property
    def chooses(self) -> bool:
        """Whether some step passes gradients to one of several operands, whichever: `sources` has all of them."""
        return any(item[0] in CHOOSING or is_loop(item) for body in self.bodies for item in body.items)

    @property
    def sources(self) -> list[list[int]]:
        """By number of the state, and then of what is collected of an iteration, the operands that may pass a gradient
        to it; of what iterations have of their own those of the first one."""
        if self._sources is None:
            one = [0] * (self.state + self.collected)
            for body in self.bodies:
                for j, bits in enumerate(reaching(body, self)):
                    one[j] |= bits
            found, before = list(one), [0] * len(one)
            while found != before:
                before = list(found)
                for j, bits in enumerate(before):
                    for i in range(self.state):
                        found[j] |= before[i] if bits >> i & 1 else 0
            if self.count is None:               # also no iteration
                found = [bits | 1 << j for j, bits in enumerate(found)]
            self._sources = [[i for i in range(self.second + self.own) if bits >> i & 1] for bits in found]
        return self._sources

    def is_like(self, other: Rolled) -> bool:
        """Whether another loop may have the same bodies.  Not if they draw: what is drawn after them would depend on
        the row then.  Not if they were found: what a number of the state is follows from the body."""
        mine, its = (
            (x.kind, x.outputs, x.numbered, x.count, x.captured, x.leaves, x.sites) for x in (self, other)
        )  # fmt: skip
        return mine == its and not self.sites and self.kind != FOUND

    # --- bodies ---

    def add(self, body: Body, captured: int, leaves: int) -> None:
        if not self.take_in(body):
            self.bodies.append(body)
        self.captured, self.leaves = captured, leaves
        self._forget()
        for known in self.bodies:
            known.settle(self.state, captured, self.numbered, list(self.sites), self.has_own)

    def copied(self) -> Rolled:
        """For a body of another loop, which may get others in it."""
        made = Rolled(self.kind, self.state, self.numbered, self.count, self.own, self.table, self.collected)
        made.sites = dict(self.sites)
        for body in self.bodies:
            made.add(body.copied(), self.captured, self.leaves)
        return made

    def take_in(self, body: Body) -> bool:
        """Whether a body differs from a known one in nothing but the bodies of loops in it, which that one has now."""
        found = any(known.take_in(body) for known in self.bodies)
        if found:
            self.tangents = {}                   # of loops in it that had fewer bodies
            self._forget()
        return found

    def _forget(self) -> None:
        self.plans, self.free, self._sources, self._stages = {}, {}, None, None

    def plans_of(self, way: str) -> list[Any]:
        """way: "free", with the bits of whatever is fastest; "exact", with those of the function, since something
        decides on them; "plain", in its order."""
        with self._lock:
            if way not in self.plans:
                made = []
                for body in self.bodies:
                    body.graph.exact = way == "exact"
                    sizes = [self.width, *([self.captured] if self.captured else []), *([1] if self.numbered else [])]
                    sizes += [self.own + self.table.shape[1]] if self.table is not None and self.has_own else []
                    made.append(lower(body.graph, sizes, frozenset(), None, way == "plain"))
                self.plans[way] = made
            return self.plans[way]

    def take(self, way: str, rows: int) -> Iterations:
        plans, room = self.plans_of(way), _room(rows)
        with self._lock:
            if self.free.get((way, room, kernel_set())):
                return self.free[way, room, kernel_set()].pop()
        ends = [body.ends for body in self.bodies]
        places = {site: self.state + k for k, site in enumerate(self.sites)}
        counters = [[places[draw[3]] for draw in body.graph.draws] for body in self.bodies]
        return Iterations(
            plans, ends, counters, self.width, self.captured, self.numbered, room, self.own, self.table, self.collected
        )

    def give(self, iterations: Iterations, way: str, rows: int) -> None:
        with self._lock:
            kept = self.free.setdefault((way, _room(rows), kernel_set()), [])
            kept += [iterations] * (len(kept) < KEPT)

    def load(self, iterations: Iterations, leaves: np.ndarray) -> None:
        for body, replay in zip(self.bodies, iterations.replays, strict=True):
            replay.load({at: leaves[k : k + 1] for at, k in enumerate(body.leaves)})

    # --- what the executor calls ---

    def of_rows(self, chunk: Any) -> _Chunk | _Stages:
        stages = [_Chunk(stage, *chunk) for stage in self.stages()]
        return _Stages(stages) if stages else _Chunk(Stage(self, 1, FOREVER, False), *chunk)


class _Stages:
    """Loops one after the other that have the same operands but for the state, for the rows of one chunk."""

    keeps = False

    def __init__(self, stages: list[_Chunk]) -> None:
        self.stages = stages
        self.state = stages[0].loop.state
        self.begun: list[np.ndarray] = []        # the operands of each

    def forward(self, x: np.ndarray, exact: bool) -> np.ndarray:
        self.begun, y = [], x[:, : self.state]
        before, counters = np.zeros(len(x), np.int64), self.stages[0].counters
        for stage in self.stages:
            stage.keeps, stage.before, stage.counters = self.keeps, before, counters
            self.begun.append(np.concatenate([y, x[:, self.state :]], axis=1))
            y = stage.forward(self.begun[-1], exact)
            before, counters = before + stage.done * stage.stage.each, stage.counters
        return y

    def backward(self, x: np.ndarray, y: np.ndarray, adjoint: np.ndarray, exact: bool) -> np.ndarray:
        if not self.keeps:
            self.keeps = True
            self.forward(x, exact)
        out = np.zeros_like(x)
        for stage, begun in zip(reversed(self.stages), reversed(self.begun), strict=True):
            sent = stage.backward(begun, y, adjoint, exact)
            adjoint = sent[:, : self.state]
            out[:, self.state :] += sent[:, self.state :]
        out[:, : self.state] = adjoint
        return out


def _room(rows: int) -> int:
    """Rows that memory is taken for."""
    return 1 if rows == 1 else 16 if rows <= 16 else 128 if rows <= 128 else rows


class _Chunk:
    """A loop for the rows of one chunk."""

    def __init__(self, stage: Stage, plain: bool, status: np.ndarray, rows: np.ndarray, stream: Any) -> None:
        self.stage, self.loop, self.plain, self.status, self.rows = stage, stage.loop, plain, status, rows
        self.stream = stream
        self.before = self.done = np.zeros(len(rows), np.int64)          # by row, iterations of the stages before, and
        self.counters = np.tile(np.array(list(self.loop.sites.values()), float), (len(rows), 1))      # what was drawn
        self.keeps = False                       # the states, for the way back:
        self.kept: list[tuple[Any, ...]] = []    # of each part of the rows

    def way(self, exact: bool) -> str:
        return "plain" if self.plain else "exact" if exact or self.loop.decides else "free"

    def parts(self, x: np.ndarray) -> Any:
        """Rows with the same leaves, together: their operands cut into what they are."""
        loop = self.loop
        first, second = loop.state + loop.captured, loop.state + loop.captured + loop.leaves
        leaves = np.ascontiguousarray(x[:, first:second])
        some = [np.arange(len(x))]
        if loop.leaves and len(x) > 1 and leaves.tobytes() != leaves[:1].tobytes() * len(x):
            _, which = np.unique(leaves.view(np.uint64), axis=0, return_inverse=True)
            some = [np.flatnonzero(which.ravel() == k) for k in range(int(which.max()) + 1)]
        for rows in some:
            part = x[rows]
            if loop.kind == "while_loop":
                ended = np.full(len(rows), FOREVER, np.int64)
            elif loop.count is not None:
                ended = np.full(len(rows), loop.count, np.int64)
            else:
                ended = part[:, -1].astype(np.int64)
            status = np.where(ended < 0, np.uint8(RowStatus.MAY_RAISE), np.uint8(0))
            ended = np.minimum((ended - self.before[rows]) // self.stage.each, self.stage.most)
            state = np.concatenate([part[:, : loop.state], self.counters[rows]], axis=1)
            own = part[:, second:].copy() if loop.own else None
            yield rows, state, part[:, loop.state : first].copy(), leaves[rows[0]], ended, status, own

    def begun(self, way: str, rows: np.ndarray, leaves: np.ndarray) -> Iterations:
        iterations = self.loop.take(way, len(rows))
        self.loop.load(iterations, leaves)
        if self.loop.sites:
            seed, epoch, antithetic, counts = self.stream
            iterations.draw(seed, epoch, antithetic, counts or {}, self.rows[rows])
        return iterations

    def forward(self, x: np.ndarray, exact: bool) -> np.ndarray:
        loop, way = self.loop, self.way(exact)
        out, self.done = np.empty((len(x), loop.outputs)), np.zeros(len(x), np.int64)
        self.counters = self.counters.copy()
        for rows, state, captured, leaves, ended, status, own in self.parts(x):
            iterations = self.begun(way, rows, leaves)
            collected = np.empty((len(rows), loop.outputs - loop.state))
            memory = MEMORY if self.keeps else 0
            iterations.values(state, captured, ended, status, 0, FOREVER, own, collected, memory, self.before[rows],
                              self.stage.lenient)  # fmt: skip
            self.done[rows], self.counters[rows] = ended, state[:, loop.state :]
            out[rows, : loop.state], out[rows, loop.state :] = state[:, : loop.state], collected
            self.status[rows] |= status
            if self.keeps and not status.any():
                self.kept.append((rows, captured, ended, status, own, iterations))
            else:
                loop.give(iterations, way, len(rows))
        return out

    def backward(self, x: np.ndarray, y: np.ndarray, adjoint: np.ndarray, exact: bool) -> np.ndarray:
        loop, way = self.loop, self.way(exact)
        if not self.keeps:
            self.keeps = True
            self.forward(x, exact)
        out = np.zeros_like(x)
        first, second = loop.state + loop.captured, loop.state + loop.captured + loop.leaves
        for rows, captured, ended, status, own, iterations in self.kept:
            sent = np.zeros((len(rows), loop.width + loop.collected))
            sent[:, : loop.state] = adjoint[rows, : loop.state]
            by_captured, by_own = iterations.gradients(
                captured, ended, status, sent, loop.leaves > 0, own, adjoint[rows, loop.state :].copy()
            )
            out[rows, : loop.state] = sent[:, : loop.state]
            out[rows, loop.state : first] = by_captured
            if by_own is not None:
                out[rows, second:] = by_own
            by_leaves = np.zeros(loop.leaves)
            for body, replay in zip(loop.bodies, iterations.replays, strict=True):
                for at, k in enumerate(body.leaves):
                    replay.gradient_of_capture(at, by_leaves[k : k + 1])
            out[rows[0], first:second] = by_leaves           # the sum over these rows
            loop.give(iterations, way, len(rows))
            self.status[rows] |= status
        self.kept = []
        return out
