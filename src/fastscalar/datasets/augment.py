"""Images moved and turned a little, at random from a seed: more data to train on than there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

CHUNK = 2048  # images at once: their coordinates are 50 times as many numbers


def augment(
    images: Any, seed: int = 0, *, shift: float = 2.0, rotation: float = 12.0, scale: float = 0.1
) -> np.ndarray[Any, Any]:
    """Each image shifted, turned and scaled at random, about its middle; what comes in from outside is 0.

    images: (n, height, width), or (n, height * width) of square images; of floats or uint8.  seed: which ones; `fit`
    calls `fit(augment=fs.datasets.augment)` with the number of the epoch.  shift: up to so many pixels along each axis;
    rotation: up to so many degrees; scale: up to so much larger or smaller.  All uniformly, both ways; pixels between
    others are interpolated linearly.
    Returns an array of the same shape and type.  ValueError for another shape, or a negative or infinite amount.

    >>> import fastscalar as fs, numpy as np
    >>> image = np.zeros((1, 28, 28))
    >>> image[0, 10:18, 10:18] = 1.0
    >>> moved = fs.datasets.augment(image, seed=1)
    >>> moved.shape, bool(0.7 < moved.sum() / image.sum() < 1.3), np.array_equal(moved, image)
    ((1, 28, 28), True, False)
    >>> np.array_equal(moved, fs.datasets.augment(image, seed=1))
    True
    """
    images = np.asarray(images)
    for name, value in (("shift", shift), ("rotation", rotation), ("scale", scale)):
        if not 0 <= value < math.inf:
            raise ValueError(f"augment: {name}: expected a number from 0 on, got {value!r}")
    if not scale < 1:
        raise ValueError(f"augment: scale: expected less than 1, got {scale!r}")
    side = math.isqrt(images.shape[1]) if images.ndim == 2 else 0
    if images.ndim not in (2, 3) or (images.ndim == 2 and side * side != images.shape[1]):
        raise ValueError(f"augment: expected images of shape (n, height, width), got shape {images.shape}")
    if images.dtype.kind not in "fu":
        raise ValueError(f"augment: expected floats or uint8, got {images.dtype}")
    given = images.reshape(len(images), side, side) if side else images
    draw = np.random.default_rng(seed)
    amounts = draw.uniform(-1.0, 1.0, size=(len(given), 4))
    out = np.empty_like(given)
    for first in range(0, len(given), CHUNK):
        some = slice(first, first + CHUNK)
        moved = _moved(given[some], amounts[some] * [shift, shift, math.radians(rotation), scale])
        out[some] = np.rint(moved) if images.dtype.kind == "u" else moved
    return out.reshape(images.shape)


def _moved(images: np.ndarray[Any, Any], amounts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """amounts: of each image the shifts along y and x, the angle, and how much larger it becomes."""
    n, height, width = images.shape
    down, across, angle, larger = (a[:, None] for a in amounts.astype(np.float32).T)
    y, x = np.divmod(np.arange(height * width, dtype=np.float32), np.float32(width))
    y, x = y[None] - (height - 1) / 2 - down, x[None] - (width - 1) / 2 - across
    cos, sin = np.cos(angle) / (1 + larger), np.sin(angle) / (1 + larger)
    source_y, source_x = cos * y - sin * x + (height - 1) / 2, sin * y + cos * x + (width - 1) / 2
    padded = np.zeros((n, height + 3, width + 3), np.float32)  # a border that is 0 wherever an image is left
    padded[:, 1:-2, 1:-2] = images
    source_y, source_x = np.clip(source_y + 1, 0, height + 1), np.clip(source_x + 1, 0, width + 1)
    top, left = source_y.astype(np.int32), source_x.astype(np.int32)
    part_y, part_x = source_y - top, source_x - left
    line = width + 3
    at = (np.arange(n, dtype=np.int32) * (height + 3) * line)[:, None] + top * line + left
    flat = padded.ravel()
    upper = flat[at] * (1 - part_x) + flat[at + 1] * part_x
    lower = flat[at + line] * (1 - part_x) + flat[at + line + 1] * part_x
    moved: np.ndarray[Any, Any] = (upper * (1 - part_y) + lower * part_y).reshape(n, height, width)
    return moved
