"""Rows with numbers that are infinite, NaN or nearly as large say what the function says: there the order of additions,
and whether equal operations are done once or twice, is no matter of rounding."""

import contextlib
import itertools
import math as _math

import numpy as np
import pytest

import fastscalar as fs
from compiled import compiled_only
from fastscalar import math
from fastscalar.program import recorded, rolling
from fuzz.judge import agrees, recordings

INF, NAN = _math.inf, _math.nan
HUGE = 1e308
SPECIAL = [INF, -INF, NAN, HUGE, -HUGE, 1e200, 0.0, -0.0, 5e-324]

w = fs.to_tensor([0.5, -1.5, 2.0, 0.25])
W = fs.to_tensor([[0.5, -1.0], [1.5, 2.0], [-0.5, 0.75], [1.0, -2.0]])
zero, large = fs.Tensor(0.0), fs.Tensor(1e308)
net = fs.MLP(4, [3, 1], seed=2)

FORMS = {
    "sum": (lambda x: sum(x), []),
    "sum from the other end": (lambda x: fs.sum(list(x)[::-1]) - x[0], []),
    "sum and difference": (lambda x: x[0] + x[1] - x[2] - x[3] + 1e308, []),
    "dot": (lambda x: sum(a * b for a, b in zip(x, w, strict=True)), [w]),
    "dot of the row": (lambda x: fs.dot(x, x), []),
    "two columns": (lambda x: sum(sum(x[i] * W[i][j] for i in range(4)) * (j - 0.5) for j in range(2)), [W]),
    "shared factor": (lambda x: sum(x[i] * (x[1] * x[2]) for i in range(4)), []),
    "the same twice": (lambda x: sum(x[0] * x[1] for _ in range(3)) - sum(x[2] * x[1] for _ in range(3)), []),
    "difference of equals": (lambda x: math.exp(x[0]) * x[1] - math.exp(x[0]) * x[2] if x[0] < 700 else x[1], []),
    "roots of equals": (lambda x: math.sqrt(x[0] * x[0]) - math.sqrt(x[0] * x[0]) + x[1], []),
    "roots of equals in a layer": (lambda x: sum(math.sqrt(abs(e)) - math.sqrt(abs(e)) for e in x), []),
    "powers of equals": (lambda x: abs(x[0]) ** 0.5 * x[1] - abs(x[0]) ** 0.5 * x[2], []),
    "computed leaf": (lambda x: math.sqrt(zero) * sum(x), [zero]),
    "computed leaves": (lambda x: x[0] * sum(e * e for e in w) - x[1] * math.exp(w[0]), [w]),
    "large leaf": (lambda x: sum(e * 0.5 for e in x) + large - x[1], [large]),
    "large leaf as a factor": (lambda x: x[0] * large * 1e-308 + x[1] * large, [large]),
    "softmax": (lambda x: x[0] * fs.softmax([x[1], w[0], w[1]])[2] + x[3], [w]),
    "net": (lambda x: net(x)[0] * 2.0, net.parameters()),
    "chosen": (lambda x: fs.where(x[0] < 1e300, x[1], x[2] * x[3]) + x[0], []),
    "detached": (lambda x: x[0] * x[1].detach() + w[0].detach() * x[2] - x[3], [w]),
    "averages": (lambda x: fs.mean(x) / 4.0 + fs.sum(x * 1e10) / 1e12, []),
}


def rows_of(seed):
    """Every special number in every column, alone and in twos and threes, between rows of small ones."""
    draw = np.random.default_rng(seed)
    rows = [draw.normal(size=4).round(2) for _ in range(20)]
    for value, at in itertools.product(SPECIAL, range(4)):
        rows.append(draw.normal(size=4).round(2))
        rows[-1][at] = value
    for _ in range(60):
        rows.append(draw.normal(size=4).round(2))
        some = draw.choice(4, size=draw.integers(2, 4), replace=False)
        rows[-1][some] = draw.choice(SPECIAL, size=len(some))
    return np.array(rows)[draw.permutation(len(rows))]


def of_row(f, leaves, x):
    """Value and gradients of the plain call."""
    for leaf in leaves:
        leaf.grad = 0.0
    given = fs.to_tensor(x)
    result = f(given)
    result.backward()
    return result.data, np.array(given.grad), [np.array(leaf.grad) for leaf in leaves]


