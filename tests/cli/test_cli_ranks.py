"""`mpiexec -n N fastscalar ... --mpi`; skipped where there is no MPI."""

import json
import subprocess
import sys

import numpy as np
import pytest

import fastscalar as fs
from ranks import mpiexec

SMALL = ("--data", "synthetic", "--limit", 600, "--hidden", 8, "--batch-size", 200)


def run(*words):
    return subprocess.run([*map(str, words)], text=True, capture_output=True, timeout=200, check=False)


def command(ranks, *words):
    return run(*mpiexec(ranks), sys.executable, "-m", "fastscalar", *words)


def changed(script, ranks, *words):
    """The command after a script has changed something in every process."""
    script += "from fastscalar.cli import main\nsys.exit(main(sys.argv[1:]))\n"
    return run(*mpiexec(ranks), sys.executable, "-c", script, *words)


def train(ranks, out, *words):
    return command(ranks, "train", "--mpi", *SMALL, "--out", out, *words)


def test_two_ranks_and_one_train_the_same_net(tmp_path):
    for ranks in (1, 2):
        done = train(ranks, tmp_path / str(ranks), "--epochs", 2)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.count("saved in") == 1
        assert f"{ranks} rank" in done.stdout
    one, two = (fs.load(tmp_path / str(ranks) / "model.npz") for ranks in (1, 2))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("wishes", [
    (), ("--optimizer", "adam", "--lr", 0.01, "--dtype", "float32"),
])  # fmt: skip
def test_a_run_goes_on_with_other_ranks(tmp_path, wishes):
    """Also one whose optimiser remembers more than the net."""
    through = train(2, tmp_path / "through", "--epochs", 2, *wishes)
    assert through.returncode == 0, through.stderr
    stopped = tmp_path / "stopped"
    script = (
        "import sys, fastscalar.cli.runs as runs\n"
        "save = runs.Run.add\n"
        "def add(self, epoch):\n"
        "    save(self, epoch)\n"
        "    raise KeyboardInterrupt\n"
        "runs.Run.add = add\n"
    )
    done = changed(script, 2, "train", "--mpi", *SMALL, "--epochs", 2, "--out", stopped, *wishes)
    assert done.returncode != 0
    assert "interrupted; the net after 1 whole epoch" in done.stderr
    done = command(3, "train", "--mpi", "--out", stopped, "--resume")
    assert done.returncode == 0, done.stderr
    one, two = (fs.load(folder / "model.npz") for folder in (tmp_path / "through", stopped))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_fault_is_told_once(tmp_path):
    done = command(2, "train", "--mpi", "--data", tmp_path / "nowhere")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("fastscalar:")]
    assert len(lines) == 1
    assert "nowhere" in lines[0]
    done = train(2, tmp_path / "out", "--lr", "1e200")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("fastscalar:")]
    assert len(lines) == 1
    assert "--lr" in lines[0]
    assert "Traceback" not in done.stderr


LATE = (
    "import sys, time, fastscalar.cli.runs as runs\n"
    "from mpi4py import MPI\n"
    "stop = runs.Run.stop\n"
    "def late(*arguments):\n"
    "    time.sleep(2)\n"
    "    return stop(*arguments)\n"
    "runs.Run.stop = late\n"
)
INTERRUPTED = LATE + (
    "save = runs.Run.add\n"
    "def add(self, epoch):\n"
    "    save(self, epoch)\n"
    "    raise KeyboardInterrupt\n"
    "runs.Run.add = add\n"
)
FAILED = LATE + (
    "import fastscalar.cli.ranks as ranks\n"
    "begin, tell = ranks.start, ranks.Stop.__init__\n"
    "def late(self, message, *more):\n"
    "    time.sleep(2 * message.startswith('rank'))\n"
    "    tell(self, message, *more)\n"
    "ranks.Stop.__init__ = late\n"
    "def start(args):\n"
    "    if MPI.COMM_WORLD.Get_rank() == 1:\n"
    "        raise ranks.Stop('no such file')\n"
    "    return begin(args)\n"
    "ranks.start = start\n"
)


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        (LATE, ("--lr", "1e200"), "--lr"),
        (INTERRUPTED, (), "interrupted; the net after 1 whole epoch"),
        (FAILED, (), "rank 1 of 2 on"),
    ],
    ids=["diverged", "interrupted", "a rank has failed"],
)
def test_who_tells_may_take_its_time(tmp_path, script, words, said):
    """The others have gone by then, and mpiexec must not take that for a reason to kill it."""
    done = changed(script, 2, "train", "--mpi", *SMALL, "--out", tmp_path / "out", *words)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("fastscalar:")]
    assert len(lines) == 1, done.stderr
    assert said in lines[0]
    if script is not FAILED:
        found = json.loads((tmp_path / "out" / "training.json").read_text())
        assert found.get("diverged") or found.get("interrupted")


def test_info_and_bench(tmp_path):
    done = command(2, "info", "--mpi")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["rank", "0", "1"]
    done = command(2, "bench", "--mpi", "--quick", "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["ranks"] == 2
    assert found["correct"]
