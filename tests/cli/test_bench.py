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
from fastscalar.cli import bench

WORKLOADS = ["scalar operations", "MLP 784-256-10, batch size 1", "MLP 784-256-10, batch size 64"]
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


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], float]:
    folder = tmp_path_factory.mktemp("bench")
    start = sum(os.times()[2:4])  # of the processor, in processes that have ended
    done = run(folder, "--quick", "--json", "figures.json")
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
    assert seen.count("twin / it") == len(WORKLOADS)
    assert "WRONG" not in seen
    assert seen.splitlines()[-1].startswith("All numbers right; ")
    assert seconds < 40  # a few, on a machine that does nothing else


def test_the_figures(quick: tuple[str, dict[str, Any], float]) -> None:
    _, report, _ = quick
    assert report["correct"]
    assert report["kernels"] == fs.tape_info()["kernels"]
    assert {"cpu", "cores", "python", "numpy", "system"} <= report.keys()
    assert [block["title"].split(":")[0] for block in report["workloads"]] == WORKLOADS
    for block in report["workloads"]:
        engine = block["contestants"]["fastscalar"]
        for result in block["contestants"].values():
            assert result["correct"]
            assert result["median"] > 0
            assert result["spread"] >= 0
        twin = next(iter(block["contestants"].values()))
        assert engine["twin_ratio"] == pytest.approx(twin["median"] / engine["median"])


def test_mnist_is_named(tmp_path: Path) -> None:
    root = os.environ.get("FASTSCALAR_DATA")
    if not root or not (Path(root) / "mnist").is_dir():
        pytest.skip("FASTSCALAR_DATA has no MNIST")
    only = "bench.products = bench.training = lambda *args: iter(())\nbench.measured = lambda *args: {}\n"
    only += "bench.workloads = lambda quick, all_of=bench.workloads: list(all_of(quick))[:0]"
    done = run(tmp_path, "--quick", change=only, FASTSCALAR_DATA=str(Path(root).absolute()))
    assert "data: the first 640 images of MNIST\n" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("fs.sgd = lambda parameters, lr: None", "other numbers"),
        ("fs.cross_entropy = lambda z, k: 1 / 0", "ZeroDivisionError"),
        ("bench.reference.Tensor.__mul__ = bench.reference.Tensor.__add__", "other numbers"),
    ],
)
def test_wrong_numbers(tmp_path: Path, change: str, said: str) -> None:
    """They are not timed, the others are, and the exit status tells."""
    few = "import fastscalar as fs\nall_of = bench.workloads\nbench.workloads = lambda quick: list(all_of(quick))[:2]\n"
    done = run(tmp_path, "--quick", "--json", "figures.json", change=few + change)
    assert done.returncode == 1
    assert said in done.stdout
    assert "\nWRONG numbers, not timed: " in done.stdout
    assert not [line for line in done.stdout.splitlines() if len(line) >= 80]
    report = json.loads((tmp_path / "figures.json").read_text())
    assert not report["correct"]
    assert report["workloads"][1]["contestants"]["NumPy by hand, float32"]["correct"]
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


@pytest.mark.parametrize(("x", "said"), [(1.234, "1.23"), (12.34, "12.3"), (12345.6, "12,346")])
def test_numbers_of_the_table(x: float, said: str) -> None:
    assert bench.short_number(x) == said
