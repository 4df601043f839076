"""Layers of images: Conv2d, MaxPool2d; and what gives a row of numbers the shape of an image, and back."""

from __future__ import annotations

import math
import random
from typing import Any

from fastscalar._settings import LARGEST, shown, whole_number
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import to_tensor
from fastscalar.engine._images import conv2d, max_pool2d, reshaped
from fastscalar.nn.init import Initializer, generator, initial_weights
from fastscalar.nn.layers import number_of
from fastscalar.nn.module import Module
from fastscalar.nn.saved import ours


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise ValueError(f"{name}: expected a whole number or two of them, got {shown(value)}")
    return whole_number(name, pair[0], 1, LARGEST), whole_number(name, pair[1], 1, LARGEST)


@ours
class Conv2d(Module):
    """A convolution of images, of shape (height, width, channels): each output a Linear of the patch below it.

    Channels are the last dimension, as the outputs of a Linear are; an image of one channel may do without it.  The
    output has shape (out_h, out_w, out_channels), out_h = (height + 2 padding - kernel_h) // stride + 1; of n images n
    of these.  It is one instruction, each of its elements a node with parents.

    Parameters
    ----------
    in_channels, out_channels : int
    kernel_size : int or (height, width)
    stride : int
        The distance of the patches.
    padding : int
        Rows and columns of zeros that are added on each side.
    init, seed
        As of `Linear`, with fan_in = kernel_h kernel_w in_channels.

    Attributes
    ----------
    w : TensorArray, shape (kernel_h, kernel_w, in_channels, out_channels)
    b : TensorArray, shape (out_channels,)

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> import fastscalar as fs, numpy as np
    >>> fs.nn.Conv2d(1, 16, 5, seed=0)(np.ones((28, 28))).shape
    (24, 24, 16)
    """

    w: TensorArray
    b: TensorArray

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: int = 0,
        init: str | Initializer = "he",
        seed: int | random.Random | None = None,
    ) -> None:
        self.in_channels = in_channels = whole_number("Conv2d: in_channels", in_channels)
        self.out_channels = out_channels = whole_number("Conv2d: out_channels", out_channels)
        self.stride = whole_number("Conv2d: stride", stride, 1, LARGEST)
        self.padding = whole_number("Conv2d: padding", padding, 0, LARGEST)
        self.kernel_size = _pair("Conv2d: kernel_size", kernel_size)
        shape = (*self.kernel_size, in_channels, out_channels)
        fan_out = self.kernel_size[0] * self.kernel_size[1] * out_channels
        w, b = initial_weights(shape, init, generator(seed), fan_out=fan_out)
        self.w, self.b = to_tensor(w), to_tensor(b)
        self.seed = number_of(seed)

    def forward(self, x: Any) -> TensorArray:
        return conv2d(x, self.w, self.b, stride=self.stride, padding=self.padding)

    def __repr__(self) -> str:
        height, width = self.kernel_size
        kernel = str(height) if height == width else str(self.kernel_size)
        more = f", stride={self.stride}" * (self.stride > 1) + f", padding={self.padding}" * (self.padding > 0)
        return f"Conv2d({self.in_channels}, {self.out_channels}, {kernel}{more})"


@ours
class MaxPool2d(Module):
    """The greatest number in each window of an image, channel by channel; its derivative is that of the first one.

    Windows that do not fit into the image are left out.  Input and output as of `Conv2d`.

    Parameters
    ----------
    kernel_size : int or (height, width)
        Of a window.
    stride : int
        From one window to the next, the height of one if left out.

    Examples
    --------
    >>> import fastscalar as fs, numpy as np
    >>> fs.nn.MaxPool2d(2)(fs.to_tensor(np.arange(16.0).reshape(4, 4, 1))).tolist()
    [[[5.0], [7.0]], [[13.0], [15.0]]]
    """

    def __init__(self, kernel_size: int | tuple[int, int], *, stride: int | None = None) -> None:
        self.kernel_size = _pair("MaxPool2d: kernel_size", kernel_size)
        self.stride = self.kernel_size[0] if stride is None else whole_number("MaxPool2d: stride", stride, 1, LARGEST)

    def forward(self, x: Any) -> TensorArray:
        return max_pool2d(x, self.kernel_size, stride=self.stride)

    def __repr__(self) -> str:
        height, width = self.kernel_size
        more = f", stride={self.stride}" * (self.stride != height)
        return f"MaxPool2d({height if height == width else self.kernel_size}{more})"


@ours
class Reshape(Module):
    """A row of numbers as an array of this shape, in row-major order; n rows as n such arrays.

    >>> import fastscalar as fs, numpy as np
    >>> fs.nn.Reshape(28, 28)(np.zeros(784)).shape, fs.nn.Reshape(28, 28)(np.zeros((3, 784))).shape
    ((28, 28), (3, 28, 28))
    """

    def __init__(self, *shape: int) -> None:
        self.shape = tuple(whole_number("Reshape: shape", n) for n in shape or (0,))
        self.size = math.prod(self.shape)

    def forward(self, x: Any) -> Any:
        size = x.size if hasattr(x, "size") else len(x)
        rows = getattr(x, "ndim", 1) > 1 and size != self.size
        shape = (len(x), *self.shape) if rows else self.shape
        return reshaped(x, shape) if isinstance(x, TensorArray) or not hasattr(x, "reshape") else x.reshape(shape)

    def __repr__(self) -> str:
        return f"Reshape{self.shape if len(self.shape) != 1 else f'({self.shape[0]})'}"


@ours
class Flatten(Module):
    """An array, or a list of arrays, as one row of numbers, in row-major order.

    of: the number of dimensions of one sample, 3 of an image; of arrays with one more each sample becomes a row.

    >>> import fastscalar as fs, numpy as np
    >>> fs.nn.Flatten()(np.zeros((4, 4, 2))).shape, fs.nn.Flatten()(np.zeros((5, 4, 4, 2))).shape
    ((32,), (5, 32))
    """

    def __init__(self, of: int = 3) -> None:
        self.of = whole_number("Flatten: of", of)

    def forward(self, x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return [t for entry in x for t in (self.forward(entry) if hasattr(entry, "__len__") else [entry])]
        shape = (len(x), x.size // len(x)) if x.ndim > self.of else (x.size,)
        return reshaped(x, shape) if isinstance(x, TensorArray) else x.reshape(shape)

    def __repr__(self) -> str:
        return "Flatten()" if self.of == 3 else f"Flatten({self.of})"
