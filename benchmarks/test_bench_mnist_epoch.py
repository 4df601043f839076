"""A whole epoch of MNIST, sample by sample, MLP 784-256-10, by `fit`; loading and evaluation aside."""

from __future__ import annotations

from typing import Any

import pytest

import fastscalar as fs
from workloads import WIDTHS, our_net

NAME = "MLP(784, [256, 10])"


def load(limit: int | None) -> tuple[Any, Any]:
    try:
        (X, y), (X_test, y_test) = fs.datasets.mnist(download=False)
    except fs.datasets.DatasetUnavailable:
        pytest.skip("no MNIST: FASTSCALAR_DATA is not set to a folder that has it")
    return (X[:limit].reshape(-1, 784) / 255, y[:limit]), (
        X_test[:limit].reshape(-1, 784) / 255,
        y_test[:limit],
    )


def train(data: Any, epochs: int) -> fs.History:
    return fs.fit(our_net(WIDTHS[NAME]), *data[0], epochs=epochs, validation_data=data[1], progress=False)


def test_one_epoch(benchmark: Any, bar: Any, small: bool) -> None:
    data = load(1_000 if small else None)
    history = train(data, 1)
    accuracy = history.epochs[-1].accuracy
    assert accuracy > (0.7 if small else 0.96)
    seconds = []

    def run() -> None:
        again = train(data, 1)
        assert again.loss == history.loss
        assert again.epochs[-1].accuracy == accuracy
        seconds.append(again.seconds)

    benchmark.pedantic(run, rounds=1 if small else 5)
    seconds.sort()
    bar("mnist_epoch: one epoch", seconds[len(seconds) // 2], "s", at_most=4)
    bar("mnist_epoch: test accuracy after one epoch", 100 * accuracy, "%", at_least=96)


def test_ten_epochs(benchmark: Any, bar: Any, small: bool) -> None:
    """With the defaults of `fit`: rate 0.02, falling linearly."""
    data = load(1_000 if small else None)
    history = benchmark.pedantic(train, (data, 2 if small else 10), rounds=1)
    assert history.loss == sorted(history.loss, reverse=True)
    bar("mnist_epoch: ten epochs", history.seconds, "s")
    bar("mnist_epoch: test accuracy after ten epochs", 100 * history.epochs[-1].accuracy, "%", at_least=98)
