"""Training at batch size 1, by everybody who is installed: groups linear1, linear10 and mlp.

linear1 is the run for which the article changed to Paddle: Linear(784, 1), pixels from 0 to 255, mean squared error on
the label, learning rate 1e-7.  The other two classify: Linear(784, 10) and MLP 784-256-10, cross-entropy, 0.02.
"""

from __future__ import annotations

from typing import Any

import pytest

from contestants import Race, arrays, graphs, ours, python
from contestants.base import Compiled, Compiled32, Contestant, Loop, NumPy, Torch, Twin
from nets import LINEAR1, LINEAR10, MLP, Workload
from workloads import Turns, rows

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
CLASSIFIERS: list[type[Contestant]] = [arrays.ScikitLearn, arrays.ScikitLearn32]
OWN_LOOPS: list[type[Contestant]] = [ours.CompiledLoops, ours.CompiledLists, ours.CompiledLists32]
EAGER = {"linear10": 8, "mlp": 6}  # times the speed of PyTorch eager, from a loop in Python
NUMBA = {"linear10": 1, "mlp": 2}  # times the speed of Numba, both in float64


@pytest.mark.parametrize(
    ("work", "kind"),
    [
        pytest.param(LINEAR1, "sparse", id="linear1-sparse"),
        pytest.param(LINEAR1, "dense", id="linear1-dense"),
        pytest.param(LINEAR10, "sparse", id="linear10-sparse"),
        pytest.param(LINEAR10, "dense", id="linear10-dense"),
        pytest.param(MLP, "sparse", id="mlp-sparse"),
        pytest.param(MLP, "dense", id="mlp-dense"),
    ],
)
def test_a_step(benchmark: Any, bar: Any, small: bool, race: Race, work: Workload, kind: str) -> None:
    """Everybody, each in its best settings; the ratios of the bars are those of this one race."""
    benchmark.group = work.name
    X, y, source = rows(kind, 3 if small else 5_000)
    benchmark.extra_info.update(data=source, widths=work.widths)
    sides: list[type[Contestant]] = [Loop, Compiled, Compiled32, *(OWN_LOOPS if work is not LINEAR1 else [])]
    peers = PEERS if work is LINEAR1 else [*PEERS, *CLASSIFIERS]
    if small:  # rows without zeros are news only to those who skip zeros; Numba compiles for some seconds
        peers = [] if kind == "dense" else [peer for peer in peers if work is MLP or peer not in NUMBAS[1:]]
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
    if kind == "dense" and work is not MLP:
        against_numba(bar, f"{work.name}: dense, Numba / ours, float32", turns, at_least=1.0)
    if kind == "sparse" and work is not LINEAR1:
        bars_of(bar, work, turns)


def against_numba(bar: Any, name: str, turns: Turns, at_least: float | None = None) -> None:
    """The best of Numba's loops in float32 over ours."""
    there = [turns.median(peer.name) for peer in (arrays.Numba32, arrays.NumbaFast32) if peer.name in turns.seconds]
    if there:
        bar(name, min(there) / turns.median(Compiled32.name), "x", at_least=at_least)


def bars_of(bar: Any, work: Workload, turns: Turns) -> None:
    def against(name: str, side: type[Contestant], *peers: type[Contestant], at_least: float | None = None) -> None:
        """The best of the peers that take part over ours."""
        there = [turns.median(peer.name) for peer in peers if peer.name in turns.seconds]
        if there:
            bar(f"{work.name}: {name}", min(there) / turns.median(side.name), "x", at_least=at_least)

    against("PyTorch eager / our loop in Python", Loop, Torch, at_least=EAGER[work.name])
    against("Numba / ours, float64", Compiled, arrays.Numba, arrays.NumbaFast, at_least=NUMBA[work.name])
    against_numba(bar, f"{work.name}: Numba / ours, float32", turns)
    if work is MLP:
        against("PyTorch eager / ours, float32", Compiled32, Torch, at_least=20)
        against("JAX lax.scan / ours, float32", Compiled32, graphs.JaxEpoch, at_least=5)
    for kind in OWN_LOOPS:
        layers = Compiled32 if kind.dtype == "float32" else Compiled
        what = kind.name.removeprefix("fastscalar compiled, ")
        bar(f"{work.name}: {what} / layers", turns.ratio(kind.name, layers.name), "x", at_most=1.3)


@pytest.mark.parametrize("kind", [ours.CompiledModule, ours.CompiledDecay], ids=["module", "decay"])
def test_nets_of_users(benchmark: Any, bar: Any, small: bool, race: Race, kind: type[Contestant]) -> None:
    """decay: of all weights, those of zero pixels too, which a step without it does not touch."""
    benchmark.group = "compile"
    X, y, source = rows("sparse", 3 if small else 10_000)
    benchmark.extra_info.update(data=source, widths=MLP.widths)
    race.train([Compiled, kind], MLP, X, y)
    turns = race.run(rounds=9)
    what = kind.name.removeprefix("fastscalar compiled, ")
    bar(f"compile: {what} / MLP", turns.ratio(kind.name, Compiled.name), "x", at_most=1.3)
