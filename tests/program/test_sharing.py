"""Rows are shared out over recordings: each to the one that it fits, at the cost of a look or two."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.program.replayed import ReplayedFunction


def barrier(x: Any) -> Any:
    """Ends at one of twelve steps, or at none."""
    level = 0.0 * x[0]
    for k in range(12):
        level = level + 0.3 * x[k]
        if level < -0.5:
            return level * (k + 1.0)
    return level * level


def counted(x: Any) -> Any:
    y, steps = x[0] * x[0] + 1.0, 0
    while y > 0.3 and steps < 15:
        y = y * 0.8 - 0.05 * x[1]
        steps += 1
    return y * steps


def tree(x: Any) -> Any:
    """Every way of four decisions, each of which reads what the ones before it did."""
    total = x[0]
    for k in range(1, 5):
        total = total * x[k] if total > 0.1 * k else total - x[k]
    return total


def whole(x: Any) -> Any:
    """Numbers that are read, and comparisons."""
    k = int(x[0] * 3.0)
    return x[1] * k if x[1] > 0 else x[2] - k


def nested(x: Any) -> Any:
    if x[0] > 0:
        return x[1] if x[2] > 0 else -x[1]
    if x[3] > 0:
        return x[1] * 2.0 if x[2] > 0 else x[1] * 3.0
    return x[1] * x[2]


def in_another_order(x: Any) -> Any:
    """The first decision says which ones follow."""
    first = x[0] > 0
    order = (1, 2, 3) if first else (3, 2, 1)
    total = 1.0 * x[4]
    for k in order:
        if x[k] > 0.2:
            total = total + x[k] * k
        elif x[k] < -0.7:
            return total
    return total


def not_a_number(x: Any) -> Any:
    y = x[0] / x[1] if x[1] != 0 else x[0]
    return y + 1.0 if y > 0 else y - 1.0 if y < 0 else x[2]


FUNCTIONS = [barrier, counted, tree, whole, nested, in_another_order, not_a_number]


def rows(n: int, seed: int, wild: bool = False) -> np.ndarray:
    X = np.random.default_rng(seed).normal(size=(n, 12))
    if wild:
        X[:: n // 7 + 1] = np.nan
        X[1 :: n // 5 + 1, 1] = 0.0
        X[2 :: n // 9 + 1] *= 1e200
    return X


@pytest.mark.parametrize("wild", [False, True])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_row_is_what_the_function_says(function: Any, wild: bool) -> None:
    if wild and function is whole:
        return                                   # int(nan) raises
    program = fs.compile(function)
    for seed in range(3):
        X = rows(60, seed, wild)
        with np.errstate(all="ignore"):
            values, slopes = program.value_and_grad(X)
            again, slopes_again = program.value_and_grad(X)
        assert values.tobytes() == again.tobytes()
        assert slopes.tobytes() == slopes_again.tobytes()
        for k, x in enumerate(X):
            leaf = fs.to_tensor(x)
            y = function(leaf)
            y.backward()
            assert values[k] == pytest.approx(y.data, rel=1e-11, nan_ok=True)
            assert slopes[k] == pytest.approx(np.asarray(leaf.grad), rel=1e-10, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("function", [barrier, counted, tree])
def test_sums_do_not_depend_on_what_was_asked_before(function: Any) -> None:
    """Gradients of leaves are sums over rows: the same bits, whichever rows came first."""
    w = fs.Tensor(1.5)
    X = rows(200, 5)
    found = []
    for order in range(4):
        program = fs.compile(lambda x: function(x) * w)
        shuffled = list(range(200))
        random.Random(order).shuffle(shuffled)
        program.backward(X[shuffled])
        for _ in range(2):
            values = program.backward(X)
        found.append((values.tobytes(), w.grad))
    assert len({values for values, _ in found}) == 1
    assert len({grad for _, grad in found}) == 1


@pytest.mark.parametrize(("function", "looks"), [(barrier, 2.2), (counted, 2.2), (nested, 4.0)])
def test_a_row_is_looked_at_about_twice(function: Any, looks: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the recording with the most decisions, and by the one that it fits, however many there are; in a tree of
    decisions at most once for each that the row makes, and once more."""
    program = fs.compile(function)
    X = rows(400, 3)
    program.map(X)
    program.map(X)
    looked = []
    attempt = ReplayedFunction._try

    def counting(self: Any, specialization: Any, rows: Any, some: Any, *more: Any) -> Any:
        looked.append(len(some))
        return attempt(self, specialization, rows, some, *more)

    monkeypatch.setattr(ReplayedFunction, "_try", counting)
    program.map(X)
    assert sum(looked) <= looks * len(X)
