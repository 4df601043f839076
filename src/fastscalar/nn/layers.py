"""Linear and MLP, and `load`.  Thin: the work is one instruction of the engine for each layer."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, overload

from fastscalar._core import Tensor
from fastscalar._settings import shown, whole_number
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import affine, to_tensor
from fastscalar.nn.activations import ACTIVATIONS, Activation, activation_of, name_of
from fastscalar.nn.init import Initializer, generator, initial_weights, without_drawing
from fastscalar.nn.models import ORIGIN, read_model, write_model
from fastscalar.nn.module import Module
from fastscalar.nn.parameters import each_once
from fastscalar.nn.saved import filled, ours, save_module


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


def number_of(seed: int | random.Random | None) -> int | None:
    """The seed as a saved net names it: of a generator or of chance none is known."""
    return seed if isinstance(seed, int) else None


@ours
class Linear(Module):
    """y[i] = b[i] + x[0] w[0][i] + x[1] w[1][i] + ..., added in this order.

    Called with a sequence of `in_features` numbers or Tensors, or n such rows, it gives a TensorArray of shape
    (out_features,) or (n, out_features).  Numbers and NumPy arrays are constants, Tensors get gradients.

    Parameters
    ----------
    in_features, out_features : int
    init : str or callable
        "he" draws weights from a normal distribution of variance 2 / in_features (He et al. 2015, arXiv:1502.01852) and
        sets the bias to zero; so do "he_uniform", "glorot" (variance 2 / (in_features + out_features)),
        "glorot_uniform", "lecun" (1 / in_features), "zeros", and a function (fan_in, fan_out, generator) that gives one
        weight; "article" draws both uniformly from [0, 1).
    seed : int, random.Random or None
        None: a different net every time.

    Attributes
    ----------
    w : TensorArray, shape (in_features, out_features)
    b : TensorArray, shape (out_features,)

    Raises
    ------
    ValueError
        For a width below 1; in a call, if the length does not fit.

    Examples
    --------
    >>> import fastscalar as fs
    >>> layer = fs.Linear(3, 2, seed=0)
    >>> layer([1.0, 2.0, 3.0]).shape, layer.w.shape, layer.b.shape
    ((2,), (3, 2), (2,))
    """

    w: TensorArray
    b: TensorArray
    takes_tables = True

    if TYPE_CHECKING:

        def __call__(self, x: Any) -> TensorArray: ...

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        init: str | Initializer = "he",
        seed: int | random.Random | None = None,
    ) -> None:
        self.in_features = in_features = whole_number("Linear: in_features", in_features)
        self.out_features = out_features = whole_number("Linear: out_features", out_features)
        w, b = initial_weights((in_features, out_features), init, generator(seed))
        self.w = to_tensor(w)
        self.b = to_tensor(b)
        self.seed = number_of(seed)

    def forward(self, x: Any) -> TensorArray:
        return affine(x, self.w, self.b)

    def parameters(self) -> list[Any]:
        return [self.w, self.b]

    def __repr__(self) -> str:
        return f"Linear({self.in_features}, {self.out_features})"

    def save(self, path: str | os.PathLike[str], **metadata: Any) -> None:
        """Write the layer to `path`, an .npz file, with `metadata` that JSON can hold; `fastscalar.load` reads it.

        All of the file is written or nothing.  OSError names it; TypeError for metadata that JSON cannot hold.
        """
        about = {"class": "Linear", "widths": [self.in_features, self.out_features], "seed": self.seed}
        write_model(path, about, [self.w.numpy(), self.b.numpy()], metadata)


@ours
class MLP(Module):
    """Linear layers of the given sizes with an activation between them, none after the last.

    Parameters
    ----------
    in_features : int
    out_features : list of int
        The outputs of each layer.
    activation : str or callable
        A function, or its name: "relu", "tanh", "sigmoid", "gelu", "silu", "softplus", "leaky_relu", "elu".
    init, seed
        As of `Linear`.

    Attributes
    ----------
    linears : list of Linear
    num_linears : int

    Examples
    --------
    >>> import fastscalar as fs
    >>> net = fs.MLP(784, [256, 10], seed=0)
    >>> net
    MLP(784, [256, 10])
    >>> [layer.w.shape for layer in net.linears]
    [(784, 256), (256, 10)]
    """

    linears: list[Linear]
    takes_tables = True

    if TYPE_CHECKING:

        def __call__(self, x: Any) -> TensorArray: ...

    def __init__(
        self,
        in_features: int,
        sizes: Sequence[int],
        *,
        activation: str | Activation = "relu",
        init: str | Initializer = "he",
        seed: int | random.Random | None = None,
    ) -> None:
        self.activation = activation_of(activation, "MLP")
        if isinstance(sizes, (str, bytes)) or not isinstance(sizes, Sequence) or not len(sizes):
            raise ValueError(f"MLP: expected a list of layer sizes such as [256, 10], got {shown(sizes)}")
        draw = generator(seed)
        self.linears = [Linear(m, n, init=init, seed=draw) for m, n in pairwise([in_features, *sizes])]
        self.seed = number_of(seed)

    def forward(self, x: Any) -> TensorArray:
        for linear in self.linears[:-1]:
            x = self.activation(linear(x))
        return self.linears[-1](x)

    @property
    def num_linears(self) -> int:
        return len(self.linears)

    def parameters(self) -> list[Any]:
        return each_once([p for linear in self.linears for p in linear.parameters()])

    def __repr__(self) -> str:
        sizes = [linear.out_features for linear in self.linears]
        other = "" if self._is_of_relu else f", activation={name_of(self.activation) or self.activation!r}"
        return f"MLP({self.linears[0].in_features}, {sizes}{other})"

    @property
    def _is_of_relu(self) -> bool:
        return self.activation is ACTIVATIONS["relu"]

    def save(self, path: str | os.PathLike[str], **metadata: Any) -> None:
        """Write the net to `path`, an .npz file, with `metadata` that JSON can hold; `fastscalar.load` reads it.

        All of the file is written or nothing.  OSError names it; TypeError for metadata that JSON cannot hold.
        """
        if not self._is_of_relu:                 # of which older versions know
            save_module(self, path, metadata)
            return
        widths = [self.linears[0].in_features, *(linear.out_features for linear in self.linears)]
        arrays = [p.numpy() for linear in self.linears for p in (linear.w, linear.b)]
        write_model(path, {"class": "MLP", "widths": widths, "seed": self.seed}, arrays, metadata)


def load(
    path: str | os.PathLike[str], *, classes: Iterable[type[Module]] = (), allow_nonfinite: bool = False
) -> Any:
    """The net in a file that `save` wrote; what was saved with it is in its `metadata`, a dictionary.

    What wrote the file is in its `origin`: the `format`, the version of `fastscalar`, the set of `kernels`.
    classes: Modules of your own that may be in it: they are made by their constructors.
    It takes no more memory than the file holds, and executes nothing in it.  Raises OSError such as FileNotFoundError,
    and ValueError for a file that is not a saved net, is damaged or from a newer version, holds a class of a user's
    own that `classes` does not name, or infinite or NaN weights (unless `allow_nonfinite`); the message names the file
    and what is wrong.

    >>> import fastscalar as fs, os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "net.npz")
    >>> fs.MLP(4, [3, 2], seed=0).save(path, note="small")
    >>> fs.load(path), fs.load(path).metadata
    (MLP(4, [3, 2]), {'note': 'small'})
    """
    header, arrays = read_model(path, allow_nonfinite)
    if header["class"] == "Module":
        try:
            net: Any = filled(header, arrays, classes)
        except ValueError as error:
            raise ValueError(f"{path}: not a net that can be made: {error}") from None
    else:
        with without_drawing(sum(array.size for array in arrays)):
            if header["class"] == "MLP":
                net = MLP(header["widths"][0], header["widths"][1:])
            else:
                net = Linear(*header["widths"])
        for linear, w, b in zip(linears_of(net), arrays[::2], arrays[1::2], strict=True):
            linear.w, linear.b = to_tensor(w), to_tensor(b)
        seed = header.get("seed")
        net.seed = seed if type(seed) is int else None
    net.metadata = header["metadata"]
    net.origin = {key: header[key] for key in ORIGIN if key in header}
    return net


def linears_of(net: Linear | MLP) -> list[Linear]:
    """Its layers, in order; ValueError if it is another Module."""
    if not isinstance(net, (Linear, MLP)):
        raise ValueError(f"expected a Linear or an MLP, got a {type(net).__name__}")
    return net.linears if isinstance(net, MLP) else [net]
