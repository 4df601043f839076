"""Saved nets: an .npz file with a header, which is JSON, and the arrays w0, b0, w1, b1, ...

The header says what wrote the file: `format`, the version of `fastscalar`, the set of `kernels`; and of the net its
`class`, its `widths`, the `seed` of its first weights (null if there was none), and the user's `metadata`.

Reading a file takes no more than the file holds.  The header is checked before an array is looked at, each array's
size before it is allocated, and what the header does not ask for is not unpacked.  Nothing in a file is executed.
"""

from __future__ import annotations

import errno
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from fastscalar._core import tape_info
from fastscalar.files import StrPath, brief, naming, npy_header, open_zip, read_into, replacing

FORMAT = 1
CLASSES = ("Linear", "MLP")
ORIGIN = ("format", "fastscalar", "kernels")  # what wrote a file; older versions say the format only
_ROOM, _RATIO = 1 << 24, 20  # what compressed members may unpack to: bytes, and multiples of the file's size

Layers = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]  # weights and biases


def write_model(path: StrPath, about: dict[str, Any], layers: Layers, metadata: dict[str, Any]) -> None:
    """All of the file or nothing.  TypeError for metadata that JSON cannot hold."""
    from fastscalar.version import __version__

    origin = {"fastscalar": __version__, "kernels": tape_info()["kernels"]}
    header = json.dumps({"format": FORMAT, **origin, **about, "metadata": metadata})
    arrays = {"header": np.array(header)}
    for k, (w, b) in enumerate(layers):
        arrays |= {f"w{k}": w, f"b{k}": b}
    # As np.savez does it, which at a full disk leaves an archive that complains once more when it is collected.
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def read_model(path: StrPath, allow_nonfinite: bool = False) -> tuple[dict[str, Any], Layers]:
    """Header and layers.  Raises OSError, MemoryError, and ValueError for everything that is wrong in the file."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a net written by save()")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder; expected the file of a net written by save()", str(path))
    if not path.is_file():
        raise ValueError(f"{path}: expected the file of a net written by save(); found a device or a pipe")
    size = path.stat().st_size
    try:
        with naming(path), open(path, "rb") as file, open_zip(file) as archive:
            return _read(archive, size, allow_nonfinite)
    except zipfile.BadZipFile as error:
        disk = error.__context__  # zipfile takes every OSError at the beginning for another kind of file
        if isinstance(disk, OSError) and disk.errno not in (None, errno.EINVAL):
            raise OSError(disk.errno, disk.strerror, str(path)) from error
        reason: Exception | str = f"damaged, or of another kind ({error})"
    except (ValueError, EOFError, NotImplementedError, RuntimeError, OverflowError, struct.error) as error:
        reason = error  # RuntimeError: encrypted members, and a recursion in the header
    except (zlib.error, lzma.LZMAError) as error:
        reason = f"damaged ({error})"
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # damaged offsets lead to impossible places
            raise
        reason = f"damaged ({error.strerror or error})"
    raise ValueError(f"{path}: not a net written by fastscalar's save(): {brief(reason)}")


def _read(archive: zipfile.ZipFile, size: int, allow_nonfinite: bool) -> tuple[dict[str, Any], Layers]:
    info = _members(archive, ["header"], size)[0]
    with archive.open(info) as stream:
        header = _header(_text(stream, info.file_size))
    shapes = list(pairwise(header["widths"]))
    names = [f"{name}{k}" for k in range(len(shapes)) for name in "wb"]
    arrays = []
    for name, info in zip(names, _members(archive, names, size), strict=True):
        shape = shapes[int(name[1:])]
        with archive.open(info) as stream:
            arrays.append(_array(stream, name, shape if name[0] == "w" else shape[1:], info.file_size))
        if not allow_nonfinite and not np.isfinite(arrays[-1]).all():
            raise ValueError(f"{name} holds infinite or NaN numbers; fs.load(..., allow_nonfinite=True) takes them")
    return header, list(zip(arrays[::2], arrays[1::2], strict=True))


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
    widths = header.get("widths")
    if (
        not isinstance(widths, list)
        or not all(type(n) is int and 1 <= n < 1 << 31 for n in widths)
        or len(widths) < 2
        or (header["class"] == "Linear" and len(widths) != 2)
    ):
        raise ValueError(f"widths {_shown(widths)}, expected a list of whole numbers of at least 1")
    if not isinstance(header.get("metadata"), dict):
        raise ValueError(f"metadata {_shown(header.get('metadata'))}, expected a dictionary")
    return header


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _array(stream: IO[bytes], name: str, shape: tuple[int, ...], size: int) -> np.ndarray[Any, Any]:
    dtype, found, fortran, before = npy_header(stream)
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise ValueError(f"{name} holds {dtype}, expected float64")
    if found != shape or fortran:
        raise ValueError(f"{name} has shape {found}{' in Fortran order' * fortran}, expected {shape}")
    if before + dtype.itemsize * int(np.prod(shape, dtype=object)) != size:
        raise ValueError(f"damaged: {name} of shape {shape} in {size:,} bytes")
    array = np.empty(shape, dtype)
    read_into(stream, array)
    stream.read(1)
    return array
