"""Cost against size: the number of nodes, the width of layers, the size of a batch, one thread and two.

    python benchmarks/scaling.py                         # tables in Markdown: some minutes
    python benchmarks/scaling.py --json scaling.json --picture docs/scaling.svg
    python benchmarks/scaling.py --short                 # some of the sizes, a minute or two
    python benchmarks/scaling.py --quick                 # the small sizes, a few seconds: not figures

Contract
1. `nodes`: dot products `s = s + x * w`, two nodes for each product, each size in a process of its own.  The gradients
   have a closed form and are compared with it.
2. `widths` and `batches`: the compiled `fit`, float32.  The mean loss of its first epoch must be that of NumPy in
   float64 from the formulas.  A figure is the median of the epochs after the first of each call; one and two threads
   take turns.
3. A product is one multiplication with one addition.  For a layer of m inputs and n outputs a sample has m n of them
   forward, m n in the gradient of the weights, and m n in that of the inputs except in the first layer.  What is zero
   in the data does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import fastscalar as fs
from contestants.base import compiled_only
from fastscalar.cli.console import cpu
from nets import Workload, expected_losses
from workloads import rows

NODES = [10**k for k in range(3, 9)]
WIDTHS = [10, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]
BATCHES = [2**k for k in range(11)]
SHORT = {"nodes": NODES[:-1], "widths": [16, 64, 256, 1024, 2048], "batches": [1, 4, 16, 64, 256, 1024]}
QUICK = {"nodes": [1_000, 100_000], "widths": [10, 32], "batches": [1, 16], "rows": 320}
MEMORY = 80  # bytes that a node may need while the tape grows, with some air
ROWS = {"784-W-10": 5_120, "W-W-10": 1_024}  # enough that copying the weights once an epoch does not count
BATCH = 64

# --- the machine ---


def caches(folder: str = "/sys/devices/system/cpu/cpu0/cache") -> dict[str, int]:
    """Bytes of the data caches of the first core, by level; {} where the system does not tell."""
    found = {}
    for index in sorted(Path(folder).glob("index*")):
        level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found[f"L{level}"] = int(size.rstrip("KMG")) * {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1], 1)
    return found


def available_memory() -> int:
    """Bytes that a process may still take; 0 if nobody knows."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (allowed := limit.read_text().strip()).isdigit():
        used = int((limit.parent / "memory.current").read_text())
        free = min(free, int(allowed) - used)
    return free


# --- nodes ---

INPUTS = 100

CHILD = """
import json, resource, statistics, sys, time
import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing

def kilobytes(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))

def forward():
    s = 0.0
    for _ in range(times):
        for a, b in zip(x, w):
            s = s + a * b
    return s

nodes, rounds, length = map(int, sys.argv[1:])
values = [1.0 + j / length for j in range(length)], [0.5 + j / length for j in range(length)]
x, w = ([fs.Tensor(v) for v in numbers] for numbers in values)
times = nodes // (2 * length)
base, before = fs.tape_info()["nodes"], kilobytes("VmRSS:")
seconds = []
for _ in range(rounds):
    start = time.perf_counter()
    s = forward()
    built = time.perf_counter()
    s.backward()
    swept = time.perf_counter()
    made, held = fs.tape_info()["nodes"] - base, kilobytes("VmRSS:") - before
    value, gradients = s.data, ([t.grad for t in x], [t.grad for t in w])
    freeing = time.perf_counter()
    del s
    testing.collect()
    seconds.append((built - start, swept - built, time.perf_counter() - freeing))
    left = fs.tape_info()["nodes"] - base
peak = kilobytes("VmHWM:") - before
print(json.dumps({
    "made": made, "left": left, "value": value, "gradients": gradients, "values": values, "times": times,
    "held": 1024 * held, "peak": 1024 * peak, "seconds": seconds,
}))
"""


def node_rows(sizes: list[int]) -> Iterator[dict[str, Any]]:
    for nodes in sizes:
        if not sys.platform.startswith("linux"):
            yield {"nodes": nodes, "skipped": "resident memory is read from /proc"}
        elif nodes * MEMORY > available_memory():
            yield {"nodes": nodes, "skipped": f"{nodes * MEMORY / 2**30:.0f} GB of memory are not there"}
        else:
            yield node_row(nodes)


