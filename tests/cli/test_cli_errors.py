"""Whatever is wrong on the command line is one line that names it: no traceback, no numbers of the operating system."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fastscalar as fs
import killing
from fastscalar import cli, datasets

LONG = "x" * 300


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data, a net, a file, a link to itself."""
    killing.write_data(tmp_path / "data")
    fs.MLP(784, [4, 10], seed=0).save(tmp_path / "net.npz")
    (tmp_path / "file").write_text("hello\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTSCALAR_MIRRORS", "http://127.0.0.1:9/")
    monkeypatch.setenv("FASTSCALAR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "system"))
    monkeypatch.delenv("FASTSCALAR_DATA", raising=False)
    return tmp_path


TRAIN = "train --data data --hidden 4 --epochs 1"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (f"{TRAIN} --out file", "--out file: expected the name of a folder"),
        (f"{TRAIN} --out file/x", "file/x: not a directory"),
        (f"{TRAIN} --out loop/x", "loop/x: too many levels of symbolic links"),
        (f"{TRAIN} --out {LONG}", "file name too long"),
        (f"{TRAIN} --out /dev/null", "--out /dev/null: expected the name of a folder"),
        (f"{TRAIN} --json empty", "--json empty: expected the name of a file"),
        (f"{TRAIN} --json none/a", "--json none/a: "),
        (f"{TRAIN} --json {LONG}", "file name too long"),
        (f"{TRAIN} --json /dev/full", "/dev/full: no space left on device"),
        ("train --out none --resume", "none: nothing to resume"),
        ("train --out empty --resume", "empty: nothing to resume"),
        ("train --out file --resume", "file: nothing to resume"),
        ("train --data file", "--data file: "),
        ("train --data empty", "expected train-images-idx3-ubyte"),
        ("train --data loop", "--data loop: "),
        (f"train --data {LONG}", "--data "),
        ("train --data mnist", "is not on this machine"),
        (f"{TRAIN} --batch-size {10**30}", "--batch-size: expected at most 2,147,483,647"),
        (f"{TRAIN} --batch-size {'9' * 10_000}", "--batch-size: expected"),
        (f"{TRAIN} --epochs {10**30}", "--epochs: expected at most 2,147,483,647"),
        (f"{TRAIN} --batch-size 8 --threads {10**30}", "--threads: expected at most 2,147,483,647"),
        (f"{TRAIN} --hidden {10**30}", "--hidden: expected at most 2,147,483,647"),
        (f"{TRAIN} --hidden {10**9}", "--hidden: 795,000,000,010 parameters are more than the 2^31 nodes"),
        (f"{TRAIN} --lr 1e400", "--lr: expected a number above 0"),
        ("evaluate none", "none: no such file"),
        ("evaluate empty", "empty/model.npz: no such file"),
        ("evaluate file", "file: not a net written by"),
        ("evaluate loop", "loop: no such file"),
        ("evaluate /dev/null", "/dev/null: expected the file of a net"),
        (f"evaluate {LONG}", "file name too long"),
        ("evaluate net.npz", "does not say what it was trained on"),
        ("evaluate net.npz --data empty", "expected train-images-idx3-ubyte"),
        ("predict net.npz none", "none: no such file"),
        ("predict net.npz empty", "empty: is a directory"),
        ("predict net.npz file", "file: expected a PNG, JPEG, WebP, BMP, GIF, PGM, .npy or IDX file"),
        ("predict net.npz loop", "loop: too many levels of symbolic links"),
        ("predict net.npz net.npz", "net.npz: expected a PNG, JPEG, WebP, BMP, GIF, PGM, .npy or IDX file"),
        ("predict net.npz file/x", "file/x: not a directory"),
        ("data --fetch mnist", "could not be downloaded"),
        ("bench --json empty", "--json empty: expected the name of a file"),
        ("bench --json none/a", "--json none/a: "),
    ],
)
def test_one_line_that_names_it(work: Path, capsys: pytest.CaptureFixture[str], command: str, said: str) -> None:
    before = {str(path) for path in work.rglob("*")}
    try:
        status = cli.main(command.split())
    except SystemExit as end:  # argparse's own
        status = end.code  # type: ignore[assignment]
    err = capsys.readouterr().err
    assert (status, err.count("\n")) == (2, 1), err
    assert said in err
    assert err.startswith("fastscalar")
    assert "Errno" not in err
    assert len(err) < 1500
    left = {str(path) for path in work.rglob("*") if "cache" not in path.parts}
    assert left == before, "nothing is left of it"


