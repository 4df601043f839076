"""Loops that nothing says: a recording that repeats becomes a body and a count.

Where operations repeat, each operand has to be one of these in all iterations: of the same iteration; of one before,
which makes it a number of the state; the same node from outside, which is captured; or another node from outside in
each iteration, which makes it one of the iteration's own.  What is read outside is in the state if it is of the last
iteration, and else collected of all.  A body has so many steps of the function that an instruction is worth its while.

The boundary: from a Graph to a Graph; `repeats` says where to look, `rolled` is the instruction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastscalar.program._graph import (
    NODE_BLOCK,
    NODE_CONSTANT,
    NODE_COPY,
    NODE_INPUT,
    NODE_ITEM,
    NODE_PARAMETER,
    NODE_RANDOM,
    empty_graph,
)
from fastscalar.program.repeats import BLOCK, Nodes, Operations, Stretch, leaves_read_anew
from fastscalar.program.rolled import FOUND, Body, Rolled

LEAST = 32_768  # operations of what is rolled up: those of 128 rows do not fit a cache any more
BODY = 1_024  # operations of a body, or so
FEWEST = 8  # iterations
MUCH = 32  # times LEAST, where much goes in and out of each iteration: that costs more than operations do
LEAVES = 10_000  # that a body may read
LAG = 4  # iterations that a state reaches back
SHARE = 8  # operations for each leaf that is another one in each iteration: of fewer it may be a matrix


def with_found_loops(graph: Any, least: int | None = None, body: int | None = None) -> Any:
    """The same graph, or one in which what repeats is a loop.  least, body: instead of LEAST and BODY."""
    much = LEAST * MUCH if least is None else least
    least, body = LEAST if least is None else least, BODY if body is None else body
    per_row, graph.per_row = graph.per_row, None
    leaves = max(int(np.count_nonzero(graph.op == NODE_PARAMETER)), leaves_read_anew(graph))
    if SHARE * leaves > len(graph.op):
        return graph                             # matrices: not worth the time and the memory of looking
    while len(graph.op) >= least:
        made = _Rolling(graph, np.ones(len(graph.op), bool) if per_row is None else per_row, least, body, much).rolled()
        if made is None:
            break
        graph, per_row = made
    return graph


class _Fails(Exception):
    """What looked like a loop is none."""


class _Slots:
    """What a body refers to: a column of nodes for each operand, a row for each iteration, and whose it is."""

    def __init__(self) -> None:
        self.columns: list[Nodes] = []
        self.readers: list[tuple[Any, ...]] = []        # by column: ("a", j), ("item", j, part, k), ("guard", k, name)

    def add(self, columns: Nodes, readers: list[tuple[Any, ...]]) -> None:
        self.columns.append(columns)
        self.readers += readers


class _Rolling:
    """A graph in which a loop is looked for."""

    def __init__(self, graph: Any, per_row: Nodes, least: int, body: int, much: int) -> None:
        self.graph, self.per_row, self.items, self.op = graph, per_row, graph.items, graph.op
        self.least, self.body, self.much = least, body, much
        self.operations = Operations(graph)
        self.at, self.number, self.scalar = self.operations.at, self.operations.number, self.operations.scalar
        self.guard_at = self.operations.guard_at

    # --- one loop ---

    def rolled(self) -> tuple[Any, Nodes] | None:
        """A graph with a loop, and which nodes of it depend on the row; None if there is none."""
        if len(self.at) < self.least:
            return None
        for stretch in self.operations.stretches(self.least, FEWEST):
            try:
                return self._roll(stretch)
            except _Fails:
                continue
        return None

    def _roll(self, stretch: Stretch) -> tuple[Any, Nodes]:
        first = stretch.first + self.operations.cut(stretch)
        steps = (stretch.stop - first) // stretch.period
        most = max(1, min(self.body // stretch.period, steps // FEWEST))
        self.width = stretch.period * min(range((most + 1) // 2, most + 1), key=lambda u: (steps % u, -u))
        self.first, self.count = first, (stretch.stop - first) // self.width
        for _ in range(4):
            if self.count < FEWEST or self.count * self.width < self.least // 2:
                raise _Fails
            self.slots = _Slots()
            self._take_operands()
            wrong = self._classify()
            middle = self.count // 2
            if not wrong.any():
                break
            low, high = np.flatnonzero(wrong[: middle + 1]), np.flatnonzero(wrong[middle:])
            stop = middle + int(high[0]) if len(high) else self.count
            start = int(low[-1]) + 1 if len(low) else 0
            self.first += start * self.width
            self.count = stop - start
        else:
            raise _Fails
        self._make_state()
        return self._outer(self._body())

    def _take_operands(self) -> None:
        count, width, first = self.count, self.width, self.first
        rows = slice(first, first + count * width)
        for name, operands in zip(("a", "b"), self.operations.operands(rows), strict=True):
            columns = operands.reshape(count, width)
            js = np.flatnonzero(columns[0] >= 0)
            self.slots.add(columns[:, js], [(name, j) for j in js.tolist()])
        self.body_items: list[list[int]] = []
        for j in np.flatnonzero(~self.scalar[first : first + width]).tolist():
            nodes = self.at[rows].reshape(count, width)[:, j]
            if self.graph.b[nodes[0]]:
                continue
            items = self.graph.a[nodes].tolist()
            self.body_items.append(items)
            for part, x in enumerate(self.items[items[0]]):
                if isinstance(x, np.ndarray):
                    if x.size * count > 1 << 24:
                        raise _Fails
                    stacked = np.stack([self.items[i][part].ravel() for i in items])
                    place = len(self.body_items) - 1
                    self.slots.add(stacked, [("item", place, part, k) for k in range(x.size)])
        inside = np.flatnonzero((self.guard_at >= first) & (self.guard_at < first + count * width))
        inside = inside[np.argsort(self.guard_at[inside], kind="stable")]
        if len(inside) % count:
            raise _Fails
        self.guards_inside = inside.reshape(count, -1)
        guards = self.graph.guards[self.guards_inside]
        for name in ("left", "right"):
            ks = [k for k in range(guards.shape[1]) if guards[name][0, k] >= 0]
            self.slots.add(guards[name][:, ks].astype(np.int32), [("guard", k, name) for k in ks])

    def _classify(self) -> Nodes:
        """By iteration, whether any operand is not what it is in the middle one."""
        count, width = self.count, self.width
        slots = self.slot_nodes = np.concatenate([c.reshape(count, -1) for c in self.slots.columns], axis=1)
        self.slots.columns.clear()
        middle = count // 2
        number = self.number[slots[middle]]
        self.relative = number - (self.first + middle * width)
        self.is_inside = (number >= self.first) & (number < self.first + count * width)
        self.lag = np.where(self.is_inside, np.maximum(0, -(self.relative // width)), 0)
        if (self.lag > LAG).any():
            raise _Fails
        right = np.empty(count, bool)
        some = max(1, BLOCK // max(1, slots.shape[1]))
        for k in range(0, count, some):          # in blocks: of all at once the memory would be the most of a recording
            iteration = np.arange(k, min(k + some, count))[:, None]
            number = self.number[slots[k : k + some]]
            inside = (number >= self.first) & (number < self.first + count * width)
            as_middle = inside & (number - (self.first + iteration * width) == self.relative)
            right[k : k + some] = np.where(self.is_inside & (iteration >= self.lag), as_middle, ~inside).all(axis=1)
        return ~right

    # --- its state, and what else it reads ---

    def _make_state(self) -> None:
        """What the body reads, each once: a key of what it is, by column of the slots."""
        self.chains: dict[tuple[Any, ...], int] = {}     # (place in the body, nodes before the first iterations)
        self.read: list[tuple[Any, ...]] = []            # by column
        self.captured: dict[int, int] = {}
        self.leaves: dict[int, int] = {}
        self.own: dict[bytes, tuple[int, Nodes]] = {}
        self.table: dict[bytes, tuple[int, Nodes]] = {}
        self.draws: dict[Any, tuple[Any, ...]] = {}
        self.sites: dict[int, tuple[int, int]] = {}      # site -> drawn before, and by an iteration
        op, graph, nodes = self.op, self.graph, self.slot_nodes
        parameters = 0
        for c, column in enumerate(nodes.T):
            if self.is_inside[c]:
                lag, relative = int(self.lag[c]), int(self.relative[c])
                if lag == 0:
                    self.read.append(("node", relative))
                    continue
                chain = relative + lag * self.width, tuple(nodes[:lag, c].tolist())
                self.chains.setdefault(chain, len(self.chains))
                self.read.append(("state", chain, lag))
                continue
            kinds = op[column]
            if (kinds == NODE_BLOCK).any():
                raise _Fails
            if (kinds == NODE_CONSTANT).all():
                values = graph.value[column]
                bits = values.view(np.uint64)
                if (bits == bits[0]).all():
                    self.read.append(("constant", int(bits[0])))
                else:
                    key = values.tobytes()
                    self.read.append(("table", self.table.setdefault(key, (len(self.table), values))[0]))
            elif (column == column[0]).all():
                node = int(column[0])
                if op[node] == NODE_PARAMETER:
                    self.read.append(("leaf", self.leaves.setdefault(node, len(self.leaves))))
                else:
                    self.read.append(("captured", self.captured.setdefault(node, len(self.captured))))
            elif not ((kinds == NODE_RANDOM).all() and self._draws(column)):
                parameters += bool((kinds == NODE_PARAMETER).any())
                self.read.append(("own", self.own.setdefault(column.tobytes(), (len(self.own), column))[0]))
        if SHARE * parameters > self.width or len(self.leaves) + len(self.captured) > LEAVES:
            raise _Fails                         # what is multiplied by other leaves in each step may be a matrix

    def _draws(self, nodes: Nodes) -> bool:
        """Whether what is drawn in each iteration is what comes next in its stream; then it is read."""
        draws = [self.graph.draws[k] for k in self.graph.a[nodes].tolist()]
        places, at = self.graph.b[nodes], np.array([draw[5] for draw in draws])
        first, step = draws[0], int(at[1] - at[0])
        if step <= 0 or (places != places[0]).any() or any(draw[:5] != first[:5] for draw in draws):
            return False
        before, drawn = self.sites.get(first[3], (int(at[0]), step))
        if drawn != step or (np.diff(at) != step).any():
            return False
        self.sites[first[3]] = min(before, int(at[0])), step
        self.draws.setdefault(first, first)
        self.read.append(("draw", first, int(places[0])))
        return True

    # --- the body ---

    def _body(self) -> Body:
        graph, width = self.graph, self.width
        self._find_read_outside()
        if 4 * (len(self.own) + len(self.collected)) > width and self.count * width < self.much:
            raise _Fails
        ops: list[int] = []
        a: list[int] = []
        b: list[int] = []
        values: list[float] = []
        place: dict[Any, int] = {}

        def node(key: Any, op: int, x: int = 0, y: int = 0, value: float = 0.0) -> None:
            place[key] = len(ops)
            ops.append(op)
            a.append(x)
            b.append(y)
            values.append(value)

        registers: list[tuple[Any, int]] = [
            (chain, lag) for chain in self.chains for lag in range(1, len(chain[1]) + 1)
        ]  # fmt: skip
        for k, (chain, lag) in enumerate(registers):
            node(("state", chain, lag), NODE_INPUT, 0, k)
        for k in self.captured.values():
            node(("captured", k), NODE_INPUT, 1, k)
        own_from = len(ops)
        for k, _ in self.own.values():
            node(("own", k), NODE_INPUT, 1, k)
        for k, _ in self.table.values():
            node(("table", k), NODE_INPUT, 1, len(self.own) + k)
        own_nodes = list(range(own_from, len(ops)))
        for k in self.leaves.values():
            node(("leaf", k), NODE_PARAMETER, k)
        draws: dict[Any, int] = {draw: k for k, draw in enumerate(self.draws)}
        for read in self.read:
            if read not in place and read[0] == "constant":
                node(read, NODE_CONSTANT, value=float(np.uint64(read[1]).view(np.float64)))
            elif read not in place and read[0] == "draw":
                node(read, NODE_RANDOM, draws[read[1]], read[2])
        before = len(ops)
        nodes = self.at[self.first : self.first + width]
        body: Any = empty_graph()
        where = np.array([before + r[1] if r[0] == "node" else place[r] for r in self.read], np.int32)
        body.op = np.concatenate([np.array(ops, np.int32), graph.op[nodes]]).astype(np.int32)
        body.a = np.concatenate([np.array(a, np.int32), graph.a[nodes]]).astype(np.int32)
        body.b = np.concatenate([np.array(b, np.int32), graph.b[nodes]]).astype(np.int32)
        body.value = np.concatenate([np.array(values), graph.value[nodes]])
        body.stopped = np.concatenate([np.zeros(before, np.uint8), graph.stopped[nodes]])
        guards = graph.guards[self.guards_inside[0]].copy()
        parts: dict[tuple[int, int], Nodes] = {}
        for reader, at in zip(self.slots.readers, where.tolist(), strict=True):
            if reader[0] == "a":
                body.a[before + reader[1]] = at
            elif reader[0] == "b":
                body.b[before + reader[1]] = at
            elif reader[0] == "guard":
                guards[reader[2]][reader[1]] = at
            else:
                item, part, k = reader[1:]
                if (item, part) not in parts:
                    parts[item, part] = np.empty(self.items[self.body_items[item][0]][part].shape, np.int32)
                parts[item, part].flat[k] = at
        items = []
        for k, some in enumerate(self.body_items):
            item = self.items[some[0]]
            first = before + int(self.number[item[1]]) - self.first
            body.a[first : first + item[2]] = k
            items.append((item[0], first, *(
                parts[k, part] if isinstance(x, np.ndarray) else x for part, x in enumerate(item[2:], 2))))  # fmt: skip
        body.set_items(items)
        after = [before + chain[0] if lag == 1 else place["state", chain, lag - 1] for chain, lag in registers]
        body.results = np.array([*after, *(before + j for j in self.collected)], np.int32)
        body.guards, body.codes, body.inputs = guards, graph.codes, []
        body.captures = [self._leaf(node) for node in self.leaves]
        body.draws = [(*draw[:5], draw[5] - self.sites[draw[3]][0]) for draw in self.draws]
        body.lists, body.shared = {}, {}
        body.uncertain, body.exact = False, False
        body.operations = int(np.count_nonzero(self.scalar[self.first : self.first + width])) + len(items)
        self.registers = registers
        drawn = {site: step for site, (_, step) in self.sites.items()}
        return Body(body, [], list(range(len(self.leaves))), drawn, False, own_nodes)

    def _leaf(self, node: int) -> Any:
        return self.graph.captures[self.graph.a[node]]

    def _find_read_outside(self) -> None:
        """What of the iterations is read outside: of the last one it is in the state, of others it is collected."""
        graph, stop = self.graph, self.first + self.count * self.width
        outside = np.concatenate(self.operations.operands(slice(stop, None)))
        inside_items = {k for some in self.body_items for k in some}
        parts = [x.ravel() for k, item in enumerate(self.items) if k not in inside_items
                 for x in item[3:] if isinstance(x, np.ndarray)]  # fmt: skip
        chosen = np.ones(len(graph.guards), bool)
        chosen[self.guards_inside.ravel()] = False
        self.guards_outside = chosen
        guards = graph.guards[chosen]
        read = np.unique(np.concatenate([
            outside[outside >= 0], *parts, guards["left"], guards["right"][guards["right"] >= 0], graph.results,
            *graph.lists.values(),
        ]).astype(np.int64))  # fmt: skip
        at = self.number[read]
        read = read[(at >= self.first) & (at < stop)]
        at = self.number[read] - self.first
        iteration, j = at // self.width, at % self.width
        self.collected = {int(k): n for n, k in enumerate(np.unique(j[iteration < self.count - 1]).tolist())}
        self.read_outside = list(zip(read.tolist(), iteration.tolist(), j.tolist(), strict=True))
        known = {chain[0] for chain in self.chains}
        for k in j.tolist():
            if k not in self.collected and k not in known:
                known.add(k)
                self.chains[k, (-1,)] = len(self.chains)

    # --- the graph around it ---

    def _outer(self, body: Body) -> tuple[Any, Nodes]:
        graph, op = self.graph, self.op
        stop = self.first + self.count * self.width
        last = int(self.at[stop - 1])
        gone = np.zeros(len(op), bool)
        gone[self.at[self.first : stop]] = True
        table = np.array([values for _, values in self.table.values()]).T.reshape(self.count, len(self.table))
        loop = Rolled(FOUND, len(self.registers), False, self.count, len(self.own), np.ascontiguousarray(table),
                      len(self.collected))  # fmt: skip
        loop.sites = {site: before for site, (before, _) in self.sites.items()}
        loop.add(body, len(self.captured), len(self.leaves))
        first_values = [chain[1][len(chain[1]) - lag] for chain, lag in self.registers]
        own = np.array([nodes for _, nodes in self.own.values()], np.int64).T.ravel()
        operands = np.array([*first_values, *self.captured, *self.leaves, *own.tolist()], np.int64)
        if not self.registers or (not self.per_row[operands[operands >= 0]].any() and not self.sites):
            raise _Fails                         # iterations side by side; or the same for all rows, and computed once
        kept = self._kept(gone, operands)
        before, after = np.flatnonzero(kept[: last + 1]), last + 1 + np.flatnonzero(kept[last + 1 :])
        zero = len(before)                       # what stands for a state before there is one
        first = zero + 1
        new = np.full(len(op), -1, np.int32)
        new[before] = np.arange(len(before))
        new[after] = first + loop.outputs + np.arange(len(after))
        of_chain = {chain[0]: k for k, (chain, lag) in reversed(list(enumerate(self.registers))) if lag == 1}
        for node, iteration, j in self.read_outside:
            if j in self.collected:
                at = loop.state + iteration * len(self.collected) + self.collected[j]
            else:
                at = of_chain[j]
            new[node] = first + at
        items: list[tuple[Any, ...]] = []
        item_numbers = np.full(len(self.items), -1, np.int64)
        call = ("call", first, loop.outputs, np.where(operands >= 0, new[operands], zero), loop)
        of_call = -1
        moved: dict[int, Nodes] = {}
        for k, item in enumerate(self.items):
            if new[item[1]] < 0 or gone[item[1]]:
                continue
            if item[1] > last and of_call < 0:
                of_call = len(items)
                items.append(call)
            item_numbers[k] = len(items)
            parts = []
            for x in item[3:]:
                if isinstance(x, np.ndarray):
                    if id(x) not in moved:
                        moved[id(x)] = new[x]
                    x = moved[id(x)]
                parts.append(x)
            items.append((item[0], int(new[item[1]]), item[2], *parts))
        if of_call < 0:
            of_call = len(items)
            items.append(call)
        made: Any = empty_graph()
        old = np.concatenate([before, after])
        at_node = new[old]
        n = len(old) + 1 + loop.outputs
        made.op, made.a, made.b = (np.zeros(n, np.int32) for _ in range(3))
        made.value, made.stopped, per_row = np.zeros(n), np.zeros(n, np.uint8), np.ones(n, np.uint8)
        made.op[at_node], made.value[at_node], made.stopped[at_node] = op[old], graph.value[old], graph.stopped[old]
        per_row[at_node] = self.per_row[old]
        draws = np.full(len(graph.draws) + 1, -1, np.int64)
        used = np.unique(graph.a[old[op[old] == NODE_RANDOM]])
        draws[used] = np.arange(len(used))
        a, b, kind = graph.a[old].astype(np.int64), graph.b[old].astype(np.int64), op[old]
        operation = (kind > NODE_CONSTANT) | (kind == NODE_COPY)
        made.a[at_node] = np.where(
            operation, new[a * operation], np.where(
                kind == NODE_ITEM, item_numbers[a * (kind == NODE_ITEM)] if self.items else -1,
                np.where(kind == NODE_RANDOM, draws[a * (kind == NODE_RANDOM)], a)))  # fmt: skip
        made.b[at_node] = np.where(operation & (b >= 0), new[np.maximum(b, 0) * operation], b)
        made.op[zero], per_row[zero] = NODE_CONSTANT, 0
        made.op[first : first + loop.outputs] = NODE_ITEM
        made.a[first : first + loop.outputs] = of_call
        made.b[first : first + loop.outputs] = np.arange(loop.outputs)
        made.set_items(items)
        guards = graph.guards[self.guards_outside].copy()
        guards["left"] = new[guards["left"]]
        guards["right"] = np.where(guards["right"] >= 0, new[guards["right"]], -1)
        number = np.cumsum(self.guards_outside) - 1
        made.lists = {int(number[k]): new[nodes] for k, nodes in graph.lists.items()}
        made.guards, made.codes, made.inputs, made.captures = guards, graph.codes, graph.inputs, graph.captures
        made.results = new[graph.results]
        made.shared, made.operations, made.uncertain = graph.shared, graph.operations, graph.uncertain
        made.draws = [graph.draws[k] for k in used.tolist()]
        for site, (start, step) in self.sites.items():   # what is drawn after it comes after what it draws
            made.draws.append((0, 1, 0.0, site, 0, start + step * self.count - 1))
        return made, per_row

    def _kept(self, gone: Nodes, operands: Nodes) -> Nodes:
        """The nodes that stay: all operations outside of the loop, and what of the others is read by these."""
        graph, op = self.graph, self.op
        kept = ~gone
        source = (self.number < 0) & (op != NODE_BLOCK)
        read = np.zeros(len(op), bool)
        for nodes in self.operations.operands(~gone[self.at]):
            read[nodes[nodes >= 0]] = True
        inside = {k for some in self.body_items for k in some}
        for k, item in enumerate(self.items):
            if k not in inside:
                for x in item[3:]:
                    if isinstance(x, np.ndarray):
                        read[x.ravel()] = True
        guards = graph.guards[self.guards_outside]
        for nodes in (guards["left"], guards["right"][guards["right"] >= 0], graph.results, operands[operands >= 0],
                      *graph.lists.values()):  # fmt: skip
            read[nodes] = True
        return kept & (read | ~source)
