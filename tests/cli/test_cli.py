"""The command line, as users meet it: in processes of its own, in a pipe and in a terminal."""

from __future__ import annotations

import contextlib
import gzip
import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import cli, datasets
from fastscalar.cli import commands
from fastscalar.cli.console import Stop
from fastscalar.cli.images import read_images
from fastscalar.cli.runs import check_targets
from fastscalar.datasets import save_idx
from fastscalar.datasets.catalog import FILES

NOWHERE = "http://127.0.0.1:9/"  # the discard port: nobody listens, and nobody is waited for
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
KEPT = {"model.npz", "training.json", "config.toml"}
COMMANDS = ["show", "completion", "train", "evaluate", "predict", "data", "bench", "info"]


def write_digits(folder: Path, n: int = 1500, n_test: int = 150, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (X, y), (X_test, y_test) = datasets.synthetic_digits(n, n_test, seed)
    for file, array in zip(FILES, (X, y, X_test, y_test), strict=True):
        save_idx(folder / file, array)
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the four IDX files, small enough for an epoch to take no time."""
    return write_digits(tmp_path_factory.mktemp("data") / "digits")


class Shell:
    """An empty machine: no data, no cache, no settings, no way out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work = folder / "work"
        self.work.mkdir()
        (folder / "home").mkdir()
        ours = ("FASTSCALAR_", "XDG_", "NO_COLOR")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        self.env = kept | {
            "HOME": str(folder / "home"),
            "FASTSCALAR_MIRRORS": NOWHERE,
            "XDG_DATA_DIRS": str(folder / "system"),
            "FASTSCALAR_PICTURES": "0",  # a second for each run; some tests want them
            "TERM": "xterm",
            "OMP_NUM_THREADS": "1",
        }

    def command(self, *args: Any) -> list[str]:
        return [sys.executable, "-m", "fastscalar", *map(str, args)]

    def __call__(
        self, *args: Any, prefix: tuple[str, ...] = (), **env: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*prefix, *self.command(*args)],
            cwd=self.work,
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "Traceback" not in done.stderr or "FASTSCALAR_DEBUG" in env, done.stderr
        return done

    def right(self, *args: Any, **env: str) -> str:
        """What a command that succeeds prints; in a pipe there is nothing but plain lines."""
        done = self(*args, **env)
        assert (done.returncode, done.stderr) == (0, "")
        assert_plain(done.stdout)
        return done.stdout

    def wrong(self, *args: Any, status: int = 2, **env: str) -> str:
        """The one line that a command that fails says."""
        done = self(*args, **env)
        assert done.returncode == status, done
        assert done.stderr.endswith("\n")
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("fastscalar"), done.stderr
        return done.stderr

    def start(self, *args: Any) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = self.command(*args)
        return subprocess.Popen(command, cwd=self.work, env=self.env, stdout=pipe, stderr=pipe, text=True)

    def terminal(self, *args: Any, **env: str) -> tuple[int, str]:
        """Exit status and everything that appears in a terminal of 80 x 24."""
        import fcntl
        import pty
        import termios

        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        process = subprocess.Popen(
            self.command(*args), cwd=self.work, env=self.env | env, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while chunk := os.read(ours, 65536):
                seen += chunk
        os.close(ours)
        return process.wait(300), seen.decode().replace("\r\n", "\n")

    def files(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file()}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def assert_plain(text: str) -> None:
    assert not set(re.findall(r"[^ -~]", text)) - {"\n"}, repr(text)
    too_long = [line for line in text.splitlines() if len(line) >= 80 and "/" not in line]
    assert not too_long


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


# --- train: what is printed and written ---


def test_train_in_a_pipe(shell: Shell, digits: Path) -> None:
    seen = lines(shell.right("train", "--data", digits, "--epochs", 3))
    assert seen[0].startswith(f"data: the data in {digits}, 1,500 training and 150 test images")
    assert "MLP(784, [256, 10]), 203,530 parameters" in seen[1]
    rows = [line.split() for line in seen if re.match(r" +\d+ ", line)]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    losses = [float(row[1]) for row in rows]
    assert losses[2] < losses[0]
    accuracy = rows[-1][2]
    assert float(accuracy) > 80
    assert seen[-1].startswith(f"the data in {digits}: {accuracy} % test accuracy after 3 epochs, ")


def test_train_writes_nothing_unasked(shell: Shell, digits: Path) -> None:
    shell.right("train", "--data", digits, "--epochs", 1)
    assert shell.files() == set()


def test_train_in_a_terminal(shell: Shell) -> None:
    always = {"TQDM_MININTERVAL": "0"}  # an epoch of 0.1 s may be over before the bar is drawn a second time
    status, seen = shell.terminal("train", "--data", "synthetic", "--limit", 15000, "--epochs", 1, **always)
    assert status == 0
    assert re.search(r"\repoch 1/1: .*samples/s.*loss \d\.\d{4}", seen)
    assert "\x1b[1mdata: " in seen
    wiped = [line.rpartition("\r")[2] for line in ESCAPES.sub("", seen).split("\n")]
    assert not any("samples/s," in line for line in wiped), "the bar must be gone when its epoch is over"
    assert all(len(line) < 80 for line in wiped)
    assert all(len(part) < 80 for part in re.split("[\r\n]", ESCAPES.sub("", seen)))
    assert wiped[0] == "data: synthetic digits, 15,000 training and 10,000 test images"
    assert [line for line in wiped if line][-1].startswith("synthetic digits: 9")


def test_no_color(shell: Shell, digits: Path) -> None:
    status, seen = shell.terminal("train", "--data", digits, "--epochs", 1, NO_COLOR="1")
    assert status == 0
    assert not ESCAPES.search(seen)
    assert "samples/s," in seen, "the bar is not a colour"


def test_no_color_empty_means_colour(shell: Shell, digits: Path) -> None:
    assert ESCAPES.search(shell.terminal("info", NO_COLOR="")[1] + shell.terminal("data", NO_COLOR="")[1])


def test_quiet(shell: Shell, digits: Path) -> None:
    (line,) = shell.right("train", "--data", digits, "--epochs", 1, "--quiet").splitlines()
    assert re.fullmatch(rf"the data in {digits}: \d+\.\d\d % test accuracy after 1 epoch, \d+\.\d s", line)
    status, seen = shell.terminal("train", "--data", digits, "--epochs", 1, "--quiet")
    assert status == 0
    assert len(lines(seen)) == 1
    assert "samples/s" not in seen


def test_data_in_a_zip_file_with_names_that_have_a_dot(shell: Shell, digits: Path) -> None:
    """As it lies in the folder, so in a zip file: the same training, resumed from another place, and evaluated."""
    with zipfile.ZipFile(shell.work / "digits.zip", "w", zipfile.ZIP_DEFLATED) as out:
        for file in FILES:
            out.write(digits / file, file.replace("-idx", ".idx"))
    shell.right("train", "--data", digits, "--epochs", 1, "--out", "a")
    shell.right("train", "--data", "digits.zip", "--epochs", 1, "--out", "b")
    one, other = (fs.load(shell.work / out / "model.npz") for out in ("a", "b"))
    assert (one.linears[0].w.numpy() == other.linears[0].w.numpy()).all()
    assert str(shell.work / "digits.zip") in (shell.work / "b" / "training.json").read_text()
    shell.right("evaluate", "b")


def test_json(shell: Shell, digits: Path) -> None:
    options = ["--data", digits, "--epochs", 2, "--hidden", "20,12", "--limit", 700, "--lr", 0.05]
    seen = shell.right("train", *options, "--batch-size", 4, "--seed", 3, "--json", "a.json")
    report = json.loads((shell.work / "a.json").read_text())
    assert shell.files() == {"work/a.json"}
    assert report["dataset"] == "folder"
    assert report["folder"] == str(digits)
    assert report["fallback"] is False
    assert [report[key] for key in ("model", "hidden", "limit", "lr", "batch_size", "seed")] == [
        "mlp", [20, 12], 700, 0.05, 4, 3,
    ]  # fmt: skip
    assert (report["training_images"], report["test_images"]) == (700, 150)
    assert report["parameters"] == 785 * 20 + 21 * 12 + 13 * 10
    assert report["version"] == fs.__version__
    assert report["kernels"] in fs._core.kernel_sets()
    assert [set(row) for row in report["epochs"]] == 2 * [
        {"epoch", "loss", "test_accuracy", "seconds", "samples_per_s"}
    ]
    assert [row["epoch"] for row in report["epochs"]] == [1, 2]
    for row in report["epochs"]:
        assert row["samples_per_s"] == pytest.approx(700 / row["seconds"])
        assert f"{row['loss']:.4f}" in seen
    assert report["seconds"] == pytest.approx(sum(row["seconds"] for row in report["epochs"]))
    assert report["test_accuracy"] == report["epochs"][-1]["test_accuracy"]
    assert f"{100 * report['test_accuracy']:.2f} %" in lines(seen)[-1]
    assert "700 of 1,500 training" in lines(seen)[0]


def test_train_is_fit(shell: Shell, digits: Path) -> None:
    """The numbers are those that the library gives for the same net, data and seed."""
    shell.right("train", "--data", digits, "--epochs", 2, "--hidden", "16", "--seed", 7, "--out", "out")
    (X, y), (X_test, y_test) = datasets.load_folder(digits)
    net = fs.MLP(784, [16, 10], seed=7)
    test = (X_test.reshape(-1, 784) / 255, y_test)
    X = X.reshape(-1, 784) / 255
    history = fs.fit(net, X, y, epochs=2, seed=7, validation_data=test, progress=False)
    text = (shell.work / "out" / "training.json").read_text()
    rows = json.loads(text)["epochs"]
    assert [json.loads(line.strip(" ,")) for line in text.splitlines() if line.startswith('    {"epoch"')] == rows
    assert [row["loss"] for row in rows] == history.loss
    saved = fs.load(shell.work / "out" / "model.npz")
    for mine, theirs in zip(net.linears, saved.linears, strict=True):
        assert np.array_equal(mine.w.numpy(), theirs.w.numpy())


def test_linear_and_batches(shell: Shell, digits: Path) -> None:
    options = ["--model", "linear", "--batch-size", 16, "--epochs", 2]
    seen = shell.right("train", "--data", digits, *options, "--out", "o")
    assert "Linear(784, 10), 7,850 parameters" in seen
    assert "learning rate 0.08 falling to 0, batch size 16" in seen
    assert isinstance(fs.load(shell.work / "o" / "model.npz"), fs.Linear)


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ("--eager", {"compile": False}),
        ("--dtype float32", {"dtype": "float32"}),
        ("--batch-size 16 --threads 2 --dtype float32", {"batch_size": 16, "threads": 1, "dtype": "float32"}),
    ],
)
def test_how_it_is_computed(shell: Shell, digits: Path, options: str, how: dict[str, Any]) -> None:
    """The options are those of fit; the number of threads does not change what comes out."""
    base = ["train", "--data", digits, "--hidden", 8, "--epochs", 2]
    seen = shell.right(*base, *options.split(), "--json", "a.json")
    (X, y), _ = datasets.load_folder(digits)
    net = fs.MLP(784, [8, 10], seed=0)
    lr = 0.02 * how.get("batch_size", 1) ** 0.5
    history = fs.fit(net, X.reshape(-1, 784) / 255, y, epochs=2, optimizer=fs.SGD(lr=lr), progress=False, **how)
    report = json.loads((shell.work / "a.json").read_text())
    assert [row["loss"] for row in report["epochs"]] == history.loss
    assert report["eager"] == ("--eager" in options)
    assert report["dtype"] == how.get("dtype", "float64")
    assert report["threads"] == (2 if "--threads" in options else 1)
    assert ("eager, float64, 1 thread" if report["eager"] else f"compiled, {report['dtype']}") in seen


