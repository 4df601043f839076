"""Optimisers that keep something, at batch size 1 and 64; Adam over single Tensors; a convolutional net.

At batch size 1 a step of Adam reads and writes all 203,530 weights and their moments: its traffic alone is tens of
microseconds, whoever does it.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from contestants import Race, optimisers
from contestants.base import absent
from nets import MLP
from workloads import SEED, in_turn, rows

pytestmark = pytest.mark.benchmark(group="optimisers")


@pytest.mark.parametrize("rule", ["adam", "adamw", "momentum"])
@pytest.mark.parametrize("batch", [1, 64])
def test_a_step(benchmark: Any, bar: Any, small: bool, race: Race, rule: str, batch: int) -> None:
    size = 4 if small and batch > 1 else batch
    X, y, source = rows("sparse", 3 * size if small else 2_000 if batch == 1 else 10_240)
    benchmark.extra_info.update(data=source, widths=MLP.widths, batch=size, rule=rule)
    ours, theirs = optimisers.of_rule(rule)
    by_hand = [optimisers.ByHand] * (batch == 1 and rule == "adam")
    race.train([ours, theirs, *by_hand], MLP, X, y, size)
    turns = race.run(rounds=9)
    what = f"optimisers: {rule}, batch {batch}"
    for name, seconds in turns.seconds.items():
        bar(f"{what}, {name.partition(',')[0]}", sorted(seconds)[len(seconds) // 2] * batch * 1e6, "us/step")
    if theirs.name in turns.seconds:
        limit = 5 if batch == 1 else 1.5
        bar(f"{what}, PyTorch fused / ours", turns.ratio(theirs.name, ours.name), "x", at_least=limit)
    if by_hand and by_hand[0].name in turns.seconds:
        bar(f"{what}, ours / C by hand", turns.ratio(ours.name, by_hand[0].name), "x", at_most=1.3)


def test_adam_of_a_small_gpt(benchmark: Any, bar: Any, small: bool) -> None:
    """4,192 Tensors of their own, as micrograd's and microgpt's parameters are; a step beside the formulas."""
    count, steps = (50, 3) if small else (4_192, 200)
    draw = random.Random(SEED)
    values = [draw.gauss(0, 1) for _ in range(count)]
    parameters = [fs.Tensor(v) for v in values]
    optimizer = fs.Adam(parameters, lr=0.01)
    w, s, t = np.array(values), np.zeros(count), np.zeros(count)
    for n in range(1, 4):
        sum((p * p for p in parameters), fs.Tensor(0.0)).backward()
        optimizer.step()
        g = 2 * w
        s, t = 0.9 * s + 0.1 * g, 0.999 * t + 0.001 * g * g
        w -= 0.01 / (1 - 0.9**n) * s / (np.sqrt(t / (1 - 0.999**n)) + 1e-8)
    np.testing.assert_allclose([p.data for p in parameters], w, rtol=1e-9)

    def run() -> None:
        for _ in range(steps):
            optimizer.step()

    turns = in_turn(benchmark, run, {}, rounds=1 if small else 9)
    bar("optimisers: Adam of a small GPT, 4,192 Tensors", turns.median("fastscalar") / steps * 1e6, "us", at_most=10)


def test_a_convolutional_net(benchmark: Any, bar: Any, small: bool, skipped: Any) -> None:
    """Two convolutions of 16 and 32 channels, two pools: SGD in batches of 64, float32, one thread each."""
    if (why := absent("torch")) is not None:
        skipped("PyTorch", why)
        pytest.skip(why)
    import torch

    n, size = (8, 4) if small else (1_280, 64)
    X, y, source = rows("sparse", n)
    benchmark.extra_info.update(data=source, batch=size)
    ours, theirs = optimisers.convolutions()
    labels = np.array(y)
    X32, y64 = torch.from_numpy(np.ascontiguousarray(X, np.float32)), torch.from_numpy(labels)
    optimizer, step = fs.SGD(lr=0.01), torch.optim.SGD(theirs.parameters(), lr=0.01)
    torch.set_num_threads(1)

    def fit(epochs: int = 1) -> fs.History:
        return fs.fit(ours, X, labels, optimizer=optimizer, schedule=None, shuffle=False, batch_size=size,
                      epochs=epochs, dtype="float32", progress=False)  # fmt: skip

    def peer() -> float:
        total = 0.0
        for k in range(0, n, size):
            loss = torch.nn.functional.cross_entropy(theirs(X32[k : k + size]), y64[k : k + size])
            step.zero_grad()
            loss.backward()
            step.step()
            total += loss.item() * len(X32[k : k + size])
        return total / n

    for _ in range(2):
        np.testing.assert_allclose(fit().loss[0], peer(), rtol=1e-3)

    def they() -> None:
        peer()

    turns = in_turn(benchmark, lambda: fit().epochs[0].seconds, {"PyTorch": they}, rounds=1 if small else 7)
    for name in turns.seconds:
        bar(f"optimisers: convolutions, batch 64, {name}", turns.median(name) / n * 1e6, "us/sample")
    bar("optimisers: convolutions, batch 64, PyTorch / ours", turns.ratio("PyTorch", "fastscalar"), "x", at_least=1)
