"""Handwritten digits that the package draws itself, for machines on which MNIST cannot be had.

A digit is one of a few ways to write it: strokes through key points. For each image the key points are
shifted a little, the whole is slanted, turned, scaled and moved, and a pen of random width follows the smooth
curves through them.

The same arguments give the same bytes on every platform. Random numbers are integer hashes (SplitMix64) of
(seed, image, number of the draw), so an image depends on nothing but its own serial number: training images
have the even ones and test images the odd ones. All arithmetic is + - * / and square root, element by
element: IEEE 754 defines each result, while sin, exp or a sum in vector registers may differ in the last bit
from one machine to the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastscalar._settings import scalar, shown

Array = np.ndarray[Any, Any]
Stroke = list[tuple[float, float]]

SIDE = 28  # pixels
_BATCH = 128  # images drawn together: one buffer of 28 x 28 x 128 int16 fits into the second-level cache
_SUB = 16  # pen positions are whole sixteenths of a pixel
_FAR = 16383  # squared distances are cut off here (8 pixels), so that the sum of two fits into int16
_NOISE_DRAW = 64  # the grain of the paper comes from the draws from this one on
_STEPS = 22  # pen positions for a length of 1, the height of the digit
_GOLDEN, _MIX1, _MIX2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

# How much handwritings differ. Chosen so that the set is about as hard as MNIST: see tests/datasets/test_synthetic.py.
HEIGHT, MIDDLE, MARGIN = 18.5, 13.5, 1.5  # pixels
SHAKE, BEND = 0.038, 0.32  # in heights of the digit
WIDTH_SPREAD, SLANT, SLANT_SPREAD, TURN = 0.15, 0.14, 0.22, 0.055
SHIFT, RADIUS, RADIUS_SPREAD = 0.95, 1.3, 0.25

# Ways to write each digit, with the share of each. A stroke is a smooth curve through its points (x to the
# right, y down, the digit about 1 high and centred on 0); a point given twice in a row is a corner.
_GLYPHS: list[list[tuple[float, list[Stroke]]]] = [
    [  # 0
        (0.7, [[(0.05, -0.5), (-0.2, -0.38), (-0.3, 0.0), (-0.2, 0.4), (0.03, 0.5), (0.24, 0.36), (0.3, 0.0),
                (0.2, -0.4), (0.0, -0.5)]]),
        (0.3, [[(0.16, -0.42), (-0.08, -0.48), (-0.28, -0.2), (-0.3, 0.2), (-0.06, 0.5), (0.2, 0.36),
                (0.32, -0.02), (0.2, -0.4), (-0.06, -0.42)]]),
    ],
    [  # 1
        (0.7, [[(0.0, -0.5), (0.0, -0.17), (0.0, 0.17), (0.0, 0.5)]]),
        (0.2, [[(-0.17, -0.3), (0.03, -0.5), (0.03, -0.5), (0.02, 0.0), (0.02, 0.5)]]),
        (0.1, [[(-0.18, -0.3), (0.02, -0.5), (0.02, -0.5), (0.02, 0.0), (0.02, 0.48)],
               [(-0.22, 0.49), (0.02, 0.49), (0.26, 0.48)]]),
    ],
    [  # 2
        (0.55, [[(-0.28, -0.26), (-0.16, -0.45), (0.08, -0.49), (0.25, -0.3), (0.14, -0.02), (-0.1, 0.25),
                (-0.3, 0.47), (-0.3, 0.47), (0.0, 0.46), (0.33, 0.45)]]),
        (0.45, [[(-0.26, -0.34), (-0.06, -0.49), (0.18, -0.4), (0.2, -0.14), (0.02, 0.18), (-0.2, 0.44),
                (-0.32, 0.36), (-0.2, 0.25), (0.02, 0.38), (0.2, 0.48), (0.36, 0.38)]]),
    ],
    [  # 3
        (0.75, [[(-0.24, -0.38), (-0.02, -0.5), (0.22, -0.38), (0.18, -0.14), (-0.06, -0.03), (-0.06, -0.03),
                (0.2, 0.06), (0.27, 0.28), (0.08, 0.48), (-0.14, 0.47), (-0.29, 0.34)]]),
        (0.25, [[(-0.25, -0.46), (0.0, -0.47), (0.25, -0.48), (0.25, -0.48), (0.1, -0.27), (-0.06, -0.08),
                (-0.06, -0.08), (0.2, 0.02), (0.27, 0.26), (0.08, 0.48), (-0.14, 0.47), (-0.29, 0.36)]]),
    ],
    [  # 4
        (0.6, [[(-0.2, -0.46), (-0.25, -0.22), (-0.28, 0.04), (-0.28, 0.04), (0.0, 0.05), (0.28, 0.0)],
               [(0.18, -0.44), (0.15, -0.1), (0.12, 0.2), (0.1, 0.5)]]),
        (0.25, [[(0.1, -0.5), (-0.1, -0.2), (-0.32, 0.12), (-0.32, 0.12), (0.0, 0.12), (0.34, 0.1)],
               [(0.1, -0.5), (0.1, -0.17), (0.1, 0.17), (0.1, 0.5)]]),
        (0.15, [[(-0.2, -0.44), (-0.27, -0.2), (-0.17, 0.0), (0.06, 0.0), (0.2, -0.14), (0.22, -0.44),
                (0.22, -0.44), (0.18, 0.0), (0.14, 0.5)]]),
    ],
    [  # 5
        (0.7, [[(-0.16, -0.45), (-0.18, -0.26), (-0.21, -0.06), (-0.21, -0.06), (0.02, -0.12), (0.23, 0.02),
                (0.24, 0.28), (0.04, 0.47), (-0.13, 0.48), (-0.28, 0.37)],
               [(-0.16, -0.45), (0.06, -0.46), (0.28, -0.49)]]),
        (0.3, [[(0.28, -0.48), (0.06, -0.46), (-0.14, -0.44), (-0.14, -0.44), (-0.2, -0.2), (-0.06, -0.07),
                (0.16, 0.07), (0.19, 0.29), (0.02, 0.47), (-0.2, 0.47), (-0.3, 0.38)]]),
    ],
    [  # 6
        (0.6, [[(0.14, -0.5), (-0.1, -0.3), (-0.24, 0.0), (-0.24, 0.28), (-0.06, 0.49), (0.17, 0.42),
                (0.24, 0.2), (0.08, 0.04), (-0.1, 0.1), (-0.22, 0.27)]]),
        (0.4, [[(0.02, -0.5), (-0.14, -0.2), (-0.2, 0.1), (-0.16, 0.38), (0.02, 0.49), (0.18, 0.36),
                (0.14, 0.14), (-0.02, 0.1), (-0.16, 0.26)]]),
    ],
    [  # 7
        (0.5, [[(-0.28, -0.42), (0.0, -0.44), (0.27, -0.46), (0.27, -0.46), (0.16, -0.16), (0.04, 0.16),
                (-0.06, 0.5)]]),
        (0.35, [[(-0.28, -0.24), (-0.26, -0.42), (-0.26, -0.42), (0.0, -0.42), (0.26, -0.44), (0.26, -0.44),
                (0.2, -0.12), (0.13, 0.2), (0.1, 0.5)]]),
        (0.15, [[(-0.28, -0.42), (0.0, -0.44), (0.27, -0.46), (0.27, -0.46), (0.14, -0.16), (0.02, 0.16),
                (-0.1, 0.5)],
               [(-0.16, 0.04), (0.04, 0.02), (0.26, 0.0)]]),
    ],
    [  # 8
        (0.7, [[(0.22, -0.38), (0.02, -0.5), (-0.2, -0.36), (-0.12, -0.12), (0.1, 0.06), (0.22, 0.28),
                (0.04, 0.49), (-0.19, 0.33), (-0.1, 0.1), (0.1, -0.12), (0.24, -0.34)]]),
        (0.3, [[(0.02, -0.03), (-0.18, -0.2), (-0.1, -0.46), (0.12, -0.46), (0.19, -0.22), (0.0, -0.03),
                (-0.22, 0.2), (-0.1, 0.46), (0.14, 0.46), (0.22, 0.2), (0.0, -0.03)]]),
    ],
    [  # 9
        (0.6, [[(0.2, -0.36), (0.02, -0.49), (-0.2, -0.36), (-0.2, -0.12), (-0.02, -0.02), (0.16, -0.12),
                (0.22, -0.36), (0.22, -0.36), (0.18, 0.0), (0.12, 0.5)]]),
        (0.4, [[(0.2, -0.3), (0.06, -0.48), (-0.16, -0.42), (-0.24, -0.2), (-0.08, -0.06), (0.12, -0.14),
                (0.22, -0.34), (0.24, 0.0), (0.16, 0.36), (-0.02, 0.5), (-0.18, 0.42)]]),
    ],
]  # fmt: skip


def synthetic_digits(
    n_train: int = 60000, n_test: int = 10000, seed: int = 0
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Draw digits that look like MNIST and are about as hard.

    Parameters
    ----------
    n_train, n_test : number of images. The first n images are the same whatever the number.
    seed : 0 <= seed < 2**64.

    Returns
    -------
    (X, y), (X_test, y_test): uint8 arrays of shape (n_train, 28, 28), (n_train,), (n_test, 28, 28),
    (n_test,); pixels from 0 (paper) to 255 (ink), labels from 0 to 9 in random order, about equally many of
    each.

    Raises
    ------
    ValueError
        An argument is negative or too large (2**31 images, 2**64 for the seed).
    TypeError
        An argument is not an integer.

    >>> (X, y), (X_test, y_test) = synthetic_digits(n_train=1000, n_test=10)
    >>> X.shape, y[:5].tolist(), int(X.max())
    ((1000, 28, 28), [8, 2, 3, 0, 9], 255)
    >>> for row in X[2, 4:24:2]:
    ...     print("".join(" .+#"[pixel // 64] for pixel in row[9:26]).rstrip())
     ###     ###
    ##+      .##
             +#+
            +##
       .#####+
       +########.
               ###
                ##.
               +##
             +##+
    """
    n_train, n_test, seed = scalar(n_train), scalar(n_test), scalar(seed)
    limits = (("n_train", n_train, 1 << 31), ("n_test", n_test, 1 << 31), ("seed", seed, 1 << 64))
    for name, number, end in limits:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{name}: expected a whole number; found {shown(number)}")
        if not 0 <= number < end:
            raise ValueError(f"{name}: expected 0 <= {name} < {end}; found {shown(number)}")
    base = int(_mix(np.array([seed], np.uint64))[0])
    return _images(n_train, base, 0), _images(n_test, base, 1)


