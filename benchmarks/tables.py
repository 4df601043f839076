"""From the figures of a run to the tables of docs/performance.md and README.md, and to what is kept of them.

    python -m pytest benchmarks --short --benchmark-json=all.json
    python benchmarks/scaling.py --short --json scaling.json --picture docs/scaling.svg
    python benchmarks/ceiling.py --json ceiling.json
    python benchmarks/tables.py all.json scaling.json ceiling.json --keep benchmarks/results/0.1.0.json
    python benchmarks/tables.py benchmarks/results/0.1.0.json      # the same tables again, from what was kept

Each `<!-- tables: begin NAME -->` ... `<!-- tables: end NAME -->` gets the text for its name; nothing else is touched.
A text whose figures are in none of the files stays as it is, and is named.  A ratio of the same two sides at the same
work that the pages show in two places agrees within 1.3, or the exit status is 1 and both are named.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import ceiling
import scaling
from figures import Figures, Missing, Side, has_limit, kept, limit_of, met, needed
from scaling import digits, markdown

TOP = Path(__file__).resolve().parent.parent
PAGES = ["docs/performance.md", "README.md"]
MARK = re.compile(r"(<!-- tables: begin ([\w-]+) -->\n)(.*?)(<!-- tables: end \2 -->)", re.S)
NANOSECONDS = {"programs", "scalar_ops"}  # races over operations
AGREE = 1.3  # what two figures for one pair may differ by


def filled(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 118, break_on_hyphens=False))


def rate(value: float) -> str:
    """Samples a second; of the slowest sides there are fractions."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


# --- about the run ---


def about(figures: Figures) -> str:
    run = needed(figures.run, "pytest-benchmark")
    versions = {
        name.split(",")[0].split(" ")[0]: side["version"]
        for race in figures.races.values()
        for name, side in race.items()
        if not name.startswith(("fastscalar", "twin", "the article"))
    }
    said = {"fastscalar": run["fastscalar"], "Python": run["python"], "NumPy": run["numpy"], **versions}
    lines = [
        f"{run['cores'] or '?'} cores ({run['cpu']}), kernels {run['kernels']}, {run['date']}.",
        ", ".join(f"{name} {version}" for name, version in said.items()) + ".",
        "Python's collector on unless said.",
    ]
    return filled(" ".join(lines))


# --- bars ---


def bars(figures: Figures) -> str:
    limited = {name: bar for name, bar in sorted(figures.bars.items()) if has_limit(bar)}
    if not limited:
        raise Missing("a figure with a limit")
    body = []
    for name, bar in limited.items():
        limit = limit_of(bar)
        side = "at least" if "at_least" in bar else "at most"
        body.append(
            [name, f"{digits(bar['value'])} {bar['unit']}", f"{side} {limit:g}", "met" if met(bar) else "**no**"]
        )
    return markdown(["bar", "figure", "limit", "met"], body)


def short(figures: Figures) -> str:
    """Which bars are not met, and by how much."""
    limited = {name: bar for name, bar in sorted(figures.bars.items()) if has_limit(bar)}
    if not limited:
        raise Missing("a figure with a limit")
    lines = [f"{sum(map(met, limited.values()))} of {len(limited)} bars are met."]
    for name, bar in limited.items():
        if not met(bar):
            limit = limit_of(bar)
            by = 100 * abs(bar["value"] / limit - 1)
            lines.append(
                f"* {name}: {digits(bar['value'])} {bar['unit']} where {limit:g} was meant, short by {by:.0f} %"
            )
    return "\n".join([lines[0], "", *lines[1:]] if len(lines) > 1 else lines)


# --- races ---


def seconds_of(side: Side) -> float:
    """Of a sample or an operation."""
    return 1 / side["samples_per_s"] if "samples_per_s" in side else side["ns_per_operation"] / 1e9


