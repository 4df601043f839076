"""A drawing of a graph in the language of Graphviz: `to_dot`, `draw`."""

from __future__ import annotations

import html
import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastscalar._core import Tensor
from fastscalar._imports import importing
from fastscalar._settings import whole_number
from fastscalar.debug.instructions import ROLES, Instruction, Operand, made, number, plural, root_of, span
from fastscalar.debug.lines import place_name, places
from fastscalar.debug.pictures import Picture, to_svg
from fastscalar.debug.summary import Summary, bytes_of, ends, summary
from fastscalar.engine._array import TensorArray
from fastscalar.engine._inspect import _describe, _describe_all
from fastscalar.nn.layers import Module

if TYPE_CHECKING:
    from graphviz import Digraph

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
_SIGNS = {"*": "×", "-": "−", "/": "÷", "neg": "−x"}


def to_dot(
    node: Tensor | TensorArray, *, max_nodes: int = 300, labels: Mapping[str, Any] | None = None
) -> str:
    """The graph behind `node` in the language of Graphviz, without any package; max_nodes and labels as in `draw`.

    >>> import fastscalar as fs
    >>> a = fs.Tensor(2.0)
    >>> print(fs.debug.to_dot(a * a, labels={"a": a}).splitlines()[0])
    digraph fastscalar {
    """
    return "digraph fastscalar {\n" + "".join(_body(node, max_nodes, labels, "to_dot")) + "}\n"


def draw(
    node: Tensor | TensorArray, *, max_nodes: int = 300, labels: Mapping[str, Any] | None = None
) -> Digraph | Picture:
    """A picture of the graph behind `node`, a `graphviz.Digraph`: notebooks show it, `.render("graph")` writes a file.

    Without the package graphviz a `Picture`, drawn by our own code: notebooks show it, `.save("graph.svg")` writes it.

    Values, gradients and operations; a layer, a loss, an array of parameters is one box with its shape and the range of
    its numbers.  Names come from `labels`, a mapping of names to Tensors, TensorArrays, modules and lists of these
    (`labels=globals()` will do: whatever else is in it is passed over), else from the attribute `label` of a Tensor.
    More than `max_nodes` boxes are not drawn: the picture is then a table of what the graph is made of.

    Raises TypeError for anything but a Tensor or a TensorArray, ValueError for a `max_nodes` below 1.

    >>> import fastscalar as fs
    >>> w, b = fs.Tensor(2.0), fs.Tensor(1.0)
    >>> y = (w * 3.0 + b).tanh()
    >>> y.backward()
    >>> picture = fs.debug.draw(y, labels={"w": w, "b": b})       # doctest: +SKIP
    """
    body = _body(node, max_nodes, labels, "draw")
    try:
        with importing():
            from graphviz import Digraph
    except ImportError:
        return Picture(to_svg(node, max_nodes, names_of(labels), "draw"))
    return Digraph("fastscalar", body=body)


def _body(node: Any, max_nodes: int, labels: Mapping[str, Any] | None, what: str) -> list[str]:
    root = root_of(node, what)
    max_nodes = min(whole_number(f"{what}: max_nodes", max_nodes), sys.maxsize)
    names = names_of(labels)
    found = _describe_all(root, max_nodes)
    if found is None:
        return [_HEAD, _summary_box(summary(root), max_nodes)]
    return [_HEAD, *_boxes([made(fields) for fields in found], names)]


def names_of(labels: Mapping[str, Any] | None) -> dict[Tensor, str]:
    """The name of each instruction, by its first Tensor: those of modules and lists with the way to them."""
    names: dict[Tensor, str] = {}
    todo = [] if labels is None else [(str(name), value) for name, value in labels.items()]
    todo.reverse()
    seen: set[int] = set()
    while todo:
        name, value = todo.pop()
        if isinstance(value, (Tensor, TensorArray)):
            fields, offset = _describe(root_of(value, "labels"), 1)
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


def _boxes(instructions: list[Instruction], names: dict[Tensor, str]) -> list[str]:
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
        roles = ROLES.get(one.name, ("left", "right") if one.name in ("-", "/", "**", "%", "//", "atan2") else ())
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


def _box(one: Instruction, shape: tuple[int, ...], label: str, *, last: bool) -> str:
    name = f"<B>{html.escape(label)}</B>" if label else ""
    if one.kind == "const":
        text = name or number(one.values[0])
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
    lines.append(f"data {span(one.values)}")
    lines.append(f"grad {span(one.gradients)}")
    if one.place in places:
        lines.append(place_name(one.place))
    head = "  ".join(part for part in (name, operation) if part) or {"array": "array"}.get(one.kind, "leaf")
    return _cells(head, _COLOURS[one.kind], lines, border=2 if last else 1)


def _numbers_box(operand: Operand) -> str:
    if operand.size == 1:
        return f'<TABLE BORDER="0" CELLPADDING="3" BGCOLOR="{_COLOURS["numbers"]}"><TR><TD>' + (
            f"{number(operand.extent[0])}</TD></TR></TABLE>"
        )
    return _cells(plural(operand.size, "number"), _COLOURS["numbers"], [f"data {span(operand.extent)}"])


def _bar(width: int, colour: str) -> str:
    rest = f'<TD FIXEDSIZE="TRUE" WIDTH="{161 - width}" HEIGHT="12"></TD>'
    return (
        '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0"><TR>'
        f'<TD FIXEDSIZE="TRUE" WIDTH="{width}" HEIGHT="12" BGCOLOR="{colour}"></TD>{rest}</TR></TABLE>'
    )


def _summary_box(s: Summary, max_nodes: int) -> str:
    """A table with bars instead of a picture too large to be read."""
    rows = [(name, count, _COLOURS["leaf"]) for name, count in ends(s) if count and name != "arrays"]
    rows += [(name, count, _COLOURS["scalar"]) for name, count in list(s.operations.items())[:20]]
    rest = len(s.operations) - 20
    widest = max(count for _, count, _ in rows)
    lines = [
        f'<TR><TD ALIGN="LEFT">{html.escape(name)}</TD><TD ALIGN="RIGHT">{count:,}</TD><TD>'
        f"{_bar(max(2, round(160 * count / widest)), colour)}</TD></TR>"
        for name, count, colour in rows
    ]
    if rest > 0:
        lines.append(f'<TR><TD ALIGN="LEFT" COLSPAN="3">and {plural(rest, "other operation")}</TD></TR>')
    return (
        '    summary [label=<<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="4" COLOR="#5c677d">'
        f'<TR><TD COLSPAN="3" BGCOLOR="{_COLOURS["wide"]}"><B>{plural(s.nodes, "node")}</B></TD></TR>'
        f'<TR><TD ALIGN="LEFT" COLSPAN="3">depth {s.depth:,}, {bytes_of(s.bytes)}, '
        f"{plural(s.arrays, 'array')}</TD></TR>"
        + "".join(lines)
        + f'<TR><TD ALIGN="LEFT" COLSPAN="3"><FONT COLOR="#5c677d" POINT-SIZE="9">not drawn: more than '
        f"{max_nodes:,} boxes (max_nodes)</FONT></TD></TR></TABLE>>]\n"
    )
