"""What a program says of a row has the same bits whatever rows are beside it, before it and after it.

In one set of kernels: sets round differently, and so do rows that run eagerly.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math

RANDOM = np.random.default_rng(1)
N = 1000
COUNTS = (1, 2, 3, 7, 16, 17, 129, N)
X, K = RANDOM.normal(size=(N, 20)), RANDOM.integers(0, 5, N)
IMAGES = np.where(RANDOM.random((N, 40)) < 0.8, 0.0, RANDOM.random((N, 40)))
NET, ONE = fs.MLP(20, [17, 5], seed=0), fs.MLP(20, [1], seed=0)
W = fs.to_tensor(RANDOM.normal(size=(6, 20)))


@pytest.fixture(scope="module", autouse=True)
def large():
    """Not longer than this module: in stress mode whatever is alive moves at every step of every test."""
    global TWO, WIDE
    TWO, WIDE = fs.MLP(20, [33, 1], seed=0), fs.MLP(20, [70, 40, 5], seed=0)
    yield
    del TWO, WIDE


def read(x, k):
    z = NET(x)
    return fs.sum(z) if z[0] > z[1] else z[1] * x[0]


def caught(x, k):
    try:
        return math.log(fs.dot(W[0], x))
    except ValueError:
        return fs.dot(W[1], x) * x[0]


def by_hand(x, k):
    z = [sum(W[j][i] * x[i] for i in range(20)) for j in range(6)]
    largest = fs.max(z)
    e = [math.exp(v - largest) for v in z]
    return -math.log(e[0] / sum(e))


FUNCTIONS = {
    "cross_entropy": lambda x, k: fs.cross_entropy(NET(x), k),
    "wide": lambda x, k: fs.cross_entropy(WIDE(x), k),
    "one output": lambda x, k: ONE(x)[0] ** 2,
    "a layer before one output": lambda x, k: (TWO(x)[0] - k) ** 2,
    "loops": lambda x, k: sum(sum(W[j][i] * x[i] for i in range(20)) ** 2 for j in range(6)),
    "softmax by hand": by_hand,
    "dots": lambda x, k: math.tanh(fs.dot(W[0], x)) * fs.dot(W[1], x) + fs.dot(x, x),
    "shares": lambda x, k: fs.softmax(x)[0] * fs.logsumexp(x),
    "shares of few": lambda x, k: sum(fs.softmax(x[n : 2 * n])[n // 2] * x[n] for n in range(1, 9)),
    "functions": lambda x, k: math.exp(x[0]) * math.sin(x[1]) + abs(x[2]) ** 2.5 / (1 + x[3] * x[3]) - x[7] * x[8]
    + math.tanh(x[4]) + math.erf(x[5]) * fs.sigmoid(x[6]) - x[9] * 0.3 - x[10] * x[11] * 1.7,
    "matrices": lambda x, k: (x.reshape(4, 5) @ x.reshape(5, 4)).sum(),
    "a row of a table": lambda x, k: fs.dot(W[k], x) * x[k],
    "decisions": lambda x, k: fs.sum(NET(x)) if x[0] > 0 else fs.dot(x, W[0]),
    "whole numbers": lambda x, k: -math.log(list(fs.softmax(NET(x)))[k]),
    "where": lambda x, k: fs.where(x[0] > x[1], fs.dot(x, W[0]), x[2]),
    "largest": lambda x, k: fs.max(list(NET(x))) * fs.max(x),
    "losses": lambda x, k: fs.sum(x) / 20 + fs.mse_loss(x, W[0]) + fs.squared_loss(NET(x), W[1][:5]),
    "decisions on sums": read,
    "an error is caught": caught,
}  # fmt: skip


def parts(nest):
    return [part for one in nest for part in parts(one)] if isinstance(nest, (tuple, list)) else [np.asarray(nest)]


METHODS = {
    "map": lambda p, rows, threads: p.map(*rows, threads=threads),
    "value_and_grad": lambda p, rows, threads: p.value_and_grad(*rows, threads=threads),
    "jacobian": lambda p, rows, threads: p.jacobian(*rows, threads=threads),
    "backward": lambda p, rows, threads: p.backward(*rows, threads=threads),
    "a call": lambda p, rows, threads: np.array([p(x, int(k)) for x, k in zip(*rows, strict=True)][:30]),
}


def agree_to_the_bit(f, method, *data, counts=COUNTS):
    """Of rows one by one, in any number and order, at the first call and later, on one thread and two."""
    call, draw = METHODS[method], np.random.default_rng(0)
    expected = parts(call(fs.compile(f), data, 1))
    for fresh in (False, True):
        program = fs.compile(f)
        if not fresh:
            program.map(*data)
            program.map(*data)
        for count in counts:
            for threads in (1, 2):
                start = draw.integers(N - count + 1)
                rows = draw.permutation(np.arange(start, start + count))
                found = parts(call(program, tuple(d[rows] for d in data), threads))
                for part, right in zip(found, expected, strict=True):
                    some = rows[: len(part)]
                    some, part = some[some < len(right)], part[some < len(right)]
                    differ = np.flatnonzero((np.ascontiguousarray(part).view(np.int64)
                                             != np.ascontiguousarray(right[some]).view(np.int64)).reshape(len(some), -1)
                                            .any(axis=1)) if len(some) else []  # fmt: skip
                    assert not len(differ), (method, count, threads, fresh, some[differ], part[differ])


@pytest.mark.dear
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_row_depends_on_its_neighbours(name, method):
    agree_to_the_bit(FUNCTIONS[name], method, X, K, counts=COUNTS if method == "map" else (1, 3, 17, 129))


@pytest.mark.parametrize("method", ["map", "value_and_grad"])
@pytest.mark.parametrize("width", [3, 12, 33, 130])
def test_nor_on_whether_they_are_mostly_zeros(width, method):
    """Sparse rows are replayed by their entries if the data are sparse on the whole."""
    net = fs.MLP(40, [width, 5], seed=0)
    data = np.concatenate([IMAGES[:900], RANDOM.normal(size=(100, 40))])

    def f(x, k):
        return fs.cross_entropy(net(x), k)

    agree_to_the_bit(f, method, data, K, counts=(1, 3, 17, 129, N))
    program = fs.compile(f)
    call = METHODS[method]
    for some, beside in (([3, 5], data[900:]), ([950, 999], data[:900]), ([0], data[:1]), ([999], data[999:])):
        together = np.concatenate([data[some], beside])
        labels = np.concatenate([K[some], K[: len(beside)]])
        found = parts(call(program, (together, labels), 1))
        one_by_one = [parts(call(program, (data[i : i + 1], K[i : i + 1]), 1)) for i in some]
        alone = [np.concatenate(p) for p in zip(*one_by_one, strict=True)]
        for part, right in zip(found, alone, strict=True):
            np.testing.assert_array_equal(part[: len(some)], right)


def test_nor_in_sums_of_more_than_a_thousand_terms():
    data = np.where(RANDOM.random((N, 2100)) < 0.7, 0.0, RANDOM.normal(size=(N, 2100)))
    data[::7] = RANDOM.normal(size=data[::7].shape)
    long = fs.Linear(2100, 12, seed=0)
    agree_to_the_bit(lambda x, k: fs.cross_entropy(long(x), k), "map", data, K, counts=(1, 3, 17, 129))


@pytest.mark.parametrize("method", ["map", "value_and_grad"])
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf, 1e200, 0.0])
@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n not in ("decisions on sums", "an error is caught")])
def test_nor_on_numbers_that_are_not_finite(name, special, method):
    """Of a chunk in which something is not finite only that row is computed in another way."""
    f, data = FUNCTIONS[name], X[:40].copy()
    data[::9, ::3] = special
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = parts(METHODS[method](fs.compile(f), (data, K[:40]), 1))
        except (ValueError, ZeroDivisionError, OverflowError):
            pytest.skip("the plain call raises")
        others = [i for i in range(40) if i % 9]
        alone = parts(METHODS[method](fs.compile(f), (X[others], K[others]), 1))
    for part, right in zip(found, alone, strict=True):
        np.testing.assert_array_equal(part[others], right)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_shares_beside_rows_that_are_not_finite(dtype):
    rows = X[:64, :6].copy()
    rows[5, 2], rows[20], rows[33, 0], rows[40, 1:3] = np.inf, -np.inf, np.nan, np.inf
    program = fs.compile(lambda x: (fs.softmax(x)[1], fs.logsumexp(x)))
    together = np.stack(program.map(rows, dtype=dtype))
    alone = np.concatenate([program.map(row[None], dtype=dtype) for row in rows], axis=1)
    np.testing.assert_array_equal(together.view(f"u{together.itemsize}"), alone.view(f"u{alone.itemsize}"))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_derivatives_that_are_zero_have_one_sign(dtype):
    """-1 times 0 is sent to a column: alone and among others it is added to a zero."""
    rows = np.array([[0.0, -1.0, 2.0], [-0.0, 1.0, -0.0]] * 10)
    program = fs.compile(lambda x: x[0] * x[1] * x[2] - x[2] * x[0])
    together = program.value_and_grad(rows, dtype=dtype)[1]
    alone = np.concatenate([program.value_and_grad(row[None], dtype=dtype)[1] for row in rows])
    assert together.tobytes() == alone.tobytes()
