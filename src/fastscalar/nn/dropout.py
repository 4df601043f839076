"""Dropout: numbers that are left out at random while a net is trained."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastscalar._settings import real_number
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import to_tensor
from fastscalar.nn.module import Module
from fastscalar.nn.saved import ours
from fastscalar.random import bernoulli


@ours
class Dropout(Module):
    """In training mode each number is set to zero with probability p, and the others are divided by 1 - p (Srivastava
    et al. 2014); in evaluation mode, as in `evaluate` and `predict`, nothing happens.

    What is left out follows from the seed of `fit`, the epoch, the row of the data and the place (`fastscalar.random`):
    it is the same compiled and eagerly, in any batch, on any number of threads, and in a run that was resumed.

    >>> import fastscalar as fs
    >>> layer = fs.nn.Dropout(0.5)
    >>> with fs.random.stream(seed=0, row=0):
    ...     sorted(set(layer(fs.to_tensor([1.0] * 20)).tolist()))
    [0.0, 2.0]
    >>> layer.eval()(fs.to_tensor([1.0] * 3)).tolist()
    [1.0, 1.0, 1.0]
    """

    def __init__(self, p: float = 0.5) -> None:
        self.p = real_number("Dropout: p", p, "in [0, 1)", "a probability")

    def forward(self, x: Any) -> Any:
        if not self.training or self.p == 0.0:
            return x
        if isinstance(x, np.ndarray):
            x = to_tensor(x)
        if isinstance(x, list) and x and hasattr(x[0], "__len__"):
            return [self.forward(row) for row in x]
        keep = bernoulli(1.0 - self.p, x.shape if isinstance(x, TensorArray) else len(x)) * (1.0 / (1.0 - self.p))
        return x * keep if isinstance(x, TensorArray) else [t * k for t, k in zip(x, keep, strict=True)]

    def __repr__(self) -> str:
        return f"Dropout({self.p:g})"
