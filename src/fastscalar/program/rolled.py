"""Loops as one instruction of a program: a body that is recorded once, and run again and again.

While a function is recorded, `fs.loop` and `fs.while_loop` come here.  A step is recorded by itself, as a graph whose
inputs are the state, the number of the iteration, and what the step reads of the function around it.  A decision in it
that comes out otherwise in a later iteration makes another body; which one a row takes is asked in every iteration.
What that does not serve (a step that counts by itself, decides in too many ways, reads a number of every iteration,
draws, or leaves something of an iteration behind) ends in `BodyLeaks`, and the function is recorded with its loops
unrolled.

The boundary: makes bodies, and is what the executor calls for a chunk of rows; `_iterate` runs them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import elementwise
from fastscalar.engine._lock import Lock
from fastscalar.engine._modes import current_recording, tell_call, watches
from fastscalar.engine._rules import values_of
from fastscalar.engine._traced import TracedInt
from fastscalar.program._graph import NODE_CONSTANT, NODE_INPUT, NODE_PARAMETER, READ_SAME
from fastscalar.program._iterate import Iterations
from fastscalar.program._lower import lower
from fastscalar.program._replay import RowStatus, kernel_set
from fastscalar.program._trace import BodyLeaks, NotReplayable, Recording, extract

UNROLLED = 64  # steps, known beforehand: so many are recorded one by one, which is as fast and any derivative passes
BODIES = 16  # of one loop
OPERANDS = 10_000  # numbers that a loop reads
MEMORY = 1 << 26  # bytes of states that the way back keeps; beyond, some of them are computed again
FOREVER = 1 << 62
ITERATION = 1 << 20  # the argument that the number of an iteration counts as, while a step is recorded; plus the depth
COLUMNS = ("op", "a", "b", "stopped", "results")


class Body:
    """One recording of a step, or of a condition that did not hold: then it ends the loop."""

    def __init__(self, graph: Any, numbers: list[int], leaves: list[int], ends: bool) -> None:
        self.graph, self.ends = graph, ends
        self.numbers = numbers                   # nodes that are the number of the iteration
        self.leaves = leaves                     # by capture, the place of the leaf among those of the loop

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Body):
            return NotImplemented
        g, h = self.graph, other.graph
        constants = g.op == NODE_CONSTANT
        guards = ("op", "left", "right", "value")
        return (
            self.ends == other.ends
            and self.leaves == other.leaves
            and all(np.array_equal(getattr(g, name), getattr(h, name)) for name in COLUMNS)
            and g.value[constants].tobytes() == h.value[constants].tobytes()
            and all(np.array_equal(g.guards[name], h.guards[name], equal_nan=name == "value") for name in guards)
            and len(g.items) == len(h.items)
            and all(
                len(x) == len(y) and all(np.array_equal(a, b) for a, b in zip(x, y, strict=True))
                for x, y in zip(g.items, h.items, strict=True)
            )
        )

    __hash__ = None  # type: ignore[assignment]


class Rolled:
    """A loop, as a program calls it for the rows of a chunk: the callee of an item.

    Operands: the numbers of the state, what the steps capture of the row, the leaves that they read, and the number of
    steps if that is one of the row."""

    def __init__(self, kind: str, width: int, numbered: bool, count: int | None) -> None:
        self.kind, self.width, self.numbered = kind, width, numbered
        self.count = count                       # of steps; None: the last operand, or a `while`
        self.bodies: list[Body] = []
        self.captured = 0                        # how many numbers of the row, and
        self.leaves = 0                          # how many leaves the steps read
        self.free: dict[Any, list[Iterations]] = {}
        self.plans: dict[str, list[Any]] = {}
        self._lock = Lock()

    @property
    def outputs(self) -> int:
        return self.width

    @property
    def decides(self) -> bool:
        return any(len(body.graph.guards) for body in self.bodies)

    @property
    def said(self) -> str:
        """For a report."""
        some = [f"{body.graph.operations:,}" for body in self.bodies if not body.ends]
        return f"{self.kind} of {' or '.join(some) or 'no'} operations"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Rolled)
            and (self.kind, self.width, self.numbered, self.count) == (
                other.kind, other.width, other.numbered, other.count)
            and self.bodies == other.bodies
        )  # fmt: skip

    __hash__ = object.__hash__

    # --- bodies ---

    def add(self, body: Body, captured: int, leaves: int) -> None:
        self.bodies.append(body)
        self.captured, self.leaves = captured, leaves
        self.plans, self.free = {}, {}

    def plans_of(self, way: str) -> list[Any]:
        """way: "free", with the bits of whatever is fastest; "exact", with those of the function, since something
        decides on them; "plain", in its order."""
        with self._lock:
            if way not in self.plans:
                made = []
                for body in self.bodies:
                    body.graph.exact = way == "exact"
                    sizes = [self.width, *([self.captured] if self.captured else []), 1]
                    made.append(lower(body.graph, sizes, frozenset(), None, way == "plain"))
                self.plans[way] = made
            return self.plans[way]

    def take(self, way: str, rows: int) -> Iterations:
        plans = self.plans_of(way)
        room = 1 if rows == 1 else 16 if rows <= 16 else 128 if rows <= 128 else 256
        key = way, room, kernel_set()
        with self._lock:
            if self.free.get(key):
                return self.free[key].pop()
        ends = [body.ends for body in self.bodies]
        return Iterations(plans, ends, self.width, self.captured, self.numbered, max(room, rows))

    def give(self, iterations: Iterations, way: str, rows: int) -> None:
        room = 1 if rows == 1 else 16 if rows <= 16 else 128 if rows <= 128 else 256
        with self._lock:
            kept = self.free.setdefault((way, room, kernel_set()), [])
            if len(kept) < 4 and rows <= room:
                kept.append(iterations)

    def load(self, iterations: Iterations, leaves: np.ndarray) -> None:
        for body, replay in zip(self.bodies, iterations.replays, strict=True):
            replay.load({at: leaves[k : k + 1] for at, k in enumerate(body.leaves)})

    # --- what the executor calls ---

    def of_rows(self, chunk: Any) -> _Chunk:
        return _Chunk(self, *chunk)

    def forward(self, x: np.ndarray, exact: bool) -> np.ndarray:
        """Without a word about the rows: for graphs that are run by themselves."""
        status = np.zeros(len(x), np.uint8)
        return _Chunk(self, False, status, np.arange(len(x))).forward(x, exact)


class _Chunk:
    """A loop for the rows of one chunk."""

    def __init__(self, loop: Rolled, plain: bool, status: np.ndarray, rows: np.ndarray) -> None:
        self.loop, self.plain, self.status, self.rows = loop, plain, status, rows

    def way(self, exact: bool) -> str:
        return "plain" if self.plain else "exact" if exact or self.loop.decides else "free"

    def parts(self, x: np.ndarray) -> Any:
        """Rows with the same leaves, together: their operands cut into what they are."""
        loop = self.loop
        first, second = loop.width + loop.captured, loop.width + loop.captured + loop.leaves
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
            state, captured = part[:, : loop.width].copy(), part[:, loop.width : first].copy()
            yield rows, state, captured, leaves[rows[0]], ended, status

    def forward(self, x: np.ndarray, exact: bool) -> np.ndarray:
        loop, way = self.loop, self.way(exact)
        out = np.empty((len(x), loop.width))
        for rows, state, captured, leaves, ended, status in self.parts(x):
            iterations = loop.take(way, len(rows))
            loop.load(iterations, leaves)
            iterations.values(state, captured, ended, status, 0, FOREVER)
            loop.give(iterations, way, len(rows))
            out[rows] = state
            self.status[rows] |= status
        return out

    def backward(self, x: np.ndarray, y: np.ndarray, adjoint: np.ndarray, exact: bool) -> np.ndarray:
        loop, way = self.loop, self.way(exact)
        out = np.zeros_like(x)
        first = loop.width + loop.captured
        for rows, state, captured, leaves, ended, status in self.parts(x):
            iterations = loop.take(way, len(rows))
            loop.load(iterations, leaves)
            sent = adjoint[rows]
            by_captured = iterations.gradients(state, captured, ended, status, sent, loop.leaves > 0, MEMORY)
            out[rows, : loop.width] = sent
            out[rows, loop.width : first] = by_captured
            by_leaves = np.zeros(loop.leaves)
            for body, replay in zip(loop.bodies, iterations.replays, strict=True):
                for at, k in enumerate(body.leaves):
                    replay.gradient_of_capture(at, by_leaves[k : k + 1])
            out[rows[0], first : first + loop.leaves] = by_leaves        # the sum over these rows
            loop.give(iterations, way, len(rows))
            self.status[rows] |= status
        return out


# --- while a function is recorded ---------------------------------------------------------------------


class _Nest:
    """The structure of a state: its numbers, and a state of other numbers."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def flat(self, state: Any) -> list[Any]:
        if isinstance(state, TracedInt):
            return [state.tensor]
        if isinstance(state, dict):
            return [t for key in self_keys(state) for t in self.flat(state[key])]
        if isinstance(state, (tuple, list)):
            return [t for part in state for t in self.flat(part)]
        if isinstance(state, TensorArray):
            return list(state.reshape(-1)) if state.size else []
        if isinstance(state, np.ndarray):
            return [t for part in state.ravel().tolist() for t in self.flat(part)]
        return [state if isinstance(state, Tensor) else float(state)]

    def made(self, numbers: Any, state: Any = None, whole: bool = True) -> Any:
        """A state of this structure with the next numbers of an iterator."""
        state = self.state if whole else state
        if isinstance(state, dict):
            values = {key: self.made(numbers, state[key], False) for key in self_keys(state)}
            return {key: values[key] for key in state}
        if isinstance(state, (tuple, list)):
            parts = [self.made(numbers, part, False) for part in state]
            if hasattr(type(state), "_fields"):
                return type(state)(*parts)
            return parts if isinstance(state, list) else tuple(parts)
        if isinstance(state, (TensorArray, np.ndarray)):
            flat = np.empty(state.size, dtype=object)
            flat[:] = [next(numbers) for _ in range(state.size)]
            return elementwise("*", flat.reshape(state.shape), 1.0) if state.size else state
        return next(numbers)


