"""Minibatches of MLP 784-256-10 and Linear(784, 10): everybody who has matrix products, at one and at two threads.

The twin, the article's classes and micrograd take as long for a minibatch as for its samples: see linear10 and mlp.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from contestants import Race, arrays, graphs
from contestants.base import Compiled, Compiled32, Contestant, Loop, NumPy, Torch
from nets import LINEAR10, MLP, WIDE, Workload
from workloads import rows

pytestmark = pytest.mark.benchmark(group="minibatch")
RIVALS: list[type[Contestant]] = [Torch, NumPy, arrays.ScikitLearn32, graphs.Jax, graphs.JaxEpoch]
OTHERS: list[type[Contestant]] = [Loop, Compiled, arrays.NumPy64, graphs.Paddle]
LIMITS = {"sparse": 1.3, "dense": 0.9}


CASES = [
    pytest.param(
        work, kind, batch, threads,
        id=f"{work.name}-{kind}-{batch}-{threads}",
        marks=[pytest.mark.thorough] if threads == 2 and (work is LINEAR10 or kind == "dense") else [],
    )
    for work, kind in ((LINEAR10, "sparse"), (MLP, "sparse"), (MLP, "dense"))
    for batch in (64, 256)
    for threads in (1, 2)
]  # fmt: skip


@pytest.mark.parametrize(("work", "kind", "batch", "threads"), CASES)
def test_minibatch(
    benchmark: Any, bar: Any, small: bool, race: Race, work: Workload, batch: int, kind: str, threads: int
) -> None:
    if threads > (os.cpu_count() or 1):
        pytest.skip(f"{threads} threads on fewer cores")
    size = 4 if small else batch
    X, y, source = rows(kind, 3 * size if small else 10_240)
    benchmark.extra_info.update(data=source, widths=work.widths, batch=size, threads=threads)
    # At the smallest size both batches are the same, and what is dense is news only to those who skip zeros.
    rivals, others = RIVALS, OTHERS if threads == 1 else []
    if small and (batch > 64 or kind == "dense"):
        rivals, others = [NumPy], [Loop, Compiled]
    # Until there is a compiled engine, the loop is ours.
    ours: type[Contestant] = Loop if Compiled32.missing() else Compiled32
    race.train([ours, *rivals, *(kind for kind in others if kind is not ours)], work, X, y, size, threads)
    turns = race.run(rounds=9)
    what = f"{work.name} b{batch}, {kind}, {threads} thread{'s' * (threads > 1)}"
    for name in turns.seconds:
        bar(f"minibatch: {what}, {name}", 1 / turns.median(name), "samples/s")
    names = [kind.name for kind in RIVALS if kind.name in turns.seconds]
    if ours is Compiled32 and names:
        best = min(map(turns.median, names))
        limit = LIMITS[kind] if work is MLP else None
        bar(f"minibatch: {what}, the best / ours", best / turns.median(ours.name), "x", at_least=limit)


def test_wide(benchmark: Any, bar: Any, small: bool, race: Race) -> None:
    """Three dense layers of a thousand units: matrix products are nearly all of it."""
    benchmark.group = "wide"
    size = 4 if small else 64
    X, y, source = rows("dense", 3 * size if small else 640)
    benchmark.extra_info.update(data=source, widths=WIDE.widths, batch=size, threads=1)
    pairs: list[tuple[type[Contestant], type[Contestant]]]
    pairs = [(Compiled, graphs.JaxEpoch64), (Compiled32, graphs.JaxEpoch)]
    race.train([side for pair in pairs for side in pair], WIDE, X, y, size)
    turns = race.run(rounds=9)
    for ours, jax in pairs:
        if jax.name in turns.seconds:
            what = f"wide: 784-1024-1024-10, batches of 64, dense, {ours.dtype}, JAX lax.scan / ours"
            bar(what, turns.ratio(jax.name, ours.name), "x", at_least=1.3)
