"""The logger `fastscalar`, and recipes of the documents that hand an Epoch on."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar._warnings import warn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "runs.md"
X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X.sum(axis=1) > 0).astype(int)


def fit(**options: Any) -> fs.History:
    return fs.fit(fs.MLP(3, [4, 2], seed=0), X, Y, epochs=2, validation_data=(X, Y), progress=False, **options)


def test_epochs_and_fall_backs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="fastscalar"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit()
        warn("this runs eagerly")
    assert [r.levelname for r in caplog.records] == ["INFO", "INFO", "WARNING"]
    assert re.match(r"epoch 1: loss \d+\.\d+, \d+\.\d+ s, accuracy \d", caplog.records[0].getMessage())
    assert caplog.records[2].getMessage() == "this runs eagerly"


def test_it_says_nothing_unasked(capfd: pytest.CaptureFixture[str]) -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("fastscalar").handlers)
    fit()
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)[0], space)
    return space


def test_prometheus(recipes: dict[str, Any]) -> None:
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    history = fit(on_epoch=recipes["to_prometheus"](registry))
    assert registry.get_sample_value("fastscalar_loss") == history.loss[-1]


def test_tensorboard(recipes: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = pytest.importorskip("torch.utils.tensorboard")
    with board.SummaryWriter(tmp_path / "runs") as writer:
        fit(on_epoch=recipes["to_tensorboard"](writer))
    assert list((tmp_path / "runs").iterdir())


def test_mlflow(recipes: dict[str, Any], tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with mlflow.start_run() as run:
        history = fit(on_epoch=recipes["to_mlflow"])
    assert mlflow.get_run(run.info.run_id).data.metrics["loss"] == pytest.approx(history.loss[-1])
