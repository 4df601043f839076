"""Narrow layers trained by single dense rows, whose weights lie turned while a run lasts: nothing outside sees that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fastscalar.nn import trainers

pytestmark = pytest.mark.skipif(_core.tape_info()["stress"], reason="training runs, in stress mode")

SHAPES = [(1, 2), (7, 3), (16, 10), (33, 15), (50, 16), (50, 17), (100, 6)]
BOUND = {"float64": 1e-12, "float32": 2e-5}


@pytest.fixture(params=_core.kernel_sets())
def every_set(request: Any) -> Iterator[None]:
    before = _core.tape_info()["kernels"]
    _core._select_kernels(request.param)
    yield
    _core._select_kernels(before)


def rows(inputs: int, outputs: int, n: int = 12) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(inputs)
    return draw.uniform(0.1, 1.0, (n, inputs)), draw.integers(0, outputs, n)


def trained(net: Any, X: np.ndarray, y: np.ndarray, **keywords: Any) -> np.ndarray:
    options = {"epochs": 2, "optimizer": fs.SGD(lr=0.1), "shuffle": False, "progress": False, "schedule": None}
    fs.fit(net, X, y, **options | keywords)
    return np.concatenate([v.ravel() for v in net.state_dict().values()])


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
def test_they_learn_what_they_learn_uncompiled(inputs: int, outputs: int, dtype: Any, every_set: None) -> None:
    X, y = rows(inputs, outputs)
    made = [trained(fs.Linear(inputs, outputs, seed=1), X, y, dtype=dtype, compile=True)]
    made.append(trained(fs.Linear(inputs, outputs, seed=1), X, y, compile=False))
    np.testing.assert_allclose(made[0], made[1], rtol=0, atol=BOUND[dtype])


def test_a_number_beyond_all_bounds_reaches_no_weight_of_a_zero() -> None:
    X, y = rows(7, 3)
    X[5, 1:3] = 1e160, 0.0
    made = [
        trained(fs.Linear(7, 3, seed=1), X, y, epochs=1, optimizer=fs.SGD(lr=1e-30), compile=way)
        for way in (True, False)
    ]
    np.testing.assert_allclose(made[0], made[1], rtol=1e-12)


def test_an_input_of_zero_meets_no_infinite_weight() -> None:
    X, y = rows(7, 3)
    X[:, 2] = 0.0
    made = []
    for way in (True, False):
        net = fs.Linear(7, 3, seed=1)
        w = np.full((7, 3), 0.1)
        w[2] = np.inf
        net.load_state_dict({**net.state_dict(), "w": w})
        made.append(trained(net, X, y, compile=way))
    np.testing.assert_allclose(made[0], made[1], rtol=1e-12)


@pytest.mark.parametrize("dtype", BOUND)
def test_bits_do_not_depend_on_how_the_rows_are_cut_into_runs(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = rows(50, 10, 40)
    whole = trained(fs.Linear(50, 10, seed=1), X, y, dtype=dtype)
    monkeypatch.setattr(trainers, "REPORT_EVERY", 3)
    assert trained(fs.Linear(50, 10, seed=1), X, y, dtype=dtype).tobytes() == whole.tobytes()
