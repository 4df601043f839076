"""Derivatives of functions: rules against the table, closed forms, differences, structures, nesting, what is left."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import re
import threading
import warnings
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math as fmath
from fastscalar.engine import _array_ops, _inspect, _modes, testing
from fastscalar.transforms.rules import RULES
from fastscalar.transforms.watch import tracing
from operations import ROWS, difference, operation, points

UNARY = [name for name, (_, arity) in ROWS.items() if arity == 1]
BINARY = [name for name, (_, arity) in ROWS.items() if arity == 2]
HARSH = [0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 0.5, 40.0, -40.0, 1e-300, 1e200, -1e200, 700.0, math.inf, -math.inf, math.nan]


def rule_partials(name, *xs):
    """What the rules give for one operation, as floats."""
    with _modes.ieee():
        operands = [fs.Tensor(x) for x in xs]
        v = operation(name)(*operands)
        return [s.data if isinstance(s, fs.Tensor) else s for s in (r(*operands, v) for r in RULES[name])]


# --- rules --------------------------------------------------------------------------------------


def test_every_row_of_the_table_has_a_rule():
    assert set(RULES) == set(ROWS)
    for name, rules in RULES.items():
        assert len(rules) == ROWS[name][1], name


@pytest.mark.parametrize("name", ROWS)
def test_a_rule_has_the_value_of_the_derivative_in_the_table(name):
    code, _ = ROWS[name]
    for xs in points(name):
        slopes = testing.value_and_partials(code, *xs)[1:]
        assert rule_partials(name, *xs) == pytest.approx(list(slopes), rel=1e-13, abs=1e-300), (name, xs)


@pytest.mark.parametrize("name", [n for n in ROWS if n != "polygamma"])
def test_a_rule_follows_ieee_where_the_table_does(name):
    """At poles, ends of the domain, +-0, inf and NaN nothing raises, and inf is inf."""
    code, arity = ROWS[name]
    for xs in [(x,) for x in HARSH] if arity == 1 else [(x, y) for x in HARSH for y in HARSH]:
        slopes = list(testing.value_and_partials(code, *xs)[1:])
        assert rule_partials(name, *xs) == pytest.approx(slopes, rel=1e-13, abs=1e-300, nan_ok=True), (name, xs)


@pytest.mark.parametrize("name", UNARY)
def test_second_derivatives_of_unary_rows(name):
    code = ROWS[name][0]
    second = fs.grad(fs.grad(operation(name)))
    for (x,) in points(name, 1):
        expected = difference(lambda t: testing.value_and_partials(code, t)[1], x, 1e-3 * max(0.1, min(1.0, abs(x))))
        assert second(x) == pytest.approx(expected, rel=2e-7, abs=1e-8), (name, x)


@pytest.mark.parametrize("name", [n for n in BINARY if n != "polygamma"])
def test_second_derivatives_of_binary_rows(name):
    code = ROWS[name][0]
    second = fs.hessian(operation(name), (0, 1))
    for x, y in points(name, 1):
        if (name in ("%", "//", "fmod") and min(x % y, y - x % y) < 0.05) or abs(x - y) < 0.01:
            continue  # beside a jump
        (aa, ab), (ba, bb) = second(x, y)
        assert ab == pytest.approx(ba, rel=1e-12, abs=1e-12)
        for j, row in enumerate([(aa, ab), (ba, bb)], start=1):
            by_x = difference(lambda t, j=j, y=y: testing.value_and_partials(code, t, y)[j], x)
            by_y = difference(lambda t, j=j, x=x: testing.value_and_partials(code, x, t)[j], y)
            assert row == pytest.approx((by_x, by_y), rel=1e-6, abs=1e-8), (name, x, y)


def test_a_wrong_rule_is_caught(monkeypatch):
    monkeypatch.setitem(RULES, "sin", (lambda a, v: a.cos() * (1.0 + 1e-9),))
    with pytest.raises(AssertionError):
        test_a_rule_has_the_value_of_the_derivative_in_the_table("sin")


# --- closed forms ---------------------------------------------------------------------------------


def test_four_nested_derivatives_of_tanh():
    fourth = fs.grad(fs.grad(fs.grad(fs.grad(fmath.tanh))))
    for x in (-2.0, -0.3, 0.0, 0.7, 1.9):
        v = math.tanh(x)
        s = 1.0 - v * v
        assert fourth(x) == pytest.approx(8.0 * v * s * (2.0 - 3.0 * v * v), rel=1e-12, abs=1e-12)


def test_powers_to_the_end():
    """Derivatives of x**3 at a negative point and at 0: no logarithm of the base, no 0 ** -1."""
    f = lambda x: x**3
    for at_minus_2, at_0 in [(12.0, 0.0), (-12.0, 0.0), (6.0, 6.0), (0.0, 0.0), (0.0, 0.0)]:
        f = fs.grad(f)
        assert (f(-2.0), f(0.0)) == (at_minus_2, at_0)


def test_derivatives_of_lgamma_of_any_order():
    f = fmath.lgamma
    for order in range(1, 7):
        f = fs.grad(f)
        expected = fs.Tensor(2.7).polygamma(order - 1).data
        assert f(2.7) == pytest.approx(expected, rel=1e-14)
    assert fs.grad(fs.grad(fmath.lgamma))(1.0) == pytest.approx(math.pi**2 / 6, rel=1e-14)
    with pytest.raises(ValueError, match="polygamma"):
        fs.grad(lambda x: x.polygamma(101))(2.0)


def call_price(spot, strike, rate, volatility, years):
    root = volatility * fmath.sqrt(years)
    d1 = (fmath.log(spot / strike) + (rate + volatility**2 / 2) * years) / root
    return spot * fs.math.ndtr(d1) - strike * fmath.exp(-rate * years) * fs.math.ndtr(d1 - root)


def test_black_scholes_greeks():
    market = (105.0, 100.0, 0.03, 0.2, 0.75)
    spot, strike, rate, volatility, years = market
    root = volatility * math.sqrt(years)
    d1 = (math.log(spot / strike) + (rate + volatility**2 / 2) * years) / root
    density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
    delta, vega = fs.grad(call_price, (0, 3))(*market)
    assert delta == pytest.approx(0.5 * math.erfc(-d1 / math.sqrt(2)), rel=1e-12)
    assert vega == pytest.approx(spot * density * math.sqrt(years), rel=1e-12)
    assert fs.hessian(call_price)(*market) == pytest.approx(density / (spot * root), rel=1e-11)
    assert fs.grad(fs.grad(call_price), 3)(*market) == pytest.approx(-density * (d1 - root) / volatility, rel=1e-11)


def test_implied_volatility_by_newton():
    market = [105.0, 100.0, 0.03, 0.31, 0.75]
    target = call_price(*market)
    assert isinstance(target, float)
    price_and_vega = fs.value_and_grad(call_price, 3)
    market[3] = 0.15
    for _ in range(8):
        price, vega = price_and_vega(*market)
        market[3] -= (price - target) / vega
    assert market[3] == pytest.approx(0.31, abs=1e-13)


def test_the_gradient_of_a_newton_solve_is_that_of_the_implicit_function():
    """A loop with a derivative inside it, differentiated: x(a) with x**3 + x = a."""

    def solve(a):
        x = a
        for _ in range(60):
            x = x - (x**3 + x - a) / fs.grad(lambda y: y**3 + y)(x)
        return x

    value, slope = fs.value_and_grad(solve)(2.0)
    assert value == pytest.approx(1.0, abs=1e-14)
    assert slope == pytest.approx(0.25, rel=1e-12)


# --- inputs, results, structures ------------------------------------------------------------------


def test_numbers_in_numbers_out():
    gradient = fs.grad(lambda x, y: x * y + x, (0, 1))
    assert gradient(2, 3.0) == (4.0, 2.0)
    assert all(type(g) is float for g in gradient(np.float64(2.0), True))
    assert fs.grad(lambda x, y: x * y, 1)(2.0, 3.0) == 2.0
    assert fs.grad(lambda x, y: x * y, -1)(2.0, 3.0) == 2.0
    assert fs.grad(lambda x, *, k: k * x)(2.0, k=5.0) == 5.0
    assert fs.value_and_grad(lambda x: x * x)(3.0) == (9.0, 6.0)
    assert fs.grad(abs)(-2.0) == -1.0


def test_structures_come_back():
    Pair = namedtuple("Pair", "a b")
    p = {"w": [1.0, np.array([[2.0, 3.0]])], "pair": Pair(4.0, (5.0,)), "none": [], "empty": np.zeros(0)}

    def f(p):
        (row,) = p["w"][1]
        return p["w"][0] * row[0] + row[1] ** 2 + p["pair"].a * p["pair"].b[0]

    g = fs.grad(f)(p)
    assert type(g["pair"]) is Pair
    assert g["pair"] == Pair(5.0, (4.0,))
    assert g["none"] == []
    assert g["empty"].shape == (0,)
    assert g["w"][0] == 2.0
    assert type(g["w"][1]) is np.ndarray
    assert g["w"][1].dtype == np.float64
    assert g["w"][1].tolist() == [[1.0, 6.0]]
    assert list(g) == list(p)


def test_arrays_as_numpy_code_uses_them():
    A = np.array([[2.0, 1.0], [1.0, 3.0], [0.0, 1.0]])

    def f(x):
        y = A @ x
        return np.sum(np.exp(y[1:] - y[:-1]) * 2.0) + np.dot(x, x) + x.sum() + np.maximum(x, 0.5)[0]

    x = np.array([0.3, -0.2])
    g = fs.grad(f)(x)
    assert g.shape == (2,)
    assert fs.gradcheck(f, x)
    e = np.exp([-0.6 - 0.1, -0.2 + 0.3])
    assert g == pytest.approx(2 * e @ (A[1:] - A[:-1]) + 2 * x + 1, rel=1e-12)
    assert type(f(x)) is np.float64  # SciPy calls it with plain arrays
    assert fs.grad(lambda x: x[0, 1] * x[1, 0])(np.array([[1, 2], [3, 4]])).tolist() == [[0.0, 3.0], [2.0, 0.0]]
    assert fs.grad(lambda x: x**2)(np.array(3.0)).shape == ()
    for f in (np.var, np.std, np.mean, np.prod, np.max, np.linalg.norm, lambda x: x @ np.eye(2) @ x.T):
        x = np.array([1.3, -0.4])
        assert fs.gradcheck(f, x)
        assert fs.hessian(f)(x) == pytest.approx(numeric_hessian(f, x), abs=1e-9)


def test_tensors_in_tensors_out():
    x = fs.Tensor(2.0)
    g = fs.grad(lambda x: x**3)(x)
    assert isinstance(g, fs.Tensor)
    assert g.data == 12.0
    g.backward()
    assert x.grad == 12.0
    a = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    g = fs.grad(lambda a: (a * a * a).sum())(a)
    assert isinstance(g, fs.TensorArray)
    assert g.tolist() == [[3.0, 12.0], [27.0, 48.0]]
    g.sum().backward()
    assert a.grad.tolist() == [[6.0, 12.0], [18.0, 24.0]]
    objects = np.array([fs.Tensor(1.0), 2.0], dtype=object)
    g = fs.grad(lambda x: x[0] * x[1])(objects)
    assert g.dtype == object
    assert [t.data for t in g] == [2.0, 1.0]
    value, g = fs.value_and_grad(lambda x: x * x)(x)
    assert isinstance(value, fs.Tensor)
    assert value.data == 4.0


def test_no_dependence_is_zero():
    assert fs.grad(lambda x: 3.0)(1.0) == 0.0
    assert fs.grad(lambda x, y: y * 2, (0, 1))(1.0, 2.0) == (0.0, 2.0)
    assert fs.grad(lambda x: fs.Tensor(4.0) * 2)(np.ones(2)).tolist() == [0.0, 0.0]
    assert fs.grad(fs.grad(lambda x: 3.0 * x))(1.0) == 0.0
    assert fs.hessian(lambda x: x[0])(np.ones(2)).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert fs.jvp(lambda x: 3.0, 1.0, 1.0) == (3.0, 0.0)
    assert fs.vjp(lambda x: 3.0, 1.0)[1](2.0) == (0.0,)
    assert fs.hvp(lambda x: 3.0 * x, 1.0, 1.0) == 0.0
    assert fs.jacobian(lambda x: [x, 2.0])(1.0) == [1.0, 0.0]


def test_what_cannot_be_differentiated_says_so():
    with pytest.raises(TypeError, match=r"single number, got TensorArray of shape \(2,\).*jacobian"):
        fs.grad(lambda x: x)(np.ones(2))
    with pytest.raises(TypeError, match=r"single number, got TensorArray of shape \(2,\)"):
        fs.grad(lambda x: x)(fs.to_tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match="single number, got list"):
        fs.grad(lambda x: [x])(1.0)
    with pytest.raises(TypeError, match="single number, got NoneType"):
        fs.hessian(lambda x: None)(1.0)
    with pytest.raises(TypeError, match=r"grad: argument 0\['name'\] is str"):
        fs.grad(lambda x: 1.0)({"name": "x"})
    with pytest.raises(TypeError, match="argument 0 is complex"):
        fs.grad(lambda x: x)(1j)
    with pytest.raises(TypeError, match="array of <U1"):
        fs.grad(lambda x: 1.0)(np.array(["a"]))
    with pytest.raises(TypeError, match="holds str"):
        fs.grad(lambda x: 1.0)(np.array(["a", 1.0], dtype=object))
    with pytest.raises(ValueError, match="argnums is 2, but the function was called with 1"):
        fs.grad(lambda x: x, 2)(1.0)
    with pytest.raises(TypeError, match="argnums: expected an integer"):
        fs.grad(lambda x: x, "0")(1.0)
    with pytest.raises(ValueError, match=r"jvp: tangents: expected an array of shape \(2,\), got .*\(3,\)$"):
        fs.jvp(lambda x: x, np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="the weights"):
        fs.vjp(lambda x: x, np.ones(2))[1](1.0)


def test_jacobian_shapes():
    x = np.array([1.0, 2.0, 3.0])
    J = fs.jacobian(lambda x: np.array([x[0] * x[1], x[2] ** 2]))(x)
    assert J.tolist() == [[2.0, 1.0, 0.0], [0.0, 0.0, 6.0]]
    assert fs.jacobian(lambda x: x.sum())(x).tolist() == [1.0, 1.0, 1.0]
    assert fs.jacobian(lambda x: np.array([x, x * x]))(3.0).tolist() == [1.0, 6.0]
    assert fs.jacobian(lambda x: x * 2.0)(np.ones((2, 2))).shape == (2, 2, 2, 2)
    assert fs.jacobian(lambda x: np.zeros(0))(x).shape == (0, 3)
    by_both = fs.jacobian(lambda x, y: {"a": x * y, "b": [x]}, (0, 1))(2.0, 5.0)
    assert by_both == {"a": (5.0, 2.0), "b": [(1.0, 0.0)]}
    assert fs.jacobian(lambda v: [v[0] * v[1], v[0]])([2.0, 5.0]) == [[5.0, 2.0], [1.0, 0.0]]
    layer = fs.Linear(3, 2, seed=1)
    assert fs.jacobian(layer)(x) == pytest.approx(layer.w.numpy().T, rel=1e-15)
    J = fs.jacobian(lambda a: a * a)(fs.to_tensor([1.0, 2.0]))
    assert isinstance(J, fs.TensorArray)
    assert J.tolist() == [[2.0, 0.0], [0.0, 4.0]]


def rosenbrock(x):
    return sum(100.0 * (x[i + 1] - x[i] ** 2) ** 2 + (1.0 - x[i]) ** 2 for i in range(len(x) - 1))


def test_hessian_against_the_closed_form():
    optimize = pytest.importorskip("scipy.optimize")
    x = np.array([-1.2, 1.0, 0.7, 1.3])
    assert fs.grad(rosenbrock)(x) == pytest.approx(optimize.rosen_der(x), rel=1e-12)
    H = fs.hessian(rosenbrock)(x)
    assert H == pytest.approx(optimize.rosen_hess(x), rel=1e-12, abs=1e-12)
    assert H == pytest.approx(H.T, rel=1e-13)
    p = np.array([0.3, -1.0, 2.0, 0.1])
    assert fs.hvp(rosenbrock, x, p) == pytest.approx(H @ p, rel=1e-12)
    assert fs.hvp(rosenbrock, (x,), (p,))[0] == pytest.approx(H @ p, rel=1e-12)


@pytest.mark.dear
@pytest.mark.parametrize("method", ["BFGS", "Newton-CG", "trust-exact"])
def test_scipy_minimize_just_works(method):
    optimize = pytest.importorskip("scipy.optimize")
    second = {} if method == "BFGS" else {"hess": fs.hessian(optimize.rosen)}
    found = optimize.minimize(
        optimize.rosen, np.array([-1.2, 1.0, 0.5]), jac=fs.grad(optimize.rosen), method=method, **second
    )
    assert found.x == pytest.approx(np.ones(3), abs=1e-4)


def test_hessian_of_structures():
    H = fs.hessian(lambda p: p["a"] ** 2 * p["b"][0])({"a": 3.0, "b": [5.0]})
    assert H == {"a": {"a": 10.0, "b": [6.0]}, "b": [{"a": 6.0, "b": [0.0]}]}
    assert fs.hessian(lambda x, y: x * x * y, (0, 1))(3.0, 5.0) == ((10.0, 6.0), (6.0, 0.0))


def test_jvp_and_vjp_are_the_jacobian_from_either_side():
    draw = np.random.default_rng(0)
    net = fs.MLP(3, [4, 2], seed=0)

    def f(x, s):
        y = net(x)
        return [fs.softmax(y), fmath.exp(s) * y[0], fs.logsumexp(y), fs.squared_loss(y, [s, 1.0]), fs.dot(y, y), 7.0]

    x, s = draw.normal(size=3), 0.4
    dx, ds = draw.normal(size=3), 1.5
    value, tangent = fs.jvp(f, (x, s), (dx, ds))
    rows = [np.hstack([np.atleast_2d(np.array(a)), np.atleast_1d(b)[:, None]]) for a, b in fs.jacobian(f, (0, 1))(x, s)]
    J = np.vstack(rows)
    assert np.hstack(tangent) == pytest.approx(J @ [*dx, ds], rel=1e-12, abs=1e-14)
    assert [type(t) for t in tangent] == [np.ndarray, float, float, float, float, float]
    weights = [draw.normal(size=2), 0.3, -1.0, 2.0, 0.7, 9.0]
    again, back = fs.vjp(f, x, s)
    assert np.hstack(again).tolist() == np.hstack(value).tolist()
    for scale in (1.0, 2.0):  # it can be called again
        gx, gs = back([scale * np.asarray(w) if np.ndim(w) else scale * w for w in weights])
        assert [*gx, gs] == pytest.approx(scale * (np.hstack(weights) @ J), rel=1e-12, abs=1e-14)


def test_products_nest_too():
    second = fs.grad(lambda x: fs.jvp(lambda y: y**3, x, 1.0)[1])
    assert second(2.0) == 12.0
    second = fs.grad(lambda x: fs.vjp(lambda y: y**3, x)[1](1.0)[0])
    assert second(2.0) == 12.0
    third = fs.grad(lambda x: fs.hvp(lambda y: y**4, x, 1.0))
    assert third(2.0) == 48.0
    assert fs.jvp(fs.grad(lambda x: x**4), 2.0, 1.0) == (32.0, 48.0)
    assert fs.jacobian(fs.jacobian(lambda x: x**3))(np.array([1.0, 2.0])).shape == (2, 2, 2)


def test_the_inner_derivative_keeps_what_it_captured():
    """d/dx x * (d/dy x*y) at y = x: the two levels are not confused, and a captured x is not lost."""
    assert fs.grad(lambda x: x * fs.grad(lambda y: x + y)(1.0))(3.0) == 1.0
    assert fs.grad(lambda x: fs.grad(lambda y: x * y)(2.0))(3.0) == 1.0
    assert fs.grad(lambda x: fs.grad(lambda y: x * y)(x))(3.0) == 1.0
    assert fs.grad(lambda x: fs.grad(lambda y: x * y * y)(x))(3.0) == 12.0  # 2xy at y = x is 2x**2
    assert fs.grad(lambda x: fs.grad(lambda v: (v * x).sum())(np.ones(2))[0] * x)(3.0) == 6.0


# --- layers, array operations --------------------------------------------------------------------


def numeric_hessian(f, x, h=1e-4):
    gradient, at = fs.grad(f), np.arange(x.size)
    return np.array([difference(lambda t, k=k: gradient(np.where(at == k, t, x)), x[k], h) for k in at])


WIDE = {
    "sum": lambda x: fs.sum(x * x * x),
    "dot": lambda x: fs.dot(x * x, x),
    "dot with itself": lambda x: fs.dot(x, x) ** 2,
    "logsumexp": lambda x: fs.logsumexp(x * 2.0),
    "softmax": lambda x: fs.dot(fs.softmax(x), [0.3, -1.0, 2.0, 0.5]),
    "log_softmax": lambda x: fs.log_softmax(x)[2] * x[0],
    "squared_loss": lambda x: fs.squared_loss([x[0] ** 2, x[1], x[1]], [x[2], 3.0, x[3]]),
    "squared_loss of rows": lambda x: fs.squared_loss([[x[0] ** 2], [x[1] * x[3]]], [[x[2]], [3.0]]),
    "mse_loss": lambda x: fs.mse_loss([x[0] ** 2, x[1], x[1]], [x[2], 3.0, x[3]]),
    "mse_loss of rows": lambda x: fs.mse_loss([[x[0] ** 2, x[1]], [x[1] * x[3], x[2]]], [[x[2], 1.0], [3.0, x[0]]]),
    "cross_entropy": lambda x: fs.cross_entropy(list(x), 2),
    "cross_entropy of rows": lambda x: fs.cross_entropy([[x[0], x[1]], [x[2] * x[0], x[3]]], [1, 0]),
    "norm": lambda x: fs.norm(list(x)),
    "Linear of Tensors": lambda x: fs.cross_entropy(fs.Linear(4, 3, seed=3)(list(x)), 1),
    "Linear of rows": lambda x: fs.squared_loss(fs.Linear(2, 2, seed=3)(x.reshape(2, 2)), [[1, 2], [3, 4]]),
    "weights": lambda x: fs.cross_entropy(_array_ops.affine([0.5, 0.0], [[x[0], x[1]], [x[2], x[3]]], [x[0], 1.0]), 0),
    "MLP": lambda x: fs.cross_entropy(fs.MLP(4, [5, 3], seed=2)(list(x)), 1),
    "array functions": lambda x: (fs.TensorArray.tanh(array(x)) ** 2.0 + array(x).exp() * 0.5).sum(),
}


def array(x):
    """A TensorArray with the Tensors of an ndarray."""
    return _array_ops.elementwise("*", list(x), 1.0)


@pytest.mark.parametrize("name", WIDE)
def test_hessian_through_array_operations(name):
    f, x = WIDE[name], np.array([0.7, -0.4, 1.1, 0.2])
    assert fs.gradcheck(f, x)
    H = fs.hessian(f)(x)
    assert H == pytest.approx(H.T, abs=1e-13)
    assert H == pytest.approx(numeric_hessian(f, x), rel=1e-8, abs=1e-9)


@pytest.mark.parametrize("name", WIDE)
def test_a_recorded_sweep_has_the_numbers_of_the_plain_one(name):
    xs = [fs.Tensor(v) for v in (0.7, -0.4, 1.1, 0.2)]
    y = WIDE[name](np.array(xs))
    y.backward()
    plain = [x.grad for x in xs]
    y.backward(create_graph=True)
    assert all(isinstance(x.grad, fs.Tensor) for x in xs)
    assert [x.grad.data for x in xs] == pytest.approx(plain, rel=1e-14, abs=1e-15)


def test_hessian_of_the_loss_of_an_mlp_by_its_weights():
    net = fs.MLP(2, [3, 2], seed=4)
    shapes = [p.shape for p in net.parameters()]
    start = np.concatenate([p.numpy().ravel() for p in net.parameters()])
    x = np.array([0.8, -0.3])

    def loss(v):
        parts, at = [], 0
        for shape in shapes:
            parts.append(v[at : at + math.prod(shape)].reshape(shape))
            at += math.prod(shape)
        hidden = _array_ops.affine(x, parts[0], parts[1]).relu()
        return fs.cross_entropy(_array_ops.affine(hidden, parts[2], parts[3]), 1)

    fs.cross_entropy(net(x), 1).backward()
    own = np.concatenate([np.asarray(p.grad).ravel() for p in net.parameters()])
    assert fs.grad(loss)(start) == pytest.approx(own, rel=1e-12, abs=1e-15)
    H = fs.hessian(loss)(start)
    assert H == pytest.approx(numeric_hessian(loss, start), rel=1e-7, abs=1e-9)


def test_gradient_by_the_parameters_of_a_net():
    net = fs.MLP(3, [4, 2], seed=0)
    x = np.array([0.3, -0.2, 0.9])

    def loss(parameters):
        w0, b0, w1, b1 = parameters
        return fs.cross_entropy(_array_ops.affine(_array_ops.affine(x, w0, b0).relu(), w1, b1), 1)

    gradients = fs.grad(loss)(net.parameters())
    fs.cross_entropy(net(x), 1).backward()
    for p, g in zip(net.parameters(), gradients, strict=True):
        assert g.shape == p.shape
        assert g.numpy() == pytest.approx(np.asarray(p.grad), rel=1e-13, abs=1e-16)


# --- backward(create_graph=True) ------------------------------------------------------------------


def test_gradients_of_every_reached_node_are_tensors():
    x, y = fs.Tensor(2.0), fs.Tensor(3.0)
    product = x * y
    z = product * x + 1.0
    z.backward(create_graph=True)
    for node in (x, y, product, z):
        assert isinstance(node.grad, fs.Tensor)
    assert (x.grad.data, y.grad.data, product.grad.data, z.grad.data) == (12.0, 4.0, 2.0, 1.0)
    x.grad.backward()  # d(2xy)/dx
    assert (x.grad, y.grad) == (6.0, 4.0)
    assert type(x.grad) is float


def test_orders_of_create_graph():
    x = fs.Tensor(0.6)
    y = x.sin()
    for expected in (math.cos(0.6), -math.sin(0.6), -math.cos(0.6), math.sin(0.6)):
        y.backward(create_graph=True)
        y = x.grad
        assert y.data == pytest.approx(expected, rel=1e-15)


def test_a_recorded_gradient_lasts_until_the_number_changes():
    x, other = fs.Tensor(2.0), fs.Tensor(1.0)
    y = x * x
    y.backward(create_graph=True)
    (other * 3.0).backward()
    assert isinstance(x.grad, fs.Tensor)
    x.grad = 0.5
    assert type(x.grad) is float
    assert x.grad == 0.5
    y.backward(create_graph=True)
    (x * 7.0).backward()
    assert type(x.grad) is float
    assert x.grad == 7.0
    y.backward(create_graph=True)
    fs.sgd([x], lr=0.25)
    assert (x.data, x.grad) == (1.0, 0.0)
    (x * 0.0).backward(create_graph=True)
    (other * 3.0).backward()
    assert isinstance(x.grad, fs.Tensor)
    (x * 0.0).backward()
    assert type(x.grad) is float  # the same number, but nothing was recorded
    nan = fs.Tensor(math.inf)
    (nan * 0.0 * nan).backward(create_graph=True)
    assert isinstance(nan.grad, fs.Tensor)
    assert math.isnan(nan.grad.data)


def test_create_graph_accumulates_on_leaves():
    x = fs.Tensor(3.0)
    (x**2).backward(create_graph=True)
    (x**3).backward(create_graph=True, accumulate=True)
    assert x.grad.data == 6.0 + 27.0
    second = x.grad
    second.backward()
    assert x.grad == 2.0 + 18.0
    x.grad = 5.0
    (x**2).backward(create_graph=True, accumulate=True)
    assert x.grad.data == 11.0


def test_create_graph_inside_no_grad():
    x = fs.Tensor(3.0)
    y = x**3
    with fs.no_grad():
        y.backward(create_graph=True)
    x.grad.backward()
    assert x.grad == 18.0


def test_gradient_penalty():
    """The derivative of (df/dx)**2 by a parameter, as in a training loop, with the graph of the gradient."""
    w, x = fs.Tensor(0.7), fs.Tensor(1.3)
    (w * x).tanh().backward(create_graph=True)
    (x.grad**2).backward()
    s = lambda w: (w * (1 - math.tanh(w * 1.3) ** 2)) ** 2
    assert w.grad == pytest.approx(difference(s, 0.7), rel=1e-9)


def test_recorded_gradients_are_collected_with_their_graph():
    """A node's gradient refers to the node: neither may keep the other.  Memory of a loop is flat."""
    w = fs.Tensor(0.5)
    for step in range(60):
        x = fs.Tensor(1.0 + step)
        hidden = [(w * x * k).tanh() for k in range(1, 100)]
        loss = fs.sum(hidden)
        loss.backward(create_graph=True)
        (x.grad**2).backward()
        w.data -= 1e-6 * w.grad
        del x, hidden, loss
        if step == 20:
            testing.collect()
            before = fs.tape_info()
    testing.collect()
    testing.collect()
    after = fs.tape_info()
    assert after["nodes"] <= before["nodes"] + 10
    assert after["pinned"] <= before["pinned"] + 10


