"""Nets and losses that look at all rows of a block together: each row gets what it gets alone, also where the first
rows do not show it."""

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.nn.evaluation import outputs

RANDOM = np.random.default_rng(3)
K = RANDOM.integers(0, 3, 60)
# As pixels are: the largest of most rows is 1, and no row is beyond.
X = RANDOM.random((60, 5))
X[:, 1], X[:, 2] = 1.0, 0.0
X[20:30, 1], X[25:35, 2] = 0.8, 0.1
LARGE = X.copy()
LARGE[41, 3] = 7.0

PREPARED = {
    "by the largest": (lambda x: x / x.max(), X),
    "by the smallest": (lambda x: x - x.min(), X),
    "by the range": (lambda x: (x - np.min(x)) / np.ptp(x), X),
    "if one is large": (lambda x: x / 10.0 if np.any(x > 5.0) else x, LARGE),
    "if all are small": (lambda x: x if (x < 5.0).all() else x / 10.0, LARGE),
    "if the largest is": (lambda x: x / x.max() if x.max() > 1.0 else x, LARGE),
    "clipped at the largest but one": (lambda x: np.minimum(x, np.sort(np.unique(x))[-1]) / np.unique(x)[-1], X),
}
prepared = pytest.mark.parametrize("name", PREPARED)


@prepared
@pytest.mark.parametrize("rows", ["in order", "turned"])
def test_predictions(name, rows):
    prepare, data = PREPARED[name]
    data = data if rows == "in order" else data[::-1]
    inner = fs.MLP(5, [4, 3], seed=0)
    net = lambda x: inner(prepare(x))
    right = [net(x).numpy() for x in data]
    np.testing.assert_allclose(np.concatenate(list(outputs(net, data))), right, rtol=1e-9)
    accurate = np.mean([np.argmax(z) == k for z, k in zip(right, K, strict=True)])
    assert fs.evaluate(net, data, K) == pytest.approx(accurate)


@prepared
def test_training(name):
    prepare, data = PREPARED[name]
    inner, other = fs.MLP(5, [4, 3], seed=0), fs.MLP(5, [4, 3], seed=0)
    found = fs.fit(lambda x: other(prepare(x)), data, K, loss=fs.cross_entropy, epochs=2, batch_size=10, shuffle=False,
                   compile=False, schedule=None, optimizer=fs.SGD(other.parameters(), lr=0.1),
                   progress=False).loss  # fmt: skip
    optimizer = fs.SGD(inner.parameters(), lr=0.1)
    by_hand = []
    for _ in range(2):
        total = 0.0
        for first in range(0, 60, 10):
            some = range(first, first + 10)
            mean = fs.sum([fs.cross_entropy(inner(prepare(data[i])), int(K[i])) for i in some]) / 10
            mean.backward()
            optimizer.step()
            optimizer.zero_grad()
            total += 10 * mean.data
        by_hand.append(total / 60)
    np.testing.assert_allclose(found, by_hand, rtol=1e-9)


def test_a_net_that_treats_each_row_alone_is_called_with_many():
    inner = fs.MLP(5, [4, 3], seed=0)
    shapes = []

    def net(x):
        shapes.append(np.shape(x))
        return inner(x * 2.0 - 1.0)

    right = np.argmax([net(x).numpy() for x in X], axis=1)
    shapes.clear()
    assert (fs.predict(net, X) == right).all()
    assert shapes.count((60, 5)) == 1
    assert len(shapes) < 8
    shapes.clear()
    fs.fit(net, X, K, loss=fs.cross_entropy, epochs=3, batch_size=10, compile=False, progress=False,
           optimizer=fs.SGD(inner.parameters(), lr=0.1))  # fmt: skip
    assert shapes.count((10, 5)) >= 17
    assert shapes.count((5,)) < 40