def close(found, right, terms=1.0):
    found, right = np.asarray(found, float), np.asarray(right, float)
    with np.errstate(all="ignore"):
        bound = 1e-11 * np.where(np.isfinite(right), np.maximum(np.abs(right), terms), 0.0)
        same = (found == right) | (np.isnan(found) & np.isnan(right)) | (abs(found - right) <= bound)
    assert same.all(), (found[~same], right[~same])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_row_is_what_the_function_gives(name, seed):
    f, leaves = FORMS[name]
    X = rows_of(seed)
    right = [of_row(f, leaves, x) for x in X]
    p = fs.compile(f)
    with compiled_only():
        close(p.map(X), [v for v, _, _ in right])
        values, gradients = p.value_and_grad(X)
        close(values, [v for v, _, _ in right])
        close(gradients, [g for _, g, _ in right])
        for i in range(0, len(X), 7):
            if leaves:
                p.backward(X[i : i + 1])
                for leaf, g in zip(leaves, right[i][2], strict=True):
                    close(leaf.grad, g)


@pytest.mark.parametrize("name", FORMS)
def test_by_every_method_and_in_every_batch(name):
    f, leaves = FORMS[name]
    agrees(f, rows_of(3)[:24], leaves=leaves, kind="wild")


def test_a_number_that_all_rows_share():
    """Its derivative is the sum of those of the rows: they are not added before they went back to it."""
    f = lambda x, s: math.sqrt(s) * x + s * s * 1e-3
    p = fs.compile(f)
    values, gradient = p.value_and_grad(np.array([1.0, -1.0]), 0.0, argnums=1)
    assert values.tolist() == [0.0, 0.0]
    assert _math.isnan(gradient)
    _, gradient = p.value_and_grad(np.array([1.0, -1.0]), 4.0, argnums=1)
    assert gradient == pytest.approx(0.016)
    for s, right in ((1e308, 3.6e307), (-1e308, -3.6e307)):
        q = fs.compile(lambda x, s: x * s * w[3])
        with compiled_only():
            q.backward(np.full(3, 0.12), s)
        assert w.grad[3] == pytest.approx(right)


@pytest.mark.parametrize("name", ["trunc", "ceil", "floor", "lgamma", "gamma", "root"])
def test_only_the_error_that_is_caught_is_caught(name):
    """One operation raises errors of several types."""
    operation = {"root": lambda x: x**-0.5}.get(name) or getattr(math, name)

    def f(x):
        try:
            return operation(x) * 1.0
        except ValueError:
            return x * 2.0 if x < 0.0 else fs.Tensor(3.0)

    def plain(x):
        return f(fs.Tensor(x)).data

    for value in (INF, -INF, NAN, -1.0, 0.0, -0.5, 1e306, 1e-310, 2.5):
        for first in (NAN, -1.0, -0.5, 2.5):
            outcomes = []
            for call in (plain, fs.compile(f)):
                with contextlib.suppress(ValueError, ArithmeticError):
                    call(first)
                try:
                    outcomes.append(repr(call(value)))
                except (ValueError, ArithmeticError) as error:
                    outcomes.append(repr(error))
            assert outcomes[0] == outcomes[1], (value, first)


def test_rows_that_are_not_finite_are_replayed():
    """A third of the data missing is no reason to call the function for each row."""
    calls = []
    f = lambda x: (calls.append(None), sum(e * v for e, v in zip(x, w, strict=True)) + x[0] * 2.0)[1]
    X = np.random.default_rng(0).normal(size=(3000, 4))
    X[::3, 1], X[1::7, 2] = NAN, INF
    p = fs.compile(f)
    with compiled_only():
        p.map(X)
        p.backward(X)
        p.value_and_grad(X)
    assert len(calls) <= 2


def test_finite_rows_do_not_depend_on_those_that_are_not():
    f, _ = FORMS["two columns"]
    X = rows_of(5)
    p = fs.compile(f)
    whole, small = p.map(X), np.abs(X).max(axis=1) < 1e6
    close(p.map(X[small]), whole[small])


