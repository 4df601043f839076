"""The compiled engine with the nets written in other ways than with the layers that it ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

import fastscalar as fs
from contestants.base import Compiled
from nets import CHECKED, Workload, initial_layers

DECAY = 2e-4  # of each weight, times the rate


class Loops(fs.Module):
    """The layers as loops over single numbers, as the article writes them; w[j][i] = input j, output i."""

    def __init__(self, layers: list[tuple[Any, Any]]) -> None:
        self.layers = [list(layer) for layer in layers]

    def forward(self, x: Any) -> Any:
        for number, (w, b) in enumerate(self.layers):
            y = []
            for i in range(len(b)):
                s = b[i]
                for j in range(len(x)):
                    s = s + x[j] * w[j][i]
                y.append(s if number == len(self.layers) - 1 else s.relu())
            x = y
        return x


def numbers(array: np.ndarray) -> Any:
    """Nested lists of Tensors, one object for each number."""
    return fs.Tensor(float(array)) if array.ndim == 0 else [numbers(part) for part in array]


class CompiledLoops(Compiled):
    name = "fastscalar compiled, scalar loops"

    def parameter(self, array: np.ndarray) -> Any:
        return fs.to_tensor(array)

    def model(self) -> tuple[Any, Callable[[Any, Any], Any]]:
        layers = [(self.parameter(w), self.parameter(b)) for w, b in initial_layers(self.work.widths)]
        return Loops(layers), super().model()[1]


class CompiledLists(CompiledLoops):
    name = "fastscalar compiled, scalar loops, lists"

    def parameter(self, array: np.ndarray) -> Any:
        return numbers(array)


class CompiledLists32(CompiledLists):
    name = "fastscalar compiled, scalar loops, lists, float32"
    dtype = "float32"


class Own(fs.Module):
    """What a user writes who knows Linear and nothing of MLP."""

    def __init__(self, widths: Sequence[int]) -> None:
        self.layers = [fs.Linear(m, n, seed=0) for m, n in pairwise(widths)]
        for layer, (w, b) in zip(self.layers, initial_layers(widths), strict=True):
            layer.w, layer.b = fs.to_tensor(w), fs.to_tensor(b)

    def forward(self, x: Any) -> Any:
        *hidden, last = self.layers
        for layer in hidden:
            x = fs.relu(layer(x))
        return last(x)


class CompiledModule(Compiled):
    name = "fastscalar compiled, own Module"

    def model(self) -> tuple[Any, Callable[[Any, Any], Any]]:
        return Own(self.work.widths), super().model()[1]


class CompiledDecay(Compiled):
    """A step takes a part of every weight off, of those of zero pixels too."""

    name = "fastscalar compiled, weight decay"

    def start(self) -> None:
        super().start()
        self.optimizer = fs.SGD(self.net.parameters(), lr=self.work.rate, weight_decay=DECAY)

    @classmethod
    def expected(cls, work: Workload, X: np.ndarray, y: Sequence[int], batch: int) -> list[float]:
        """The formulas once more, with what is taken off."""
        (w1, b1), (w2, b2) = initial_layers(work.widths)
        losses = []
        for k in range(CHECKED):
            x, label = X[k], y[k]
            h = np.maximum(x @ w1 + b1, 0.0)
            z = h @ w2 + b2
            p = np.exp(z - z.max())
            p /= p.sum()
            losses.append(float(-np.log(p[label])))
            p[label] -= 1.0
            below = np.where(h > 0.0, w2 @ p, 0.0)
            w2 -= work.rate * (np.outer(h, p) + DECAY * w2)
            b2 -= work.rate * (p + DECAY * b2)
            w1 -= work.rate * (np.outer(x, below) + DECAY * w1)
            b1 -= work.rate * (below + DECAY * b1)
        return losses