def race(group: str, kept: str = "") -> Callable[[Figures], str]:
    """A row for each contestant, two columns for each benchmark of the group whose parameters begin with `kept`."""

    def table(figures: Figures) -> str:
        begin = f"{group}: {kept}"
        found = [(name.partition(": ")[2], sides) for name, sides in figures.races.items() if name.startswith(begin)]
        if not found:
            raise Missing(f"a race in {group} {kept}".strip())
        unit = "ns" if group in NANOSECONDS else "samples/s"
        head, names = ["contestant"], list(dict.fromkeys(name for _, sides in found for name in sides))
        columns: list[list[str]] = []
        for label, sides in found:
            times = {name: seconds_of(side) for name, side in sides.items()}
            ours = times[best_of_ours(times)]
            said = label.removeprefix(kept).strip("-").replace("-", ", ")
            head += [f"{said}, {unit}".strip(", "), "ours is faster"]
            figure = {n: digits(s * 1e9) if unit == "ns" else rate(1 / s) for n, s in times.items()}
            columns.append([figure.get(name, "") for name in names])
            columns.append([f"{digits(times[n] / ours)} x" if n in times else "" for n in names])
        checked = [all(sides.get(name, {"correct": True})["correct"] for _, sides in found) for name in names]
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
    one, batch = figures.race("mlp: mlp-sparse"), figures.race("minibatch: mlp-sparse-256-1")
    took = {
        "eager, float64": one["fastscalar"],
        "compiled, batch 1, float64": one["fastscalar compiled"],
        "compiled, batch 1, float32": one["fastscalar compiled, float32"],
        "compiled, batch 256, float32": batch["fastscalar compiled, float32"],
    }
    microseconds = {case: 1e6 / each for case, each in took.items()}
    return ceiling.limits_table(needed(figures.ceiling, "ceiling.py"), microseconds)


# --- README ---

COLUMNS = {  # of the table: the race
    "Linear(784, 10)": "linear10: linear10-sparse",
    "no zeros": "linear10: linear10-dense",
    "MLP 784-256-10": "mlp: mlp-sparse",
    "no zeros ": "mlp: mlp-dense",
    "in batches of 64": "minibatch: mlp-sparse-64-1",
    "no zeros  ": "minibatch: mlp-dense-64-1",
}
NUMBA = ["Numba by hand", "Numba by hand, fastmath", "Numba by hand, float32", "Numba by hand, float32, fastmath"]
ROWS = {  # in its best settings: where there are several, the fastest of these in each column
    "fastscalar `fit`, float32": ["fastscalar compiled, float32"],
    "your own `for` loops in `fit`, float32": ["fastscalar compiled, scalar loops, lists, float32"],
    "fastscalar `fit`, float64": ["fastscalar compiled"],
    "fastscalar, loop in Python, float64": ["fastscalar"],
    "Numba by hand, the fastest of four": NUMBA,
    "JAX, `lax.scan`, float32": ["JAX, lax.scan, float32"],
    "NumPy by hand, float32": ["NumPy by hand, float32"],
    "PyTorch eager, float32": ["PyTorch eager, float32"],
    "Paddle, float32": ["Paddle, float32"],
    "pure Python, `fastscalar.reference`": ["twin"],
    "micrograd": ["micrograd"],
}


def readme(figures: Figures) -> str:
    """Training by everybody, the fastest way of each; the fastest of a column is in bold."""
    races = [figures.race(name) for name in COLUMNS.values()]
    body = []
    for said, names in ROWS.items():
        there = [[race[name] for name in names if name in race] for race in races]
        cells = [
            "" if not found else f"**{rate(max(found))}**" if max(found) == max(race.values()) else rate(max(found))
            for found, race in zip(there, races, strict=True)
        ]
        if any(cells):
            body.append([said, *cells])
    return markdown(["samples/s, one thread", *map(str.strip, COLUMNS)], body)


