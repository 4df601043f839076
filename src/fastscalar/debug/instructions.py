"""Instructions as the drawings and reports read them, and how they say numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray

ROLES = {
    "linear": ("x", "w", "b"),
    "squared_loss": ("prediction", "target"),
    "mse_loss": ("prediction", "target"),
    "cross_entropy": ("logits",),
}


class Operand(NamedTuple):  # of an instruction, as `_core.describe_operand` gives it
    size: int
    sources: list[tuple[Tensor, int, int]]  # first Tensor, offset, count of each instruction that it comes from
    extent: tuple[float, float]  # the smallest and the largest number


class Instruction(NamedTuple):  # as `_core.describe` gives it
    first: Tensor  # its first node, which stands for it
    name: str  # "" for leaves
    kind: str  # "leaf", "const", "scalar", "array" (of leaves) or "wide"
    size: int  # nodes that it writes
    shape: tuple[int, ...] | None  # None: that of its first operand of as many elements
    operands: list[Operand]
    labels: tuple[int, ...]  # of cross_entropy, eight at most
    values: tuple[float, float]  # the smallest and the largest
    gradients: tuple[float, float]
    place: int  # where it was recorded, a key of _places; 0: not known


def made(fields: tuple[Any, ...]) -> Instruction:
    instruction = Instruction._make(fields)
    return instruction._replace(operands=[Operand._make(o) for o in instruction.operands])


def root_of(node: Any, what: str) -> Tensor:
    """The Tensor that stands for what the user gave."""
    while isinstance(node, TensorArray):
        node = node[0]
    if not isinstance(node, Tensor):
        raise TypeError(f"{what}: expected a Tensor or a TensorArray, got {type(node).__name__}")
    return node


def number(x: float) -> str:
    return f"{x:.4g}"


def span(extent: tuple[float, float]) -> str:
    low, high = map(number, extent)
    return low if low == high else f"{low} … {high}"


def plural(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
