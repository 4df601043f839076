"""Captured leaves in and out of replays, however they lie on the tape and wherever the plan places them."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.engine import testing


def matrix(rows: int, columns: int) -> Any:
    return fs.to_tensor(np.random.default_rng(rows).normal(size=(rows, columns)))


def single(rows: int, columns: int) -> Any:
    return [[fs.Tensor(v) for v in row] for row in np.random.default_rng(rows).normal(size=(rows, columns)).tolist()]


def shuffled(rows: int, columns: int) -> Any:
    """Single leaves that were made in another order than they stand in."""
    leaves = [fs.Tensor(v) for v in np.random.default_rng(rows).normal(size=rows * columns).tolist()]
    random.Random(0).shuffle(leaves)
    return [leaves[i * columns : (i + 1) * columns] for i in range(rows)]


def apart(rows: int, columns: int) -> Any:
    """Leaves with others between them."""
    made = []
    for row in single(rows, columns):
        made.append([])
        for leaf in row:
            fs.Tensor(0.0)
            made[-1].append(leaf)
    return made


def by_rows(w: Any, x: Any, m: int, n: int) -> Any:
    return [fs.sum([w[i][j] * x[j] for j in range(n)]) for i in range(m)]


def by_columns(w: Any, x: Any, m: int, n: int) -> Any:
    return [fs.sum([w[i][j] * x[i] for i in range(m)]) for j in range(n)]


def some_rows(w: Any, x: Any, m: int, n: int) -> Any:
    return [fs.sum([w[i][j] * x[j] for j in range(n)]) for i in range(1, m, 2)]


def some_elements(w: Any, x: Any, m: int, n: int) -> Any:
    return [w[i][j] * x[0] for i in range(m) for j in range(n) if (i + j) % 3]


def with_a_penalty(w: Any, x: Any, m: int, n: int) -> Any:
    return [*by_rows(w, x, m, n), fs.sum([w[i][j] * w[i][j] for i in range(m) for j in range(n)])]


def twice(w: Any, x: Any, m: int, n: int) -> Any:
    return [a * b for a, b in zip(by_rows(w, x, m, n), by_rows(w, list(reversed(x)), m, n), strict=True)]


def nothing_sent(w: Any, x: Any, m: int, n: int) -> Any:
    return [fs.relu(y - 1e6) for y in by_rows(w, x, m, n)] + [w[0][0] * x[0]]


WAYS = [by_rows, by_columns, some_rows, some_elements, with_a_penalty, twice, nothing_sent]
LEAVES = [matrix, single, shuffled, apart]


def flat(w: Any) -> list[Any]:
    return [leaf for row in w for leaf in row]


@pytest.mark.dear
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("leaves", LEAVES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("m", "n"), [(3, 4), (4, 4), (7, 5), (1, 6), (6, 1)])
def test_gradients_arrive(way: Any, leaves: Any, accumulate: bool, m: int, n: int) -> None:
    w = leaves(m, n)

    def loss(x: Any) -> Any:
        x = list(x)
        return fs.sum([y * y for y in way(w, x, m, n)])

    X = np.random.default_rng(1).normal(size=(5, max(m, n)))
    program = fs.compile(loss)
    for turn in range(3):
        before = np.array([leaf.grad for leaf in flat(w)]) if accumulate else 0.0
        program.backward(X, accumulate=accumulate)
        ours = np.array([leaf.grad for leaf in flat(w)])
        for leaf in flat(w):
            leaf.grad = 0.0
        for x in X:
            loss(fs.to_tensor(x)).backward(accumulate=True)
        theirs = np.array([leaf.grad for leaf in flat(w)])
        assert np.allclose(ours, before + theirs, rtol=1e-11, atol=1e-12)
        assert not any(g == 0 and math.copysign(1.0, g) < 0 for g in ours)
        for leaf, value in zip(flat(w), ours.tolist(), strict=True):
            leaf.grad = value
            leaf.data = leaf.data * 0.9  # values are read anew
        if turn == 1:
            made = [fs.Tensor(float(k)) for k in range(1000)]  # leaves move, or not
            del made
            testing.collect()


@pytest.mark.parametrize("leaves", LEAVES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_training_leaves_values(leaves: Any, dtype: Any) -> None:
    w = leaves(4, 3)
    X, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 4
    start = [leaf.data for leaf in flat(w)]
    program = fs.compile(lambda x, label: fs.cross_entropy(by_rows(w, x, 4, 3), label))
    found = []
    for compile in (True, False):
        for leaf, value in zip(flat(w), start, strict=True):
            leaf.data = value
        options = {"optimizer": fs.SGD(lr=0.1), "epochs": 2, "batch_size": 5, "shuffle": False, "progress": False}
        fs.fit(program, X, y, compile=compile, dtype=dtype if compile else "float64", **options)
        found.append([leaf.data for leaf in flat(w)])
        assert not any(leaf.grad for leaf in flat(w)) or not compile
    assert found[0] == pytest.approx(found[1], rel=1e-9 if dtype == "float64" else 1e-4, abs=1e-6)


def test_rows_that_nothing_was_sent_to_are_not_entered() -> None:
    table = matrix(50, 3)
    program = fs.compile(lambda k, x: fs.sum(table[k]) * x)
    program.backward(np.array([3, 3, 7]), np.ones(3))
    program.backward(np.array([4, 9, 4]), np.ones(3))
    grad = np.asarray(table.grad)
    assert sorted(np.flatnonzero(grad.any(axis=1)).tolist()) == [4, 9]
    fs.sgd([table], lr=1.0)
    assert not np.asarray(table.grad).any()
