"""Scalar operations from Python: 500 dot products of length 100 as `s = s + x * w`.

Inputs and weights are 50,100 leaves.  In one round all 500 sums are held until the last is made, as in a
training step; then all of them are dropped.  50 rounds are in one timer.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import article
import fastscalar as fs
from contestants import Race
from contestants.base import CompiledProducts, Products, absent, micrograd_number, torch_number
from contestants.entries import deep, products_entry
from contestants.programs import CasADiProducts
from fastscalar import reference
from fastscalar.engine import testing
from workloads import (
    OPERATIONS,
    OUTPUTS,
    collector,
    dot_product_numbers,
    dot_products,
    in_turn,
    made_of,
    total,
)

pytestmark = pytest.mark.benchmark(group="scalar_ops")
ROUNDS = 50  # in one timer
FEW = 5  # at the smallest size


@pytest.fixture(scope="module")
def sides() -> SimpleNamespace:
    """The same numbers on every side, after a check that every side computes the same."""
    numbers = dot_product_numbers()
    kinds = {"fastscalar": fs.Tensor, "twin": reference.Tensor, "article": article.Tensor, "complex": complex}
    data = SimpleNamespace(**{name: made_of(kind, *numbers) for name, kind in kinds.items()})
    expected = dot_products(*numbers)
    assert dot_products(*data.complex) == expected
    gradients = {}
    for name in ("fastscalar", "twin", "article"):
        x, w = getattr(data, name)
        sums = dot_products(x, w)
        assert [s.data for s in sums] == expected, name
        total(sums).backward()
        gradients[name] = [t.grad for t in x], [[t.grad for t in row] for row in w]
    assert gradients["fastscalar"] == gradients["twin"]
    assert all(row == numbers[0] for row in gradients["twin"][1])
    # The article's order of summation is another one.
    for a, b in zip(gradients["article"][0], gradients["twin"][0], strict=True):
        assert math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)
    assert gradients["article"][1] == gradients["twin"][1]
    return data


def forward(data: Any, rounds: int) -> None:
    """Build and drop."""
    for _ in range(rounds):
        sums = dot_products(*data)
        del sums


def whole(data: Any, rounds: int) -> float:
    """Build, backward, drop; the seconds of the backward passes alone."""
    seconds = 0.0
    for _ in range(rounds):
        root = total(dot_products(*data))
        start = time.perf_counter()
        root.backward()
        seconds += time.perf_counter() - start
        del root
    return seconds


def in_steady_state(run: Callable[[], None], nodes: int, small: bool) -> Callable[[], None]:
    """`run` with everything freed inside the timer, and a check that enough collections took place in it."""

    def steady() -> float:
        before = fs.tape_info()
        start = time.perf_counter()
        run()
        testing.collect()
        seconds = time.perf_counter() - start
        after = fs.tape_info()
        full = after["full_collections"] - before["full_collections"]
        young = after["collections"] - before["collections"] - full
        assert after["nodes"] == nodes
        assert small or full >= 2  # one that the work made due beside the one above
        assert small or young >= 20
        return seconds

    return steady


@pytest.fixture
def leaves(sides: SimpleNamespace) -> int:
    """Nodes on the tape when nothing but the leaves is left."""
    gc.collect()
    testing.collect()
    return fs.tape_info()["nodes"]


def test_forward_and_freeing(benchmark: Any, bar: Any, small: bool, sides: SimpleNamespace, leaves: int) -> None:
    """Against the same loop over `complex`, which makes one C object for each operation."""
    rounds = FEW if small else ROUNDS
    ours = in_steady_state(lambda: forward(sides.fastscalar, rounds), leaves, small)
    turns = in_turn(benchmark, ours, {"complex": lambda: forward(sides.complex, rounds)}, rounds=15)
    unit = 1e9 / (rounds * OPERATIONS)
    bar("scalar_ops: forward and freeing", turns.median("fastscalar") * unit, "ns/op")
    bar("scalar_ops: the loop over complex", turns.median("complex") * unit, "ns/op")
    bar("scalar_ops: forward and freeing / complex", turns.ratio("fastscalar", "complex"), "x", at_most=1.05)


def test_backward(benchmark: Any, bar: Any, small: bool, sides: SimpleNamespace, leaves: int) -> None:
    """The passes inside the rounds of a whole training step; leaves not counted as nodes.

    This bar is a time and not a ratio: the loop over `complex`, run in turn, says how fast the machine was.
    """
    seconds = []
    rounds = FEW if small else ROUNDS
    ours = in_steady_state(lambda: seconds.append(whole(sides.fastscalar, rounds)), leaves, small)
    turns = in_turn(benchmark, ours, {"complex": lambda: forward(sides.complex, rounds)}, rounds=15)
    seconds.sort()
    nodes = OPERATIONS + OUTPUTS
    unit = 1e9 / (rounds * OPERATIONS)
    bar("scalar_ops: the loop over complex, beside backward", turns.median("complex") * unit, "ns/op")
    bar("scalar_ops: backward", seconds[len(seconds) // 2] / (rounds * nodes) * 1e9, "ns/node", at_most=5)


@pytest.mark.parametrize(("side", "on", "factor"), [("twin", False, 12), ("twin", True, 25), ("article", True, 100)])
def test_in_all(
    benchmark: Any,
    bar: Any,
    small: bool,
    sides: SimpleNamespace,
    leaves: int,
    side: str,
    on: bool,
    factor: float,
) -> None:
    """Forward, backward and freeing, against pure Python with its collector on or off; ours has it on.

    The article's nodes are in cycles, so that freeing them is `gc.collect()`.  The twin's are not.
    """

    def theirs() -> float:
        with collector(on):
            start = time.perf_counter()
            whole(getattr(sides, side), 1)
            if side == "article":
                gc.collect()
            return time.perf_counter() - start

    rounds = FEW if small else ROUNDS
    ours = in_steady_state(lambda: whole(sides.fastscalar, rounds) and None, leaves, small)
    turns = in_turn(benchmark, ours, {side: theirs}, rounds=7)
    state = "on" if on else "off"
    what = f"scalar_ops: in all, {side} with collector {state}"
    bar(what, turns.median(side) / OPERATIONS * 1e9, "ns/op")
    bar(f"{what}, ours beside it", turns.median("fastscalar") / (rounds * OPERATIONS) * 1e9, "ns/op")
    bar(f"{what} / ours", rounds * turns.ratio(side, "fastscalar"), "x", at_least=factor)


def test_peers(benchmark: Any, bar: Any, small: bool, race: Race, skipped: Any) -> None:
    """Fewer dot products, and everybody but those of `test_in_all`: forward, backward, freeing.  No bar.

    Those that replay a recorded program are not said to be slow at recording it: they do it once.  NumPy, Numba and JAX
    have no numbers of their own; for them this is a matrix product.
    """
    outputs = 5 if small else 50
    sides: list[tuple[str, Callable[[float], Any], str | None]] = [
        ("fastscalar", fs.Tensor, None),
        ("micrograd", micrograd_number, "micrograd"),
        ("PyTorch, tensors of one number", torch_number, "torch"),
    ]
    with deep():
        for name, number, needs in sides:
            if why := absent(needs):
                skipped(name, why)
            else:
                race.add(products_entry(Products(name, number, outputs, needs)))
        if hasattr(fs, "compile"):
            race.add(products_entry(CompiledProducts("fastscalar compiled", 50 * outputs)))
        else:
            skipped("fastscalar compiled", "this version has no fs.compile")
        if why := absent("casadi"):
            skipped("CasADi SX, replayed", why)
        else:
            race.add(products_entry(CasADiProducts("CasADi SX, replayed", None, outputs, "casadi")))
        turns = race.run(rounds=9, unit="ns_per_operation")
    for side in turns.seconds:
        bar(f"scalar_ops: peers, {side}", turns.median(side) * 1e9, "ns/op")
