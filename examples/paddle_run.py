"""The run for which the article changed to Paddle: `Linear(784, 1)`, 60,000 images, 10 epochs, rate 1e-7.

A few seconds here, on the same scalar graph as everything else.  Pixels stay as they are, 0 to 255, and the
label is a number to be hit.  Run it with `python examples/paddle_run.py`.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np

import fastscalar as fs

EPOCHS = 10
RATE = 1e-7


def load(synthetic: bool) -> tuple[np.ndarray, list[float]]:
    """Rows of 784 pixels from 0.0 to 255.0, and labels."""
    if synthetic:
        (X, y), _ = fs.datasets.synthetic_digits()
    else:
        try:
            (X, y), _ = fs.datasets.mnist(report=print)
        except fs.datasets.DatasetUnavailable as error:
            raise SystemExit(f"This example needs MNIST, or the option --synthetic.\n{error}") from None
    return X.reshape(-1, 784).astype(float), y.astype(float).tolist()


def main(arguments: Sequence[str] = ()) -> list[float]:
    parser = argparse.ArgumentParser(description="The run that the article did in Paddle.")
    parser.add_argument("--synthetic", action="store_true", help="train on drawn digits instead of MNIST")
    X, y = load(parser.parse_args(arguments).synthetic)
    net = fs.Linear(784, 1, init="article", seed=0)
    losses = []
    start = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        for x, label in zip(X, y, strict=True):
            loss = fs.squared_loss(net(x), [label])
            loss.backward()
            fs.sgd(net.parameters(), RATE)
            total += loss.item()
        losses.append(total / len(X))
        print(f"epoch {epoch:2}  loss {losses[-1]:,.2f}")
    print(f"{EPOCHS * len(X):,} steps in {time.perf_counter() - start:.1f} s")
    return losses


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