def test_a_recorded_gradient_survives_collections(stress):
    x = fs.Tensor(0.5)
    y = (x * x).exp()
    y.backward(create_graph=True)
    del y
    gc.collect()
    for _ in range(5):
        fs.Tensor(1.0) * 2.0
        testing.collect()
    assert isinstance(x.grad, fs.Tensor)
    slope = x.grad
    slope.backward()
    assert x.grad == pytest.approx((2 + 4 * 0.25) * math.exp(0.25), rel=1e-14)


def test_derivatives_in_stress_mode(stress):
    x = np.array([0.7, -0.4])
    net = fs.MLP(2, [3, 2], seed=1)
    f = lambda x: fs.cross_entropy(net(x), 1) * fs.softmax(x)[0] + (array(x) * 2.0).sum()
    H = fs.hessian(f)(x)
    testing.set_stress(False)
    assert H.tolist() == fs.hessian(f)(x).tolist()


# --- the user's own operations --------------------------------------------------------------------


def test_custom_operations():
    cube = fs.custom_op(lambda x: x**3, lambda x: 3.0 * x * x)
    assert fs.grad(cube)(2.0) == 12.0
    assert fs.grad(fs.grad(cube))(2.0) == 12.0
    assert fs.grad(fs.grad(fs.grad(cube)))(2.0) == 6.0
    wave = fs.custom_op(math.sin, fmath.cos)
    assert fs.grad(fs.grad(wave))(0.5) == pytest.approx(-math.sin(0.5), rel=1e-15)
    scaled = fs.custom_op(lambda x, y: 2.0 * x + y, lambda x, y: (2.0, 1.0))
    assert fs.hessian(scaled, (0, 1))(1.0, 2.0) == ((0.0, 0.0), (0.0, 0.0))


