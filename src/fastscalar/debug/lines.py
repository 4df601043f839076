"""The line of Python that recorded an operation, inside `detect_anomaly`."""

from __future__ import annotations

import linecache
import os
import sys
from types import FrameType

from fastscalar._paths import PACKAGE
from fastscalar.debug.instructions import Instruction

numbers: dict[tuple[str, int], int] = {}  # (file, line) -> number; the tape keeps the number for each node
places: dict[int, tuple[str, int]] = {}


def here() -> int:
    """The number of the line outside this package that runs now."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    assert frame is not None
    place = (frame.f_code.co_filename, frame.f_lineno)
    number = numbers.get(place)
    if number is None:
        number = numbers[place] = len(numbers) + 1
        places[number] = place
    return number


def place_name(number: int) -> str:
    file, line = places[number]
    return f"{os.path.basename(file)}:{line}"


def where_of(one: Instruction) -> str | None:
    if one.place not in places:
        return None
    file, line = places[one.place]
    return f"{file}:{line}"


def line_of(where: str) -> str:
    """file:line and, if the file can be read, what stands there."""
    path, _, line = where.rpartition(":")
    source = linecache.getline(path, int(line)).strip()
    return f"{where}: {source}" if source else where
