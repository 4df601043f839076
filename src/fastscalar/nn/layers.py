"""Layers: Module, Linear, MLP.  Thin: the work is one instruction of the engine for each layer."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import affine, to_tensor
from fastscalar.nn.init import initial_weights
from fastscalar.nn.models import ORIGIN, read_model, write_model
from fastscalar.nn.optimizers import each_once


@overload
def relu(x: Tensor) -> Tensor: ...
@overload
def relu(x: TensorArray) -> TensorArray: ...
@overload
def relu(x: list[Tensor]) -> list[Tensor]: ...
@overload
def relu(x: Any) -> Any: ...
def relu(x: Any) -> Any:
    """max(0, x) of a Tensor, a TensorArray, or nested lists of Tensors; relu'(0) = 0.

    >>> import fastscalar as fs
    >>> fs.relu([fs.Tensor(-1.0), fs.Tensor(2.0)])
    [Tensor(data=0.0), Tensor(data=2.0)]
    """
    return [relu(e) for e in x] if isinstance(x, (list, tuple)) else x.relu()


class Module:
    """Base class of layers and nets: call it to run `forward`; `parameters()` finds what it is made of.

    A subclass sets Tensors, TensorArrays, Modules, or lists and dictionaries of these, as attributes, and defines
    `forward`.

    >>> import fastscalar as fs
    >>> class Scale(fs.Module):
    ...     def __init__(self):
    ...         self.factor = fs.Tensor(3.0)
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale()(fs.Tensor(2.0))
    Tensor(data=6.0)
    >>> Scale().parameters()
    [Tensor(data=3.0)]
    """

    def forward(self, x: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, x: Any) -> Any:
        return self.forward(x)

    def parameters(self) -> list[Any]:
        """The parameters, nested as the module is: a list with one entry for each attribute that holds some.

        Each is there once: a layer that two attributes share is listed with the first.
        """
        return each_once(_parameters_among(vars(self).values(), {id(self)}))


def _parameters_among(values: Iterable[Any], seen: set[int]) -> list[Any]:
    """seen: by id, what has been gone through."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, (Tensor, TensorArray)):
            found.append(value)
        elif isinstance(value, (Module, dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            if not isinstance(value, Module):
                inner = _parameters_among(value.values() if isinstance(value, dict) else value, seen)
            elif type(value).parameters is Module.parameters:
                inner = _parameters_among(vars(value).values(), seen)
            else:
                inner = value.parameters()
            if inner:
                found.append(inner)
    return found


def _generator(seed: int | random.Random | None) -> random.Random:
    return seed if isinstance(seed, random.Random) else random.Random(seed)


def _number_of(seed: int | random.Random | None) -> int | None:
    """The seed as a saved net names it: of a generator or of chance nobody knows one."""
    return seed if isinstance(seed, int) else None


def _check_width(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")


class Linear(Module):
    """y[i] = b[i] + x[0] w[0][i] + x[1] w[1][i] + ..., added in this order.

    Attributes: `w`, a TensorArray of shape (in_features, out_features); `b`, of shape (out_features,); `seed`.
    `init="he"` draws weights from a normal distribution of variance 2 / in_features (He et al. 2015,
    arXiv:1502.01852) and sets the bias to zero; `init="article"` draws both uniformly from [0, 1).  `seed` is an
    integer, a `random.Random`, or None for a different net every time.

    The input is a sequence of `in_features` numbers or Tensors, or n such rows; the output a TensorArray of shape
    (out_features,) or (n, out_features).  Numbers and NumPy arrays are constants, Tensors get gradients.
    ValueError if the length does not fit.

    >>> import fastscalar as fs
    >>> layer = fs.Linear(3, 2, seed=0)
    >>> layer([1.0, 2.0, 3.0]).shape, layer.w.shape, layer.b.shape
    ((2,), (3, 2), (2,))
    """

    w: TensorArray
    b: TensorArray

    if TYPE_CHECKING:

        def __call__(self, x: Any) -> TensorArray: ...

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        init: str = "he",
        seed: int | random.Random | None = None,
    ) -> None:
        _check_width("Linear: in_features", in_features)
        _check_width("Linear: out_features", out_features)
        self.in_features = in_features
        self.out_features = out_features
        w, b = initial_weights(in_features, out_features, init, _generator(seed))
        self.w = to_tensor(w)
        self.b = to_tensor(b)
        self.seed = _number_of(seed)

    def forward(self, x: Any) -> TensorArray:
        return affine(x, self.w, self.b)

    def parameters(self) -> list[Any]:
        return [self.w, self.b]

    def __repr__(self) -> str:
        return f"Linear({self.in_features}, {self.out_features})"

    def save(self, path: str | os.PathLike[str], **metadata: Any) -> None:
        """Write the layer to an .npz file, with `metadata` that JSON can hold; `fastscalar.load` reads it.

        All of the file is written or nothing.  OSError names it; TypeError for metadata that JSON cannot hold.
        """
        about = {"class": "Linear", "widths": [self.in_features, self.out_features], "seed": self.seed}
        write_model(path, about, [(self.w.numpy(), self.b.numpy())], metadata)


class MLP(Module):
    """Linear layers of the given sizes with relu between them, none after the last.

    Attributes: `linears`, the layers; `num_linears`, how many.  `init` and `seed` are those of `Linear`.

    >>> import fastscalar as fs
    >>> net = fs.MLP(784, [256, 10], seed=0)
    >>> net
    MLP(784, [256, 10])
    >>> [layer.w.shape for layer in net.linears]
    [(784, 256), (256, 10)]
    """

    linears: list[Linear]

    if TYPE_CHECKING:

        def __call__(self, x: Any) -> TensorArray: ...

    def __init__(
        self,
        in_features: int,
        sizes: Sequence[int],
        *,
        init: str = "he",
        seed: int | random.Random | None = None,
    ) -> None:
        if isinstance(sizes, (str, bytes)) or not isinstance(sizes, Sequence) or not len(sizes):
            raise ValueError(f"MLP: expected a list of layer sizes such as [256, 10], got {sizes!r}")
        generator = _generator(seed)
        widths = [in_features, *sizes]
        self.linears = [
            Linear(m, n, init=init, seed=generator) for m, n in zip(widths, widths[1:], strict=False)
        ]
        self.seed = _number_of(seed)

    def forward(self, x: Any) -> TensorArray:
        for linear in self.linears[:-1]:
            x = linear(x).relu()
        return self.linears[-1](x)

    @property
    def num_linears(self) -> int:
        return len(self.linears)

    def parameters(self) -> list[Any]:
        return each_once([p for linear in self.linears for p in linear.parameters()])

    def __repr__(self) -> str:
        return f"MLP({self.linears[0].in_features}, {[linear.out_features for linear in self.linears]})"

    def save(self, path: str | os.PathLike[str], **metadata: Any) -> None:
        """Write the net to an .npz file, with `metadata` that JSON can hold; `fastscalar.load` reads it.

        All of the file is written or nothing.  OSError names it; TypeError for metadata that JSON cannot hold.
        """
        widths = [self.linears[0].in_features, *(linear.out_features for linear in self.linears)]
        layers = [(linear.w.numpy(), linear.b.numpy()) for linear in self.linears]
        write_model(path, {"class": "MLP", "widths": widths, "seed": self.seed}, layers, metadata)


def load(path: str | os.PathLike[str], *, allow_nonfinite: bool = False) -> Linear | MLP:
    """The net in a file that `save` wrote; what was saved with it is in its `metadata`, a dictionary.

    What wrote the file is in its `origin`: the `format`, the version of `fastscalar`, the set of `kernels`.
    It takes no more memory than the file holds, and executes nothing in it.  Raises OSError such as FileNotFoundError,
    and ValueError for a file that is not a saved net, is damaged or from a newer version, or holds infinite or NaN
    weights (unless `allow_nonfinite`); the message names the file and what is wrong.

    >>> import fastscalar as fs, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "net.npz")
    >>> fs.MLP(4, [3, 2], seed=0).save(path, note="small")
    >>> fs.load(path), fs.load(path).metadata
    (MLP(4, [3, 2]), {'note': 'small'})
    """
    header, layers = read_model(path, allow_nonfinite)
    linears = []
    for (m, n), (w, b) in zip(pairwise(header["widths"]), layers, strict=True):
        linear = Linear.__new__(Linear)  # weights are not drawn to be thrown away
        linear.in_features, linear.out_features = m, n
        linear.w, linear.b, linear.seed = to_tensor(w), to_tensor(b), None
        linears.append(linear)
    net: Linear | MLP = linears[0]
    if header["class"] == "MLP":
        net = MLP.__new__(MLP)
        net.linears = linears
    seed = header.get("seed")
    net.seed = seed if type(seed) is int else None
    net.metadata = header["metadata"]  # type: ignore[union-attr]
    net.origin = {key: header[key] for key in ORIGIN if key in header}  # type: ignore[union-attr]
    return net


def linears_of(net: Linear | MLP) -> list[Linear]:
    """Its layers, in order."""
    return net.linears if isinstance(net, MLP) else [net]
