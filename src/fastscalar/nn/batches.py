"""Iterables of batches as the data of `fit`: a DataLoader, a list of pairs, a function that makes a generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastscalar.nn.parameters import array_of
from fastscalar.nn.samples import samples_of


class Batches:
    """Pairs (X, y) that `fit` goes through once for each epoch, in their order; those of an epoch are held together.

    source: what can be gone through again, or a function that is called for each epoch and returns what can be."""

    def __init__(self, source: Any, lr: float, net: Any) -> None:
        if isinstance(source, Iterator):
            raise TypeError(
                f"fit: X is a {type(source).__name__}, which can be gone through once, not once for each epoch; give "
                "the function that makes it, or a list"
            )
        self.source, self.lr, self.net = source, lr, net
        self.batch_size = 0
        self.first: tuple[np.ndarray, np.ndarray] | None = None
        self.first = self.epoch()

    def epoch(self) -> tuple[np.ndarray, np.ndarray]:
        """All samples of the next epoch; the first time is what the constructor has seen.  ValueError for batches that
        do not fit together, or not with those of the first epoch."""
        if self.first is not None and self.first[0].size:
            found, self.held, self.first = self.first, tuple(map(_look, self.first)), None
            return found
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        for k, batch in enumerate(self.source() if callable(self.source) else self.source):
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise ValueError(f"fit: batch {k}: expected a pair (X, y), got a {type(batch).__name__}")
            parts.append((array_of(batch[0], "X"), array_of(batch[1], "y")))
            if parts[-1][0].shape[:1] != parts[-1][1].shape[:1]:
                shapes = " and ".join(str(part.shape) for part in parts[-1])
                raise ValueError(f"fit: batch {k}: X and y of shapes {shapes}: expected as many rows in both")
        if not parts:
            raise ValueError("fit: the iterable has no batches")
        sizes = [len(X) for X, _ in parts]
        if len(set(sizes[:-1])) > 1 or sizes[-1] > sizes[0]:
            wrong = next(k for k, size in enumerate(sizes) if size != sizes[0])
            expected = f"expected {sizes[0]} as in the first, or in the last one less"
            raise ValueError(f"fit: batch {wrong} has {sizes[wrong]} samples; {expected}")
        try:
            X, y = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        except ValueError as error:
            raise ValueError(f"fit: the batches do not fit together: {error}") from None
        X, y = samples_of(X, y, self.lr, self.net)
        looks = tuple(map(_look, (X, y)))
        if self.batch_size and (looks, sizes[0]) != (self.held, self.batch_size):
            raise ValueError(
                f"fit: an epoch of X {looks[0]} and y {looks[1]} in batches of {sizes[0]}; the first was of "
                f"X {self.held[0]} and y {self.held[1]} in batches of {self.batch_size}"
            )
        self.batch_size = sizes[0]
        return X, y


def _look(array: np.ndarray) -> tuple[str, tuple[int, ...]]:
    return array.dtype.kind, array.shape


def are_batches(X: Any) -> bool:
    """Whether X, given without y, is meant as batches: no array."""
    return (isinstance(X, Iterable) or callable(X)) and not hasattr(X, "__array__")
