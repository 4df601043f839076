"""Recordings that differ only in which number a whole number of the row selects become one recording.

`probs[label]` of a Python list reads the label: the recording of one label holds for no other.  But the recordings of
two labels are the same operations on the same operands, one of them aside, and that is a gather: node i of the label's
value.  `weights[label]` of plain numbers is a constant that differs: a gather among constants.  Nothing is guessed: a
value is known when a row that has it was recorded and fitted in; or when all that two recordings did with their value
was to take elements of lists that are known (`subscripts`), and what they differ in is just these elements: then the
lists say what every other value selects.

The boundary: reads and makes Graphs (`_program`); `programs` says which rows a recording is for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastscalar.program._graph import (
    ARE_EQUAL,
    NODE_CONSTANT,
    NODE_COPY,
    NODE_INPUT,
    NODE_ITEM,
    READ_SAME,
    graph_of,
    same_items,
)

MOST = 4096  # values of the whole number
PLACES = 64  # operands that it selects

# "a" or "b": the left or the right operand of a node; "result": result k, node n + k; "value": a constant
Place = tuple[str, int]
Chosen = dict[Place, Any]  # what one value of the whole number selects: a node, of a "value" a number


def reads(graph: Any, at: int) -> np.ndarray:
    """Which guards of a graph say that input `at`, a whole number, has its value: not that it is equal to something
    that was computed."""
    guards = graph.guards
    left = guards["left"]
    of_input = (graph.op[left] == NODE_INPUT) & (graph.a[left] == at)
    to_constant = (guards["op"] == ARE_EQUAL) & (guards["value"] != 0.0) & (graph.op[guards["right"]] == NODE_CONSTANT)
    return of_input & ((guards["op"] == READ_SAME) | to_constant)


def same(x: Any, y: Any) -> Any:
    """Which numbers are the same, to the bit; NaN is."""
    return np.asarray(x, float).view(np.int64) == np.asarray(y, float).view(np.int64)


def differences(g: Any, h: Any, at: int) -> Chosen | None:
    """The operands and constants of h that are not those of g; None if the two differ in anything else than input `at`
    and these."""
    if len(g.op) != len(h.op) or g.inputs != h.inputs:
        return None
    if not (np.array_equal(g.op, h.op) and np.array_equal(g.stopped, h.stopped) and same_items(g, h)):
        return None
    one, other = g.guards[~reads(g, at)], h.guards[~reads(h, at)]
    if len(one) != len(other) or any(not np.array_equal(one[f], other[f]) for f in ("op", "left", "right")):
        return None
    if not same(one["value"], other["value"]).all():
        return None
    computed = (g.op > NODE_CONSTANT) | (g.op == NODE_COPY)
    if not all(np.array_equal(getattr(g, f)[~computed], getattr(h, f)[~computed]) for f in ("a", "b")):
        return None
    others = np.flatnonzero((g.op == NODE_CONSTANT) & ~same(g.value, h.value))
    found: Chosen = {("value", i): float(h.value[i]) for i in others[: PLACES + 1].tolist()}
    for field in ("a", "b"):
        x, y = getattr(g, field), getattr(h, field)
        for i in np.flatnonzero(x != y)[: PLACES + 1].tolist():
            if y[i] < 0 or x[i] < 0:
                return None
            found[field, i] = int(y[i])
    if len(g.results) != len(h.results):
        return None
    for k in np.flatnonzero(g.results != h.results)[: PLACES + 1].tolist():
        found["result", len(g.op) + k] = int(h.results[k])
    return found if len(found) <= PLACES else None


def same_choice(x: Chosen | None, y: Chosen) -> bool:
    return x is not None and x.keys() == y.keys() and all(same(x[place], y[place]) for place in x)


def is_one_for_all_rows(g: Any) -> np.ndarray:
    """By node, whether the weights or the bias of a layer are computed from it, which no row can select."""
    found = np.zeros(len(g.op), bool)
    for item in g.items:
        if item[0] in ("affine", "conv2d"):
            found[item[4]] = found[item[5]] = True
    reads = (g.op > NODE_CONSTANT) | (g.op == NODE_COPY)
    for i in np.flatnonzero(reads)[::-1].tolist() if found.any() else ():
        if found[i]:
            found[g.a[i]] = True
            found[g.b[i] if g.b[i] >= 0 else g.a[i]] = True
    return found


def lists_of(graph: Any, at: int) -> list[np.ndarray] | None:
    """What input `at` was an index of, as nodes, in the order of the readings; None if it was read otherwise too."""
    found = [graph.lists.get(int(k)) for k in np.flatnonzero(reads(graph, at))]
    return None if any(table is None for table in found) else found


class Family:
    """Recordings of the values of one whole number, input `at`; the first of them is the pattern."""

    def __init__(self, graph: Any, at: int, value: int) -> None:
        self.pattern, self.at, self.value = graph, at, value
        self.selected: dict[int, Chosen] = {value: {}}
        self.recorded = {value}                  # of these
        self._fixed = is_one_for_all_rows(graph)
        self._places: set[Place] = set()
        self._last = 0                           # of the nodes that are selected

    def add(self, graph: Any, value: int) -> bool:
        """Whether the recording of another value fits in."""
        found = differences(self.pattern, graph, self.at)
        if found is None or not self._enter(value, found):
            return False
        self.recorded.add(value)
        return True

    def _enter(self, value: int, found: Chosen) -> bool:
        if not (0 <= value < MOST and 0 <= self.value < MOST):
            return False
        if any(self._fixed[i] for kind, i in found if kind != "result"):
            return False
        places = self._places | found.keys()
        nodes = (n for place, node in found.items() if place[0] != "value" for n in (node, self._own(place)))
        last = max([self._last, *nodes])
        if len(places) > PLACES or any(last >= i for kind, i in places if kind != "value"):
            return False                         # an operand would come after what reads it
        self.selected[value], self._places, self._last = found, places, last
        return True

    def complete(self, graph: Any, value: int) -> bool:
        """Whether the lists that the pattern and the recording of this value took an element of say what every other
        value selects; then all of them are known."""
        tables = lists_of(self.pattern, self.at)
        others = lists_of(graph, self.at)
        if not tables or not others or [t.tobytes() for t in tables] != [t.tobytes() for t in others]:
            return False
        size = min(map(len, tables))
        if size > MOST or not 0 <= self.value < size or not 0 <= value < size:
            return False
        if any(table[self.value] == table[value] for table in tables):
            return False                         # what is taken twice would not show where it is used
        columns: dict[Place, np.ndarray] = {}
        for place, chosen in self.selected[value].items():
            fitting = [
                t for t in tables if place[0] != "value" and t[self.value] == self._own(place) and t[value] == chosen
            ]
            if not fitting or any((t[:size] != fitting[0][:size]).any() for t in fitting):
                return False
            columns[place] = fitting[0]
        before = self.selected, self._places, self._last
        self.selected = dict(self.selected)
        for v in range(size):
            own = {place: t[v].item() for place, t in columns.items() if t[v] != t[self.value]}
            if not same_choice(self.selected.get(v, own), own) or not self._enter(v, own):
                self.selected, self._places, self._last = before
                return False
        return True

    def predicts(self, graph: Any, value: int) -> bool:
        """Whether lists say of a value what its recording says."""
        return value in self.selected and same_choice(differences(self.pattern, graph, self.at), self.selected[value])

    def forget_lists(self) -> None:
        """Know only what was recorded."""
        self.selected = {value: found for value, found in self.selected.items() if value in self.recorded}

    def _own(self, place: Place) -> Any:
        field, i = place
        if field == "result":
            return int(self.pattern.results[i - len(self.pattern.op)])
        return getattr(self.pattern, field)[i].item()

    def _tables(self) -> dict[tuple[Any, ...], list[Place]]:
        """What the values 0, 1, ... select, and where that is read.  Of numbers, which are no nodes, their bits."""
        places = sorted({place for places in self.selected.values() for place in places}, key=lambda p: (p[1], p[0]))
        tables: dict[tuple[Any, ...], list[Place]] = {}
        for place in places:
            own = self._own(place)
            row = [own] * (max(self.selected) + 1)
            for value, chosen in self.selected.items():
                row[value] = chosen.get(place, own)
            key = ("value", np.array(row).tobytes()) if place[0] == "value" else tuple(row)
            tables.setdefault(key, []).append(place)
        return tables

    def graph(self) -> Any:
        """The recording of all of these values: each place reads what a gather gives."""
        all_tables = self._tables()
        tables = {table: some for table, some in all_tables.items() if table[0] != "value"}
        numbers = {table[1]: [i for _, i in some] for table, some in all_tables.items() if table[0] == "value"}
        g = _gathering_constants(self.pattern, numbers, self.at)
        more = len(g.op) - len(self.pattern.op)
        read = reads(self.pattern, self.at)
        tables = {
            tuple(node + more for node in table): [(field, i + more) for field, i in some]
            for table, some in tables.items()
        }
        n = len(g.op)
        behind = np.arange(1, n + 1)             # the outputs of one item stay side by side
        for _, first, count, *_ in g.items:
            behind[first : first + count] = first + count
        starts = np.array(sorted(behind[max(table)] for table in tables), np.int64)  # gathers behind their candidates
        moved = np.arange(n) + np.searchsorted(starts, np.arange(n), side="right")
        of_table = dict(zip(sorted(tables, key=max), starts + np.arange(len(starts)), strict=True))
        where = {place: int(of_table[table]) for table, some in tables.items() for place in some}
        columns = {name: _scattered(getattr(g, name), moved, n + len(starts)) for name in ("op", "value", "stopped")}
        operands: dict[str, np.ndarray] = {}
        for field in ("a", "b"):
            column = getattr(g, field).astype(np.int64)
            refers = ((g.op > NODE_CONSTANT) | (g.op == NODE_COPY)) & (column >= 0)
            column[refers] = moved[column[refers]]
            for (name, i), node in where.items():
                if name == field:
                    column[i] = node
            operands[field] = _scattered(column.astype(np.int32), moved, n + len(starts))
        items = [_renamed(item, moved) for item in g.items]
        for table, node in of_table.items():
            columns["op"][node], columns["value"][node] = NODE_ITEM, g.value[table[0]]
            operands["a"][node], operands["b"][node] = len(items), 0
            items.append(("gather", int(node), 1, moved[np.array(table)].astype(np.int32), self.at))
        guards = _renamed_guards(g.guards[~read], moved)
        results = [where.get(("result", n + k), int(moved[node])) for k, node in enumerate(g.results)]
        return graph_of(g, columns, operands, items, guards, results)


def _gathering_constants(g: Any, numbers: dict[bytes, list[int]], at: int) -> Any:
    """A graph in which some constants are what input `at` selects of numbers: by these, as bytes, the constants.

    The numbers are constants before all other nodes, and the gather takes the place of the constant."""
    if not numbers:
        return g
    bits = {table: np.frombuffer(table, np.int64) for table in numbers}
    known = np.unique(np.concatenate(list(bits.values())))
    k, n = len(known), len(g.op)
    moved = np.arange(k, k + n)
    columns = {
        "op": np.concatenate([np.full(k, NODE_CONSTANT, g.op.dtype), g.op]),
        "value": np.concatenate([known.view(np.float64), g.value]),
        "stopped": np.concatenate([np.zeros(k, g.stopped.dtype), g.stopped]),
    }
    refers = (g.op > NODE_CONSTANT) | (g.op == NODE_COPY)
    operands = {
        field: np.concatenate([np.zeros(k, np.int32), np.where(refers & (column >= 0), column + k, column)])
        for field, column in (("a", g.a), ("b", g.b))
    }
    items = [_renamed(item, moved) for item in g.items]
    for table, places in numbers.items():
        candidates = np.searchsorted(known, bits[table]).astype(np.int32)
        for i in places:
            columns["op"][i + k], operands["a"][i + k], operands["b"][i + k] = NODE_ITEM, len(items), 0
            items.append(("gather", i + k, 1, candidates, at))
    return graph_of(g, columns, operands, items, _renamed_guards(g.guards, moved), g.results + k)


def _renamed_guards(guards: np.ndarray, moved: np.ndarray) -> np.ndarray:
    guards = guards.copy()
    guards["left"] = moved[guards["left"]]
    right = guards["right"] >= 0
    guards["right"][right] = moved[guards["right"][right]]
    return guards


def _scattered(column: np.ndarray, moved: np.ndarray, n: int) -> np.ndarray:
    out = np.zeros(n, column.dtype)
    out[moved] = column
    return out


def _renamed(item: Any, moved: np.ndarray) -> Any:
    """An item with its nodes where they are now: its first output, and its operands, which are arrays."""
    arrays = (moved[part].astype(np.int32) if isinstance(part, np.ndarray) else part for part in item[3:])
    return (item[0], int(moved[item[1]]), item[2], *arrays)
