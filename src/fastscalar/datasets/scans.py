"""Digits from people: a picture of any size and colour becomes what MNIST's images are.

MNIST's digits were cut out, scaled to fit 20 x 20 pixels, and put into 28 x 28 so that their centre of mass is in the
middle (LeCun, Cortes, Burges, "The MNIST database of handwritten digits").  A net that learned from them reads nothing
else.  The steps here:

1. The colour of the paper is a smooth surface (light falls from one side), of which most of the picture, and most of
   its border, does not differ: the quadratic one with the least absolute differences, then medians of blocks.
2. What differs from it is ink.  The direction in which colours differ most is its scale; the side on which fewer pixels
   lie is the ink, dark or light.
3. Connected pieces: the digit is the largest and what is near it; specks, and what runs along the border, are not.  It
   is looked for inside a sheet on a table, or a frame.
4. Thin strokes get the width of a pen in MNIST before they become smaller than a pixel; then box, centre of mass.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastscalar._settings import whole_number

from .pieces import Piece, apart, inside_of, pieces_of, wider

Array = np.ndarray[Any, Any]

SIDE, BOX = 28, 20  # pixels of an image of MNIST, and of the digit in it
WORK = 480  # pixels of the longer side, at most, of what is looked at
SMALL = 96  # pixels of a digit under which the original is looked at again, around it
NOISE = 4.5  # deviations from the paper that are still paper
FAINT = 0.02  # of white: differences up to this are no ink, whatever the noise
EVEN = 0.06  # differences of paper without shades
WIDEST = 0.13  # of the longer side: strokes on paper with hard shadows
PART = 0.4  # of the ink's darkness: what is darker is a stroke
SPECK, NEAR = 0.03, 0.4  # pieces of so much of the digit's ink, and so near, in its lengths, belong to it
ALONG = 0.08  # of the whole border: what touches more of it is no digit
THIN, THICK = 2.2, 4.6  # pixels of 28: strokes are made that wide at least, and at most


@dataclass(frozen=True)
class Scan:
    """A digit as a net reads it, and where it was."""

    image: Array  # (side, side), float64, 0.0 paper to 1.0 ink
    box: tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the picture
    dark: bool  # the ink was darker than the paper


def cut_out(colours: Array, opacity: Array | None = None, *, side: int = SIDE, flip: bool = False) -> Scan:
    """The digit in a picture.

    Parameters
    ----------
    colours : (height, width) or (height, width, 3), numbers from 0 to 1.
    opacity : (height, width), numbers from 0 to 1; what is transparent is paper.
    side : pixels of a side of the result, 28 for MNIST.
    flip : take for ink what would be paper.

    Raises
    ------
    ValueError
        There is nothing but paper, or there are several digits beside each other.

    >>> picture = np.full((300, 200), 0.9)
    >>> picture[40:160, 50:70] = 0.2              # a one, not in the middle, dark on light
    >>> scan = cut_out(picture)
    >>> scan.image.shape, scan.dark, scan.box
    ((28, 28), True, (50, 40, 70, 160))
    >>> rows, columns = np.nonzero(scan.image > 0.5)
    >>> int(rows.min()), int(rows.max()), int(columns.mean() + 0.5)
    (4, 23, 13)
    """
    side = whole_number("cut_out: side", side, 1, 32767)
    full = colours[:, :, None] if colours.ndim == 2 else colours
    if 0 in full.shape:
        raise ValueError("an empty picture")
    full = _on_paper(full, opacity)
    if side == SIDE and _is_ready(full):
        image = full.mean(axis=2)
        return Scan(1.0 - image if flip else image, (0, 0, SIDE, SIDE), False)
    ink, dark, box, factor, within = _find(full, flip)
    longer = max(box[2] - box[0], box[3] - box[1])
    if factor > 1 and longer < SMALL:                        # look again, nearer
        around = [int(v * factor) for v in (box[0] - longer, box[1] - longer, box[2] + longer, box[3] + longer)]
        left, top = max(around[0], 0), max(around[1], 0)
        if within is not None:
            height, width = (n * factor for n in within.shape)
            full = _only(full[:height, :width], within.repeat(factor, axis=0).repeat(factor, axis=1))
        near = full[top : around[3], left : around[2]]
        try:
            ink, dark, box, factor, _ = _find(near, flip)
        except ValueError:
            left = top = 0
    else:
        left = top = 0
    place = tuple(int(v * factor) + o for v, o in zip(box, (left, top, left, top), strict=True))
    digit = ink[box[1] : box[3], box[0] : box[2]]
    return Scan(_in_the_middle(digit, side), place, dark)    # type: ignore[arg-type]


def whole(colours: Array, opacity: Array | None = None, *, side: int = SIDE, flip: bool = False) -> Scan:
    """The picture as it is, in grey, its longer side as long as the image's, and paper dark: as Fashion-MNIST was made.

    Parameters: those of `cut_out`.

    >>> scan = whole(np.ones((10, 20)))
    >>> scan.image.shape, float(scan.image.max())
    ((28, 28), 0.0)
    """
    side = whole_number("whole: side", side, 1, 32767)
    full = colours[:, :, None] if colours.ndim == 2 else colours
    grey = _on_paper(full, opacity).mean(axis=2)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    dark = bool(np.median(border) > 0.5) != flip
    grey = 1.0 - grey if dark else grey
    height, width = grey.shape
    small = _resized(grey, *(max(1, round(side * n / max(height, width))) for n in (height, width)))
    image = np.full((side, side), 0.0)
    top, left = (side - small.shape[0]) // 2, (side - small.shape[1]) // 2
    image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return Scan(np.clip(image, 0.0, 1.0), (0, 0, width, height), dark)


# --- paper and ink --------------------------------------------------------------------------------


def _on_paper(colours: Array, opacity: Array | None) -> Array:
    """What is seen if transparent parts are paper: the colour that most of the rest has, or one unlike the ink."""
    if opacity is None or opacity.min() > 0.99:
        return colours
    solid = opacity > 0.5
    if not solid.any():
        raise ValueError("a picture that is transparent everywhere")
    if solid.mean() > 0.6:                                   # a sheet with holes
        paper = np.median(colours[solid], axis=0)
    else:                                                    # ink on nothing
        paper = np.where(colours[solid].mean() > 0.5, 0.0, 1.0) * np.ones(colours.shape[2])
    return colours * opacity[:, :, None] + paper * (1.0 - opacity[:, :, None])


def _is_ready(colours: Array) -> bool:
    """An image of MNIST, or made like one: nothing would get better."""
    if colours.shape[:2] != (SIDE, SIDE):
        return False
    grey = colours.mean(axis=2)
    rows, columns = np.flatnonzero(grey.max(axis=1) > 0.02), np.flatnonzero(grey.max(axis=0) > 0.02)
    if not len(rows) or grey.max() < 0.8 or np.ptp(colours, axis=2).max() > 0.02:
        return False
    inside = rows[0] >= 2 and rows[-1] <= SIDE - 3 and columns[0] >= 2 and columns[-1] <= SIDE - 3
    tall = 17 <= max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 <= 24
    return bool(inside and tall and grey.mean() < 0.4 and _off_centre(grey) < 2.5)


def _off_centre(ink: Array) -> float:
    at = [float((ink.sum(axis=1 - k) * np.arange(n)).sum() / ink.sum()) for k, n in enumerate(ink.shape)]
    return max(abs(a - (n - 1) / 2) for a, n in zip(at, ink.shape, strict=True))


def _find(
    full: Array, flip: bool, nested: bool = True
) -> tuple[Array, bool, tuple[int, int, int, int], int, Array | None]:
    """Ink from 0 to 1, cleaned; whether it is dark; the box of the digit in it; by how much it is smaller; and where
    alone it was looked for: inside a sheet on a table, or a frame (nested: if there is one)."""
    factor = -(-max(full.shape[:2]) // WORK)
    colours = _blocks(full, factor) if factor > 1 and min(full.shape[:2]) >= factor else full
    factor = factor if colours is not full else 1
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    paper = np.median(border, axis=0)
    even = (abs(border - paper).max(axis=1) < EVEN).mean() > 0.55
    even = even and (abs(colours - paper).max(axis=2) < EVEN).mean() > 0.25  # else it is a frame
    for evenly in (True, False) if even else (False,):
        rest = colours - (paper if evenly else _surface(colours))
        axis = np.linalg.eigh(np.einsum("ijk,ijl->kl", rest, rest))[1][:, -1]
        ink = rest @ axis
        if (float((ink**3).sum()) < 0) != flip:
            ink, axis = -ink, -axis
        dark = float(axis.sum()) < 0
        ink = ink - _uneven(ink, ink > _least(ink))
        level, pieces = _strokes(ink)
        if pieces:
            break
    if any(_reaches_a_corner(p, ink.shape) for p in pieces):
        # A shadow with an edge, or the table under the sheet?
        other, other_dark = _thin_parts(colours.mean(axis=2), flip)
        other_level, others = _strokes(other)
        if others and _is_digit(_digit(others, ink.shape) & (other > other_level)):
            ink, dark, level, pieces = other, other_dark, other_level, others
    if not pieces:
        raise ValueError("nothing but paper: no ink was found")
    within = inside_of(pieces, ink.shape) if nested else None
    if within is not None:
        try:
            return _inside(colours, within, flip, factor)
        except _SeveralDigits:
            raise
        except ValueError:                                   # nothing is on it: then it is the ink
            pass
    if (count := _in_a_line(pieces, ink.shape)) > 1:
        raise _SeveralDigits(f"expected one digit; found {count} beside each other, to be read one by one")
    mask = _digit(pieces, ink.shape)
    strokes = mask & (ink > level)
    full_ink = max(float(np.percentile(ink[strokes], 75)), level * 1.01)
    floor = level / 2
    ink = np.where(wider(mask, 1), np.clip((ink - floor) / (full_ink - floor), 0.0, 1.0), 0.0)
    rows, columns = np.flatnonzero(strokes.any(axis=1)), np.flatnonzero(strokes.any(axis=0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return ink, dark, box, factor, None


class _SeveralDigits(ValueError):
    """Not nothing, but too many."""


def _in_a_line(pieces: list[Piece], shape: tuple[int, ...]) -> int:
    """How many pieces are as tall as the largest and stand beside it; one where all of them are no wider than a digit
    of two strokes would be."""
    inner = [p for p in pieces if not _along(p, shape)]
    if not inner:
        return 0
    main = max(inner, key=lambda p: p.area)
    tall = main.box[3] - main.box[1]
    line = [
        p.box
        for p in inner
        if 0.7 < (p.box[3] - p.box[1]) / tall < 1.4
        and min(p.box[3], main.box[3]) - max(p.box[1], main.box[1]) > 0.7 * tall
        and p.area > 0.25 * main.area
    ]
    line.sort()
    apart_from_all = all(a[2] < b[0] for a, b in itertools.pairwise(line))
    return len(line) if apart_from_all and line[-1][2] - line[0][0] > 1.2 * tall else 1


def _inside(colours: Array, within: Array, flip: bool, factor: int) -> Any:
    """What `_find` finds in a part of the picture, as if there were nothing but paper around."""
    rows, columns = np.flatnonzero(within.any(axis=1)), np.flatnonzero(within.any(axis=0))
    top, left, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    found, dark, box, _, _ = _find(_only(colours, within)[top:bottom, left:right], flip, nested=False)
    ink = np.zeros(within.shape)
    ink[top:bottom, left:right] = found
    return ink, dark, (box[0] + left, box[1] + top, box[2] + left, box[3] + top), factor, within


def _only(colours: Array, within: Array) -> Array:
    """Paper wherever the mask is not."""
    return np.where(within[:, :, None], colours, np.median(colours[within], axis=0))


def _least(ink: Array) -> float:
    """What is more than that is not the paper's grain."""
    return max(NOISE * _noise(ink), FAINT)


