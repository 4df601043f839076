"""Kills training runs and lets them resume: `python killing.py every|overwrite|interrupt|random FOLDER [N] [SEED]`, or
the name of an optimiser: at random moments of a run with that.

What comes out must be what an uninterrupted run leaves: the same files, the same bits of the weights, the same reports
but for the times in them.  This process imports the package once and forks for each run, so that a kill is one: no
`finally` runs, no buffer is flushed.  Points between two operations on files are counted by Python's audit events
(opened for writing, renamed, removed) and by os.fsync.  The last line printed says how many runs were killed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar import cli, datasets
from fastscalar.datasets import save_idx
from fastscalar.datasets.catalog import FILES

os.environ["FASTSCALAR_PICTURES"] = "0"  # a report would take most of the time,
os.fsync = lambda descriptor: None  # and so would the disk; what a killed process has written, the system has
PATIENCE = 200  # seconds for one run
OPTIMIZERS = {  # options of runs whose optimisers keep something
    "momentum": ("--momentum", "0.9", "--warmup", "0.2"),
    "decay": ("--weight-decay", "0.001", "--schedule", "cosine"),
    "adam": ("--optimizer", "adam", "--batch-size", "8"),
    "adamw": ("--optimizer", "adamw", "--weight-decay", "0.01", "--dtype", "float32"),
    "rmsprop": ("--optimizer", "rmsprop", "--momentum", "0.5", "--clip-norm", "1"),
    "patience": ("--optimizer", "adam", "--patience", "6"),
}


def write_data(folder: Path, n: int = 60, n_test: int = 30) -> Path:
    folder.mkdir(parents=True)
    (X, y), (X_test, y_test) = datasets.synthetic_digits(n, n_test)
    for file, array in zip(FILES, (X, y, X_test, y_test), strict=True):
        save_idx(folder / file, array)
    return folder


class Killer:
    """An audit hook: at the operation number `at` on a file in these places this process gets the signal."""

    def __init__(self, places: tuple[Path, ...], at: int | None, how: signal.Signals) -> None:
        names = [(place.parent, name) for place in places for name in (place.name, f".{place.name}")]
        self.places = tuple(os.path.join(*name) for name in names)
        self.at, self.how, self.seen = at, how, 0

    def install(self) -> None:
        sys.addaudithook(self.hook)
        fsync = os.fsync

        def counted(descriptor: int) -> None:
            self.count()
            fsync(descriptor)

        os.fsync = counted  # type: ignore[assignment]

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event in ("os.rename", "os.remove", "os.mkdir"):
            path = args[0]
        else:
            return
        if isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(self.places):
            self.count()

    def count(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), self.how)


def begin(arguments: list[str], killer: Killer | None = None, seen: Path | None = None) -> int:
    """Fork and run the command line; the process's number."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        signal.alarm(PATIENCE)  # it ends a process that hangs
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if killer is not None:
            killer.install()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            status = cli.main(arguments)
        if seen is not None and killer is not None:
            seen.write_text(str(killer.seen))
        if status not in (0, 2, 130):
            print(errors.getvalue(), file=sys.stderr)
    finally:
        os._exit(status)
    raise AssertionError


