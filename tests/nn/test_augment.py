"""fit(augment=) and fs.datasets.augment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastscalar as fs

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(30, 64)) * (RNG.uniform(size=(30, 64)) < 0.3)
Y = (X[:, :32].sum(axis=1) > X[:, 32:].sum(axis=1)).astype(int)


def by_epochs(augment: Any, optimizer: Any, **options: Any) -> Any:
    """The same, an epoch at a time with its own data."""
    net = fs.MLP(64, [5, 2], seed=0)
    for epoch in range(1, 4):

        def stop(e: Any) -> None:
            raise fs.StopTraining

        fs.fit(net, augment(X, epoch), Y, epochs=3, first_epoch=epoch, optimizer=optimizer, callbacks=[stop],
               progress=False, **options)  # fmt: skip
    return net


@pytest.mark.parametrize("options", [{}, {"batch_size": 7}, {"compile": False}, {"batch_size": 7, "compile": False},
                                     {"dtype": "float32"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("make", [fs.SGD, lambda: fs.Adam(lr=0.01)], ids=["sgd", "adam"])
def test_each_epoch_has_its_own_samples(options: dict[str, Any], make: Any) -> None:
    seen = []

    def augment(given: np.ndarray, epoch: int) -> np.ndarray:
        assert np.array_equal(given, X)
        seen.append(epoch)
        return fs.datasets.augment(given, epoch)

    net = fs.MLP(64, [5, 2], seed=0)
    fs.fit(net, X, Y, epochs=3, optimizer=make(), augment=augment, progress=False, **options)
    assert seen == [1, 2, 3]
    other = by_epochs(fs.datasets.augment, make(), **options)
    for name, value in net.state_dict().items():
        np.testing.assert_allclose(other.state_dict()[name], value, rtol=1e-6 if "dtype" in options else 1e-12)


def test_what_does_not_fit_is_said() -> None:
    net = fs.MLP(64, [2], seed=0)
    with pytest.raises(ValueError, match=r"augment: expected an array of float64 of shape \(30, 64\)"):
        fs.fit(net, X, Y, augment=lambda given, epoch: given[1:], progress=False)
    with pytest.raises(TypeError, match="augment: expected a function"):
        fs.fit(net, X, Y, augment=3, progress=False)  # type: ignore[arg-type]
    for images, options, said in (
        (np.zeros((3, 10)), {}, "shape"),
        (np.zeros(64), {}, "shape"),
        (np.zeros((3, 8, 8), int), {}, "floats or uint8"),
        (np.zeros((3, 8, 8)), {"shift": -1}, "shift"),
        (np.zeros((3, 8, 8)), {"scale": 1.5}, "scale"),
        (np.zeros((3, 8, 8)), {"rotation": np.inf}, "rotation"),
    ):
        with pytest.raises(ValueError, match=f"augment: .*{said}"):
            fs.datasets.augment(images, **options)


def test_amounts_of_zero_change_nothing_and_a_shift_moves() -> None:
    images = RNG.uniform(size=(5, 9, 7))
    still = fs.datasets.augment(images, 3, shift=0, rotation=0, scale=0)
    np.testing.assert_allclose(still, images, atol=1e-6)
    spot = np.zeros((50, 28, 28), np.uint8)
    spot[:, 14, 14] = 200
    moved = fs.datasets.augment(spot, 3, rotation=0, scale=0, shift=3)
    assert moved.dtype == np.uint8
    y = (moved * np.arange(28)[:, None]).sum(axis=(1, 2)) / moved.sum(axis=(1, 2)) - 14
    assert 2 < np.abs(y).max() <= 3.1
    assert y.min() < -1 < 1 < y.max()
    assert moved.sum() > 0.95 * spot.sum()


def test_a_turn_keeps_the_middle_and_goes_both_ways() -> None:
    bar = np.zeros((60, 29, 29))
    bar[:, 14, 4:25] = 1.0                       # a line across
    turned = fs.datasets.augment(bar, 0, shift=0, scale=0, rotation=20)
    assert (turned[:, 14, 14] > 0.99).all()
    rows = np.arange(29)[:, None]
    slope = (turned[:, :, 20:] * rows).sum(axis=(1, 2)) / turned[:, :, 20:].sum(axis=(1, 2)) - 14
    assert slope.min() < -1 < 1 < slope.max()
    flat = fs.datasets.augment(bar.reshape(60, -1), 0, shift=0, scale=0, rotation=20)
    assert np.array_equal(flat.reshape(bar.shape), turned)
