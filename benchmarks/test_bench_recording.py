"""What `fs.compile` costs once: the first call records, here 400,000 operations or 20,000 decisions, the second one
rewrites them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from contestants import SMALL
from contestants.base import Compiled, compiled_only
from contestants.ours import Loops
from nets import Workload, expected_losses, initial_layers
from workloads import in_turn, rows

pytestmark = pytest.mark.benchmark(group="compile")


def test_recording_time(benchmark: Any, bar: Any, small: bool, skipped: Any) -> None:
    """The first call beside the same call without `compile`; then a second call, and one for gradients."""
    if why := Compiled.missing():
        skipped(Compiled.name, why)
        pytest.skip(why)
    widths = (49, 8, 10) if small else (784, 256, 10)
    X, y, source = rows("sparse", 2)
    X = X[:, SMALL] if small else X
    net = Loops([(fs.to_tensor(w), fs.to_tensor(b)) for w, b in initial_layers(widths)])
    work = Workload("recorded", widths)
    expected = [expected_losses(work, X[k : k + 1], y[k : k + 1], 1, 1)[0] for k in range(2)]
    rewriting: list[float] = []
    planning: list[float] = []

    def loss(x: Any, label: Any) -> Any:
        return fs.cross_entropy(net(x), label)

    def eager() -> None:
        assert loss(fs.to_tensor(X[0]), y[0]).data == pytest.approx(expected[0], rel=1e-9)

    def recorded() -> float:
        program = fs.compile(loss)
        times = [time.perf_counter()]
        with compiled_only():
            first = program(X[0], y[0])
            times.append(time.perf_counter())
            second = program(X[1], y[1])
            times.append(time.perf_counter())
            both = program.backward(X, y)
        times.append(time.perf_counter())
        assert [first, second] == pytest.approx(expected, rel=1e-9)
        assert both == pytest.approx(expected, rel=1e-9)
        rewriting.append(times[2] - times[1])
        planning.append(times[3] - times[2])
        benchmark.extra_info["report"] = program.report()
        return times[1] - times[0]

    turns = in_turn(benchmark, recorded, {"eager": eager}, rounds=1 if small else 7)
    benchmark.extra_info.update(data=source, widths=widths)
    bar("compile: recording 400,000 operations", turns.median("fastscalar"), "s")
    bar("compile: recording / the same call without", turns.ratio("fastscalar", "eager"), "x", at_most=2)
    bar("compile: rewriting 400,000 operations", sorted(rewriting)[len(rewriting) // 2], "s", at_most=2)
    bar("compile: gradients of two rows, right after it", sorted(planning)[len(planning) // 2], "s")


def largest_by_if(xs: Any) -> Any:
    m = xs[0]
    for x in xs:
        if x > m:
            m = x
    return m


def largest_by_where(xs: Any) -> Any:
    m = xs[0]
    for x in xs:
        m = fs.where(x > m, x, m)
    return m


def counted_up(xs: Any) -> Any:
    """A loop that decides on a counter which is a Tensor; as many steps as there are numbers."""
    t, n = xs[0] * 0.0, float(len(xs))
    while t < n:
        t = t + 1.0
    return t


@pytest.mark.parametrize(
    ("word", "decide"), [("if", largest_by_if), ("where", largest_by_where), ("while", counted_up)]
)
def test_recording_decisions(benchmark: Any, bar: Any, small: bool, word: str, decide: Any) -> None:
    """Functions that do little else than decide: the first call beside the same call without `compile`."""
    n = 200 if small else 20_000
    xs = np.random.default_rng(0).normal(size=n)
    expected = float(n) if decide is counted_up else xs.max()

    def eager() -> None:
        assert decide(fs.to_tensor(xs)).data == expected

    def recorded() -> float:
        program = fs.compile(decide)
        start = time.perf_counter()
        with compiled_only():
            first = program(xs)
            seconds = time.perf_counter() - start
            assert [first, program(xs)] == [expected, expected]
        return seconds

    turns = in_turn(benchmark, recorded, {"eager": eager}, rounds=1 if small else 15)
    steps = f"compile: recording 20,000 decisions by {word}"
    bar(steps, turns.median("fastscalar"), "s")
    bar(f"{steps} / the same call without", turns.ratio("fastscalar", "eager"), "x")