def self_keys(state: dict[Any, Any]) -> list[Any]:
    """Keys in one order, whatever the order in which a step makes them."""
    return sorted(state, key=repr)


def is_rolled(count: Any) -> bool:
    """Whether a loop of so many steps (None: a `while`) is to be one instruction here."""
    recording = current_recording()
    if recording is None or watches() or recording.unrolled or not isinstance(recording, Recording):
        return False
    return count is None or (count.value > 0 if isinstance(count, TracedInt) else count > UNROLLED)


class _Recorder:
    """Records the bodies of one loop, for the row whose function is being recorded."""

    def __init__(self, outer: Any, kind: str, count: Any, numbered: bool, state: Any) -> None:
        self.outer, self.nest, self.numbered = outer, _Nest(state), numbered
        self.first = self.nest.flat(state)
        if not self.first:
            raise BodyLeaks
        self.loop = Rolled(kind, len(self.first), numbered, count if isinstance(count, int) else None)
        self.captured = _Places()                # numbers of the row, and
        self.leaves = _Places()                  # leaves that the bodies read

    def record(self, k: int, values: np.ndarray, call: Callable[[int, Any, Any], Any]) -> Body:
        """The body of iteration k.  call: does a step, of the iteration, what stands for its number, and a state; None
        ends the loop."""
        recording = Recording()
        recording.inside(self.outer)
        try:
            handles = [Tensor(v) for v in values.tolist()]
            recording.inputs = [("number", handle) for handle in handles]
            number: Any = None
            if self.numbered:
                number = TracedInt(k, Tensor(float(k)), ITERATION + len(self.outer.bodies))
                recording.inputs.append(("whole", number))
            recording.begin()
            found = call(k, number, self.nest.made(iter(handles)))
            ends = found is None
            results = handles if ends else [
                t if isinstance(t, Tensor) else Tensor(t) for t in self.nest.flat(found)
            ]  # fmt: skip
        finally:
            recording.leave()
        try:
            graph = extract(recording, results)
        except NotReplayable:
            raise BodyLeaks from None
        return self.body(recording, graph, ends, number)

    def body(self, recording: Any, graph: Any, ends: bool, number: Any) -> Body:
        """The graph with two inputs, the state and what is captured of the row, and a third, the number."""
        guards = graph.guards
        if graph.draws or len(graph.results) != self.loop.width:
            raise BodyLeaks
        width = self.loop.width
        of_number = graph.op[guards["left"]] == NODE_INPUT
        of_number &= graph.a[guards["left"]] == width
        if ((guards["op"] == READ_SAME) & ~of_number).any():     # another number in every iteration
            raise BodyLeaks
        op, a, b = graph.op.copy(), graph.a.copy(), graph.b.copy()
        inputs = op == NODE_INPUT
        state = inputs & (graph.a < width)
        b[state], a[state] = graph.a[state], 0
        leaves: list[int] = []
        for i in np.flatnonzero(op == NODE_PARAMETER).tolist():
            t = graph.captures[graph.a[i]]
            if recording.leaf_before(t):
                leaves.append(self.leaves.of(t))
                a[i], b[i] = len(leaves) - 1, 0
            else:
                op[i], a[i], b[i] = NODE_INPUT, 1, self.captured.of(t)
        if len(self.captured) + len(self.leaves) > OPERANDS:
            raise BodyLeaks
        graph.captures = [self.leaves.some[k] for k in leaves]
        last = np.flatnonzero(inputs & (graph.a == width)).tolist()
        items = []
        for item in graph.items:
            if item[0] in ("gather", "cross_entropy") and item[4] >= 0:
                if number is None or item[4] != number.argument:
                    raise BodyLeaks
                item = (*item[:4], -2, *item[5:])
            items.append(item)
        graph.set_items(items)
        graph.op, graph.a, graph.b = op, a, b
        graph.inputs = ["array"]
        body = Body(graph, last, leaves, ends)
        return body

    def settle(self, body: Body) -> None:
        """The inputs of a body, now that it is known whether anything is captured of the row."""
        graph, numbers = body.graph, 1 + (len(self.captured) > 0)
        graph.inputs = ["array", *(["array"] if self.captured else []), *(["whole"] if self.numbered else [])]
        for i in body.numbers:
            graph.a[i], graph.b[i] = numbers, 0
        graph.set_items([
            (*item[:4], numbers, *item[5:])
            if item[0] in ("gather", "cross_entropy") and (item[4] == -2 or item[4] > 0) else item
            for item in graph.items
        ])  # fmt: skip

    def add(self, body: Body) -> None:
        if len(self.loop.bodies) >= BODIES or body in self.loop.bodies:
            raise BodyLeaks
        self.loop.add(body, len(self.captured), len(self.leaves))
        for known in self.loop.bodies:
            self.settle(known)

    def run(self, call: Callable[[int, Any, Any], Any], last: int) -> np.ndarray:
        """The numbers of the state at the end, for the row that is recorded; bodies are made on the way.

        After 1, 2, 4, 8, ... iterations a step is recorded once more, and has to do what a body does: so a step that
        keeps count by itself is found out."""
        values = values_of([t if isinstance(t, Tensor) else Tensor(t) for t in self.first])[None]
        self.way = "exact"
        self.add(self.recorded(0, values, call))
        k = 0
        while True:
            until = min(last, max(1, 2 * k))
            k, status, ended = self.advance(values, k, until)
            if ended or (not status and k == last):
                return values[0]
            if not status:
                status = self.advance(values.copy(), k, k + 1)[1]
            news = self.recorded(k, values, call)        # raises what the step raises
            if status == RowStatus.GUARD_FAILED:
                self.add(news)
            elif status or news not in self.loop.bodies:
                raise BodyLeaks

    def recorded(self, k: int, values: np.ndarray, call: Callable[[int, Any, Any], Any]) -> Body:
        body = self.record(k, values[0], call)
        self.settle(body)
        return body

    def advance(self, values: np.ndarray, k: int, until: int) -> tuple[int, int, bool]:
        """The iteration that was come to, what there is to say, and whether the loop has ended there."""
        loop = self.loop
        captured = self.captured.values()[None]
        ended, status = np.full(1, until, np.int64), np.zeros(1, np.uint8)
        iterations = loop.take(self.way, 1)
        loop.load(iterations, self.leaves.values())
        iterations.values(values, captured, ended, status, k, until)
        loop.give(iterations, self.way, 1)
        if status[0] == RowStatus.ORDER_MATTERS and self.way != "plain":
            self.way = "plain"                   # a number is not finite, or nearly so
            return self.advance(values, int(ended[0]), until)
        return int(ended[0]), int(status[0]), not status[0] and ended[0] < until


