"""A softmax and its loss written out, `probs[label]` and all, beside `cross_entropy`: training, recordings included.

And a NumPy scalar on the left of a Tensor beside a float."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from contestants.base import compiled_only
from workloads import in_turn

pytestmark = pytest.mark.benchmark(group="compile")


def written_out(z: Any, label: Any) -> Any:
    largest = fs.max(z)
    powers = [fs.math.exp(v - largest) for v in z]
    total = fs.sum(powers)
    probs = [e / total for e in powers]
    return -fs.math.log(probs[label])


@pytest.mark.parametrize("batch_size", [1, 64])
@pytest.mark.parametrize("classes", [10, 1_000])
def test_a_softmax_written_out(benchmark: Any, bar: Any, small: bool, classes: int, batch_size: int) -> None:
    n, inputs, hidden = (64, 12, 8) if small else (10_000, 784, 256)
    n //= 4 if batch_size == 1 and not small else 1
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(n, inputs)), rng.integers(0, classes, n)
    losses: dict[Any, float] = {}

    def train(loss: Any) -> None:
        net = fs.MLP(inputs, [hidden, classes], seed=1)
        with compiled_only():
            history = fs.fit(net, X, y, loss=loss, optimizer=fs.SGD(lr=0.01), epochs=2, batch_size=batch_size,
                             progress=False)  # fmt: skip
        losses[loss] = history.loss[-1]

    turns = in_turn(
        benchmark,
        lambda: train(written_out),
        {"cross_entropy": lambda: train(fs.cross_entropy)},
        rounds=1 if small else 5,
    )
    assert losses[written_out] == pytest.approx(losses[fs.cross_entropy], rel=1e-9)
    about = f"{classes} classes, batch size {batch_size}"
    bar(f"compile: softmax written out / cross_entropy, {about}", turns.ratio("fastscalar", "cross_entropy"), "x",
        at_most=1.5)  # fmt: skip


def test_a_numpy_scalar_on_the_left(benchmark: Any, bar: Any, small: bool) -> None:
    t, x, y = fs.Tensor(2.0), 3.0, np.float64(3.0)
    assert type(y * t) is fs.Tensor
    assert (y * t).data == 6.0

    def times(x: Any) -> None:
        for _ in range(100 if small else 300_000):
            x * t

    turns = in_turn(benchmark, lambda: times(y), {"float": lambda: times(x)}, rounds=1 if small else 9)
    bar("scalar ops: np.float64 * Tensor / float * Tensor", turns.ratio("fastscalar", "float"), "x", at_most=1.5)
