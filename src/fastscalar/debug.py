"""Looking inside: a drawing of a graph, what it is made of, where an inf or a NaN came from.

Everything here looks at the graph behind one Tensor (or TensorArray) and leaves it as it is.  A layer, a loss, a sum or
any other operation of arrays counts as one operation, and is looked at whole: who uses one of its outputs uses it all.

>>> import fastscalar as fs
>>> a, b = fs.Tensor(2.0), fs.Tensor(3.0)
>>> print(fs.debug.summary(a * b + 1.0))
5 nodes, 2 operations, depth 2, 185 bytes
  leaves     2
  constants  1
  *          1
  +          1
"""

from __future__ import annotations

import html
import linecache
import math
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from fastscalar._core import Tensor, tape_info
from fastscalar._paths import PACKAGE
from fastscalar.engine._anomaly import _Notes
from fastscalar.engine._array import TensorArray
from fastscalar.engine._inspect import _describe, _describe_all, _nonfinite, _summary
from fastscalar.nn.layers import Module

if TYPE_CHECKING:
    from graphviz import Digraph

__all__ = ["Nonfinite", "Summary", "detect_anomaly", "draw", "find_nonfinite", "summary", "tape_info", "to_dot"]


class _Operand(NamedTuple):  # of an instruction, as `_core.describe_operand` gives it
    size: int
    sources: list[tuple[Tensor, int, int]]  # first Tensor, offset, count of each instruction that it comes from
    extent: tuple[float, float]  # the smallest and the largest number


class _Instruction(NamedTuple):  # as `_core.describe` gives it
    first: Tensor  # its first node, which stands for it
    name: str  # "" for leaves
    kind: str  # "leaf", "const", "scalar", "array" (of leaves) or "wide"
    size: int  # nodes that it writes
    shape: tuple[int, ...] | None  # None: that of its first operand of as many elements
    operands: list[_Operand]
    labels: tuple[int, ...]  # of cross_entropy, eight at most
    values: tuple[float, float]  # the smallest and the largest
    gradients: tuple[float, float]
    place: int  # where it was recorded, a key of _places; 0: not known


def _made(fields: tuple[Any, ...]) -> _Instruction:
    instruction = _Instruction._make(fields)
    return instruction._replace(operands=[_Operand._make(o) for o in instruction.operands])


def _root(node: Any, what: str) -> Tensor:
    """The Tensor that stands for what the user gave."""
    while isinstance(node, TensorArray):
        node = node[0]
    if not isinstance(node, Tensor):
        raise TypeError(f"{what}: expected a Tensor or a TensorArray, got {type(node).__name__}")
    return node


def _number(x: float) -> str:
    return f"{x:.4g}"


def _span(extent: tuple[float, float]) -> str:
    low, high = map(_number, extent)
    return low if low == high else f"{low} … {high}"


def _plural(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


# --- what a graph is made of ----------------------------------------------------------------------


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
            f"{_plural(self.nodes, 'node')}, {_plural(sum(self.operations.values()), 'operation')}, "
            f"depth {self.depth:,}, {_bytes(self.bytes)}"
        )
        rows = [(name, count) for name, count in _ends(self) if count] + list(self.operations.items())
        return "\n".join([head, *_table(rows)])


def _ends(s: Summary) -> list[tuple[str, int]]:
    return [("leaves", s.leaves), ("arrays", s.arrays), ("constants", s.constants)]


def _table(rows: list[tuple[str, int]]) -> list[str]:
    left = max((len(name) for name, _ in rows), default=0)
    right = max((len(f"{count:,}") for _, count in rows), default=0)
    return [f"  {name:<{left}}  {count:>{right},}" for name, count in rows]


