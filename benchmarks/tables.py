"""From the figures of a run to the tables of docs/performance.md and README.md.

    python -m pytest benchmarks --benchmark-json=all.json
    python benchmarks/scaling.py --json scaling.json --picture docs/scaling.svg
    python benchmarks/ceiling.py --json ceiling.json
    python benchmarks/tables.py all.json scaling.json ceiling.json

Each `<!-- tables: begin NAME -->` ... `<!-- tables: end NAME -->` gets the text for its name; nothing else is touched.
A text whose figures are in none of the files stays as it is, and is named.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ceiling
import scaling
from scaling import digits, markdown

TOP = Path(__file__).resolve().parent.parent
PAGES = ["docs/performance.md", "README.md"]
MARK = re.compile(r"(<!-- tables: begin ([\w-]+) -->\n)(.*?)(<!-- tables: end \2 -->)", re.S)
NANOSECONDS = {"programs", "scalar_ops"}  # races over operations


class Missing(KeyError):
    """No figure of this name in the files."""


class Figures:
    """What the files say.  `bars` are all figures that a benchmark has recorded, `races` who ran against whom."""

    def __init__(self, files: list[dict[str, Any]]) -> None:
        self.scaling = next((file for file in files if "widths" in file), None)
        self.ceiling = next((file for file in files if "demands" in file), None)
        self.run = next((file for file in files if "benchmarks" in file), None)
        found: dict[str, list[dict[str, Any]]] = {}
        self.races: list[tuple[str, str, dict[str, Any]]] = []  # group, parameters, extra_info
        for benchmark in self.run["benchmarks"] if self.run else []:
            info = benchmark["extra_info"]
            for name, figure in info.items():
                if isinstance(figure, dict) and "met" in figure:
                    found.setdefault(name, []).append(figure)
            if info.get("contestants"):
                label = benchmark.get("param") or benchmark["name"].removeprefix("test_")
                self.races.append((benchmark["group"] or "", label, info))
        # What several benchmarks have recorded is the median of it.
        self.bars = {
            name: {**each[0], "value": statistics.median(one["value"] for one in each)} for name, each in found.items()
        }

    def value(self, name: str) -> float:
        if name not in self.bars:
            raise Missing(name)
        return self.bars[name]["value"]


def rate(value: float) -> str:
    """Samples a second; of the slowest sides there are fractions."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def needed(part: dict[str, Any] | None, what: str) -> dict[str, Any]:
    if part is None:
        raise Missing(f"the file of {what}")
    return part


# --- about the run ---


def about(figures: Figures) -> str:
    run = needed(figures.run, "pytest-benchmark")
    info = next(benchmark["extra_info"] for benchmark in run["benchmarks"] if "kernels" in benchmark["extra_info"])
    versions = {
        name.split(",")[0].split(" ")[0]: side["version"]
        for _, _, race in figures.races
        for name, side in race["contestants"].items()
        if not name.startswith(("fastscalar", "twin", "the article"))
    }
    said = {"fastscalar": info["fastscalar"], "Python": info["python"], "NumPy": info["numpy"], **versions}
    lines = [
        f"{run['machine_info']['cpu'].get('count', '?')} cores ({info['cpu']}), kernels {info['kernels']}, "
        f"{run['datetime'][:10]}.",
        ", ".join(f"{name} {version}" for name, version in said.items()) + ".",
        "Python's collector on unless said.",
    ]
    return " ".join(lines)


# --- bars ---


def bars(figures: Figures) -> str:
    limited = {name: bar for name, bar in sorted(figures.bars.items()) if has_limit(bar)}
    if not limited:
        raise Missing("a figure with a limit")
    body = []
    for name, bar in limited.items():
        limit = bar["at_most"] if bar["at_least"] is None else bar["at_least"]
        side = "at most" if bar["at_least"] is None else "at least"
        body.append(
            [name, f"{digits(bar['value'])} {bar['unit']}", f"{side} {limit:g}", "met" if met(bar) else "**no**"]
        )
    return markdown(["bar", "figure", "limit", "met"], body)


def has_limit(bar: dict[str, Any]) -> bool:
    return bar["at_most"] is not None or bar["at_least"] is not None


def met(bar: dict[str, Any]) -> bool:
    return bar["value"] <= bar["at_most"] if bar["at_least"] is None else bar["value"] >= bar["at_least"]