class _Places:
    """Tensors in the order in which they were met."""

    def __init__(self) -> None:
        self.some: list[Tensor] = []
        self.place: dict[int, int] = {}          # by identity

    def __len__(self) -> int:
        return len(self.some)

    def of(self, t: Tensor) -> int:
        if id(t) not in self.place:
            self.place[id(t)] = len(self.some)
            self.some.append(t)
        return self.place[id(t)]

    def values(self) -> np.ndarray:
        return values_of(self.some) if self.some else np.empty(0)


def rolled(kind: str, count: Any, numbered: bool, call: Callable[[int, Any, Any], Any], state: Any) -> Any:
    """The state at the end of a loop, as one operation of the program that is being recorded.

    call: does a step, of the iteration, what stands for its number, and a state, and looks at the structure of what it
    gives; None where the condition does not hold.  count: a number, one of the row, or None."""
    outer = current_recording()
    made = _Recorder(outer, kind, count, numbered, state)
    last = FOREVER if count is None else int(count) if isinstance(count, int) else count.value
    values = made.run(call, last)
    operands = [t if isinstance(t, Tensor) else Tensor(t) for t in made.first]
    operands += [*made.captured.some, *made.leaves.some]
    if isinstance(count, TracedInt):
        operands.append(count.tensor)
    outputs = [Tensor(float(values[0]), tuple(operands), kind)]
    tell_call(outputs[0], made.loop)
    for k, v in enumerate(values.tolist()[1:], 1):
        outputs.append(Tensor(v, (outputs[0],), kind))
        tell_call(outputs[k], k)
    return made.nest.made(iter(outputs))