def test_a_custom_operation_that_cannot_be_differentiated_twice_says_so():
    wave = fs.custom_op(math.sin, math.cos, name="wave")
    assert fs.grad(wave)(0.5) == math.cos(0.5)
    with pytest.raises(NotImplementedError, match=r"'wave'.*fastscalar.math"):
        fs.grad(fs.grad(wave))(0.5)

    def by_hand(x):
        out = fs.Tensor(x.data**2, (x,), "*")

        def step():
            x.grad += 2.0 * x.data * out.grad

        out._backward = step
        return out

    assert fs.grad(by_hand)(3.0) == 6.0
    x = fs.Tensor(3.0)
    x.grad = 0.25
    with pytest.raises(NotImplementedError, match="custom_op"):
        by_hand(x).backward(create_graph=True)
    assert x.grad == 0.25  # nothing was written


# --- what is left behind --------------------------------------------------------------------------


def test_captured_tensors_keep_their_gradients():
    w, unused = fs.Tensor(2.0), fs.Tensor(1.0)
    w.grad = 0.25
    net = fs.MLP(3, [4, 2], seed=0)
    before_loss = fs.cross_entropy(net([1.0, 2.0, 0.0]), 0)
    before_loss.backward()
    shared = w * 3.0
    shared.backward(create_graph=True)
    kept = [np.array(p.grad) for p in net.parameters()]
    x = np.array([0.3, -0.2, 0.9])

    def f(x):
        return fs.cross_entropy(net(x), 1) * w * shared + unused

    for derivative in (fs.grad(f), fs.hessian(f), fs.jacobian(f), lambda x: fs.hvp(f, x, x), lambda x: fs.jvp(f, x, x),
                       lambda x: fs.vjp(f, x)[1](1.0), lambda x: fs.gradcheck(f, x)):  # fmt: skip
        derivative(x)
        assert w.grad.data == 3.0
        assert isinstance(w.grad, fs.Tensor)
        assert (unused.grad, shared.grad.data) == (0.0, 1.0)
        for p, g in zip(net.parameters(), kept, strict=True):
            assert np.array(p.grad).tolist() == g.tolist()
    fs.sgd(net.parameters(), lr=0.1)
    testing.check()