def node_row(nodes: int) -> dict[str, Any]:
    """Nanoseconds and bytes for each node; the first round, in new memory, is told apart."""
    rounds = max(3, min(200, 2_000_000 // nodes)) if nodes < 10**8 else 2
    command = [sys.executable, "-c", CHILD, *map(str, (nodes, rounds, INPUTS))]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    x, w = np.array(report["values"])
    times = report["times"]
    correct = (
        nodes <= report["made"] <= nodes + 2  # the 0.0 in front is one
        and report["left"] == 0
        and np.isclose(report["value"], times * (x @ w), rtol=1e-9)
        and np.allclose(report["gradients"], [times * w, times * x], rtol=1e-9)
    )
    first, *later = report["seconds"]
    parts = [statistics.median(column) * 1e9 / nodes for column in zip(*later, strict=True)]
    return {
        "nodes": nodes,
        **dict(zip(("forward", "backward", "free"), parts, strict=True)),
        "first": sum(first) * 1e9 / nodes,
        "bytes": report["held"] / nodes,
        "peak_bytes": report["peak"] / nodes,
        "rounds": len(later),
        "correct": bool(correct),
    }


# --- compiled nets ---


def products(widths: tuple[int, ...], filled: float) -> float:
    """Multiplications and additions of one training sample, of whose inputs `filled` are not zero."""
    first, *upper = pairwise(widths)
    return 2 * filled * first[1] + sum(3 * m * n for m, n in upper)


def fitted(widths: tuple[int, ...], X: np.ndarray, y: np.ndarray, batch: int, threads: list[int]) -> dict[str, Any]:
    """Seconds of a sample for each number of threads, by calls of fit in turn, the first of them checked."""
    rate = min(0.02, 2.0 / widths[1])  # the wider, the longer the gradients
    net = fs.MLP(widths[0], widths[1:], seed=0)
    layers = [(layer.w.numpy(), layer.b.numpy()) for layer in net.linears]
    work = Workload("scaling", widths, rate=rate)
    expected = np.mean(expected_losses(work, X, y.tolist(), batch, len(X) // batch, layers))

    def call(count: int, epochs: int) -> fs.History:
        with compiled_only():
            return fs.fit(
                net,
                X,
                y,
                optimizer=fs.SGD(net.parameters(), lr=rate),
                epochs=epochs,
                batch_size=batch,
                schedule=None,
                shuffle=False,
                progress=False,
                dtype="float32",
                threads=count,
                compile=True,
            )

    history = call(1, 2)
    correct = np.isclose(history.loss[0], expected, rtol=1e-3)
    one = history.epochs[1].seconds
    rounds, epochs = (3, 1 + max(3, min(30, round(0.2 / one)))) if one < 0.3 else (1, 3)
    seconds: dict[int, list[float]] = {count: [] for count in threads}
    for _ in range(rounds):
        for count in threads:
            history = call(count, epochs)
            correct = correct and np.isfinite(history.loss).all() and history.loss[-1] <= expected
            seconds[count] += [epoch.seconds / len(X) for epoch in history.epochs[1:]]
    return {"seconds": {n: statistics.median(s) for n, s in seconds.items()}, "correct": bool(correct)}


def net_rows(nets: list[tuple[str, tuple[int, ...], int]], quick: bool) -> Iterator[dict[str, Any]]:
    """A row for each net (its kind, its widths, the batch) and number of threads."""
    for kind, widths, batch in nets:
        n = QUICK["rows"] if quick else ROWS[kind]
        if kind == "784-W-10":
            X, labels, _ = rows("sparse", n)
            y = np.array(labels)
        else:
            rng = np.random.default_rng(0)
            X, y = rng.uniform(0.05, 0.5, size=(n, widths[0])), rng.integers(10, size=n)
        threads = [1] if batch == 1 else [count for count in (1, 2) if count <= (os.cpu_count() or 1)]
        result = fitted(widths, X, y, batch, threads)
        work = products(widths, np.count_nonzero(X) / n)
        for count, seconds in result["seconds"].items():
            yield {
                "net": kind,
                "width": widths[1],
                "batch": batch,
                "threads": count,
                "us_per_sample": seconds * 1e6,
                "products": work,
                "ns_per_product": seconds * 1e9 / work,
                "weight_bytes": 4 * sum(m * n for m, n in pairwise(widths)),
                "correct": result["correct"],
            }


# --- all of it ---


def measured(quick: bool, short: bool = False) -> dict[str, Any]:
    began = time.perf_counter()
    sizes = QUICK if quick else SHORT if short else {"nodes": NODES, "widths": WIDTHS, "batches": BATCHES}
    nets = [("784-W-10", (784, width, 10), BATCH) for width in sizes["widths"]]
    nets += [("W-W-10", (width, width, 10), BATCH) for width in sizes["widths"]]
    batches = [("784-W-10", (784, 256, 10), batch) for batch in sizes["batches"]]
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "caches": caches(),
        "kernels": fs.tape_info()["kernels"],
        "fastscalar": fs.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "data": rows("sparse", QUICK["rows"])[2],
        "quick": quick,
        "nodes": list(node_rows(sizes["nodes"])),
        "widths": list(net_rows(nets, quick)),
        "batches": list(net_rows(batches, quick)),
        "seconds": time.perf_counter() - began,
    }


def correct(figures: dict[str, Any]) -> bool:
    return all(row.get("correct", True) for part in ("nodes", "widths", "batches") for row in figures[part])


# --- tables ---


def markdown(head: list[str], body: list[list[str]]) -> str:
    """A table whose columns are aligned: the first to the left, the others to the right."""
    widths = [max(3, *map(len, column)) for column in zip(head, *body, strict=True)]

    def line(cells: list[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(w) for cell, w in others)]) + " |"

    rule = [("-" * widths[0]), *("-" * (w - 1) + ":" for w in widths[1:])]
    return "\n".join([line(head), line(rule), *map(line, body)])


def digits(x: float) -> str:
    """Three that count, or all before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}" if x >= 0.1 else f"{x:.3f}"


def amount(size: float) -> str:
    """Bytes in the largest unit that leaves a digit in front."""
    for unit, factor in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.0f} B"


def nodes_table(figures: dict[str, Any]) -> str:
    head = ["nodes", "forward, ns", "backward, ns", "freeing, ns", "first round, all, ns", "bytes", "at its peak"]
    body = []
    for row in figures["nodes"]:
        if "skipped" in row:
            body.append([f"{row['nodes']:,}", f"skipped: {row['skipped']}", *[""] * 5])
            continue
        # In small graphs what the process takes anyway is more than the nodes.
        sizes = [digits(row[key]) if row["nodes"] >= 10**6 else "" for key in ("bytes", "peak_bytes")]
        times = [digits(row[key]) for key in ("forward", "backward", "free", "first")]
        body.append([f"{row['nodes']:,}", *times, *sizes])
    return markdown(head, body)


def paired(part: list[dict[str, Any]], key: str) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """The row of one thread with that of two, if there is one."""
    two = {(row["net"], row[key]): row for row in part if row["threads"] == 2}
    return [(row, two.get((row["net"], row[key]))) for row in part if row["threads"] == 1]


def widths_table(figures: dict[str, Any]) -> str:
    head = ["net", "weights", "us a sample", "ns a product", "two threads, us", "ns", "faster"]
    body = []
    for row, two in paired(figures["widths"], "width"):
        name = row["net"].replace("W", str(row["width"]))
        cells = [name, amount(row["weight_bytes"]), digits(row["us_per_sample"]), f"{row['ns_per_product']:.4f}"]
        body.append(cells + second_thread(row, two))
    return markdown(head, body)


def batches_table(figures: dict[str, Any]) -> str:
    head = ["batch", "us a sample", "ns a product", "two threads, us", "ns", "faster"]
    body = []
    for row, two in paired(figures["batches"], "batch"):
        cells = [str(row["batch"]), digits(row["us_per_sample"]), f"{row['ns_per_product']:.4f}"]
        body.append(cells + second_thread(row, two))
    return markdown(head, body)


def second_thread(one: dict[str, Any], two: dict[str, Any] | None) -> list[str]:
    if two is None:
        return [""] * 3
    faster = one["us_per_sample"] / two["us_per_sample"]
    return [digits(two["us_per_sample"]), f"{two['ns_per_product']:.4f}", f"{faster:.2f} x"]


TABLES = {"nodes": nodes_table, "widths": widths_table, "batches": batches_table}

# --- the picture ---

BLUE, RED, GREEN, GREY, INK = "#2458a6", "#b4442e", "#2f7d4f", "#8a96a8", "#1b2a41"


def picture(figures: dict[str, Any], file: Path) -> None:
    """Three panels: time for each node, each product, each sample."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.family": "DejaVu Sans",
            "font.size": 10,
            "svg.fonttype": "none",
            "svg.hashsalt": "fastscalar",
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
        }
    )
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.9), layout="constrained")
    at_nodes, at_widths, at_batches = panels
    levels = figures["caches"]

    measured = [row for row in figures["nodes"] if "skipped" not in row]
    for key, colour, name in (("forward", BLUE, "forward"), ("backward", GREEN, "backward"), ("free", RED, "freeing")):
        at_nodes.plot([r["nodes"] for r in measured], [r[key] for r in measured], "o-", color=colour, label=name, ms=4)
    columns = fs.tape_info()["bytes_per_node"]
    mark(at_nodes, {name: size / columns for name, size in levels.items()}, "tape leaves")
    at_nodes.set(title="ns a node, from Python", xlabel="nodes", xscale="log")

    for kind, colour in (("784-W-10", BLUE), ("W-W-10", RED)):
        for count, style in ((1, "o-"), (2, "o--")):
            found = [r for r in figures["widths"] if (r["net"], r["threads"]) == (kind, count)]
            name = f"{kind}, {count} thread{'s' * (count > 1)}"
            places = [r["width"] for r in found]
            at_widths.plot(places, [r["ns_per_product"] for r in found], style, color=colour, label=name, ms=4)
    square = {name: (size / 4) ** 0.5 for name, size in levels.items()}
    mark(at_widths, square, "W x W leaves")
    at_widths.set(title=f"ns a product, batches of {BATCH}", xlabel="W", xscale="log", yscale="log")

    for count, style in ((1, "o-"), (2, "o--")):
        found = [r for r in figures["batches"] if r["threads"] == count]
        name = f"{count} thread{'s' * (count > 1)}"
        places = [r["batch"] for r in found]
        at_batches.plot(places, [r["us_per_sample"] for r in found], style, color=BLUE, label=name, ms=4)
    mark(
        at_batches, {name: size / (2 * 4 * 256) for name, size in levels.items() if name != "L3"}, "hidden layer leaves"
    )
    at_batches.set(title="us a sample, 784-256-10", xlabel="batch", xscale="log")

    for panel in panels:
        panel.set_ylim(bottom=0 if panel.get_yscale() == "linear" else None)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False, fontsize=8.5)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130, metadata={"Date": None} if file.suffix == ".svg" else None)
    plt.close(figure)


def mark(panel: Any, places: dict[str, float], what: str) -> None:
    """A line where something is larger than a level of the cache."""
    for name, place in places.items():
        panel.axvline(place, color=GREY, linewidth=0.8, linestyle=":")
        panel.annotate(
            f"{what} {name}",
            (place, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-3, -3),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            fontsize=7.5,
            color=GREY,
        )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="scaling.py", description="Cost against size.")
    parser.add_argument("--quick", action="store_true", help="small sizes, some seconds; no figures to keep")
    parser.add_argument("--short", action="store_true", help="some of the sizes: a minute or two")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw them here (.svg or .png; needs matplotlib)")
    args = parser.parse_args(arguments)
    figures = measured(args.quick, args.short)
    print(f"{figures['cpu']}, kernels {figures['kernels']}; {figures['data']}; {figures['seconds']:.0f} s")
    print(", ".join(f"{name} {amount(size)}" for name, size in figures["caches"].items()))
    for name, table in TABLES.items():
        print(f"\n{name}\n\n{table(figures)}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if args.picture:
        picture(figures, args.picture)
    if not correct(figures):
        print("WRONG numbers", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
