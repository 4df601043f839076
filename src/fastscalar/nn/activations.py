"""Activations by name: functions of a Tensor, a TensorArray, or lists of these."""

from __future__ import annotations

from collections.abc import Callable
from operator import methodcaller
from typing import Any

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import to_tensor
from fastscalar.functions import elu, leaky_relu, log_softmax, softmax

Activation = Callable[[Any], Any]


class _Named:
    """A function of every element, or of each row of an array, that is pickled by its name."""

    def __init__(self, name: str, function: Callable[[Any], Any], rows: bool = False) -> None:
        self.__name__, self.function, self.rows = name, function, rows

    def __call__(self, x: Any) -> Any:
        if self.rows:
            return [self(row) for row in x] if getattr(x, "ndim", 1) > 1 else self.function(x)
        if isinstance(x, (list, tuple)):
            return [self(e) for e in x]
        return self.function(x if isinstance(x, (Tensor, TensorArray)) else to_tensor(x))

    def __repr__(self) -> str:
        return f"<activation {self.__name__}>"

    def __reduce__(self) -> Any:
        return activation_of, (self.__name__, "")


def identity(x: Any) -> Any:
    """The same: no activation."""
    return x


ACTIVATIONS: dict[str, Activation] = {
    **{n: _Named(n, methodcaller(n)) for n in ("relu", "tanh", "sigmoid", "gelu", "silu", "softplus")},
    "leaky_relu": _Named("leaky_relu", leaky_relu),
    "elu": _Named("elu", elu),
    "softmax": _Named("softmax", softmax, rows=True),
    "log_softmax": _Named("log_softmax", log_softmax, rows=True),
    "identity": identity,
}


def activation_of(activation: str | Activation, what: str) -> Activation:
    """The function of that name; functions stay as they are.

    >>> import fastscalar as fs
    >>> activation_of("relu", "MLP")([fs.Tensor(-1.0), fs.Tensor(2.0)])
    [Tensor(data=0.0), Tensor(data=2.0)]
    """
    if isinstance(activation, str):
        if activation in ACTIVATIONS:
            return ACTIVATIONS[activation]
        names = ", ".join(f'"{name}"' for name in ACTIVATIONS)
        raise ValueError(f"{what}: activation: expected {names} or a function, got {activation!r}")
    if not callable(activation):
        raise TypeError(f"{what}: activation: expected a name or a function, got {activation!r}")
    return activation


def name_of(activation: Activation) -> str | None:
    """The name under which it is known; None for one of the user's."""
    return next((name for name, known in ACTIVATIONS.items() if known is activation), None)
