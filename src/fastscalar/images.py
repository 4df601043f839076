"""Images for `fastscalar predict`: NumPy's .npy, IDX files, and PGM, the plainest of all image formats."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np

from fastscalar.datasets import load_idx

_GAP = rb"(?:\s|#[^\n]*\n)+"  # blanks, and comments to the end of the line
_PGM = re.compile(rb"P([25])" + 3 * (_GAP + rb"(\d{1,5})") + rb"\s")


def read_images(path: str | os.PathLike[str], pixels: int) -> np.ndarray:
    """The images in a file as rows of `pixels` numbers from 0 to 1.

    Reads .npy files (bytes, or floats from 0 to 1; one image or several), IDX files, gzipped or not, and PGM
    files, binary ("P5") or plain ("P2").  Raises FileNotFoundError, and ValueError for everything else that
    is wrong; the message names the file, what was expected and what was found.
    """
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\x93NUMPY"):
        try:
            array = np.load(path, allow_pickle=False)
        except Exception as error:
            raise ValueError(f"{path}: a damaged .npy file ({error})") from None
    elif start.startswith((b"P2", b"P5")):
        array = _pgm(path)
    elif start.startswith((b"\x00\x00", b"\x1f\x8b")):
        array = load_idx(path)
    else:
        raise ValueError(f"{path}: expected a .npy, IDX or PGM file; found something else; convert it to PGM")
    return _rows(path, _scaled(path, array), pixels)


def _scaled(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype in (np.uint8, np.bool_):
        return array / (255 if array.dtype == np.uint8 else 1)
    if array.dtype.kind != "f" or not np.all((array >= 0) & (array <= 1)):
        found = array.dtype if array.dtype.kind != "f" else "numbers outside"
        raise ValueError(f"{path}: expected bytes, or floats from 0 to 1; found {found}")
    return array.astype(np.float64)


def _rows(path: Path, array: np.ndarray, pixels: int) -> np.ndarray:
    if array.size and array.size == pixels:
        return array.reshape(1, pixels)
    if array.size and array.ndim > 1 and math.prod(array.shape[1:]) == pixels:
        return array.reshape(len(array), pixels)
    side = math.isqrt(pixels)
    size = f"{side} x {side}" if side * side == pixels else f"{pixels}"
    expected = f"images of {size} pixels, as the model was trained on"
    raise ValueError(f"{path}: expected {expected}; found an array of shape {array.shape}")


def _pgm(path: Path) -> np.ndarray:
    """Source: the manual page pgm(5) of Netpbm."""
    raw = path.read_bytes()
    head = _PGM.match(raw)
    if head is None:
        raise ValueError(f"{path}: expected P2 or P5, width, height, the value of white; found other things")
    width, height, white = (int(number) for number in head.group(2, 3, 4))
    body = raw[head.end() :]
    if not 0 < white < 65536:
        raise ValueError(f"{path}: expected the value of white to be from 1 to 65535; found {white}")
    try:
        if head.group(1) == b"2":
            values = np.array(re.sub(rb"#[^\n]*", b"", body).split(), dtype=np.int64)
        else:
            values = np.frombuffer(body, dtype=np.uint8 if white < 256 else ">u2")
    except ValueError:
        raise ValueError(f"{path}: expected whole numbers; found something else") from None
    if values.size != width * height or not np.all((values >= 0) & (values <= white)):
        expected = f"{width} x {height} numbers up to {white}"
        raise ValueError(f"{path}: expected {expected}; found {values.size:,}, or larger ones")
    return values.reshape(height, width) / white