@pytest.mark.parametrize("batch_size", [1, 4])
def test_fit_steps_as_the_loop_does(batch_size):
    """Also by rows with numbers that are nearly infinite."""
    X = np.array([[1.0, 2.0], [1e200, 0.5], [2.0, 1e160], [0.0, -1.0]] * 3)
    y = np.zeros(12)

    def trained(compiled):
        v = fs.to_tensor([0.5, 0.25])
        loss = lambda x, t: math.tanh(x[0] * v[0] * 1e-200 - x[1] * v[1] * 1e-170) ** 2 + (v[0] * 0.5 - t) ** 2
        fs.fit(
            fs.compile(loss), X, y, optimizer=fs.SGD(lr=0.01), epochs=2, batch_size=batch_size, shuffle=False,
            compile=compiled, progress=False,
        )  # fmt: skip
        return v.numpy()

    close(trained(True), trained(False))


def after_a_loop(x):
    t = fs.while_loop(lambda s: s[1] < 2, lambda s: (math.tanh(x[1]), s[1] + 1), (1, 0))[0]
    return x[0] if t <= 3 else x[1] * 2.0


def within_a_loop(x):
    """What an inner loop gives decides in the outer one."""
    def step(_, s):
        inner = fs.loop(3, lambda _, t: math.tanh(t + x[1]), s)
        return inner * 2.0 if inner < 0.5 else inner - x[2]

    return fs.loop(4, step, x[0])


def until_a_loop_says_so(x):
    """The condition of a loop that needs some steps of another one."""
    return fs.while_loop(
        lambda s: fs.loop(2, lambda _, t: t * 0.5 + x[1], s[0]) < 4.0 and s[1] < 5,
        lambda s: (s[0] + abs(x[2]) + 0.5, s[1] + 1), (x[0], 0),
    )[0]


def of_a_sum(x):
    return x[0] * 2.0 if sum(x) - x[1] * 0.5 > 0.25 else x[1]


def of_repeats(x):
    t = x[0]
    for k in range(20):
        t = math.sin(t + x[k % 4]) + 0.1
    return t if t > 0.3 or x[3] > 0.0 else x[2]


DECIDING = [after_a_loop, within_a_loop, until_a_loop_says_so, of_a_sum, of_repeats]


@pytest.mark.dear
@pytest.mark.parametrize("f", DECIDING, ids=lambda f: f.__name__)
@pytest.mark.parametrize("unrolled", [0, 1000])
def test_decisions_on_such_numbers_are_recorded_once(f, unrolled, monkeypatch):
    """A guard that looks at what the order of additions changes says nothing until it is seen in that of the function:
    else its row would be recorded anew by every call."""
    monkeypatch.setattr(rolling, "UNROLLED", unrolled)
    X = rows_of(7)
    X = X[[_raises(f, x) is None for x in X]]
    p = fs.compile(f)
    right = np.array([float(f(fs.to_tensor(x)).data) for x in X])
    known = []
    for _ in range(3):
        close(p.map(X), right)
        p.backward(X)
        p.value_and_grad(X)
        known.append(recordings(p))
    assert known[0] == known[-1] <= len(X) // 4
    assert not any(cache.misfits or cache.eager for cache in p._caches.values())
    agrees(f, X[:40], kind="wild")
    for x in X[~np.isfinite(X).all(axis=1)][:40]:       # with no recording of another way, which would say less
        q = fs.compile(f)
        q.map(x[None])
        assert (recordings(q), q._unrolled) == (1, False), x


def _raises(f, x):
    try:
        f(fs.to_tensor(x))
    except (ValueError, ArithmeticError) as error:
        return error
    return None


def test_a_way_that_takes_in_another_is_no_further_one(monkeypatch):
    """At the limit of ways: the one that it takes the place of is not lost."""
    monkeypatch.setattr(rolling, "UNROLLED", 0)
    p = fs.compile(lambda x: fs.loop(4, lambda _, s: s * 0.5 if s > 1.0 else s + x, x * 1.0))
    X = np.array([[0.1], [3.0], [30.0], [0.7]])[:, 0]
    with compiled_only():
        p.map(X[:1])
        next(iter(p._caches.values())).misfits = recorded.SPECIALIZATIONS
        p.map(X)
    assert recordings(p) > 1
    assert len(next(iter(p._caches.values())).all()) == 1
