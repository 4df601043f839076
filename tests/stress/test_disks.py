"""Disks that are full, folders that may not be written to, files that change while they are read.

FASTSCALAR_DISKS=1: the disk is full at every byte, not at 30 of them; files change 20,000 times, not 200.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.datasets.archive import whole_zip
from fastscalar.datasets.tables import read_npz

resource = pytest.importorskip("resource", reason="no limits on this system")
ALL = os.environ.get("FASTSCALAR_DISKS", "0") not in ("", "0")
X = np.linspace(-1.0, 1.0, 24).reshape(6, 4)
IMAGES = (np.arange(3 * 6 * 6) % 251).astype(np.uint8).reshape(3, 6, 6)


def program() -> fs.Program:
    made = fs.compile(lambda x: (x[0] * x[1]).tanh() + x[2])
    made.map(X)
    return made


NET = fs.MLP(4, [3, 2], seed=0)
WRITERS: dict[str, Callable[[Path], Any]] = {
    "net.npz": NET.save,
    "program.npz": lambda path: program().save(path),
    "program.c": lambda path: program().export_c(path, name="f"),
    "images.idx": lambda path: fs.datasets.save_idx(path, IMAGES),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_at_any_byte(name: str, tmp_path: Path) -> None:
    """The old content or the new one, an OSError that names the file, and nothing else in the folder."""
    path = tmp_path / name
    WRITERS[name](path)
    size, old = path.stat().st_size, b"as it was"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in range(size + 2) if ALL else sorted({*range(0, size, max(1, size // 28)), size - 1, size, size + 1}):
        path.write_bytes(old)
        failed = None
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            WRITERS[name](path)
        except OSError as error:
            failed = error
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [one.name for one in tmp_path.iterdir()] == [name]
        assert (failed is None) == (path.read_bytes() != old)
        assert (failed is None) == (room >= size), room
        if failed is not None:
            assert str(path) in str(failed)


READ_ONLY = """
import os, sys
import numpy as np
import fastscalar as fs
from fastscalar.datasets.archive import whole_zip
from fastscalar.datasets.tables import read_npz
folder, kind = sys.argv[1:]
net = fs.MLP(4, [3, 2], seed=0)
net.save(os.path.join(folder, "warm.npz"))
os.remove(os.path.join(folder, "warm.npz"))
os.chmod(folder, 0o555)
if os.geteuid() == 0:
    os.seteuid(65534)                    # root may write anywhere
try:
    if kind == "net":
        net.save(os.path.join(folder, "net.npz"))
    else:
        fs.datasets.save_idx(os.path.join(folder, "net.npz"), np.zeros((1, 2, 2), np.uint8))
except PermissionError as error:
    assert os.path.join(folder, "net.npz") in str(error), error
    print("refused")
"""


@pytest.mark.parametrize("kind", ["net", "images"])
def test_a_folder_that_may_not_be_written_to(kind: str, tmp_path: Path) -> None:
    for above in (tmp_path, *tmp_path.parents):  # another user has to get there
        if above.stat().st_uid == os.geteuid() and Path(tempfile.gettempdir()) in above.parents:
            above.chmod(above.stat().st_mode | 0o011)
    folder = tmp_path / "folder"
    folder.mkdir()
    command = [sys.executable, "-c", READ_ONLY, str(folder), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
    folder.chmod(0o755)
    assert list(folder.iterdir()) == []


READERS: dict[str, Callable[[Path], Any]] = {
    "net.npz": fs.load,
    "program.npz": lambda path: fs.load_program(path).map(X),
    "images.idx": fs.datasets.load_idx,
}


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_changes_while_it_is_read(name: str, tmp_path: Path) -> None:
    """A value, or ValueError or OSError; never another exception, a crash, or a wait without end."""
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    over = threading.Event()
    draw = random.Random(0)

    def change() -> None:
        while not over.is_set():
            cut = draw.randrange(len(whole) + 1)
            with open(path, "r+b") as file:
                file.truncate(cut)
                file.seek(draw.randrange(len(whole)))
                file.write(draw.randbytes(draw.choice((1, 8, 100))))
                file.seek(0)
                file.write(whole)
                file.truncate(len(whole))

    changer = threading.Thread(target=change)
    changer.start()
    try:
        for _ in range(20_000 if ALL else 200):
            try:
                READERS[name](path)
            except (ValueError, OSError):
                continue
    finally:
        over.set()
        changer.join(60)
    path.write_bytes(whole)
    READERS[name](path)


NO_MEMORY: dict[str, Callable[[Path], Any]] = {
    "net.npz": fs.load,
    "program.npz": fs.load_program,
    "arrays.npz": read_npz,
    "pictures.zip": lambda path: contextlib.ExitStack().enter_context(whole_zip(path)),
}


def test_memory_that_is_refused_is_a_memory_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """zipfile ends with a ValueError of its own where a member cannot be opened, Python's locks with a RuntimeError."""

    def refuse(error: Exception) -> Callable[..., Any]:
        def refused(*_: Any, **__: Any) -> Any:
            raise error

        return refused

    with monkeypatch.context() as patch:
        patch.setattr(zipfile, "_ZipWriteFile", refuse(MemoryError("no room for a member")))
        for name in ("net.npz", "program.npz"):
            with pytest.raises(MemoryError, match="a member"):
                WRITERS[name](tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    for name, read in NO_MEMORY.items():
        (tmp_path / name).write_bytes(b"")
        with monkeypatch.context() as patch:
            patch.setattr(zipfile, "ZipFile", refuse(RuntimeError("can't allocate lock")))
            with pytest.raises(MemoryError, match="lock"):
                read(tmp_path / name)