# --- random numbers ---


def _mix(z: Array) -> Array:
    """SplitMix64's output function, a bijection of uint64. (G. Steele, D. Lea, C. Flood, OOPSLA 2014.)"""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX2)
    return z ^ (z >> np.uint64(31))


def _draws(key: Array, n: int) -> Array:
    """Numbers 1 to n of the stream of each key: uint64 of shape (n, len(key))."""
    return _mix(key + np.arange(1, n + 1, dtype=np.uint64)[:, None] * np.uint64(_GOLDEN))


def _uniform(bits: Array) -> Array:
    """float64 in [0, 1), exact."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _normal(bits: Array) -> Array:
    """About normal, mean 0, variance 1, at most 3.46 from 0: four 16-bit numbers from each uint64, added."""
    total = np.zeros(bits.shape)
    for shift in (0, 16, 32, 48):
        total += ((bits >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64)
    # The sum of four uniform numbers has the variance 4/12.
    return (total * (1 / 65536) - 2.0) * 1.7320508075688772


# --- pens and curves ---


@dataclass(frozen=True)
class _Pen:
    """One way to write a digit. Pen position p is the sum over j of weight[j, p] * key point[near[j, p]]."""

    keys: Array  # (k, 2) float64
    near: Array  # (4, p) int
    weight: Array  # (4, p) float64

    def path(self, keys: Array) -> Array:
        """One coordinate of the pen's positions, (p, n), from that of the key points, (k, n)."""
        total = self.weight[0, :, None] * keys[self.near[0]]
        for j in (1, 2, 3):
            total += self.weight[j, :, None] * keys[self.near[j]]
        return total


