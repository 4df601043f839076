"""`sample_weight` of the estimators: a row that counts twice is the row twice, to the bit, others compare."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone
from sklearn.ensemble import AdaBoostClassifier
from sklearn.utils.estimator_checks import estimator_checks_generator

from fastscalar.sklearn import MLPClassifier, MLPRegressor

KINDS = [
    MLPClassifier(8, max_iter=4, random_state=0),
    MLPClassifier(8, solver="adam", batch_size=4, max_iter=4, random_state=0),
    MLPClassifier(8, solver="rmsprop", momentum=0.5, dtype="float32", max_iter=4, random_state=0),
    MLPClassifier(8, shuffle=False, momentum=0.9, max_iter=4, random_state=0),
    MLPRegressor(8, max_iter=4, random_state=0),
    MLPRegressor((), solver="adamw", batch_size=3, max_iter=4, random_state=0),
]


def table(kind: object, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    X = draw.normal(size=(n, 3))
    y = X @ [1.0, -2.0, 0.5] + draw.normal(size=n)
    return X, (y > 0).astype(int) if isinstance(kind, MLPClassifier) else y


def numbers(net: MLPClassifier | MLPRegressor) -> np.ndarray:
    return np.concatenate([a.ravel() for a in (*net.coefs_, *net.intercepts_)])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_weight_is_how_often_a_row_is_there(kind):
    X, y = table(kind)
    weights = np.random.default_rng(2).integers(0, 5, size=len(X))
    again = clone(kind).fit(X.repeat(weights, axis=0), y.repeat(weights))
    net = clone(kind).fit(X, y, sample_weight=weights)
    np.testing.assert_array_equal(numbers(net), numbers(again))
    assert net.t_ == again.t_ == 4 * weights.sum()
    np.testing.assert_array_equal(net.predict(X), again.predict(X))
    if kind.shuffle:                             # neither does it matter how the rows are sorted
        order = np.random.default_rng(3).permutation(len(X))
        np.testing.assert_array_equal(
            numbers(clone(kind).fit(X[order], y[order], sample_weight=weights[order])), numbers(net)
        )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_parts_of_a_fit_are_weighted_alike(kind):
    X, y = table(kind)
    weights = np.random.default_rng(2).integers(0, 3, size=len(X))
    more = {"classes": [0, 1]} if isinstance(kind, MLPClassifier) else {}
    net, again = clone(kind), clone(kind)
    for part in (slice(0, 30), slice(30, 60)):
        w = weights[part]
        net.partial_fit(X[part], y[part], sample_weight=w, **more)
        again.partial_fit(X[part].repeat(w, axis=0), y[part].repeat(w), **more)
    np.testing.assert_array_equal(numbers(net), numbers(again))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_numbers_that_are_no_counts_are_relative(kind):
    X, y = table(kind)
    weights = np.random.default_rng(2).uniform(0.1, 3.0, size=len(X))
    found = [numbers(clone(kind).fit(X, y, sample_weight=weights * factor)) for factor in (1.0, 2.0**-20, 2.0**40)]
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
    plain = numbers(clone(kind).fit(X, y))
    assert not np.array_equal(found[0], plain)
    for same in (0.7, 1 / len(X), 1e300, 1e-300, 1):
        np.testing.assert_array_equal(numbers(clone(kind).fit(X, y, sample_weight=[same] * len(X))), plain)
    halves = numbers(clone(kind).fit(X, y, sample_weight=np.where(np.arange(len(X)) < 30, 0.5, 0.0)))
    np.testing.assert_array_equal(halves, numbers(clone(kind).fit(X[:30], y[:30])))


def test_counts_beyond_reason_are_relative():
    """A survey's weights, people for each row: not so many steps."""
    kind = MLPRegressor(4, max_iter=1, random_state=0)
    X, y = table(kind)
    net = kind.fit(X, y, sample_weight=np.arange(60) * 1_000_000)
    assert net.t_ < 150


@pytest.mark.parametrize("options", [{}, {"solver": "adam", "batch_size": 8, "learning_rate_init": 0.01}])
def test_what_weighs_little_teaches_little(options):
    """Half of the rows have wrong labels, and the weights know which."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(600, 2))
    right = np.where(X[:, 0] + X[:, 1] > 0, "up", "down")
    wrong = draw.uniform(size=600) < 0.55
    y = np.where(wrong, np.where(right == "up", "down", "up"), right)
    net = MLPClassifier(8, random_state=0, **options).fit(X, y, sample_weight=np.where(wrong, 0.04, 0.9))
    assert net.score(X, right) > 0.95
    assert net.score(X, y, sample_weight=~wrong) > 0.95
    targets = np.where(wrong, -100.0, X[:, 0])
    line = MLPRegressor((), random_state=0, **options).fit(X, targets, sample_weight=np.where(wrong, 1e-7, 1.0))
    assert line.score(X[~wrong], targets[~wrong]) > 0.9


def test_boosting():
    """Its weights add up to 1."""
    X, y = table(KINDS[0], 300)
    boosted = AdaBoostClassifier(MLPClassifier(2, max_iter=5, random_state=0), n_estimators=3, random_state=0).fit(X, y)
    assert boosted.score(X, y) > 0.75
    assert len(boosted.estimators_) == 3


def test_early_stopping_keeps_all_of_a_row_aside():
    X, y = table(KINDS[0], 200)
    weights = np.random.default_rng(0).integers(0, 4, size=200)
    net = MLPClassifier(4, early_stopping=True, max_iter=50, random_state=0).fit(X, y, sample_weight=weights)
    there = np.count_nonzero(weights)
    assert len(net.history_.validation_loss) == net.n_iter_
    assert net.t_ < net.n_iter_ * (weights.sum() - there // 20)


@pytest.mark.parametrize("kind", KINDS[::4], ids=str)
@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([-1.0] + [1.0] * 59, "sample_weight"),
        ([0.0] * 60, "weight.*zero"),
        ([1.0] * 59, "sample_weight"),
        ([[1.0]] * 60, "Sample weights must be 1D"),
        ([np.nan] * 60, "sample_weight contains NaN"),
        ([np.inf] * 60, "sample_weight contains infinity"),
        (["heavy"] * 60, "heavy"),
    ],
)
def test_weights_that_are_none(kind, weights, message):
    X, y = table(kind)
    with pytest.raises(ValueError, match=message):
        clone(kind).fit(X, y, sample_weight=weights)


def test_scikit_learn_checks_weights():
    names = {getattr(check, "func", check).__name__ for _, check in estimator_checks_generator(MLPClassifier())}
    assert "check_sample_weight_equivalence_on_dense_data" in names
