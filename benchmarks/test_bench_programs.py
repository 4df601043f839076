"""Irregular scalar code: value and gradient of an unrolled ODE and of an option on a lattice, for many samples.

Numba has no derivatives, and by hand NumPy would need them written out: neither takes part.
"""

from __future__ import annotations

from typing import Any

import pytest

from contestants import Race, programs
from contestants.entries import Entry

pytestmark = pytest.mark.benchmark(group="programs")
BATCH = [programs.Compilation, programs.CasADiReplay, programs.TorchColumns, programs.JaxVmap]
ONE_BY_ONE = [programs.Tape, programs.TwinTape]


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_value_and_gradient(benchmark: Any, bar: Any, small: bool, race: Race, skipped: Any, name: str) -> None:
    n = 20 if small else 4_000
    operations = programs.operations(name)
    benchmark.extra_info.update(operations=operations, samples=n)
    ours: Any = programs.Tape if programs.Compilation.missing() else programs.Compilation
    for kind in [ours, *(kind for kind in BATCH + ONE_BY_ONE if kind is not ours)]:
        if why := kind.missing():
            skipped(kind.name, why)
            continue
        X = programs.samples(name, n if kind in BATCH else min(n, 20))
        side = kind(name, X)
        about = {"dtype": "float64", "threads": 1, "version": kind.version(), "samples": len(X)}
        race.add(Entry(kind.name, side.check, side.run, operations * len(X), None, 1.0, about, side))
    turns = race.run(rounds=9, unit="ns_per_operation")
    for side in turns.seconds:
        limit = 3 if side == programs.Compilation.name else None
        bar(f"programs: {name}, value and gradient, {side}", turns.median(side) * 1e9, "ns/op", at_most=limit)
    if ours is programs.Compilation:
        for side in (kind.name for kind in BATCH[1:] if kind.name in turns.seconds):
            limit = 3 if side == programs.CasADiReplay.name else None
            bar(f"programs: {name}, {side} / ours", turns.ratio(side, ours.name), "x", at_least=limit)
