"""The drawn digits: the same everywhere, no image twice, and as hard as a real set."""

from __future__ import annotations

import hashlib
import time
from itertools import pairwise

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fastscalar.datasets import synthetic_digits

Array = np.ndarray
Data = tuple[tuple[Array, Array], tuple[Array, Array]]


@pytest.fixture(scope="module")
def timed() -> tuple[Data, float]:
    start = time.process_time()
    data = synthetic_digits()
    return data, time.process_time() - start


@pytest.fixture(scope="module")
def data(timed: tuple[Data, float]) -> Data:
    return timed[0]


@pytest.fixture(scope="module")
def rows(data: Data) -> Data:
    """Pixels as a network takes them: float32 of shape (n, 784), 0 to 1."""
    (X, y), (X_test, y_test) = data
    scale = np.float32(1 / 255)
    return (X.reshape(-1, 784) * scale, y), (X_test.reshape(-1, 784) * scale, y_test)


# --- what is drawn ---


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, "aee843c817389c99a903a4b2f9158eddec11d7c904f77f6bce7f26939ddf9099"),
        (2**64 - 1, "da6a4c126565b691fb63a001344da10ed2095c4e05a8aea074288ea463d87ed2"),
    ],
)
def test_same_bytes_everywhere(seed: int, expected: str) -> None:
    digest = hashlib.sha256()
    for images, labels in synthetic_digits(500, 100, seed):
        digest.update(images.tobytes())
        digest.update(labels.tobytes())
    assert digest.hexdigest() == expected


def test_shapes_and_types(data: Data) -> None:
    (X, y), (X_test, y_test) = data
    assert X.shape == (60000, 28, 28)
    assert y.shape == (60000,)
    assert X_test.shape == (10000, 28, 28)
    assert y_test.shape == (10000,)
    assert {a.dtype for a in (X, y, X_test, y_test)} == {np.dtype(np.uint8)}
    assert all(a.flags.c_contiguous and a.flags.writeable for a in (X, y, X_test, y_test))


@pytest.mark.parametrize(("n_train", "n_test"), [(0, 0), (1, 0), (129, 3), (1000, 1)])
def test_a_small_set_is_the_beginning_of_a_large_one(data: Data, n_train: int, n_test: int) -> None:
    (X, y), (X_test, y_test) = synthetic_digits(n_train, n_test)
    assert np.array_equal(X, data[0][0][:n_train])
    assert np.array_equal(y, data[0][1][:n_train])
    assert np.array_equal(X_test, data[1][0][:n_test])
    assert np.array_equal(y_test, data[1][1][:n_test])


def test_no_image_twice(data: Data) -> None:
    """Neither in one part, nor in both, nor with another seed."""
    other = synthetic_digits(2000, 1000, seed=1)
    images = [part[0].reshape(-1, 784) for part in (*data, *other)]
    assert len({row.tobytes() for part in images for row in part}) == 73000


def test_labels_are_balanced_and_shuffled(data: Data) -> None:
    for _, y in data:
        n = len(y)
        counts = np.bincount(y, minlength=10)
        assert len(counts) == 10
        # Each count is binomial; five standard deviations.
        assert np.abs(counts - n / 10).max() < 5 * np.sqrt(n * 0.09)
        assert abs((y[1:] == y[:-1]).mean() - 0.1) < 0.015


def test_ink(data: Data) -> None:
    """As sparse as MNIST (19 % not zero); nothing empty, nothing black, hardly anything cut off."""
    (X, _), (X_test, _) = data
    for images in (X, X_test):
        share = (images > 0).mean(axis=(1, 2))
        assert 0.15 < share.mean() < 0.25
        assert share.min() > 0.02
        assert share.max() < 0.6
        assert (images.max(axis=(1, 2)) > 120).all()
    border = np.ones((28, 28), bool)
    border[1:-1, 1:-1] = False
    assert (X[:, border] > 128).any(axis=1).mean() < 0.08


def test_time(timed: tuple[Data, float]) -> None:
    assert timed[1] < 10, f"70,000 images took {timed[1]:.1f} s"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"n_train": -1}, ValueError),
        ({"n_test": 2**31}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": 2**64}, ValueError),
        ({"n_train": 1.5}, TypeError),
        ({"seed": None}, TypeError),
    ],
)
def test_bad_arguments(arguments: dict[str, int], error: type[Exception]) -> None:
    with pytest.raises(error):
        synthetic_digits(**{"n_train": 1, "n_test": 1, **arguments})


# --- how hard it is ---


def network(rows: Data, hidden: list[int], epochs: int = 5, rate: float = 0.1, batch: int = 32) -> float:
    """Test accuracy of a perceptron: ReLU, He initialisation, softmax cross-entropy, SGD, falling rate."""
    (X, y), (X_test, y_test) = rows
    rng = np.random.default_rng(0)
    sizes = [784, *hidden, 10]
    weights = [(rng.standard_normal((a, b)) * np.sqrt(2 / a)).astype(np.float32) for a, b in pairwise(sizes)]
    biases = [np.zeros(b, np.float32) for b in sizes[1:]]
    steps = epochs * (len(X) // batch)
    order = np.concatenate([rng.permutation(len(X))[: len(X) // batch * batch] for _ in range(epochs)])
    for step, chosen in enumerate(order.reshape(steps, batch)):
        layers = [X[chosen]]
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            layers.append(np.maximum(layers[-1] @ w + b, 0))
        out = layers[-1] @ weights[-1] + biases[-1]
        grad = np.exp(out - out.max(axis=1, keepdims=True))
        grad /= grad.sum(axis=1, keepdims=True)
        grad[np.arange(batch), y[chosen]] -= 1
        scale = np.float32(rate * (1 - step / steps) / batch)
        for k in reversed(range(len(weights))):
            below = (grad @ weights[k].T) * (layers[k] > 0) if k else grad
            weights[k] -= scale * (layers[k].T @ grad)
            biases[k] -= scale * grad.sum(axis=0)
            grad = below
    out = X_test
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        out = np.maximum(out @ w + b, 0)
    return float(((out @ weights[-1] + biases[-1]).argmax(axis=1) == y_test).mean())


def test_nearest_class_mean(rows: Data) -> None:
    (X, y), (X_test, y_test) = rows
    means = np.stack([X[y == digit].mean(axis=0) for digit in range(10)])
    nearest = ((means**2).sum(axis=1) - 2 * X_test @ means.T).argmin(axis=1)
    accuracy = (nearest == y_test).mean()
    assert 0.6 < accuracy < 0.85, accuracy


def test_linear_classifier(rows: Data) -> None:
    accuracy = network(rows, [])
    assert 0.85 <= accuracy <= 0.93, accuracy


def test_linear_classifier_of_scikit_learn(rows: Data) -> None:
    """Another method on a sixth of the images, with as much regularisation as suits so few."""
    (X, y), (X_test, y_test) = rows
    model = LogisticRegression(C=0.02, tol=0.01, max_iter=300).fit(X[:10000], y[:10000])
    accuracy = model.score(X_test, y_test)
    assert 0.85 <= accuracy <= 0.93, accuracy


def test_multilayer_perceptron(rows: Data) -> None:
    accuracy = network(rows, [256])
    assert 0.97 <= accuracy <= 0.995, accuracy
