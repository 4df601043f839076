"""Results and arguments of any nest, arguments that all rows share, and weights of several results."""

from __future__ import annotations

import warnings
from collections import namedtuple

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math

Point = namedtuple("Point", "x y")
X = np.random.default_rng(0).normal(size=(300, 3))


def same(found, expected):
    """Equal to rounding, with the same structure and types of containers."""
    if isinstance(expected, dict):
        assert type(found) is dict
        assert list(found) == list(expected)
        for k in expected:
            same(found[k], expected[k])
    elif isinstance(expected, (list, tuple)):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            same(a, b)
    elif expected is None or isinstance(expected, (str, bool)):
        assert found is expected
    else:
        assert np.shape(found) == np.shape(expected)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def numbers(x):
    """What a function of Tensors returned, as floats and arrays of floats."""
    if isinstance(x, dict):
        return {k: numbers(v) for k, v in x.items()}
    if hasattr(type(x), "_fields"):
        return type(x)(*map(numbers, x))
    if isinstance(x, (list, tuple)):
        return type(x)(map(numbers, x))
    if x is None:
        return None
    if isinstance(x, np.ndarray):
        return np.array([float(fs.Tensor(e).data) if not isinstance(e, fs.Tensor) else e.data for e in x.ravel()],
                        float).reshape(x.shape)
    if isinstance(x, fs.TensorArray):
        return x.numpy()
    return x.data if isinstance(x, fs.Tensor) else float(x)


def stacked(rows):
    first = rows[0]
    if isinstance(first, dict):
        return {k: stacked([r[k] for r in rows]) for k in first}
    if hasattr(type(first), "_fields"):
        return type(first)(*(stacked([r[k] for r in rows]) for k in range(len(first))))
    if isinstance(first, (list, tuple)):
        return type(first)(stacked([r[k] for r in rows]) for k in range(len(first)))
    return None if first is None else np.array(rows)


RESULTS = {
    "pair": lambda x: (x[0] * x[1], x[2].exp()),
    "list": lambda x: [x[0], x[0]],
    "dictionary": lambda x: {"a": x[0] + 1, "b": [x[1], (x[2], 3.0)]},
    "named tuple": lambda x: Point(x[0] * 2, Point(x[1], x[2])),
    "the argument": lambda x: x,
    "array": lambda x: x * x + 1,
    "array of objects": lambda x: np.array([[x[0], x[1]], [x[2], 2.0]], object),
    "array of numbers": lambda x: (x[0], np.eye(2)),
    "array of whole numbers": lambda x: (np.arange(3), x[1]),
    "nothing beside": lambda x: (x[0], None),
    "number of numpy": lambda x: (np.float64(2.0), x[0], np.int64(3)),
    "one of one": lambda x: [x[0] + x[1]],
    "empty beside": lambda x: (x[0], [], {}),
    "branches": lambda x: (x[0], x[1]) if x[0] > 0 else (-x[0], x[1] * 2.0),
    "matrix": lambda x: fs.to_tensor([[1.0, 2.0], [3.0, 4.0]]) * x[0],
    "two dimensions": lambda x: {"m": fs.to_tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]) @ x if False else x},
}


@pytest.mark.parametrize("name", RESULTS)
def test_results_of_any_nest(name):
    f = RESULTS[name]
    p = fs.compile(f)
    expected = [numbers(f(fs.to_tensor(x))) for x in X]
    for _ in range(2):
        same(p.map(X), stacked(expected))
        same(p(X[0]), expected[0])
    same(p.map(X[:1]), stacked(expected[:1]))


