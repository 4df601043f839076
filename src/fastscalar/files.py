"""Files: written whole or not at all, by one process at a time, and read at the cost of what they hold.

Contract
1. `replacing` writes beside the final name and moves the whole content there: whatever stops it, even a signal that
   cannot be caught, the file has its old content or the new one.
2. `locked` gives a folder to one process.  The system takes the lock back when the process ends, however it ends.
3. An OSError that leaves here says which file it is about.
4. Nothing is allocated because a file promises it: sizes are compared with what is there first.

This module uses the standard library and NumPy; it knows nothing of the engine.
"""

from __future__ import annotations

import contextlib
import errno
import lzma
import math
import os
import re
import secrets
import socket
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

StrPath = str | os.PathLike[str]

CHUNK = 1 << 20
LOCK = ".lock"  # in the folder, while it is written to


def home() -> Path:
    """The user's folder; that of temporary files for a user who has none, as in a container."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir())


# --- writing ---


@contextmanager
def naming(path: StrPath, temporary: StrPath | None = None) -> Iterator[None]:
    """An OSError from inside is about `path`: that of a full disk names no file, others a `temporary` one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replacing(path: StrPath) -> Iterator[IO[bytes]]:
    """A file for the new content of `path`, which gets its name when the block has ended without an exception.

    A link stays one; a device such as /dev/stdout is written to, not replaced.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.txt")
    >>> with replacing(path) as file:
    ...     _ = file.write(b"whole")
    >>> path.read_bytes(), [other.name for other in path.parent.iterdir()]
    (b'whole', ['a.txt'])
    """
    final = Path(os.path.realpath(path))
    if final.exists() and not final.is_file():
        with naming(path), open(final, "wb") as file:
            yield file
        return
    temporary = final.with_name(f".{final.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with naming(path, temporary):
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())  # the name must not reach the disk before the content
            os.replace(temporary, final)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def remove_halves(folder: Path, *names: str) -> None:
    """Delete what a process that was killed in `replacing` has left of these files; the folder has to be locked."""
    for name in names:
        for half in folder.glob(f".{name}.*.tmp"):
            half.unlink(missing_ok=True)


# --- one process at a time ---


class Busy(Exception):
    """Another process, which is alive, has the folder; the message says which."""


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """The folder is this process's inside.  Raises `Busy`; False where the file system knows no locks."""
    path = folder / LOCK
    with naming(path):
        file, works = _take(path)
    try:
        yield works
    finally:
        # First the name, then the lock: a process that opened it meanwhile sees that it is not the one of that name.
        with contextlib.suppress(OSError):  # on Windows an open file keeps its name
            path.unlink()
        file.close()


def _take(path: Path) -> tuple[IO[bytes], bool]:
    while True:
        file = open(path, "a+b")  # noqa: SIM115 - it stays open as long as the lock is held
        try:
            works = _lock(file)
            if works is None:
                file.seek(0)
                raise Busy(file.read(200).decode("utf-8", "replace").strip() or "another process")
            if _is_at(file, path):
                with contextlib.suppress(OSError):  # a full disk is no reason not to start
                    file.truncate(0)
                    file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                    file.flush()
                return file, works
        except BaseException:
            file.close()
            raise
        file.close()  # its owner removed it between the two calls: take the new one


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(file: IO[bytes]) -> bool | None:
    """True: it is ours; None: another process's; False: there are no locks here."""
    try:
        if sys.platform == "win32":
            file.seek(1 << 30)  # a byte that is never read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return None
    except OSError:
        return False
    return True


# --- zip files ---

_DIRECTORY = 1 << 20  # bytes of a directory of members: some ten thousand of them


@contextmanager
def open_zip(path: StrPath, directory: int = _DIRECTORY) -> Iterator[zipfile.ZipFile]:
    """A zip file whose directory is not read if it is absurdly long, in bytes.

    Raises BadZipFile for whatever is damaged, in the directory or in a member; RuntimeError for passwords and packings
    that zipfile does not know; OSError; and MemoryError where there is no memory for one of its locks, which Python has
    as a RuntimeError."""
    try:
        with naming(path), open(path, "rb") as file, _opened(_Limited(file, directory)) as archive:
            yield archive
    except RuntimeError as error:
        if str(error).endswith(" lock"):
            raise MemoryError(str(error)) from error
        raise


