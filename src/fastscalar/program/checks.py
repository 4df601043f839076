"""What of a recording that was read from a file the executor would trust, and whether it holds.

The boundary: looks at Graphs; `kept` reads them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._functions import operations
from fastscalar.program._graph import (
    NODE_BLOCK,
    NODE_CONSTANT,
    NODE_COPY,
    NODE_INPUT,
    NODE_ITEM,
    NODE_PARAMETER,
    NODE_RANDOM,
    READ_RAISES,
)
from fastscalar.program.rows import WHOLE

LEAVES = (NODE_CONSTANT, NODE_PARAMETER, NODE_INPUT, NODE_ITEM, NODE_COPY, NODE_BLOCK, NODE_RANDOM)
GUARDS = 11  # kinds of guards: the comparisons, same, trunc, floor, ceil, raises
_ARITIES = {code: arity for code, _, arity, _ in operations()}


def shape_of(x: Any) -> tuple[int, ...]:
    require(isinstance(x, list) and all(type(n) is int and n >= 0 for n in x), "a shape")
    return tuple(x)


def require(holds: Any, what: str) -> None:
    if not holds:
        raise ValueError(f"damaged: {what} is not what a program has")


def checked(graph: Any, sizes: list[int], kinds: list[Any]) -> None:
    """ValueError unless a graph is one: nodes read older nodes, what they refer to is there, and of the right size."""
    op, a, b, n = graph.op, graph.a, graph.b, len(graph.op)
    require(n and all(len(c) == n for c in (a, b, graph.value, graph.stopped)), "the columns of a graph")
    at = np.arange(n)
    computed = op > NODE_CONSTANT
    require((computed | np.isin(op, LEAVES)).all(), "an operation")
    binary = np.zeros(n, bool)
    binary[computed] = np.array([_ARITIES.get(int(o) & 0xFF, 0) == 2 for o in op[computed]], bool)
    reads = computed | (op == NODE_COPY)
    require(((a >= 0) & (a < at))[reads].all() and ((b >= 0) & (b < at))[binary].all(), "an operand")
    require((b[reads & ~binary] == -1).all(), "an operand")
    expected = []
    for kind in kinds:
        if kind[0] in WHOLE:
            expected += [("whole", 1)] * math.prod(kind[1] if len(kind) > 1 else ())
        elif kind[0] != "leaf":
            expected.append((kind[0], math.prod(kind[1]) if kind[0] == "array" else 1))
    require(expected == list(zip(graph.inputs, sizes, strict=False)) and len(sizes) == len(expected), "the inputs")
    lengths = [1 if isinstance(c, Tensor) else c.size for c in graph.captures]
    for draw in graph.draws:
        require(len(draw) == 6 and all(type(v) in (int, float) for v in draw), "a draw")
        require(draw[0] in range(3) and all(type(v) is int for v in (*draw[:2], *draw[3:])) and draw[1] > 0, "a draw")
    for name, rows in ((NODE_INPUT, sizes), (NODE_PARAMETER, lengths), (NODE_RANDOM, [d[1] for d in graph.draws])):
        of = op == name
        room = np.array([*rows, 0])
        which, place = a.compress(of), b.compress(of)
        require(((which >= 0) & (which < len(rows))).all(), "a leaf")
        require(((place >= 0) & (place < room.take(which))).all(), "a leaf")
    blocks = np.flatnonzero(op == NODE_BLOCK)
    for i in blocks:
        require(0 <= a[i] < len(lengths) and b[i] > 0 and lengths[a[i]] % b[i] == 0, "a block")
    for k, kind in enumerate(kinds):
        if k in graph.shared:
            require(kind[0] == "leaf" and lengths[graph.shared[k]] == math.prod(kind[1]), "a shared argument")
    require(set(graph.shared) <= set(range(len(kinds))), "a shared argument")
    items = graph.items
    of = op == NODE_ITEM
    require(((a[of] >= 0) & (a[of] < len(items))).all(), "an item")
    outputs = 0
    for k, item in enumerate(items):
        _check_item(graph, item, k, lengths)
        outputs += item[2]
    require(outputs == int(of.sum()), "the outputs of items")
    guards = graph.guards
    left, right, kind = guards["left"], guards["right"], guards["op"]
    require(((left >= 0) & (left < n) & (right >= -1) & (right < n)).all(), "a guard")
    require(((kind >= 0) & (kind < GUARDS) & ((kind > 5) | (right >= 0))).all(), "a guard")
    two = np.array([_ARITIES.get(int(v) & 0xFF, 0) == 2 for v in guards["value"][kind == READ_RAISES]], bool)
    require((right[kind == READ_RAISES][two] >= 0).all(), "a guard")
    require(((guards["code"] >= -1) & (guards["code"] < len(graph.codes))).all(), "a guard")
    results = graph.results
    require(len(results) and ((results >= 0) & (results < n)).all(), "a result")
    single = np.concatenate([a[reads], b[binary], left, right[right >= 0], results])
    require((op.take(single) != NODE_BLOCK).all(), "a block")


_LENGTHS = {"affine": 6, "cross_entropy": 6, "logsumexp": 4, "softmax": 4, "where": 5, "max": 4, "min": 4, "argmax": 4,
            "argmin": 4, "call": 5}  # fmt: skip


def _check_item(graph: Any, item: tuple[Any, ...], k: int, lengths: list[int]) -> None:
    kind, first, count, x = item[:4]
    rows = np.arange(first, first + count)
    require(count > 0 and first >= 0 and first + count <= len(graph.op), "an item")
    require((graph.op.take(rows) == NODE_ITEM).all() and (graph.a.take(rows) == k).all(), "an item")
    require((graph.b[rows] == np.arange(count)).all(), "an item")
    require(len(item) == _LENGTHS[kind] if kind != "gather" else len(item) in (5, 6), "an item")
    arrays = [part for part in item[3:] if isinstance(part, np.ndarray)]
    require(all(((p >= 0) & (p < first)).all() and p.size for p in arrays), "the operands of an item")
    block = x if kind == "gather" else item[4] if kind == "affine" else None
    is_block = block is not None and block.size == 1 and graph.op[int(block.ravel()[0])] == NODE_BLOCK
    for part in arrays:
        require((is_block and part is block) or (graph.op.take(part.ravel()) != NODE_BLOCK).all(), "a block")

    def whole(at: Any) -> None:
        require(type(at) is int and -1 <= at < len(graph.inputs), "an item")
        require(at < 0 or graph.inputs[at] == "whole", "an item")

    if kind == "affine":
        w, bias = item[4], item[5]
        require(bias.shape == (count,) and w.ndim == 2 and x.ndim == 1, "an affine item")
        if is_block:
            node = int(w[0, 0])
            require(lengths[graph.a[node]] == len(x) * count and graph.b[node] == len(x), "an affine item")
        else:
            require(w.shape == (len(x), count), "an affine item")
    elif kind == "cross_entropy":
        whole(item[4])
        require(count == 1 and type(item[5]) is int and (item[4] >= 0 or 0 <= item[5] < len(x)), "a cross_entropy")
    elif kind == "gather":
        whole(item[4])
        require(isinstance(x, np.ndarray) and (item[4] >= 0) == (len(item) == 5), "a gather")
        require(is_block or x.size % count == 0, "a gather")
        if is_block:
            node = int(x.ravel()[0])
            require(lengths[graph.a[node]] == graph.b[node] * count, "a gather")
        require(len(item) == 5 or item[5].shape == (1,), "a gather")
    elif kind == "call":
        require(count == item[4].outputs and x.shape == (item[4].operands,), "a loop")
    elif kind == "where":
        require(count == 1 and x.shape == (4,) and item[4] in range(6), "a where")
    else:
        require(count == (len(x) if kind == "softmax" else 1), "an item")