def _pen(strokes: list[Stroke]) -> _Pen:
    keys: list[tuple[float, float]] = []
    near, weight = [], []
    for stroke in strokes:
        for number, piece in enumerate(_pieces(stroke)):
            # A corner is one key point of two curves, so that they still meet when it is shifted.
            start = len(keys) - (number > 0)
            keys += piece[number > 0 :]
            last = len(piece) - 1
            for i in range(last):
                (x0, y0), (x1, y1) = piece[i], piece[i + 1]
                length = math.sqrt((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0))  # `**` would call pow
                steps = int(length * _STEPS) + 1
                for s in range(steps + (i == last - 1)):
                    t = s / steps
                    near.append([start + min(max(j, 0), last) for j in (i - 1, i, i + 1, i + 2)])
                    # Catmull and Rom's cubic through points i and i + 1.
                    weight.append([t * ((2 - t) * t - 1) / 2, (t * t * (3 * t - 5) + 2) / 2,
                                   t * ((4 - 3 * t) * t + 1) / 2, (t - 1) * t * t / 2])  # fmt: skip
    return _Pen(np.array(keys), np.array(near).T.copy(), np.array(weight).T.copy())


def _pieces(stroke: Stroke) -> list[Stroke]:
    """Cut a stroke where a point is given twice in a row."""
    pieces: list[Stroke] = [[]]
    for i, point in enumerate(stroke):
        if i and point == stroke[i - 1]:
            pieces.append([])
        pieces[-1].append(point)
    return pieces


# --- drawing ---


