"""Images and the patches that convolutions and pools read: numbers of pixels, by geometry."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Geometry(NamedTuple):
    """Of one image of shape (height, width, channels), row by row, the channels of a pixel side by side."""

    height: int
    width: int
    channels: int
    kernel_h: int
    kernel_w: int
    stride: int
    padding: int  # pixels of zero around the image

    @property
    def pixels(self) -> int:
        """Numbers of an image."""
        return self.height * self.width * self.channels

    @property
    def out_shape(self) -> tuple[int, int]:
        """Height and width of what comes out; not above 0 if the kernel is larger than the image."""
        room = self.height + 2 * self.padding - self.kernel_h, self.width + 2 * self.padding - self.kernel_w
        return room[0] // self.stride + 1, room[1] // self.stride + 1


@lru_cache(maxsize=64)
def patches_of(g: Geometry) -> np.ndarray:
    """What each output of a convolution reads: (out_h * out_w, kernel_h * kernel_w * channels) places in the image, -1
    where it reads the padding.

    >>> patches_of(Geometry(3, 3, 1, 2, 2, 1, 0)).tolist()
    [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]
    """
    pad, wide = g.padding, ((g.padding, g.padding), (g.padding, g.padding), (0, 0))
    places = np.arange(g.pixels, dtype=np.int32).reshape(g.height, g.width, g.channels)
    places = np.pad(places, wide, constant_values=-1) if pad else places
    windows = np.lib.stride_tricks.sliding_window_view(places, (g.kernel_h, g.kernel_w), (0, 1))
    windows = windows[:: g.stride, :: g.stride].transpose(0, 1, 3, 4, 2)  # y, x, channel, in y, in x: the channel last
    patches: np.ndarray = np.ascontiguousarray(windows).reshape(-1, g.kernel_h * g.kernel_w * g.channels)
    patches.flags.writeable = False
    return patches


@lru_cache(maxsize=64)
def windows_of(g: Geometry) -> np.ndarray:
    """What each output of a pool reads: (out_h * out_w * channels, kernel_h * kernel_w) places in the image."""
    patches = patches_of(g).reshape(-1, g.kernel_h * g.kernel_w, g.channels)
    windows: np.ndarray = np.ascontiguousarray(patches.transpose(0, 2, 1)).reshape(-1, g.kernel_h * g.kernel_w)
    windows.flags.writeable = False
    return windows
