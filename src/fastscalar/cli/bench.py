"""`fastscalar bench`: the engine and its compiled programs on this machine, beside the twin and peers that are here.

Contract
1. All contestants of a workload start from the same weights and see the same rows.  Each must reproduce the first
   three losses, which NumPy computes in float64 from the formulas, before it is timed; one that does not is not timed.
2. The contestants take turns, A B A B.  A figure is a median with its spread; ratios are between medians of one run.
3. A peer that is not installed is skipped by name.  Nothing is downloaded and nothing is written, `--json` aside.

`benchmarks/` in the repository is the long version: it has these contestants, more of them, and limits.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from textwrap import fill
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar import reference
from fastscalar.cli.console import WIDTH, cpu, passing, plural, say
from fastscalar.cli.contestants import (
    Compiled,
    Compiled32,
    CompiledProducts,
    Contestant,
    Loop,
    NumPy,
    Products,
    Torch,
    Twin,
    absent,
    installed_version,
    micrograd_number,
    torch_number,
)
from fastscalar.cli.workloads import CHECKED, LINEAR10, MLP, PEERS, TOLERANCE, Workload, digits

# --- measuring ---


@dataclass
class Entry:
    """A contestant of a workload as it stands in the table: how to check it and how to run so many units of work."""

    name: str
    check: Callable[[], dict[str, Any]]
    run: Callable[[int], Any]
    unit: float  # operations or samples in run(1)
    most: int | None = None  # the largest argument of `run`; more is done by calling again
    factor: float = 1.0  # from the size that was run to the size of the workload
    about: dict[str, Any] = field(default_factory=dict)
    side: Any = None
    seconds: list[float] = field(default_factory=list)  # for each operation or sample, scaled, by round
    calls: tuple[int, int] = (1, 1)  # how often in one timer, and with what argument

    def calibrate(self, target: float) -> None:
        """Find how often to run so that one timer lasts about `target` seconds."""
        if self.most is not None and getattr(self.side, "whole", False):
            self.timed(1, self.most)
            self.calls = (max(1, round(target / self.timed(1, self.most))), self.most)
            return
        count = 1
        while (spent := self.timed(1, count)) < target / 4 and count != self.most:
            count = min(count * 4, self.most or count * 4)
        wanted = count * target / max(spent, 1e-9)
        if self.most is not None and wanted > self.most:
            self.calls = (max(1, round(wanted / self.most)), self.most)
        else:
            self.calls = (1, max(1, round(wanted)))

    def timed(self, times: int, count: int) -> float:
        gc.collect()
        start = time.perf_counter()
        results = [self.run(count) for _ in range(times)]
        seconds = time.perf_counter() - start
        return sum(results) if isinstance(results[0], float) else seconds

    def measure(self) -> None:
        times, count = self.calls
        self.seconds.append(self.timed(times, count) / (times * count * self.unit) * self.factor)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def training_entry(
    kind: type[Contestant],
    work: Workload,
    X: np.ndarray,
    y: Sequence[int],
    batch: int,
    as_work: Workload | None = None,
    threads: int = 1,
) -> Entry:
    """`as_work`: the workload that the figure stands for, if another size was run."""
    side = kind(work, X, y, batch, threads)
    expected = kind.expected(work, X, y, batch)

    def check() -> dict[str, Any]:
        losses = side.first()
        right = bool(np.allclose(losses, expected, rtol=TOLERANCE[kind.dtype], atol=TOLERANCE[kind.dtype] / 10))
        return {"correct": right, "losses": losses, "expected_losses": expected}

    about = {"dtype": kind.dtype, "threads": threads, "version": kind.version()}
    if as_work is not None:
        about["run_with"] = list(work.widths)
    factor = 1.0 if as_work is None else as_work.products / work.products
    return Entry(kind.name, check, side.run, batch, len(X) // batch, factor, about, side)


def products_entry(side: Products) -> Entry:
    version = fs.__version__ if side.needs is None else installed_version(side.needs)
    about = {"dtype": "float64", "threads": 1, "version": version}
    return Entry(side.name, lambda: {"correct": bool(side.correct())}, side.run, side.operations, None, 1.0, about)


@dataclass
class Comparison:
    """One block of the table."""

    name: str
    title: str
    unit: str  # of the figures: ns/op or us/sample
    notes: list[str]
    makers: list[tuple[str, str | None, Callable[[], Entry]]]  # name, why it is skipped, how it is made


def comparisons(X: np.ndarray, y: Sequence[int], quick: bool) -> Iterator[Comparison]:
    outputs = 10 if quick else 50

    def products(name: str, number: Callable[[float], Any], needs: str | None = None) -> Any:
        return name, absent(needs), lambda: products_entry(Products(name, number, outputs, needs))

    def training(kind: type[Contestant], work: Workload, batch: int, as_work: Workload | None = None) -> Any:
        name = kind.name if as_work is None else f"{kind.name}, scaled"
        return name, kind.missing(), lambda: training_entry(kind, work, X, y, batch, as_work)

    yield Comparison(
        "scalar_ops",
        "scalar operations: s = s + x * w, backward, freeing",
        "ns/op",
        [],
        [
            products("twin", reference.Tensor),
            products("fastscalar", fs.Tensor),
            (
                "fastscalar compiled",
                None if hasattr(fs, "compile") else "this version has no fs.compile",
                lambda: products_entry(CompiledProducts("fastscalar compiled", 50 * outputs)),
            ),
            products("micrograd", micrograd_number, "micrograd"),
            products("PyTorch, tensors of one number", torch_number, "torch"),
        ],
    )
    ours: list[type[Contestant]] = [Loop, Compiled, Compiled32]
    peers: list[type[Contestant]] = [Torch, NumPy]
    yield Comparison(
        LINEAR10.name,
        "Linear(784, 10), batch size 1",
        "us/sample",
        [],
        [training(Twin, LINEAR10, 1), *(training(kind, LINEAR10, 1) for kind in (*ours, *peers))],
    )
    tiny = Workload("tiny", (784, 4 if quick else 8, 10))
    factor = MLP.products / tiny.products
    scaled = f"The twin ran with {tiny.widths[1]} hidden units; its time is multiplied by {factor:.1f}."
    yield Comparison(
        MLP.name,
        "MLP 784-256-10, batch size 1",
        "us/sample",
        [scaled],
        [training(Twin, tiny, 1, MLP), *(training(kind, MLP, 1) for kind in (*ours, *peers))],
    )
    yield Comparison(
        "minibatch",
        "MLP 784-256-10, batch size 64",
        "us/sample",
        [scaled, "It ran sample by sample: in pure Python a batch takes as long."],
        [training(Twin, tiny, 1, MLP), *(training(kind, MLP, 64) for kind in (*ours, *peers))],
    )


@contextmanager
def collector() -> Iterator[None]:
    """Python's cyclic collector on, as in a user's program; the objects of peers' modules are not its business, which
    would be slower for it and so would everything in pure Python."""
    before = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()
        if not before:
            gc.disable()


@contextmanager
def deep() -> Iterator[None]:
    """micrograd's backward pass is recursive."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def prepared(comparison: Comparison, target: float, skipped: dict[str, str]) -> list[Entry]:
    """The contestants that are here, checked; those with right numbers also calibrated."""
    entries = []
    for name, why, make in comparison.makers:
        if why is not None:
            skipped[name] = why
            continue
        with passing(f"{comparison.title}: checking {name} ..."):
            try:
                entry = make()
                entry.name = name
                entry.about |= entry.check()
                if entry.about["correct"]:
                    entry.calibrate(target)
            except Exception as error:  # of a peer or of ours: the others still run, and the exit status tells
                what = " ".join(f"{type(error).__name__}: {error}".split())
                entry = Entry(name, dict, int, 1.0, about={"correct": False, "error": what})
        entries.append(entry)
    return entries


