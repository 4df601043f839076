"""Loops that are one instruction of a program: the same numbers and derivatives as step by step."""

import json
import math
import pickle
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math as fsmath
from fastscalar.program import rolled, rolling

X = np.linspace(0.5, 1.5, 40)
W = fs.to_tensor([0.3, -0.2, 0.9])
V = fs.Tensor(0.4)


@pytest.fixture(autouse=True)
def all_loops_are_rolled(monkeypatch):
    monkeypatch.setattr(rolling, "UNROLLED", 0)


def gradients(f, columns, i):
    """Value, and derivatives by arguments and leaves, of a plain call."""
    row = [c if np.ndim(c) == 0 else c[i] for c in columns]
    given = [int(r) if np.asarray(r).dtype.kind == "i" else fs.to_tensor(r) for r in row]
    y = f(*given)
    V.grad = W.grad = 0.0
    y.backward()
    return y.data, [np.array(g.grad) for g in given if not isinstance(g, int)], (V.grad, np.array(W.grad))


def same(f, *columns, rtol=1e-10):
    program = fs.compile(f)
    real = [k for k, c in enumerate(columns) if np.asarray(c).dtype.kind == "f"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, slopes = program.value_and_grad(*columns, argnums=tuple(real))
        assert np.array_equal(program.map(*columns, threads=2), program.map(*columns))
        V.grad = W.grad = 0.0
        again = program.backward(*columns)
    by_leaves = [V.grad, np.array(W.grad)]
    assert "loop of" in program.report()
    np.testing.assert_allclose(again, values, rtol=rtol)
    total = [0.0, np.zeros(3)]
    shared = [0.0] * len(real)
    for i in range(len(columns[0])):
        value, by_arguments, leaves = gradients(f, columns, i)
        assert math.isclose(values[i], value, rel_tol=rtol, abs_tol=1e-12)
        for k, at in enumerate(real):
            if np.ndim(columns[at]):
                np.testing.assert_allclose(slopes[k][i], by_arguments[k], rtol=rtol, atol=1e-12)
            else:
                shared[k] = shared[k] + by_arguments[k]
        total = [total[0] + leaves[0], total[1] + leaves[1]]
    for k, at in enumerate(real):
        if not np.ndim(columns[at]):
            np.testing.assert_allclose(slopes[k], shared[k], rtol=rtol)
    np.testing.assert_allclose(by_leaves[0], total[0], rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(by_leaves[1], total[1], rtol=rtol, atol=1e-12)
    return program


def outer(x):
    inner = fsmath.exp(x)
    again = inner * V
    return fs.loop(8, lambda s: s * 0.5 + inner * V + again * W[1], x) + inner


def net(x):
    def step(h):
        return np.tanh(h * W + V * x)

    return fs.sum(fs.loop(7, step, fs.to_tensor([0.1, 0.2, 0.3])))


def two(x):
    a, b = fs.loop(5, lambda s: (s[1] * x, s[0] + V), (x, 1.0))
    c, d = fs.while_loop(lambda s: s[0] < 40.0, lambda s: (s[0] * 1.7 + 1.0, s[1] + a * s[0]), (b, a))
    return c * d


def deep(x):
    def step(s):
        return fs.loop(3, lambda t: t * x + s * V, s)

    return fs.loop(4, lambda u: step(u) * 0.3 + W[0], x)


def mixed(x):
    def step(s):
        if s > 1.0:
            return s * 0.5
        if s > 0.7:
            return s + 0.2 * V * x
        return s * (1.5 + x)

    return fs.loop(19, step, x)


def inner_while(x):
    def step(k, s):
        return fs.while_loop(lambda t: t < 2.0 + x, lambda t: t * 1.3 + V, s * 0.2) + 0.1 * k

    return fs.loop(5, step, x)


def inner_ways(x):
    """The loop in the step goes more and more ways."""
    def step(k, s):
        return fs.loop(4, lambda t: t * 0.5 + x if t > 0.4 * k else t + 0.3 * x, s) * V

    return fs.loop(6, step, x)


root = fs.implicit(lambda y, x: y * y * y + y - x)


def solved(x):
    return fs.loop(4, lambda s: root(1.0, s + x * V) * x + s, x)


def slope_in_a_step(x):
    """A derivative of a loop decides."""
    def step(s):
        slope = fs.grad(lambda q: fs.loop(3, lambda u: u * q + V, x))(s)
        return s - 0.05 * slope if slope > 1.0 else s + 0.1 * x * slope

    return fs.loop(6, step, x)


def table(x):
    return fs.loop(3, lambda k, s: s * x + W[k], 0.5)


def nested_state(x):
    def step(s):
        return {"a": (s["b"] * V, s["a"][0]), "b": s["a"][1] + x}

    s = fs.loop(6, step, {"b": x, "a": (1.0, 2.0)})
    return s["a"][0] * s["b"] + s["a"][1]


def chosen(x):
    return fs.loop(9, lambda s: fs.where(s < x, s * 1.5, s - V), 0.3)


def newton(x):
    return fs.while_loop(lambda r: abs(r * r - x) > 1e-13 * x, lambda r: 0.5 * (r + x / r), 1.0)


def unread(x):
    return fs.loop(5, lambda s: (s[0] + 1.0, s[1]), (x, V))[1] * x


def matrix(x):
    s = fs.loop(4, lambda m: m @ m * 0.3 + x, fs.to_tensor([[0.1, 0.2], [0.3, 0.4]]))
    return s[0, 1] * s[1, 0]


def decided_after(x):
    s = fs.loop(6, lambda s: s * x, 1.0)
    return s * V if s > 1.0 else s - W[2]


def with_numpy(x):
    return fs.sum(fs.loop(4, lambda s: s * x + 0.5, np.array([1.0, 2.0, 3.0])))


def caught(x):
    def step(s):
        try:
            return fsmath.log(s - 1.0) + 2.0 * x
        except ValueError:
            return s + 1.1

    return fs.loop(9, step, x)


def long(x):
    """More steps than states that are kept in any case."""
    return fs.loop(75, lambda s: s * 0.9 + V * fsmath.sin(s * x) + 0.1 * W[1], x)


def long_and_numbered(x):
    def step(k, s):
        h, before, seen = s
        return np.tanh(h * W + 0.01 * k * x), h, seen + V * fs.max(h) * before[0]

    h, _, seen = fs.loop(47, step, (fs.to_tensor([0.1, 0.2, 0.3]), np.zeros(3), x))
    return fs.sum(h) + seen


FUNCTIONS = [long, long_and_numbered, outer, net, two, deep, mixed, inner_while, inner_ways, solved,
             slope_in_a_step, table, nested_state, chosen, newton, unread, matrix, decided_after, with_numpy,
             caught]  # fmt: skip


@pytest.mark.dear
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_programs_are_their_functions(f):
    same(f, X)


@pytest.mark.dear
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_with_little_memory_states_are_computed_again(f, monkeypatch):
    monkeypatch.setattr(rolled, "MEMORY", 1)
    same(f, X)


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_single_precision_and_derivatives(f):
    program = fs.compile(f)
    values = program.map(X)
    np.testing.assert_allclose(program.map(X, dtype="float32"), values, rtol=1e-2)
    some = np.array([0.613, 0.877, 1.391])
    by_rows = program.jacobian(some)
    np.testing.assert_allclose(by_rows, program.value_and_grad(some)[1], rtol=1e-9, atol=1e-12)
    along = program.jvp(some, tangents=np.ones(3))
    np.testing.assert_allclose(along[1], by_rows, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_bodies_of_many_steps_are_those_of_one(f, monkeypatch):
    """To rounding: more is seen at once."""
    program, other = fs.compile(f), fs.compile(f)
    values, slopes = program.value_and_grad(X)
    monkeypatch.setattr(rolled, "STEPS", 0)
    expected, slopes_expected = other.value_and_grad(X)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(slopes, slopes_expected, rtol=1e-11, atol=1e-13)
    if f in (long, long_and_numbered):
        loop = program._specializations()[0][1].graph.items[0][4]
        assert len(loop.stages()) == 2


@pytest.mark.parametrize("each", [2, 5, 32])
def test_rows_with_other_numbers_of_steps_share_bodies_of_many(each, monkeypatch):
    """By counts of the row, with the iteration's number, and by conditions; nothing depends on the neighbours."""
    monkeypatch.setattr(rolled, "MANY", each)
    n = np.arange(40) * 7 % 41

    def walk(x, n):
        s = fs.loop(n, lambda k, s: (s[0] * 0.9 + V * x, s[1] + fs.random.normal() * 0.1 * k * s[0]), (x, 0.0))
        until = fs.while_loop(lambda t: t[1] < 0.3 * n, lambda t: (np.sin(t[0] + W[1] * x), t[1] + 1.0), (s[0], 0.0))
        over = fs.while_loop(lambda t: t < 4.0, lambda t: t + fs.random.uniform() * x, s[1])
        return until[0] * over + s[1]

    program = fs.compile(walk)
    values, slopes = program.value_and_grad(X, n, seed=3)
    second = program.hessian(X, n, seed=3)
    for i, x in enumerate(X):
        with fs.random.stream(3, i):
            t = fs.Tensor(x)
            y = walk(t, int(n[i]))
        y.backward()
        np.testing.assert_allclose([values[i], slopes[i]], [y.data, t.grad], rtol=1e-10)
        if i % 9 == 0:
            with fs.random.stream(3, i):
                np.testing.assert_allclose(second[i], fs.hessian(walk)(x, int(n[i])), rtol=1e-9, atol=1e-10)
    alone = [program.value_and_grad(X[i : i + 1], n[i : i + 1], seed=3, row_offset=i) for i in range(0, 40, 7)]
    assert np.array_equal([a[0] for a in alone], values[::7, None])
    assert np.array_equal([a[1] for a in alone], slopes[::7, None])


def test_the_number_of_steps_is_one_of_the_row():
    n = np.arange(40) % 9
    n[0] = 3
    program = same(lambda x, n: fs.loop(n, lambda s: s * x + V, 1.0) + x, X, n)
    assert len(program.report().splitlines()) == 1
    n[7] = -1
    with pytest.raises(ValueError, match="row 7: loop: expected a number of steps from 0, got -1"):
        program.map(X, n)


def test_rows_with_no_steps_are_recorded_too():
    n = np.arange(40) % 3
    same(lambda x, n: fs.loop(n, lambda s: s * x + V, 1.0) + x, X, n)


def test_an_array_and_shared_arguments():
    rows = np.random.default_rng(0).normal(size=(30, 3))

    def f(x, k):
        return fs.sum(fs.loop(6, lambda s: np.sin(s * x) * k + W, x * 0.5))

    same(f, rows, 0.7)
    program = fs.compile(f, shared="k")
    slope = program.value_and_grad(rows, 0.7, argnums="k", per_row=True)[1]
    assert math.isclose(slope.sum(), program.value_and_grad(rows, 0.7, argnums="k")[1], rel_tol=1e-12)


def test_a_million_steps_do_not_grow():
    program = fs.compile(lambda x: fs.loop(1_000_000, lambda s: s + (x - s) * 1e-6, 0.0))
    value, slope = program.value_and_grad(np.array([2.0]))
    assert math.isclose(slope[0], 1.0 - (1.0 - 1e-6) ** 1_000_000, rel_tol=1e-9)
    assert math.isclose(value[0], 2.0 * slope[0], rel_tol=1e-9)
    assert len(program.report()) < 100


# --- what is no instruction, and comes out right nevertheless ---


def counting(x):
    count = 0

    def step(s):
        nonlocal count
        count += 1
        return s * x + count

    return fs.loop(12, step, 0.0)


def counting_to_ten(x):
    count = 0

    def step(s):
        nonlocal count
        count += 1
        return s * 0.5 if count > 2 else s + x

    return fs.loop(40, step, 0.0)


def remembering(x):
    seen = []

    def step(s):
        seen.append(s)
        return s * x

    fs.loop(5, step, 2.0)
    return fs.sum(seen)


def deciding_later(x):
    over = False

    def step(s):
        nonlocal over
        over = s > 1.2
        return s * 1.01

    s = fs.loop(9, step, x)
    return s * V if over else s


def reading_later(x):
    last = None

    def step(s):
        nonlocal last
        last = s
        return s * x

    s = fs.loop(5, step, 1.0)
    return s * math.floor(float(last) * 2)


def reading(x):
    return fs.loop(5, lambda s: s + x * math.floor(float(s)), x)


def a_list_of_numbers(x):
    steps = [0.1 * k * k for k in range(30)]
    return fs.loop(30, lambda k, s: s + x * steps[k], x)


def taking_turns(x):
    parts = iter([0.1, 0.2, 0.3, 0.4, 0.5])
    return fs.loop(5, lambda s: s + x * next(parts), x)


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
@pytest.mark.parametrize(
    "f",
    [counting, counting_to_ten, remembering, deciding_later, reading_later, reading, a_list_of_numbers, taking_turns],
    ids=lambda f: f.__name__,
)
def test_what_is_no_instruction_is_recorded_step_by_step(f):
    program = fs.compile(f)
    np.testing.assert_allclose(program.map(X), [f(x).data for x in map(fs.Tensor, X)], rtol=1e-12)
    np.testing.assert_allclose(program.map(X + 0.3), [f(x).data for x in map(fs.Tensor, X + 0.3)], rtol=1e-12)


# --- random numbers ---


def noise():
    return fs.random.normal()


def walk(x):
    return fs.loop(6, lambda s: s + fs.random.normal() * x, 0.0)


def long_walk(x):
    def step(k, s):
        return s + fs.random.normal() * x * 0.1 * fs.random.uniform() + 0.01 * k * noise()

    return fs.loop(39, step, 0.0) + fs.random.normal()


def walk_of_three(x):
    return fs.sum(fs.loop(6, lambda s: np.tanh(s + fs.random.normal(3) * x) + fs.random.uniform(), np.zeros(3)))


def in_a_branch(x):
    return fs.loop(9, lambda s: s + noise() * noise() if s > x else s + fs.random.uniform(), 0.0)


def until_it_is_over(x):
    return fs.while_loop(lambda s: s < 3.0, lambda s: s + fs.random.uniform() * x, 0.0)


def before_and_after(x):
    first = noise()
    s = fs.loop(7, lambda s: s + noise() * x, first)
    again = fs.loop(3, lambda s: s * noise(), s)
    return again + noise() * first


def after_some(x):
    s = fs.while_loop(lambda s: s < 3.0, lambda s: s + noise() ** 2 * x, 0.0)
    return s + noise()


def unused(x):
    def step(s):
        fs.random.normal()
        return s + fs.random.normal() * x

    return fs.loop(4, step, 0.0)


def deep_draws(x):
    return fs.loop(3, lambda s: fs.loop(2, lambda t: t + noise() * x, s), 0.0)


DRAWING = [walk, long_walk, walk_of_three, in_a_branch, until_it_is_over, before_and_after, after_some, unused,
           deep_draws]  # fmt: skip


@pytest.mark.parametrize("f", DRAWING, ids=lambda f: f.__name__)
def test_each_iteration_of_each_row_draws_what_a_plain_call_draws(f):
    program = fs.compile(f)
    for antithetic, epoch in ((False, 0), (True, 3)):
        drawing = {"seed": 4, "epoch": epoch, "antithetic": antithetic, "row_offset": 5}
        found, slopes = program.value_and_grad(X, **drawing)
        order = np.random.default_rng(0).permutation(len(X))
        for i in order:
            with fs.random.stream(4, i + 5, epoch=epoch, antithetic=antithetic):
                x = fs.Tensor(X[i])
                y = f(x)
            y.backward()
            assert math.isclose(y.data, found[i], rel_tol=1e-11)
            assert math.isclose(x.grad, slopes[i], rel_tol=1e-11)
        assert len(np.unique(found)) == len(X)
        assert np.array_equal(program.map(X, **drawing, threads=2), found)
    with fs.random.stream(7):
        plain = [f(x) for x in (0.6, 0.6, 0.9)]
    with fs.random.stream(7):
        for x, y in zip((0.6, 0.6, 0.9), plain, strict=True):
            assert math.isclose(program(x), y.data, rel_tol=1e-11)


@pytest.mark.parametrize("f", [walk, long_walk, walk_of_three, in_a_branch, until_it_is_over, before_and_after, unused])
def test_loops_that_draw_are_one_instruction(f):
    program = fs.compile(f)
    program.map(X, seed=1)
    assert "loop of" in program.report()


def test_a_report_names_what_steps_decide_on():
    program = fs.compile(mixed)
    program.map(X)
    assert "decides on test_rolled_loops.py:" in program.report(details=True)


def test_errors_name_row_and_iteration():
    program = fs.compile(lambda x: fs.loop(9, lambda s: fsmath.log(s - x), 5.0))
    with pytest.raises(ValueError, match="row 1: iteration 2: log"):
        program.map(np.array([-5.0, 1.0]))
    with pytest.raises(ValueError, match="row 0: iteration 2: log"):
        fs.compile(lambda x: fs.loop(9, lambda s: fsmath.log(s - x), 5.0)).map(np.array([1.0, -5.0]))
    with pytest.raises(TypeError, match=r"step 0: state: .* a tuple of 2"):
        fs.compile(lambda x: fs.loop(9, lambda s: (s, s), x)).map(X)


def test_numbers_that_are_not_finite():
    program = fs.compile(lambda x: fs.loop(12, lambda s: s * s * x, 2.0))
    found = program.map(np.array([1e-3, 1e30, 0.5]))
    for value, x in zip(found, [1e-3, 1e30, 0.5], strict=True):
        s = 2.0
        for _ in range(12):
            s = s * s * x
        assert value == s or math.isclose(value, s, rel_tol=1e-12)


def test_leaves_that_change_are_read_anew():
    w = fs.Tensor(2.0)
    program = fs.compile(lambda x: fs.loop(3, lambda s: s * w, x))
    assert program(1.0) == 8.0
    w.data = 3.0
    assert program(1.0) == 27.0
    program.backward(np.ones(2))
    assert w.grad == 2 * 27.0
    net = fs.compile(lambda x, y: (fs.loop(3, lambda s: s * w, x) - y) ** 2)
    fs.fit(net, np.ones(8), np.full(8, 8.0), epochs=200, optimizer=fs.SGD(lr=0.001), progress=False)
    assert math.isclose(w.data, 2.0, rel_tol=1e-3)


def test_jacobians_go_back_through_loops():
    """The way back for each result, and not a recording of each step."""
    count = 0

    def step(s, k):
        nonlocal count
        count += 1
        return {"a": s["a"] + 1e-3 * s["b"] * k["w"], "b": s["b"] - 1e-3 * np.sin(s["b"]) * s["a"][0]}

    def f(x, k):
        s = fs.loop(20_000, lambda s: step(s, k), {"a": fs.to_tensor([1.0, 2.0]) * x[0], "b": x})
        return s["a"], (s["b"][0] * s["b"][1], x[1])

    rows, k = np.array([[0.5, 0.7], [0.2, 0.1], [0.9, 0.3]]), {"w": 0.3}
    program = fs.compile(f, shared="k")
    (a, (b, c)), both = program.jacobian(rows, k), program.jacobian(rows, k, argnums=(0, 1))
    assert count < 200
    assert (a.shape, b.shape, c.tolist()) == ((3, 2, 2), (3, 2), [[0.0, 1.0]] * 3)
    assert np.array_equal(both[0][0], a)
    assert np.array_equal(both[1][0][0], b)
    assert (both[0][1]["w"].shape, both[1][0][1]["w"].shape) == ((3, 2), (3,))
    directions = np.array([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]])
    values, along = program.jvp(rows, k, tangents=(directions, {"w": 0.7}))
    assert count < 200
    np.testing.assert_allclose(along[0], np.einsum("nst,nt->ns", a, directions) + 0.7 * both[0][1]["w"], rtol=1e-12)
    np.testing.assert_allclose(along[1][0], np.einsum("nt,nt->n", b, directions) + 0.7 * both[1][0][1]["w"], rtol=1e-12)
    assert np.array_equal(along[1][1], directions[:, 1])
    assert np.array_equal(values[0], program.map(rows, k)[0])
    h = 1e-6
    differences = [(program.map(rows + h * e, k)[0] - program.map(rows - h * e, k)[0]) / (2 * h) for e in np.eye(2)]
    np.testing.assert_allclose(a, np.stack(differences, -1), rtol=1e-6, atol=1e-8)
    by_k = (program.map(rows, {"w": 0.3 + h})[1][0] - program.map(rows, {"w": 0.3 - h})[1][0]) / (2 * h)
    np.testing.assert_allclose(both[1][0][1]["w"], by_k, rtol=1e-6, atol=1e-8)


def of_rows(f, rows):
    """Of each row, called alone."""
    out = []
    for i, x in enumerate(rows):
        with fs.random.stream(3, i):
            out.append(f(x))
    return np.array(out)


@pytest.mark.parametrize("f", [f for f in (*FUNCTIONS, *DRAWING) if f is not deep_draws], ids=lambda f: f.__name__)
def test_derivatives_of_loops_are_loops(f, tmp_path):
    """Of second and third order, by arguments and by leaves; kept too."""
    rows, drawing = X[[3, 20, 39]], {"seed": 3} if f in DRAWING else {}
    program, slope = fs.compile(f), fs.compile(fs.grad(f))
    second, (slopes, again) = program.hessian(rows, **drawing), slope.value_and_grad(rows, **drawing)
    np.testing.assert_allclose(second, of_rows(fs.hessian(f), rows), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(again, second, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(slopes, of_rows(fs.grad(f), rows), rtol=1e-9, atol=1e-10)
    assert "derivative of a" in slope.report()
    assert np.array_equal(program.hessian(rows, threads=2, **drawing), second)
    np.testing.assert_allclose(program.hvp(rows, tangents=2 * np.ones(3), **drawing), 2 * second, rtol=1e-9, atol=1e-10)
    third = fs.compile(fs.hessian(f)).value_and_grad(rows, **drawing)[1]
    np.testing.assert_allclose(third, of_rows(fs.grad(fs.hessian(f)), rows), rtol=1e-7, atol=1e-8)

    def of_leaves(x):
        y = fs.grad(f)(fs.Tensor(x))
        V.grad = W.grad = 0.0
        y.backward()
        return [V.grad, *np.array(W.grad)]

    total = of_rows(of_leaves, rows).sum(axis=0)
    V.grad = W.grad = 0.0
    slope.backward(rows, **drawing)
    np.testing.assert_allclose([V.grad, *np.array(W.grad)], total, rtol=1e-9, atol=1e-10)
    program.map(rows, **drawing)
    program.save(tmp_path / "f.npz")
    assert np.array_equal(fs.load_program(tmp_path / "f.npz").hessian(rows, **drawing), second)


def test_derivatives_by_what_steps_capture_and_by_numbers_of_steps_of_the_row():
    """Also with a gather by the iteration's number from what has a derivative, and no step at all."""
    rows, n = np.random.default_rng(0).normal(size=(5, 3)), np.array([4, 0, 1, 7, 2])

    def f(x, n):
        table = W * x[0] * x[1] + x

        def step(k, s):
            return {"a": s["a"] * x[2] + table[k % 3] * s["b"][0], "b": (fsmath.sin(s["a"] + V * x[0]), s["b"][0])}

        s = fs.loop(n, lambda s: step(0, s), {"b": (1.0, x[1]), "a": x[0]})
        s = fs.loop(3, lambda k, s: {"a": s["a"] * x[0] + table[k] * s["a"], "b": s["b"]}, s)
        return s["a"] * s["b"][1]

    second = fs.compile(f).hessian(rows, n)
    expected = [fs.hessian(f)(x, int(k)) for x, k in zip(rows, n, strict=True)]
    np.testing.assert_allclose(second, expected, rtol=1e-9, atol=1e-10)


def test_rows_that_take_other_ways_have_second_derivatives_too():
    """Ways that no row before has taken, and sums over rows by leaves."""
    program = fs.compile(fs.grad(mixed))
    assert len(program.map(X)) == len(program.map(X[::-1])) == 40
    assert len(program.report().splitlines()) == 1
    slopes = program.value_and_grad(X)[1]
    np.testing.assert_allclose(slopes, of_rows(fs.hessian(mixed), X), rtol=1e-9, atol=1e-10)


def test_second_derivatives_of_an_operation_of_ones_own_in_a_step():
    cube = fs.custom_op(lambda a, b: a * a * a * b, lambda a, b: (3.0 * a * a * b, a * a * a))

    def f(x):
        return fs.loop(5, lambda s: s * 0.5 + cube(s, x) + cube(x, V), x)

    program = fs.compile(f)
    np.testing.assert_allclose(program.hessian(X[:3]), of_rows(fs.hessian(f), X[:3]), rtol=1e-9)
    np.testing.assert_allclose(program.value_and_grad(X[:3])[1], of_rows(fs.grad(f), X[:3]), rtol=1e-9)
    assert "loop of" in program.report()


def test_rows_that_are_not_finite_do_not_change_their_neighbours():
    """In what goes back through loops in a program; forwards they never did."""
    rows = np.array([1e-3, 1e30, 0.5, 1.2])

    def f(x):
        return fs.loop(9, lambda s: s * s * x * V, 2.0)

    with np.errstate(all="ignore"):
        second, slopes = fs.compile(f).hessian(rows), fs.compile(fs.grad(f)).value_and_grad(rows)
        np.testing.assert_allclose(second, of_rows(fs.hessian(f), rows), rtol=1e-9)
        np.testing.assert_allclose(slopes[0], of_rows(fs.grad(f), rows), rtol=1e-9)
        np.testing.assert_allclose(slopes[1], second, rtol=1e-9)


def test_a_hessian_of_many_steps_does_not_grow():
    n = 200_000
    program = fs.compile(lambda x: fs.loop(n, lambda s: s + (x * x - s) * 1e-6, 0.0) * x)
    second = program.hessian(np.array([2.0, 3.0]))
    np.testing.assert_allclose(second, 6.0 * np.array([2.0, 3.0]) * (1.0 - (1.0 - 1e-6) ** n), rtol=1e-9)


@pytest.mark.parametrize("f", [*FUNCTIONS, *DRAWING], ids=lambda f: f.__name__)
def test_saved_and_pickled(f, tmp_path):
    """Without the source, and with new leaves."""
    program = fs.compile(f)
    drawing = {"seed": 3} if f in DRAWING else {}
    values, slopes = program.value_and_grad(X, **drawing)
    V.grad = W.grad = 0.0
    program.backward(X, **drawing)
    program.save(tmp_path / "f.npz")
    loaded = fs.load_program(tmp_path / "f.npz")
    for other in (loaded, pickle.loads(pickle.dumps(program))):
        found = other.value_and_grad(X, **drawing)
        np.testing.assert_allclose(found, (values, slopes), rtol=1e-11)
    loaded.backward(X, **drawing)
    by_leaves = {p.size: np.array(p.grad) for p in loaded.parameters if isinstance(p, fs.TensorArray)}
    if 3 in by_leaves:
        np.testing.assert_allclose(by_leaves[3], W.grad, rtol=1e-11)
    np.testing.assert_allclose(
        sum(float(p.grad) for p in loaded.parameters if isinstance(p, fs.Tensor)), V.grad, rtol=1e-11, atol=1e-12
    )


def test_a_damaged_loop_is_refused(tmp_path):
    program = fs.compile(walk)
    program.map(X, seed=1)
    program.save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as file:
        members = dict(file)
    header = json.loads(str(members["header"]))
    loop = header["program"]["caches"][0]["recordings"][0]["graph"]["items"][0][4]
    assert loop["kind"] == "loop"

    def refused():
        np.savez(tmp_path / "g.npz", **{**members, "header": np.array(json.dumps(header))})
        with pytest.raises(ValueError, match="not a program written by save"):
            fs.load_program(tmp_path / "g.npz")

    strange = {"outputs": 2, "captured": 5, "leaves": -1, "count": -3, "kind": "for", "bodies": [], "sites": []}
    for key, wrong in strange.items():
        right, loop[key] = loop[key], wrong
        refused()
        loop[key] = right
    body = loop["bodies"][0]
    for key, wrong in {"numbers": [99], "leaves": [7], "drawn": [[1, 1]]}.items():
        right, body[key] = body[key], wrong
        refused()
        body[key] = right


@pytest.mark.parametrize("f", [mixed, inner_while, caught, deep], ids=lambda f: f.__name__)
def test_recordings_that_differ_in_the_ways_through_a_step_become_one(f):
    program = fs.compile(f)
    values = program.map(X)
    assert len(program.report().splitlines()) == 1
    np.testing.assert_allclose(values, [f(x).data for x in map(fs.Tensor, X)], rtol=1e-11)
    assert np.array_equal(program.map(X[::-1]), values[::-1])
