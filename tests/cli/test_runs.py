"""The files of training runs: killed, interrupted and resumed, two at once, full disks, runs that diverge."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
import killing
from fastscalar import cli, files
from fastscalar.cli import runs
from fastscalar.files import Busy, locked, replacing
from fastscalar.nn import training
from fastscalar.nn.evaluation import Evaluation, Measure

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="a run is killed in a forked process")
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "FASTSCALAR_STRESS"}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return killing.write_data(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture
def train(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """train(options) -> (exit status, what it said on the standard error stream)"""

    def call(*options: Any) -> tuple[int, str]:
        capsys.readouterr()
        words = ["--data", digits, "--hidden", 4] if "--resume" not in options else []
        status = cli.main(["train", *map(str, [*words, *options])])
        return status, capsys.readouterr().err

    return call


def one_line(text: str) -> str:
    assert text.startswith("fastscalar: ")
    assert text.count("\n") == 1, text
    assert "[Errno" not in text
    return text


# --- killed ---


@needs_fork
@pytest.mark.parametrize("mode", ["every", "overwrite", "interrupt"])
def test_killed_at_every_point_between_two_operations_on_files(mode: str, tmp_path: Path) -> None:
    killed(mode, tmp_path / "run", least=60)


@needs_fork
def test_killed_at_random_moments(tmp_path: Path) -> None:
    killed("random", tmp_path / "run", 12, least=12)


@needs_fork
@pytest.mark.parametrize("optimizer", killing.OPTIMIZERS)
def test_killed_at_random_moments_with_every_optimiser(optimizer: str, tmp_path: Path) -> None:
    killed(optimizer, tmp_path / "run", 3, least=3)


def killed(*arguments: Any, least: int) -> None:
    command = [sys.executable, killing.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    assert int(done.stdout.split()[-2]) >= least


def test_resuming_a_complete_run_changes_nothing(train: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train("--epochs", 1, "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert train("--out", out, "--resume")[0] == 0
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_a_run_that_goes_on_elsewhere_says_so(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], digits: Path
) -> None:
    """Bits are promised for the same version and the same kernels."""
    out = tmp_path / "out"
    assert train("--epochs", 2, "--out", out)[0] == 0
    net = fs.load(out / "model.npz")
    about = net.metadata | {"epochs": net.metadata["epochs"][:1], "kernels": "other", "version": "0.0.1"}
    net.save(out / "checkpoint.npz", **about)
    capsys.readouterr()
    assert cli.main(["train", "--out", str(out), "--resume"]) == 0
    said = capsys.readouterr().out
    assert f"begun with other kernels, goes on with {fs.tape_info()['kernels']}" in said
    assert f"begun by fastscalar 0.0.1, goes on with {fs.__version__}" in said


def test_saved_files_say_what_made_them(train: Any, digits: Path, tmp_path: Path) -> None:
    import hashlib

    out = tmp_path / "out"
    assert train("--epochs", 1, "--seed", 3, "--limit", 50, "--out", out)[0] == 0
    (X, y), (X_test, y_test) = fs.datasets.load_folder(digits)
    expected = {
        "format": 1,
        "version": fs.__version__,
        "kernels": fs.tape_info()["kernels"],
        "seed": 3,
        "fingerprint": hashlib.sha256(X[:50].tobytes() + y[:50].tobytes()).hexdigest(),
        "test_fingerprint": hashlib.sha256(X_test.tobytes() + y_test.tobytes()).hexdigest(),
    }
    for about in (json.loads((out / "training.json").read_text()), fs.load(out / "model.npz").metadata):
        assert about | expected == about
    with np.load(out / "model.npz") as archive:
        header = json.loads(str(archive["header"]))
    assert [header[key] for key in ("format", "fastscalar", "kernels", "seed")] == [
        1, fs.__version__, fs.tape_info()["kernels"], 3,
    ]  # fmt: skip


def test_other_test_data_are_other_data(train: Any, tmp_path: Path) -> None:
    data = killing.write_data(tmp_path / "data")
    out = tmp_path / "out"
    assert cli.main(["train", "--data", str(data), "--hidden", "4", "--epochs", "1", "--out", str(out)]) == 0
    labels = data / killing.FILES[3]
    labels.write_bytes(labels.read_bytes()[:-1] + b"\7")
    assert "the test data are not those" in one_line(train("--out", out, "--resume")[1])


# --- one run at a time ---


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process has the folder."""
    code = (
        "import sys, pathlib; from fastscalar.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdin=pipe, text=True)
    try:
        give_up = time.monotonic() + 300
        while not (folder / files.LOCK).exists() or not (folder / files.LOCK).read_text().endswith("\n"):
            assert time.monotonic() < give_up
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=300)