def short(figures: Figures) -> str:
    """Which bars are not met, and by how much."""
    limited = {name: bar for name, bar in sorted(figures.bars.items()) if has_limit(bar)}
    if not limited:
        raise Missing("a figure with a limit")
    lines = [f"{sum(map(met, limited.values()))} of {len(limited)} bars are met."]
    for name, bar in limited.items():
        if not met(bar):
            limit = bar["at_most"] if bar["at_least"] is None else bar["at_least"]
            by = 100 * abs(bar["value"] / limit - 1)
            lines.append(
                f"* {name}: {digits(bar['value'])} {bar['unit']} where {limit:g} was meant, short by {by:.0f} %"
            )
    return "\n".join([lines[0], "", *lines[1:]] if len(lines) > 1 else lines)


# --- races ---


def seconds_of(group: str, label: str, name: str, side: dict[str, Any], figures: Figures) -> float:
    """Of a sample or an operation."""
    if "samples_per_s" in side:
        scaled = f"{group}: {label.rpartition('-')[2]}, {name}, scaled from 8 hidden units"
        return figures.bars[scaled]["value"] / 1e6 if scaled in figures.bars else 1 / side["samples_per_s"]
    return side["ns_per_operation"] / 1e9


def race(group: str, kept: str = "") -> Callable[[Figures], str]:
    """A row for each contestant, two columns for each benchmark of the group whose parameters begin with `kept`."""

    def table(figures: Figures) -> str:
        found = [(label, info) for name, label, info in figures.races if name == group and label.startswith(kept)]
        if not found:
            raise Missing(f"a race in {group} {kept}".strip())
        unit = "ns" if group in NANOSECONDS else "samples/s"
        head, names = ["contestant"], list(dict.fromkeys(name for _, info in found for name in info["contestants"]))
        columns: list[list[str]] = []
        for label, info in found:
            sides = info["contestants"]
            times = {name: seconds_of(group, label, name, side, figures) for name, side in sides.items()}
            ours = times[best_of_ours(times)]
            said = label.removeprefix(kept).strip("-").replace("-", ", ")
            head += [f"{said}, {unit}".strip(", "), "ours is faster"]
            figure = {n: digits(s * 1e9) if unit == "ns" else rate(1 / s) for n, s in times.items()}
            columns.append([figure.get(name, "") for name in names])
            columns.append([f"{digits(times[n] / ours)} x" if n in times else "" for n in names])
        checked = [
            all(info["contestants"].get(name, {"correct": True})["correct"] for _, info in found) for name in names
        ]
        body = [
            [name, *(column[k] for column in columns), "yes" if checked[k] else "NO"] for k, name in enumerate(names)
        ]
        return markdown([*head, "checked"], body)

    return table


def best_of_ours(times: dict[str, float]) -> str:
    """What the others are compared with: the fastest of fastscalar's."""
    return min((name for name in times if name.startswith("fastscalar")), key=times.__getitem__)


def listed(*prefixes: str) -> Callable[[Figures], str]:
    """Every figure whose name begins so, in the order of the run."""

    def table(figures: Figures) -> str:
        found = [(name, bar) for name, bar in figures.bars.items() if name.startswith(tuple(f"{p}:" for p in prefixes))]
        if not found:
            raise Missing(f"a figure of {', '.join(prefixes)}")
        return markdown(["", "figure"], [[name, f"{digits(bar['value'])} {bar['unit']}"] for name, bar in found])

    return table


# --- where the time goes ---


def limits(figures: Figures) -> str:
    names = {
        "eager, float64": ("mlp: sparse, fastscalar", 1.0),
        "compiled, batch 1, float64": ("mlp: sparse, fastscalar compiled", 1.0),
        "compiled, batch 1, float32": ("mlp: sparse, fastscalar compiled, float32", 1.0),
        "compiled, batch 256, float32": ("minibatch: mlp b256, sparse, 1 thread, fastscalar compiled, float32", None),
    }
    took = {}
    for case, (name, factor) in names.items():
        value = figures.value(name)
        took[case] = value if factor else 1e6 / value
    return ceiling.limits_table(needed(figures.ceiling, "ceiling.py"), took)


# --- README ---

NETS = ["Linear(784, 10)", "MLP(784, [256, 10])"]


def readme(figures: Figures) -> str:
    sides = {"fastscalar": "fastscalar, float64", "numpy": "NumPy by hand, float64", "torch": "PyTorch eager, float32"}
    head = ["", "Linear(784, 10) sparse", "dense", "MLP 784-256-10 sparse", "dense"]

    def row(shape: Callable[[str, str], str]) -> list[str]:
        return [shape(net, kind) for net in NETS for kind in ("sparse", "dense")]

    body = [
        [said, *row(lambda net, kind, side=side: digits(figures.value(f"sparse_dense: {net}, {kind}, {side}")))]
        for side, said in sides.items()
    ]
    for side, said in (("numpy", "NumPy / fastscalar"), ("torch", "PyTorch / fastscalar")):
        name = "sparse_dense: {}, {}, " + side + " / ours"
        body.append([said, *row(lambda net, kind, name=name: f"**{digits(figures.value(name.format(net, kind)))} x**")])
    return markdown(head, body)


