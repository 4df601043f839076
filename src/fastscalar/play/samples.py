"""What the pages show nets: samples, and drawings made to look like the images that a net knows."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastscalar.play.server import Refused

Array = np.ndarray[Any, Any]

SIDE = 28  # pixels of an image of MNIST
BOX = 20  # pixels: the longer side of a digit in it
MOST_SIDE = 112  # of a drawing


@dataclass
class Samples:
    """Training and test data, rows of numbers; `title` says what they are and `note` what they are not."""

    X: Array
    y: Array
    X_test: Array
    y_test: Array
    title: str
    note: str = ""  # of data that stand in for others

    @property
    def side(self) -> int | None:
        """Pixels of a side if the rows are square images."""
        n = self.X.shape[1]
        side = round(n**0.5)
        return side if side * side == n and side > 3 and self.X.ndim == 2 else None


def bytes_of(text: Any, what: str) -> bytes:
    """The bytes that a page sent in base64; Refused for anything else."""
    if not isinstance(text, str):
        raise Refused(f"{what}: expected base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(f"{what}: expected base64") from None


def text_of(values: Array) -> str:
    """Numbers of one byte for a page."""
    return base64.b64encode(values.tobytes()).decode("ascii")


def drawing(text: Any) -> Array:
    """A square drawing, (side, side) with 0.0 for paper and 1.0 for ink, of the bytes that a page sent."""
    raw = bytes_of(text, "pixels")
    side = round(len(raw) ** 0.5)
    if side * side != len(raw) or not 8 <= side <= MOST_SIDE:
        raise Refused(f"pixels: expected a square of 8 to {MOST_SIDE} pixels a side, got {len(raw)} bytes")
    return np.frombuffer(raw, np.uint8).reshape(side, side) / 255


def centred(ink: Array) -> Array:
    """The drawing as MNIST's images were made: the digit 20 pixels high (or wide), its centre of mass in the middle.

    Each pixel is the mean of the ink under it.  A drawing without ink stays empty.

    >>> image = centred(np.eye(56))
    >>> image.shape, bool(image[14, 14] > 0), float(image[0, 0])
    ((28, 28), True, 0.0)
    """
    rows, columns = np.flatnonzero(ink.max(axis=1) > 0.05), np.flatnonzero(ink.max(axis=0) > 0.05)
    image = np.zeros((SIDE, SIDE))
    if not len(rows):
        return image
    part = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longer = max(part.shape)
    height, width = (max(1, round(BOX * n / longer)) for n in part.shape)
    small = _weights(part.shape[0], height) @ part @ _weights(part.shape[1], width).T
    small = small / max(small.max(), 1e-9)  # thin lines of large drawings would come out grey
    mass = small.sum()
    down = float((small.sum(axis=1) * (np.arange(height) + 0.5)).sum() / mass)
    right = float((small.sum(axis=0) * (np.arange(width) + 0.5)).sum() / mass)
    top = min(max(round(SIDE / 2 - down), 0), SIDE - height)
    left = min(max(round(SIDE / 2 - right), 0), SIDE - width)
    image[top : top + height, left : left + width] = small
    return image


def _weights(n: int, m: int) -> Array:
    """(m, n): how much each of n cells of a line counts for the mean over each of m larger (or smaller) ones."""
    edges = np.arange(m + 1) * (n / m)
    cells = np.arange(n)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.clip(overlap, 0, None) * (m / n)
