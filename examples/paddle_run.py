"""The run for which the article changed to Paddle: `Linear(784, 1)`, 60,000 images, 10 epochs, learning rate 1e-7.

Pixels from 0 to 255, the label a number to be hit, mean squared error, float32, images in their order; weights as that
library draws them.  Half a second here, on the same scalar graph as everything else.  The article's lines: the loss
of the samples 0 and 30,000 of each epoch, and its test loss.  That is a sum over 1,000 images divided by 10,000; the
mean stands beside it.  Run it with `python examples/paddle_run.py`.
"""

import argparse
import copy
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastscalar as fs

EPOCHS, RATE = 10, 1e-7
TEST = 1_000
Split = tuple[np.ndarray, np.ndarray]


def load(synthetic: bool) -> tuple[Split, Split]:
    """Rows of 784 pixels from 0.0 to 255.0, and labels."""
    if synthetic:
        train, test = fs.datasets.synthetic_digits(n_train=6_000, n_test=TEST)
    else:
        try:
            train, test = fs.datasets.mnist(report=print)
        except fs.datasets.DatasetUnavailable as error:
            raise SystemExit(f"This example needs MNIST, or the option --synthetic.\n{error}") from None
    (X, y), (X_test, y_test) = ((X.reshape(len(X), -1).astype(float), y.astype(float)) for X, y in (train, test))
    return (X, y), (X_test, y_test)


def paddle_linear(in_features: int, out_features: int, seed: int) -> fs.Linear:
    """A layer with the initial weights of paddle.nn.Linear: uniform in +-sqrt(6 / (in + out)), no bias."""
    net = fs.Linear(in_features, out_features)
    limit = (6 / (in_features + out_features)) ** 0.5
    net.w.data = np.random.default_rng(seed).uniform(-limit, limit, net.w.shape)
    net.b.data = 0.0
    return net


def train(net: fs.Linear, X: np.ndarray, y: np.ndarray, **options: Any) -> fs.History:
    """In the order of the rows, at a constant rate."""
    return fs.fit(
        net, X, y, loss=fs.mse_loss, optimizer=fs.SGD(lr=RATE), schedule=None, shuffle=False, progress=False, **options
    )


def main(arguments: Sequence[str] = ()) -> tuple[list[float], list[float], fs.Linear]:
    """(losses of samples 0 and 30,000, test losses as the article divides them, the net)"""
    parser = argparse.ArgumentParser(description="The run that the article did in Paddle.")
    parser.add_argument("--synthetic", action="store_true", help="train on drawn digits instead of MNIST")
    parser.add_argument("--seed", type=int, default=0, help="of the initial weights (default: 0)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="(default: float32)")
    options = parser.parse_args(arguments)
    (X, y), (X_test, y_test) = load(options.synthetic)
    net = paddle_linear(784, 1, options.seed)
    middle = len(X) // 2
    train_losses, test_losses = [], []

    def before(epoch: int) -> None:
        """The losses of two samples of the epoch to come; the second is met by a copy, trained half-way."""
        half = copy.deepcopy(net)
        train(half, X[:middle], y[:middle], epochs=1, dtype=options.dtype)
        for net_then, i in ((net, 0), (half, middle)):
            train_losses.append(fs.mse_loss(net_then(X[i]), y[i]).data)
            print(f"epoch{epoch}, train loss {train_losses[-1]:f}")

    def after(epoch: fs.nn.Epoch) -> None:
        errors = (net(X_test[:TEST]).numpy()[:, 0] - y_test[:TEST]) ** 2
        test_losses.append(float(errors.sum() / 10_000))
        print(f"epoch{epoch.epoch}, test loss {test_losses[-1]:f} (the mean is {errors.mean():f})")
        if epoch.epoch < EPOCHS:
            before(epoch.epoch + 1)

    start = time.perf_counter()
    before(1)
    history = train(net, X, y, epochs=EPOCHS, dtype=options.dtype, on_epoch=after)
    print(net(X[0]), y[:1])
    print(f"{EPOCHS * len(X):,} steps in {history.seconds:.1f} s; {time.perf_counter() - start:.1f} s with the losses")
    return train_losses, test_losses, net


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