def test_captured_rows_of_a_data_set_of_leaves_keep_their_gradients():
    data = fs.to_tensor(np.arange(12.0).reshape(4, 3))
    (data[1] * 2.0).sum().backward()
    before = np.array(data.grad)
    assert fs.grad(lambda x: (data[2] * x).sum() + data[1][0] * x)(2.0) == 6 + 7 + 8 + 3
    assert np.array(data.grad).tolist() == before.tolist()
    testing.check()


def test_an_interrupted_or_failing_function_leaves_nothing():
    w = fs.Tensor(2.0)
    w.grad = 0.25
    with pytest.raises(ZeroDivisionError):
        fs.grad(lambda x: w * x / 0.0)(1.0)
    assert not tracing()
    failing = fs.custom_op(lambda x: x, lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fs.grad(lambda x: failing(x * w))(1.0)
    assert w.grad == 0.25
    assert fs.grad(lambda x: w * x)(1.0) == 2.0


def test_refused_memory_leaves_everything_as_it_was():
    w = fs.Tensor(2.0)
    w.grad = 0.25
    x = fs.Tensor(3.0)
    y = w * x
    for k in range(3):
        testing.fail_after(k)
        with pytest.raises(MemoryError):
            _inspect._gradients(y, [x])
        testing.fail_after(-1)
        assert (w.grad, x.grad) == (0.25, 0.0)
    for k in range(2):
        testing.fail_after(k)
        with pytest.raises(MemoryError):
            _inspect._reached(y, [x])
        testing.fail_after(-1)
    assert _inspect._gradients(y, [x, w]) == [2.0, 3.0]
    assert (w.grad, x.grad) == (0.25, 0.0)


def test_no_grad_around_a_derivative():
    with fs.no_grad():
        assert fs.grad(lambda x: x**3)(2.0) == 12.0
        g = fs.grad(lambda x: x**3)(fs.Tensor(2.0))
        assert fs.hessian(lambda x: x[0] ** 3)(np.array([2.0])).tolist() == [[12.0]]
        assert fs.jvp(lambda x: x**3, 2.0, 1.0) == (8.0, 12.0)
    assert g.data == 12.0
    assert g._parents == ()

    def half_quiet(x):
        with fs.no_grad():
            y = x * x
        return x * y

    assert fs.grad(half_quiet)(3.0) == 9.0


def test_threads():
    results = {}

    def work(k):
        results[k] = [fs.grad(fs.grad(lambda x: x**3 * k))(float(n)) for n in range(40)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(300)
    assert results == {k: [6.0 * n * k for n in range(40)] for k in range(4)}


def test_deep_functions():
    """No recursion: a hundred thousand operations, differentiated twice."""

    def f(x):
        y = x
        for _ in range(100_000 if not fs.tape_info()["stress"] else 300):
            y = y * 1.0 + 0.0
        return y * y

    assert fs.grad(f)(3.0) == 6.0
    assert fs.hvp(f, 3.0, 1.0) == 2.0


# --- gradcheck ------------------------------------------------------------------------------------


def test_gradcheck_catches_a_planted_wrong_derivative():
    wrong = fs.custom_op(lambda x: x**3, lambda x: 3.0001 * x * x, name="wrong")
    report = fs.gradcheck(lambda p, q: wrong(p["a"][1]) + p["a"][0] * q, ({"a": np.array([1.0, 2.0])}, 3.0))
    assert not report
    assert not report.ok
    assert report.checked == 3
    (mismatch,) = report.mismatches
    assert mismatch.input == "argument 0['a'][1]"
    assert mismatch.derivative == pytest.approx(12.0004)
    assert mismatch.difference == pytest.approx(12.0, rel=1e-9)
    text = str(report)
    assert re.search(r"1 of 3 derivatives are wrong\n.*argument 0\['a'\]\[1\].*12\.0004.*12.*differ by 0\.0004", text)


def test_gradcheck_of_results_in_structures():
    report = fs.gradcheck(lambda x: {"y": [x[0] * x[1], x.sum()]}, np.array([0.3, 2.0]))
    assert report
    assert report.checked == 4
    assert str(report) == "gradcheck: 4 derivatives agree with differences"
    wrong = fs.custom_op(lambda x: x * x, lambda x: x, name="wrong")
    report = fs.gradcheck(lambda x: {"y": [x[0], wrong(x[1])]}, np.array([0.3, 2.0]))
    assert [(m.result, m.input) for m in report.mismatches] == [("result['y'][1]", "argument 0[1]")]


def test_gradcheck_at_large_small_and_edge_points():
    for x in (1e8, -1e6, 1e-6, 1e-4, 0.0, 3.0):
        assert fs.gradcheck(lambda x: x * x * 3.0 + x, x), x
    for x in (1e-6, 1e-3, 5e7):
        assert fs.gradcheck(fmath.log, x), x
    assert fs.gradcheck(fmath.asin, 0.9999)
    with pytest.raises(ValueError, match=r"argument 0.*where f ends"):
        fs.gradcheck(fmath.sqrt, 0.0)
    assert not fs.gradcheck(lambda x: x.relu(), 0.0)  # a kink: nothing is right
    assert fs.gradcheck(abs, 0.5)
    assert fs.gradcheck(lambda a: (a.tanh() * 2.0).sum(), fs.to_tensor([0.3, 0.4]))
    assert fs.gradcheck(lambda x: x * math.nan, 1.0).ok is False


# --- no silent loss -------------------------------------------------------------------------------


def lossy(x):
    return x * math.exp(x)  # the line that is named


LINE = lossy.__code__.co_firstlineno + 1


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f: fs.grad(f)(1.0),
        lambda f: fs.value_and_grad(f)(1.0),
        lambda f: fs.jacobian(f)(1.0),
        lambda f: fs.hessian(f)(1.0),
        lambda f: fs.jvp(f, 1.0, 1.0),
        lambda f: fs.vjp(f, 1.0),
        lambda f: fs.hvp(f, 1.0, 1.0),
        lambda f: fs.gradcheck(f, 1.0),
    ],
)
def test_a_warning_names_the_line_where_a_gradient_is_lost(derivative):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        derivative(lossy)
    assert caught
    for warning in caught:
        assert warning.category is fs.GradientLossWarning
        assert (warning.filename, warning.lineno) == (__file__, LINE)
        assert f"{Path(__file__).name}:{LINE}" in str(warning.message)


