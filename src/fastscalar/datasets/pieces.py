"""Connected pieces of a picture: pixels that touch; and the sheets and frames among them, inside of which to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SQUARE = 0.85  # of the least rectangle around it is filled by a sheet or a frame; an ellipse fills pi / 4
HOLLOW, SOLID = 0.4, 0.6  # of what is inside of its outline: a frame is less than that, a sheet is more


@dataclass
class Piece:
    """Pixels that touch, diagonally too, as runs of rows: (row, first column, column behind the last)."""

    runs: list[tuple[int, int, int]]
    area: int
    box: tuple[int, int, int, int]  # left, top, right, bottom


def pieces_of(mask: Array) -> list[Piece]:
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    starts, ends = np.argwhere(change == 1), np.argwhere(change == -1)
    runs = [(int(r), int(a), int(b)) for (r, a), b in zip(starts, ends[:, 1], strict=True)]
    parent = list(range(len(runs)))

    def root(k: int) -> int:
        while parent[k] != k:
            parent[k] = parent[parent[k]]
            k = parent[k]
        return k

    above: list[int] = []
    here: list[int] = []
    row = -2
    for k, (r, a, b) in enumerate(runs):
        if r != row:
            above, here, row = (here if r == row + 1 else []), [], r
        for other in above:
            _, first, last = runs[other]
            if first <= b and a <= last:
                parent[root(k)] = root(other)
        here.append(k)
    groups: dict[int, list[tuple[int, int, int]]] = {}
    for k, run in enumerate(runs):
        groups.setdefault(root(k), []).append(run)
    return [
        Piece(
            group,
            sum(b - a for _, a, b in group),
            (min(a for _, a, _ in group), group[0][0], max(b for _, _, b in group), group[-1][0] + 1),
        )
        for group in groups.values()
    ]


def apart(a: Sequence[int], b: Sequence[int]) -> int:
    return max(a[0] - b[2], b[0] - a[2], a[1] - b[3], b[1] - a[3], 0)


def wider(mask: Array, by: int) -> Array:
    """With the pixels around it."""
    for _ in range(by):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        mask = wide.copy()
        mask[:, 1:] |= wide[:, :-1]
        mask[:, :-1] |= wide[:, 1:]
    return mask


# --- sheets on tables, and frames -----------------------------------------------------------------


def inside_of(pieces: Sequence[Piece], shape: tuple[int, ...]) -> Array | None:
    """What a sheet, lying on something else, or a drawn frame has inside, as a mask; None if there is none.

    Both fill the least rectangle around them.  Of a sheet most is paper, with a digit for a hole; in a frame something
    stands that does not touch it."""
    for piece in sorted(pieces, key=lambda p: -p.area)[:3]:
        left, top, right, bottom = piece.box
        if min(right - left, bottom - top) < 0.15 * max(shape):
            continue
        ink = np.zeros((bottom - top + 2, right - left + 2), bool)
        for r, a, b in piece.runs:
            ink[r - top + 1, a - left + 1 : b - left + 1] = True
        gaps = pieces_of(~ink)
        outside = next(gap for gap in gaps if gap.box[:2] == (0, 0))
        filled = np.ones_like(ink)
        for r, a, b in outside.runs:
            filled[r, a:b] = False
        size = int(filled.sum())
        if size < SQUARE * _least_rectangle(filled):
            continue
        if piece.area < HOLLOW * size:
            if not any(_stands_in(other.box, piece.box) for other in pieces):
                continue
            filled &= ~ink
        elif piece.area < SOLID * size or not any(
            gap is not outside and gap.box[3] - gap.box[1] > 0.1 * (bottom - top) for gap in gaps
        ):
            continue
        mask = np.zeros(shape, bool)
        mask[top:bottom, left:right] = (~wider(~filled, 3))[1:-1, 1:-1]
        if mask.any():
            return mask
    return None


def _stands_in(box: Sequence[int], around: Sequence[int]) -> bool:
    inside = box[0] > around[0] and box[1] > around[1] and box[2] < around[2] and box[3] < around[3]
    return inside and box[3] - box[1] > 0.25 * (around[3] - around[1])


def _least_rectangle(filled: Array) -> float:
    """The area of the least rectangle around a shape, turned by any whole multiple of 3 degrees."""
    rows = np.flatnonzero(filled.any(axis=1))
    ends = [n - np.argmax(filled[rows, ::-1], axis=1) for n in filled.shape[1:]]
    x = np.concatenate([np.argmax(filled[rows], axis=1), *ends])
    y = np.concatenate([rows, rows])
    angle = np.radians(np.arange(0, 90, 3))[:, None]
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return float(np.min((np.ptp(along, axis=1) + 1.0) * (np.ptp(across, axis=1) + 1.0)))