def faster(figures: Figures) -> str:
    """Who is faster than the fastest of ours, and where."""
    places = {
        "linear1: linear1-sparse": "`Linear(784, 1)`",
        "linear10: linear10-sparse": "`Linear(784, 10)`",
        "linear10: linear10-dense": "`Linear(784, 10)` without zeros",
        "mlp: mlp-sparse": "the MLP",
        "mlp: mlp-dense": "the MLP without zeros",
        "minibatch: mlp-sparse-64-1": "the MLP in batches of 64",
        "minibatch: mlp-sparse-256-1": "the MLP in batches of 256",
        "minibatch: mlp-dense-64-1": "the MLP without zeros in batches of 64",
        "minibatch: mlp-dense-256-1": "the MLP without zeros in batches of 256",
    }
    said = []
    for name, place in places.items():
        race = figures.race(name)
        best = max(race, key=race.__getitem__)
        if not best.startswith("fastscalar"):
            ours = max(race[side] for side in race if side.startswith("fastscalar"))
            said.append(f"{place}, {digits(race[best] / ours)} times ({best})")
    if not said:
        return "None of the others was faster in these."
    return filled("**Others are faster** at " + "; ".join(said) + ".")


def scalar_code(figures: Figures) -> str:
    """What the README says of scalar code, in a paragraph."""
    v = figures.value

    def times(name: str) -> str:
        return f"{v(name):.0f}"

    on, off = (f"scalar_ops: in all, twin with collector {state} / ours" for state in ("on", "off"))
    gpt_on, gpt_off = (f"scalar_gpt: a step, twin with collector {state} / ours" for state in ("on", "off"))
    return filled(
        f"Scalar operations from Python (`s = s + x * w`): {v('scalar_ops: forward and freeing'):.0f} ns with freeing, "
        f"{v('scalar_ops: forward and freeing / complex'):.2f} times the same loop over `complex`; backward "
        f"{v('scalar_ops: backward'):.1f} ns a node; in all {times(on)} times the speed of `fastscalar.reference`, "
        f"{times(off)} times with Python's cyclic collector off. A training step of a small GPT in scalar code: "
        f"{times(gpt_on)} times, {times(gpt_off)} times with the collector off. All of MNIST by `fastscalar train`: "
        f"{v('mnist_epoch: one epoch'):.2f} seconds an epoch, "
        f"{v('mnist_epoch: test accuracy after one epoch'):.1f} % after one, "
        f"{v('mnist_epoch: test accuracy after ten epochs'):.1f} % after ten."
    )


def first(figures: Figures) -> str:
    """The first screen of docs/performance.md: each kind of work, ours, and the best of the others."""
    body = []

    def trained(said: str, name: str, sides: list[str], left: tuple[str, ...] = ()) -> None:
        race = figures.race(name)
        ours = max(race[side] for side in sides if side in race)
        best = max((side for side in race if not side.startswith(("fastscalar", *left))), key=race.__getitem__)
        body.append([said, f"{rate(ours)} samples/s", f"{best}: {rate(race[best])}", f"{digits(ours / race[best])} x"])

    fit, loop = ["fastscalar compiled, float32", "fastscalar compiled"], ["fastscalar"]
    own = ["fastscalar compiled, scalar loops, lists, float32", "fastscalar compiled, scalar loops, lists"]
    trained("`fit`, MLP 784-256-10, MNIST, one sample at a time", "mlp: mlp-sparse", fit)
    if any(side in figures.race("mlp: mlp-sparse") for side in own):
        trained("the same, written as `for` loops over single numbers", "mlp: mlp-sparse", own)
    trained("`fit`, the same without zeros", "mlp: mlp-dense", fit)
    trained("`fit`, Linear(784, 10), MNIST", "linear10: linear10-sparse", fit)
    trained("`fit`, the same without zeros", "linear10: linear10-dense", fit)
    trained("`fit`, the MLP in batches of 64", "minibatch: mlp-sparse-64-1", fit)
    trained("`fit`, the same without zeros", "minibatch: mlp-dense-64-1", fit)
    trained(
        "a loop in Python, the MLP, against other loops in Python",
        "mlp: mlp-sparse",
        loop,
        ("Numba", "JAX, lax", "CasADi"),
    )
    for name, said in (
        ("ode", "a program of scalar code over 4,000 rows, Runge-Kutta"),
        ("lattice", "the same, a lattice"),
    ):
        sides = figures.races.get(f"programs: {name}")
        if sides is None:
            raise Missing(f"programs: {name}")
        times = {side: about["ns_per_operation"] for side, about in sides.items()}
        ours = times["fastscalar compiled"]
        best = min((side for side in times if not side.startswith(("fastscalar", "twin"))), key=times.__getitem__)
        body.append(
            [
                said,
                f"{digits(ours)} ns an operation",
                f"{best}: {digits(times[best])}",
                f"{digits(times[best] / ours)} x",
            ]
        )
    return markdown(["work, one thread", "fastscalar", "the best of the others", "ours is faster"], body)


