"""The article's MNIST run: one `Linear(784, 10)`, 1,000 images, the label taken as a number to be hit.

Pixels stay as they are, 0 to 255: the learning rate of 1e-8 makes sense only so.  This is not a classifier
(`fastscalar train` makes one); it shows what the article had when it stopped because training was too slow.
The number of epochs is ours.  Run it with `python examples/mnist_regression.py`.
"""

import argparse
from collections.abc import Sequence

import numpy as np

import fastscalar as fs

IMAGES = 1_000
EPOCHS = 30
RATE = 1e-8


def load(synthetic: bool) -> tuple[np.ndarray, list[float]]:
    """Rows of 784 pixels from 0.0 to 255.0, and labels."""
    if synthetic:
        (X, y), _ = fs.datasets.synthetic_digits(n_train=IMAGES)
    else:
        try:
            (X, y), _ = fs.datasets.mnist(report=print)
        except fs.datasets.DatasetUnavailable as error:
            raise SystemExit(f"This example needs MNIST, or the option --synthetic.\n{error}") from None
    return X.reshape(-1, 784)[:IMAGES].astype(float), y[:IMAGES].astype(float).tolist()


def main(arguments: Sequence[str] = ()) -> list[float]:
    parser = argparse.ArgumentParser(description="The article's MNIST regression.")
    parser.add_argument("--synthetic", action="store_true", help="train on drawn digits instead of MNIST")
    X, y = load(parser.parse_args(arguments).synthetic)
    net = fs.Linear(784, 10, init="article", seed=0)
    losses = []
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        for x, label in zip(X, y, strict=True):
            # The article's loss runs over the one label that it is given: output 0 learns, the others never
            # do. fastscalar refuses ten predictions for one target; [:1] writes down what happened there.
            loss = fs.squared_loss(net(x)[:1], [label])
            loss.backward()
            fs.sgd(net.parameters(), RATE)
            total += loss.item()
        losses.append(total / len(X))
        if epoch == 1 or epoch % 5 == 0:
            print(f"epoch {epoch:2}  loss {losses[-1]:,.1f}")
    return losses


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
