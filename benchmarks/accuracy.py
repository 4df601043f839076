"""`make accuracy`: what came of the recipes of examples/mnist_recipes.py, as a table; fails where a mean is too low.

    python benchmarks/accuracy.py results/accuracy-*.jsonl
"""

from __future__ import annotations

import json
import pathlib
import statistics
import sys
from typing import Any

BARS = {"defaults": 98.2, "mlp": 98.6, "mlp-augmented": 99.0, "convolutional": 99.4}  # percent, means of three seeds


def runs(files: list[pathlib.Path]) -> list[dict[str, Any]]:
    """The last of each part that has passed."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(files, key=lambda file: file.stat().st_mtime):
        for line in map(json.loads, file.read_text().splitlines()):
            if line["passed"]:
                found[line["part"]] = json.loads(line["said"])
    return list(found.values())


def table(found: list[dict[str, Any]]) -> tuple[str, list[str]]:
    """Rows of Markdown, and what falls short."""
    rows = ["| recipe | seeds | test accuracy, each | mean | seconds | CPU seconds |", "|---|---|---|---:|---:|---:|"]
    short = []
    for name, bar in BARS.items():
        of_it = sorted((run for run in found if run["recipe"] == name), key=lambda run: run["seed"])
        if not of_it:
            short.append(f"{name}: no run")
            continue
        mean = statistics.mean(run["accuracy"] for run in of_it)
        each = ", ".join(f"{run['accuracy']:.2f}" for run in of_it)
        seconds, cpu = (statistics.median(run[key] for run in of_it) for key in ("seconds", "cpu_seconds"))
        seeds = ", ".join(str(run["seed"]) for run in of_it)
        rows.append(f"| `{name}` | {seeds} | {each} | {mean:.2f} % | {seconds:.0f} | {cpu:.0f} |")
        if mean < bar:
            short.append(f"{name}: {mean:.2f} % where {bar} was meant")
    return "\n".join(rows), short


if __name__ == "__main__":
    rows, short = table(runs([pathlib.Path(name) for name in sys.argv[1:]]))
    print(rows)
    sys.exit("\n".join(short) or 0)