@pytest.mark.dear
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("accumulate", [False, True])
def test_several_results_are_weighted(eager, threads, accumulate):
    w = fs.Tensor(1.5)
    v = fs.to_tensor([0.5, -2.0, 1.0])

    def f(x):
        if eager:
            float(x[0])                          # more ways through it than are kept
        z = x[0] * v[0] + x[1] * v[1] + x[2] * v[2]
        return {"z": z, "more": [math.tanh(z * w), (w * w, x * w)]}

    random = np.random.default_rng(1)
    given = {"z": random.normal(size=300), "more": [0.0, (random.normal(size=300), random.normal(size=(300, 3)))]}
    total = fs.Tensor(0.0)
    for k, x in enumerate(X):
        r = f(fs.to_tensor(x))
        total = total + r["z"] * given["z"][k] + r["more"][1][0] * given["more"][1][0][k]
        total = total + fs.sum(r["more"][1][1] * given["more"][1][1][k])
    w.grad, v.grad = 10.0, 20.0
    total.backward(accumulate=accumulate)
    expected = w.grad, np.array(v.grad)
    w.grad, v.grad = 10.0, 20.0
    p = fs.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = p.backward(X, cotangents=given, threads=threads, accumulate=accumulate)
    same(values, stacked([numbers(f(fs.to_tensor(x))) for x in X]))
    np.testing.assert_allclose(w.grad, expected[0], rtol=1e-10)
    np.testing.assert_allclose(v.grad, expected[1], rtol=1e-10)


def test_a_result_twice_and_a_captured_leaf_as_result():
    w = fs.Tensor(2.0)
    p = fs.compile(lambda x: (x * w, w, w, 4.0))
    values = p.backward(np.array([1.0, 2.0]), cotangents=(1.0, 10.0, np.array([100.0, 200.0]), 7.0))
    same(values, (np.array([2.0, 4.0]), np.full(2, 2.0), np.full(2, 2.0), np.full(2, 4.0)))
    assert w.grad == 3.0 + 20.0 + 300.0


def test_weights_of_zero_send_nothing():
    w = fs.Tensor(0.0)
    p = fs.compile(lambda x: (x * w, math.sqrt(w) * x))
    p.backward(np.array([1.0, 2.0]), cotangents=(1.0, 0.0))
    assert w.grad == 3.0


def test_aux():
    w = fs.Tensor(3.0)
    p = fs.compile(lambda x: (x[0] * x[1] * w, {"square": x[0] * x[0], "w": w}))
    (value, more), gradient = p.value_and_grad(X, has_aux=True)
    same(value, X[:, 0] * X[:, 1] * 3)
    same(more, {"square": X[:, 0] ** 2, "w": np.full(300, 3.0)})
    same(gradient, np.column_stack([X[:, 1] * 3, X[:, 0] * 3, np.zeros(300)]))
    for wrong in (lambda x: x[0], lambda x: (x, x), lambda x: {"a": x[0], "b": x[1]}, lambda x: (x[0], x[1], x[2])):
        with pytest.raises(TypeError, match=r"has_aux: expected \(value, more\) as result, got"):
            fs.compile(wrong).value_and_grad(X, has_aux=True)


def test_what_cannot_be_done_is_said():
    p = fs.compile(lambda x: (x[0], x[1]))
    with pytest.raises(TypeError, match=r"backward: expected one number as result, got \(a number, .*; cotangents="):
        p.backward(X)
    with pytest.raises(TypeError, match=r"value_and_grad: expected one number as result.*jacobian"):
        p.value_and_grad(X)
    with pytest.raises(ValueError, match=r"cotangents: expected the structure of the results, \(a number, a number\)"):
        p.backward(X, cotangents=[1.0])
    with pytest.raises(ValueError, match=r"cotangents\[1\] has the shape \(2,\), expected \(300,\) or \(\)"):
        p.backward(X, cotangents=(1.0, [1.0, 2.0]))
    with pytest.raises(TypeError, match=r"cotangents\[0\]: expected numbers, got str"):
        p.backward(X, cotangents=("a", 1.0))
    q = fs.compile(lambda x: (x[0], x[1]) if x[0] > 0 else x[0])
    with pytest.raises(TypeError, match=r"returns .* here, and .* for the rows before"):
        q.map(X)
    with pytest.raises(TypeError, match=r"one number .*as result, got"):
        fs.fit(fs.compile(lambda x, y: (x[0], y)), X, X[:, 0], epochs=1, optimizer=fs.SGD([fs.Tensor(1.0)], lr=0.1),
               progress=False)
    with pytest.raises(TypeError, match=r"shared: .* has no argument 'z'"):
        fs.compile(lambda x: x, shared="z")
    with pytest.raises(TypeError, match="shared: expected names or positions"):
        fs.compile(lambda x: x, shared=[1.5])
    with pytest.raises(ValueError, match="rows: expected a whole number"):
        p.map(X, rows=0)
    with pytest.raises(ValueError, match="rows is 5, but the arrays have 300 rows"):
        p.map(X, rows=5)
    loop = {"a": 1.0}
    loop["b"] = loop
    with pytest.raises(ValueError, match="a dict that contains itself"):
        fs.compile(lambda x: x["a"]).map(loop)


