"""Files of each release are read for ever, and say what they said.  A release adds a folder to tests/golden."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fastscalar as fs

RELEASES = sorted(path for path in (Path(__file__).resolve().parent.parent / "golden").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_a_net(folder: Path) -> None:
    said = json.loads((folder / "net.json").read_text())
    net = fs.load(folder / "net.npz")
    assert [[float(t.data) for t in net(row)] for row in said["rows"]] == said["outputs"]


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_a_module(folder: Path) -> None:
    said = json.loads((folder / "module.json").read_text())
    net = fs.load(folder / "module.npz")
    assert net.metadata == {"kept": {"since": "0.1.0"}}
    found = [[float(t.data) for t in net(row)] for row in said["rows"]]
    np.testing.assert_allclose(found, said["outputs"], rtol=1e-14)  # tanh and gelu are the C library's


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_the_state_of_an_optimizer(folder: Path) -> None:
    net = fs.load(folder / "net.npz")
    optimizer = fs.Adam(net.parameters())
    with np.load(folder / "adam.npz") as state:
        optimizer.load_state_dict(state)
    assert optimizer.state_dict()["steps"] == 5
    assert optimizer.lr == 0.01


@pytest.mark.parametrize("folder", RELEASES, ids=lambda folder: folder.name)
def test_a_run(folder: Path) -> None:
    net = fs.load(folder / "run" / "model.npz")
    report = json.loads((folder / "run" / "training.json").read_text())
    assert [w.shape for w in net.linears[0].parameters()] == [(784, 2), (2,)]
    assert report["version"] == folder.name
