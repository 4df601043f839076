"""A whole epoch of MNIST, sample by sample, MLP 784-256-10, by `fastscalar train` with its defaults.

The command runs in a process of its own and reports the seconds of each epoch, loading and evaluation aside.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
import workloads
from workloads import SEED


@pytest.fixture(autouse=True)
def needs_mnist() -> None:
    try:
        fs.datasets.mnist(download=False)
    except fs.datasets.DatasetUnavailable:
        pytest.skip("no MNIST: FASTSCALAR_DATA is not set to a folder that has it")


def train(folder: pathlib.Path, epochs: int, *options: str) -> dict[str, Any]:
    """What the command says in its JSON file."""
    file = folder / "out.json"
    command = [sys.executable, "-m", "fastscalar", "train", "--data", "mnist", "--quiet"]
    command += ["--epochs", str(epochs), "--seed", str(SEED), "--json", str(file), *options]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads(file.read_text(encoding="utf-8"))


def test_one_epoch(benchmark: Any, bar: Any, small: bool, tmp_path: pathlib.Path) -> None:
    options = ["--limit", "1000"] if small else []
    first = train(tmp_path, 1, *options)
    assert first["training_images"] == (1_000 if small else 60_000)
    assert first["parameters"] == 785 * 256 + 257 * 10
    seconds = []

    def run() -> None:
        report = train(tmp_path, 1, *options)
        assert report["epochs"][0]["loss"] == first["epochs"][0]["loss"]
        assert report["test_accuracy"] == first["test_accuracy"] > (0.7 if small else 0.96)
        seconds.append(report["epochs"][0]["seconds"])

    benchmark.pedantic(run, rounds=1 if small else 3 if workloads.SHORT else 5)
    bar("mnist_epoch: one epoch", statistics.median(seconds), "s", at_most=4)
    bar("mnist_epoch: test accuracy after one epoch", 100 * first["test_accuracy"], "%", at_least=96)


def test_ten_epochs(benchmark: Any, bar: Any, small: bool, tmp_path: pathlib.Path) -> None:
    """The rate falls linearly over the run, so these are not the first epoch and nine more of its kind."""
    options = ["--limit", "1000"] if small else []
    report = benchmark.pedantic(train, (tmp_path, 2 if small else 10, *options), rounds=1)
    losses = [epoch["loss"] for epoch in report["epochs"]]
    assert np.all(np.diff(losses) < 0)
    bar("mnist_epoch: ten epochs", report["seconds"], "s", at_most=20)
    bar("mnist_epoch: test accuracy after ten epochs", 100 * report["test_accuracy"], "%", at_least=98.2)
