"""What a graph is made of: `summary`."""

from __future__ import annotations

from dataclasses import dataclass

from fastscalar._core import Tensor
from fastscalar.debug.instructions import plural, root_of
from fastscalar.engine._array import TensorArray
from fastscalar.engine._inspect import _summary


@dataclass(frozen=True)
class Summary:
    """What the graph behind a Tensor is made of.  `str()` of it is a small table."""

    operations: dict[str, int]  # how many of each, the most frequent first
    nodes: int  # numbers: results, leaves and constants
    wide: int  # operations of arrays: layers, losses, sums ...
    leaves: int  # numbers that the user made: Tensors and the elements of arrays
    arrays: int  # arrays among them: weights, biases ...
    constants: int  # numbers in expressions
    bytes: int  # on the tape
    depth: int  # operations in the longest chain from a leaf to the result

    def __str__(self) -> str:
        head = (
            f"{plural(self.nodes, 'node')}, {plural(sum(self.operations.values()), 'operation')}, "
            f"depth {self.depth:,}, {bytes_of(self.bytes)}"
        )
        rows = [(name, count) for name, count in ends(self) if count] + list(self.operations.items())
        return "\n".join([head, *table(rows)])


def ends(s: Summary) -> list[tuple[str, int]]:
    return [("leaves", s.leaves), ("arrays", s.arrays), ("constants", s.constants)]


def table(rows: list[tuple[str, int]]) -> list[str]:
    left = max((len(name) for name, _ in rows), default=0)
    right = max((len(f"{count:,}") for _, count in rows), default=0)
    return [f"  {name:<{left}}  {count:>{right},}" for name, count in rows]


def bytes_of(n: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return plural(n, "byte")


def summary(node: Tensor | TensorArray) -> Summary:
    """Counts by operation, bytes and depth of the graph behind `node`; ten million nodes take a fraction of a second.

    Raises TypeError for anything but a Tensor or a TensorArray.

    >>> import fastscalar as fs
    >>> s = fs.debug.summary(fs.cross_entropy(fs.MLP(4, [3, 2], seed=0)([0.1, 0.2, 0.3, 0.4]), 1))
    >>> s.operations, s.depth, s.leaves
    ({'linear': 2, 'cross_entropy': 1, 'relu': 1}, 4, 23)
    """
    operations, *numbers = _summary(root_of(node, "summary"))
    by_count = sorted(operations.items(), key=lambda item: (-item[1], item[0]))
    return Summary(dict(by_count), *numbers)
