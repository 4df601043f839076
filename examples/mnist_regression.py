"""The article's MNIST run: `Linear(784, 10)`, the label a number to be hit; then what was too much for it.

1. Its own run: 1,000 images, 10 to test, pixels from 0 to 255, learning rate 1e-8, two epochs, a line each 100
   samples.
2. All 60,000 images, compiled.
3. The net that stays commented out there: `MLP(784, [256, 10])`.

This is no classifier (`fastscalar train` makes one).  Run it with `python examples/mnist_regression.py`.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np

import fastscalar as fs

TRAIN, TEST = 1_000, 10
RATE, EPOCHS = 1e-8, 2
Split = tuple[np.ndarray, np.ndarray]


def load(synthetic: bool) -> tuple[Split, Split]:
    """Rows of 784 pixels from 0.0 to 255.0, and labels of shape (n, 1)."""
    if synthetic:
        train, test = fs.datasets.synthetic_digits(n_train=2 * TRAIN, n_test=100)
    else:
        try:
            train, test = fs.datasets.mnist(report=print)
            print(train[0].shape, train[1].shape, test[0].shape, test[1].shape)
            print(fs.datasets.picture(train[0][1]))  # training sample 1, a zero
            print(train[0][1].astype(float))
        except fs.datasets.DatasetUnavailable as error:
            raise SystemExit(f"This example needs MNIST, or the option --synthetic.\n{error}") from None
    (X, y), (X_test, y_test) = (
        (X.reshape(len(X), -1).astype(float), y.reshape(-1, 1).astype(float)) for X, y in (train, test)
    )
    return (X, y), (X_test, y_test)


def loss_of(y_hat: fs.TensorArray, y: np.ndarray) -> fs.Tensor:
    # The article's loss runs over the one label that it is given, so it compares output 0 and no other.
    # fastscalar refuses ten predictions for one target; [:1] writes down what happens there.
    return fs.squared_loss(y_hat[:1], y)


def loop(net: fs.Linear | fs.MLP, train: Split, test: Split) -> tuple[list[float], list[float]]:
    """The loop of the article, and its lines."""
    train_losses, test_losses = [], []
    for epoch in range(EPOCHS):
        for i in range(TRAIN):
            loss = loss_of(net(train[0][i]), train[1][i])
            loss.backward()
            fs.sgd(net.parameters(), RATE)
            if i % 100 == 0:
                train_losses.append(loss.data)
                print(f"epoch{epoch + 1}, train loss {loss.data:f}")
        test_losses.append(test_loss(net, test))
        print(f"epoch{epoch + 1}, test loss {test_losses[-1]:f}")
    return train_losses, test_losses


def test_loss(net: fs.Linear | fs.MLP, test: Split) -> float:
    with fs.no_grad():
        return sum(loss_of(net(test[0][i]), test[1][i]).data for i in range(TEST)) / TEST


def main(arguments: Sequence[str] = ()) -> dict[str, tuple[list[float], list[float]]]:
    """(train losses, test losses) of each run."""
    parser = argparse.ArgumentParser(description="The article's MNIST regression.")
    parser.add_argument("--synthetic", action="store_true", help="train on drawn digits instead of MNIST")
    train, test = load(parser.parse_args(arguments).synthetic)

    print(f"\nLinear(784, 10), {TRAIN:,} images")
    found = {"article": loop(fs.Linear(784, 10, init="article", seed=0), train, test)}

    print(f"\nLinear(784, 10), {len(train[0]):,} images")
    net, losses = fs.Linear(784, 10, init="article", seed=0), []

    def after(epoch: object) -> None:
        losses.append(test_loss(net, test))

    start = time.perf_counter()
    history = fs.fit(
        net, *train, loss=loss_of, optimizer=fs.SGD(lr=RATE), epochs=EPOCHS, schedule=None, shuffle=False,
        progress=False, on_epoch=after,
    )  # fmt: skip
    for epoch, (mean, last) in enumerate(zip(history.loss, losses, strict=True), start=1):
        print(f"epoch{epoch}, train loss {mean:f} (mean), test loss {last:f}")
    print(f"{EPOCHS * len(train[0]):,} steps in {time.perf_counter() - start:.1f} s")
    found["all"] = (history.loss, losses)

    print(f"\nMLP(784, [256, 10]), {TRAIN:,} images")  # He's weights: from [0, 1) nothing so deep learns
    found["mlp"] = loop(fs.MLP(784, [256, 10], seed=0), train, test)
    return found


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
