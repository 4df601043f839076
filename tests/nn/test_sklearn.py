"""scikit-learn's estimators: what scikit-learn checks, what its users do with them, and nets of probabilities."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

import fastscalar as fs

sklearn = pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone  # noqa: E402 - after the skip
from sklearn.datasets import load_diabetes, load_digits  # noqa: E402
from sklearn.exceptions import NotFittedError  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator  # noqa: E402

from fastscalar.sklearn import MLPClassifier, MLPRegressor  # noqa: E402

VARIANTS = [
    MLPClassifier(random_state=0),
    MLPClassifier((32, 16), solver="adam", batch_size=8, max_iter=60, random_state=0),
    MLPClassifier(solver="rmsprop", random_state=0, learning_rate="cosine"),
    MLPClassifier(momentum=0.9, alpha=1e-4, random_state=0),
    MLPClassifier(dtype="float32", batch_size=4, threads=2, random_state=0),
    MLPRegressor(random_state=0),
    MLPRegressor((), random_state=0),
    MLPRegressor(solver="adamw", batch_size=8, max_iter=100, random_state=0),
]


def moons(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(seed).normal(size=(n, 2))
    return X, np.where(X[:, 0] * X[:, 1] > 0, "same", "other")


@pytest.mark.dear
@pytest.mark.parametrize("estimator", VARIANTS, ids=str)
def test_check_estimator(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(clone(estimator), on_skip=None)
    assert len(found) > 40
    assert len(list(estimator_checks_generator(estimator))) == len(found)
    failed = [entry["check_name"] for entry in found if entry["status"] not in ("passed", "skipped")]
    assert not failed


@pytest.mark.parametrize("estimator", VARIANTS[:5], ids=str)
def test_labels_of_any_kind(estimator):
    X, names = moons()
    kinds = {
        "texts": names,
        "objects": names.astype(object),
        "bools": names == "same",
        "numbers": np.where(names == "same", 17, -3),
        "floats": np.where(names == "same", 2.0, 1.0),
    }
    places = []
    for labels in kinds.values():
        net = clone(estimator).fit(X, labels)
        assert net.classes_.tolist() == sorted(set(labels.tolist()))
        found = net.predict(X)
        assert found.dtype == net.classes_.dtype
        assert set(found.tolist()) <= set(labels.tolist())
        places.append(np.searchsorted(net.classes_, found).tolist())
        proba = net.predict_proba(X)
        assert proba.shape == (len(X), 2)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-12)
        assert (net.classes_[proba.argmax(axis=1)] == found).all()
        np.testing.assert_allclose(np.exp(net.predict_log_proba(X)), proba)
    assert all(p == places[0] for p in places)  # the names of the classes change nothing


@pytest.mark.parametrize("factor", [1.0, 1e-9, 1e6, 255.0])
def test_the_unit_of_the_inputs_does_not_matter(factor):
    X, y = load_digits(return_X_y=True)
    net = MLPClassifier(random_state=0, max_iter=10).fit(X[:1200] * factor, y[:1200])
    assert net.score(X[1200:] * factor, y[1200:]) > 0.9


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e6, -1e7), (1e-6, 0.0)])
def test_the_unit_of_the_targets_does_not_matter(scale, shift):
    X, y = load_diabetes(return_X_y=True)
    net = MLPRegressor(random_state=0, max_iter=10).fit(X, y * scale + shift)
    first = MLPRegressor(random_state=0, max_iter=10).fit(X, y)
    assert net.score(X, y * scale + shift) == pytest.approx(first.score(X, y), abs=1e-3)
    assert first.score(X, y) > 0.3


def test_several_targets():
    X = np.random.default_rng(0).normal(size=(300, 3))
    Y = np.column_stack([X @ [1.0, 2.0, 3.0], 100.0 - X[:, 0]])
    net = MLPRegressor(random_state=0).fit(X, Y)
    assert net.predict(X).shape == (300, 2)
    assert net.score(X, Y) > 0.9


def test_pipelines_searches_and_copies():
    X, y = moons()
    net = make_pipeline(StandardScaler(), MLPClassifier(16, max_iter=20, random_state=0))
    choices = {"mlpclassifier__hidden_layer_sizes": [(4,), (16,)], "mlpclassifier__solver": ["sgd"]}
    search = GridSearchCV(net, choices, cv=2).fit(X, y)
    assert search.best_score_ > 0.8
    assert cross_val_score(net, X, y, cv=3).min() > 0.8
    fitted = MLPClassifier(16, random_state=0).fit(X, y)
    for again in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted)):
        assert (again.predict_proba(X) == fitted.predict_proba(X)).all()
        assert again.get_params() == fitted.get_params()
        a, b = again.partial_fit(X, y), pickle.loads(pickle.dumps(fitted)).partial_fit(X, y)
        assert (a.predict_proba(X) == b.predict_proba(X)).all()  # it goes on as the other one does
    assert not hasattr(clone(fitted), "classes_")


@pytest.mark.dear
@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw", "rmsprop"])
def test_partial_fit(solver):
    X, y = moons()
    net = MLPClassifier(16, solver=solver, random_state=0)
    for _ in range(60):
        for part in (slice(0, 150), slice(150, 300)):
            net.partial_fit(X[part], y[part], classes=["other", "same"])
    assert net.score(X, y) > 0.85
    assert net.n_iter_ == 120
    assert net.t_ == 60 * 300
    with pytest.raises(ValueError, match="needs classes"):
        MLPClassifier().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"third.*not among the classes"):
        net.partial_fit(X[:1], ["third"])
    with pytest.raises(ValueError, match="of the first call"):
        net.partial_fit(X, y, classes=["a", "b"])
    one_class = MLPClassifier(4, random_state=0).partial_fit(X[:3], ["same"] * 3, classes=["other", "same"])
    assert one_class.predict_proba(X).shape == (300, 2)


def test_partial_fit_of_targets():
    X = np.random.default_rng(0).normal(size=(200, 2))
    y = 10.0 + X @ [3.0, -2.0]
    net = MLPRegressor(8, random_state=0)
    for _ in range(30):
        net.partial_fit(X[:100], y[:100]).partial_fit(X[100:], y[100:])
    assert net.score(X, y) > 0.95
    with pytest.raises(ValueError, match="before a row had"):
        net.partial_fit(X, np.column_stack([y, y]))


def test_warm_start_goes_on():
    X, y = moons()
    net = MLPClassifier(16, max_iter=3, warm_start=True, random_state=0).fit(X, y)
    first = net.loss_
    net.fit(X, y)
    assert net.loss_ < first
    assert [e.epoch for e in net.history_.epochs] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValueError, match="warm_start: expected the classes"):
        net.fit(X, np.arange(len(X)) % 3)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("options", [{"solver": "bad"}, {"learning_rate": "bad"}, {"hidden_layer_sizes": (0,)}])
def test_what_failed_left_nothing(kind, options):
    """Neither of a first call nor of what was fitted before."""
    X, y = moons(60)
    labels = kind is MLPClassifier
    target = y if labels else X[:, 0]
    more = {"classes": np.unique(y)} if labels else {}
    right = kind(random_state=0).get_params()
    net = kind(**options, random_state=0)
    with pytest.raises(ValueError, match="expected"):
        net.partial_fit(X, target, **more)
    found = net.set_params(**right).partial_fit(X, target, **more).predict(X)
    net.set_params(**options)
    with pytest.raises(ValueError, match="expected"):
        net.fit(X[:, :1], ["a", "b", "c"] * 20 if labels else np.column_stack([target, target]))
    np.testing.assert_array_equal(net.predict(X), found)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_warm_starts_heed_parameters(kind):
    X, y = moons(60)
    target = y if kind is MLPClassifier else 1e200 * X[:, 0]
    net = kind(4, max_iter=1, warm_start=True, random_state=0).fit(X, target)
    first = net.optimizer_
    assert net.fit(X, target).optimizer_ is first
    assert net.set_params(solver="adam", learning_rate_init=0.01).fit(X, target).optimizer_.lr == 0.01
    assert np.isin(net.predict(X), y).all() if kind is MLPClassifier else np.isfinite(net.predict(X)).all()
    with pytest.raises(ValueError, match="X has 1 features"):
        net.fit(X[:, :1], target)
    with pytest.raises(ValueError, match=r"the net has hidden layers \[4\]"):
        net.set_params(hidden_layer_sizes=(3,)).fit(X, target)
    assert net.n_features_in_ == 2
    net.predict(X)


def test_early_stopping():
    X, y = moons(400)
    y = np.where(np.random.default_rng(1).uniform(size=400) < 0.3, "noise", y)
    net = MLPClassifier(64, max_iter=500, early_stopping=True, n_iter_no_change=3, random_state=0)
    net.fit(X, y)
    assert net.n_iter_ < 500
    losses = net.history_.validation_loss
    assert len(losses) == net.n_iter_
    assert all(loss is not None for loss in losses)


def test_the_net_is_one_of_ours():
    X, y = load_digits(return_X_y=True)
    net = MLPClassifier(16, max_iter=2, random_state=0).fit(X, y)
    assert isinstance(net.net_, fs.MLP)
    hidden = np.maximum(X @ net.coefs_[0] + net.intercepts_[0], 0.0)
    logits = hidden @ net.coefs_[1] + net.intercepts_[1]
    assert (net.classes_[logits.argmax(axis=1)] == net.predict(X)).mean() > 0.999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lbfgs"}, "solver: expected one of sgd"),
        ({"hidden_layer_sizes": (4, 0)}, "hidden_layer_sizes"),
        ({"hidden_layer_sizes": (4.5,)}, "hidden_layer_sizes"),
        ({"solver": "adam", "momentum": 0.9}, "momentum is for sgd"),
        ({"learning_rate": "adaptive"}, "schedule"),
        ({"max_iter": 0}, "max_iter"),
        ({"batch_size": 0}, "batch_size: expected a whole number"),
        ({"batch_size": "auto"}, "batch_size: expected a whole number"),
        ({"threads": -1}, "threads: expected a whole number"),
        ({"hidden_layer_sizes": None}, "hidden_layer_sizes"),
        ({"alpha": -1.0}, "weight_decay"),
        ({"dtype": "float16"}, "dtype"),
        ({"early_stopping": True, "validation_fraction": 2.0}, "validation_fraction"),
        ({"learning_rate_init": 1e6}, "StandardScaler"),
    ],
)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_parameters_that_do_not_fit(kind, options, message):
    X, y = moons(60)
    with pytest.raises(ValueError, match=message):
        kind(**options, random_state=0).fit(X, y if kind is MLPClassifier else X[:, 0] * 3)


def test_before_fit():
    with pytest.raises(NotFittedError):
        MLPClassifier().predict([[1.0]])
    with pytest.raises(NotFittedError):
        MLPRegressor().predict([[1.0]])


# --- predict_proba of nets ---


def test_probabilities_of_nets():
    X = np.random.default_rng(0).normal(size=(50, 3))
    net = fs.MLP(3, [5, 4], seed=0)
    found = fs.predict_proba(net, X)
    right = [[p.data for p in fs.softmax(net(x))] for x in X]
    np.testing.assert_allclose(found, right, rtol=1e-12)
    assert (found.argmax(axis=1) == fs.predict(net, X)).all()
    logit = fs.MLP(3, [5, 1], seed=0)
    two = fs.predict_proba(logit, X)
    np.testing.assert_allclose(two[:, 1], [fs.sigmoid(logit(x)[0]).data for x in X], rtol=1e-12)
    np.testing.assert_allclose(two.sum(axis=1), 1.0)


@pytest.mark.parametrize(
    ("logits", "right"),
    [
        ([1000.0, 0.0], [1.0, 0.0]),
        ([-1000.0, -1000.0], [0.5, 0.5]),
        ([np.inf, 0.0], [1.0, 0.0]),
        ([np.inf, np.inf, 1.0], [0.5, 0.5, 0.0]),
        ([-np.inf, 0.0], [0.0, 1.0]),
        ([-np.inf, -np.inf], [0.5, 0.5]),
    ],
)
def test_probabilities_of_extreme_logits(logits, right):
    assert fs.predict_proba(lambda x: list(logits), np.zeros((1, 2)))[0].tolist() == right


def test_probabilities_of_nothing():
    with pytest.raises(FloatingPointError, match="predict_proba"):
        fs.predict_proba(lambda x: [np.nan, 0.0], np.zeros((1, 2)))
    with pytest.raises(ValueError, match="X"):
        fs.predict_proba(fs.MLP(3, [2], seed=0), np.zeros(3))


# --- rates ---


def tables():
    draw = np.random.default_rng(0)
    for columns in (1, 3, 10):
        yield np.exp(1.5 * draw.normal(size=(300, columns)))
        yield draw.standard_t(3, size=(300, columns))
        yield draw.normal(size=(300, columns)) * (draw.uniform(size=(300, columns)) < 0.05)


@pytest.mark.parametrize("hidden", [(8,), (100,), (64, 64, 64)])
def test_our_rates_do_not_diverge(hidden):
    """Whatever the columns hold: a few rows may be a hundred times as long as the others."""
    for X in tables():
        X = StandardScaler().fit_transform(X)
        y = np.sin(X.sum(axis=1))
        net = MLPRegressor(hidden, max_iter=5, random_state=0).fit(X, y)
        assert net.score(X, y) > -1.0
        assert np.isfinite(net.loss_)
        assert net.n_iter_ == len(net.loss_curve_) == 5
        labels = MLPClassifier(hidden, max_iter=5, random_state=0).fit(X, y > 0)
        assert labels.score(X, y > 0) > 0.4


def test_a_rate_that_was_halved_stays_so():
    draw = np.random.default_rng(3)
    X = StandardScaler().fit_transform(draw.normal(size=(400, 3)) * (draw.uniform(size=(400, 3)) < 0.05))
    y = np.sin(X.sum(axis=1))
    net = MLPRegressor(max_iter=5, random_state=0)
    first = net._rate(3)
    net.fit(X, y)
    assert net.optimizer_.lr < first
    for _ in range(3):
        net.partial_fit(X, y)
        assert np.isfinite(net.predict(X)).all()
    again = MLPRegressor(max_iter=5, random_state=0, learning_rate_init=net.optimizer_.lr).fit(X, y)
    halved = MLPRegressor(max_iter=5, random_state=0).fit(X, y)
    np.testing.assert_array_equal(again.predict(X), halved.predict(X))     # nothing is left of what diverged
    with pytest.raises(ValueError, match="StandardScaler"):
        MLPRegressor(max_iter=5, random_state=0, learning_rate_init=first).fit(X, y)