def test_a_warning_for_what_depends_on_the_input_and_nothing_else():
    w = fs.Tensor(2.0) * 3.0
    quiet = [
        lambda x: x * float(w),
        lambda x: x * math.exp(w * 0.1),
        lambda x: x * x.data * x.item(),
        lambda x: x * int(x) * round(x),             # steps: their slope is 0
        lambda x: x if x > 0.5 and bool(x) else -x,
        lambda x: x * (f"{x:.3f}" is not None),
        lambda x: x * float(fs.grad(lambda y: w * y)(fs.Tensor(1.0))),
        lambda x: fmath.remainder(x, 2.0) * fmath.exp(x),
        lambda x: x * fmath.isfinite(x) + fmath.isclose(x, 1.0),
    ]
    loud = [
        lambda x: x * float(x),
        lambda x: x * np.array([x * 2.0], dtype=float)[0],
        lambda x: fs.Tensor(x) * x,
        lambda x: x * fs.grad(lambda y: y * float(x))(1.0),
    ]
    for f in quiet:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fs.grad(f)(1.0)
    for k, f in enumerate(loud):
        with pytest.warns(fs.GradientLossWarning):
            fs.grad(f)(1.0)
        assert issubclass(fs.GradientLossWarning, UserWarning), k
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        float(fs.Tensor(1.0) * 2.0)
        fs.grad(lambda x: x)(1.0)
        float(w)


