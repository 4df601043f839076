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
        if status[0] & RowStatus.ORDER_MATTERS and not plain:
            plain = True                         # a number is not finite, or nearly so
        elif status[0]:
            raise BodyLeaks
        else:
            return outputs_of(callee, operands, values[0].tolist())


# --- what of a loop has derivatives, by column: of what each iteration has of its own the operands of the first one ---


def smooth_operands(loop: Rolled) -> list[int]:
    """The operands that have derivatives: the state, what is captured of the row, what the iterations have of their
    own."""
    return [*range(loop.first), *range(loop.second, loop.second + loop.own * (loop.count or 0))]


def _column(place: int, first: int, several: int) -> int:
    """Of an operand, or a result, of all iterations the one of the first."""
    return place if place < first else first + (place - first) % several


def active_columns(loop: Rolled, tangents: Tangents) -> tuple[int, ...]:
    """The columns in which an operand has a tangent."""
    return tuple(sorted(
        {_column(k, loop.second, loop.own) for k in smooth_operands(loop) if tangents[k] is not None}
    ))  # fmt: skip


def active_results(loop: Rolled, active: Sequence[int]) -> list[int]:
    """The columns of results, of the state in some iteration, that have a tangent if these columns have one."""
    if loop.decides:                             # other bodies may be met yet
        return list(range(loop.state + loop.collected))
    given = set(active)
    state, sources = range(loop.state), loop.sources
    return [j for j, some in enumerate(sources) if (j in state and j in given) or given.intersection(some)]


def places_of_tangents(loop: Rolled, made: Rolled, results: Sequence[int]) -> list[tuple[int, int]]:
    """(result of a loop, that of the loop with tangents that is its tangent)."""
    states = sum(j < loop.state for j in results)
    pairs = [(j, loop.state + k) for k, j in enumerate(results[:states])]
    for i in range(loop.count or 0):
        before, at = loop.state + i * loop.collected, made.state + i * made.collected + loop.collected
        pairs += [(before + j - loop.state, at + k) for k, j in enumerate(results[states:])]
    return pairs


# --- forwards ---


def tangent_loop(loop: Rolled, active: tuple[int, ...]) -> Rolled:
    """The loop whose state has tangents beside its numbers; those of what is captured, collected, and had by each
    iteration, come after that.  active: the columns that have a tangent."""
    with loop._lock:
        results = active_results(loop, active)
        states = sum(j < loop.state for j in results)
        captured = [k for k in active if loop.state <= k < loop.first]
        own = [k for k in active if k >= loop.second]
        made = loop.tangents.get(active)
        if made is None:
            made = Rolled(loop.kind, loop.state + states, loop.numbered, loop.count, loop.own + len(own), loop.table,
                          loop.collected + len(results) - states)  # fmt: skip
            made.sites = dict(loop.sites)
        for body in loop.bodies[len(made.bodies) :]:
            made.add(_with_tangents(body, loop, results, captured, own), loop.captured + len(captured), loop.leaves)
        loop.tangents[active] = made
        return made


def along(loop: Rolled, operands: Sequence[Any], tangents: Tangents, zero: Any = 0.0) -> tuple[Rolled, list[Any]]:
    """The loop with tangents, and its operands.  tangents: of the operands."""
    active = active_columns(loop, tangents)
    states = [j for j in active_results(loop, active) if j < loop.state]
    own: list[Any] = []
    for at in range(loop.second, loop.second + loop.own * (loop.count or 0), max(1, loop.own)):
        own += operands[at : at + loop.own]
        own += [tangents[at + k - loop.second] for k in active if k >= loop.second]
    after = loop.second + loop.own * (loop.count or 0)
    return tangent_loop(loop, active), [zero if t is None else t for t in (
        *operands[: loop.state], *(tangents[j] for j in states),
        *operands[loop.state : loop.first], *(tangents[k] for k in active if loop.state <= k < loop.first),
        *operands[loop.first : loop.second], *own, *operands[after : loop.operands],
    )]  # fmt: skip


def pushed_through(loop: Rolled, operands: Sequence[Any], tangents: Tangents, blind: bool = False) -> Tangents:
    active = active_columns(loop, tangents)
    made, both = along(loop, operands, tangents)
    outputs = _computed(made, both, blind)
    found: Tangents = [None] * loop.outputs
    for j, k in places_of_tangents(loop, made, active_results(loop, active)):
        if loop.decides or set(active).intersection(loop.sources[_column(j, loop.state, loop.collected)]):
            found[j] = outputs[k]
    return found


