"""fastscalar.sklearn beside scikit-learn's own nets: processor time of `fit`, and the score on what was kept aside.

Each side has its defaults, one hidden layer of 100 units, and one thread; of MNIST we see three epochs, scikit-learn
ten.  Scores are of the same seed and the same split, and are compared before the times are: whoever is faster must not
be worse by more than what two seeds differ in.
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import numpy as np
import pytest

import fastscalar as fs

pytest.importorskip("sklearn", minversion="1.6")

from sklearn import datasets, neural_network
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from fastscalar.sklearn import MLPClassifier, MLPRegressor

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # X, X_test, y, y_test


def table(X: np.ndarray, y: np.ndarray, scaled: bool = True) -> Split:
    X, X_test, y, y_test = train_test_split(X, y, random_state=0)
    scaler = StandardScaler(with_mean=scaled, with_std=scaled).fit(X)
    return scaler.transform(X), scaler.transform(X_test), y, y_test


def digits() -> Split:
    return table(*datasets.load_digits(return_X_y=True), scaled=False)


def cancer() -> Split:
    return table(*datasets.load_breast_cancer(return_X_y=True))


def friedman() -> Split:
    return table(*datasets.make_friedman1(10_000, noise=1.0, random_state=0))


def mnist() -> Split:
    try:
        (X, y), (X_test, y_test) = fs.datasets.mnist(download=False)
    except fs.datasets.DatasetUnavailable:
        pytest.skip("no MNIST: FASTSCALAR_DATA is not set to a folder that has it")
    return X.reshape(-1, 784) / 255, X_test.reshape(-1, 784) / 255, y, y_test


CASES = {  # data, our estimator, theirs, options (ours, theirs), by how much our score may be less
    "digits": (digits, MLPClassifier, neural_network.MLPClassifier, {}, 0.01),
    "breast cancer": (cancer, MLPClassifier, neural_network.MLPClassifier, {}, 0.01),
    "friedman": (friedman, MLPRegressor, neural_network.MLPRegressor, {}, 0.005),
    "mnist": (mnist, MLPClassifier, neural_network.MLPClassifier, {"max_iter": (3, 10)}, 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_estimators(benchmark: Any, bar: Any, small: bool, name: str) -> None:
    load, ours, theirs, options, less = CASES[name]
    X, X_test, y, y_test = load()
    if small:
        X, y, options = X[:300], y[:300], {"max_iter": (5, 5)}
    seconds: dict[str, list[float]] = {"fastscalar": [], "scikit-learn": []}
    scores = {}

    def run() -> None:
        for k, (side, kind) in enumerate((("fastscalar", ours), ("scikit-learn", theirs))):
            net = kind(random_state=0, **{key: both[k] for key, both in options.items()})
            with warnings.catch_warnings(), threadpool_limits(1):
                warnings.simplefilter("ignore")  # theirs says so if it would like to go on
                begin = time.process_time()
                net.fit(X, y)
                seconds[side].append(time.process_time() - begin)
            scores[side] = net.score(X_test, y_test)

    benchmark.pedantic(run, rounds=1 if small or name == "mnist" else 3)
    assert small or scores["fastscalar"] >= scores["scikit-learn"] - less
    benchmark.extra_info["scores"] = scores
    medians = {side: statistics.median(times) for side, times in seconds.items()}
    bar(f"estimators: {name}, times as fast", medians["scikit-learn"] / medians["fastscalar"], "", at_least=1)
