"""Optimisers: sgd as in the article; SGD, Adam, AdamW and RMSprop with PyTorch's interface and formulas.

Those four are a row each of `engine/kernels/rules.h`, by name and constants: an eager step and one inside a compiled
replay are the same code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._settings import real_number, shown, whole_number
from fastscalar.engine._array import TensorArray
from fastscalar.engine._rules import Rule, step_by_rule
from fastscalar.engine._step import distinct_parameters, is_leaf, place_of, sgd_step
from fastscalar.nn.parameters import each_once, named_in, numbers_in


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
    sgd_step(parameters, lr if type(lr) is float else real_number("sgd: lr", lr, ""))


def short(p: Tensor | TensorArray) -> str:
    return repr(p) if isinstance(p, Tensor) else f"a TensorArray of shape {p.shape}"


def _places(parameters: list[Any]) -> set[Any]:
    return set(map(place_of, parameters))


class Optimizer:
    """What all optimisers share: the parameters, `zero_grad`, and the rule that `fit` binds them when left out.

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

    def __init__(self, parameters: Any = None, lr: float = 0.02) -> None:
        self.lr = _rate(type(self).__name__, lr)
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
        """One step with the gradients as they stand; a class of your own says which."""
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        sgd_step(self._bound(), 0.0, step=False)

    def _bound(self) -> list[Any]:
        if self._parameters is None:
            raise ValueError(f"{type(self).__name__} has no parameters yet: give it net.parameters(), or to fit")
        return self._distinct


def _rate(name: str, lr: Any) -> float:
    return real_number(f"{name}: lr", lr, expected="a learning rate")


def _part(name: str, value: Any) -> float:
    return real_number(name, value, "in [0, 1)")


# --- the optimisers of rules.h --------------------------------------------------------------------