def _bytes(n: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= size:
            return f"{n / size:.1f} {unit}"
    return _plural(n, "byte")


def summary(node: Tensor | TensorArray) -> Summary:
    """Counts by operation, bytes and depth of the graph behind `node`; ten million nodes take a fraction of a second.

    Raises TypeError for anything but a Tensor or a TensorArray.

    >>> import fastscalar as fs
    >>> s = fs.debug.summary(fs.cross_entropy(fs.MLP(4, [3, 2], seed=0)([0.1, 0.2, 0.3, 0.4]), 1))
    >>> s.operations, s.depth, s.leaves
    ({'linear': 2, 'cross_entropy': 1, 'relu': 1}, 4, 23)
    """
    operations, *numbers = _summary(_root(node, "summary"))
    by_count = sorted(operations.items(), key=lambda item: (-item[1], item[0]))
    return Summary(dict(by_count), *numbers)


# --- drawing --------------------------------------------------------------------------------------

_HEAD = """\
    graph [rankdir=LR, bgcolor="white", nodesep=0.25, ranksep=0.45, fontname="Helvetica"]
    node [shape=plain, fontname="Helvetica", fontsize=11]
    edge [color="#8a94a6", arrowsize=0.6, fontname="Helvetica", fontsize=9, fontcolor="#5c677d"]
"""
_COLOURS = {  # of the head of a box
    "leaf": "#d5ecd4",
    "array": "#d5ecd4",
    "numbers": "#eceff4",
    "const": "#eceff4",
    "scalar": "#d6e4f7",
    "wide": "#fbe0bf",
}
_ROLES = {
    "linear": ("x", "w", "b"),
    "squared_loss": ("prediction", "target"),
    "mse_loss": ("prediction", "target"),
    "cross_entropy": ("logits",),
}
_SIGNS = {"*": "×", "-": "−", "/": "÷", "neg": "−x"}


def to_dot(
    node: Tensor | TensorArray, *, max_nodes: int = 300, labels: Mapping[str, Any] | None = None
) -> str:
    """The graph behind `node` in the language of Graphviz, without any package; see `draw`.

    >>> import fastscalar as fs
    >>> a = fs.Tensor(2.0)
    >>> print(fs.debug.to_dot(a * a, labels={"a": a}).splitlines()[0])
    digraph fastscalar {
    """
    return "digraph fastscalar {\n" + "".join(_body(node, max_nodes, labels, "to_dot")) + "}\n"


def draw(
    node: Tensor | TensorArray, *, max_nodes: int = 300, labels: Mapping[str, Any] | None = None
) -> Digraph:
    """A picture of the graph behind `node`, a `graphviz.Digraph`: notebooks show it, `.render("graph")` writes a file.

    Values, gradients and operations; a layer, a loss, an array of parameters is one box with its shape and the range of
    its numbers.  Names come from `labels`, a mapping of names to Tensors, TensorArrays, modules and lists of these
    (`labels=globals()` will do: whatever else is in it is passed over), else from the attribute `label` of a Tensor.
    More than `max_nodes` boxes are not drawn: the picture is then a table of what the graph is made of.

    Raises ImportError without the package graphviz (`pip install 'fastscalar[graph]'`; `to_dot` needs nothing),
    TypeError for anything but a Tensor or a TensorArray, ValueError for a `max_nodes` below 1.

    >>> import fastscalar as fs
    >>> w, b = fs.Tensor(2.0), fs.Tensor(1.0)
    >>> y = (w * 3.0 + b).tanh()
    >>> y.backward()
    >>> picture = fs.debug.draw(y, labels={"w": w, "b": b})       # doctest: +SKIP
    """
    body = _body(node, max_nodes, labels, "draw")
    try:
        from graphviz import Digraph
    except ImportError as e:
        raise ImportError(
            "draw needs the package graphviz: pip install 'fastscalar[graph]' (to_dot gives the text without it)"
        ) from e
    return Digraph("fastscalar", body=body)


def _body(node: Any, max_nodes: int, labels: Mapping[str, Any] | None, what: str) -> list[str]:
    root = _root(node, what)
    if isinstance(max_nodes, bool) or not isinstance(max_nodes, int) or max_nodes < 1:
        raise ValueError(f"{what}: max_nodes: expected a whole number of at least 1, got {max_nodes!r}")
    names = _names(labels)
    found = _describe_all(root, max_nodes)
    if found is None:
        return [_HEAD, _summary_box(summary(root), max_nodes)]
    return [_HEAD, *_boxes([_made(fields) for fields in found], names)]


def _names(labels: Mapping[str, Any] | None) -> dict[Tensor, str]:
    """The name of each instruction, by its first Tensor: those of modules and lists with the way to them."""
    names: dict[Tensor, str] = {}
    todo = [] if labels is None else [(str(name), value) for name, value in labels.items()]
    todo.reverse()
    seen: set[int] = set()
    while todo:
        name, value = todo.pop()
        if isinstance(value, (Tensor, TensorArray)):
            fields, offset = _describe(_root(value, "labels"), 1)
            if isinstance(value, TensorArray) or fields[3] == 1:
                names.setdefault(fields[0], name)
            else:
                names.setdefault(fields[0], f"{name} at {offset}")
        elif id(value) not in seen and len(seen) < 10_000:
            if isinstance(value, (list, tuple)):
                seen.add(id(value))
                todo.extend((f"{name}[{i}]", value[i]) for i in reversed(range(min(len(value), 1000))))
            elif isinstance(value, Module):
                seen.add(id(value))
                todo.extend((f"{name}.{key}", part) for key, part in reversed(vars(value).items()))
    return names


def _boxes(instructions: list[_Instruction], names: dict[Tensor, str]) -> list[str]:
    """The lines of the picture, instructions from old to young."""
    out: list[str] = []
    key = {instruction.first: f"n{k}" for k, instruction in enumerate(instructions)}
    shapes: dict[Tensor, tuple[int, ...]] = {}
    for k, one in enumerate(instructions):
        shape = one.shape
        if shape is None:  # element by element: as the operand
            whole = [s for o in one.operands for s, _, n in o.sources if n == one.size and len(o.sources) == 1]
            shape = next((shapes[s] for s in whole if math.prod(shapes[s]) == one.size), (one.size,))
        shapes[one.first] = shape
        me = key[one.first]
        label = names.get(one.first) or str(getattr(one.first, "label", "") or "")
        out.append(f"    {me} [label=<{_box(one, shape, label, last=k == len(instructions) - 1)}>]\n")
        roles = _ROLES.get(one.name, ("left", "right") if one.name in ("-", "/", "**", "%", "//", "atan2") else ())
        for position, operand in enumerate(one.operands):
            role = roles[position] if position < len(roles) else ""
            if not operand.sources:
                out.append(f"    {me}_{position} [label=<{_numbers_box(operand)}>]\n")
                out.append(f"    {me}_{position} -> {me}{_edge(role)}\n")
            merged: dict[Tensor, tuple[int, int]] = {}
            for first, offset, count in operand.sources:
                before = merged.get(first)
                merged[first] = (offset, count) if before is None else (min(offset, before[0]), before[1] + count)
            for first, (offset, count) in merged.items():
                part = _part(shapes[first], offset, count)
                out.append(f"    {key[first]} -> {me}{_edge(f'{role} {part}'.strip())}\n")
    return out


def _part(shape: tuple[int, ...], offset: int, count: int) -> str:
    """Which elements of an array are used; "" for all."""
    size = math.prod(shape)
    if count >= size:
        return ""
    if count > 1:
        return f"{count:,} of {size:,}"
    index: list[int] = []
    for length in reversed(shape):
        offset, i = divmod(offset, length)
        index.append(i)
    return f"[{', '.join(map(str, reversed(index)))}]"


def _edge(text: str) -> str:
    return f' [label="{text}"]' if text else ""


def _cells(head: str, colour: str, lines: list[str], *, border: int = 1) -> str:
    rows = "".join(f'<TR><TD ALIGN="LEFT">{html.escape(line)}</TD></TR>' for line in lines)
    return (
        f'<TABLE BORDER="{border}" CELLBORDER="0" CELLSPACING="0" CELLPADDING="3" COLOR="#5c677d" '
        f'BGCOLOR="white"><TR><TD BGCOLOR="{colour}">{head}</TD></TR>{rows}</TABLE>'
    )


def _box(one: _Instruction, shape: tuple[int, ...], label: str, *, last: bool) -> str:
    name = f"<B>{html.escape(label)}</B>" if label else ""
    if one.kind == "const":
        text = name or _number(one.values[0])
        return f'<TABLE BORDER="0" CELLPADDING="3" BGCOLOR="{_COLOURS["const"]}"><TR><TD>{text}</TD></TR></TABLE>'
    if one.name in _SIGNS or not one.name[:1].isalpha():
        sign = _SIGNS.get(one.name, one.name)
        operation = f'<FONT POINT-SIZE="14">{html.escape(sign)}</FONT>' if sign else ""
    else:
        operation = html.escape(one.name)
    lines = []
    if one.kind in ("array", "wide") and (one.kind == "array" or one.size > 1):
        lines.append(f"shape {' × '.join(f'{n:,}' for n in shape)}")
    if one.labels:
        lines.append(f"label {', '.join(map(str, one.labels))}{' …' if len(one.labels) == 8 else ''}")
    lines.append(f"data {_span(one.values)}")
    lines.append(f"grad {_span(one.gradients)}")
    if one.place in _places:
        lines.append(_place_name(one.place))
    head = "  ".join(part for part in (name, operation) if part) or {"array": "array"}.get(one.kind, "leaf")
    return _cells(head, _COLOURS[one.kind], lines, border=2 if last else 1)


def _numbers_box(operand: _Operand) -> str:
    if operand.size == 1:
        return f'<TABLE BORDER="0" CELLPADDING="3" BGCOLOR="{_COLOURS["numbers"]}"><TR><TD>' + (
            f"{_number(operand.extent[0])}</TD></TR></TABLE>"
        )
    return _cells(_plural(operand.size, "number"), _COLOURS["numbers"], [f"data {_span(operand.extent)}"])


def _bar(width: int, colour: str) -> str:
    rest = f'<TD FIXEDSIZE="TRUE" WIDTH="{161 - width}" HEIGHT="12"></TD>'
    return (
        '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR>'
        f'<TD FIXEDSIZE="TRUE" WIDTH="{width}" HEIGHT="12" BGCOLOR="{colour}"></TD>{rest}</TR></TABLE>'
    )


def _summary_box(s: Summary, max_nodes: int) -> str:
    """A table with bars instead of a picture that nobody could read."""
    rows = [(name, count, _COLOURS["leaf"]) for name, count in _ends(s) if count and name != "arrays"]
    rows += [(name, count, _COLOURS["scalar"]) for name, count in list(s.operations.items())[:20]]
    rest = len(s.operations) - 20
    widest = max(count for _, count, _ in rows)
    lines = [
        f'<TR><TD ALIGN="LEFT">{html.escape(name)}</TD><TD ALIGN="RIGHT">{count:,}</TD><TD>'
        f"{_bar(max(2, round(160 * count / widest)), colour)}</TD></TR>"
        for name, count, colour in rows
    ]
    if rest > 0:
        lines.append(f'<TR><TD ALIGN="LEFT" COLSPAN="3">and {_plural(rest, "other operation")}</TD></TR>')
    return (
        '    summary [label=<<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="4" COLOR="#5c677d">'
        f'<TR><TD COLSPAN="3" BGCOLOR="{_COLOURS["wide"]}"><B>{_plural(s.nodes, "node")}</B></TD></TR>'
        f'<TR><TD ALIGN="LEFT" COLSPAN="3">depth {s.depth:,}, {_bytes(s.bytes)}, {_plural(s.arrays, "array")}</TD></TR>'
        + "".join(lines)
        + f'<TR><TD ALIGN="LEFT" COLSPAN="3"><FONT COLOR="#5c677d" POINT-SIZE="9">not drawn: more than '
        f"{max_nodes:,} boxes (max_nodes)</FONT></TD></TR></TABLE>>]\n"
    )


# --- where an inf or a NaN came from --------------------------------------------------------------


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
    found = _nonfinite(_root(loss, "find_nonfinite"))
    if found is None:
        return None
    tensor, how = found
    fields, offset = _describe(tensor)
    one = _made(fields)
    value = tensor.data
    reason = _REASONS[how] if one.operands else "from the start"
    head = f"{one.name} made {value}" if one.operands else f"{'a number' if one.name else 'a leaf'} is {value}"
    where = _where(one)
    lines = [f"{head} {reason}", *_story(one, tensor, offset)]
    if where:
        lines.append(f"  recorded at {_line_of(where)}")
    return Nonfinite(tensor, one.name, value, tensor._parents, reason, where, "\n".join(lines))


def _story(one: _Instruction, tensor: Tensor, offset: int) -> list[str]:
    """The operation with its operands, for people."""
    label = str(getattr(tensor, "label", "") or "")
    named = f" ({label})" if label else ""
    if not one.operands:
        return [f"  element {offset} of an array{named}"] if one.kind == "array" else [f"  {label}"] if label else []
    if all(o.size == 1 for o in one.operands):
        return [f"  {_expression(one.name, [o.extent[0] for o in one.operands])} = {tensor.data}{named}"]
    lines = [f"  output {offset} of {one.size:,}{named}"] if one.size > 1 else []
    roles = _ROLES.get(one.name, ("",) * 3)
    for role, operand in zip(roles, one.operands, strict=False):
        lines.append(f"  {role or 'of'}: {_plural(operand.size, 'number')}, {_span(operand.extent)}")
    return lines


def _expression(name: str, values: list[float]) -> str:
    if name == "neg":
        return f"-({values[0]})"
    if len(values) == 2 and not name[:1].isalpha():
        return f"{values[0]} {name} {values[1]}"
    return f"{name}({', '.join(map(str, values))})"


# --- the line of Python ---------------------------------------------------------------------------

_numbers: dict[tuple[str, int], int] = {}  # (file, line) -> number; the tape keeps the number for each node
_places: dict[int, tuple[str, int]] = {}


def _here() -> int:
    """The number of the line outside this package that runs now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    assert frame is not None
    place = (frame.f_code.co_filename, frame.f_lineno)
    number = _numbers.get(place)
    if number is None:
        number = _numbers[place] = len(_numbers) + 1
        _places[number] = place
    return number


def _place_name(number: int) -> str:
    file, line = _places[number]
    return f"{os.path.basename(file)}:{line}"


def _where(one: _Instruction) -> str | None:
    if one.place not in _places:
        return None
    file, line = _places[one.place]
    return f"{file}:{line}"


def _line_of(where: str) -> str:
    """file:line and, if the file can be read, what stands there."""
    path, _, line = where.rpartition(":")
    source = linecache.getline(path, int(line)).strip()
    return f"{where}: {source}" if source else where


def _explain(node: Tensor, operand: Tensor) -> FloatingPointError:
    """The error of a backward step that made the gradient of an operand NaN."""
    fields, offset = _describe(node)
    one = _made(fields)
    lines = [f"backward of {one.name} made the gradient of an operand ({operand!r}) NaN"]
    lines += _story(one, node, offset)
    lines.append(f"  its own gradient: {_span(one.gradients)}")
    where = _where(one)
    if where:
        lines.append(f"  recorded at {_line_of(where)}")
    return FloatingPointError("\n".join(lines))


def _warn_of_zero(node: Tensor, slope: float) -> None:
    """The warning of a gradient of zero that met an infinite slope, or the other way round; once for each line that
    recorded one."""
    fields, offset = _describe(node)
    one = _made(fields)
    met = f"a gradient of 0 met a slope of {slope!r}" if slope else f"a gradient of {node.grad!r} met a slope of 0"
    lines = [
        f"backward of {one.name}: {met}, and nothing is passed on (zero sends zero)",
        *_story(one, node, offset),
    ]
    where = _where(one)
    if where:
        lines.append(f"  recorded at {_line_of(where)}")
    file, line = _places.get(one.place, ("<unknown>", 0))
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
    <doctest fastscalar.debug.detect_anomaly[1]>:3
    """

    def __init__(self) -> None:
        super().__init__(_here, _explain, _warn_of_zero, _forget)


def _forget() -> None:
    _numbers.clear()
    _places.clear()
    _warned.clear()
