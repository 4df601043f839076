"""fit with an iterable of batches: the same as with their arrays, in their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastscalar as fs

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(25, 4))
Y = (X[:, 0] > 0).astype(int)


def pairs(X: np.ndarray = X, y: np.ndarray = Y, size: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(X[k : k + size], y[k : k + size]) for k in range(0, len(X), size)]


class Loader:
    """As a DataLoader: can be gone through again, knows no index, gives lists."""

    def __iter__(self) -> Any:
        return iter([[list(map(list, x)), y.tolist()] for x, y in pairs()])


def weights(net: Any) -> np.ndarray:
    return np.concatenate([v.ravel() for v in net.state_dict().values()])


@pytest.mark.parametrize("way", [pairs, lambda: tuple(pairs()), Loader, lambda: lambda: iter(pairs())])
@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("make", [fs.SGD, lambda: fs.Adam(lr=0.01)], ids=["sgd", "adam"])
def test_batches_are_their_arrays(way: Any, compile: bool, make: Any) -> None:
    nets = [fs.MLP(4, [5, 2], seed=0) for _ in range(2)]
    ours = fs.fit(nets[0], way(), optimizer=make(), epochs=3, compile=compile, progress=False)
    other = fs.fit(nets[1], X, Y, batch_size=6, shuffle=False, optimizer=make(), epochs=3, compile=compile,
                   progress=False)  # fmt: skip
    assert ours.loss == other.loss
    assert (weights(nets[0]) == weights(nets[1])).all()


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("labels", ["the same classes", "others in the first epoch"])
def test_every_epoch_has_its_own(compile: bool, labels: str) -> None:
    epochs = [(DRAW.normal(size=(25, 4)), DRAW.integers(0, 3, 25)) for _ in range(3)]
    if labels != "the same classes":
        epochs[0] = (epochs[0][0], np.zeros(25, int))
    seen = []

    def batches() -> Any:
        seen.append(len(seen))
        return pairs(*epochs[seen[-1]])

    nets = [fs.MLP(4, [5, 3], seed=0) for _ in range(2)]
    fs.fit(nets[0], batches, epochs=3, schedule=None, compile=compile, progress=False)
    assert seen == [0, 1, 2]
    for x, y in epochs:
        fs.fit(nets[1], x, y, batch_size=6, shuffle=False, epochs=1, schedule=None, compile=compile, progress=False)
    np.testing.assert_allclose(weights(nets[0]), weights(nets[1]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("batches", "options", "said"),
    [
        (lambda: iter(pairs()), {}, "which can be gone through once"),
        (list, {}, "has no batches"),
        (lambda: [X[:3]], {}, "batch 0: expected a pair"),
        (lambda: [(X[:3], Y[:2])], {}, "batch 0: X and y of shapes"),
        (lambda: [(X[:3], Y[:3]), (X[:2], Y[:2]), (X[:3], Y[:3])], {}, "batch 1 has 2 samples; expected 3"),
        (lambda: [(X[:3], Y[:3]), (X[:4], Y[:4])], {}, "batch 1 has 4 samples"),
        (lambda: [(X[:3], Y[:3]), (X[:3, :2], Y[:3])], {}, "do not fit together"),
        (pairs, {"batch_size": 6}, "batch_size: not with batches"),
        (pairs, {"class_weight": "balanced"}, "class_weight: not with batches"),
        (lambda: 3, {}, "y is missing"),
        (lambda: X, {}, "y is missing"),
        (lambda: pairs(np.where(X > 9, X, 200 * np.ones(X.shape, np.uint8)).astype(np.uint8)), {}, "uint8"),
    ],
)
def test_what_does_not_fit_is_said(batches: Any, options: Any, said: str) -> None:
    net = fs.MLP(4, [5, 2], seed=0)
    before = weights(net)
    with pytest.raises((ValueError, TypeError), match=said):
        fs.fit(net, batches(), progress=False, **options)
    assert (weights(net) == before).all()


def test_an_epoch_that_is_shorter_is_refused_and_the_net_is_as_after_the_one_before() -> None:
    seen: list[int] = []

    def batches() -> Any:
        seen.append(0)
        return pairs() if len(seen) < 2 else pairs()[:-1]

    nets = [fs.MLP(4, [5, 2], seed=0) for _ in range(2)]
    with pytest.raises(ValueError, match="the first was of"):
        fs.fit(nets[0], batches, epochs=3, schedule=None, progress=False)
    fs.fit(nets[1], X, Y, batch_size=6, shuffle=False, epochs=1, schedule=None, progress=False)
    assert (weights(nets[0]) == weights(nets[1])).all()
