"""Small graphs as SVG, drawn by our own code: what notebooks show of a Tensor, and `draw` without the package graphviz.

Boxes stand in columns by the longest way from a leaf, each beside the middle of what it was computed from.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastscalar._core import Tensor
from fastscalar.debug.instructions import Instruction, made, number, root_of, span
from fastscalar.debug.summary import summary
from fastscalar.engine._functions import add_methods
from fastscalar.engine._inspect import _describe_all

COLOURS = {"leaf": "#cfe8cf", "array": "#cfe8cf", "const": "#eceff4", "scalar": "#d6e4f7", "wide": "#fbe0bf"}
SIGNS = {"*": "×", "-": "−", "/": "÷", "neg": "−x"}
WIDTH, HEIGHT, ACROSS, DOWN = 132, 58, 44, 14
SMALL = 40  # boxes that a notebook shows of itself


class Picture:
    """A graph as SVG text: notebooks show it, `save("graph.svg")` writes a file."""

    def __init__(self, svg: str) -> None:
        self.svg = svg

    def save(self, path: str | Path) -> None:
        """Write it to a file."""
        Path(path).write_text(self.svg, encoding="utf-8")

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<Picture of {len(self.svg):,} characters of SVG: save(path) writes it>"


def to_svg(node: Any, max_nodes: int, names: Mapping[Tensor, str], what: str = "to_svg") -> str:
    """The graph behind a Tensor as SVG; of more boxes than `max_nodes` what it is made of."""
    root = root_of(node, what)
    found = _describe_all(root, max_nodes)
    if found is None:
        return _text_alone(str(summary(root)))
    return _drawn([made(fields) for fields in found], names)


def _drawn(instructions: list[Instruction], names: Mapping[Tensor, str]) -> str:
    column: dict[Tensor, int] = {}
    height: dict[Tensor, float] = {}
    columns: list[list[Tensor]] = []
    sources: dict[Tensor, list[Tensor]] = {}
    for one in instructions:
        sources[one.first] = list(dict.fromkeys(first for o in one.operands for first, _, _ in o.sources))
        column[one.first] = 1 + max((column[s] for s in sources[one.first]), default=-1)
        while len(columns) <= column[one.first]:
            columns.append([])
        columns[column[one.first]].append(one.first)
    for k, boxes in enumerate(columns):
        wanted = {b: sum(height[s] for s in sources[b]) / len(sources[b]) if sources[b] else 0.0 for b in boxes}
        lowest = 0.0
        for box in sorted(boxes, key=lambda b: wanted[b]) if k else boxes:
            height[box] = max(lowest, wanted[box])
            lowest = height[box] + HEIGHT + DOWN
    out = []
    for one in instructions:
        x, y = _corner(column[one.first], height[one.first])
        for source in sources[one.first]:
            left, top = _corner(column[source], height[source])
            a, b, c, d = left + WIDTH, top + HEIGHT / 2, x, y + HEIGHT / 2
            out.append(f'<path d="M{a:.0f} {b:.0f} C{a + 22:.0f} {b:.0f} {c - 22:.0f} {d:.0f} {c:.0f} {d:.0f}" '
                       'fill="none" stroke="#5c677d"/>')  # fmt: skip
    for one in instructions:
        out += _box(one, *_corner(column[one.first], height[one.first]), names)
    wide = len(columns) * (WIDTH + ACROSS) - ACROSS + 8
    return _svg(wide, max(height.values()) + HEIGHT + 8, out)


def _corner(column: int, height: float) -> tuple[float, float]:
    return 4.0 + column * (WIDTH + ACROSS), 4.0 + height


def _box(one: Instruction, x: float, y: float, names: Mapping[Tensor, str]) -> list[str]:
    label = names.get(one.first) or str(getattr(one.first, "label", "") or "")
    head = "  ".join(p for p in (label, SIGNS.get(one.name, one.name)) if p) or one.kind
    size = f" ({one.size:,})" if one.size > 1 else ""
    lines = [f"data {span(one.values)}"] + ([] if one.kind == "const" else [f"grad {span(one.gradients)}"])
    if one.kind == "const":
        head, lines = "number", [number(one.values[0])]
    return [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="4" fill="{COLOURS[one.kind]}" '
        'stroke="#5c677d"/>',
        f'<text x="{x + 8:.0f}" y="{y + 17:.0f}" font-weight="bold">{html.escape((head + size)[:20])}</text>',
        *(f'<text x="{x + 8:.0f}" y="{y + 34 + 15 * k:.0f}">{html.escape(line[:24])}</text>'
          for k, line in enumerate(lines)),
    ]  # fmt: skip


def _svg(width: float, height: float, lines: list[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="11" fill="#1b2a41" role="img" '
        'aria-label="the graph of a Tensor">' + "".join(lines) + "</svg>"
    )


def _text_alone(text: str) -> str:
    lines = text.splitlines()
    return _svg(620, 18 * len(lines) + 12, [
        f'<text x="6" y="{18 * k}" xml:space="preserve">{html.escape(line)}</text>' for k, line in enumerate(lines, 1)
    ])  # fmt: skip


def _repr_html_(self: Tensor) -> str:
    """What notebooks show: the value, and the graph if it is small."""
    text = f"<code>{html.escape(repr(self))}</code>"
    if not self._parents or _describe_all(self, SMALL) is None:
        return text
    return f"{text}<br>{to_svg(self, SMALL, {})}"


add_methods({"_repr_html_": _repr_html_})
