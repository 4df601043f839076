"""The nets that all sides train: rows, initial weights, and the losses that every side must reproduce."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np

from fastscalar import datasets
from fastscalar.cli.sources import SYNTHETIC
from fastscalar.nn.init import initial_weights

SEED = 0
CHECKED = 3  # losses that every contestant has to reproduce
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}

# --- workloads ---


@dataclass(frozen=True)
class Workload:
    """A net and how it is trained: one step is forward pass, loss, backward pass and SGD."""

    name: str
    widths: tuple[int, ...]
    loss: str = "cross_entropy"  # or mse: the net hits the label itself, as in the article's run in Paddle
    rate: float = 0.02
    white: float = 1.0  # what a white pixel is

    @property
    def products(self) -> int:
        """Multiplications of the forward pass of one sample."""
        return sum(m * n for m, n in pairwise(self.widths))


LINEAR1 = Workload("linear1", (784, 1), "mse", rate=1e-7, white=255.0)
LINEAR10 = Workload("linear10", (784, 10))
MLP = Workload("mlp", (784, 256, 10))
WIDE = Workload("wide", (784, 1024, 1024, 10))


@cache
def _drawn(widths: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = random.Random(SEED)
    return [initial_weights((m, n), "he", rng) for m, n in pairwise(widths)]


def initial_layers(widths: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Initial (w, b) of each layer, w of shape (in, out): the same numbers for every contestant."""
    return [(w.copy(), b.copy()) for w, b in _drawn(tuple(widths))]


def digits(n: int) -> tuple[np.ndarray, list[int], str]:
    """n rows of 784 pixels from 0 to 1, their labels, and what they are: MNIST if it is on this machine."""
    try:
        (X, y), _ = datasets.mnist(download=False)
        name = "MNIST"
    except datasets.DatasetUnavailable:
        (X, y), _ = datasets.synthetic_digits(n_train=n, n_test=1)
        name = f"{SYNTHETIC}, NOT MNIST"
    return X[:n].reshape(-1, 784) / 255, y[:n].tolist(), name


def expected_losses(
    work: Workload,
    X: np.ndarray,
    y: Sequence[int],
    batch: int,
    steps: int = CHECKED,
    layers: list[tuple[np.ndarray, np.ndarray]] | None = None,
) -> list[float]:
    """The losses of the first steps in float64, from the formulas: what everybody must reproduce.

    `layers` are the (w, b) to begin with, if they are not those of `initial_layers`.
    """
    layers, losses = initial_layers(work.widths) if layers is None else list(layers), []
    for k in range(steps):
        inputs = [X[k * batch : (k + 1) * batch] * work.white]
        labels = np.array(y[k * batch : (k + 1) * batch])
        for w, b in layers[:-1]:
            inputs.append(np.maximum(inputs[-1] @ w + b, 0.0))
        z = inputs[-1] @ layers[-1][0] + layers[-1][1]
        if work.loss == "mse":
            g = 2.0 * (z - labels[:, None])
            losses.append(float(np.mean(np.sum((z - labels[:, None]) ** 2, axis=1))))
        else:
            each = np.arange(len(labels))
            g = np.exp(z - z.max(axis=1, keepdims=True))
            g /= g.sum(axis=1, keepdims=True)
            losses.append(float(np.mean(-np.log(g[each, labels]))))
            g[each, labels] -= 1.0
        g /= len(labels)
        for i in reversed(range(len(layers))):
            (w, b), h = layers[i], inputs[i]
            layers[i] = (w - work.rate * h.T @ g, b - work.rate * g.sum(axis=0))
            g = (g @ w.T) * (h > 0.0)
    return losses
