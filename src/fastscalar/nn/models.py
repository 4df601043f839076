"""Saved nets: an .npz file with a header, which is JSON, and arrays.

The header says what wrote the file: `format`, the version of `fastscalar`, the set of `kernels`; and holds the user's
`metadata`.  Of the net it has
* in format 1 its `class`, Linear or MLP (of relu), its `widths`, the `seed` of its first weights (null if there was
  none); the arrays are w0, b0, w1, b1, ...
* in format 2 the class Module, and in `modules` how it is rebuilt (see `saved.py`); `parameters` are the names and
  shapes of the arrays p0, p1, ...

Reading a file takes no more than the file holds.  The header is checked before an array is looked at, each array's
size before it is allocated, and what the header does not ask for is not unpacked.  Nothing in a file is executed.
"""

from __future__ import annotations

import errno
import json
import math
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastscalar._core import tape_info
from fastscalar.files import StrPath, brief, npy_header, open_zip, read_into, write_npz
from fastscalar.version import __version__

FORMAT = 2
CLASSES = ("Linear", "MLP", "Module")
ORIGIN = ("format", "fastscalar", "kernels")  # what wrote a file; older versions say the format only
_ROOM, _RATIO = 1 << 24, 20  # what compressed members may unpack to: bytes, and multiples of the file's size

Arrays = list[np.ndarray[Any, Any]]


def write_model(path: StrPath, about: dict[str, Any], given: Arrays, metadata: dict[str, Any]) -> None:
    """All of the file or nothing.  given: the arrays in the order of their names.  TypeError for metadata that JSON
    cannot hold."""
    origin = {"fastscalar": __version__, "kernels": tape_info()["kernels"]}
    version = 2 if about["class"] == "Module" else 1
    header = json.dumps({"format": version, **origin, **about, "metadata": metadata})
    arrays = {"header": np.array(header)}
    arrays |= {name: array for (name, _), array in zip(_expected(about), given, strict=True)}
    arrays |= _more.get()
    write_npz(path, arrays)


_more: ContextVar[dict[str, np.ndarray[Any, Any]]] = ContextVar("more", default={})  # noqa: B039 - never changed


@contextmanager
def with_more(arrays: dict[str, np.ndarray[Any, Any]]) -> Iterator[None]:
    """What is saved inside has these arrays too, in the same file, which is whole or not there."""
    token = _more.set(arrays)
    try:
        yield
    finally:
        _more.reset(token)