def test_a_net_larger_than_the_machine(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sysconf: Callable[[Any], int] = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda name: 1000 if name == "SC_PHYS_PAGES" else sysconf(name))
    assert cli.main([*TRAIN.split(), "--hidden", "10000"]) == 2
    assert "parameters take 1 GB, and this machine has 0 GB" in capsys.readouterr().err


def process(work: Path, *arguments: str, stdout: Any = subprocess.PIPE, **env: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "fastscalar", *arguments]
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=os.environ | env, timeout=300, check=False
    )
    return done.returncode, done.stdout or "", done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize(
    "command", ["info", "--version", "--help", "train --help", "evaluate net.npz --data data", TRAIN]
)
def test_an_output_that_is_full(work: Path, command: str) -> None:
    with open("/dev/full", "w") as full:
        status, _, err = process(work, *command.split(), stdout=full)
    assert (status, err) == (2, "fastscalar: standard output: no space left on device\n")


def test_an_input_that_is_closed(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `fastscalar predict net.npz - <&-` has it."""
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["predict", "net.npz", "-"]) == 2
    assert capsys.readouterr().err == "fastscalar: standard input: it is closed\n"


def test_paths_of_any_characters(work: Path) -> None:
    for encoding in ("ascii", "utf-8"):
        for number, name in enumerate((b"gr\xc3\xbcn", b"a\xff", "网".encode())):
            out = os.fsdecode(name) + str(number) + encoding
            status, said, err = process(work, *TRAIN.split(), "--out", out, PYTHONIOENCODING=encoding)
            assert (status, err) == (0, "")
            assert "saved in " in said
            assert Path(out, "model.npz").exists()


# --- streams that are not there -------------------------------------------------------------------

COMMANDS = [
    f"{TRAIN} --out run",
    "train --epochs x",
    "evaluate none",
    "predict net.npz none image.pgm",
    "predict net.npz --json - none",
    "data --fetch mnist",
    "completion bash",
    "play none --no-browser",
    "train --help",
    "",
    "nonsense",
]


@pytest.fixture
def shown(work: Path) -> Path:
    (work / "image.pgm").write_bytes(b"P5 28 28 255\n" + datasets.synthetic_digits(1, 1)[0][0].tobytes())
    return work


def shell(work: Path, command: str, streams: str) -> tuple[int, str, str, dict[str, bytes]]:
    """In a copy of the folder: the exit status, what came out at both ends, and the files that are there then."""
    place = work / "copy"
    shutil.copytree(work, place, symlinks=True)
    ends = work / "ends"
    ends.mkdir()
    with open(ends / "out", "wb") as out, open(ends / "err", "wb") as err:
        line = f'exec "$0" -m fastscalar {command} {streams}'
        status = subprocess.run(
            ["sh", "-c", line, sys.executable], cwd=place, stdout=out, stderr=err, stdin=subprocess.DEVNULL,
            env=os.environ | {"FASTSCALAR_PICTURES": "0"}, timeout=300, check=False,
        ).returncode  # fmt: skip
    files = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    said = [re.sub(r" *[0-9.,]+", "0", (ends / end).read_text()) for end in ("out", "err")]  # seconds, processes
    shutil.rmtree(place)
    shutil.rmtree(ends)
    return status, *said, files


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell's redirections")
@pytest.mark.parametrize("command", COMMANDS)
def test_streams_that_are_closed_or_full(shown: Path, command: str) -> None:
    """What is meant for one stream does not stand on another, or in a file that has got its number."""
    status, out, err, files = shell(shown, command, "")
    assert "Traceback" not in err
    for streams in ("2>&-", "2>/dev/full"):
        assert shell(shown, command, streams)[:3] == (status, out, ""), streams
    for streams in (">&-", "<&- >&- 2>&-"):
        found, again, complaint, left = shell(shown, command, streams)
        assert (found, again) == (2, ""), streams
        assert complaint.count("\n") == ("2>" not in streams), streams
        assert left.keys() == files.keys() - {name for name in files if name.startswith("run/")}, streams
