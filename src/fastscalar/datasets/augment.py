"""Images moved and turned a little, at random from a seed: more data to train on than there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastscalar._settings import real_number, scalar, shown
from fastscalar.datasets._moved import move


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
        real_number(f"augment: {name}", value, "from 0 on")
    shift, rotation, scale = float(shift), float(rotation), float(scale)
    if not scale < 1:
        raise ValueError(f"augment: scale: expected less than 1, got {scale!r}")
    side = math.isqrt(images.shape[1]) if images.ndim == 2 else 0
    if images.ndim not in (2, 3) or (images.ndim == 2 and side * side != images.shape[1]):
        raise ValueError(f"augment: expected images of shape (n, height, width), got shape {images.shape}")
    if images.dtype.kind not in "fu":
        raise ValueError(f"augment: expected floats or uint8, got {images.dtype}")
    given = images.reshape(len(images), side, side) if side else images
    if given.dtype not in (np.float64, np.float32, np.uint8):
        given = given.astype(float)
    try:
        draw = np.random.default_rng(scalar(seed))
    except (TypeError, ValueError):
        raise ValueError(f"augment: seed: expected a whole number from 0 on, got {shown(seed)}") from None
    amounts = draw.uniform(-1.0, 1.0, size=(len(given), 4))
    out = np.empty(given.shape, given.dtype)
    if given.size:
        move(np.ascontiguousarray(given), out, amounts * [shift, shift, math.radians(rotation), scale])
    if images.dtype.kind == "u" and out.dtype != np.uint8:
        np.rint(out, out=out)
    return out.reshape(images.shape).astype(images.dtype, copy=False)
