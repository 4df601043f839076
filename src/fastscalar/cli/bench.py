"""`fastscalar bench`: the engine and its compiled programs on this machine, beside the twin and NumPy by hand.

Contract
1. All sides of a workload start from the same weights and see the same rows.  Each must reproduce the sums, or the
   first three losses, of NumPy in float64 before it is timed; the exit status tells of one that does not.
2. The sides take turns, A B A B.  A figure is a median with its spread; ratios are between medians of one run.
3. Nothing is downloaded and nothing is written, `--json` aside.

Peers (PyTorch, JAX, Numba, micrograd and others), more workloads and limits are in `benchmarks/` of the repository.
"""

from __future__ import annotations

import os
import platform
import statistics
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar import datasets, reference
from fastscalar.cli.console import cpu, passing, plural, say
from fastscalar.cli.sources import SYNTHETIC
from fastscalar.nn.init import initial_weights

CHECKED = 3  # losses that every side has to reproduce
EPOCHS = 4  # of a call of fit; the first, in which it records and translates, is not timed
LENGTH = 100  # numbers in a dot product
RATE = 0.02


@dataclass
class Side:
    """One line of the table."""

    name: str
    check: Callable[[], bool]
    run: Callable[[], float]  # seconds
    units: float  # operations or samples in a run, scaled to the size that the workload has
    seconds: list[float] = field(default_factory=list)  # of a unit, by round
    error: str = "other numbers"


def seconds_of(run: Callable[[], Any]) -> Callable[[], float]:
    def timed() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return timed


