"""Recording loops as one instruction: what `fs.loop` and `fs.while_loop` do while a function is recorded.

A step is recorded by itself, as a graph whose inputs are the state, the number of the iteration, and what the step
reads of the function around it.  A decision in it that comes out otherwise in a later iteration makes another body.
What that does not serve (a step that counts by itself, decides in too many ways, reads a number of every iteration,
or leaves something of an iteration behind) ends in `BodyLeaks`, and the function is recorded with its loops unrolled.

The boundary: calls steps and makes bodies; `rolled` is the instruction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import elementwise
from fastscalar.engine._modes import current_recording
from fastscalar.engine._random import UNIFORM, current_stream
from fastscalar.engine._rules import values_of
from fastscalar.engine._traced import TracedInt
from fastscalar.program import found
from fastscalar.program._graph import NODE_INPUT, NODE_PARAMETER, READ_SAME
from fastscalar.program._replay import RowStatus
from fastscalar.program._trace import BodyLeaks, NotReplayable, Recording, extract
from fastscalar.program.differentiated import is_smooth, outputs_of
from fastscalar.program.rolled import FOREVER, FOUND, Body, Rolled, is_loop
from fastscalar.program.whole_states import bounded, is_exact, is_whole

UNROLLED = 64  # steps, known beforehand: so many are recorded one by one, which is as fast and any derivative passes
BODIES = 16  # of one loop, with those of loops in it
OPERANDS = 10_000  # numbers that a loop reads
RESULTS = 1_000  # of a function with found loops, which its derivatives carry through these
ITERATION = 1 << 20  # the argument that the number of an iteration counts as, while a step is recorded; plus the depth


class _Nest:
    """The structure of a state: its numbers, and a state of other numbers."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def leaves(self, state: Any) -> list[Any]:
        if isinstance(state, dict):
            return [t for key in self_keys(state) for t in self.leaves(state[key])]
        if isinstance(state, (tuple, list)):
            return [t for part in state for t in self.leaves(part)]
        if isinstance(state, TensorArray):
            return list(state.reshape(-1)) if state.size else []
        if isinstance(state, np.ndarray):
            return [t for part in state.ravel().tolist() for t in self.leaves(part)]
        return [state]

    def flat(self, state: Any) -> list[Any]:
        return [
            x.tensor if isinstance(x, TracedInt) else x if isinstance(x, Tensor) else float(x)
            for x in self.leaves(state)
        ]

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
    if recording is None or recording.unrolled or not isinstance(recording, Recording):
        return False
    return count is None or (count.value > 0 if isinstance(count, TracedInt) else count > UNROLLED)


