"""Optimisers: sgd as in the article, SGD and Adam with PyTorch's interface."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastscalar._array import TensorArray, flatten_parameters, sgd_step
from fastscalar._core import Tensor


def _check_rate(name: str, lr: float) -> float:
    lr = float(lr)
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"{name}: expected a learning rate above 0, got {lr!r}")
    return lr


def sgd(parameters: Any, lr: float) -> None:
    """One step down the gradient, `data -= lr * grad`, for every Tensor in nested lists, and its gradient reset.

    As in the article: `sgd(net.parameters(), lr=0.02)` after `loss.backward()`.

    >>> import fastscalar as fs
    >>> w = fs.Tensor(1.0)
    >>> (w * w).backward()
    >>> fs.sgd([w], lr=0.25)
    >>> w.data, w.grad
    (0.5, 0.0)
    """
    sgd_step(parameters, lr)


class Optimizer:
    """What `SGD` and `Adam` share: the parameters, `zero_grad`, and the rule that `fit` binds them when left out."""

    def __init__(self, parameters: Any, lr: float) -> None:
        self.lr = _check_rate(type(self).__name__, lr)
        self.parameters = parameters
        if parameters is not None:
            self.bind(parameters)

    def bind(self, parameters: Any) -> None:
        """Use these parameters from now on; TypeError if there is something else among them."""
        flatten_parameters(parameters, [])
        self.parameters = parameters

    def step(self) -> None:
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        sgd_step(self._bound(), 0.0, step=False)

    def _bound(self) -> Any:
        if self.parameters is None:
            raise ValueError(f"{type(self).__name__} has no parameters yet: give it net.parameters(), or to fit")
        return self.parameters


class SGD(Optimizer):
    """Gradient descent: data -= lr * grad.

    >>> import fastscalar as fs
    >>> w = fs.Tensor(1.0)
    >>> optimizer = fs.SGD([w], lr=0.25)
    >>> (w * w).backward()
    >>> optimizer.step()
    >>> optimizer.zero_grad()
    >>> w.data, w.grad
    (0.5, 0.0)
    """

    def __init__(self, parameters: Any = None, lr: float = 0.02) -> None:
        super().__init__(parameters, lr)

    def step(self) -> None:
        """data -= lr * grad; gradients stay."""
        sgd_step(self._bound(), self.lr, reset=False)

    def __repr__(self) -> str:
        return f"SGD(lr={self.lr})"


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), with PyTorch's defaults.

    >>> import fastscalar as fs
    >>> w = fs.Tensor(1.0)
    >>> optimizer = fs.Adam([w], lr=0.1)
    >>> (w * w).backward()
    >>> optimizer.step()
    >>> round(w.data, 6)
    0.9
    """

    def __init__(
        self,
        parameters: Any = None,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not (0 <= betas[0] < 1 and 0 <= betas[1] < 1):
            raise ValueError(f"Adam: expected betas in [0, 1), got {betas!r}")
        self.betas, self.eps = betas, eps
        self._flat: list[Any] = []
        self._means: list[np.ndarray] = []
        self._squares: list[np.ndarray] = []
        self._steps = 0
        super().__init__(parameters, lr)

    def bind(self, parameters: Any) -> None:
        """Use these parameters from now on; those that it had before keep their moments, if there are such."""
        super().bind(parameters)
        known = dict(zip(map(id, self._flat), zip(self._means, self._squares, strict=True), strict=True))
        self._flat = flatten_parameters(parameters, [])
        moments = [known.get(id(p)) or (np.zeros(_shape(p)), np.zeros(_shape(p))) for p in self._flat]
        if not any(id(p) in known for p in self._flat):
            self._steps = 0
        self._means, self._squares = [mean for mean, _ in moments], [square for _, square in moments]

    def step(self) -> None:
        """One step for every parameter, touched by the last backward pass or not."""
        self._bound()
        self._steps += 1
        first, second = self.betas
        rate = self.lr / (1 - first**self._steps)
        correction = 1 - second**self._steps
        for p, mean, square in zip(self._flat, self._means, self._squares, strict=True):
            gradient = np.asarray(p.grad)
            mean *= first
            mean += (1 - first) * gradient
            square *= second
            square += (1 - second) * gradient * gradient
            change = rate * mean / (np.sqrt(square / correction) + self.eps)
            p.data = p.data - (float(change) if isinstance(p, Tensor) else change)

    def __repr__(self) -> str:
        return f"Adam(lr={self.lr}, betas={self.betas}, eps={self.eps})"


def _shape(p: Tensor | TensorArray) -> tuple[int, ...]:
    return p.shape if isinstance(p, TensorArray) else ()