@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--resume"]])
def test_a_folder_in_which_another_run_is_at_work(train: Any, tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / "out"
    assert train("--epochs", 1, "--out", out)[0] == 0
    (out / ".model.npz.1-2.tmp").write_bytes(b"half")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with held(out) as process:
        status, said = train("--out", out, *options)
        assert status == 2
        if not options:
            assert "another run is at work" in said or "--overwrite" in said
        assert f"process {process.pid} on " in one_line(said)
        found = {path.name: path.read_bytes() for path in out.iterdir() if path.name != files.LOCK}
        assert found == before, "nothing of the live run is touched"
    # The process was killed: its lock went with it, whatever it has left.
    assert (out / files.LOCK).exists()
    assert train("--out", out, *(options if options == ["--resume"] else ["--overwrite", "--epochs", 1]))[0] == 0
    assert {path.name for path in out.iterdir()} == {"model.npz", "training.json", "config.toml"}


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(Busy, match=f"process {os.getpid()} on "), locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
    with locked(tmp_path) as works:
        assert works


@needs_fork
def test_the_lock_among_many(tmp_path: Path) -> None:
    """Six processes want the folder again and again; the file of the lock comes and goes; never have it two."""
    code = """if True:
        import os, sys, pathlib, time, signal
        from fastscalar.files import Busy, locked
        signal.alarm(100)
        folder, counter = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
        counter.write_text("0")
        children = []
        for k in range(6):
            if not (pid := os.fork()):
                done = 0
                while done < 15:
                    try:
                        with locked(folder):
                            n = int(counter.read_text())
                            time.sleep(0.001)
                            counter.write_text(str(n + 1))
                            done += 1
                    except Busy:
                        time.sleep(0.002)
                os._exit(0)
            children.append(pid)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
        print(counter.read_text())
    """
    (tmp_path / "folder").mkdir()
    command = [sys.executable, "-c", code, str(tmp_path / "folder"), str(tmp_path / "counter")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, "90\n"), done.stderr


def test_two_runs_at_once(digits: Path, tmp_path: Path) -> None:
    """From the command line: exactly one of them trains."""
    command = [sys.executable, "-m", "fastscalar", "train", "--data", str(digits), "--hidden", "64", "--epochs", "20"]
    command += ["--out", str(tmp_path / "out"), "--eager"]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], said
    assert "--out" in one_line("".join(said))
    assert len(fs.load(tmp_path / "out" / "model.npz").metadata["epochs"]) == 20