def write_npz(path: StrPath, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    """As np.savez, but all of the file or nothing, and the first error is the one that is seen."""
    with replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        try:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
        except BaseException:
            archive.fp = None  # it does not close: what it says of a half member would hide the error
            raise


def _opened(file: Any) -> zipfile.ZipFile:
    """One whose members are `_Member`s, as an attribute: zipfile.Path makes another class of what it is given."""
    with _damage():
        archive = zipfile.ZipFile(file)

    def open_member(*arguments: Any, **options: Any) -> Any:
        with _damage():
            member: Any = zipfile.ZipFile.open(archive, *arguments, **options)
        member.__class__ = _Member
        return member

    archive.open = open_member  # type: ignore[method-assign]
    return archive


class _Member(zipfile.ZipExtFile):
    """It tells what is damaged as zipfile does; each way of packing has an exception of its own for it."""

    def read(self, n: int | None = -1) -> bytes:
        with _damage():
            return super().read(n)

    def read1(self, n: int | None = -1) -> bytes:
        with _damage():
            return super().read1(n)


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except EOFError as error:
        raise zipfile.BadZipFile("it ends too early") from error
    except (zlib.error, lzma.LZMAError, struct.error, UnicodeError, OverflowError) as error:
        raise zipfile.BadZipFile(brief(error)) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):          # that is the disk: EINVAL is a place before the beginning
            raise
        raise zipfile.BadZipFile(error.strerror or brief(error)) from error


class _Limited:
    """A file whose reader gets at most so many bytes at once: the directory of a zip file is read as a whole."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self.file, self.most = file, most
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close

    def read(self, size: int = -1) -> bytes:
        if size > self.most:
            raise zipfile.BadZipFile("too many members")
        return self.file.read(size if size >= 0 else 1 << 17)  # to the end: a comment has 64 KB at most


def brief(error: object) -> str:
    """What an exception says, in one line that is not too long: zipfile quotes what it has found."""
    said = " ".join(str(error).split())
    return said if len(said) <= 200 else f"{said[:200]}..."


# --- arrays ---

_NPY = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z?][0-9]{0,6})', 'fortran_order': (True|False), "
    rb"'shape': \(([0-9]{1,18}(?:, [0-9]{1,18})*)?,?\), \}[ \n]*"
)


def npy_header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """What an array in NumPy's .npy format is: dtype, shape, whether it is in Fortran's order, bytes of the header.

    Raises ValueError.  Source: the module numpy.lib.format; arrays of plain numbers and texts, as NumPy writes them.
    """
    start = stream.read(10)
    if len(start) < 10 or not start.startswith(b"\x93NUMPY") or start[6] not in (1, 2, 3):
        raise ValueError("expected the header of a .npy array; found something else")
    length: int = struct.unpack("<H", start[8:])[0]
    read = len(start)
    if start[6] > 1:
        length = struct.unpack("<I", start[8:] + stream.read(2).ljust(2, b"\0"))[0]
        read += 2
    match = _NPY.fullmatch(stream.read(length)) if length <= 1 << 14 else None  # NumPy's own have 118 bytes
    if match is None:
        raise ValueError("expected the header of an array of plain numbers; found something else")
    shape = tuple(int(n) for n in match.group(3).split(b",")) if match.group(3) else ()
    try:
        dtype = np.dtype(match.group(1).decode())
    except TypeError:
        raise ValueError(f"expected a type of numbers; found {match.group(1).decode()!r}") from None
    return dtype, shape, match.group(2) == b"True", read + length


def read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kinds: str) -> np.ndarray[Any, Any] | None:
    """The array in a member of an .npz file; None if its numbers are of no such kind.

    Raises BadZipFile, and ValueError for one that is not what its header says.  How large it may be is the caller's to
    look at: `info.file_size`, a claim."""
    with archive.open(info) as stream:
        dtype, shape, fortran, before = npy_header(stream)
        if dtype.hasobject or dtype.kind not in kinds:
            return None
        if not dtype.itemsize or before + math.prod(shape) * dtype.itemsize != info.file_size:
            raise ValueError(f"a damaged array {info.filename}")
        array = np.empty(shape, dtype, order="F" if fortran else "C")
        read_into(stream, array.T if fortran else array)
        stream.read(1)  # only at the end is the checksum compared
        return array


def read_into(stream: IO[bytes], array: np.ndarray[Any, Any]) -> None:
    """Fill the array, which is contiguous.

    Raises
    ------
    EOFError
        The stream ends before.
    """
    if not array.size:
        return
    view = memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
    at = 0
    while at < len(view):
        chunk = stream.read(min(CHUNK, len(view) - at))
        if not chunk:
            raise EOFError(f"expected {len(view):,} bytes; found only {at:,}")
        view[at : at + len(chunk)] = chunk
        at += len(chunk)
