"""Dropout: what is left out follows from seed, epoch, row and place, however the net is run."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6))
Y = (X.sum(axis=1) > 0).astype(int)


def net_with_dropout() -> Any:
    draw = random.Random(0)
    return nn.Sequential(
        fs.Linear(6, 16, seed=draw), "relu", nn.Dropout(0.5), fs.Linear(16, 8, seed=draw), "tanh", nn.Dropout(0.2),
        fs.Linear(8, 2, seed=draw),
    )  # fmt: skip


def trained(**options: Any) -> dict[str, np.ndarray]:
    net = net_with_dropout()
    fs.fit(net, X, Y, **{"epochs": 3, "progress": False, "optimizer": fs.SGD(lr=0.05), **options})
    return net.state_dict()


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray], rtol: float = 1e-9) -> None:
    for name, value in a.items():
        np.testing.assert_allclose(b[name], value, rtol=rtol, atol=1e-11)


@pytest.mark.parametrize("batch_size", [1, 12])
def test_compiled_and_eager_leave_out_the_same(batch_size: int) -> None:
    compiled = trained(batch_size=batch_size)
    assert_same(compiled, trained(batch_size=batch_size, compile=False))
    other = trained(batch_size=batch_size, seed=1, shuffle=False)
    assert any(not np.allclose(other[name], value) for name, value in compiled.items())


def test_threads_leave_out_the_same() -> None:
    assert_same(trained(batch_size=12), trained(batch_size=12, threads=2), 0.0)


@pytest.mark.parametrize("make", [lambda: fs.SGD(lr=0.05, momentum=0.9), lambda: fs.Adam(lr=0.01),
                                  lambda: fs.AdamW(lr=0.01), lambda: fs.RMSprop(lr=0.01)],
                         ids=["momentum", "adam", "adamw", "rmsprop"])  # fmt: skip
@pytest.mark.parametrize("compile", [True, False])
def test_a_run_that_goes_on_is_one_that_was_not_interrupted(make: Any, compile: bool) -> None:
    whole, parts = net_with_dropout(), net_with_dropout()
    options: dict[str, Any] = {"batch_size": 4, "epochs": 4, "compile": compile, "progress": False}
    fs.fit(whole, X, Y, optimizer=make(), **options)

    class Enough:
        def on_epoch(self, epoch: Any) -> None:
            if epoch.epoch == 2:
                raise fs.StopTraining

    first = make()
    fs.fit(parts, X, Y, optimizer=first, callbacks=[Enough()], **options)
    again, second = net_with_dropout(), make()
    again.load_state_dict(parts.state_dict())
    second.bind(again.parameters())
    second.load_state_dict(first.state_dict())
    second._bound_by_fit = True
    fs.fit(again, X, Y, optimizer=second, first_epoch=3, **options)
    assert_same(whole.state_dict(), again.state_dict(), 0.0)


def test_evaluation_leaves_nothing_out() -> None:
    net = net_with_dropout()
    plain = nn.Sequential(*[layer for layer in net if not isinstance(layer, nn.Dropout)])
    assert fs.evaluate(net, X, Y).loss == fs.evaluate(plain, X, Y).loss
    with fs.random.stream(seed=0, row=0):
        assert net(X[0]).tolist() != plain(X[0]).tolist()


def test_the_mean_stays_and_gradients_pass_what_was_kept() -> None:
    layer, x = nn.Dropout(0.25), fs.to_tensor(np.ones(4000))
    with fs.random.stream(seed=3, row=0):
        out = layer(x)
    fs.sum(out).backward()
    assert np.array_equal(x.grad, out.numpy())
    assert abs(float(out.numpy().mean()) - 1.0) < 0.05
    assert set(out.numpy().tolist()) == {0.0, 1.0 / 0.75}
    for kind in ([fs.Tensor(1.0)] * 3, [1.0] * 3, np.ones(3), [fs.to_tensor([1.0, 1.0])] * 2):
        with fs.random.stream(seed=3, row=0):
            assert np.shape(layer(kind)) == np.shape(kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [1.0, -0.1, True, "0.5"])
def test_a_probability_is_one(p: Any) -> None:
    with pytest.raises(ValueError, match="Dropout: p: expected a probability"):
        nn.Dropout(p)