def _with_tangents(
    body: Body, loop: Rolled, outputs: Sequence[int], captured: Sequence[int], own: Sequence[int]
) -> Body:
    """The body with the tangents of these results, and of what is captured and had by each iteration, beside them."""
    op, values = body.columns["op"], body.columns["value"].tolist()
    nodes = np.flatnonzero(op != NODE_CONSTANT).tolist()
    results = body.columns["results"].tolist()
    states = [j for j in outputs if j < loop.state]

    def tangents(recording: Any) -> list[Tensor]:
        handles = {i: Tensor(values[i]) for i in nodes}
        directions = {k: Tensor(0.0) for k in (*states, *captured, *own)}
        number = Tensor(0.0)
        recording.inputs = [("number", t) for t in (*handles.values(), *directions.values(), number)]
        recording.begin()
        handles |= {i: _constant(values[i]) for i in np.flatnonzero(op == NODE_CONSTANT).tolist()}
        found = _Sweep(body, loop, {**handles, NUMBER: number}).tangents(directions)
        after = [found.get(handles[results[j]]) for j in outputs]
        return [Tensor(0.0) if t is None else t for t in after]

    return _joined(body, loop, _recorded(tangents), nodes, (len(states), len(captured), len(own)))


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
        columns, numbers, own, loop = self.body.columns, set(self.body.numbers), set(self.body.own), self.loop
        op, a, b, stopped = (columns[name].tolist() for name in ("op", "a", "b", "stopped"))
        with ieee():
            for i, code in enumerate(op):
                if code == NODE_INPUT and i not in numbers:
                    first = loop.second if i in own else loop.state if a[i] else 0
                    given = directions.get(first + b[i])
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

    return all(is_known(item) for body in loop.bodies for item in body.items)


def _joined(body: Body, loop: Rolled, found: Any, nodes: list[int], directions: tuple[int, int, int]) -> Body:
    """A body, and after it the graph of its tangents, whose inputs are these nodes of the body, directions (so many of
    numbers of the state, of what is captured, and of what each iteration has of its own), and the number of the
    iteration."""
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
    direction, parts = found.a - len(nodes), []
    for first, count in zip((0, directions[0], sum(directions[:2])), directions, strict=True):
        parts.append(inputs & ~known & (direction >= first) & (direction < first + count))
    for k, (some, before) in enumerate(zip(parts, (loop.state, loop.captured, loop.own), strict=True)):
        a[some], b[some] = min(k, 1), before + direction[some] - sum(directions[:k])
    a[known] = b[known] = 0                      # nothing reads these any more
    op = np.where(known, NODE_CONSTANT, found.op)
    new = {"a": a, "b": b, "op": op, "value": found.value, "stopped": found.stopped}
    joined = {name: np.concatenate([columns[name], some.astype(columns[name].dtype)]) for name, some in new.items()}
    own = np.array(body.own, np.int64)
    joined["b"][own] += directions[2] * (columns["b"][own] >= loop.own)      # what is the same for all rows comes last
    items = [*body.items, *moved_items(found.items, at)]
    of_body, tangents = columns["results"].tolist(), at[found.results].tolist()
    results = [*of_body[: loop.state], *tangents[: directions[0]], *of_body[loop.state :], *tangents[directions[0] :]]
    graph = graph_of(body.graph, joined, joined, items, body.graph.guards, results)
    graph.operations = body.graph.operations + found.operations
    numbers = [*body.numbers, *at[inputs & (direction == sum(directions))].tolist()]
    return Body(graph, numbers, body.leaves, body.drawn, body.ends, [*body.own, *at[parts[2]].tolist()])


# --- backwards ---