def test_a_finished_run_is_not_overwritten(train: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train("--epochs", 2, "--out", out)[0] == 0
    before = {path: path.read_bytes() for path in out.iterdir()}
    status, said = train("--epochs", 1, "--out", out)
    assert (status, one_line(said)) == (2, f"fastscalar: --out {out}: has a run, 2 epochs; --overwrite replaces it\n")
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert train("--epochs", 1, "--out", out, "--overwrite")[0] == 0
    assert len(fs.load(out / "model.npz").metadata["epochs"]) == 1


@pytest.mark.parametrize("name", ["model.npz", "checkpoint.npz", "training.json"])
def test_foreign_files_are_not_overwritten(train: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    status, said = train("--epochs", 1, "--out", tmp_path)
    assert status == 2
    assert f"has a file {name}" in one_line(said)
    assert (tmp_path / name).read_text() == "mine"


def test_an_unfinished_run_is_not_overwritten_unless_it_has_learned_nothing(
    train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(run: runs.Run, epoch: training.Epoch) -> dict[str, Any]:
        if epoch.epoch > wanted:
            raise KeyboardInterrupt
        return add(run, epoch)

    add, wanted = runs.Run.add, 0
    monkeypatch.setattr(runs.Run, "add", stop)
    assert train("--epochs", 3, "--out", tmp_path)[0] == 130
    wanted = 1
    assert train("--epochs", 3, "--out", tmp_path)[0] == 130, "the first run had no epoch"
    status, said = train("--epochs", 3, "--out", tmp_path)
    assert status == 2
    assert "has a run, 1 epoch; --resume goes on with it, --overwrite replaces it" in one_line(said)


def test_options_that_contradict_each_other(train: Any, tmp_path: Path) -> None:
    assert "--overwrite is for a new run" in one_line(train("--overwrite")[1])
    (tmp_path / "out").mkdir()
    assert "not for --resume" in one_line(train("--out", tmp_path / "out", "--resume", "--overwrite")[1])


# --- runs that diverge ---


@pytest.mark.parametrize("options", [["1e300"], ["1e300", "--eager"], ["3e38", "--dtype", "float32"]])
@pytest.mark.parametrize("batch", [1, 60])  # 60: the only step of an epoch, nothing looks at the loss after it
def test_a_run_that_diverges(train: Any, tmp_path: Path, options: list[str], batch: int) -> None:
    out, file = tmp_path / "out", tmp_path / "a.json"
    status, said = train("--epochs", 1, "--out", out, "--json", file, "--batch-size", batch, "--lr", *options)
    assert status == 2
    assert "learning rate" in one_line(said)
    assert "the net after 0 whole epochs is in" in said
    report = json.loads(file.read_text())
    assert report == json.loads((out / "training.json").read_text())
    assert (report["diverged"], report["epochs"]) == (True, [])
    assert fs.load(out / "model.npz").linears[0].w.tolist() == fs.MLP(784, [4, 10], seed=0).linears[0].w.tolist()
    assert train("--epochs", 1, "--out", out)[0] == 0, "nothing is lost"


def test_weights_that_overflow_in_a_later_epoch(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = Measure.__call__

    def spoil(self: Any) -> Evaluation:
        result = evaluate(self)
        spoil.calls += 1  # type: ignore[attr-defined]
        if spoil.calls == 3:  # type: ignore[attr-defined]
            self.net.linears[1].b.data = np.full(10, np.inf)
        return result

    spoil.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(Measure, "__call__", spoil)
    status, said = train("--epochs", 5, "--out", tmp_path)
    assert status == 2
    assert "infinite or NaN after epoch 3" in one_line(said)
    assert f"the net after 2 whole epochs is in {tmp_path}" in said
    net = fs.load(tmp_path / "model.npz")
    assert (net.metadata["diverged"], len(net.metadata["epochs"])) == (True, 2)


# --- disks ---


class Full:
    """The operating system says that there is no room, at the operation number `at`."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __call__(self, descriptor: int) -> None:
        self.at -= 1
        if self.at == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("at", range(1, 10))
def test_a_full_disk(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """One line that names the file; what was kept before is still there, and the run goes on when there is room."""
    out = tmp_path / "out"
    with monkeypatch.context() as context:
        context.setattr(os, "fsync", Full(at))
        status, said = train("--epochs", 2, "--out", out)
    assert status == 2
    begun = ["checkpoint.npz", "training.json", "config.toml"]
    name = [*begun, *2 * ["checkpoint.npz", "model.npz", "training.json"]][at - 1]
    assert one_line(said) == f"fastscalar: {out / name}: no space left on device\n"
    assert not list(out.glob(".*.tmp"))
    if at > 1:
        assert train("--out", out, "--resume")[0] == 0
        assert len(fs.load(out / "model.npz").metadata["epochs"]) == 2


def write(what: str, path: Path) -> None:
    if what == "net":
        fs.Linear(30, 20, seed=0).save(path)
    elif what == "idx":
        fs.datasets.save_idx(path, np.zeros(100_000, np.uint8))
    else:
        runs.write_json(path, {"a": list(range(20_000))})


@pytest.mark.parametrize("what", ["net", "idx", "json"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_device_that_is_full(what: str) -> None:
    with pytest.raises(OSError, match="No space left on device: '/dev/full'") as caught:
        write(what, Path("/dev/full"))
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("what", ["net", "idx", "json"])
def test_a_file_that_may_not_grow(what: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "file"
    path.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write(what, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "before"
    assert [other.name for other in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("what", ["net", "idx", "json"])
def test_where_nothing_can_be_written(what: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, kind in (
        (tmp_path / "none" / "x", FileNotFoundError),
        (tmp_path, IsADirectoryError),
        (tmp_path / "file" / "x", NotADirectoryError),
        (tmp_path / ("x" * 300), OSError),
    ):
        with pytest.raises(kind) as caught:
            write(what, path)
        assert caught.value.filename == str(path)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "net.npz")
    fs.Linear(2, 2, seed=0).save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["net.npz"]
    assert fs.load(tmp_path / "link").in_features == 2


def test_an_exception_while_a_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before")
    for error in (KeyboardInterrupt, MemoryError, ZeroDivisionError):

        def fail(path: Path = path, error: type[BaseException] = error) -> None:
            with replacing(path) as file:
                file.write(b"half")
                raise error

        with pytest.raises(error):
            fail()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"before")]