def _images(n: int, base: int, split: int) -> tuple[Array, Array]:
    """Images 0 to n - 1 and their labels; `split` is 0 for training and 1 for testing."""
    serial = np.arange(n, dtype=np.uint64) * np.uint64(2) + np.uint64(split)
    keys = _mix(np.uint64(base) + serial * np.uint64(_GOLDEN))
    labels = (_uniform(_draws(keys, 1)[0]) * 10).astype(np.uint8)
    style = _uniform(_draws(keys, 2)[1])
    images = np.zeros((n, SIDE, SIDE), np.uint8)
    for digit, ways in enumerate(_GLYPHS):
        rest = labels == digit
        below = 0.0
        for share, strokes in ways:
            below = below + share if strokes is not ways[-1][1] else 1.0
            chosen = np.flatnonzero(rest & (style < below))
            rest[chosen] = False
            pen = _pen(strokes)
            for i in range(0, len(chosen), _BATCH):
                part = chosen[i : i + _BATCH]
                images[part] = _draw(pen, keys[part])
    return images, labels


def _draw(pen: _Pen, keys: Array) -> Array:
    """One batch of one way to write one digit: uint8 of shape (len(keys), 28, 28)."""
    k, n = len(pen.keys), len(keys)
    bits = _draws(keys, _NOISE_DRAW + SIDE * SIDE // 8)
    wide, tall, slant, turn, right, down, pen_size, ink_level, *bends = _normal(bits[2:14])
    shake = _normal(bits[14 : 14 + 2 * k]).reshape(2, k, n)
    # Neighbours move together, or curves would become polygons.
    shake[:, 1:-1] = (shake[:, :-2] + 2 * shake[:, 1:-1] + shake[:, 2:]) * 0.45
    x = pen.keys[:, 0, None] + SHAKE * shake[0]
    y = pen.keys[:, 1, None] + SHAKE * shake[1]

    # Bend the sheet: straight lines become parabolas, upper and lower half differ in width and height.
    x, y = (
        x + BEND * (bends[0] * (y * y) + bends[1] * (x * y)),
        y + BEND * (bends[2] * (x * x) + bends[3] * (y * y)),
    )
    tall = HEIGHT * (1 + 0.08 * tall)
    x = x * (tall * (1 + WIDTH_SPREAD * wide))
    y = y * tall
    x = x - y * (SLANT + SLANT_SPREAD * slant)
    t = TURN * turn  # tangent of half the angle: sine and cosine without a library function
    cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    x, y = x * cos - y * sin + (MIDDLE + SHIFT * right), x * sin + y * cos + (MIDDLE + SHIFT * down)

    path_x, path_y = _keep_on_paper(pen.path(x)), _keep_on_paper(pen.path(y))
    distance = np.sqrt(_distance2(path_x, path_y).astype(np.float32)) * np.float32(1 / _SUB)
    radius = RADIUS * (1 + RADIUS_SPREAD * pen_size)
    ink = np.clip(radius.astype(np.float32) + np.float32(0.5) - distance, np.float32(0), np.float32(1))
    # Paper has a grain, which takes up to an eighth of the ink; where there is none it stays white.
    shifts = np.arange(0, 64, 8, dtype=np.uint64)[:, None, None]
    grain = ((bits[_NOISE_DRAW:] >> shifts) & np.uint64(255)).reshape(SIDE, SIDE, n)
    level = np.minimum(240 + 15 * ink_level, 255).astype(np.float32)
    ink *= level * (np.float32(1) - grain.astype(np.float32) * np.float32(1 / 2048))
    return np.rint(ink).astype(np.uint8).transpose(2, 0, 1)


def _keep_on_paper(path: Array) -> Array:
    """Move a digit that would be cut off at the border; one coordinate of the pen's positions, (p, n)."""
    low, high = MARGIN, SIDE - 1 - MARGIN
    return path + (np.maximum(low - path.min(axis=0), 0) - np.maximum(path.max(axis=0) - high, 0))


def _distance2(px: Array, py: Array) -> Array:
    """Squared distance, in sixteenths of a pixel, of each pixel from the nearest of the pen's positions.

    px, py: float64 (p, n), in pixels. Result: int16 (28, 28, n). The images are the last axis, because
    NumPy's loops run along it; 16-bit numbers, because twice as many fit into a vector register.
    """
    grid = (np.arange(SIDE, dtype=np.int32) * _SUB)[None, :, None]

    def squares(p: Array) -> Array:
        d = grid - np.rint(np.clip(p, -64.0, 92.0) * _SUB).astype(np.int32)[:, None, :]
        return np.minimum(d * d, _FAR).astype(np.int16)

    dx2, dy2 = squares(px), squares(py)
    nearest = np.full((SIDE, SIDE, px.shape[1]), 2 * _FAR, np.int16)
    buffer = np.empty_like(nearest)
    for across, down in zip(dx2, dy2, strict=True):
        np.add(across[None, :, :], down[:, None, :], out=buffer)
        np.minimum(nearest, buffer, out=nearest)
    return nearest
