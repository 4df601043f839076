"""`fastscalar bench`: what it prints and writes, that its checks can fail, and its arithmetic."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.cli import bench, contestants, workloads

WORKLOADS = ["scalar_ops", "linear10", "mlp", "minibatch"]
RUN = "from fastscalar import cli\nfrom fastscalar.cli import bench\n{}\nraise SystemExit(cli.main({!r}))\n"


def run(folder: Path, *arguments: str, change: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The command in an empty home, without a way to MNIST, and without slow imports unless asked for."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FASTSCALAR_", "XDG_"))}
    kept |= {"HOME": str(folder), "FASTSCALAR_MIRRORS": "http://127.0.0.1:9/", "XDG_DATA_DIRS": str(folder)}
    program = RUN.format(change, ["bench", *arguments])
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=kept | env,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


NO_PEERS = """
absent = bench.absent
bench.absent = lambda module: absent(module) if module in (None, "numpy") else f"{module} is not installed"
bench.Contestant.missing = classmethod(lambda kind: bench.absent(kind.needs))
"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], float]:
    folder = tmp_path_factory.mktemp("bench")
    start = sum(os.times()[2:4])  # of the processor, in processes that have ended
    done = run(folder, "--quick", "--json", "figures.json", change=NO_PEERS)
    seconds = sum(os.times()[2:4]) - start
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in folder.iterdir()] == ["figures.json"]
    return done.stdout, json.loads((folder / "figures.json").read_text()), seconds


def test_the_table(quick: tuple[str, dict[str, Any], float]) -> None:
    seen, _, seconds = quick
    assert not [line for line in seen.splitlines() if len(line) >= 80]
    assert not re.findall(r"[^ -~\n]", seen)
    assert seen.startswith(f"fastscalar {fs.__version__}, Python {sys.version.split()[0]}, NumPy {np.__version__}\n")
    assert "data: synthetic digits, NOT MNIST\n" in seen
    assert "collector on" in seen
    assert seen.count("twin / it") == len(WORKLOADS)
    assert "micrograd: skipped, micrograd is not installed" in seen
    assert "PyTorch eager, float32: skipped, torch is not installed" in seen
    assert "WRONG" not in seen
    assert seen.splitlines()[-1].startswith("All numbers right; ")
    assert seconds < 40  # a few, on a machine that does nothing else


def test_the_figures(quick: tuple[str, dict[str, Any], float]) -> None:
    _, report, _ = quick
    assert report["correct"]
    assert report["data"] == "synthetic digits, NOT MNIST"
    assert report["kernels"] == fs.tape_info()["kernels"]
    assert {"cpu", "cores", "python", "numpy", "system", "collector"} <= report.keys()
    assert [block["name"] for block in report["workloads"]] == WORKLOADS
    for block in report["workloads"]:
        engine = block["contestants"]["fastscalar"]
        for result in block["contestants"].values():
            assert result["correct"]
            assert np.median(result["rounds"]) == pytest.approx(result["median"])
            assert 0 <= result["spread"] < 10
        assert engine["twin_ratio"] > 5  # dozens at least
        if block["unit"] == "us/sample":
            assert engine["samples_per_s"] == pytest.approx(1e6 / engine["median"])
            assert engine["losses"] == pytest.approx(engine["expected_losses"], rel=1e-9)
    (scaled,) = (result for name, result in report["workloads"][2]["contestants"].items() if "scaled" in name)
    assert scaled["run_with"] == [784, 4, 10]


def test_mnist_is_named(tmp_path: Path) -> None:
    root = os.environ.get("FASTSCALAR_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("FASTSCALAR_DATA has no MNIST")
    only = f"{NO_PEERS}bench.comparisons = lambda *args: iter(())"
    done = run(tmp_path, "--quick", change=only, FASTSCALAR_DATA=str(Path(root).absolute()))
    assert "data: the first 640 images of MNIST\n" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("bench.NumPy.first = lambda self: [2.3, 2.2, 2.1]", "NumPy by hand, float32 (linear10)"),
        ("bench.NumPy.run = lambda self, steps: 1 / 0", "ZeroDivisionError"),
        ("bench.Products.once = lambda self, once=bench.Products.once: once(self) * 1.5", "twin (scalar_ops)"),
    ],
)
def test_wrong_numbers(tmp_path: Path, change: str, said: str) -> None:
    """They are not timed, the others are, and the exit status tells."""
    few = "all_of = bench.comparisons\nbench.comparisons = lambda *args: list(all_of(*args))[:2]\n"
    done = run(tmp_path, "--quick", "--json", "figures.json", change=NO_PEERS + few + change)
    assert done.returncode == 1
    assert said in done.stdout
    assert "\nWRONG numbers, not timed: " in done.stdout
    assert not [line for line in done.stdout.splitlines() if len(line) >= 80]
    report = json.loads((tmp_path / "figures.json").read_text())
    assert not report["correct"]
    assert report["workloads"][1]["contestants"]["fastscalar"]["correct"]
    wrong = [r for block in report["workloads"] for r in block["contestants"].values() if not r["correct"]]
    assert wrong
    assert all("median" not in result for result in wrong)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json", "nowhere/a.json"], "--json nowhere/a.json: "),
        (["--json", "."], "this is a folder"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_user_errors(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("work", [workloads.LINEAR1, workloads.LINEAR10, workloads.Workload("small", (784, 6, 5, 10))])
@pytest.mark.parametrize("batch", [1, 3])
def test_everybody_computes_the_same(work: workloads.Workload, batch: int) -> None:
    """Seven steps of what this machine has, against the formulas; three layers too."""
    X, y, _ = workloads.digits(7 * batch)
    expected = workloads.expected_losses(work, X, y, batch, steps=7)
    kinds: list[type[contestants.Contestant]]
    kinds = [contestants.Twin, contestants.Loop, contestants.NumPy, contestants.Torch]
    for kind in kinds:
        if kind.missing():
            continue
        losses = kind(work, X, y, batch).run(7)
        np.testing.assert_allclose(losses, expected, rtol=workloads.TOLERANCE[kind.dtype], err_msg=kind.name)
    for kind in (contestants.Compiled, contestants.Compiled32):
        if not kind.missing():
            losses = kind(work, X, y, batch).first()
            np.testing.assert_allclose(losses, expected[:3], rtol=workloads.TOLERANCE[kind.dtype], err_msg=kind.name)


def test_dot_products() -> None:
    for number in (bench.reference.Tensor, fs.Tensor):
        side = contestants.Products("", number, outputs=3)
        assert side.correct()
        assert side.correct()  # again: gradients start anew
    side.x[0] += 1.0
    assert not side.correct()


def test_an_entry_finds_how_often_to_run() -> None:
    def entry(most: int | None) -> bench.Entry:
        """Of work that says itself how long it took: a sleep takes what a busy machine makes of it."""
        return bench.Entry("", dict, lambda n: 0.001 * n, unit=2, most=most, factor=3)

    free, bounded = entry(None), entry(5)
    free.calibrate(0.02)
    assert free.calls == (1, 20)
    bounded.calibrate(0.02)
    assert bounded.calls == (4, 5)
    bounded.measure()
    assert bounded.median == pytest.approx(0.001 * 3 / 2)
    assert bounded.spread == 0


@pytest.mark.parametrize(("x", "said"), [(1.234, "1.23"), (12.34, "12.3"), (12345.6, "12,346")])
def test_numbers_of_the_table(x: float, said: str) -> None:
    assert bench.short_number(x) == said