def pulled_through(
    loop: Rolled, operands: Sequence[Any], adjoints: dict[int, Any], blind: bool = False
) -> Tangents:
    """What adjoints of some results send to each operand."""
    given = [*operands, *(adjoints.get(k, 0.0) for k in range(loop.outputs))]
    columns = {_column(k, loop.state, loop.collected) for k in adjoints}
    reached = {i for j in columns for i in loop.sources[j]}
    sent: Tangents = [None] * len(operands)
    for k, t in zip(smooth_operands(loop), _computed(Pullback(loop), given, blind), strict=True):
        if loop.decides or _column(k, loop.second, loop.own) in reached:
            sent[k] = t
    return sent


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
        return len(smooth_operands(self.loop))

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
        return tangent_loop(self.loop, self.columns())

    def columns(self) -> tuple[int, ...]:
        return (*range(self.loop.first), *range(self.loop.second, self.loop.second + self.loop.own))

    def pushed(self, operands: Sequence[Any], tangents: Tangents, blind: bool = False) -> Tangents:
        """How what is sent changes with the operands: the way back through the loop with tangents, of which the
        adjoint of the tangents is what that of the results was, and the other way round."""
        loop, n = self.loop, self.loop.operands
        made, both = along(loop, operands, tangents)
        adjoints = {}
        for k, t in enumerate(tangents[n:]):
            if t is not None:
                i, j = divmod(k - loop.state, max(1, loop.collected))
                adjoints[k if k < loop.state else made.state + i * made.collected + j] = t
        pairs = places_of_tangents(loop, made, active_results(loop, active_columns(loop, tangents)))
        adjoints |= {k: operands[n + j] for j, k in pairs}
        sent = pulled_through(made, both, adjoints, blind)
        own = [sent[at + k] for at in range(made.second, made.second + made.own * (made.count or 0), max(1, made.own))
               for k in range(loop.own)]  # fmt: skip
        return [*sent[: loop.state], *sent[made.state : made.state + loop.captured], *own]

    def pulled(self, operands: Sequence[Any], adjoints: dict[int, Any]) -> Tangents:
        """Against a direction u in which the loop changes: u is what the adjoints of this are."""
        loop, n = self.loop, self.loop.operands
        direction: Tangents = [None] * n
        sent = list(direction)
        for k, at in enumerate(smooth_operands(loop)):
            direction[at] = adjoints.get(k)
        pushed = self.pushed(operands, [*direction, *[None] * loop.outputs])
        for at, t in zip(smooth_operands(loop), pushed, strict=True):
            sent[at] = t
        return [*sent, *pushed_through(loop, operands[:n], direction)]

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
        loop, n = self.pullback.loop, self.pullback.loop.operands
        _, sent = self.sent(loop, np.ascontiguousarray(x[:, :n]), x[:, n:].copy(), exact)
        return sent[:, smooth_operands(loop)] if loop.own else sent[:, : loop.first]

    def backward(self, x: np.ndarray, y: np.ndarray, adjoint: np.ndarray, exact: bool) -> np.ndarray:
        loop, n, made = self.pullback.loop, self.pullback.loop.operands, self.pullback.with_tangents()
        state, first, second, count = loop.state, loop.first, loop.second, loop.count or 0
        after = second + loop.own * count
        own = _by_iteration(x[:, second:after], count), _by_iteration(adjoint[:, first:], count)
        both = np.concatenate([
            x[:, :state], adjoint[:, :state], x[:, state:first], adjoint[:, state:first], x[:, first:second],
            np.concatenate(own, axis=2).reshape(len(x), -1), x[:, after:n],
        ], axis=1)  # fmt: skip
        pairs = np.array(places_of_tangents(loop, made, active_results(loop, self.pullback.columns())))
        seed = np.zeros((len(x), made.outputs))
        seed[:, pairs[:, 1]] = x[:, n + pairs[:, 0]]
        of_loop, sent = self.sent(made, both, seed, exact)
        by_adjoint = np.zeros((len(x), loop.outputs))
        by_adjoint[:, pairs[:, 0]] = of_loop[:, pairs[:, 1]]
        own_of_made = _by_iteration(sent[:, made.second : made.second + made.own * count], count)
        return np.concatenate([
            sent[:, :state], sent[:, made.state : made.state + loop.captured], sent[:, made.first : made.second],
            own_of_made[:, :, : loop.own].reshape(len(x), -1), sent[:, made.second + made.own * count :], by_adjoint,
        ], axis=1)  # fmt: skip


def _by_iteration(x: np.ndarray, count: int) -> np.ndarray:
    return x.reshape(len(x), count, -1) if x.shape[1] else np.empty((len(x), count, 0))