def end(pid: int) -> int:
    """Exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run(arguments: list[str], killer: Killer | None = None, seen: Path | None = None) -> int:
    return end(begin(arguments, killer, seen))


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "samples_per_s")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def left(out: Path) -> dict[str, Any]:
    """Everything in the folder of a run, times aside."""
    found: dict[str, Any] = {}
    for path in sorted(out.iterdir()):
        if path.suffix == ".npz":
            with np.load(path) as archive:
                content = {name: archive[name].tobytes().hex() for name in archive.files if name != "header"}
                content["header"] = timeless(json.loads(str(archive["header"])))
            fs.load(path)
            found[path.name] = content
        else:
            found[path.name] = timeless(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()
    return found


class Trial:
    """One kind of run, and what it leaves when nobody disturbs it."""

    def __init__(self, folder: Path, epochs: int, old: bool = False, recipe: tuple[str, ...] = ()) -> None:
        self.folder, self.out, self.json, self.old = folder, folder / "out", folder / "a.json", None
        options = ["train", "--data", str(write_data(folder / "data")), "--hidden", "4", "--quiet"]
        self.resume = ["train", "--out", str(self.out), "--resume", "--quiet", "--json", str(self.json)]
        self.first = [*options, *recipe, "--seed", "5", "--epochs", str(epochs), *self.resume[1:3], *self.resume[5:]]
        if old:  # a finished run is there, and is to be replaced
            assert run([*options, "--seed", "6", "--epochs", "2", *self.resume[1:3], *self.resume[5:]]) == 0
            self.old = left(self.out)
            shutil.copytree(self.out, folder / "old")
            self.first.append("--overwrite")
        self.reset()
        self.points = 0
        start = time.perf_counter()
        assert self.point(None) == 0
        self.seconds = time.perf_counter() - start
        self.points = int((folder / "seen").read_text())
        self.expected = left(self.out)
        assert set(self.expected) == {"model.npz", "training.json", "config.toml"}, set(self.expected)
        assert self.expected != self.old

    def reset(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)
        self.json.unlink(missing_ok=True)
        if self.old is not None:
            shutil.copytree(self.folder / "old", self.out)

    def point(self, at: int | None, how: signal.Signals = signal.SIGKILL, again: bool = False) -> int:
        killer = Killer((self.out, self.json), at, how)
        return run(self.resume if again else self.first, killer, self.folder / "seen")

    def finish(self) -> None:
        """Resume, or begin where nothing was kept yet, and compare."""
        status = run(self.resume)
        if status == 2:
            assert not (self.out / "checkpoint.npz").exists(), "there was something to resume"
            status = run(self.first)
        assert status == 0, status
        found = left(self.out)
        if found == self.old:  # killed before it had begun: the old run is as it was
            assert run(self.first) == 0
            found = left(self.out)
        assert found == self.expected, [name for name in found if found.get(name) != self.expected.get(name)]
        assert self.json.read_bytes() == (self.out / "training.json").read_bytes()


def every(folder: Path, old: bool, how: signal.Signals) -> int:
    """At every point; and at some point, then at every point of the run that resumes."""
    trial = Trial(folder, 3, old)
    killed = 0
    for at in range(1, trial.points + 1):
        trial.reset()
        status = trial.point(at, how)
        ended = {-how, 130, 0} if how == signal.SIGINT else {-how}
        assert status in ended, (at, status)
        killed += 1
        if trial.point(1 + 7 * at % 23, how, again=True) in ended:
            killed += 1
        try:
            trial.finish()
        except AssertionError as error:
            raise AssertionError(f"after point {at} of {trial.points}: {error}") from None
    print(f"{trial.points} points")
    return killed


def at_random(folder: Path, n: int, seed: int, recipe: tuple[str, ...] = ()) -> int:
    trial = Trial(folder, 8, recipe=recipe)
    draw = random.Random(seed)
    killed = 0

    def disturbed(arguments: list[str]) -> None:
        """Killed after a random part of the time that the fastest run has taken; no waiting for one that is over."""
        nonlocal killed
        start = time.perf_counter()
        pid = begin(arguments)
        moment = start + draw.uniform(0.0, 1.1) * trial.seconds
        while (now := time.perf_counter()) < moment:
            if os.waitpid(pid, os.WNOHANG)[0]:
                trial.seconds = min(trial.seconds, now - start)
                return
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        killed += end(pid) == -signal.SIGKILL

    while killed < n:
        trial.reset()
        disturbed(trial.first)
        while draw.random() < 0.5:
            disturbed(trial.resume)
        trial.finish()
    return killed


def main(what: str, folder: Path, n: int = 300, seed: int = 0) -> None:
    modes: dict[str, Callable[[], int]] = {
        "every": lambda: every(folder, False, signal.SIGKILL),
        "overwrite": lambda: every(folder, True, signal.SIGKILL),
        "interrupt": lambda: every(folder, False, signal.SIGINT),
        "random": lambda: at_random(folder, n, seed),
        **{name: partial(at_random, folder, n, seed, recipe) for name, recipe in OPTIMIZERS.items()},
    }
    print(f"{modes[what]()} killed")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve(), *map(int, sys.argv[3:]))
