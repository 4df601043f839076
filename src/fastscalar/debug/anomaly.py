"""Where an inf or a NaN came from: `find_nonfinite`, `detect_anomaly`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from fastscalar._core import Tensor
from fastscalar.debug.instructions import ROLES, Instruction, made, plural, root_of, span
from fastscalar.debug.lines import here, line_of, numbers, places, where_of
from fastscalar.engine._anomaly import _Notes
from fastscalar.engine._array import TensorArray
from fastscalar.engine._inspect import _describe, _nonfinite


@dataclass(frozen=True, eq=False)
class Nonfinite:
    """The origin of an infinite or NaN value.  `str()` of it tells the story; holding it holds the graph."""

    tensor: Tensor  # the node that has it
    operation: str  # that made it, "" for a leaf
    value: float
    operands: tuple[Tensor, ...]  # what it was made of; numbers that are not Tensors are only in the text
    reason: str
    where: str | None  # file:line, if it was recorded inside `detect_anomaly`
    text: str

    def __str__(self) -> str:
        return self.text


_REASONS = {
    1: "from finite operands",
    2: "from infinite operands",
    3: "from plain numbers, not Tensors, that were infinite or NaN already",
}


def find_nonfinite(loss: Tensor | TensorArray) -> Nonfinite | None:
    """Where the infinite and NaN values behind `loss` begin, or None if all are finite.

    That is the oldest operation that made one from finite operands; else the oldest that made NaN from infinite ones
    (inf - inf); else the oldest number that was one from the start.  Values count as they are now: assigning to `.data`
    changes what is found.  Inside `detect_anomaly` the report names the line of Python.

    Raises TypeError for anything but a Tensor or a TensorArray.

    >>> import fastscalar as fs
    >>> x = fs.Tensor(1e200)
    >>> print(fs.debug.find_nonfinite(x * x - x))
    * made inf from finite operands
      1e+200 * 1e+200 = inf
    >>> fs.debug.find_nonfinite(x + x) is None
    True
    """
    found = _nonfinite(root_of(loss, "find_nonfinite"))
    if found is None:
        return None
    tensor, how = found
    fields, offset = _describe(tensor)
    one = made(fields)
    value = tensor.data
    reason = _REASONS[how] if one.operands else "from the start"
    head = f"{one.name} made {value}" if one.operands else f"{'a number' if one.name else 'a leaf'} is {value}"
    where = where_of(one)
    lines = [f"{head} {reason}", *_story(one, tensor, offset)]
    if where:
        lines.append(f"  recorded at {line_of(where)}")
    return Nonfinite(tensor, one.name, value, tensor._parents, reason, where, "\n".join(lines))


def _story(one: Instruction, tensor: Tensor, offset: int) -> list[str]:
    """The operation with its operands, for people."""
    label = str(getattr(tensor, "label", "") or "")
    named = f" ({label})" if label else ""
    if not one.operands:
        return [f"  element {offset} of an array{named}"] if one.kind == "array" else [f"  {label}"] if label else []
    if all(o.size == 1 for o in one.operands):
        return [f"  {_expression(one.name, [o.extent[0] for o in one.operands])} = {tensor.data}{named}"]
    lines = [f"  output {offset} of {one.size:,}{named}"] if one.size > 1 else []
    roles = ROLES.get(one.name, ("",) * 3)
    for role, operand in zip(roles, one.operands, strict=False):
        lines.append(f"  {role or 'of'}: {plural(operand.size, 'number')}, {span(operand.extent)}")
    return lines


def _expression(name: str, values: list[float]) -> str:
    if name == "neg":
        return f"-({values[0]})"
    if len(values) == 2 and not name[:1].isalpha():
        return f"{values[0]} {name} {values[1]}"
    return f"{name}({', '.join(map(str, values))})"


def _explain(node: Tensor, operand: Tensor) -> FloatingPointError:
    """The error of a backward step that made the gradient of an operand NaN."""
    fields, offset = _describe(node)
    one = made(fields)
    lines = [f"backward of {one.name} made the gradient of an operand ({operand!r}) NaN"]
    lines += _story(one, node, offset)
    lines.append(f"  its own gradient: {span(one.gradients)}")
    where = where_of(one)
    if where:
        lines.append(f"  recorded at {line_of(where)}")
    return FloatingPointError("\n".join(lines))


def _warn_of_zero(node: Tensor, slope: float) -> None:
    """The warning of a gradient of zero that met an infinite slope, or the other way round; once for each line that
    recorded one."""
    fields, offset = _describe(node)
    one = made(fields)
    met = f"a gradient of 0 met a slope of {slope!r}" if slope else f"a gradient of {node.grad!r} met a slope of 0"
    lines = [
        f"backward of {one.name}: {met}, and nothing is passed on (zero sends zero)",
        *_story(one, node, offset),
    ]
    where = where_of(one)
    if where:
        lines.append(f"  recorded at {line_of(where)}")
    file, line = places.get(one.place, ("<unknown>", 0))
    warnings.warn_explicit("\n".join(lines), RuntimeWarning, file, line, registry=_warned)


_warned: dict[Any, Any] = {}  # what the module `warnings` remembers of the block


class detect_anomaly(_Notes):
    """Context in which every operation remembers its line of Python and every `backward()` is watched.

    `find_nonfinite`, called inside, can then say where.  A backward pass that makes a gradient NaN stops with a
    FloatingPointError that names the operation, its operands and file:line; the gradients are then unspecified.  Where
    a gradient of zero meets an infinite slope, or an infinite one a slope of zero, which passes nothing on, a
    RuntimeWarning says so.  Lines are those of
    the caller, the first outside this package (of `fit`, the line that calls it).  Applies to all threads,
    until the one that entered it leaves it or ends (left in another thread: RuntimeError); blocks nest; what was
    remembered is forgotten when the outermost one ends.

    For debugging: an operation takes about 0.4 us more, the tape 4 bytes more for each node, a backward pass about
    twice as long.  `backward(create_graph=True)` records its own operations and is not watched: look at the gradients
    with `find_nonfinite`.  Raises MemoryError if there is no memory for that.

    >>> import fastscalar as fs
    >>> with fs.debug.detect_anomaly():
    ...     x = fs.Tensor(1e200)
    ...     y = x * x - x * x
    ...     print(fs.debug.find_nonfinite(y).where)
    <doctest fastscalar.debug.anomaly.detect_anomaly[1]>:3
    """

    def __init__(self) -> None:
        super().__init__(here, _explain, _warn_of_zero, _forget)


def _forget() -> None:
    numbers.clear()
    places.clear()
    _warned.clear()