# --- arguments ------------------------------------------------------------------------------------------


def test_arguments_of_any_nest():
    def f(p, q, *, mode="sum", scale=None, flag=True):
        out = p["w"][0] * p["w"][1] + p["b"] if mode == "sum" else p["b"]
        out = out * q[1].x if flag else out - q[0][0]
        return out if scale is None else out * scale

    random = np.random.default_rng(2)
    w, b, q0, q1 = (random.normal(size=s) for s in [(50, 2), 50, (50, 2), 50])
    program = fs.compile(f)
    for named in ({}, {"mode": "b"}, {"flag": False}, {"scale": 2.0}, {"scale": random.normal(size=50), "flag": False}):
        found = program.map({"w": w, "b": b}, (q0, Point(q1, b)), **named)
        one = [
            f({"w": w[k], "b": b[k]}, (q0[k], Point(q1[k], b[k])),
              **{n: v[k] if isinstance(v, np.ndarray) else v for n, v in named.items()})
            for k in range(50)
        ]
        same(found, np.array(one))
        n = {name: v[3] if isinstance(v, np.ndarray) else v for name, v in named.items()}
        assert program({"w": w[3], "b": b[3]}, (q0[3], Point(q1[3], b[3])), **n) == pytest.approx(one[3])
    values, (dp, dq, ds) = program.value_and_grad(
        {"w": w, "b": b}, (q0, Point(q1, b)), scale=3.0, argnums=(0, 1, "scale"))
    same(dp, {"w": w[:, ::-1] * q1[:, None] * 3, "b": q1 * 3})
    same(dq, (np.zeros((50, 2)), Point((w[:, 0] * w[:, 1] + b) * 3, np.zeros(50))))
    assert ds == pytest.approx(values.sum() / 3)


def test_names_and_positions_are_one_signature():
    program = fs.compile(lambda x, y=2.0, *, z=1.0: x * y - z)
    same(program.map(X[:, 0], X[:, 1]), program.map(X[:, 0], y=X[:, 1]))
    same(program.map(y=X[:, 1], x=X[:, 0], z=0.5), X[:, 0] * X[:, 1] - 0.5)
    assert program.report().startswith("2 times: ")
    with pytest.raises(TypeError, match="unexpected keyword"):
        program.map(X[:, 0], no=1.0)


def test_strings_none_and_bools_are_of_the_signature_and_arrays_of_bool_are_rows():
    calls = []

    def f(x, how):
        calls.append(how)
        return x * 2.0 if how else x

    program = fs.compile(f)
    for how in (True, False, None, "", "yes"):
        same(program.map(X[:, 0], how), X[:, 0] * (2.0 if how else 1.0))
    assert all(any(c is how for c in calls) for how in (True, False, None, "", "yes"))
    rows = X[:, 0] > 0
    same(program.map(X[:, 0], rows), np.where(rows, 2.0, 1.0) * X[:, 0])


@pytest.mark.dear
@pytest.mark.parametrize("eager", [False, True])
def test_what_all_rows_share(eager):
    def f(x, w, more):
        if eager:
            float(x[0])
        def dot(row):
            return fs.sum([a * b for a, b in zip(x, row, strict=True)])

        hidden = [math.tanh(dot(row) + c) for row, c in zip(w, more["b"], strict=True)]
        return fs.sum([h * v for h, v in zip(hidden, more["v"], strict=True)]) * more["scale"]

    random = np.random.default_rng(3)
    w, b, v, scale = random.normal(size=(6, 3)), random.normal(size=6), random.normal(size=6), 0.7
    program = fs.compile(f, shared=("w", 2))
    more = {"b": b, "v": v, "scale": scale}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values, (dx, dw, dm) = program.value_and_grad(X, w, more, argnums=(0, 1, "more"))
        again, (ex, ew, em) = program.value_and_grad(X, w, more, argnums=(0, 1, 2), per_row=True)
        changed = program.map(X, w * 2, more)
    z = np.tanh(X @ w.T + b)
    same(values, z @ v * scale)
    same(changed, np.tanh(X @ w.T * 2 + b) @ v * scale)
    same(again, values)
    same(ex, dx)
    slope = (1 - z * z) * v * scale
    same(ew, slope[:, :, None] * X[:, None, :])
    same(dw, ew.sum(0))
    same(em, {"b": slope, "v": z * scale, "scale": z @ v})
    same(dm, {"b": slope.sum(0), "v": z.sum(0) * scale, "scale": float((z @ v).sum())})
    if not eager:
        assert "matrix product" in program.report()
        assert program.parameters == []