def test_more_threads_than_cores(shell: Shell, digits: Path) -> None:
    """A line of the head says it; no warning of Python's."""
    seen = shell.right(
        "train", "--data", digits, "--hidden", 4, "--epochs", 1, "--limit", 50, "--batch-size", 16, "--threads", 5000
    )
    assert re.search("--threads 5000: this process may use [0-9]+ core", seen)


def test_a_run_of_a_version_with_fewer_options_goes_on(shell: Shell, digits: Path) -> None:
    shell.right("train", "--data", digits, "--hidden", 8, "--epochs", 1, "--limit", 50, "--out", "o")
    net = fs.load(shell.work / "o" / "model.npz")
    about = dict(net.metadata)
    about["run"] = {key: value for key, value in about["run"].items() if key not in ("dtype", "eager")} | {"epochs": 2}
    (shell.work / "o" / ".model.npz.1.tmp").write_bytes(b"half")  # of a run that was killed
    net.save(shell.work / "o" / "checkpoint.npz", **about)
    shell.right("train", "--out", "o", "--resume")
    assert [row["epoch"] for row in fs.load(shell.work / "o" / "model.npz").metadata["epochs"]] == [1, 2]
    assert shell.files() == {"work/o/model.npz", "work/o/training.json", "work/o/config.toml"}


