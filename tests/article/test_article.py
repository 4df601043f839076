"""The article's program, cell by cell: on fastscalar and on the twin, and with all 60,000 images."""

import json
import os
import pathlib
import subprocess
import sys

import cells
import pytest

import fastscalar

HERE = pathlib.Path(__file__).parent
FOLDER = pathlib.Path(os.environ.get("FASTSCALAR_DATA", "/nonexistent")) / "mnist"
needs_mnist = pytest.mark.skipif(not FOLDER.is_dir(), reason="no MNIST: FASTSCALAR_DATA has no folder mnist")

TWIN = ("from fastscalar import", "from fastscalar.reference import")
FEW = ("train_data = 60000", "train_data = 20")
GIGABYTE = 1 << 30


@pytest.mark.parametrize("changes", [(), (TWIN,)], ids=["engine", "twin"])
def test_the_gradient_by_hand(changes):
    namespace = {}
    cells.run(namespace, changes, upto="gradient by backward()")
    assert namespace["by_hand"] == namespace["by_backward"] == [6.0, 4.0, 2.0, 1.0]


def test_the_toys_on_engine_and_twin():
    """Equal losses, to the last bit, and they fall below a quarter."""
    engine, twin = {}, {}
    cells.run(engine, upto="toy regression, two layers")
    cells.run(twin, [TWIN], upto="toy regression, two layers")
    assert twin["Tensor"] is fastscalar.reference.Tensor
    assert engine["Tensor"] is fastscalar.Tensor
    for name in ("linear_losses", "mlp_losses"):
        assert engine[name] == twin[name]
        assert engine[name][-1] < engine[name][0] / 4


@pytest.mark.mnist
@needs_mnist
def test_twenty_images_on_engine_and_twin():
    """The MNIST cells too: equal losses to the last bit, and what the article's print statement had wrong."""
    found = []
    for changes in ([FEW], [FEW, TWIN]):
        namespace = {}
        printed, _ = cells.run(namespace, changes)
        found.append((namespace["mnist_losses"], printed))
    assert found[0] == found[1]
    losses, printed = found[0]
    assert losses[1] < losses[0]
    assert printed.splitlines() == [f"epoch {k + 1}: {loss:.2f}" for k, loss in enumerate(losses)]


@pytest.mark.mnist
@needs_mnist
def test_all_sixty_thousand_images():
    """47 million leaves: under 3 GB, and a step at most 1.5 times the time that it takes with NumPy rows."""
    environment = {**os.environ, "FASTSCALAR_STRESS": "0"}
    command = [sys.executable, str(HERE / "full_run.py")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout)
    assert report["nodes"] > 60_000 * 785
    assert report["peak_bytes"] < 3 * GIGABYTE
    assert report["losses"][1] < 0.1 * report["losses"][0]
    assert report["printed"].count("epoch") == 2
    step = report["steps"]["Linear(784, 10)"]  # the article's net
    assert step["ratio"] <= 1.5, report["steps"]