def test_what_all_rows_share_beside_captured_leaves():
    leaf = fs.to_tensor([1.0, 2.0])
    program = fs.compile(lambda x, w: fs.sum(w * leaf) * x, shared="w")
    w = np.array([3.0, 4.0])
    same(program.backward(np.array([1.0, 2.0]), w), np.array([11.0, 22.0]))
    same(np.array(leaf.grad), w * 3)
    leaf.grad = 5.0
    same(program.value_and_grad(np.array([1.0, 2.0]), w, argnums=1)[1], np.array([3.0, 6.0]))
    same(np.array(leaf.grad), np.full(2, 5.0))
    assert [p.shape for p in program.parameters] == [(2,)]


def test_whole_numbers_that_all_rows_share():
    program = fs.compile(lambda x, k, n: x[k[0]] * k[1] + sum(x[j] for j in range(n)), shared=("k", "n"))
    same(program.map(X, [2, 5], 2), X[:, 2] * 5 + X[:, 0] + X[:, 1])
    same(program.map(X, np.array([1, 3]), 1), X[:, 1] * 3 + X[:, 0])
    same(program.map(X[:2], [2, 5], 2), X[:2, 2] * 5 + X[:2, 0] + X[:2, 1])


def test_rows_without_row_arguments():
    w = fs.Tensor(3.0)
    program = fs.compile(lambda: w * 2.0)
    same(program.map(rows=4), np.full(4, 6.0))
    same(program.backward(rows=4), np.full(4, 6.0))
    assert w.grad == 8.0
    shared = fs.compile(lambda p: p[0] * p[1], shared=0)
    same(shared.map([2.0, 5.0], rows=2), np.full(2, 10.0))
    same(shared.value_and_grad([2.0, 5.0], rows=3)[1], np.array([15.0, 6.0]))


def test_vjp_gives_an_entry_for_each_argument():
    program = fs.compile(lambda x, k, how, y: (x * y, y * y * k))
    x, y, k = np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([1, 2])
    values, (dx, dk, dh, dy) = program.vjp(x, k, "a", y, cotangents=(1.0, np.array([0.5, 2.0])))
    same(values, (x * y, y * y * k))
    assert dk is None
    assert dh is None
    same(dx, y)
    same(dy, x + 2 * y * k * np.array([0.5, 2.0]))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e200, 0.0, -0.0])
def test_rows_of_numbers_that_are_not_finite(value):
    def f(x, w):
        return (x[0] * w[0] - x[1] * w[1] + w[2], math.exp(x[1]) * w[0], fs.where(x[0] > 0, math.sqrt(abs(x[1])), x[0]))

    program = fs.compile(f, shared="w")
    rows = X[:5, :2].copy()
    rows[2, 0] = value
    w = np.array([1.0, 0.5, value])
    with np.errstate(all="ignore"):
        expected = [numbers(f(fs.to_tensor(x), fs.to_tensor(w))) for x in rows]
        found = program.map(rows, w)
    same(found, stacked(expected))
    weights = (0.0, 1.0, 1.0)
    gx, gw = np.zeros(rows.shape), np.zeros(3)
    for k, x in enumerate(rows):
        a, b = fs.to_tensor(x), fs.to_tensor(w)
        r = f(a, b)
        (r[1] + r[2]).backward()
        gx[k], gw = np.array(a.grad), gw + np.array(b.grad)
    found = program.vjp(rows, w, cotangents=weights)[1]
    same(found, (gx, gw))
