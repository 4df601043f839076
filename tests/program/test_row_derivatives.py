"""Derivatives of programs, for each row: those of the function, whatever it decides and wherever it is not finite."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math
from fastscalar.transforms.sparsity import coloured

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(40, 3)) * 1.5
SPECIAL = np.array([
    [0.0, 0.0, 0.0], [-0.0, 1.0, 2.0], [1.0, 0.0, -1.0], [1.0, 1.0, 1.0], [-1.0, -1.0, 0.0], [2.0, -2.0, 0.5],
    [np.inf, 1.0, 2.0], [1.0, -np.inf, 0.0], [np.nan, 1.0, 1.0], [1.0, np.nan, 0.0], [1e200, 1e200, 1.0],
    [1e-320, 1.0, 1.0], [710.0, 2.0, 1.0], [-1e160, 1e160, 0.0],
])  # fmt: skip
W = fs.to_tensor([0.5, -1.5, 2.0])
NET = fs.MLP(3, [6, 4], seed=0)


def without_gradient(x):
    with fs.no_grad():
        s = x[0] * x[1]
    return s * x[0] + (x[1] * x[2]).detach() * x[0]


def empty_block(x):
    with fs.no_grad():
        y = x[1]
    return x[0] * y * y


FUNCTIONS = {
    "polynomial": lambda x: x[0] ** 3 * x[1] - x[2] ** 2 * x[0] + 4.0,
    "power": lambda x: abs(x[0]) ** x[1] * x[2],
    "power of a number": lambda x: (x[0] * x[0]) ** 1.5 + x[1] ** 4,
    "quotient": lambda x: x[0] / (x[1] * x[1] + 1.0) - x[2] / 3.0,
    "exp": lambda x: math.exp(x[0] * 0.5) * math.tanh(x[1]) + fs.sigmoid(x[2] * x[0]),
    "log": lambda x: math.log(x[0] * x[0] + 0.5) * math.log1p(abs(x[1])) + math.expm1(x[2] * 0.1),
    "trigonometry": lambda x: math.sin(x[0]) * math.cos(x[1]) + math.atan(x[2] * x[0]) + math.tan(x[1] * 0.1),
    "square root": lambda x: math.sqrt(abs(x[0] * x[1])) * x[2],
    "cube root": lambda x: math.cbrt(x[0]) * x[1],
    "relu": lambda x: fs.relu(x[0]) * x[1] + fs.relu(x[2] * x[0]) ** 2,
    "abs": lambda x: abs(x[0]) * abs(x[1] * x[2]),
    "extremes": lambda x: fs.maximum(x[0], x[1]) * fs.minimum(x[2], x[0] * x[0]),
    "largest": lambda x: fs.max([x[0], x[1], x[0] * x[1]]) ** 2 * fs.min([x[1], x[2]]),
    "place": lambda x: [x[0] * x[0], x[1], x[2]][0] * fs.argmax([x[0], x[1], x[2]]),
    "gather": lambda x: x[fs.argmin([x[0], x[1], x[2]])] ** 3,
    "where": lambda x: fs.where(x[0] < x[1], x[0] ** 2 * x[2], math.exp(x[1] * 0.1)),
    "clip": lambda x: fs.clip(x[0] * x[1], -1.0, 1.0) * x[2],
    "shares": lambda x: fs.softmax([x[0], x[1], x[2]])[1] * x[0],
    "logsumexp": lambda x: fs.logsumexp([x[0], x[1] * x[2], 1.0]),
    "cross_entropy": lambda x: fs.cross_entropy([x[0], x[1], x[0] * x[2]], 2),
    "losses": lambda x: fs.squared_loss([x[0] * x[1], x[2]], [1.0, x[0]]) + fs.mse_loss([x[0]], [x[1] * x[2]]),
    "units": lambda x: fs.elu(x[0]) * fs.leaky_relu(x[1]) + fs.silu(x[2]) * fs.gelu(x[0]) + fs.softplus(x[1]),
    "distances": lambda x: math.hypot(x[0], x[1]) * x[2] + math.atan2(x[1], x[2]),
    "hyperbolic": lambda x: math.asinh(x[0] * x[1]) + math.sinh(x[2] * 0.1) * math.cosh(x[0] * 0.1),
    "errors": lambda x: math.erf(x[0]) * math.erfc(x[1]) + math.lgamma(x[2] * x[2] + 1.0),
    "signs": lambda x: math.copysign(x[0], x[1]) * x[2] + math.fmod(x[0], 0.7) * x[1],
    "captured": lambda x: math.tanh(fs.sum(W * x)) * W[0],
    "dot": lambda x: fs.dot(x, x) * fs.norm([x[0], x[1]]),
    "net": lambda x: fs.cross_entropy(NET([x[0], x[1], x[2]]), 1),
    "constant": lambda x: 3.0,
    "one of them": lambda x: x[1],
    "branch": lambda x: x[0] * x[1] if x[0] > 0 else math.exp(x[2] * 0.1) * x[0],
    "max of Python": lambda x: max(x[0], x[1]) * min(x[1], x[2]),
    "loop that decides": lambda x: while_small(x[0], x[1]),
    "no_grad": without_gradient,
    "no_grad of nothing": empty_block,
    "derivative inside": lambda x: fs.grad(lambda y: y[0] ** 2 * math.sin(y[1] * y[2]))(x)[1] * x[0],
}  # fmt: skip


def while_small(a, b):
    s = a * a + 1.0
    while s < 4.0:
        s = s * 1.5 + b * b
    return s


def eager(transform, f, rows):
    """What a loop over the rows gives; None for those that raise."""
    out = []
    for x in rows:
        try:
            out.append(transform(f)(x))
        except (ValueError, ArithmeticError):
            out.append(None)
    return out


def agree(found, expected, scale=1e-9):
    np.testing.assert_allclose(found, expected, rtol=scale, atol=scale)


@pytest.mark.dear
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_and_hessians_are_those_of_the_function(name):
    f = FUNCTIONS[name]
    program = fs.compile(f)
    gradients, hessians = fs.compile(fs.grad(f)), fs.compile(fs.hessian(f))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = np.array(eager(fs.grad, f, X))
        agree(gradients.map(X), expected)
        agree(program.jacobian(X), expected)
        agree(program.value_and_grad(X)[1], expected)
        second = np.array(eager(fs.hessian, f, X))
        agree(hessians.map(X), second)
        agree(program.hessian(X), second)
        direction = RANDOM.normal(size=X.shape)
        agree(program.hvp(X, tangents=direction), np.einsum("nij,nj->ni", second, direction))
        value, along = program.jvp(X, tangents=direction)
        agree(value, program.map(X))
        agree(along, (expected * direction).sum(1))
        agree(fs.compile(fs.grad(lambda x: fs.sum(fs.grad(f)(x)))).map(X), second.sum(1))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_of_special_numbers(name):
    f = FUNCTIONS[name]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for transform, method in ((fs.grad, "jacobian"), (fs.hessian, "hessian")):
            expected = eager(transform, f, SPECIAL)
            program, composed = fs.compile(f), fs.compile(transform(f))
            for x, e in zip(SPECIAL, expected, strict=True):
                if e is None:
                    with pytest.raises((ValueError, ArithmeticError)):
                        composed.map(x[None])
                    with pytest.raises((ValueError, ArithmeticError)):
                        getattr(program, method)(x[None])
                else:
                    np.testing.assert_allclose(composed.map(x[None])[0], e, rtol=1e-9, atol=1e-300)
                    np.testing.assert_allclose(getattr(program, method)(x[None])[0], e, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("threads", [1, 2])
def test_nests_shared_arguments_and_whole_numbers(threads):
    def f(x, p, k, how):
        s = x[0] * p["a"] + p["b"][k] * x[1] ** 2
        return {"s": s, "all": [x * p["b"][1], math.exp(s) if how == "exp" else s * s]}

    program = fs.compile(f, shared="p")
    x, k = X[:, :2].copy(), np.arange(40) % 3
    p = {"a": 0.3, "b": np.array([0.5, -0.2, 0.1])}
    found = program.jacobian(x, p, k, "exp", argnums=(0, 1), threads=threads)
    for i in (0, 1, 2, 39):
        one = fs.jacobian(lambda x, p, k=k, i=i: f(x, p, int(k[i]), "exp"), (0, 1))(x[i], p)
        agree(found["s"][0][i], one["s"][0])
        agree(found["s"][1]["b"][i], one["s"][1]["b"])
        agree(found["all"][0][0][i], one["all"][0][0])
        agree(found["all"][0][1]["b"][i], one["all"][0][1]["b"])
        agree(found["all"][1][1]["a"][i], one["all"][1][1]["a"])
    _, along = program.jvp(x, p, k, "sq", tangents=(x, {"a": 1.0, "b": np.zeros(3)}, None, None), threads=threads)
    agree(along["s"], p["a"] * x[:, 0] + 2 * p["b"][k] * x[:, 1] ** 2 + x[:, 0])
    agree(program.jacobian(x, p, k, "exp", argnums="p")["s"]["a"], x[:, 0])


def test_a_derivative_in_a_loss():
    """A physics-informed loss: the gradient by the weights of an expression with derivatives by the inputs."""
    random = np.random.default_rng(4)
    w1, w2 = fs.to_tensor(random.normal(size=(2, 8)) * 0.7), fs.to_tensor(random.normal(size=8) * 0.7)

    def u(x, t):
        return fs.sum([math.tanh(x * w1[0][j] + t * w1[1][j]) * w2[j] for j in range(8)])

    def residual(x, t):
        u_t = fs.grad(u, 1)(x, t)
        u_xx = fs.grad(fs.grad(u))(x, t)
        return (u_t - 0.1 * u_xx) ** 2

    program = fs.compile(residual)
    x, t = random.normal(size=30), random.uniform(size=30)
    values = program.backward(x, t)
    found = np.array(w1.grad), np.array(w2.grad)
    total = fs.sum([residual(fs.Tensor(a), fs.Tensor(b)) for a, b in zip(x, t, strict=True)])
    total.backward()
    agree(values.sum(), total.data)
    agree(found[0], np.array(w1.grad))
    agree(found[1], np.array(w2.grad))
    assert len(program.report().splitlines()) == 1


def test_products_are_recovered_in_derivatives():
    random = np.random.default_rng(5)
    w, v = fs.to_tensor(random.normal(size=(16, 12))), fs.to_tensor(random.normal(size=12))

    def f(x):
        return fs.sum([math.tanh(fs.sum([x[i] * w[i][j] for i in range(16)])) * v[j] for j in range(12)])

    gradients = fs.compile(fs.grad(f))
    x = random.normal(size=(10, 16))
    h = np.tanh(x @ w.numpy())
    agree(gradients.map(x), ((1 - h * h) * v.numpy()) @ w.numpy().T)
    assert "2 matrix products (16x12, 12x16)" in gradients.report()


def test_what_is_zero_by_structure_is_no_operation():
    program = fs.compile(lambda x: [x[i] * x[i + 1] for i in range(9)])
    rows = RANDOM.normal(size=(5, 10))
    dense = np.stack(program.jacobian(rows), axis=1)
    expected = np.zeros((5, 9, 10))
    for i in range(9):
        expected[:, i, i], expected[:, i, i + 1] = rows[:, i + 1], rows[:, i]
    agree(dense, expected)
    values, at, columns, shape = program.jacobian(rows, sparse=True)
    assert shape == (9, 10)
    assert len(at) == 18
    again = np.zeros((5, 9, 10))
    again[:, at, columns] = values
    agree(again, expected)


def test_sparse_jacobians_of_rows_that_depend_on_other_arguments():
    program = fs.compile(lambda x, p: (x[0] * p if x[0] > 0 else x[1] * x[2], x[1] + 1.0, 2.0), shared="p")
    values, at, columns, shape = program.jacobian(X, 3.0, sparse=True, argnums=(0, 1))
    assert shape == (3, 4)
    found = np.zeros((40, 3, 4))
    found[:, at, columns] = values
    for k, x in enumerate(X):
        expected = np.zeros((3, 4))
        expected[0] = [3.0, 0, 0, x[0]] if x[0] > 0 else [0, x[2], x[1], 0]
        expected[1, 1] = 1.0
        agree(found[k], expected)
    again = program.jacobian(X[:3], 3.0, sparse=True, argnums=(0, 1))
    agree(again.values, values[:3])
    nothing = fs.compile(lambda x: (2.0, 3.0)).jacobian(X, sparse=True)
    assert nothing.values.shape == (40, 0)
    assert nothing.shape == (2, 3)


def test_colours_have_no_column_in_common():
    random = np.random.default_rng(6)
    supports = [frozenset(random.choice(30, size=3).tolist()) for _ in range(40)] + [frozenset()]
    groups = coloured(supports)
    assert sorted(i for group in groups for i in group) == list(range(40))
    for group in groups:
        assert sum(len(supports[i]) for i in group) == len(frozenset().union(*(supports[i] for i in group)))
    assert len(coloured([frozenset({i, i + 1}) for i in range(100)])) == 2


@pytest.mark.parametrize("outputs", [1, 3, 20])
def test_by_rows_and_by_columns_are_the_same_numbers(outputs):
    def series(x):
        s, out = x[0], []
        for _ in range(outputs):
            s = math.sin(s) * x[1] + fs.relu(s)
            out.append(s)
        return np.array(out, dtype=object)

    rows = X[:, :2].copy()
    agree(fs.compile(series).jacobian(rows), np.array([fs.jacobian(series)(x) for x in rows]))


def test_derivatives_of_programs_take_what_the_function_takes():
    def f(x, k=2.0, *, c=1.0):
        return fs.dot(x, x) * k + c

    program = fs.compile(f)
    for x in (X[0], list(X[0]), fs.to_tensor(X[0])):
        expected = fs.grad(f)(fs.to_tensor(X[0]), 3.0).numpy()
        found = fs.grad(program)(x, 3.0)
        found = [e.data if isinstance(e, fs.Tensor) else e for e in found]
        agree(found, expected)
    agree(fs.jacobian(program)(X[0], 3.0, c=2.0), X[0] * 6)
    agree(fs.hessian(program)(X[0]), np.eye(3) * 4)
    value, gradient = fs.value_and_grad(program, argnums=(0, 1))(X[0], 3.0)
    assert value == pytest.approx(program(X[0], 3.0))
    agree(gradient[1], (X[0] ** 2).sum())
    agree(fs.jvp(program, (X[0], 2.0), (X[0], 0.0))[1], 4 * (X[0] ** 2).sum())


def test_what_cannot_be_done_is_said():
    program = fs.compile(lambda x, k: (x[0] * k, x[1]))
    with pytest.raises(ValueError, match="jacobian: argnums: no argument 2, there are 2"):
        program.jacobian(X, 2.0, argnums=2)
    with pytest.raises(ValueError, match="argnums: no argument 'z'"):
        program.jacobian(X, 2.0, argnums="z")
    with pytest.raises(TypeError, match="argnums: expected a whole number or several"):
        program.jacobian(X, 2.0, argnums=1.5)
    with pytest.raises(TypeError, match="single number"):
        program.hessian(X, 2.0)
    with pytest.raises(ValueError, match="tangents: expected one for each of 2 arguments"):
        program.jvp(X, 2.0, tangents=X)
    with pytest.raises(ValueError, match="tangents: expected one at least"):
        program.jvp(X, 2.0, tangents=(None, None))
    with pytest.raises(ValueError, match="shape of the argument"):
        program.jvp(X, 2.0, tangents=(X[:, :2], None))


# --- whole numbers of the row, among arguments and results -----------------------------------------

WITH_WHOLE = {
    "itself": lambda x, k: k,
    "beside others": lambda x, k: (x[0] * k, k, [k, x[1]]),
    "in an array": lambda x, k: np.array([x[0], k, 2.0], dtype=object),
    "in a dictionary": lambda x, k: {"k": k, "x": x[1] ** 2},
    "chosen": lambda x, k: k if x[0] > 0.0 else x[1] * 3.0,
}


def leaves_of(x):
    if isinstance(x, (dict, list, tuple)):
        return [leaf for v in (x.values() if isinstance(x, dict) else x) for leaf in leaves_of(v)]
    return [np.asarray(x, dtype=float)]


def agree_in_row(found, i, expected):
    ours, theirs = leaves_of(found), leaves_of(expected)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a[i], b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", WITH_WHOLE)
def test_whole_numbers_of_a_row_are_results_without_a_derivative(name):
    f, k = WITH_WHOLE[name], np.arange(len(X)) % 3
    program, step = fs.compile(f), np.ones_like(X)
    found, (values, slopes) = program.jacobian(X, k), program.jvp(X, k, tangents=(step, None))
    sparse, inside = program.jacobian(X, k, sparse=True), fs.compile(lambda x, k: fs.jacobian(f)(x, k)).map(X, k)
    dense = np.zeros((len(X), *sparse.shape))
    dense[:, sparse.rows, sparse.columns] = sparse.values
    for i in range(len(X)):
        expected = fs.jacobian(f)(X[i], int(k[i]))
        agree_in_row(found, i, expected)
        agree_in_row(inside, i, expected)
        whole = np.concatenate([np.reshape(e, (-1, 3)) for e in leaves_of(expected)])
        np.testing.assert_allclose(dense[i], whole, rtol=1e-12, atol=1e-12)
        value, slope = fs.jvp(lambda x, i=i: f(x, int(k[i])), X[i], step[i])
        agree_in_row(values, i, value)
        agree_in_row(slopes, i, slope)


def test_derivatives_by_a_whole_number_of_the_row():
    k = np.arange(len(X)) % 3
    by_k = fs.compile(lambda x, k: fs.grad(lambda y: y * y * x[0])(k)).map(X, k)
    np.testing.assert_allclose(by_k, 2.0 * k * X[:, 0], rtol=1e-12)
    np.testing.assert_allclose(fs.compile(lambda x, k: x[0] * k).jacobian(X, k, argnums=1), X[:, 0], rtol=1e-12)


# --- shares of infinite numbers ---------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
LOGITS = [
    [INF, INF], [INF, 1.0], [-INF, -INF], [-INF, 1.0], [1e308, 1e308], [1e200, -1e200], [2.0, 3.0], [NAN, 1.0], [-INF],
    [INF], [1e200], [0.0, INF, -INF, INF],
]  # fmt: skip
OF_SHARES = {
    "one": lambda x: fs.softmax(x)[0],
    "two": lambda x: fs.softmax(x)[0] * 2.0 + fs.softmax(x)[-1] * x[0],
    "weighted": lambda x: x.sum() * sum(fs.softmax(x)),
    "loss": lambda x: fs.cross_entropy(x, 0),
    "loss times a logit": lambda x: (fs.cross_entropy(x, 0) + 1.0) * x[0],
    "logsumexp": lambda x: fs.logsumexp(x) * 3.0,
}


@pytest.mark.parametrize("name", OF_SHARES)
@pytest.mark.parametrize("logits", LOGITS, ids=str)
def test_shares_have_one_derivative_in_all_modes(name, logits):
    f, x = OF_SHARES[name], fs.to_tensor(logits)
    f(x).backward()
    expected = x.grad.tolist()
    again = fs.to_tensor(logits)
    f(again).backward(create_graph=True)
    rows = np.array([logits, logits])
    found = [
        [t.data for t in again.grad], fs.compile(f).value_and_grad(rows)[1][0], fs.compile(f).jacobian(rows)[0],
        fs.compile(fs.grad(f)).map(rows)[1],
    ]  # fmt: skip
    for gradient in found:
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)
    np.testing.assert_allclose(fs.compile(f).hessian(rows)[1], fs.hessian(f)(rows[0]), rtol=1e-12, atol=1e-15)


CHOICES = {
    "where": lambda x: float(fs.where(x > 2.0, 1.0, 0.0)) * x,
    "place": lambda x: float(fs.argmax([x, x * 2.0])) * x,
    "where of a place": lambda x: float(fs.where(fs.argmin([x, x, x]) == 0, 1.0, 0.0)) * x,
    "the other side": lambda x: float(fs.where(x > 5.0, x * x, 0.5)) * x,
    "a side of a side": lambda x: float(fs.where(x > -5.0, fs.where(x > 5.0, x, 2.0), x * x) + 1.0) * x,
    "the smaller one": lambda x: float(fs.max([5.0, x])) * x,
    "the larger ones": lambda x: float(fs.min([x + 9.0, -4.0, x * 2.0 + 9.0]) * 3.0) * x,
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.filterwarnings("error::fastscalar.GradientLossWarning")
def test_what_only_chooses_loses_no_gradient(name):
    """A number that depends on an argument by a choice alone has no gradient that could get lost; nothing is said."""
    f, X = CHOICES[name], np.array([-1.0, 3.0])
    expected = [fs.grad(f)(x) for x in X.tolist()]
    assert fs.compile(fs.grad(f)).map(X).tolist() == expected
    assert fs.compile(f).jacobian(X).tolist() == expected


CHOSEN = {
    "where": lambda x: float(fs.where(x > 2.0, x, 3.0)) * x,
    "the other side": lambda x: float(fs.where(x <= 2.0, 3.0, x)) * x,
    "a side of a side": lambda x: float(fs.where(x > -5.0, fs.where(x > 2.0, x, 3.0), 0.0)) * x,
    "where and more": lambda x: float(fs.where(x > 2.0, x, 3.0) * 2.0 + 1.0) * x,
    "max": lambda x: float(fs.max([x, 2.5])) * x,
}


@pytest.mark.parametrize("of", [lambda f: fs.compile(fs.grad(f)).map, lambda f: fs.compile(f).jacobian])
@pytest.mark.parametrize("name", CHOSEN)
def test_what_is_chosen_loses_its_gradient(name, of):
    """Said for the first row that chooses it, also where one has read the same number that did not."""
    program = of(CHOSEN[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error", fs.GradientLossWarning)
        program(np.array([1.0, 2.0]))
    with pytest.warns(fs.GradientLossWarning):
        program(np.array([-1.0, 3.0]))