class RuleOptimizer(Optimizer):
    """What those have in common: the state, flat arrays with a number for each of the parameters' own; clipping.

    A subclass names its formulas in `KIND`, its own constants in `_constants()`, and in `KEEPS` what the two arrays are
    called in a state dictionary.  `clip_norm` and `clip_value`: as `clip_grad_norm` and `clip_grad_value`, in every
    step, the first first."""

    KIND: str
    KEEPS: tuple[str, str]

    def __init__(
        self,
        parameters: Any,
        lr: float,
        weight_decay: float,
        clip_norm: float | None,
        clip_value: float | None,
    ) -> None:
        name = type(self).__name__
        self.weight_decay = real_number(f"{name}: weight_decay", weight_decay, "from 0 on")
        self.clip_norm = None if clip_norm is None else real_number(f"{name}: clip_norm", clip_norm)
        self.clip_value = None if clip_value is None else real_number(f"{name}: clip_value", clip_value)
        self._steps = 0
        self._kept: list[np.ndarray | None] = [None, None]
        self._known: Any = None                  # where on the tape the parameters are
        super().__init__(parameters, lr)

    def _constants(self) -> dict[str, Any]:
        """What its formulas take beside the learning rate."""
        raise NotImplementedError

    def _rule(self) -> Rule:
        return Rule(
            self.KIND,
            decay=self.weight_decay,
            clip_norm=self.clip_norm,
            clip_value=self.clip_value,
            **self._constants(),
        )

    @property
    def _size(self) -> int:
        """How many numbers its parameters are."""
        return sum(map(_size, self._distinct))

    def _ready(self) -> Rule:
        """The formulas, and room for all that they keep: it may have been given a momentum since."""
        rule = self._rule()
        for k, keeps in enumerate((rule.keeps_first, rule.keeps_second)):
            if keeps != (self._kept[k] is not None):
                self._kept[k] = np.zeros(self._size) if keeps else None
        return rule

    def bind(self, parameters: Any) -> None:
        """Use these parameters from now on; what is known of those that it had before is kept, if there are such."""
        before, were = self._by_place(), set(map(place_of, self._distinct))
        super().bind(parameters)
        self._known = None
        self._kept = [None, None]
        self._ready()
        places = list(map(place_of, self._distinct))
        if were.isdisjoint(places):
            self._steps = 0
        if not before:
            return
        for place, here in zip(places, self._parts(), strict=True):
            for new, old in zip(self._kept, before.get(place, (None, None)), strict=True):
                if new is not None and old is not None:
                    new[here] = old

    def _parts(self) -> Iterator[slice]:
        """Where in the flat arrays each of the parameters is."""
        at = 0
        for p in self._distinct:
            yield slice(at, at + _size(p))
            at += _size(p)

    def _by_place(self) -> dict[Any, list[np.ndarray | None]]:
        """What is kept of each parameter; empty if nothing is, as of plain SGD: there may be thousands of Tensors."""
        if all(kept is None for kept in self._kept):
            return {}
        return {
            place_of(p): [None if kept is None else kept[here].copy() for kept in self._kept]
            for p, here in zip(self._distinct, self._parts(), strict=True)
        }

    def _state(self) -> Any:
        return self._steps, self._by_place()

    def _set_state(self, state: Any) -> None:
        self._steps, known = state
        if not known:
            self._kept = [None if kept is None else np.zeros_like(kept) for kept in self._kept]
            return
        for p, here in zip(self._distinct, self._parts(), strict=True):
            for kept, old in zip(self._kept, known.get(place_of(p), (None, None)), strict=True):
                if kept is not None:
                    kept[here] = 0.0 if old is None else old

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on elsewhere: `steps`, `lr`, and the arrays that it keeps, flat, float64, in the order of
        the parameters.  `np.savez(path, **optimizer.state_dict())` writes it to a file.

        >>> import fastscalar as fs
        >>> w = fs.to_tensor([1.0, 2.0])
        >>> optimizer = fs.SGD([w], lr=0.25, momentum=0.5)
        >>> (w * w).sum().backward()
        >>> optimizer.step()
        >>> optimizer.state_dict()
        {'steps': 1, 'lr': 0.25, 'momentum': array([2., 4.])}
        """
        self._bound()
        kept = {name: k.copy() for name, k in zip(self.KEEPS, self._kept, strict=True) if k is not None}
        return {"steps": self._steps, "lr": self.lr, **kept}

    def load_state_dict(self, state: Any) -> None:
        """Take over what `state_dict` gave, or `np.load` of the file; the parameters have to be of the same sizes.

        ValueError for the state of another optimiser, or for other parameters; then nothing has changed."""
        self._bound()
        name = type(self).__name__
        kept = {key: array for key, array in zip(self.KEEPS, self._kept, strict=True) if array is not None}
        if named_in(state, name) != {"steps", "lr", *kept}:
            wanted, held = ", ".join(("steps", "lr", *kept)), ", ".join(map(str, state.keys())) or "nothing"
            raise ValueError(f"{name}: expected a state of {wanted}, got one of {held}")
        found = numbers_in(state, kept, name)
        for key, array in kept.items():
            if found[key].shape != array.shape:
                raise ValueError(f"{name}: {key}: expected {array.shape[0]} numbers, got shape {found[key].shape}")
        steps, lr = whole_number(f"{name}: steps", state["steps"], 0, 1 << 62), _rate(name, state["lr"])
        self._steps, self.lr = steps, lr
        for key, array in kept.items():
            array[...] = found[key]

    def step(self) -> None:
        """One step for every parameter, reached by the last backward pass or not, with the gradients as they stand."""
        parameters = self._bound()
        rule = self._ready()                     # which makes what it keeps
        first, second = self._kept
        self._known = step_by_rule(rule, parameters, self._steps + 1, self.lr, first, second, self._known)
        self._steps += 1

    def __repr__(self) -> str:
        constants = self._constants()
        if constants.get("momentum") == 0:
            del constants["momentum"]
        if not constants.get("nesterov", True):
            del constants["nesterov"]
        if self.KIND == "rmsprop":
            constants = {"alpha": constants.pop("betas")[1], **constants}
        more = {key: getattr(self, key) for key in ("weight_decay", "clip_norm", "clip_value") if getattr(self, key)}
        shown = ", ".join(f"{key}={value}" for key, value in {"lr": self.lr, **constants, **more}.items())
        return f"{type(self).__name__}({shown})"


def _size(p: Tensor | TensorArray) -> int:
    return 1 if isinstance(p, Tensor) else p.size


class SGD(RuleOptimizer):
    """Gradient descent: data -= lr * grad; with momentum (Sutskever et al. 2013) and Nesterov's form of it.

    Parameters
    ----------
    parameters : nested lists of Tensors and TensorArrays
        `fit` binds those of its net if they are left out.
    lr : float
    momentum : float
    nesterov : bool
        Look ahead along the momentum, which then has to be above 0.
    weight_decay : float
        So many times the parameter is added to its gradient (L2).
    clip_norm, clip_value : float
        See `clip_grad_norm` and `clip_grad_value`.

    >>> import fastscalar as fs
    >>> w = fs.Tensor(1.0)
    >>> optimizer = fs.SGD([w], lr=0.25)
    >>> (w * w).backward()
    >>> optimizer.step()
    >>> optimizer.zero_grad()
    >>> w.data, w.grad
    (0.5, 0.0)
    """

    KIND, KEEPS = "sgd", ("momentum", "")

    def __init__(
        self,
        parameters: Any = None,
        lr: float = 0.02,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        self.momentum = _part("SGD: momentum", momentum)
        if nesterov and not momentum:
            raise ValueError("SGD: nesterov needs a momentum above 0")
        self.nesterov = bool(nesterov)
        super().__init__(parameters, lr, weight_decay, clip_norm, clip_value)

    def _constants(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "nesterov": self.nesterov}

    @property
    def _memoryless(self) -> bool:
        """A step of a parameter reads its own number and gradient only."""
        return not (self.momentum or self.clip_norm or self.clip_value)

    @property
    def _plain(self) -> bool:
        """Only what has a gradient moves."""
        return self._memoryless and not self.weight_decay

    def step(self) -> None:
        """One step with the gradients as they stand; they stay."""
        if not self._plain:
            super().step()
            return
        sgd_step(self._bound(), self.lr, reset=False)
        self._steps += 1


class Adam(RuleOptimizer):
    """Adam (Kingma and Ba 2015, arXiv:1412.6980), with PyTorch's defaults.

    Parameters
    ----------
    parameters : nested lists of Tensors and TensorArrays
        `fit` binds those of its net if they are left out.
    lr : float
    betas : (float, float)
        How much of the running means of the gradient and of its square stays in each step.
    eps : float
        Added to the root of the mean square.
    weight_decay : float
        So many times the parameter is added to its gradient (L2); `AdamW` shrinks the parameter instead.
    clip_norm, clip_value : float
        See `clip_grad_norm` and `clip_grad_value`.

    >>> import fastscalar as fs
    >>> w = fs.Tensor(1.0)
    >>> optimizer = fs.Adam([w], lr=0.1)
    >>> (w * w).backward()
    >>> optimizer.step()
    >>> round(w.data, 6)
    0.9
    """

    KIND, KEEPS = "adam", ("mean", "square")

    def __init__(
        self,
        parameters: Any = None,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        name = type(self).__name__
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"{name}: betas: expected two numbers in [0, 1), got {shown(betas)}")
        self.betas = _part(f"{name}: betas", betas[0]), _part(f"{name}: betas", betas[1])
        self.eps = real_number(f"{name}: eps", eps)
        super().__init__(parameters, lr, weight_decay, clip_norm, clip_value)

    def _constants(self) -> dict[str, Any]:
        return {"betas": self.betas, "eps": self.eps}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101), with PyTorch's defaults.

    Parameters
    ----------
    weight_decay : float
        Every step first takes lr * weight_decay of each parameter off.
    parameters, lr, betas, eps, clip_norm, clip_value
        As in `Adam`.

    >>> import fastscalar as fs
    >>> w = fs.Tensor(1.0)
    >>> optimizer = fs.AdamW([w], lr=0.1, weight_decay=0.5)
    >>> (w * w).backward()
    >>> optimizer.step()
    >>> round(w.data, 6)
    0.85
    """

    KIND = "adamw"

    def __init__(
        self,
        parameters: Any = None,
        lr: float = 0.001,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.01,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        super().__init__(
            parameters, lr, betas, eps, weight_decay=weight_decay, clip_norm=clip_norm, clip_value=clip_value
        )


class RMSprop(RuleOptimizer):
    """RMSprop (Hinton 2012, lecture 6e), with PyTorch's defaults: the gradient over the root of a running mean of its
    squares.

    Parameters
    ----------
    alpha : float
        How much of that mean stays in each step.
    eps : float
        Added to the root of the mean square.
    parameters, lr, momentum, weight_decay, clip_norm, clip_value
        As in `SGD`.

    >>> import fastscalar as fs
    >>> w = fs.Tensor(1.0)
    >>> optimizer = fs.RMSprop([w], lr=0.01)
    >>> (w * w).backward()
    >>> optimizer.step()
    >>> round(w.data, 6)
    0.9
    """

    KIND, KEEPS = "rmsprop", ("momentum", "square")

    def __init__(
        self,
        parameters: Any = None,
        lr: float = 0.01,
        alpha: float = 0.99,
        eps: float = 1e-8,
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        clip_value: float | None = None,
    ) -> None:
        self.alpha, self.momentum = _part("RMSprop: alpha", alpha), _part("RMSprop: momentum", momentum)
        self.eps = real_number("RMSprop: eps", eps)
        super().__init__(parameters, lr, weight_decay, clip_norm, clip_value)

    def _constants(self) -> dict[str, Any]:
        return {"betas": (0.0, self.alpha), "eps": self.eps, "momentum": self.momentum}