def products(outputs: int) -> Iterator[Side]:
    """s = s + x * w, number by number: forward, backward from the sum of all."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=LENGTH), rng.normal(size=(outputs, LENGTH))

    def once(number: Callable[[float], Any]) -> tuple[Any, list[Any]]:
        inputs, root = [number(v) for v in x.tolist()], 0.0
        for row in w.tolist():
            s: Any = 0.0
            for a, b in zip(inputs, [number(v) for v in row]):  # noqa: B905  (strict would be measured too)
                s = s + a * b
            root = root + s
        root.backward()  # type: ignore[attr-defined]
        return root, inputs

    def right(number: Callable[[float], Any]) -> bool:
        root, inputs = once(number)
        return bool(np.isclose(root.data, (w @ x).sum()) and np.allclose([v.grad for v in inputs], w.sum(axis=0)))

    for name, number in (("twin", reference.Tensor), ("fastscalar", fs.Tensor)):
        yield Side(name, partial(right, number), seconds_of(partial(once, number)), 2 * outputs * LENGTH)

    program = fs.compile(lambda row: fs.dot(row, x.tolist()))
    rows = np.tile(w, (50, 1))
    yield Side(
        "fastscalar compiled",
        lambda: np.allclose(program.value_and_grad(rows, argnums=0)[0], rows @ x),
        seconds_of(lambda: program.value_and_grad(rows, argnums=0)),
        2 * rows.size,
    )


def by_hand(layers: list[Any], X: np.ndarray, y: np.ndarray, batch: int) -> list[float]:
    """Cross-entropy and SGD in array expressions; the losses, each before its step."""
    losses = []
    for k in range(0, len(X), batch):
        inputs, labels, each = [X[k : k + batch]], y[k : k + batch], np.arange(len(X[k : k + batch]))
        for w, b in layers[:-1]:
            inputs.append(np.maximum(inputs[-1] @ w + b, 0))
        z = inputs[-1] @ layers[-1][0] + layers[-1][1]
        g = np.exp(z - z.max(axis=1, keepdims=True))
        g /= g.sum(axis=1, keepdims=True)
        losses.append(float(np.mean(-np.log(g[each, labels]))))
        g[each, labels] -= 1
        g *= RATE / len(each)
        for (w, b), h in reversed(list(zip(layers, inputs, strict=True))):
            below = (g @ w.T) * (h > 0)
            w -= h.T @ g
            b -= g.sum(axis=0)
            g = below
    return losses


def training(widths: tuple[int, ...], X: np.ndarray, y: np.ndarray, batch: int, small: int) -> Iterator[Side]:
    """A step is forward pass, loss, backward pass and SGD.  The twin has `small` hidden units and is scaled."""

    def layers(sizes: tuple[int, ...], dtype: Any = float) -> list[Any]:
        rng = Random(0)
        drawn = [initial_weights((m, n), "he", rng) for m, n in pairwise(sizes)]
        return [(w.astype(dtype), b.astype(dtype)) for w, b in drawn]

    def steps(module: Any, net: Any, rows: int, size: int) -> list[float]:
        losses = []
        for k in range(0, rows, size):
            x = X[k].tolist() if module is reference else X[k] if size == 1 else X[k : k + size]
            loss = module.cross_entropy(net(x), int(y[k]) if size == 1 else y[k : k + size])
            loss.backward()
            module.sgd(net.parameters(), lr=RATE)
            losses.append(loss.item())
        return losses

    def fit(net: Any, rows: int, dtype: str, epochs: int = 1) -> fs.History:
        options: dict[str, Any] = {"epochs": epochs, "batch_size": batch, "shuffle": False, "progress": False}
        return fs.fit(net, X[:rows], y[:rows], optimizer=fs.SGD(lr=RATE), schedule=None, dtype=dtype, **options)

    def near(losses: list[float], sizes: tuple[int, ...], size: int, tolerance: float = 1e-9) -> bool:
        expected = by_hand(layers(sizes), X[: CHECKED * size], y, size)
        return np.allclose(losses, expected if len(losses) > 1 else np.mean(expected), rtol=tolerance)

    def compiled_losses(dtype: str, tolerance: float) -> bool:
        """fit tells the mean of an epoch."""
        return near(fit(new(), CHECKED * batch, dtype).loss, widths, batch, tolerance)

    def epoch(net: Any, dtype: str) -> float:
        return statistics.mean(one.seconds for one in fit(net, len(X), dtype, EPOCHS).epochs[1:])

    def new() -> fs.MLP:
        return fs.MLP(widths[0], list(widths[1:]), seed=0)

    tiny = (widths[0], small, widths[-1])
    few, count = (8 // small + 1) * 4, sum(m * n for m, n in pairwise(widths))
    scale = sum(m * n for m, n in pairwise(tiny)) / count
    net = reference.MLP(tiny[0], list(tiny[1:]), seed=0)
    yield Side(
        f"twin, {small} hidden units, scaled",
        lambda: near(steps(reference, reference.MLP(tiny[0], list(tiny[1:]), seed=0), CHECKED, 1), tiny, 1),
        seconds_of(lambda: steps(reference, net, few, 1)),
        few * scale,
    )
    ours, rows = new(), min(len(X), 4 * batch if batch > 1 else 200)
    yield Side(
        "fastscalar",
        lambda: near(steps(fs, new(), CHECKED * batch, batch), widths, batch),
        seconds_of(lambda: steps(fs, ours, rows, batch)),
        rows,
    )
    for name, dtype, tolerance in (("compiled", "float64", 1e-9), ("compiled, float32", "float32", 1e-3)):
        check, run = partial(compiled_losses, dtype, tolerance), partial(epoch, new(), dtype)
        yield Side(f"fastscalar {name}", check, run, len(X))
    floats, X32 = layers(widths, np.float32), X.astype(np.float32)
    yield Side(
        "NumPy by hand, float32",
        lambda: near(by_hand(layers(widths, np.float32), X32[: CHECKED * batch], y, batch), widths, batch, 1e-3),
        seconds_of(lambda: by_hand(floats, X32[:rows], y, batch)),
        rows,
    )


def measured(title: str, unit: str, sides: list[Side], quick: bool) -> dict[str, Any]:
    """Check, time in turn, print; what goes into the JSON."""
    right, results = [], {}
    for side in sides:
        with passing(f"{title}: checking {side.name} ..."):
            try:
                if side.check():
                    right.append(side)
            except Exception as error:  # the others still run, and the exit status tells
                side.error = " ".join(f"{type(error).__name__}: {error}".split())
    for side in right:
        side.run()  # until caches are warm and programs recorded
    deadline = time.perf_counter() + (2.0 if quick else 15.0)
    for number in range(3 if quick else 9):
        if number >= 3 and time.perf_counter() > deadline:  # a slow machine gets fewer rounds, not a longer wait
            break
        for side in right:
            with passing(f"{title}: round {number + 1}, {side.name} ..."):
                side.seconds.append(side.run() / side.units)
    say(f"\n{title}", "bold")
    say(f"  {'':<32} {unit:>12} {'spread':>9} {'twin / it':>11}  {'numbers':<7}", "dim")
    twin = statistics.median(sides[0].seconds) if sides[0].seconds else None
    for side in sides:
        if side not in right:
            results[side.name] = {"correct": False, "error": side.error}
            say(f"  {side.name:<32} {'':>12} {'':>9} {'':>11}  WRONG", "bold", "yellow")
            say(f"    {side.error[:74]}")
            continue
        median = statistics.median(side.seconds)
        low, _, high = statistics.quantiles(side.seconds, n=4, method="inclusive")
        spread, scale = (high - low) / 2 / median, 1e9 if unit == "ns/op" else 1e6
        ratio = twin / median if twin else None
        said = f"{short_number(ratio)} x" if ratio else ""
        say(f"  {side.name:<32} {short_number(scale * median):>12} {100 * spread:>7.1f} % {said:>11}  right")
        results[side.name] = {"correct": True, "median": scale * median, "spread": spread, "twin_ratio": ratio}
    return {"title": title, "unit": unit, "contestants": results}


def short_number(x: float) -> str:
    """Three digits, or all before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def digits(n: int) -> tuple[np.ndarray, np.ndarray, str]:
    """n rows of 784 pixels from 0 to 1, their labels, and what they are: MNIST if it is on this machine."""
    try:
        (X, y), _ = datasets.mnist(download=False)
        name = f"the first {n:,} images of MNIST"
    except datasets.DatasetUnavailable:
        (X, y), _ = datasets.synthetic_digits(n_train=n, n_test=1)
        name = f"{SYNTHETIC}, NOT MNIST"
    return X[:n].reshape(-1, 784) / 255, y[:n].astype(int), name


