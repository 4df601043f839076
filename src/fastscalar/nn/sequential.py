"""Sequential: layers one after the other; and layers that normalise, and that look up."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastscalar._settings import LARGEST, real_number, whole_number
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import to_tensor
from fastscalar.engine._traced import TracedInt
from fastscalar.functions import dot, mean
from fastscalar.nn.activations import activation_of, name_of
from fastscalar.nn.init import Initializer, generator, initial_weights, room_for
from fastscalar.nn.module import Module
from fastscalar.nn.saved import ours


@ours
class Sequential(Module):
    """Layers one after the other: Modules, activations by name, functions.

    `layers` is the list of them; `net[0]`, `len(net)` and iteration are its.

    >>> import fastscalar as fs
    >>> net = fs.nn.Sequential(fs.Linear(3, 4, seed=0), "tanh", fs.Linear(4, 2, seed=1))
    >>> net
    Sequential(Linear(3, 4), 'tanh', Linear(4, 2))
    >>> net([1.0, 2.0, 3.0]).shape, [name for name, _ in net.named_parameters()]
    ((2,), ['layers.0.w', 'layers.0.b', 'layers.2.w', 'layers.2.b'])
    """

    def __init__(self, *layers: Module | Callable[[Any], Any] | str) -> None:
        if not layers:
            raise ValueError("Sequential: expected layers, such as Sequential(Linear(4, 3), 'relu', Linear(3, 2))")
        self.layers: list[Any] = [
            layer if isinstance(layer, Module) else activation_of(layer, "Sequential") for layer in layers
        ]

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, k: int) -> Any:
        return self.layers[k]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def __repr__(self) -> str:
        shown = [repr(layer if isinstance(layer, Module) else name_of(layer) or layer) for layer in self.layers]
        return f"Sequential({', '.join(shown)})"


@ours
class LayerNorm(Module):
    """(x - mean) / sqrt(variance + eps), of each row, times `w`, plus `b` (Ba et al. 2016, arXiv:1607.06450).

    The variance is that of all numbers of the row (divided by `features`).

    Attributes
    ----------
    w, b : TensorArray, shape (features,)
        Ones and zeros at first.

    Raises
    ------
    ValueError
        In a call, for rows of another length.

    Examples
    --------
    >>> import fastscalar as fs, numpy as np
    >>> np.round(fs.nn.LayerNorm(3)(fs.to_tensor([1.0, 2.0, 3.0])).numpy(), 3)
    array([-1.225,  0.   ,  1.225])
    """

    w: TensorArray
    b: TensorArray

    def __init__(self, features: int, *, eps: float = 1e-5) -> None:
        self.features = features = whole_number("LayerNorm: features", features, 1, LARGEST)
        self.eps = real_number("LayerNorm: eps", eps)
        room_for(2 * features)
        self.w, self.b = to_tensor(np.ones(features)), to_tensor(np.zeros(features))

    def forward(self, x: Any) -> Any:
        if isinstance(x, np.ndarray) or not isinstance(x, TensorArray):
            x = to_tensor(x)
        if getattr(x, "ndim", 1) > 1 or (isinstance(x, list) and isinstance(x[0], (list, TensorArray))):
            return [self.forward(row) for row in x]
        if len(x) != self.features:
            raise ValueError(f"LayerNorm({self.features}): expected {self.features} numbers, got {len(x)}")
        if isinstance(x, list):
            return self._of_tensors(x)
        d = x - mean(x)
        return d * (dot(d, d) / self.features + self.eps) ** -0.5 * self.w + self.b

    def _of_tensors(self, x: list[Any]) -> list[Any]:
        m = mean(x)
        d = [t - m for t in x]
        scale = (dot(d, d) / self.features + self.eps) ** -0.5
        return [t * scale * w + b for t, w, b in zip(d, self.w, self.b, strict=True)]

    def __repr__(self) -> str:
        return f"LayerNorm({self.features})"


@ours
class Embedding(Module):
    """A table of vectors: of a whole number k the row k of `w`, of a list of them a list of rows.

    `fit` trains a net that begins with one on whole numbers X.

    Attributes
    ----------
    w : TensorArray, shape (count, features)
        Normal of variance 1 as in PyTorch, or by `init` as in `Linear`.

    Raises
    ------
    IndexError
        In a call, for a number out of range.
    TypeError
        For one that is not whole.

    Examples
    --------
    >>> import fastscalar as fs
    >>> fs.nn.Embedding(10, 3, seed=0)(7).shape
    (3,)
    """

    w: TensorArray
    takes_indices = True

    def __init__(
        self, count: int, features: int, *, init: str | Initializer = "normal", seed: int | random.Random | None = None
    ) -> None:
        self.count = count = whole_number("Embedding: count", count)
        self.features = features = whole_number("Embedding: features", features)
        self.w = to_tensor(initial_weights((count, features), init, generator(seed), biases=False)[0])

    def forward(self, k: Any) -> Any:
        """The vector of number k, or those of several."""
        if isinstance(k, (list, tuple)) or (isinstance(k, np.ndarray) and k.ndim):
            return [self.forward(one) for one in k]
        if isinstance(k, bool) or not isinstance(k, (int, np.integer, TracedInt)):
            raise TypeError(f"Embedding({self.count}, {self.features}): expected whole numbers, got {k!r}")
        return self.w[k]

    def __repr__(self) -> str:
        return f"Embedding({self.count}, {self.features})"
