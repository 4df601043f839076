"""What repeats in a recording: its operations as columns, and stretches in which the same ones stand again and again.

Operations are compared by what they are and by how far before them their nearest operands lie.

The boundary: looks at Graphs; `found` makes loops of what repeats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastscalar.program._graph import NODE_BLOCK, NODE_CONSTANT, NODE_COPY, NODE_ITEM, NODE_PARAMETER

LONGEST = 8_192  # operations of what repeats
NEAR = 32  # operations before another one: so near an operand is part of what repeats
WINDOW = 1 << 15  # operations that are looked at for what repeats
BLOCK = 1 << 16  # operations that are looked at together

Nodes = np.ndarray


class Stretch(NamedTuple):
    first: int  # operation
    stop: int
    period: int


def _hash(*parts: Any) -> int:
    return hash(parts) & 0x7FFFFFFFFFFFFFFF


def leaves_read_anew(graph: Any) -> int:
    """How many leaves operations read that those shortly before did not: a loop does so in its first iteration only."""
    is_leaf, is_scalar = graph.op == NODE_PARAMETER, graph.op > NODE_CONSTANT
    latest = np.full(len(is_leaf), -2, np.int32)         # by leaf, the stretch of operations that read it
    anew = 0
    for stretch, first in enumerate(range(0, len(is_leaf), LONGEST)):
        some = slice(first, first + LONGEST)
        read = np.concatenate([side[some].compress(is_scalar[some]) for side in (graph.a, graph.b)])
        leaves = read.compress(is_leaf.take(read) & (read >= 0))
        new = leaves.compress(latest.take(leaves) < stretch - 1)
        numbers = np.arange(len(new))
        np.put(latest, new, numbers)                     # of what is there twice one number stays
        anew += int(np.count_nonzero(latest.take(new) == numbers))
        np.put(latest, leaves, stretch)
    return anew


class Operations:
    """The operations of a graph, numbered in their order: all nodes but leaves.  What a call gives is like no other."""

    def __init__(self, graph: Any) -> None:
        self.graph, self.items = graph, graph.items
        op = self.op = graph.op
        is_item = op == NODE_ITEM
        computed = (op > NODE_CONSTANT) | (op == NODE_COPY) | is_item
        self.at = np.flatnonzero(computed).astype(np.int32)      # nodes of operations, and
        self.number = np.full(len(op), -1, np.int32)             # their numbers
        self.number[self.at] = np.arange(len(self.at), dtype=np.int32)
        self.scalar = ~is_item[self.at]
        self.guard_at = self._guards_at()

    def operands(self, some: Any) -> tuple[Nodes, Nodes]:
        """The nodes that some operations read; -1: none, or those of an item."""
        at, scalar = self.at[some], self.scalar[some]
        return np.where(scalar, self.graph.a[at], -1), np.where(scalar, self.graph.b[at], -1)

    def _guards_at(self) -> Nodes:
        """By guard, the operation with which it can be asked; -1: before all."""
        guards = self.graph.guards
        left, right = self.number[guards["left"]], self.number[guards["right"]]
        return np.maximum(left, np.where(guards["right"] >= 0, right, -1))

    def keys(self) -> Nodes:
        """A number for each operation; equal for those that may be the same one of two iterations."""
        graph, n = self.graph, len(self.at)
        key = np.empty(n, np.uint64)
        for k in range(0, n, BLOCK):
            some = slice(k, k + BLOCK)
            nodes = self.at[some]
            key[some] = self.op[nodes].astype(np.uint64) * np.uint64(2) + graph.stopped[nodes].astype(np.uint64)
            for operand in self.operands(some):
                number = self.number[operand]
                far = np.arange(k, k + len(operand)) - number
                near = np.where((operand >= 0) & (number >= 0) & (far <= NEAR), far, 0)
                key[some] = key[some] * np.uint64(0x9E3779B97F4A7C15) + near.astype(np.uint64)
        of_items = ~self.scalar
        key[of_items] += graph.b[self.at[of_items]].astype(np.uint64) * np.uint64(0xD1B54A32D192ED03)
        for k, item in enumerate(self.items):
            first = self.number[item[1]]
            if first >= 0:
                arrays = [part for part in item[3:] if isinstance(part, np.ndarray)]
                other = [part for part in item[3:] if not isinstance(part, np.ndarray)]
                chosen = item[0] in ("gather", "cross_entropy") and item[4] >= 0
                block = any((self.op[part.ravel()[:1]] == NODE_BLOCK).any() for part in arrays)
                alone = chosen or block or item[0] == "call"
                said = _hash(item[0], item[2], *(part.shape for part in arrays), *other, k if alone else -1)
                key[first : first + item[2]] += np.uint64(said)
        of = self.guard_at >= 0
        guards = graph.guards[of]
        if len(guards):
            asked = guards["value"].view(np.uint64) if guards["value"].flags.contiguous else (
                np.ascontiguousarray(guards["value"]).view(np.uint64))
            asked = (asked * np.uint64(0xBF58476D1CE4E5B9) + guards["op"].astype(np.uint64) + np.uint64(1)) * np.uint64(
                0x94D049BB133111EB)
            np.add.at(key, self.guard_at[of], asked)
        return key

    def stretches(self, least: int, fewest: int) -> Iterator[Stretch]:
        """What may be loops, of so many operations and iterations at least, the longest first."""
        key = self.keys()
        n, found = len(key), []
        for period in sorted(_periods(key)):
            same = np.concatenate([[False], key[period:] == key[:-period], [False]])
            edges = np.flatnonzero(same[1:] != same[:-1])
            found += [
                Stretch(first, stop + period, period)
                for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
                if stop + period - first >= max(least, fewest * period) and stop + period <= n
            ]
        del key                                  # the memory of it is wanted while the loops are made
        yield from sorted(found, key=lambda s: (s.first - s.stop + fewest * s.period, s.period))[:6]

    def cut(self, stretch: Stretch) -> int:
        """After how many operations an iteration had best begin: where the fewest numbers are alive."""
        period = stretch.period
        middle = stretch.first + (stretch.stop - stretch.first) // (2 * period) * period
        last = np.zeros(2 * period, np.int64)    # of the operations from `middle` on, who reads them
        readers = range(middle, min(middle + 4 * period, stretch.stop))
        for nodes in self.operands(slice(readers.start, readers.stop)):
            at = np.where(nodes >= 0, self.number[nodes], -1)
            near = (at >= middle) & (at < middle + 2 * period)
            np.maximum.at(last, at[near] - middle, np.arange(readers.start, readers.stop)[near] - middle)
        alive = np.zeros(period + 1, np.int64)
        for k in range(period):
            until = min(int(last[k]), k + period)
            if until > k:                        # it crosses the cuts k + 1 to `until`
                a, b = k + 1, until + 1
                alive[a:min(b, period)] += 1
                alive[: max(0, b - period)] += 1
        some = self.at[middle : middle + period]
        inside = ~self.scalar[middle : middle + period] & (self.graph.b[some] > 0)       # of what has several outputs
        return int(np.argmin(np.where(inside, period + 1, alive[:period])))


def _periods(key: Nodes) -> set[int]:
    """Distances at which the same operations stand again, in some windows."""
    found: set[int] = set()
    starts = range(0, max(1, len(key) - WINDOW // 2), max(WINDOW, len(key) // 8))
    for start in starts:
        h = key[start : start + WINDOW].copy()
        size = 1
        while size < len(h) // 4:
            h = h[:-size] * np.uint64(0x9E3779B97F4A7C15 + 2 * size) + (h[size:] ^ (h[size:] >> np.uint64(29)))
            size *= 2
            if size in (4, 32, 256, 2048):
                order = np.argsort(h, kind="stable")
                again = h[order[1:]] == h[order[:-1]]
                apart = (order[1:] - order[:-1])[again]
                counts = np.bincount(apart[apart <= LONGEST]) if again.any() else np.empty(0, np.int64)
                found.update(int(p) for p in np.argsort(counts)[::-1][:2] if counts[p] * 8 > len(h))
    return found - {0}