def workloads(quick: bool) -> Iterator[tuple[str, str, list[Side]]]:
    X, y, source = digits(640 if quick else 2560)
    say(f"data: {source}", "bold")
    outputs, small, widths = (10, 4, (784, 256, 10)) if quick else (50, 8, (784, 256, 10))
    yield "scalar operations: s = s + x * w, backward, freeing", "ns/op", list(products(outputs))
    yield "MLP 784-256-10, batch size 1", "us/sample", list(training(widths, X, y, 1, small))
    yield "MLP 784-256-10, batch size 64", "us/sample", list(training(widths, X, y, 64, small))


def compare_all(quick: bool) -> dict[str, Any]:
    """Everything that `fastscalar bench` does; "correct" in the result says whether all checks were passed."""
    began = time.perf_counter()
    about: dict[str, Any] = {"fastscalar": fs.__version__, "python": platform.python_version(), "numpy": np.__version__}
    about |= {"cpu": cpu(), "kernels": fs.tape_info()["kernels"]}
    say(", ".join(f"{n} {about[n.lower()]}" for n in ("fastscalar", "Python", "NumPy")), "bold")
    machine = f"{cpu()}, {plural(os.cpu_count() or 1, 'core')}, kernels {about['kernels']}"
    say(textwrap.fill(f"{machine}; one thread, NumPy's as it is set", 79))
    blocks = [measured(*block, quick) for block in workloads(quick)]
    wrong = [f"{n} ({b['title']})" for b in blocks for n, side in b["contestants"].items() if not side["correct"]]
    seconds = time.perf_counter() - began
    say("\nMedians of rounds taken in turn; spread: half the distance of the quartiles.")
    say(f"Before it is timed, each must get the same sums, or the same first {CHECKED} losses.")
    say(f"WRONG numbers, not timed: {len(wrong)}" if wrong else f"All numbers right; {seconds:.0f} s", "bold")
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    about |= {"cores": os.cpu_count(), "system": system, "quick": quick, "seconds": seconds, "wrong": wrong}
    return {**about, "correct": not wrong, "workloads": blocks}