class _Recorder:
    """Records the bodies of one loop, for the row whose function is being recorded."""

    def __init__(self, outer: Any, kind: str, count: Any, numbered: bool, state: Any) -> None:
        self.outer, self.nest, self.numbered = outer, _Nest(state), numbered
        leaves = self.nest.leaves(state)
        if not leaves or not all(map(is_exact, leaves)):
            raise BodyLeaks
        self.first = self.nest.flat(state)
        self.whole = {k for k, leaf in enumerate(leaves) if is_whole(leaf)}
        self.loop = Rolled(kind, len(self.first), numbered, count if type(count) is int else None)
        self.captured = _Places()                # numbers of the row, and
        self.leaves = _Places()                  # leaves that the bodies read
        self.before = current_stream().drawn     # by site

    def record(self, k: int, state: np.ndarray, call: Callable[[int, Any, Any], Any]) -> Body:
        """The body of iteration k.  call: does a step, of the iteration, what stands for its number, and a state; None
        ends the loop."""
        recording, stream = Recording(), current_stream()
        before, before_here = stream.drawn, stream.drawn_here
        values = state[0, : self.loop.outputs]
        recording.inside(self.outer)
        try:
            handles = [Tensor(v) for v in values.tolist()]
            recording.inputs = [("number", handle) for handle in handles]
            number: Any = None
            if self.numbered:
                number = TracedInt(k, Tensor(float(k)), ITERATION + len(self.outer.bodies))
                recording.inputs.append(("whole", number))
            recording.begin()
            try:
                found = call(k, number, self.nest.made(iter(handles)))
            except Exception:
                self.outer.raised_in_loop = True
                raise
            if recording.raised_in_loop:         # and was caught here
                raise BodyLeaks
            ends = found is None
            results = handles if ends else [
                t if isinstance(t, Tensor) else Tensor(t) for t in self.nest.flat(found)
            ]  # fmt: skip
        finally:
            recording.leave()
            drawn = {site: n - before.get(site, 0) for site, n in stream.drawn.items() if n != before.get(site, 0)}
            stream.rewind(before)
        try:
            graph = extract(recording, results)
        except NotReplayable:
            raise BodyLeaks from None
        graph.draws = [(*draw[:5], draw[5] - before_here.get(draw[3], 0)) for draw in graph.draws]
        for site in drawn:                       # a site whose numbers are not used counts them too
            self.loop.sites.setdefault(site, before_here.get(site, 0))
        return self.body(recording, graph, ends, number, drawn)

    def body(self, recording: Any, graph: Any, ends: bool, number: Any, drawn: dict[int, int]) -> Body:
        """The graph with the state as input 0 and what is captured of the row as input 1."""
        guards, width = graph.guards, self.loop.outputs
        if graph.uncertain or len(graph.results) != width or (drawn and self.outer.cut):
            raise BodyLeaks
        of_number = graph.op.take(guards["left"]) == NODE_INPUT
        of_number &= graph.a.take(guards["left"]) == width
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
                item = (*item[:4], 0, *item[5:])
            items.append(item)
        graph.set_items(items)
        graph.op, graph.a, graph.b = op, a, b
        if self.whole:
            bounded(graph, self.whole, last)
        elif number is None and not drawn:
            graph = found.with_found_loops(graph)
        return Body(graph, last, leaves, drawn, ends)

    def add(self, body: Body, values: np.ndarray) -> np.ndarray:
        """Take up a body; the numbers of the state, with what was drawn at sites that are new."""
        ways = self.loop.ways
        if ways < BODIES and body not in self.loop.bodies:
            self.loop.add(body, len(self.captured), len(self.leaves))
        if self.loop.ways == ways:
            raise BodyLeaks
        drawn = list(self.loop.sites.values())[values.shape[1] - self.loop.outputs :]
        return np.concatenate([values, np.array([drawn], float)], axis=1)

    def run(self, call: Callable[[int, Any, Any], Any], last: int) -> np.ndarray:
        """The numbers of the state at the end, for the row that is recorded; bodies are made on the way.

        After 1, 2, 4, 8, ... iterations a step is recorded once more, and has to do what a body does: so a step that
        keeps count by itself is found out."""
        values = values_of([t if isinstance(t, Tensor) else Tensor(t) for t in self.first])[None]
        self.way = "exact"
        values = self.add(self.record(0, values, call), values)
        k = 0
        while True:
            until = min(last, max(1, 2 * k))
            k, status, ended = self.advance(values, k, until)
            if ended or (not status and k == last):
                return values[0]
            if not status:
                status = self.advance(values.copy(), k, k + 1)[1]
            news = self.record(k, values, call)          # raises what the step raises
            if status & (RowStatus.GUARD_FAILED | RowStatus.MAY_RAISE):
                values = self.add(news, values)
            elif status or not (news in self.loop.bodies or self.loop.take_in(news)):
                raise BodyLeaks

    def advance(self, values: np.ndarray, k: int, until: int) -> tuple[int, int, bool]:
        """The iteration that was come to, what there is to say, and whether the loop has ended there."""
        loop, stream = self.loop, current_stream()
        ended, status = np.full(1, until, np.int64), np.zeros(1, np.uint8)
        iterations = loop.take(self.way, 1)
        loop.load(iterations, self.leaves.values())
        before = {site: n - loop.sites[site] for site, n in self.before.items() if site in loop.sites}
        iterations.draw(stream.seed, stream.epoch, stream.antithetic, before, np.array([stream.row]))
        iterations.values(values, self.captured.values()[None], ended, status, k, until)
        loop.give(iterations, self.way, 1)
        if status[0] & RowStatus.ORDER_MATTERS and self.way != "plain":
            self.way = "plain"                   # a number is not finite, or nearly so
            return self.advance(values, int(ended[0]), until)
        return int(ended[0]), int(status[0]), not status[0] and ended[0] < until


def shortened(recording: Recording, first: int, results: list[Tensor]) -> list[Tensor]:
    """Numbers that were recorded from a node on, before they are differentiated: if there are found loops in it, the
    results of one instruction that has these in its body, so that what is derived of it has loops too.

    What was decided, and what may raise, stays in the recording as it is."""
    if recording.length - first < found.LEAST or len(results) > RESULTS:
        return results
    made = _Recorder(recording, FOUND, 1, False, [0.0] * len(results))
    part = recording.part(first)
    try:
        graph = extract(part, results)
        body = None if graph.draws else made.body(part, graph, False, None, {})
    except (BodyLeaks, NotReplayable):
        return results
    if body is None or not any(is_loop(item) and item[4].kind == FOUND for item in body.items):
        return results
    made.loop.add(body, len(made.captured), len(made.leaves))
    if not is_smooth(made.loop):
        return results
    operands = [*made.first, *made.captured.some, *made.leaves.some]
    return outputs_of(made.loop, operands, values_of(results).tolist())


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
    last = FOREVER if count is None else count if type(count) is int else count.value
    values = made.run(call, last)
    _count_draws(made.loop, outer, dict(zip(made.loop.sites, values[made.loop.outputs :].tolist(), strict=True)))
    values = values[: made.loop.outputs]
    operands = [*made.first, *made.captured.some, *made.leaves.some]
    if isinstance(count, TracedInt):
        operands.append(count.tensor)
    return made.nest.made(iter(outputs_of(made.loop, operands, values.tolist())))


def _count_draws(loop: Rolled, outer: Any, drawn: dict[int, float]) -> None:
    """What was drawn in a loop counts for what is drawn after it.  Where that depends on the row, nothing may be."""
    stream = current_stream()
    for site, n in drawn.items():
        more = int(n) - loop.sites[site]
        if site in outer.uncertain:
            raise BodyLeaks
        stream.skip({site: more})
        if not loop.draws_alike:
            outer.uncertain[site] = loop.sites[site]
        elif more:
            outer.drawn_in_loops.append((UNIFORM, 1, 0.0, site, 0, int(n) - 1))
