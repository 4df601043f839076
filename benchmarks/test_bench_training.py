"""Training at batch size 1, by everybody who is installed: groups linear1, linear10 and mlp.

linear1 is the run for which the article changed to Paddle: Linear(784, 1), pixels from 0 to 255, mean squared error on
the label, learning rate 1e-7.  The other two classify: Linear(784, 10) and MLP 784-256-10, cross-entropy, 0.02.
"""

from __future__ import annotations

from typing import Any

import pytest

from contestants import Race, arrays, graphs, ours, python
from fastscalar.cli.bench import (
    LINEAR1,
    LINEAR10,
    MLP,
    Compiled,
    Compiled32,
    Contestant,
    Loop,
    NumPy,
    Torch,
    Twin,
    Workload,
)
from workloads import rows

PURE: list[type[Contestant]] = [Twin, python.Article, python.Micrograd]
NUMBAS: list[type[Contestant]] = [arrays.Numba, arrays.NumbaFast, arrays.Numba32, arrays.NumbaFast32]
PEERS: list[type[Contestant]] = [
    arrays.NumPy64,
    NumPy,
    *NUMBAS,
    Torch,
    graphs.Paddle,
    graphs.Jax,
    graphs.JaxEpoch,
    graphs.CasADi,
]
TINY = Workload("tiny", (784, 8, 10))  # at the size of MLP a step in pure Python takes seconds


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("work", [LINEAR1, LINEAR10, MLP], ids=lambda work: work.name)
def test_a_step(benchmark: Any, bar: Any, small: bool, race: Race, work: Workload, kind: str) -> None:
    benchmark.group = work.name
    X, y, source = rows(kind, 3 if small else 5_000)
    benchmark.extra_info.update(data=source, widths=work.widths)
    sides: list[type[Contestant]] = [Loop, Compiled, Compiled32]
    peers = PEERS
    if small:  # rows without zeros are news only to those who skip zeros; Numba compiles for some seconds
        peers = [] if kind == "dense" else [peer for peer in PEERS if work is MLP or peer not in NUMBAS[1:]]
    race.train([*sides, *peers], work, X, y)
    if kind == "sparse":
        race.train(PURE, TINY if work is MLP else work, X, y)
    turns = race.run(rounds=9)
    for entry in race.entries:
        scale, note = 1.0, ""
        if work is MLP and type(entry.side) in PURE:
            scale, note = MLP.products / TINY.products, ", scaled from 8 hidden units"
        seconds = turns.median(entry.name) * scale
        bar(f"{work.name}: {kind}, {entry.name}{note}", seconds * 1e6, "us/step")


# --- the compiled engine ---


def best(turns: Any, *names: str) -> float:
    """Seconds of the fastest of those that took part."""
    found = [turns.median(name) for name in names if name in turns.seconds]
    return min(found) if found else float("nan")


@pytest.fixture
def compiled(benchmark: Any, small: bool, race: Race) -> Any:
    """Run a race between these on MNIST's rows; the rest of the test is its bars."""

    def run(work: Workload, *kinds: type[Contestant], n: int = 20_000) -> Any:
        benchmark.group = "compile"
        X, y, source = rows("sparse", 3 if small else n)
        benchmark.extra_info.update(data=source, widths=work.widths)
        race.train(kinds, work, X, y)
        turns = race.run(rounds=9)
        return turns

    return run


NUMBA: list[type[Contestant]] = [arrays.Numba, arrays.NumbaFast]


def test_linear_by_fit(bar: Any, compiled: Any) -> None:
    turns = compiled(LINEAR10, Compiled, *NUMBA, Torch)
    bar("compile: Linear(784, 10) by fit", turns.median(Compiled.name) * 1e6, "us/step")
    if (numba := best(turns, *(kind.name for kind in NUMBA))) == numba:
        ratio = numba / turns.median(Compiled.name)
        bar("compile: Linear(784, 10), Numba by hand / ours", ratio, "x", at_least=1)
    if Torch.name in turns.seconds:
        bar("compile: Linear(784, 10), PyTorch eager / ours", turns.ratio(Torch.name, Compiled.name), "x")


def test_mlp_by_fit(bar: Any, compiled: Any) -> None:
    turns = compiled(MLP, Compiled, *NUMBA, n=10_000)
    bar("compile: MLP by fit", turns.median(Compiled.name) * 1e6, "us/step")
    if (numba := best(turns, *(kind.name for kind in NUMBA))) == numba:
        bar("compile: MLP, Numba by hand / ours", numba / turns.median(Compiled.name), "x", at_least=2)


def test_mlp_by_fit_in_float32(bar: Any, compiled: Any) -> None:
    turns = compiled(MLP, Compiled32, graphs.JaxEpoch, Torch, arrays.Numba32, arrays.NumbaFast32, n=10_000)
    mine = Compiled32.name
    bar("compile: MLP by fit, float32", turns.median(mine) * 1e6, "us/step")
    if Torch.name in turns.seconds:
        bar("compile: MLP, PyTorch eager / ours, float32", turns.ratio(Torch.name, mine), "x", at_least=20)
    if graphs.JaxEpoch.name in turns.seconds:
        ratio = turns.ratio(graphs.JaxEpoch.name, mine)
        bar("compile: MLP, JAX lax.scan / ours, float32", ratio, "x", at_least=5)
    if (numba := best(turns, arrays.Numba32.name, arrays.NumbaFast32.name)) == numba:
        bar("compile: MLP, Numba by hand / ours, float32", numba / turns.median(mine), "x")


@pytest.mark.parametrize("work", [LINEAR10, MLP], ids=lambda work: work.name)
@pytest.mark.parametrize("kind", [ours.CompiledLoops, ours.CompiledLists], ids=["arrays", "lists"])
def test_scalar_loops(bar: Any, compiled: Any, work: Workload, kind: type[Contestant]) -> None:
    """Nets without Linear, against those with it; the weights in TensorArrays, or Tensors in lists."""
    turns = compiled(work, Compiled, kind)
    what = kind.name.removeprefix("fastscalar compiled, ")
    bar(f"compile: {work.name}, {what} / layers", turns.ratio(kind.name, Compiled.name), "x", at_most=1.3)


@pytest.mark.parametrize("kind", [ours.CompiledModule, ours.CompiledL2], ids=["module", "l2"])
def test_nets_of_users(bar: Any, compiled: Any, kind: type[Contestant]) -> None:
    """L2: of all weights, those of zero pixels too, which a step without the term does not touch."""
    turns = compiled(MLP, Compiled, kind, n=10_000)
    what = kind.name.removeprefix("fastscalar compiled, ")
    bar(f"compile: {what} / MLP", turns.ratio(kind.name, Compiled.name), "x", at_most=1.3)