def readme_compiled(figures: Figures) -> str:
    """Training by everybody, the fastest way of each: what `fit` does beside what people use today."""
    wanted = [
        ("fastscalar compiled, float32", "fastscalar `fit`, float32"),
        ("fastscalar compiled", "fastscalar `fit`, float64"),
        ("fastscalar", "fastscalar, loop in Python"),
        ("Numba by hand", "Numba by hand, float64"),
        ("JAX, lax.scan, float32", "JAX, `lax.scan`, float32"),
        ("NumPy by hand, float32", "NumPy by hand, float32"),
        ("PyTorch eager, float32", "PyTorch eager, float32"),
        ("Paddle, float32", "Paddle, float32"),
        ("twin", "pure Python, `fastscalar.reference`"),
        ("micrograd", "micrograd"),
    ]
    body = []
    for name, said in wanted:
        cells = []
        for work in ("linear10", "mlp"):
            note = ", scaled from 8 hidden units" if work == "mlp" and name in ("twin", "micrograd") else ""
            cells.append(rate(1e6 / figures.value(f"{work}: sparse, {name}{note}")))
        batch = f"minibatch: mlp b64, sparse, 1 thread, {name}"
        body.append([said, *cells, rate(figures.value(batch)) if batch in figures.bars else ""])
    return markdown(["samples/s, MNIST, one thread", "Linear(784, 10)", "MLP 784-256-10", "in batches of 64"], body)


def from_scaling(name: str) -> Callable[[Figures], str]:
    return lambda figures: scaling.TABLES[name](needed(figures.scaling, "scaling.py"))


TEXTS: dict[str, Callable[[Figures], str]] = {
    "about": about,
    "bars": bars,
    "short": short,
    "linear1": race("linear1", "linear1"),
    "linear10": race("linear10", "linear10"),
    "mlp": race("mlp", "mlp"),
    "minibatch-linear10": race("minibatch", "linear10-sparse"),
    "minibatch-sparse": race("minibatch", "mlp-sparse"),
    "minibatch-dense": race("minibatch", "mlp-dense"),
    "programs": race("programs"),
    "scalar-peers": race("scalar_ops"),
    "scalar-ops": listed("scalar_ops", "scalar_functions"),
    "scalar-gpt": listed("scalar_gpt"),
    "compile": listed("compile"),
    "loop": listed("article_loop", "sparse_dense"),
    "epoch": listed("mnist_epoch"),
    "memory": listed("memory", "import_time"),
    "ceiling": lambda figures: ceiling.ceiling_table(needed(figures.ceiling, "ceiling.py")),
    "limits": limits,
    "nodes": from_scaling("nodes"),
    "widths": from_scaling("widths"),
    "batches": from_scaling("batches"),
    "readme": readme,
    "readme-compiled": readme_compiled,
}


def rewritten(text: str, figures: Figures, left: dict[str, str]) -> str:
    """The page with new texts between its marks; `left` gets the names that stay, each with what is missing."""

    def replacement(found: re.Match[str]) -> str:
        begin, name, old, end = found.groups()
        if name not in TEXTS:
            raise SystemExit(f"no text has the name {name!r}: {', '.join(TEXTS)}")
        try:
            new = TEXTS[name](figures)
        except Missing as missing:
            left[name] = str(missing.args[0])
            new = old.strip("\n")
        return f"{begin}\n{new}\n\n{end}" if new else f"{begin}{end}"

    return MARK.sub(replacement, text)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tables.py", description="Write the tables of the documents.")
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="JSON of a run, of scaling.py, of ceiling.py"
    )
    parser.add_argument("--into", type=Path, metavar="DIR", default=TOP, help="where docs/ and README.md are")
    args = parser.parse_args(arguments)
    figures = Figures([json.loads(file.read_text(encoding="utf-8")) for file in args.files])
    for page in PAGES:
        path, left = args.into / page, {}
        text = path.read_text(encoding="utf-8")
        path.write_text(rewritten(text, figures, left), encoding="utf-8")
        names = [match.group(2) for match in MARK.finditer(text)]
        print(f"{page}: {len(names) - len(left)} of {len(names)} texts written")
        for name, missing in left.items():
            print(f"  {name} left as it is: missing {missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
