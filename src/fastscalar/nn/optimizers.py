"""Optimisers: sgd as in the article, SGD and Adam with PyTorch's interface."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import (
    TensorArray,
    all_apart,
    distinct_parameters,
    flatten_parameters,
    is_leaf,
    place_of,
    sgd_step,
)


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


def each_once(parameters: Any) -> Any:
    """Nested lists of parameters without those that were there before; themselves if nothing repeats.

    A parameter counts once wherever it is listed, as in PyTorch: a layer that two modules share, a Tensor beside the
    array that it lies in.  Of arrays that overlap in part a flat list is left."""
    if all_apart(flat := flatten_parameters(parameters, [])):
        return parameters
    distinct = distinct_parameters(parameters)
    wanted = set(map(id, distinct))
    if len(distinct) == len(flat) and wanted == set(map(id, flat)):
        return parameters
    nested = _pruned(parameters, wanted) or []
    return distinct if wanted else nested        # some are new: what was left of an array


def _pruned(nested: Any, wanted: set[int]) -> Any:
    """What is wanted of nested lists, which is wanted no more then."""
    if isinstance(nested, (Tensor, TensorArray)):
        if id(nested) not in wanted:
            return None
        wanted.remove(id(nested))
        return nested
    entries = nested.values() if isinstance(nested, dict) else nested
    return [p for p in (_pruned(entry, wanted) for entry in entries) if p is not None] or None


def short(p: Tensor | TensorArray) -> str:
    return repr(p) if isinstance(p, Tensor) else f"a TensorArray of shape {p.shape}"


def _places(parameters: list[Any]) -> set[Any]:
    return set(map(place_of, parameters))


class Optimizer:
    """What `SGD` and `Adam` share: the parameters, `zero_grad`, and the rule that `fit` binds them when left out.

    A subclass defines `step()`, which moves each of `parameters` by its `.grad`; a state of its own belongs into
    `bind(parameters)`, after `super().bind(parameters)`: `fit` calls it again when it is given the next net.

    `step()` uses every gradient as it stands, as in PyTorch.  Where a `backward()` may not reach a parameter, whose
    gradient is then that of an earlier one, `zero_grad()` has to come before it.

    >>> import fastscalar as fs
    >>> class Signs(fs.optim.Optimizer):
    ...     def step(self):
    ...         for p in self.parameters:
    ...             p.data -= self.lr * fs.sign(p.grad)
    >>> w = fs.Tensor(1.0)
    >>> (w * w).backward()
    >>> Signs([w], lr=0.25).step()
    >>> w.data
    0.75
    """

    def __init__(self, parameters: Any, lr: float) -> None:
        self.lr = _check_rate(type(self).__name__, lr)
        self._parameters: Any = None
        self._distinct: list[Any] = []           # the same, flat
        self._bound_by_fit = False
        if parameters is not None:
            self.bind(parameters)

    @property
    def parameters(self) -> Any:
        """What it was given, each number once; None as long as it has none."""
        return self._parameters

    @parameters.setter
    def parameters(self, parameters: Any) -> None:
        self.bind([] if parameters is None else parameters)
        if parameters is None:
            self._parameters = None

    def bind(self, parameters: Any) -> None:
        """Use these parameters from now on; TypeError if there is something else among them, ValueError if one was
        computed: a step would be lost as soon as it is computed again."""
        if isinstance(parameters, Iterator):
            parameters = list(parameters)
        distinct = distinct_parameters(parameters)
        for p in distinct:
            if not is_leaf(p):
                raise ValueError(f"{type(self).__name__}: a parameter was computed, not made: {short(p)}")
        self._distinct = distinct
        self._parameters = each_once(parameters)
        self._bound_by_fit = False

    def _bind_by_fit(self, parameters: list[Any]) -> None:
        """As `fit` does, which may then give it another net; the same parameters keep what is known of them."""
        if self._parameters is None or _places(distinct_parameters(parameters)) != _places(self._distinct):
            self.bind(parameters)
        self._bound_by_fit = True

    def _state(self) -> Any:
        """What `_set_state` goes back to: `fit` does, to the last whole epoch, with the net."""

    def _set_state(self, state: Any) -> None: ...

    def step(self) -> None:
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        sgd_step(self._bound(), 0.0, step=False)

    def _bound(self) -> list[Any]:
        if self._parameters is None:
            raise ValueError(f"{type(self).__name__} has no parameters yet: give it net.parameters(), or to fit")
        return self._distinct


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
        """data -= lr * grad, with the gradients as they stand; they stay."""
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
        self._moments: list[tuple[np.ndarray, np.ndarray]] = []  # means of the gradient and of its square
        self._steps = 0
        super().__init__(parameters, lr)

    def bind(self, parameters: Any) -> None:
        """Use these parameters from now on; those that it had before keep their moments, if there are such."""
        known = dict(zip(map(place_of, self._distinct), self._moments, strict=True))
        super().bind(parameters)
        places = list(map(place_of, self._distinct))
        if not known.keys() & places:
            self._steps = 0
        shapes = [p.shape if isinstance(p, TensorArray) else () for p in self._distinct]
        zeros = [(np.zeros(shape), np.zeros(shape)) for shape in shapes]
        self._moments = [known.get(place, zero) for place, zero in zip(places, zeros, strict=True)]
        self._moments = [(m.reshape(s), v.reshape(s)) for (m, v), s in zip(self._moments, shapes, strict=True)]

    def _state(self) -> Any:
        moments = [(mean.copy(), square.copy()) for mean, square in self._moments]
        return self._steps, dict(zip(map(place_of, self._distinct), moments, strict=True))

    def _set_state(self, state: Any) -> None:
        self._steps, known = state
        for p, (mean, square) in zip(self._distinct, self._moments, strict=True):
            mean[...], square[...] = known.get(place_of(p), (0.0, 0.0))

    def step(self) -> None:
        """One step for every parameter, touched by the last backward pass or not, with the gradients as they stand."""
        self._bound()
        self._steps += 1
        first, second = self.betas
        rate = self.lr / (1 - first**self._steps)
        correction = 1 - second**self._steps
        for p, (mean, square) in zip(self._distinct, self._moments, strict=True):
            gradient = np.asarray(p.grad)
            mean *= first
            mean += (1 - first) * gradient
            square *= second
            square += (1 - second) * gradient * gradient
            change = rate * mean / (np.sqrt(square / correction) + self.eps)
            p.data = p.data - (float(change) if isinstance(p, Tensor) else change)

    def __repr__(self) -> str:
        return f"Adam(lr={self.lr}, betas={self.betas}, eps={self.eps})"