def measured(comparison: Comparison, quick: bool) -> dict[str, Any]:
    """Check, time in turn, print; what goes into the JSON."""
    skipped: dict[str, str] = {}
    deadline = time.perf_counter() + (2.0 if quick else 11.0)
    entries = prepared(comparison, 0.01 if quick else 0.1, skipped)
    timed = [entry for entry in entries if entry.about["correct"]]
    rounds = 3 if quick else 7
    for number in range(rounds):
        if number >= 3 and time.perf_counter() > deadline:  # a slow machine gets fewer rounds, not a longer wait
            break
        for entry in timed:
            with passing(f"{comparison.title}: round {number + 1} of {rounds}, {entry.name} ..."):
                entry.measure()
    twin = next((entry for entry in timed if entry.name.startswith("twin")), None)
    say()
    say(comparison.title, "bold")
    say(f"  {'':<32} {comparison.unit:>12} {'spread':>9} {'twin / it':>11}  {'numbers':<7}", "dim")
    results: dict[str, Any] = {}
    for entry in entries:
        result = results[entry.name] = dict(entry.about)
        if not entry.seconds:
            say(f"  {entry.name:<32} {'':>12} {'':>9} {'':>11}  WRONG", "bold", "yellow")
            if "error" in entry.about:
                say(f"    {entry.about['error'][:74]}")
            continue
        ratio = twin.median / entry.median if twin is not None else None
        figure = entry.median * (1e9 if comparison.unit.startswith("ns") else 1e6)
        said = "" if ratio is None else f"{short_number(ratio)} x"
        say(f"  {entry.name:<32} {short_number(figure):>12} {100 * entry.spread:>7.1f} % {said:>11}  right")
        per_second = {"ns_per_operation": figure} if comparison.unit == "ns/op" else {"samples_per_s": 1 / entry.median}
        result |= {"median": figure, "spread": entry.spread, "twin_ratio": ratio, **per_second}
        result["rounds"] = [s / entry.median * figure for s in entry.seconds]
    for entry in timed:
        if (once := getattr(entry.side, "once", None)) is not None:
            results[entry.name]["seconds_once"] = once
            note = f"{entry.name}: {1e3 * once:.0f} ms more for each call of fit"
            say(f"  {note}", "dim")
    for note in comparison.notes:
        say(f"  {note}", "dim")
    for name, why in skipped.items():
        say(f"  {name}: skipped, {why}", "dim")
    return {
        "name": comparison.name,
        "title": comparison.title,
        "unit": comparison.unit,
        "notes": comparison.notes,
        "contestants": results,
        "skipped": skipped,
    }