def _expected(header: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """The names of the arrays, and their shapes."""
    if header["class"] == "Module":
        return [(f"p{k}", tuple(shape)) for k, (_, shape) in enumerate(header["parameters"])]
    layers = enumerate(pairwise(header["widths"]))
    return [entry for k, shape in layers for entry in ((f"w{k}", shape), (f"b{k}", shape[1:]))]


def read_model(path: StrPath, allow_nonfinite: bool = False) -> tuple[dict[str, Any], Arrays]:
    """Header and arrays.  Raises OSError, MemoryError, and ValueError for everything that is wrong in the file."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a net written by save()")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder; expected the file of a net written by save()", str(path))
    if not path.is_file():
        raise ValueError(f"{path}: expected the file of a net written by save(); found a device or a pipe")
    size = path.stat().st_size
    try:
        with open_zip(path) as archive:
            return _read(archive, size, allow_nonfinite)
    except zipfile.BadZipFile as error:
        disk = error.__context__  # zipfile takes every OSError at the beginning for another kind of file
        if isinstance(disk, OSError) and disk.errno not in (None, errno.EINVAL):
            raise OSError(disk.errno, disk.strerror, str(path)) from error
        reason: Exception | str = f"damaged, or of another kind ({error})"
    except (ValueError, EOFError, RuntimeError, OverflowError) as error:
        reason = error  # RuntimeError: encrypted members, and a recursion in the header
    raise ValueError(f"{path}: not a net written by fastscalar's save(): {brief(reason)}")


def _read(archive: zipfile.ZipFile, size: int, allow_nonfinite: bool) -> tuple[dict[str, Any], Arrays]:
    info = _members(archive, ["header"], size)[0]
    with archive.open(info) as stream:
        header = _header(_text(stream, info.file_size))
    expected = _expected(header)
    arrays = []
    for (name, shape), info in zip(expected, _members(archive, [name for name, _ in expected], size), strict=True):
        with archive.open(info) as stream:
            arrays.append(_array(stream, name, shape, info.file_size))
        if not allow_nonfinite and not np.isfinite(arrays[-1]).all():
            raise ValueError(f"{name} holds infinite or NaN numbers; fs.load(..., allow_nonfinite=True) takes them")
    return header, arrays


def _members(archive: zipfile.ZipFile, names: Sequence[str], size: int) -> list[zipfile.ZipInfo]:
    """The members of these names; ValueError if one is missing, or if together they are larger than the file can be."""
    known = archive.NameToInfo
    missing = [name for name in names if f"{name}.npy" not in known]
    if missing:
        raise ValueError(f"expected the member {missing[0]}.npy; found none")
    found = [known[f"{name}.npy"] for name in names]
    if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in found):
        raise ValueError("packed in a way that save() does not use")
    packed, unpacked = sum(info.compress_size for info in found), sum(info.file_size for info in found)
    stored = all(info.compress_size == info.file_size for info in found if info.compress_type == zipfile.ZIP_STORED)
    if packed > size or not stored:
        raise ValueError(f"damaged: members of {packed:,} bytes in a file of {size:,}")
    if unpacked > size and unpacked > _ROOM + _RATIO * size:
        raise ValueError(f"members of {unpacked:,} bytes packed into {size:,}; a net does not shrink like that")
    return found


def _text(stream: IO[bytes], size: int) -> str:
    dtype, shape, _, before = npy_header(stream)
    if dtype.kind != "U" or shape or before + dtype.itemsize != size:
        raise ValueError("the header is no text")
    raw = np.empty(dtype.itemsize, np.uint8)
    read_into(stream, raw)
    stream.read(1)  # only at the end is the checksum compared
    return raw.tobytes().decode("utf-32-be" if dtype.byteorder == ">" else "utf-32-le").rstrip("\0")


def _header(text: str) -> dict[str, Any]:
    header = json.loads(text)
    if not isinstance(header, dict) or "format" not in header:
        raise ValueError("the header names no format")
    found = header["format"]
    if isinstance(found, bool) or not isinstance(found, int) or found < 1:
        raise ValueError(f"format {_shown(found)}, expected a number up to {FORMAT}")
    if found > FORMAT:
        writer = header.get("fastscalar", "a newer version of it")
        raise ValueError(f"format {found} of fastscalar {_shown(writer)}, this version reads formats up to {FORMAT}")
    if header.get("class") not in CLASSES:
        raise ValueError(f"class {_shown(header.get('class'))}, expected {' or '.join(CLASSES)}")
    if not isinstance(header.get("metadata"), dict):
        raise ValueError(f"metadata {_shown(header.get('metadata'))}, expected a dictionary")
    if header["class"] == "Module":
        return _header_of_module(header)
    widths = header.get("widths")
    if (
        not isinstance(widths, list)
        or not all(type(n) is int and 1 <= n < 1 << 31 for n in widths)
        or len(widths) < 2
        or (header["class"] == "Linear" and len(widths) != 2)
    ):
        raise ValueError(f"widths {_shown(widths)}, expected a list of whole numbers of at least 1")
    return header


def _header_of_module(header: dict[str, Any]) -> dict[str, Any]:
    parameters, modules = header.get("parameters"), header.get("modules")
    if not isinstance(parameters, list) or not all(map(_is_name_and_shape, parameters)):
        raise ValueError(f"parameters {_shown(parameters)}, expected a list of names and shapes")
    if not isinstance(modules, list) or not modules or not all(isinstance(m, dict) for m in modules):
        raise ValueError(f"modules {_shown(modules)}, expected a list of dictionaries")
    return header


def _is_name_and_shape(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], list)
        and len(entry[1]) <= 8
        and all(type(n) is int and 1 <= n < 1 << 31 for n in entry[1])
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _array(stream: IO[bytes], name: str, shape: tuple[int, ...], size: int) -> np.ndarray[Any, Any]:
    dtype, found, fortran, before = npy_header(stream)
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise ValueError(f"{name} holds {dtype}, expected float64")
    if found != shape or fortran:
        raise ValueError(f"{name} has shape {found}{' in Fortran order' * fortran}, expected {shape}")
    if before + dtype.itemsize * math.prod(shape) != size:
        raise ValueError(f"damaged: {name} of shape {shape} in {size:,} bytes")
    array = np.empty(shape, dtype)
    read_into(stream, array)
    stream.read(1)
    return array
