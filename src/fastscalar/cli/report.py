"""The report of a run: one HTML file with everything in it, which needs no network, no script and no other package."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from fastscalar.cli.console import percent, plural
from fastscalar.cli.png import png
from fastscalar.plot import counts_of, most_confident_mistakes

SHOWN = 40  # mistakes
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --faint: #667; --line: #8884;
        --a: #0969da; --b: #bc4c00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ed; --paper: #14171b; --faint: #9aa4b0; --a: #58a6ff; --b: #f0883e } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid var(--line) }
th:first-child { text-align: left } .what td { text-align: left }
.scroll { overflow-x: auto }
@media (max-width: 34rem) { .counts { font-size: .7rem } .counts th, .counts td { padding: .2rem } }
figure { display: inline-block; margin: .3rem; text-align: center; font-size: .8rem }
figure img { width: 56px; height: 56px; image-rendering: pixelated; border: 1px solid var(--line) }
.faint { color: var(--faint) } svg { width: 100%; max-width: 28rem; height: auto }
svg text { fill: var(--faint); font-size: 11px } svg line { stroke: var(--line) }
polyline { fill: none; stroke-width: 2 }
""".strip()


def report_of(
    about: dict[str, Any], asked: dict[str, Any], names: Sequence[str], images: Any, y: Any, probabilities: Any
) -> str:
    """HTML.  about: as in training.json.  images: of the test data, bytes (n, height, width), with labels y and
    what the net made of them, (n, classes)."""
    said = np.asarray(probabilities).argmax(axis=1)
    right = float(np.mean(said == y))
    title = f"{about['title']}: {percent(right)} test accuracy"
    epochs = about["epochs"]
    lines = [("loss", [row["loss"] for row in epochs], "--a")]
    if epochs and "validation_loss" in epochs[0]:
        lines.append(("validation", [row["validation_loss"] for row in epochs], "--b"))
    accuracy = [("test accuracy, %", [100 * row["test_accuracy"] for row in epochs], "--a")]
    stand_in = ""
    if about["fallback"]:
        stand_in = "<p><b>Digits drawn by fastscalar, NOT MNIST, which could not be had.</b></p>"
    counts = counts_of(y, said, len(names))
    parts = [
        f"<h1>{escape(title)}</h1>{stand_in}",
        f"<p class=faint>{plural(len(epochs), 'epoch')} in {about['seconds']:.1f} s, "
        f"{about['parameters']:,} parameters, "
        f"fastscalar {escape(about['version'])}, {escape(about['cpu'])}</p>",
        "<h2>Configuration</h2><table class=what>",
        *(
            f"<tr><th>{escape(key.replace('_', ' '))}</th><td>{escape(_text(value))}</td></tr>"
            for key, value in asked.items()
            if value not in (None, False, [])
        ),
        "</table><h2>Curves</h2>",
        *(chart(some) for some in (lines, accuracy) if epochs),
        "<details><summary>Every epoch</summary>", _table(epochs), "</details>",
        "<h2>What was taken for what</h2><div class=scroll>", _confusion(counts, names), "</div>",
        "<h2>The most confident mistakes</h2>", _mistakes(images, y, probabilities, names),
    ]  # fmt: skip
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)}</title>"
    body = "".join(parts)
    return f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n"


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(epochs: list[dict[str, Any]]) -> str:
    keys = [key for key in epochs[0] if key != "epoch"] if epochs else []
    head = "".join(f"<th>{escape(key.replace('_', ' '))}</th>" for key in ["epoch", *keys])
    body = "".join(
        f"<tr><th>{row['epoch']}</th>{''.join(f'<td>{row[key]:,.6g}</td>' for key in keys)}</tr>" for row in epochs
    )
    return f"<div class=scroll><table><tr>{head}</tr>{body}</table></div>"


def chart(lines: list[tuple[str, list[float], str]]) -> str:
    """Curves by epoch, as SVG.

    >>> chart([("loss", [1.0, 0.5], "--a")]).count("<polyline")
    1
    """
    width, height, left, top, below = 420, 236, 62, 30, 28
    values = [v for _, some, _ in lines for v in some if np.isfinite(v)] or [0.0]
    low, high = min(values), max(values)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    n = max(len(some) for _, some, _ in lines)

    def x(k: int) -> float:
        return left + (width - left - 10) * (k / (n - 1) if n > 1 else 0.5)

    def y(v: float) -> float:
        return top + (height - top - below) * (1 - (v - low) / (high - low))

    parts = [f"<svg viewBox='0 0 {width} {height}' role=img aria-label='{escape(lines[0][0])} by epoch'>"]
    for v in np.linspace(low, high, 5).tolist():
        parts.append(f"<line x1={left} x2={width - 10} y1={y(v):.1f} y2={y(v):.1f} />")
        parts.append(f"<text x={left - 6} y={y(v) + 4:.1f} text-anchor=end>{v:.4g}</text>")
    for k in sorted({0, n // 2, n - 1}):
        parts.append(f"<text x={x(k):.1f} y={height - 10} text-anchor=middle>{k + 1}</text>")
    for _, some, colour in lines:
        points = [(x(k), y(v)) for k, v in enumerate(some) if np.isfinite(v)]
        joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f"<polyline points='{joined}' style='stroke: var({colour})' />")
        parts += [f"<circle cx={a:.1f} cy={b:.1f} r=3 style='fill: var({colour})' />" for a, b in points if n < 40]
    legend = [f"<tspan dx=8 style='fill: var({colour})'>{escape(name)}</tspan>" for name, _, colour in lines]
    parts.append(f"<text x={left - 8} y=14>{''.join(legend)}</text>")
    return "".join([*parts, "</svg>"])


def _confusion(counts: Any, names: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for i, row in enumerate(counts.tolist()):
        cells = []
        for j, n in enumerate(row):
            share = (n / max(sum(row), 1)) ** 0.5
            hue = "var(--a)" if i == j else "var(--b)"
            shade = f" style='background: color-mix(in srgb, {hue} {45 * share:.0f}%, transparent)'" if n else ""
            cells.append(f"<td{shade}>{n or '<span class=faint>.</span>'}</td>")
        rows.append(f"<tr><th>{escape(names[i])}</th>{''.join(cells)}</tr>")
    return f"<table class=counts><tr><th class=faint>true, taken for</th>{head}</tr>{''.join(rows)}</table>"


def _mistakes(images: Any, y: Any, probabilities: Any, names: Sequence[str]) -> str:
    rows, found, certain = most_confident_mistakes(probabilities, y, SHOWN)
    if not len(rows):
        return "<p>None.</p>"
    shown = []
    for row, said, p in zip(rows, found, certain, strict=True):
        code = base64.b64encode(png(images[row])).decode()
        words = f"{escape(names[said])}, {100 * p:.0f} %<br><span class=faint>is {escape(names[int(y[row])])}</span>"
        source = f"data:image/png;base64,{code}"
        alt = f"a {escape(names[int(y[row])])} taken for a {escape(names[said])}"
        shown.append(f"<figure><img src='{source}' alt='{alt}'><figcaption>{words}</figcaption></figure>")
    return "".join(shown)
