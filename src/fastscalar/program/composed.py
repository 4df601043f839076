"""What bodies pass gradients through, and bodies of many steps: what an iteration costs for itself is shared by these.

The boundary: from a Body to a Body; `rolled` runs them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastscalar.engine._functions import operations
from fastscalar.program._graph import (
    NODE_CONSTANT,
    NODE_COPY,
    NODE_INPUT,
    NODE_ITEM,
    NODE_PARAMETER,
    NODE_RANDOM,
    READ_SAME,
    empty_graph,
)

_CODES = {name: code for code, name, _, _ in operations()}
ADD, TIMES = _CODES["+"], _CODES["*"]


def reaching(body: Any, loop: Any) -> list[int]:
    """By number of the next state, and then of what is collected, which columns of operands pass a gradient to it, as
    bits: state, captured, leaves, what each iteration has of its own."""
    graph, bits, own = body.graph, [0] * len(body.graph.op), set(body.own)
    width, captured, second = loop.state, loop.captured, loop.second
    for i, (op, a, b) in enumerate(zip(graph.op.tolist(), graph.a.tolist(), graph.b.tolist(), strict=True)):
        if graph.stopped[i]:
            continue
        if i in own:
            bits[i] = 1 << second + b if b < loop.own else 0
        elif op == NODE_INPUT and a < 1 + (captured > 0):
            bits[i] = 1 << (b if a == 0 else width + b) if a or b < width else 0
        elif op == NODE_PARAMETER:
            bits[i] = 1 << width + captured + body.leaves[a]
        elif op == NODE_ITEM and graph.items[a][0] not in ("argmax", "argmin"):
            item = graph.items[a]
            operands = item[3][2:] if item[0] == "where" else item[3]
            for part in (operands, *(x for x in item[4:6] if isinstance(x, np.ndarray) and item[0] != "gather")):
                for node in np.ravel(part).tolist():
                    bits[i] |= bits[node]
        elif op > NODE_CONSTANT and op != NODE_ITEM:
            bits[i] = bits[a] | (bits[b] if b >= 0 else 0)
    results = graph.results.tolist()
    return [bits[i] for i in (*results[:width], *results[loop.width :])]


def may_be_composed(body: Any) -> bool:
    """Whether all that an iteration does with its number is arithmetic."""
    return not body.own and not (body.graph.guards["op"] == READ_SAME).any() and not any(
        item[0] == "call" or (item[0] in ("gather", "cross_entropy") and item[4] >= 0) for item in body.items
    )


def composed(body: Any, steps: int) -> tuple[Any, list[int], dict[int, int]]:
    """So many steps after each other: graph, nodes that are the number of such an iteration, what is drawn."""
    columns, pattern = body.columns, body.graph
    op, a, b = columns["op"], columns["a"], columns["b"]
    results, numbers = columns["results"].astype(np.int64), np.array(body.numbers, np.int64)
    is_number = np.zeros(len(op), bool)
    is_number[numbers] = True
    state = (op == NODE_INPUT) & (a == 0) & ~is_number
    new = (op > NODE_CONSTANT) | (op == NODE_COPY) | (op == NODE_ITEM) | (op == NODE_RANDOM)      # in each step
    computed = (op > NODE_CONSTANT) | (op == NODE_COPY)
    places = np.flatnonzero(new)
    parts: list[list[np.ndarray]] = [[columns[name]] for name in ("op", "a", "b", "value", "stopped")]
    n, items, draws, guards = len(op), list(body.items), list(pattern.draws), []

    def append(*some: Any) -> int:
        nonlocal n
        for part, values in zip(parts, some, strict=True):
            part.append(np.asarray(values, part[0].dtype).reshape(-1))
        n += len(parts[0][-1])
        return n - len(parts[0][-1])

    def constant(value: float) -> int:
        return append(NODE_CONSTANT, 0, 0, value, 0)

    first = append(TIMES, numbers[0], constant(float(steps)), 0.0, 0) if len(numbers) else -1
    at, last = np.arange(len(op)), np.arange(len(op))
    for k in range(steps):
        if len(numbers):
            at = at.copy()
            at[numbers] = append(ADD, first, constant(float(k)), 0.0, 0)
        at = at.copy()
        if k:
            at[state] = last[results[b[state]]]
        moved = np.arange(n, n + len(places))
        at[places] = moved
        some_a, some_b = a.astype(np.int64), b.astype(np.int64)
        some_a[computed], some_b[computed & (b >= 0)] = at[a[computed]], at[b[computed & (b >= 0)]]
        some_a[op == NODE_ITEM] += len(items)
        some_a[op == NODE_RANDOM] += len(draws)
        append(op[places], some_a[places], some_b[places], columns["value"][places], columns["stopped"][places])
        items += moved_items(body.items, at)
        guards.append(_moved(pattern.guards, at))
        draws += [(*draw[:5], draw[5] + k * body.drawn.get(draw[3], 0)) for draw in pattern.draws]
        last = at
    return _without_pattern(parts, new, items, draws, np.concatenate(guards), last[results], body, steps)


def moved_items(items: list[Any], at: np.ndarray) -> list[Any]:
    """Items of nodes that lie elsewhere; at: by node, where."""
    return [
        (item[0], int(at[item[1]]), *(at[x].astype(np.int32) if isinstance(x, np.ndarray) else x for x in item[2:]))
        for item in items
    ]  # fmt: skip


def _moved(guards: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Decisions on nodes that lie elsewhere."""
    moved = guards.copy()
    moved["left"], moved["right"] = at[guards["left"]], np.where(guards["right"] >= 0, at[guards["right"]], -1)
    return moved


def _without_pattern(
    parts: Any, new: np.ndarray, items: list[Any], draws: list[Any], guards: np.ndarray, results: np.ndarray,
    body: Any, steps: int,
) -> tuple[Any, list[int], dict[int, int]]:
    """The operations of the body itself go, which stood before those of the steps."""
    columns = [np.concatenate(part) for part in parts]
    op, a, b = columns[:3]
    kept = np.ones(len(op), bool)
    kept[: len(new)] = ~new
    at = np.cumsum(kept) - 1
    computed = (op > NODE_CONSTANT) | (op == NODE_COPY)
    a[computed], b[computed & (b >= 0)] = at[a[computed]], at[b[computed & (b >= 0)]]
    a[op == NODE_ITEM] -= len(body.items)
    a[op == NODE_RANDOM] -= len(body.graph.draws)
    graph: Any = empty_graph()
    graph.op, graph.a, graph.b, graph.value, graph.stopped = (column[kept] for column in columns)
    graph.set_items(moved_items(items[len(body.items) :], at))
    graph.results, graph.draws = at[results].astype(np.int32), draws[len(body.graph.draws) :]
    pattern = body.graph
    graph.guards, graph.codes, graph.captures, graph.inputs = _moved(guards, at), pattern.codes, pattern.captures, []
    graph.lists, graph.shared, graph.uncertain, graph.exact = {}, {}, False, False
    graph.operations = pattern.operations * steps
    return graph, at[body.numbers].tolist(), {site: drawn * steps for site, drawn in body.drawn.items()}