def short_number(x: float) -> str:
    """Three digits, or all before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def compare_all(quick: bool) -> dict[str, Any]:
    """Everything that `fastscalar bench` does; "correct" in the result says whether all checks were passed."""
    began = time.perf_counter()
    X, y, source = digits(640 if quick else 2560)
    with passing("importing the peers ..."):
        for module in PEERS:
            if not absent(module):
                importlib.import_module(module)
        if not Torch.missing():  # it imports the rest of itself when it is first used
            with suppress(Exception):  # said by the check
                Torch(LINEAR10, X, y).run(1)
    versions = {"fastscalar": fs.__version__, "Python": platform.python_version(), "NumPy": np.__version__}
    kernels = fs.tape_info()["kernels"]
    say(", ".join(f"{name} {version}" for name, version in versions.items()), "bold")
    say(f"{cpu()}, {plural(os.cpu_count() or 1, 'core')}, kernels {kernels}; one thread, Python's collector on")
    if absent("threadpoolctl"):
        say("NumPy may take more threads: threadpoolctl, which could tell it, is missing")
    say(f"data: the first {len(X):,} images of {source}" if source == "MNIST" else f"data: {source}", "bold")
    with deep(), collector():
        blocks = [measured(comparison, quick) for comparison in comparisons(X, y, quick)]
    wrong = [
        f"{name} ({block['name']})"
        for block in blocks
        for name, result in block["contestants"].items()
        if not result["correct"]
    ]
    seconds = time.perf_counter() - began
    say()
    say("Medians of rounds taken in turn; spread: half the distance of the quartiles.")
    say(f"Before it is timed, each must get the same sums, or the same first {CHECKED} losses.")
    if wrong:
        say(fill(f"WRONG numbers, not timed: {'; '.join(wrong)}", WIDTH - 1), "bold", "yellow")
    else:
        say(f"All numbers right; {seconds:.0f} s", "bold")
    return {
        **{name.lower(): version for name, version in versions.items()},
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "kernels": kernels,
        "collector": "on",
        "data": source,
        "quick": quick,
        "seconds": seconds,
        "correct": not wrong,
        "workloads": blocks,
    }
