"""Files in a zip, called by paths that go through it: `mnist.zip/train-images.idx3-ubyte`.

Names count, not folders inside the zip.  A member is unpacked at the cost of what it holds: its claim is bounded
before anything is read, and the checksum of the zip is compared.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from fastscalar.files import brief, open_zip

ROOM, RATIO = 1 << 26, 100  # what a member may unpack to: bytes, or multiples of its size (MNIST: 5)
_CHUNK = 1 << 20
DIRECTORY = 1 << 26  # bytes that name pictures, a hundred for each
_ERRORS = (zipfile.BadZipFile, RuntimeError)  # the second for a password


def find_member(archive: Path, names: Sequence[str]) -> Path | None:
    """The path of the member with the first of these names that is there; None also for what is no zip file."""
    try:
        with open_zip(archive) as file:
            members = {PurePosixPath(name).name: name for name in file.namelist() if not name.endswith("/")}
    except (OSError, *_ERRORS):
        return None
    return next((archive / members[name] for name in names if name in members), None)


def members_of(archive: Path) -> list[str]:
    """The names in a zip file; none of what is no zip file."""
    try:
        with open_zip(archive, DIRECTORY) as file:
            return [name for name in file.namelist() if not name.endswith("/")]
    except (OSError, *_ERRORS):
        return []


def is_zip(path: Path) -> bool:
    """Whether it is one, with a directory that can be read."""
    try:
        with open_zip(path):
            return True
    except (OSError, *_ERRORS):
        return False


PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")


def pictures_in(archive: Path) -> bool:
    """Whether a zip has pictures in folders."""
    return any(name.lower().endswith(PICTURES) and "/" in name for name in members_of(archive))


@contextmanager
def whole_zip(archive: Path) -> Iterator[zipfile.Path]:
    """The inside of a zip as a folder; what is damaged in it is a ValueError that names the file."""
    try:
        with open_zip(archive, DIRECTORY) as file:
            file.filename = str(archive)                     # what its members are called
            yield zipfile.Path(file)
    except _ERRORS as error:
        raise ValueError(f"{archive}: expected a whole zip file; found a damaged one ({brief(error)})") from error


def content_of(member: zipfile.Path) -> bytes:
    """All of a member of a `whole_zip`; ValueError for one that claims to be no picture's size."""
    about = member.root.getinfo(member.at)
    limit = max(ROOM, RATIO * about.compress_size)
    if about.file_size > limit:
        raise ValueError(f"{member}: expected at most {limit:,} bytes; found a claim of {about.file_size:,}")
    return member.read_bytes()


def open_member(path: Path) -> IO[bytes] | None:
    """The content of a member as a temporary file; None if `path` does not go through a file.

    Raises ValueError for a damaged zip and for a claim that no data set makes; the message names the path.
    """
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    if archive is None:
        return None
    damaged = f"{path}: expected a whole zip file; found a damaged one"
    out = cast(IO[bytes], tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    try:
        with open_zip(archive) as file:
            about = file.getinfo(path.relative_to(archive).as_posix())
            limit = max(ROOM, RATIO * min(about.compress_size, archive.stat().st_size))
            if about.file_size > limit:
                raise ValueError(f"{path}: expected at most {limit:,} bytes; found a claim of {about.file_size:,}")
            with file.open(about) as member:
                while chunk := member.read(_CHUNK):
                    out.write(chunk)
    except KeyError:
        out.close()
        raise FileNotFoundError(f"{path}: {archive.name} has no such file") from None
    except _ERRORS as error:
        out.close()
        raise ValueError(f"{damaged} ({brief(error)})") from error
    except BaseException:
        out.close()
        raise
    out.seek(0)
    return out