def test_out(shell: Shell, digits: Path) -> None:
    seen = shell.right("train", "--data", digits, "--epochs", 1, "--out", "runs/a", "--json", "a.json")
    assert shell.files() == {f"work/runs/a/{name}" for name in KEPT} | {"work/a.json"}
    assert "saved in runs/a: model.npz, training.json" in seen
    assert (shell.work / "a.json").read_text() == (shell.work / "runs/a/training.json").read_text()
    net = fs.load(shell.work / "runs/a/model.npz")
    assert net.metadata["dataset"] == "folder"
    assert net.metadata["folder"] == str(digits)
    X_test, y_test = datasets.load_folder(digits)[1]
    assert fs.evaluate(net, X_test.reshape(-1, 784) / 255, y_test) == net.metadata["test_accuracy"]


def test_a_known_data_set_is_called_by_its_name(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses
    import hashlib

    from fastscalar.cli import sources
    from fastscalar.datasets.catalog import DATASETS

    sha256 = tuple(hashlib.sha256((digits / file).read_bytes()).hexdigest() for file in FILES)
    changed = dataclasses.replace(DATASETS["fashion"], sha256=sha256)
    monkeypatch.setitem(sources.DATASETS, "fashion", changed)
    data = sources.load_data(str(digits))
    assert (data.name, data.title, data.folder) == ("fashion", "Fashion-MNIST", str(digits))


# --- offline ---


@pytest.fixture(scope="session")
def cut() -> tuple[str, ...]:
    """Puts a command where there is no network, if this machine lets us; mirrors are out of reach anyway."""
    unshare = ("unshare", "-n")
    command = [*unshare, "true"]
    works = shutil.which("unshare") and subprocess.run(command, capture_output=True, timeout=300, check=False)
    return unshare if works and works.returncode == 0 else ()


def test_auto_offline(shell: Shell, cut: tuple[str, ...]) -> None:
    start = time.monotonic()
    out = ("--out", "out", "--json", "a.json")
    done = shell("train", "--limit", 300, "--epochs", 1, *out, prefix=cut)
    assert time.monotonic() - start < 100
    assert (done.returncode, done.stderr) == (0, "")
    assert_plain(done.stdout)
    seen = lines(done.stdout)
    for line in (seen[0], seen[-1]):
        assert "synthetic digits" in line
        assert "NOT MNIST" in line
    assert "127.0.0.1" in done.stdout, "the reasons are given"
    assert "~/.cache/fastscalar/mnist" in done.stdout, "and where to put the files"
    report = json.loads((shell.work / "a.json").read_text())
    assert (report["dataset"], report["fallback"], report["requested_data"]) == ("synthetic", True, "auto")
    metadata = fs.load(shell.work / "out/model.npz").metadata
    assert (metadata["dataset"], metadata["fallback"]) == ("synthetic", True)
    assert not [file for file in shell.files() if "home" in file], "nothing is left of the attempt"


def test_auto_says_so_even_when_quiet(shell: Shell) -> None:
    assert "synthetic digits, NOT MNIST" in shell.right("train", "--limit", 100, "--epochs", 1, "--quiet")


def test_auto_with_the_defaults_library_mirrors(shell: Shell, cut: tuple[str, ...]) -> None:
    """Without our setting of the mirrors.  With a network it would download, so only where that is cut."""
    del shell.env["FASTSCALAR_MIRRORS"]
    if not cut:
        shell.env["FASTSCALAR_MIRRORS"] = NOWHERE
    done = shell("train", "--limit", 100, "--epochs", 1, prefix=cut)
    assert done.returncode == 0
    assert "NOT MNIST" in lines(done.stdout)[0]


def test_auto_behind_a_silent_network(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts connections and never says anything
        mirror = f"http://127.0.0.1:{server.getsockname()[1]}/"
        start = time.monotonic()
        seen = shell.right("train", "--limit", 100, "--epochs", 1, FASTSCALAR_MIRRORS=mirror)
    assert 4 < time.monotonic() - start < 100
    assert "no answer within 5 s" in seen


@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_named_data_never_fall_back(shell: Shell, cut: tuple[str, ...], name: str) -> None:
    done = shell("train", "--data", name, prefix=cut)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "is not on this machine" in done.stderr


def test_auto_never_takes_fashion(shell: Shell, digits: Path) -> None:
    root = shell.folder / "data"
    shutil.copytree(digits, root / "fashion-mnist")
    seen = shell.right("train", "--limit", 100, "--epochs", 1, FASTSCALAR_DATA=str(root))
    assert lines(seen)[0].startswith("data: synthetic digits drawn by fastscalar, NOT MNIST")


@pytest.mark.parametrize("name", ["auto", "mnist"])
def test_damaged_files_are_an_error(shell: Shell, digits: Path, name: str) -> None:
    """Digits under MNIST's name are not MNIST, and nothing else is taken behind the user's back."""
    root = shell.folder / "data"
    shutil.copytree(digits, root / "mnist")
    assert "expected MNIST" in shell.wrong("train", "--data", name, FASTSCALAR_DATA=str(root))


# --- interrupted and resumed ---

LONG = ["--epochs", 14, "--hidden", 32, "--seed", 5]


def stable(folder: Path) -> tuple[list[tuple[float, float]], dict[str, np.ndarray]]:
    """What must not depend on whether a run was interrupted."""
    report = json.loads((folder / "training.json").read_text())
    with np.load(folder / "model.npz") as archive:
        weights = {name: archive[name] for name in archive.files if name != "header"}
    return [(row["loss"], row["test_accuracy"]) for row in report["epochs"]], weights


@pytest.fixture(scope="session")
def uninterrupted(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    shell = Shell(tmp_path_factory.mktemp("uninterrupted"))
    shell.right("train", "--data", digits, *LONG, "--out", "out")
    return shell.work / "out"


def stopped(shell: Shell, how: signal.Signals, epoch: int, *args: Any) -> tuple[int, str]:
    """Exit status and errors of a training run that gets a signal after this epoch, and has more to come.

    A run that is over before the signal comes, because this process had to wait for the processor, is done again."""
    for _ in range(20):
        process = shell.start("train", *args)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"    {epoch} "):
                break
        process.send_signal(how)
        printed, errors = process.communicate(timeout=300)
        if f"\n   {LONG[1]} " not in printed and process.returncode:
            return process.returncode, errors
        shutil.rmtree(shell.work / "out", ignore_errors=True)
    raise AssertionError("no signal came in time")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_resume_gives_the_same_numbers(
    shell: Shell, digits: Path, uninterrupted: Path, how: signal.Signals
) -> None:
    status, errors = stopped(shell, how, 2, "--data", digits, *LONG, "--out", "out")
    out = shell.work / "out"
    if how == signal.SIGINT:
        assert status == 130
        model, checkpoint = fs.load(out / "model.npz"), fs.load(out / "checkpoint.npz")
        epochs = len(model.metadata["epochs"])
        assert errors == (
            f"fastscalar: interrupted; the net after {epochs} whole epoch{'s' * (epochs != 1)} is in out\n"
            "to go on: fastscalar train --out out --resume\n"
        )
        assert model.metadata["epochs"] == checkpoint.metadata["epochs"]
        for one, other in zip(model.linears, checkpoint.linears, strict=True):
            assert one.w.tolist() == other.w.tolist()
            assert one.b.tolist() == other.b.tolist()
        said = " ".join(shell.right("evaluate", "out").split())     # lines break where the folder's name has them break
        assert f"for {epochs} epoch{'s' * (epochs != 1)} (interrupted)" in said
        assert model.metadata["interrupted"] is True
        assert json.loads((out / "training.json").read_text())["interrupted"] is True
    assert (out / "checkpoint.npz").exists()
    done = len(fs.load(out / "checkpoint.npz").metadata["epochs"])
    assert 1 <= done < 14
    seen = shell.right("train", "--out", "out", "--resume", "--json", "a.json")
    numbers = [int(row.split()[0]) for row in seen.splitlines() if re.match(r" +\d+ ", row)]
    assert numbers == list(range(1, 15))
    rows, weights = stable(out)
    expected_rows, expected_weights = stable(uninterrupted)
    assert rows == expected_rows
    assert weights.keys() == expected_weights.keys()
    for name, array in weights.items():
        assert array.tobytes() == expected_weights[name].tobytes()
    assert {p.name for p in out.iterdir()} == KEPT
    assert "interrupted" not in json.loads((shell.work / "a.json").read_text())


def test_interrupted_in_an_epochs_validation(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The net is ahead of the list of epochs then; what is kept is the epoch that was reported."""
    from fastscalar.nn.evaluation import Evaluation, Measure

    calls, evaluate = [], Measure.__call__

    def stopped(self: Measure) -> Evaluation:
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(self)

    monkeypatch.setattr(Measure, "__call__", stopped)
    out = tmp_path / "out"
    assert cli.main(["train", "--data", str(digits), "--hidden", "4", "--epochs", "3", "--out", str(out)]) == 130
    assert "the net after 1 whole epoch is in" in capsys.readouterr().err
    model, checkpoint = fs.load(out / "model.npz"), fs.load(out / "checkpoint.npz")
    assert len(model.metadata["epochs"]) == len(checkpoint.metadata["epochs"]) == 1
    assert model.linears[0].w.tolist() == checkpoint.linears[0].w.tolist()


def test_interrupted_without_out(shell: Shell, digits: Path) -> None:
    assert stopped(shell, signal.SIGINT, 1, "--data", digits, *LONG) == (130, "fastscalar: interrupted\n")
    assert shell.files() == set()


def test_resume_a_complete_run(shell: Shell, digits: Path) -> None:
    shell.right("train", "--data", digits, "--epochs", 2, "--hidden", 8, "--out", "out")
    before = stable(shell.work / "out")
    seen = shell.right("train", "--out", "out", "--resume")
    assert "after 2 epochs" in lines(seen)[-1]
    assert stable(shell.work / "out")[0] == before[0]


def test_resume_remembers_that_it_is_not_mnist(shell: Shell) -> None:
    shell.right("train", "--limit", 100, "--epochs", 1, "--out", "out")
    seen = lines(shell.right("train", "--out", "out", "--resume"))
    assert "NOT MNIST" in seen[0]
    assert "NOT MNIST" in seen[-1]


def test_what_cannot_be_resumed(shell: Shell, digits: Path) -> None:
    assert "--out" in shell.wrong("train", "--resume")
    assert "nothing to resume" in shell.wrong("train", "--out", "nowhere", "--resume")
    shell.right("train", "--data", digits, "--epochs", 1, "--hidden", 8, "--out", "out")
    assert "had 1" in shell.wrong("train", "--out", "out", "--resume", "--epochs", 3)
    assert "had [8]" in shell.wrong("train", "--out", "out", "--resume", "--hidden", "9")
    shell.right("train", "--out", "out", "--resume", "--epochs", 1, "--hidden", 8, "--data", digits)
    other = write_digits(shell.folder / "other", seed=1)
    shell.right("train", "--data", other, "--epochs", 1, "--hidden", 8, "--out", "out2")
    write_digits(other, seed=2)
    assert "not those that the run in out2 began with" in shell.wrong("train", "--out", "out2", "--resume")
    fs.Linear(784, 10, seed=0).save(shell.work / "out" / "model.npz")
    assert "nothing to resume" in shell.wrong("train", "--out", "out", "--resume")


def test_fit_in_two_parts_is_fit() -> None:
    X = np.random.default_rng(0).normal(size=(300, 5))
    y = (X.sum(axis=1) > 0).astype(int)
    whole, parts = fs.MLP(5, [7, 2], seed=1), fs.MLP(5, [7, 2], seed=1)
    expected = fs.fit(whole, X, y, epochs=5, batch_size=4, progress=False)

    class Enough(Exception):
        pass

    def stop(epoch: Any) -> None:
        if epoch.epoch == 2:
            raise Enough

    with pytest.raises(Enough):
        fs.fit(parts, X, y, epochs=5, batch_size=4, progress=False, on_epoch=stop)
    rest = fs.fit(parts, X, y, epochs=5, first_epoch=3, batch_size=4, progress=False)
    assert [e.epoch for e in rest.epochs] == [3, 4, 5]
    assert rest.loss == expected.loss[2:]
    for a, b in zip(whole.linears, parts.linears, strict=True):
        assert np.array_equal(a.w.numpy(), b.w.numpy())
    for first in (0, 6, -1):
        with pytest.raises(ValueError, match="first_epoch"):
            fs.fit(parts, X, y, epochs=5, first_epoch=first, progress=False)


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("train --data nonsense", "expected auto, mnist, fashion, synthetic, or a folder"),
        ("train --data nonsense.csv", "a .csv or .npz; there is no such file"),
        ("train --data .", "expected train-images-idx3-ubyte"),
        ("train --epochs 0", "--epochs: expected a whole number of at least 1, got '0'"),
        ("train --epochs 1.5", "--epochs: expected a whole number"),
        ("train --limit -3", "--limit: expected a whole number"),
        ("train --batch-size x", "--batch-size: expected a whole number"),
        ("train --seed -1", "--seed: expected a whole number of at least 0"),
        ("train --lr 0", "--lr: expected a number above 0"),
        ("train --lr nan", "--lr: expected a number above 0"),
        ("train --lr inf", "--lr: expected a number above 0"),
        ("train --hidden 10,,5", "--hidden: expected a whole number"),
        ("train --model cnn", "--model: invalid choice"),
        ("train --data synthetic --threads 2", "--threads 2: they share the samples of a batch; add --batch-size"),
        ("train --data synthetic --threads 2 --batch-size 8 --eager", "--threads 2: the eager loop has one"),
        ("train --data synthetic --eager --dtype float32", "--dtype float32: the eager loop computes in float64"),
        ("train --dtype float16", "--dtype: invalid choice"),
        ("train --model linear --hidden 5", "no hidden layers"),
        ("train --epoch 3", "unrecognized arguments: --epoch"),
        ("train --json nowhere/a.json", "--json nowhere/a.json: "),
        ("train --json .", "this is a folder"),
        ("train --out file", "file"),
        ("train --out file/sub", "file"),
        ("fly", "invalid choice: 'fly'"),
        ("evaluate", "MODEL"),
        ("evaluate none.npz", "none.npz: no such file"),
        ("evaluate file", "file: not a net written by"),
        ("predict model.npz", "IMAGE"),
        ("predict file file", "file: not a net written by"),
        ("data --fetch imagenet", "--fetch: invalid choice"),
        ("data --fetch mnist", "could not be downloaded"),
        ("data --fetch mnist --verify", "not allowed with"),
    ],
)
def test_user_errors(shell: Shell, arguments: str, said: str) -> None:
    (shell.work / "file").write_text("hello\n")
    assert said in shell.wrong(*arguments.split())
    assert shell.files() == {"work/file"}


def test_a_learning_rate_that_diverges(shell: Shell, digits: Path) -> None:
    assert "learning rate" in shell.wrong("train", "--data", digits, "--lr", "1e300")


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before the training.  The rights are played: root, who may run this, can write everywhere."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    for out, file in ((tmp_path, None), (None, tmp_path / "a.json")):
        with pytest.raises(Stop, match="is not a folder that can be written to") as caught:
            check_targets(out, file)
        assert caught.value.status == 2


def test_unexpected_errors(shell: Shell) -> None:
    program = (
        "from fastscalar.cli import commands\n"
        "def start(args): raise RuntimeError('the tape\\n is torn')\n"
        "commands.start = start\n"
        "raise SystemExit(commands.main(['train']))\n"
    )
    for debug, traceback in ((None, False), ("0", False), ("1", True)):
        env = shell.env | ({} if debug is None else {"FASTSCALAR_DEBUG": debug})
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 70
        last = "fastscalar: unexpected RuntimeError: the tape is torn; "
        last += "set FASTSCALAR_DEBUG=1 for the traceback\n"
        assert done.stderr.endswith(last)
        assert ("Traceback" in done.stderr) is traceback
        assert traceback or done.stderr == last


def test_debug_shows_the_traceback_of_a_user_error(shell: Shell) -> None:
    done = shell("evaluate", "none.npz", FASTSCALAR_DEBUG="1")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_reader_that_has_seen_enough(shell: Shell, digits: Path) -> None:
    for epochs in (40, 400, 4000):               # more, if everything was printed before the pipe was closed
        process = shell.start("train", "--data", digits, "--epochs", epochs, "--hidden", 8)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("data: ")
        process.stdout.close()
        errors = process.stderr.read()
        process.stderr.close()
        assert errors == ""
        if process.wait(300):
            break
    assert process.returncode == 141


# --- evaluate ---


@pytest.fixture(scope="session")
def model(uninterrupted: Path) -> Path:
    return uninterrupted


def test_evaluate(shell: Shell, model: Path, digits: Path) -> None:
    accuracy = json.loads((model / "training.json").read_text())["test_accuracy"]
    for name in (model, model / "model.npz"):
        seen = shell.right("evaluate", name)
        first, *_, last = lines(seen)
        assert first == f"data: the data in {digits}, 150 test images"
        assert last.startswith(f"the data in {digits}: {100 * accuracy:.2f} % test accuracy, ")
        assert f"trained on the data in {digits} for 14 epochs" in " ".join(seen.split())
        table = [line.split() for line in seen.splitlines() if re.match(r" {3}\d ", line)]
        counts = np.array([[0 if cell == "." else int(cell) for cell in row[1:]] for row in table])
        assert counts.shape == (10, 10)
        y_test = datasets.load_folder(digits)[1][1]
        assert counts.sum(axis=1).tolist() == np.bincount(y_test, minlength=10).tolist()
        assert np.trace(counts) / counts.sum() == accuracy
        wrong = counts - np.diag(np.diag(counts))
        i, j = np.unravel_index(wrong.argmax(), wrong.shape)
        assert f"most often: {i} taken for {j} ({wrong.max()})" in seen


def test_evaluate_on_other_data(shell: Shell, model: Path) -> None:
    first, *_, last = lines(shell.right("evaluate", model, "--data", "synthetic"))
    assert first == "data: synthetic digits, 10,000 test images"
    assert re.match(r"synthetic digits: 8\d\.\d\d % test accuracy", last)


def test_evaluate_a_model_trained_offline(shell: Shell) -> None:
    shell.right("train", "--limit", 100, "--epochs", 1, "--hidden", 8, "--out", "out")
    seen = shell.right("evaluate", "out")
    assert "trained on synthetic digits" in seen
    assert lines(seen)[-1].startswith("synthetic digits: ")


def test_evaluate_errors(shell: Shell, model: Path, digits: Path) -> None:
    fs.Linear(784, 10, seed=0).save(shell.work / "bare.npz")
    assert "does not say what it was trained on" in shell.wrong("evaluate", "bare.npz")
    assert "it does not say what it was trained on" in shell.right("evaluate", "bare.npz", "--data", digits)
    fs.Linear(9, 10, seed=0).save(shell.work / "small.npz")
    assert "takes 9 pixels" in shell.wrong("evaluate", "small.npz", "--data", digits)
    fs.Linear(784, 1, seed=0).save(shell.work / "one.npz")
    assert "one output" in shell.wrong("evaluate", "one.npz", "--data", digits)
    assert "is not on this machine" in shell.wrong("evaluate", model, "--data", "mnist")


# --- predict ---


def image_files(folder: Path, image: np.ndarray) -> Iterator[Path]:
    """One image in every format that is read."""
    np.save(folder / "bytes.npy", image)
    np.save(folder / "floats.npy", image.reshape(-1) / 255)
    save_idx(folder / "a-idx2-ubyte", image)
    save_idx(folder / "a-idx3-ubyte", image[None])
    (folder / "a-idx3-ubyte.gz").write_bytes(gzip.compress((folder / "a-idx3-ubyte").read_bytes()))
    (folder / "binary.pgm").write_bytes(b"P5\n# by hand\n28 28 # size\n255\n" + image.tobytes())
    plain = "\n".join(" ".join(map(str, row)) for row in image.tolist())
    (folder / "plain.pgm").write_text(f"P2 28 28\n#white\n255\n{plain}\n# end\n")
    deep = (image.astype(np.uint32) * 257).astype(">u2")
    (folder / "deep.pgm").write_bytes(b"P5 28 28 65535\n" + deep.tobytes())
    np.save(folder / "inverted.npy", 255 - image)
    yield from sorted(folder.iterdir())


def test_predict(shell: Shell, model: Path, digits: Path) -> None:
    X_test, y_test = datasets.load_folder(digits)[1]
    folder = shell.folder / "images"
    folder.mkdir()
    files = list(image_files(folder, X_test[4]))
    net = fs.load(model / "model.npz")
    logits = net(X_test[4].reshape(784) / 255).numpy()
    p = np.exp(logits) / np.exp(logits).sum()
    best, *others = np.argsort(-p)[:3]
    first, second, third = (f"{100 * p[k]:.2f} %" for k in (best, *others))
    answer = f"{best}  {first}   next: {others[0]} {second}, {others[1]} {third}"
    straight = [file for file in files if file.name != "inverted.npy"]
    assert len(straight) == 8
    assert shell.right("predict", model, *straight).splitlines() == [f"{file}: {answer}" for file in straight]
    assert shell.right("predict", model, "--invert", folder / "inverted.npy").endswith(f": {answer}\n")
    many = shell.right("predict", model / "model.npz", digits / FILES[2]).splitlines()
    assert len(many) == 150
    assert many[4] == f"{digits / FILES[2]}[4]: {answer}"
    labels = [int(line.partition("]: ")[2].split()[0]) for line in many]
    assert np.mean(np.array(labels) == y_test) == net.metadata["test_accuracy"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected a PNG, JPEG, WebP, BMP, GIF, PGM, .npy or IDX file"),
        (b"\x89PNG\r\n\x1a\n", "a damaged picture"),
        (b"\x93NUMPY rubbish", "damaged .npy"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x09abc", "truncated"),
        (b"P5 28 x\n", "expected P2 or P5, width"),
        (b"P5 28 28 0\n" + bytes(784), "value of white"),
        (b"P5 28 28 255\n" + bytes(783), "found 783"),
        (b"P5 28 28 9\n" + bytes([10]) * 784, "or larger ones"),
        (b"P2 28 28 255\n" + b"-1 " * 784, "or larger ones"),
        (b"P2 28 28 255\n" + b"x " * 784, "whole numbers"),
        (b"P5 27 28 255\n" + bytes(756), "nothing but paper"),
        (b"P5 65535 65535 255\n", "found 0"),
    ],
)
def test_images_that_cannot_be_read(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_images(tmp_path / "image", 784)
    assert str(tmp_path / "image") in str(caught.value)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((28, 28), np.int64), "int64"),
        (np.full((28, 28), 255.0), "numbers outside"),
        (np.full((28, 28), np.nan), "numbers outside"),
        (np.zeros((0, 28, 28), np.uint8), "shape (0, 28, 28)"),
        (np.zeros(783, np.uint8), "shape (783,)"),
        (np.zeros((), np.uint8), "shape ()"),
        (np.array(["7"]), "found <U1"),
        (np.array([{}], dtype=object), "damaged .npy"),
    ],
)
def test_arrays_that_are_not_images(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=re.escape(said)):
        read_images(tmp_path / "a.npy", 784)


def test_predict_errors(shell: Shell, model: Path, digits: Path) -> None:
    assert "none.npy" in shell.wrong("predict", model, "none.npy")
    assert "found an array of shape (150,)" in shell.wrong("predict", model, digits / FILES[3])
    fs.Linear(784, 1, seed=0).save(shell.work / "one.npz")
    assert "one output" in shell.wrong("predict", "one.npz", digits / FILES[2])


def scanned(folder: Path, digit: np.ndarray, name: str) -> Path:
    """A digit of the data as somebody would scan it: large, dark on light, not in the middle."""
    image = pytest.importorskip("PIL.Image")
    page = np.full((500, 400), 235, np.uint8)
    page[150:374, 20:244] -= np.kron(digit // 2 + digit // 4, np.ones((8, 8), np.uint8))
    image.fromarray(page).save(folder / name)
    return folder / name


def test_predict_pictures(shell: Shell, model: Path, digits: Path) -> None:
    X_test, _ = datasets.load_folder(digits)[1]
    clean = shell.right("predict", model, digits / FILES[2]).splitlines()
    right = [line.partition(": ")[2].split()[0] for line in clean]
    kinds = ("png", "jpg", "webp", "bmp", "gif")
    files = [scanned(shell.work, X_test[0], f"0.{kind}") for kind in kinds]
    seen = shell.right("predict", model, *files).splitlines()
    assert [line.partition(": ")[0] for line in seen] == list(map(str, files))
    assert [line.partition(": ")[2].split()[0] for line in seen] == right[:1] * 5
    shown = shell.right("predict", model, "--show", files[0]).splitlines()
    assert shown[0] == seen[0]
    assert len(shown) == 29
    assert max(map(len, shown[1:])) <= 56
    assert any("@" in line for line in shown)
    shell.right("predict", model, "--save", "kept", files[0], files[0])
    assert {p.name for p in (shell.work / "kept").iterdir()} == {"0.png", "0-2.png"}
    assert shell.right("predict", model, shell.work / "kept" / "0.png").partition(": ")[2].split()[0] == right[0]


def test_predict_from_the_standard_input(shell: Shell, model: Path, digits: Path) -> None:
    def piped(content: bytes, *args: Any) -> subprocess.CompletedProcess[bytes]:
        command = shell.command("predict", model, *args)
        return subprocess.run(
            command, input=content, cwd=shell.work, env=shell.env, capture_output=True, timeout=120, check=False
        )

    image = datasets.load_folder(digits)[1][0][0]
    content = scanned(shell.work, image, "a.png").read_bytes()
    answer = shell.right("predict", model, "a.png").partition(": ")[2]
    assert piped(content, "-").stdout.decode() == f"standard input: {answer}"
    for bad, said in ((b"", "found something else"), (content[:100], "damaged"), (b"P5 9", "expected P2 or P5")):
        done = piped(bad, "-")
        assert done.returncode == 2
        assert done.stderr.startswith(b"fastscalar: standard input: ")
        assert said in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1
    assert b"can be read once" in piped(content, "-", "-").stderr


def test_one_bad_file_does_not_stop_the_others(shell: Shell, model: Path, digits: Path) -> None:
    good = scanned(shell.work, datasets.load_folder(digits)[1][0][3], "good.png")
    (shell.work / "bad.png").write_bytes(good.read_bytes()[:50])
    (shell.work / "folder").mkdir()
    done = shell("predict", model, "bad.png", good, "none.png", "folder", good)
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 2
    bad = done.stderr.splitlines()
    assert [line.split()[1] for line in bad] == ["bad.png:", "none.png:", "folder:"]
    done = shell("predict", model, "--json", "bad.png", good, "--show")
    first, second = json.loads(done.stdout)
    assert (done.returncode, first["file"], "damaged" in first["error"]) == (2, "bad.png", True)
    assert set(second) == {"file", "index", "label", "name", "probability", "probabilities", "image"}
    assert second["probabilities"][second["label"]] == second["probability"] == max(second["probabilities"])
    assert np.shape(second["image"]) == (28, 28)
    assert json.loads(shell.right("predict", model, "--json", digits / FILES[2]))[149]["index"] == 149


# --- data, info, help ---


def test_data(shell: Shell, digits: Path) -> None:
    root = shell.folder / "data"
    shutil.copytree(digits, root / "mnist")
    seen = shell.right("data", FASTSCALAR_DATA=str(root))
    assert f"MNIST, --data mnist: here\n  {root / 'mnist'}\n" in seen
    assert "Fashion-MNIST, --data fashion: not here" in seen
    assert "~/.cache/fastscalar/fashion-mnist" in seen
    assert "synthetic digits, --data synthetic: always here" in seen
    assert all(file in seen for file in FILES)
    done = shell("data", "--verify", FASTSCALAR_DATA=str(root))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("wrong content: expected") == 4


def test_verify_nothing(shell: Shell) -> None:
    assert "not here" in shell.right("data", "--verify")


def test_info(shell: Shell) -> None:
    seen = shell.right("info")
    for part in (fs.__version__, sys.version.split()[0], np.__version__, "CPU"):
        assert part in seen
    assert "MNIST: not here" in seen
    assert "downloads   ~/.cache/fastscalar" in seen
    best = fs._core.kernel_sets()[-1]
    assert f"kernels     {best}; this CPU can run {', '.join(fs._core.kernel_sets())}" in seen
    assert "FASTSCALAR_KERNELS is not set" in seen
    other = shell.right("info", FASTSCALAR_KERNELS="baseline")
    assert "kernels     baseline; " in other
    assert "FASTSCALAR_KERNELS is baseline" in other


def test_help(shell: Shell) -> None:
    top = shell.right("--help")
    assert all(re.search(rf"^    {command}\s", top, re.M) for command in COMMANDS)
    assert shell.right() == top
    for command in COMMANDS:
        seen = shell.right(command, "--help")
        examples = re.findall(r"^  (?:\w+=\w+ )?(fastscalar .*)$", seen, re.M)
        assert examples, seen
        for example in examples:
            args = commands.parser().parse_args(shlex.split(example)[1:])
            assert args.run.__name__ == command
    assert shell.right("--version") == f"fastscalar {fs.__version__}\n"


def test_the_installed_command_is_this_one() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="fastscalar")
    load: Callable[[], Any] = entry.load
    assert load() is cli.main


def test_the_library_does_not_load_the_command_line(shell: Shell) -> None:
    program = "import sys, fastscalar; print(*sorted(sys.modules))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=shell.env, capture_output=True, text=True, timeout=300, check=True)
    loaded = done.stdout.split()
    assert "fastscalar.nn.training" in loaded
    assert not {"argparse", "tqdm", "pooch", "fastscalar.cli", "fastscalar.cli.console"} & set(loaded)


# --- the real thing ---


@pytest.mark.mnist
def test_mnist(shell: Shell) -> None:
    root = os.environ.get("FASTSCALAR_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("FASTSCALAR_DATA has no MNIST")
    env = {"FASTSCALAR_DATA": str(Path(root).absolute())}
    seen = lines(shell.right("train", "--data", "mnist", "--epochs", 1, "--json", "out.json", **env))
    report = json.loads((shell.work / "out.json").read_text())
    assert report["dataset"] == "mnist"
    assert report["test_accuracy"] >= 0.96
    assert (report["training_images"], report["test_images"]) == (60000, 10000)
    assert seen[0] == "data: MNIST, 60,000 training and 10,000 test images"
    assert re.fullmatch(r"MNIST: 9\d\.\d\d % test accuracy after 1 epoch, \d+\.\d s", seen[-1])
