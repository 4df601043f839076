"""The article's own classes, put right: its program runs with nothing but the imports changed.

《动手写深度学习框架(一)》 keeps weights and outputs in plain nested lists of Tensors, and so do these classes, over the
engine's Tensor: the article's `sgd`, which looks for lists, trains them, and so does every loop that one wrote after
it.  Weights are uniform in [0, 1), from the generator of `random` (`random.seed` repeats a run).  Right here and wrong
there: every output has weights of its own, and an MLP applies its relu.  `fastscalar.Linear` and `fastscalar.MLP` do
the same work on arrays, faster, with He's initialisation, and refuse ten predictions for one target.

>>> import random
>>> from fastscalar.article import Linear, sgd, squared_loss, to_tensor
>>> random.seed(0)
>>> net, x, y = Linear(3, 1), to_tensor([1, 2, 3]), to_tensor([17])
>>> for _ in range(50):
...     loss = squared_loss(net(x), y)
...     loss.backward()
...     sgd(net.parameters(), 0.03)
>>> print([round(t.data, 6) for t in net(x)], y)
[17.0] [Tensor(data=17.0)]
"""

import random
import warnings
from itertools import pairwise
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import affine
from fastscalar.nn.init import initial_weights
from fastscalar.nn.optimizers import sgd

__all__ = ["MLP", "Linear", "Tensor", "sgd", "squared_loss", "to_tensor"]


def to_tensor(x: Any) -> Any:
    """Nested lists or an array of numbers as nested lists of Tensors."""
    x = x.tolist() if isinstance(x, (np.ndarray, np.generic)) else x
    if isinstance(x, (list, tuple, TensorArray)):
        return [to_tensor(e) for e in x]
    return x if isinstance(x, Tensor) else Tensor(x)


def _generator(seed: Any) -> Any:
    return random if seed is None else seed if hasattr(seed, "gauss") else random.Random(seed)


class Linear:
    """out[i] = b[i] + x[0] w[0][i] + x[1] w[1][i] + ...; `w` is a list of in_features lists, `b` a list."""

    def __init__(self, in_features: int, out_features: int, *, init: str = "article", seed: Any = None) -> None:
        self.in_features, self.out_features = in_features, out_features
        w, b = initial_weights((in_features, out_features), init, _generator(seed))
        self.w, self.b = to_tensor(w), to_tensor(b)

    def forward(self, x: Any) -> list[Tensor]:
        return list(affine(x, self.w, self.b))

    __call__ = forward

    def parameters(self) -> list[Any]:
        return [self.w, self.b]


class MLP:
    """Linear layers with `outs` outputs each, and relu between them."""

    def __init__(self, in_features: int, outs: list[int], *, init: str = "article", seed: Any = None) -> None:
        generator = _generator(seed)
        self.linears = [Linear(m, n, init=init, seed=generator) for m, n in pairwise([in_features, *outs])]
        self.num_linears = len(outs)

    def forward(self, x: Any) -> list[Tensor]:
        for linear in self.linears[:-1]:
            x = [y.relu() for y in linear(x)]
        return self.linears[-1](x)

    __call__ = forward

    def parameters(self) -> list[Any]:
        return [p for linear in self.linears for p in linear.parameters()]


def squared_loss(y_hat: Any, y: Any) -> Tensor:
    """Half the sum of (y_hat[i] - y[i])**2 over the targets, as in the article; if they are fewer, with a warning."""
    if len(y) > len(y_hat):
        raise ValueError(f"squared_loss: {len(y_hat)} predictions but {len(y)} targets")
    if len(y) < len(y_hat):
        said = f"squared_loss: {len(y_hat)} predictions but {len(y)} targets: only so many are compared and trained"
        warnings.warn(said, stacklevel=2)
    loss = Tensor(0.0)
    for p, t in zip(y_hat, y, strict=False):
        difference = p - t
        loss = loss + difference * difference * 0.5
    return loss
