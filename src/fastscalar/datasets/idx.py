"""The IDX format, in which MNIST and its relatives are published.

A file is: two zero bytes, one byte for the type of the numbers, one byte for the number of dimensions, the
size of each dimension as a big-endian unsigned 32-bit integer, then the numbers themselves, big-endian, last
dimension fastest. (Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits",
section "the IDX file format".) Nothing follows the numbers, so a file's size is known from its header, and
both must agree here.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from fastscalar._settings import whole_number
from fastscalar.files import StrPath, naming, replacing

from .archive import open_member

_DTYPES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
_CODES = {(dtype.kind, dtype.itemsize): code for code, dtype in _DTYPES.items()}
_CHUNK = 1 << 20
_ROOM, _RATIO = 1 << 26, 100  # what a gzip file may unpack to: bytes, or multiples of its size (MNIST: 5)

_GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)
Check = Callable[[np.dtype[Any], tuple[int, ...]], object]


def open_raw(path: StrPath) -> IO[bytes]:
    """Open `path` for reading its uncompressed content.

    Gzip is recognised by the first two bytes, not by the name: browsers like to strip or to keep `.gz` at
    will.  A path may go through a zip file: `mnist.zip/train-images.idx3-ubyte`.
    """
    member = open_member(Path(path))
    if member is not None:
        packed = member.read(2) == b"\x1f\x8b"
        member.seek(0)
        return cast(IO[bytes], gzip.GzipFile(fileobj=member)) if packed else member
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path, "rb")) if packed else open(path, "rb")


def load_idx(
    path: StrPath, *, max_bytes: int | None = None, check: Check | None = None
) -> np.ndarray[Any, Any]:
    """Read one IDX file, gzipped or not.

    Parameters
    ----------
    path : path of the file; whether it is compressed is seen from its content. It may go through a zip file.
    max_bytes : the largest content that is read. Left out: any that is not compressed; of a gzip file 64 MiB, or
        100 times its size if that is more, which no data set exceeds that is worth reading.
    check : called with the dtype and the shape that the header claims, before any content is read; it raises if they
        are not wanted.

    Returns
    -------
    ndarray, writable, native byte order, of the file's shape (any number of dimensions that NumPy can hold)
    and of its type: uint8, int8, int16, int32, float32 or float64.

    Raises
    ------
    OSError
        The file is not there, or cannot be read.
    ValueError
        It is not a whole and sound IDX file. The message names the file, what was expected and what was
        found.

    Memory is taken as content arrives, never because a header promises it.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = file.write_bytes(bytes([0, 0, 8, 1,  0, 0, 0, 3,  5, 0, 4]))
    ...     load_idx(file)
    array([5, 0, 4], dtype=uint8)
    """
    path = Path(path)
    if max_bytes is not None:
        max_bytes = whole_number("load_idx: max_bytes", max_bytes, 0, or_else=", or None")
    with naming(path), open_raw(path) as stream:
        try:
            dtype, shape = _header(path, stream)
            size = math.prod(shape) * dtype.itemsize
            bytes_said = f"{size:,}" if size < 1 << 63 else "more than 2**63"
            said = f"{bytes_said} bytes after the header, for {dtype.name} of shape {_short(shape)}"
            if not isinstance(stream, gzip.GzipFile):
                _sizes(path, size, os.fstat(stream.fileno()).st_size - stream.tell(), said)
            if check is not None:
                check(dtype.newbyteorder("="), shape)
            limit = max_bytes
            if limit is None and isinstance(stream, gzip.GzipFile):
                limit = max(_ROOM, _RATIO * os.fstat(stream.fileno()).st_size)
            if limit is not None and size > limit:
                packed = os.fstat(stream.fileno()).st_size
                what = "max_bytes" if max_bytes is not None else f"for a gzip file of {packed:,}"
                raise ValueError(f"{path}: expected at most {limit:,} bytes, {what}; found a claim of {said}")
            content = bytearray()  # grows with what is really there, whatever the header says
            while len(content) < size and (chunk := stream.read(min(_CHUNK, size - len(content)))):
                content += chunk
            # For a compressed file this read also makes gzip compare its checksum.
            extra = len(stream.read(_CHUNK)) if len(content) == size else 0
            _sizes(path, size, len(content) + extra, said, " or more" if extra == _CHUNK else "")
        except _GZIP_ERRORS as error:
            raise ValueError(f"{path}: expected a whole gzip file; found a damaged one ({error})") from error
    try:
        array = np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:
        raise ValueError(
            f"{path}: expected a shape that NumPy can hold; found {_short(shape)} ({error})"
        ) from error
    return array.astype(dtype.newbyteorder("="), copy=False)


def _sizes(path: Path, expected: int, found: int, said: str, more: str = "") -> None:
    if found < expected:
        raise ValueError(f"{path}: expected {said}; found only {found:,}: the file is truncated")
    if found > expected:
        raise ValueError(f"{path}: expected {said}; found {found - expected:,}{more} bytes too many")


def _short(shape: tuple[int, ...]) -> str:
    return str(shape) if len(shape) < 9 else f"({', '.join(map(str, shape[:8]))}, ... {len(shape)} dimensions)"


def save_idx(path: StrPath, array: np.ndarray[Any, Any]) -> None:
    """Write `array` as an IDX file, gzipped when the name ends in `.gz`. The same array gives the same bytes.

    All of the file is written or nothing.

    Parameters
    ----------
    path : path of the file.
    array : of any shape; its bytes are written in the order that the format has, big-endian.

    Raises
    ------
    OSError
        It cannot be written, for instance because the disk is full; the file is named.
    TypeError
        IDX has no code for this dtype; it has uint8, int8, int16, int32, float32 and float64.

    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_idx(os.path.join(folder, "x.gz"), np.array([[1.5, -2.0]], dtype=np.float32))
    ...     load_idx(os.path.join(folder, "x.gz"))
    array([[ 1.5, -2. ]], dtype=float32)
    """
    code = _CODES.get((array.dtype.kind, array.dtype.itemsize))
    if code is None:
        raise TypeError(f"IDX cannot hold {array.dtype}; it holds {', '.join(d.name for d in _DTYPES.values())}")
    content = header(code, array.shape) + array.astype(_DTYPES[code], copy=False).tobytes()
    if os.fspath(path).endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    with replacing(path) as file:
        file.write(content)


def header(code: int, shape: tuple[int, ...]) -> bytes:
    """The first bytes of an IDX file: `code` is the type (0x08 for uint8), `shape` the dimensions.

    >>> header(0x08, (60000,)).hex(" ")
    '00 00 08 01 00 00 ea 60'
    """
    return bytes([0, 0, code, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


def _header(path: Path, stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4:
        raise ValueError(f"{path}: expected an IDX file; found only {len(magic)} bytes")
    if magic[:2] != b"\0\0":
        raise ValueError(f"{path}: expected an IDX file, which begins with 00 00; found {magic.hex(' ')}")
    if magic[2] not in _DTYPES:
        codes = ", ".join(f"{code:#04x} ({dtype.name})" for code, dtype in _DTYPES.items())
        raise ValueError(f"{path}: expected one of the IDX types {codes}; found {magic[2]:#04x}")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(
            f"{path}: expected the sizes of {magic[3]} dimensions; found only {len(sizes)} bytes of them"
        )
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    return _DTYPES[magic[2]], shape
