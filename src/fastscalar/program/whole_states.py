"""Whole numbers in the state of a loop: floats in its bodies, which have all their digits below 2**53 only.

The boundary: from the graph of a step to one that holds for as long as they have.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._functions import operations
from fastscalar.engine._traced import TracedInt
from fastscalar.program._graph import GUARD, IS_LESS, NODE_CONSTANT, NODE_INPUT

EXACT = 1 << 53
COUNTING = 1 << 20  # what is added to a number that it takes longer to grow too large than any loop runs
CODES = {name: code for code, name, _, _ in operations()}
SUMS = {CODES["+"], CODES["-"]}
GROWING = {*SUMS, CODES["*"], CODES["**"]}
KEEPING = {*GROWING, CODES["//"], CODES["%"], CODES["neg"], CODES["abs"]}


def is_whole(leaf: Any) -> bool:
    return isinstance(leaf, (int, np.integer))   # a TracedInt says that it is an int


def is_exact(leaf: Any) -> bool:
    """Whether a float has all digits of a whole number."""
    value = leaf.value if type(leaf) is TracedInt else leaf
    return isinstance(value, Tensor) or not is_whole(value) or -EXACT < value < EXACT


def bounded(graph: Any, places: set[int], numbers: list[int]) -> None:
    """Add decisions to the graph of a step: what is computed of whole numbers alone is below 2**53.

    places: of the state, which began as whole numbers.  numbers: nodes that are the number of the iteration."""
    op, a, b, value = graph.op.tolist(), graph.a.tolist(), graph.b.tolist(), graph.value.tolist()
    results = graph.results.tolist()
    while True:
        whole, growing = [False] * len(op), []
        for i, code in enumerate(op):
            if code == NODE_CONSTANT:
                whole[i] = value[i] % 1.0 == 0.0 and abs(value[i]) < EXACT
            elif code == NODE_INPUT:
                whole[i] = i in numbers or (a[i] == 0 and b[i] in places)
            elif code in KEEPING and whole[a[i]] and (b[i] < 0 or whole[b[i]]):
                whole[i] = True
                constants = [value[k] for k in (a[i], b[i]) if k >= 0 and op[k] == NODE_CONSTANT]
                counts = code in SUMS and any(abs(v) <= COUNTING for v in constants)
                if code in GROWING and not counts:
                    growing.append(i)
        kept = {place for place in places if whole[results[place]]}
        if kept == places:
            break
        places = kept
    if not growing:
        return
    n = len(op)
    for name, column in (("op", [NODE_CONSTANT] * 2), ("a", [0] * 2), ("b", [0] * 2), ("stopped", [0] * 2),
                         ("value", [-float(EXACT), float(EXACT)])):  # fmt: skip
        known = getattr(graph, name)
        setattr(graph, name, np.concatenate([known, np.array(column, known.dtype)]))
    decisions = np.zeros(2 * len(growing), GUARD)
    decisions["value"], decisions["op"], decisions["code"] = 1.0, IS_LESS, -1
    decisions["left"] = [k for i in growing for k in (n, i)]
    decisions["right"] = [k for i in growing for k in (i, n + 1)]
    graph.guards = np.concatenate([graph.guards, decisions])
