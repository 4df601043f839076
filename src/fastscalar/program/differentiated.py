"""Derivatives of loops as loops: what stands in a recording for the derivative of one that is an instruction.

Forwards it is a loop of bodies that carry tangents beside the state, `tangent_loop`.  Backwards it is a `Pullback`: the
loop, and the way back through it.  How that changes along a direction, or against one, is the way back through the loop
with tangents, since second derivatives are the same in either order: so all orders are made of these two.

The boundary: from Bodies to Bodies, by the rules of `transforms`; `rolled` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._functions import operations
from fastscalar.engine._modes import current_recording, ieee, record, tell_call
from fastscalar.engine._random import current_stream
from fastscalar.engine._rules import values_of
from fastscalar.program._graph import (
    NODE_CONSTANT,
    NODE_COPY,
    NODE_INPUT,
    NODE_ITEM,
    graph_of,
)
from fastscalar.program._replay import RowStatus
from fastscalar.program._trace import BodyLeaks, NotReplayable, Recording, extract
from fastscalar.program.composed import moved_items
from fastscalar.program.rolled import Body, Rolled
from fastscalar.transforms.recorded import Partials, send

Tangents = list[Any]  # Tensors; None: no tangent
_NAMES = {code: (name, arity) for code, name, arity, _ in operations()}
NUMBER = -1  # a node that stands for the number of the iteration
TABLE = 0xFF  # of an operation's code, which row of the table it is


class Derivatives:
    """What an output of a loop says of itself to the sweeps of `transforms`: `Tensor._several` of it."""

    def __init__(self, callee: Any, output: int) -> None:
        self.callee, self.output = callee, output

    def pushed(self, operands: Sequence[Any], tangents: Tangents, blind: bool = False) -> Tangents:
        """The tangents of all outputs.  blind: their values are not read."""
        if isinstance(self.callee, Pullback):
            return self.callee.pushed(operands, tangents, blind)
        return pushed_through(self.callee, operands, tangents, blind)

    def pulled(self, operands: Sequence[Any], adjoints: dict[int, Any]) -> Tangents:
        """What the adjoints of some outputs, by number, send to each operand."""
        if isinstance(self.callee, Pullback):
            return self.callee.pulled(operands, adjoints)
        return pulled_through(self.callee, operands, adjoints)


def outputs_of(callee: Any, operands: Sequence[Any], values: Sequence[float]) -> list[Any]:
    """What a loop gives, in the recording that is being made."""
    parents = tuple(t if isinstance(t, Tensor) else Tensor(t) for t in operands)
    outputs = [Tensor(float(values[0]), parents, callee.kind)]
    outputs += [Tensor(float(v), (outputs[0],), callee.kind) for v in values[1:]]
    for k, t in enumerate(outputs):
        tell_call(t, k or callee)
        t._several = Derivatives(callee, k)
    return outputs


def _computed(callee: Any, operands: Sequence[Any], blind: bool) -> list[Any]:
    """The outputs of a derivative of a loop, for the row that is being recorded."""
    if blind:
        return outputs_of(callee, operands, [0.0] * callee.outputs)
    x = values_of([t if isinstance(t, Tensor) else Tensor(t) for t in operands])[None]
    stream, plain = current_stream(), False
    here = stream.drawn_here
    before = {site: n - here.get(site, 0) for site, n in stream.drawn.items()}
    drawing = stream.seed, stream.epoch, stream.antithetic, before
    while True:
        status = np.zeros(1, np.uint8)
        values = callee.of_rows((plain, status, np.array([stream.row]), drawing)).forward(x, True)
        if status[0] == RowStatus.ORDER_MATTERS and not plain:
            plain = True                         # a number is not finite, or nearly so
        elif status[0]:
            raise BodyLeaks
        else:
            return outputs_of(callee, operands, values[0].tolist())


# --- forwards ---


def active_states(loop: Rolled, active: Sequence[int]) -> list[int]:
    """The numbers of the state that have a tangent in some iteration if these operands have one."""
    if loop.decides:                             # other bodies may be met yet
        return list(range(loop.state))
    given = set(active)
    return [j for j in range(loop.state) if j in given or given.intersection(loop.sources[j])]


def tangent_loop(loop: Rolled, active: tuple[int, ...]) -> Rolled:
    """The loop whose state has tangents beside its numbers; those of what is captured come after that.

    active: the operands that have a tangent, numbers of the state and of what is captured."""
    with loop._lock:
        states = active_states(loop, active)
        captured = [k for k in active if k >= loop.state]
        made = loop.tangents.get(active)
        if made is None:
            made = Rolled(loop.kind, loop.state + len(states), loop.numbered, loop.count)
            made.sites = dict(loop.sites)
        for body in loop.bodies[len(made.bodies) :]:
            made.add(_with_tangents(body, loop, states, captured), loop.captured + len(captured), loop.leaves)
        loop.tangents[active] = made
        return made


def along(loop: Rolled, operands: Sequence[Any], tangents: Tangents, zero: Any = 0.0) -> tuple[Rolled, list[Any]]:
    """The loop with tangents, and its operands.  tangents: of the state and of what is captured."""
    first = loop.state + loop.captured
    active = tuple(k for k in range(first) if tangents[k] is not None)
    return tangent_loop(loop, active), [
        *operands[: loop.state], *(zero if tangents[j] is None else tangents[j] for j in active_states(loop, active)),
        *operands[loop.state : first], *(tangents[k] for k in active if k >= loop.state),
        *operands[first : loop.operands],
    ]  # fmt: skip


def pushed_through(loop: Rolled, operands: Sequence[Any], tangents: Tangents, blind: bool = False) -> Tangents:
    active = [k for k in range(loop.state + loop.captured) if tangents[k] is not None]
    outputs = _computed(*along(loop, operands, tangents), blind)
    found: Tangents = [None] * loop.state
    for j, t in zip(active_states(loop, active), outputs[loop.state :], strict=True):
        if loop.decides or set(active).intersection(loop.sources[j]):
            found[j] = t
    return found


def _with_tangents(body: Body, loop: Rolled, states: Sequence[int], captured: Sequence[int]) -> Body:
    """The body with the tangents of these numbers of the state, and of what is captured, beside them."""
    op, values = body.columns["op"], body.columns["value"].tolist()
    nodes = np.flatnonzero(op != NODE_CONSTANT).tolist()
    results = body.columns["results"].tolist()

    def tangents(recording: Any) -> list[Tensor]:
        handles = {i: Tensor(values[i]) for i in nodes}
        directions = {k: Tensor(0.0) for k in (*states, *captured)}
        number = Tensor(0.0)
        recording.inputs = [("number", t) for t in (*handles.values(), *directions.values(), number)]
        recording.begin()
        handles |= {i: _constant(values[i]) for i in np.flatnonzero(op == NODE_CONSTANT).tolist()}
        found = _Sweep(body, loop, {**handles, NUMBER: number}).tangents(directions)
        after = [found.get(handles[results[j]]) for j in states]
        return [Tensor(0.0) if t is None else t for t in after]

    return _joined(body, loop, _recorded(tangents), nodes, len(states), len(states) + len(captured))


def _constant(value: float) -> Tensor:
    """A number as an operand has it, which rules see as one."""
    return ((Tensor(1.0) * value)._parents[1:] or (Tensor(value),))[0]


def _recorded(call: Callable[[Any], list[Tensor]]) -> Any:
    """The graph of a call, whatever is being recorded around it."""
    recording, outer = Recording(), current_recording()
    try:
        if outer is None:
            with recording:
                return extract(recording, call(recording))
        recording.inside(outer)
        try:
            with record():
                results = call(recording)
        finally:
            recording.leave()
        return extract(recording, results)
    except NotReplayable:
        raise BodyLeaks from None


class _Sweep(Partials):
    """A forward sweep over the nodes of a body, for which `handles` stand."""

    def __init__(self, body: Body, loop: Rolled, handles: dict[int, Tensor]) -> None:
        super().__init__(())
        self.body, self.loop, self.handles = body, loop, handles
        self.found: dict[Tensor, Tensor] = {}

    def tangents(self, directions: dict[int, Tensor]) -> dict[Tensor, Tensor]:
        """By handle, the tangent.  directions: by number of the state, and of what is captured after that."""
        columns, numbers = self.body.columns, {*self.body.numbers, *self.body.own}
        op, a, b, stopped = (columns[name].tolist() for name in ("op", "a", "b", "stopped"))
        with ieee():
            for i, code in enumerate(op):
                if code == NODE_INPUT and i not in numbers:
                    given = directions.get(b[i] if a[i] == 0 else self.loop.state + b[i])
                    if given is not None and not stopped[i]:
                        self.found[self.handles[i]] = given
                elif code == NODE_ITEM and b[i] == 0 and not stopped[i]:
                    self.of_item(self.body.items[a[i]])
                elif code > NODE_CONSTANT and code not in (NODE_ITEM, NODE_COPY) and not stopped[i]:
                    name, arity = _NAMES[code & TABLE]
                    self.add(i, name, [a[i], b[i]][:arity], ())
        return self.found

    def add(self, i: int, name: str, operands: Sequence[int], numbers: tuple[int, ...]) -> None:
        """The tangent of a node, if it has one."""
        node, some = self.handles[i], [self.handles[k] for k in operands]
        if not any(t in self.found for t in some):
            return
        for operand, partial in self._by_operand(name, node, some, numbers):
            if operand in self.found:
                partial = partial() if callable(partial) else partial
                if not (isinstance(partial, float) and partial == 0.0):
                    part = send(self.found[operand], partial)
                    self.found[node] = self.found[node] + part if node in self.found else part

    def of_item(self, item: tuple[Any, ...]) -> None:
        kind, first, outputs, x = item[:4]
        flat = x.ravel().tolist()
        if kind == "call":
            operands = [self.handles[k] for k in flat]
            tangents = [self.found.get(t) for t in operands]
            if any(t is not None for t in tangents):
                for j, t in enumerate(Derivatives(item[4], 0).pushed(operands, tangents, True)):
                    if t is not None:
                        self.found[self.handles[first + j]] = t
            return
        for j in range(outputs if kind not in ("argmax", "argmin") else 0):
            if kind == "affine":
                self.add(first + j, "linear", [*flat, *item[4][:, j].tolist(), int(item[5][j])], ())
            elif kind == "gather":
                chosen = NUMBER if item[4] >= 0 else int(item[5][0])
                self.add(first + j, kind, [*flat, chosen], (outputs, j))
            elif kind == "cross_entropy":
                self.add(first + j, kind, flat, (0, len(flat), item[5]))
            else:
                self.add(first + j, kind, flat, (item[4],) if kind == "where" else (j,))


def is_smooth(loop: Rolled) -> bool:
    """Whether all that its bodies have in them has rules here."""
    known = ("affine", "logsumexp", "softmax", "gather", "where", "max", "min", "argmax", "argmin")

    def is_known(item: tuple[Any, ...]) -> bool:
        if item[0] == "call":
            return isinstance(item[4], Pullback) or (isinstance(item[4], Rolled) and is_smooth(item[4]))
        return item[0] in known or (item[0] == "cross_entropy" and item[4] < 0)

    return not loop.has_own and all(is_known(item) for body in loop.bodies for item in body.items)


def _joined(body: Body, loop: Rolled, found: Any, nodes: list[int], states: int, directions: int) -> Body:
    """A body, and after it the graph of its tangents, whose inputs are these nodes of the body, directions, of which so
    many are those of numbers of the state, and the number of the iteration."""
    if len(found.guards) or found.captures or found.draws:
        raise BodyLeaks
    columns, n = body.columns, len(body.columns["op"])
    inputs = found.op == NODE_INPUT
    at = n + np.arange(len(found.op))
    known = inputs & (found.a < len(nodes))
    at[known] = np.array(nodes, np.int64)[found.a[known]] if nodes else 0
    a, b = found.a.astype(np.int64), found.b.astype(np.int64)
    computed = (found.op > NODE_CONSTANT) | (found.op == NODE_COPY)
    a[computed], b[computed & (b >= 0)] = at[a[computed]], at[b[computed & (b >= 0)]]
    a[found.op == NODE_ITEM] += len(body.items)
    direction = found.a - len(nodes)
    of_state = inputs & ~known & (direction < states)
    of_captured = inputs & (direction >= states) & (direction < directions)
    a[of_state], b[of_state] = 0, loop.state + direction[of_state]
    a[of_captured], b[of_captured] = 1, loop.captured + direction[of_captured] - states
    a[known] = b[known] = 0                      # nothing reads these any more
    op = np.where(known, NODE_CONSTANT, found.op)
    new = {"a": a, "b": b, "op": op, "value": found.value, "stopped": found.stopped}
    joined = {name: np.concatenate([columns[name], some.astype(columns[name].dtype)]) for name, some in new.items()}
    items = [*body.items, *moved_items(found.items, at)]
    results = [*columns["results"].tolist(), *at[found.results].tolist()]
    graph = graph_of(body.graph, joined, joined, items, body.graph.guards, results)
    graph.operations = body.graph.operations + found.operations
    numbers = [*body.numbers, *at[inputs & (direction == directions)].tolist()]
    return Body(graph, numbers, body.leaves, body.drawn, body.ends)


# --- backwards ---


def pulled_through(
    loop: Rolled, operands: Sequence[Any], adjoints: dict[int, Any], blind: bool = False
) -> Tangents:
    given = [*operands, *(adjoints.get(k, 0.0) for k in range(loop.outputs))]
    sent: Tangents = _computed(Pullback(loop), given, blind)
    if not loop.decides:
        reached = {i for k in adjoints for i in loop.sources[k]}
        sent = [t if i in reached else None for i, t in enumerate(sent)]
    return [*sent, *[None] * (len(operands) - len(sent))]


class Pullback:
    """What adjoints of the results of a loop are for its state and for what it captures of the row: the callee of an
    item, as the loop is.

    Operands: those of the loop, and the adjoints."""

    kind = "pullback"

    def __init__(self, loop: Rolled) -> None:
        if not is_smooth(loop):
            raise BodyLeaks
        self.loop = loop

    @property
    def outputs(self) -> int:
        return self.loop.state + self.loop.captured

    @property
    def operands(self) -> int:
        return self.loop.operands + self.loop.outputs

    @property
    def said(self) -> str:
        return f"derivative of a {self.loop.said}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pullback) and self.loop == other.loop

    __hash__ = object.__hash__

    # --- what is asked of a loop ---

    bodies = property(attrgetter("loop.bodies"))
    sites = property(attrgetter("loop.sites"))
    decides = property(attrgetter("loop.decides"))
    ways = property(attrgetter("loop.ways"))
    captured = property(attrgetter("loop.captured"))
    leaves = property(attrgetter("loop.leaves"))

    def copied(self) -> Pullback:
        return Pullback(self.loop.copied())

    def is_like(self, other: Any) -> bool:
        return isinstance(other, Pullback) and self.loop.is_like(other.loop)

    def add(self, body: Body, captured: int, leaves: int) -> None:
        self.loop.add(body, captured, leaves)

    # --- derivatives ---

    def with_tangents(self) -> Rolled:
        return tangent_loop(self.loop, tuple(range(self.outputs)))

    def pushed(self, operands: Sequence[Any], tangents: Tangents, blind: bool = False) -> Tangents:
        """How what is sent changes with the operands: the way back through the loop with tangents, of which the
        adjoint of the tangents is what that of the results was, and the other way round."""
        loop, n = self.loop, self.loop.operands
        made, both = along(loop, operands, tangents)
        states = active_states(loop, [k for k in range(self.outputs) if tangents[k] is not None])
        adjoints = {k: t for k, t in enumerate(tangents[n:]) if t is not None}
        adjoints |= {loop.state + k: operands[n + j] for k, j in enumerate(states)}
        sent = pulled_through(made, both, adjoints, blind)
        return [*sent[: loop.state], *sent[made.state : made.state + loop.captured]]

    def pulled(self, operands: Sequence[Any], adjoints: dict[int, Any]) -> Tangents:
        """Against a direction u in which the loop changes: u is what the adjoints of this are."""
        loop, n = self.loop, self.loop.operands
        rest: Tangents = [None] * (n - self.outputs)
        direction = [*(adjoints.get(k) for k in range(self.outputs)), *rest]
        sent = self.pushed(operands, [*direction, *[None] * loop.outputs])
        return [*sent, *rest, *pushed_through(loop, operands[:n], direction)]

    # --- what the executor calls ---

    def of_rows(self, chunk: Any) -> _PullbackChunk:
        return _PullbackChunk(self, chunk)


class _PullbackChunk:
    """The way back through a loop, for the rows of one chunk."""

    keeps = False

    def __init__(self, pullback: Pullback, chunk: Any) -> None:
        self.pullback, self.chunk = pullback, chunk

    def sent(self, loop: Rolled, x: np.ndarray, adjoint: np.ndarray, exact: bool) -> tuple[np.ndarray, np.ndarray]:
        """The results of a loop, and what adjoints of them are for its operands.

        Rows of which there is something to say are left out: of the others nothing would be kept beside them."""
        plain, status, rows, stream = self.chunk
        said = np.zeros(len(x), np.uint8)
        run = loop.of_rows((plain, said, rows, stream))
        run.keeps = True
        y = run.forward(x, exact)
        if not said.any():
            sent = run.backward(x, y, adjoint, exact)
            status |= said
            return y, sent
        status |= said
        sent, fine = np.zeros_like(x), np.flatnonzero(said == 0)
        if len(fine):
            others = _PullbackChunk(self.pullback, (plain, said[fine], rows[fine], stream))
            y[fine], sent[fine] = others.sent(loop, x[fine], adjoint[fine], exact)
            status[fine] |= others.chunk[1]
        return y, sent

    def forward(self, x: np.ndarray, exact: bool) -> np.ndarray:
        n = self.pullback.loop.operands
        _, sent = self.sent(self.pullback.loop, np.ascontiguousarray(x[:, :n]), x[:, n:].copy(), exact)
        return sent[:, : self.pullback.outputs]

    def backward(self, x: np.ndarray, y: np.ndarray, adjoint: np.ndarray, exact: bool) -> np.ndarray:
        loop, n, first = self.pullback.loop, self.pullback.loop.operands, self.pullback.outputs
        state, made = loop.state, self.pullback.with_tangents()
        both = np.concatenate(
            [x[:, :state], adjoint[:, :state], x[:, state:first], adjoint[:, state:], x[:, first:n]], axis=1
        )
        seed = np.zeros((len(x), made.outputs))
        seed[:, state:] = x[:, n:]
        of_loop, sent = self.sent(made, both, seed, exact)
        after = made.state + made.captured
        return np.concatenate(
            [sent[:, :state], sent[:, made.state : made.state + loop.captured],
             sent[:, after : after + n - first], of_loop[:, state:]], axis=1
        )  # fmt: skip
