"""Images for `fastscalar predict`: pictures of any size, and arrays that are what the model was trained on.

NumPy's .npy and IDX files hold images as the model knows them, and so does PGM, the plainest of all image formats, if
its size is right.  Everything else is a picture in which `datasets.scans` looks for a digit.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from fastscalar.datasets import load_idx
from fastscalar.datasets.photos import is_picture, read_scan
from fastscalar.datasets.scans import cut_out, whole
from fastscalar.files import naming, npy_header, read_into

STDIN = "standard input"
_HEADER = 1 << 16  # bytes of a PGM header, comments included
_WORD = 64  # bytes for each number of a plain PGM file, blanks and comments included


def read_images(
    path: str | os.PathLike[str], pixels: int, *, flip: bool = False, plain: bool = False
) -> np.ndarray[Any, Any]:
    """The images in a file as rows of `pixels` numbers from 0 to 1; "-" is the standard input.

    Reads PNG, JPEG, WebP, BMP and GIF pictures, .npy files (bytes, or floats from 0 to 1; one image or several), IDX
    files, gzipped or not, and PGM files, binary ("P5") or plain ("P2").  What a file claims to hold is compared with
    `pixels` and with the file's size before anything is read.

    Parameters
    ----------
    path : the file, or "-".
    pixels : numbers in a row.
    flip : dark and bright change places.
    plain : a picture is taken as it is, only smaller; no digit is looked for.

    Raises
    ------
    OSError
        It cannot be read.
    ImportError
        Pillow is not installed.
    ValueError
        For everything else that is wrong; the message names the file, what was expected and what was found.
    """
    with _as_file(path) as (path, name):
        try:
            return _read(path, pixels, flip, plain)
        except (ValueError, OSError) as error:
            if name is None:
                raise
            if isinstance(error, OSError) and error.errno is not None:
                raise OSError(error.errno, error.strerror, name) from None
            raise ValueError(str(error).replace(str(path), name)) from None


@contextmanager
def _as_file(path: str | os.PathLike[str]) -> Iterator[tuple[Path, str | None]]:
    """A path, and what to call it if it is the standard input, which is copied: readers want to know its size."""
    if str(path) != "-":
        yield Path(path), None
        return
    with tempfile.NamedTemporaryFile(prefix="fastscalar-") as copy:
        with naming(STDIN):
            if sys.stdin is None:
                raise ValueError(f"{STDIN}: it is closed")
            shutil.copyfileobj(sys.stdin.buffer, cast(IO[bytes], copy))
        copy.flush()
        yield Path(copy.name), STDIN


def _read(path: Path, pixels: int, flip: bool, plain: bool) -> np.ndarray[Any, Any]:
    side = math.isqrt(pixels)
    with naming(path), open(path, "rb") as file:
        start = file.read(8)
        file.seek(0)
        if is_picture(start):
            if side * side != pixels:
                raise ValueError(f"{path}: the model takes {pixels} numbers, which are no square picture")
            return read_scan(path, side=side, flip=flip, plain=plain).image.reshape(1, pixels)
        if start.startswith(b"\x93NUMPY"):
            array = _npy(path, file, pixels)
        elif start.startswith((b"P2", b"P5")):
            array = _pgm(path, file)
            if array.size != pixels and side * side == pixels and array.size:
                try:
                    scan = (whole if plain else cut_out)(array, side=side, flip=flip)
                except ValueError as error:
                    raise ValueError(f"{path}: {error}") from None
                return scan.image.reshape(1, pixels)
        elif start.startswith((b"\x00\x00", b"\x1f\x8b")):
            array = load_idx(path, check=lambda dtype, shape: _check(path, dtype, shape, pixels))
        else:
            kinds = "a PNG, JPEG, WebP, BMP, GIF, PGM, .npy or IDX file"
            raise ValueError(f"{path}: expected {kinds}; found something else")
    X = _scaled(path, array).reshape(_count(path, array.shape, pixels), pixels)
    return 1.0 - X if flip else X


def _check(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], pixels: int) -> None:
    _kind(path, dtype)
    _count(path, shape, pixels)


def _kind(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype not in (np.uint8, np.bool_) and dtype.kind != "f":
        raise ValueError(f"{path}: expected bytes, or floats from 0 to 1; found {dtype}")


def _scaled(path: Path, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype in (np.uint8, np.bool_):
        return array / (255 if array.dtype == np.uint8 else 1)
    if not np.all((array >= 0) & (array <= 1)):
        raise ValueError(f"{path}: expected bytes, or floats from 0 to 1; found numbers outside")
    return array.astype(np.float64)


def _count(path: Path, shape: tuple[int, ...], pixels: int) -> int:
    """How many images of so many pixels an array of this shape is."""
    size = math.prod(shape)
    if size and size == pixels:
        return 1
    if size and len(shape) > 1 and math.prod(shape[1:]) == pixels:
        return shape[0]
    side = math.isqrt(pixels)
    of = f"{side} x {side}" if side * side == pixels else f"{pixels}"
    found = str(shape) if len(shape) < 9 else f"of {len(shape)} dimensions"
    expected = f"images of {of} pixels, as the model was trained on"
    raise ValueError(f"{path}: expected {expected}; found an array of shape {found}")


def _npy(path: Path, file: IO[bytes], pixels: int) -> np.ndarray[Any, Any]:
    try:
        dtype, shape, fortran, before = npy_header(file)
    except ValueError as error:
        raise ValueError(f"{path}: a damaged .npy file, or none of plain numbers ({error})") from None
    if dtype.hasobject:
        raise ValueError(f"{path}: a damaged .npy file: it holds Python objects, which are not read; expected numbers")
    _kind(path, dtype)
    expected, found = math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size - before
    if found < expected:
        raise ValueError(f"{path}: a damaged .npy file: expected {expected:,} bytes of numbers; found {found:,}")
    _count(path, shape, pixels)
    array = np.empty(shape, dtype, order="F" if fortran else "C")
    read_into(file, array.T if fortran else array)
    return array


# --- PGM (source: the manual page pgm(5) of Netpbm) ---


def _pgm(path: Path, file: IO[bytes]) -> np.ndarray[Any, Any]:
    head = file.read(_HEADER)
    found, at = [], 2
    for _ in range(3):
        at = _skip(head, at)
        end = at
        while end < len(head) and end - at < 6 and head[end : end + 1].isdigit():
            end += 1
        found.append(head[at:end])
        at = end
    if not all(0 < len(word) < 6 for word in found) or not head[at : at + 1].isspace():
        raise ValueError(f"{path}: expected P2 or P5, width, height, the value of white; found other things")
    width, height, white = map(int, found)
    if not 0 < white < 65536:
        raise ValueError(f"{path}: expected the value of white to be from 1 to 65535; found {white}")
    count, plain = width * height, head.startswith(b"P2")
    file.seek(at + 1)
    there = os.fstat(file.fileno()).st_size - at - 1
    expected = f"{width} x {height} numbers up to {white}"
    if plain:
        if there < 2 * count - 1:
            raise ValueError(f"{path}: expected {expected}; found {there:,} bytes of text, too little for them")
        if there > _HEADER + _WORD * count:
            raise ValueError(f"{path}: expected {expected}; found {there:,} bytes, which is too much text for them")
        values = _numbers(path, file.read(_HEADER + _WORD * count))
    else:
        dtype = np.dtype(np.uint8 if white < 256 else ">u2")
        if there != count * dtype.itemsize:
            raise ValueError(f"{path}: expected {expected}; found {there // dtype.itemsize:,}, or a part of one more")
        values = np.empty(count, dtype)
        try:
            read_into(file, values)
        except EOFError as error:  # it shrinks while we read
            raise ValueError(f"{path}: {error}") from None
    if values.size != count or not np.all((values >= 0) & (values <= white)):
        raise ValueError(f"{path}: expected {expected}; found {values.size:,}, or larger ones")
    return values.reshape(height, width) / white


def _skip(text: bytes, at: int) -> int:
    """The place behind blanks, and behind comments to the end of their lines; at least one of them has to be there."""
    begin = at
    while at < len(text):
        if text[at : at + 1].isspace():
            at += 1
        elif text.startswith(b"#", at) and (end := text.find(b"\n", at)) >= 0:
            at = end + 1
        else:
            break
    return at if at > begin else len(text)


def _numbers(path: Path, text: bytes) -> np.ndarray[Any, Any]:
    words = b" ".join(line.partition(b"#")[0] for line in text.split(b"\n")).split()
    try:
        return np.array([int(word[:12]) for word in words], dtype=np.int64)  # the digits after these change nothing
    except ValueError:
        raise ValueError(f"{path}: expected whole numbers; found something else") from None