# --- one pair, one figure ---


def pairs(figures: Figures) -> dict[str, dict[str, float]]:
    """For each pair of sides that pages show more than once: the ratio by every place that shows it."""
    found: dict[str, dict[str, float]] = {}

    def say(pair: str, place: str, value: float) -> None:
        found.setdefault(pair, {})[place] = value

    for name, bar in figures.bars.items():  # "A / B" beside "A" and "B", or "A" and "A, ours beside it"
        over, slash, under = name.rpartition(" / ")
        group = name.partition(": ")[0]
        for below in (f"{over}, ours beside it", f"{over}, Python's beside it", f"{group}: {under}"):
            if slash and over in figures.bars and below in figures.bars:
                say(name, "the ratio", bar["value"])
                say(name, "the two figures", figures.bars[over]["value"] / figures.bars[below]["value"])
                break
    mine = "fastscalar compiled, float32"
    for batch in (64, 256):
        pair = f"MLP 784-256-10, batches of {batch}, float32: two threads / one"
        one, two = (figures.races.get(f"minibatch: mlp-sparse-{batch}-{threads}", {}) for threads in (1, 2))
        if mine in one and mine in two:
            say(pair, "minibatch", two[mine]["samples_per_s"] / one[mine]["samples_per_s"])
    for part, key, size in (("widths", "width", 64), ("batches", "batch", 64), ("batches", "batch", 256)):
        for row, two in scaling.paired((figures.scaling or {}).get(part, []), key):
            if two and row["net"] == "784-W-10" and (row["width"], row["batch"]) == (256, size):
                pair = f"MLP 784-256-10, batches of {size}, float32: two threads / one"
                say(pair, f"scaling, {part}", row["us_per_sample"] / two["us_per_sample"])
    return found


def contradictions(figures: Figures) -> list[str]:
    return [
        f"{pair}: " + ", ".join(f"{digits(value)} by {place}" for place, value in places.items())
        for pair, places in pairs(figures).items()
        if max(places.values()) > AGREE * min(places.values())
    ]


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
    "epoch": listed("mnist_epoch"),
    "memory": listed("memory", "import_time"),
    "ceiling": lambda figures: ceiling.ceiling_table(needed(figures.ceiling, "ceiling.py")),
    "limits": limits,
    "nodes": from_scaling("nodes"),
    "widths": from_scaling("widths"),
    "batches": from_scaling("batches"),
    "readme": readme,
    "faster": faster,
    "scalar-code": scalar_code,
    "first": first,
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
    parser.add_argument(
        "--keep", type=Path, metavar="FILE", help="write what pages may show here, a line for each figure"
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
    if args.keep:
        args.keep.parent.mkdir(parents=True, exist_ok=True)
        args.keep.write_text(kept(figures.parts), encoding="utf-8")
    for line in (found := contradictions(figures)):
        print(f"two figures for one pair: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