def _strokes(ink: Array) -> tuple[float, list[Piece]]:
    """How much ink makes a stroke, and the connected pieces of that."""
    least = _least(ink)
    dark_ones = ink[ink > least]
    if not len(dark_ones):
        return least, []
    level = max(least, PART * float(np.percentile(dark_ones, 90)))
    pieces = pieces_of(ink > level)
    if any(_crosses(p, ink.shape) for p in pieces):          # lines of the paper?
        darker = max(level, PART * float(np.percentile(dark_ones, 99)))
        others = pieces_of(ink > darker)
        if others and not any(_crosses(p, ink.shape) for p in others):
            return darker, others
    return level, pieces


def _thin_parts(grey: Array, flip: bool) -> tuple[Array, bool]:
    """What is narrower than WIDEST and darker, or lighter, than what is on both sides; and whether it is darker.

    A closing, or an opening, keeps every edge of what is wider (Serra 1982)."""
    over = max(3, round(max(grey.shape) * WIDEST)) | 1
    dark = _extreme(_extreme(grey, over), -over) - grey
    light = grey - _extreme(_extreme(grey, -over), over)
    darker = bool((dark**2).sum() >= (light**2).sum()) != flip
    ink = dark if darker else light
    return ink - np.median(ink), darker


def _extreme(a: Array, over: int) -> Array:
    """The largest value in a square of `over` pixels around each; if that is negative, the smallest."""
    n = abs(over)
    sign = 1.0 if over > 0 else -1.0
    for axis in (0, 1):
        wide = np.pad(sign * a, [(n // 2, n // 2) if k == axis else (0, 0) for k in (0, 1)], mode="edge")
        a = sign * np.lib.stride_tricks.sliding_window_view(wide, n, axis=axis).max(axis=-1)
    return a


def _blocks(a: Array, factor: int) -> Array:
    """The means of squares of pixels."""
    h, w = (n // factor for n in a.shape[:2])
    part = a[: h * factor, : w * factor].reshape(h, factor, w, factor, -1)
    return np.asarray(part.mean(axis=(1, 3), dtype=np.float64))


def _surface(colours: Array) -> Array:
    """The quadratic surface that differs least, absolutely, from the picture; its border counts more."""
    height, width = colours.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    basis = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    step = max(1, max(height, width) // 96)
    some, values = (a[::step, ::step].reshape(-1, a.shape[2]) for a in (basis, colours))
    border = np.maximum(abs(some[:, 1]), abs(some[:, 2])) > 0.84
    counts = np.where(border, 4.0, 1.0)
    paper = np.median(values[border], axis=0) if border.any() else np.median(values, axis=0)
    weights = counts / (abs(values - paper).max(axis=1) + 0.03)
    few = height < 8 or width < 8
    some, basis = (some[:, :1], basis[..., :1]) if few else (some, basis)
    coefficients = np.zeros((some.shape[1], colours.shape[2]))
    for _ in range(12):
        root = np.sqrt(weights)[:, None]
        coefficients = np.linalg.lstsq(some * root, values * root, rcond=None)[0]
        weights = counts / (abs(values - some @ coefficients).max(axis=1) + 0.005)
    return np.asarray(basis @ coefficients)


def _noise(ink: Array) -> float:
    """The deviation of the paper: of half of the pixels, whatever the others are."""
    return float(1.4826 * np.median(abs(ink - np.median(ink))))


def _uneven(ink: Array, strokes: Array) -> Array:
    """What is left of the paper's shades, by the medians of blocks without their strokes."""
    height, width = ink.shape
    if min(height, width) < 64:
        return np.zeros_like(ink)
    n = 12
    rows, columns = np.linspace(0, height, n + 1).astype(int), np.linspace(0, width, n + 1).astype(int)
    free = ~wider(strokes, 2)
    grid = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            block = (slice(rows[i], rows[i + 1]), slice(columns[j], columns[j + 1]))
            if free[block].mean() > 0.3:
                grid[i, j] = np.median(ink[block][free[block]])
    return _stretched(grid, height, width)


def _stretched(grid: Array, height: int, width: int) -> Array:
    """Linear between the middles of the blocks."""
    n, m = grid.shape
    middles = [(np.arange(k) + 0.5) * size / k for k, size in ((n, height), (m, width))]
    tall = np.array([np.interp(np.arange(height) + 0.5, middles[0], column) for column in grid.T]).T
    return np.array([np.interp(np.arange(width) + 0.5, middles[1], row) for row in tall])


# --- pieces ---------------------------------------------------------------------------------------


def _digit(pieces: list[Piece], shape: tuple[int, ...]) -> Array:
    """Of the pieces, those that are the digit."""
    inner = [p for p in pieces if _along(p, shape) <= ALONG]
    candidates = inner or pieces
    main = max(candidates, key=lambda p: p.area)
    reach = NEAR * max(main.box[2] - main.box[0], main.box[3] - main.box[1])
    mask = np.zeros(shape, bool)
    for piece in candidates:
        near = piece.area >= SPECK * main.area and apart(piece.box, main.box) <= reach
        if piece is main or (near and (not _along(piece, shape) or _along(main, shape))):
            for r, a, b in piece.runs:
                mask[r, a:b] = True
    return mask


def _along(piece: Piece, shape: tuple[int, ...]) -> float:
    """How much of the picture's border it touches."""
    height, width = shape
    n = sum(b - a for r, a, b in piece.runs if r in (0, height - 1))
    n += sum((a == 0) + (b == width) for _, a, b in piece.runs)
    return n / (2 * (height + width))


def _crosses(piece: Piece, shape: tuple[int, ...]) -> bool:
    """From one side of the picture to the other."""
    left, top, right, bottom = piece.box
    return (left <= 1 and right >= shape[1] - 1) or (top <= 1 and bottom >= shape[0] - 1)


def _reaches_a_corner(piece: Piece, shape: tuple[int, ...]) -> bool:
    """Of the picture: with its box, and large."""
    height, width = shape
    left, top, right, bottom = piece.box
    at_corner = (left == 0 or right == width) and (top == 0 or bottom == height)
    return at_corner and right - left + bottom - top > sum(shape) / 4


def _is_digit(strokes: Array) -> bool:
    """Of the thin parts: no speck, no line along the border, and thin."""
    rows, columns = np.flatnonzero(strokes.any(axis=1)), np.flatnonzero(strokes.any(axis=0))
    if not len(rows):
        return False
    tall, longer = max(len(rows), len(columns)), max(strokes.shape)
    edge = strokes[0].sum() + strokes[-1].sum() + strokes[:, 0].sum() + strokes[:, -1].sum()
    thin = _pen_width(strokes) < 0.7 * WIDEST * longer
    return bool(tall > 0.1 * longer and edge <= ALONG * 2 * sum(strokes.shape) and thin)


def _pen_width(strokes: Array) -> float:
    """Of long strokes: their area over half of their outline, pi / 4 of the sides of pixels that make it."""
    padded = np.pad(strokes, 1)
    edges = int((padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum())
    return 2.0 * float(strokes.sum()) / (edges * 0.7854)


# --- the image ------------------------------------------------------------------------------------


def _in_the_middle(digit: Array, side: int) -> Array:
    """In a box of 20/28 of the side, the centre of mass in the middle."""
    box = max(1, round(side * BOX / SIDE))
    longer = max(digit.shape)
    scale = longer / box                                     # pixels of the digit for one of the image
    digit = _penned(digit, THIN * scale * side / SIDE, THICK * scale * side / SIDE)
    longer = max(digit.shape)
    height, width = (max(1, round(box * n / longer)) for n in digit.shape)
    small = _resized(digit, height, width)
    small = np.clip(small / max(float(np.percentile(small[small > 0.02], 85)), 1e-9), 0.0, 1.0)
    mass = small.sum()
    down = float((small.sum(axis=1) * (np.arange(height) + 0.5)).sum() / mass)
    right = float((small.sum(axis=0) * (np.arange(width) + 0.5)).sum() / mass)
    top = min(max(round(side / 2 - down), 0), side - height)
    left = min(max(round(side / 2 - right), 0), side - width)
    image = np.zeros((side, side))
    image[top : top + height, left : left + width] = small
    return image


def _penned(ink: Array, thin: float, thick: float) -> Array:
    """Strokes of at least and at most these widths, in pixels; the box grows or shrinks with them."""
    stroke = ink > 0.5
    if not stroke.any():
        return ink
    wide = _pen_width(stroke)
    more = round((thin - wide) / 2)
    for k in range(max(more, 0)):
        ink = _spread(np.pad(ink, 1), k % 2 == 0)
    for k in range(max(round((wide - thick) / 2), 0)):
        less = -_spread(-np.pad(ink, 1), k % 2 == 0)
        if (less > 0.5).sum() < 0.1 * stroke.sum():
            break
        rows, columns = np.flatnonzero((less > 0.5).any(axis=1)), np.flatnonzero((less > 0.5).any(axis=0))
        ink = less[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return ink


def _spread(ink: Array, diagonal: bool) -> Array:
    """The largest value of each pixel and its neighbours; in turn with and without corners, which is nearly round."""
    tall = np.maximum(ink, np.maximum(np.roll(ink, 1, 0), np.roll(ink, -1, 0)))
    if diagonal:
        return np.maximum(tall, np.maximum(np.roll(tall, 1, 1), np.roll(tall, -1, 1)))
    return np.maximum(tall, np.maximum(np.roll(ink, 1, 1), np.roll(ink, -1, 1)))


def _resized(a: Array, height: int, width: int) -> Array:
    """Each pixel the mean of what is under it."""
    return np.asarray(_shares(a.shape[0], height) @ a @ _shares(a.shape[1], width).T)


def _shares(n: int, m: int) -> Array:
    """(m, n): how much each of n cells of a line counts for each of m larger, or smaller, ones."""
    edges = np.arange(m + 1) * (n / m)
    cells = np.arange(n)
    overlap = np.minimum(edges[1:, None], cells + 1) - np.maximum(edges[:-1, None], cells)
    return np.clip(overlap, 0, None) * (m / n)