def test_other_threads_are_not_watched():
    caught = []

    def work():
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            caught.append((float(fs.Tensor(2.0)), list(found)))

    def f(x):
        t = threading.Thread(target=work)
        t.start()
        t.join(300)
        return x

    fs.grad(f)(1.0)
    assert caught == [(2.0, [])]


# --- the page -------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[2] / "docs" / "derivatives.md"


@pytest.mark.dear
def test_the_page_does_what_it_shows():
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    namespace: dict[str, object] = {"__name__": "page"}
    shown = 0
    for (language, code), (following, output) in zip(found, [*found[1:], ("", "")], strict=True):
        if language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.simplefilter("ignore", fs.GradientLossWarning)
            exec(compile(code, "docs/derivatives.md", "exec"), namespace)
        assert printed.getvalue() == (output if following == "text" else "")
        shown += 1
    assert shown >= 8


SHARES = {
    "logsumexp": fs.logsumexp,
    "softmax": lambda x: fs.softmax(x)[2],
    "log_softmax": lambda x: fs.log_softmax(x)[2],
    "cross_entropy": lambda x: fs.cross_entropy(x, 1),
}


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("shift", [-1e12, -1e5, 0.0, 3.0, 1e3, 1e5, 1e8, 1e12])
@pytest.mark.parametrize("x", [[0.5, 0.0, -1.0, 0.25], [0.0, 0.0, 0.0, 0.0], [0.0, -40.0, 1.0, -math.inf]])
def test_shares_of_large_numbers_keep_their_digits(name, shift, x):
    """Softmax does not change with a shift, and so do not its derivatives, in whatever mode."""
    f, point, at = SHARES[name], np.array(x), np.array(x) + shift
    a = fs.to_tensor(point)
    f(a).backward()
    right = a.grad.copy()
    step = np.array([1.0, 0.0, -2.0, 0.5])
    b = fs.to_tensor(at)
    f(b).backward(create_graph=True)
    for found in (fs.grad(f)(at), [float(g) for g in b.grad]):
        np.testing.assert_allclose(found, right, rtol=1e-14, atol=1e-16)
    np.testing.assert_allclose(fs.jvp(f, (at,), (step,))[1], right @ step, rtol=0, atol=1e-14)
    np.testing.assert_allclose(fs.hessian(f)(at), fs.hessian(f)(point), rtol=0, atol=1e-14)
