"""Images in tables: CSV files such as Kaggle's MNIST, and NumPy's .npz files such as Keras' MNIST and Kuzushiji's."""

from __future__ import annotations

import gzip
import io
import itertools
import math
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastscalar.files import brief, naming, open_zip, read_array

from .idx import open_raw

Array = np.ndarray[Any, Any]

ROWS = 4096  # of a CSV file that are read together
LABELS = ("label", "labels", "class", "target", "y", "digit", "character")
LONGEST = 1 << 20  # bytes of a line
_ROOM, _RATIO = 1 << 26, 100  # what an .npz file may unpack to: bytes, or multiples of its size (Keras' MNIST: 5)


CLASSES = 1 << 15  # at most: a label is below it


def bytes_of(path: object, images: Array) -> Array:
    """Pixels as bytes: whole numbers or floats of 0..255, or floats of 0..1.  ValueError for others."""
    if images.dtype == np.bool_:
        return np.asarray(images, dtype=np.uint8) * np.uint8(255)
    if images.dtype.kind not in "iuf":
        raise ValueError(f"{path}: expected pixels as numbers; found {images.dtype}")
    if images.dtype == np.uint8 or not images.size:
        return images.astype(np.uint8)
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 255):
        found = "NaN" if math.isnan(low) else f"numbers from {low:g} to {high:g}"
        raise ValueError(f"{path}: expected pixels of 0..255, or of 0..1; found {found}")
    return np.rint(images * (255 if images.dtype.kind == "f" and high <= 1 else 1)).astype(np.uint8)


def squares(path: object, images: Array) -> Array:
    """(n, height, width) of rows of square images, or as they are."""
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim == 2 and (side := math.isqrt(images.shape[1])) ** 2 == images.shape[1] and side > 1:
        images = images.reshape(-1, side, side)
    if images.ndim != 3 or 0 in images.shape:
        expected = "images of shape (n, height, width), or rows of squares"
        raise ValueError(f"{path}: expected {expected}; found {images.shape}")
    return images


# --- CSV ------------------------------------------------------------------------------------------


def read_csv(path: Path) -> tuple[Array, Array | None]:
    """Images (n, side, side) of bytes, and labels; None if there is no column of them.

    A first line of names says which column has the labels; without one it is the first.  Memory is taken as lines come.
    ValueError names the file and the line.
    """
    with naming(path), open_raw(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        try:
            return _table(path, text)
        except UnicodeDecodeError:
            raise ValueError(f"{path}: expected a CSV file; found something else than text") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: expected a whole gzip file; found a damaged one ({error})") from None


def _table(path: Path, text: IO[str]) -> tuple[Array, Array | None]:
    first = text.readline(LONGEST)
    delimiter = next((d for d in ",;\t" if d in first), ",")
    head = [cell.strip().strip('"').lower() for cell in first.rstrip("\r\n").split(delimiter)]
    named = any(not _is_number(cell) for cell in head)
    width = len(head)
    if width < 4:
        raise ValueError(f"{path}: expected a CSV file with a label and pixels in each line; found {width} columns")
    column: int | None = 0
    if named:
        column = next((k for k, cell in enumerate(head) if cell in LABELS), None)
    pixels = width - (column is not None)
    if math.isqrt(pixels) ** 2 != pixels:
        raise ValueError(f"{path}: expected the pixels of square images; found {pixels:,} columns of them")
    parts: list[Array] = []
    labels: list[Array] = []
    lines = 1 if named else 0
    pending = iter([] if named else [first])
    while block := list(itertools.islice(itertools.chain(pending, _lines(path, text)), ROWS)):
        numbers = _numbers(path, block, delimiter, width, lines)
        lines += len(block)
        if column is not None:
            some = numbers[:, column]
            if (wrong := some[~np.isin(some, np.arange(CLASSES))]).size:
                raise ValueError(f"{path}: expected whole numbers as labels, from 0 on; found {wrong[0]:g}")
            labels.append(some.astype(np.int32))
            numbers = np.delete(numbers, column, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):   # of what is no pixel, as is said below
            small = numbers.astype(np.float32)
            whole = small.astype(np.uint8)
        parts.append(whole if (small == whole).all() else small)
    if not parts:
        raise ValueError(f"{path}: no images; only a line of names")
    fractions = any(part.dtype != np.uint8 for part in parts)
    table = np.concatenate([part.astype(np.float32) for part in parts] if fractions else parts)
    images = squares(path, bytes_of(path, table))
    return images, np.concatenate(labels) if column is not None else None


def _lines(path: Path, text: IO[str]) -> Any:
    while line := text.readline(LONGEST):
        if len(line) == LONGEST:
            raise ValueError(f"{path}: a line of more than {LONGEST:,} bytes")
        if line.strip():
            yield line


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, block: list[str], delimiter: str, width: int, before: int) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            numbers = np.loadtxt(block, delimiter=delimiter, ndmin=2, quotechar='"', comments=None)
            if numbers.shape == (len(block), width) and np.isfinite(numbers).all():
                return numbers
        except ValueError:
            pass
    for k, line in enumerate(block, before + 1):
        cells = line.rstrip("\r\n").split(delimiter)
        if len(cells) != width:
            raise ValueError(f"{path}: line {k}: expected {width} columns; found {len(cells)}")
        for cell in cells:
            if not _is_number(cell.strip().strip('"')) or not math.isfinite(float(cell.strip().strip('"'))):
                raise ValueError(f"{path}: line {k}: expected numbers; found {cell[:40]!r}")
    raise ValueError(f"{path}: lines {before + 1} to {before + len(block)}: expected numbers; found something else")


# --- npz ------------------------------------------------------------------------------------------


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of numbers in an .npz file, by name.  What a member claims is compared with the file's size."""
    found: dict[str, Array] = {}
    size = path.stat().st_size
    limit = max(_ROOM, _RATIO * size)
    try:
        with open_zip(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if sum(info.file_size for info in members) > limit:
                raise ValueError(f"expected at most {limit:,} bytes of arrays in {size:,}; found a claim of more")
            for info in members:
                array = read_array(archive, info, "biuf")
                if array is not None:
                    found[info.filename.removesuffix(".npy")] = array
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise ValueError(f"{path}: expected a whole .npz file; found a damaged one ({brief(error)})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return found
