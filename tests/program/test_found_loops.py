"""Plain loops of Python whose recording repeats: one instruction, and the numbers of the recording step by step."""

import math
import pickle
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math as fsmath
from fastscalar.program import found, rolled

X = np.linspace(0.5, 1.5, 21)
ROWS = np.random.default_rng(3).normal(size=(21, 120)) * 0.3
W = fs.to_tensor([0.3, -0.2, 0.9])
V = fs.Tensor(0.4)


@pytest.fixture(autouse=True)
def short_loops_are_found(monkeypatch):
    monkeypatch.setattr(found, "LEAST", 120)
    monkeypatch.setattr(found, "BODY", 20)
    monkeypatch.setattr(found, "MUCH", 1)


def step_by_step(f, call):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(found, "LEAST", 1 << 30)
        return call(fs.compile(f))


def pendulum(x):
    angle, speed = x, 0.0
    for _ in range(60):
        angle, speed = angle + 0.01 * speed, speed - 0.01 * 9.81 * V * fsmath.sin(angle)
    return angle * speed


def with_time(x):
    s = x
    for k in range(80):
        s = s + 0.01 * math.sin(k) * fsmath.cos(s * k)
    return s


def fibonacci(x):
    a, b = x, 1.0
    states = [a, b + 0.0 * x]
    for _ in range(90):
        states.append(states[-1] * 0.6 + fsmath.sin(states[-2]) * 0.3 - states[-3] * 0.1 if len(states) > 2
                      else states[-1] * x)  # fmt: skip
    return states[-1] + states[-2] * x


def data(rows):
    s = V
    for t in range(120):
        s = s * 0.9 + fsmath.tanh(rows[t] * s) * W[1]
    return s


def observed(x):
    """What every step leaves is read after the loop."""
    s, seen = x, []
    for _ in range(70):
        s = s - 0.1 * fsmath.sin(s * V)
        seen.append(s)
    total = 0.0
    for k, one in enumerate(seen):
        total = total + (one - 0.1 * k) ** 2
    return total, seen[3], seen[-1]


def some_observed(x):
    s, total = x, 0.0
    for k in range(200):
        s = s - 0.1 * fsmath.sin(s * V)
        if k % 10 == 7:
            total = total + s * s
    return total


def chosen(x):
    s = x
    for _ in range(90):
        s = fs.where(s < 1.0, s * 1.2, s * 0.7 + 0.01 * x)
        s = fs.maximum(s, 0.1)
    return s


def drawn(x):
    s, last = x, 0.0
    for _ in range(50):
        z = fs.random.normal()
        last = fs.random.uniform()
        s = s + 0.1 * z * s + 0.01 * last * fs.random.normal()
    return s + fs.random.normal() * last


def decided(x):
    """The way is the same in every step, and asked in every step."""
    s = x
    for _ in range(150):
        s = s * 0.99 if s > 0.1 else s + 1.0
    return s * V


def until(x):
    s = 1.0 + 0.0 * x
    while s < 40.0:
        s = s * 1.02 + 0.001 * V
    return s


def nested(x):
    s = x
    for k in range(12):
        t = s
        for _ in range(15):
            t = t - 0.05 * fsmath.sin(t * V)
        s = s + 0.1 * t * k
    return s


def matrix_state(x):
    m = fs.to_tensor([[1.0, 0.2], [0.1, 0.9]]) * x
    for _ in range(40):
        m = m @ m * 0.3 + 0.1 * W[0]
    return m[0, 1] + m[1, 0]


def stopped(x):
    s = x
    for _ in range(80):
        s = s * 0.9 + fsmath.sin(s.detach()) * x
    return s


def caught(x):
    s = x
    for _ in range(60):
        try:
            s = fsmath.log(s - 3.0)
        except ValueError:
            s = s * 0.9 + 0.1 * x
    return s


def reads_the_first_and_the_last(x):
    states = [x]
    for _ in range(60):
        states.append(states[-1] * 0.9 + 0.2 * fsmath.sin(states[-1]))
    return states[0] * states[-1] + states[1] + states[59]


def around_loops_that_are_said(x):
    """Each step of the plain loop reads what the loop in it makes of the step before."""
    s = x
    for _ in range(60):
        t = fs.while_loop(lambda t: t < 9.0, lambda t: t * 1.5 + 0.1, s * s + 0.3)
        s = s * 0.9 + 0.1 * fsmath.sin(t)
        s = s - 0.05 * fsmath.cos(s)
        s = s * (1.0 + 0.01 * x)
    return s


def extremes(x):
    s, high = x, x
    for _ in range(60):
        s = s + 0.1 * fsmath.sin(5.0 * s)
        high = fs.max([high, s, V])
    return high * s


FUNCTIONS = [pendulum, with_time, fibonacci, observed, some_observed, chosen, drawn, decided, until, nested,
             matrix_state, stopped, caught, reads_the_first_and_the_last, extremes, data]  # fmt: skip


def of(f):
    return ROWS if f is data else X


def one(result):
    return sum(result[1:], result[0]) if isinstance(result, tuple) else result


def values_and_gradients(f):
    def call(program):
        values, slopes = program.value_and_grad(of(f), seed=2)
        V.grad = W.grad = 0.0
        program.backward(of(f), seed=2)
        return values, slopes, V.grad, np.array(W.grad)

    return call


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_numbers_are_those_of_the_recording_step_by_step(f, monkeypatch):
    def g(x):
        return one(f(x))

    program, call = fs.compile(g), values_and_gradients(f)
    results = call(program)
    assert "found loop" in program.report()
    for got, expected in zip(results, step_by_step(g, call), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-13)
    monkeypatch.setattr(rolled, "MEMORY", 1)                 # states are computed again
    for got, expected in zip(call(program), results, strict=True):
        np.testing.assert_array_equal(got, expected)
    order = np.random.default_rng(0).permutation(len(X))
    if f is not drawn:                                       # whose numbers are those of the place
        np.testing.assert_array_equal(program.map(of(f)[order]), results[0][order])
    np.testing.assert_array_equal(program.map(of(f), threads=2, seed=2), program.map(of(f), seed=2))


@pytest.mark.dear
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_derivatives_of_higher_order_repeat_too(f):
    def g(x):
        return one(f(x))

    some = of(f)[:3, :2] if f is data else X[:3]
    h = (lambda x: g([x[0], x[1]] * 60)) if f is data else g
    program = fs.compile(h)
    call = lambda p: (p.hessian(some, seed=1), p.jvp(some, tangents=some, seed=1))
    (second, along), (expected, along_expected) = call(program), step_by_step(h, call)
    np.testing.assert_allclose(second, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(along[1], along_expected[1], rtol=1e-9, atol=1e-11)
    derived = [one.report() for key, one in program._derivatives.items() if key[0] == "hessian"]
    assert "derivative of a found loop" in derived[0] or f in (chosen, drawn, decided, caught)


@pytest.mark.parametrize("f", [observed, some_observed, matrix_state, data, reads_the_first_and_the_last])
def test_jacobians_of_several_results_are_of_the_loops(f, tmp_path):
    """Also by what each step reads of its own, and of what it leaves; saved, too."""
    rows = of(f)[:3]
    program = fs.compile(lambda x, w: {"a": f(x), "b": [one(f(x)) * w, w]})

    def call(p):
        parts = p.jacobian(rows, 1.5, argnums=(0, 1))
        return [*parts["b"][0], *parts["b"][1], *(parts["a"][0] if f is observed else parts["a"])]

    results = call(program)
    for got, expected in zip(results, step_by_step(program.function, call), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-11)
    (derived,) = program._derivatives.values()
    assert "derivative of a found loop" in derived.report() or f is not data      # by two numbers it goes forwards
    program.save(tmp_path / "f.npz")
    for got, expected in zip(call(fs.load_program(tmp_path / "f.npz")), results, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_saved_pickled_and_in_single_precision(f, tmp_path):
    program = fs.compile(f)
    values = program.map(of(f), seed=3)
    program.save(tmp_path / "f.npz")
    for other in (fs.load_program(tmp_path / "f.npz"), pickle.loads(pickle.dumps(program))):
        np.testing.assert_array_equal(other.map(of(f), seed=3), values)
    np.testing.assert_allclose(program.map(of(f), seed=3, dtype="float32"), values, rtol=1e-2, atol=1e-3)


def test_results_of_every_step_keep_their_nest():
    def f(x):
        path = [x]
        for _ in range(100):
            path.append(path[-1] + 0.01 * fsmath.sin(path[-1]))
        return {"path": path[1:], "last": path[-1]}

    program = fs.compile(f)
    got = program.map(X)
    expected = step_by_step(f, lambda p: p.map(X))
    np.testing.assert_allclose(got["path"], expected["path"], rtol=1e-13)
    weights = {"path": [np.full(len(X), 0.1 * k) for k in range(100)], "last": 1.0}
    call = lambda p: p.vjp(X, cotangents=weights)[1]
    np.testing.assert_allclose(call(program), step_by_step(f, call), rtol=1e-11)


def test_rows_that_raise_or_part_are_the_functions():
    def f(x):
        s = x
        for _ in range(60):
            s = fsmath.sqrt(s - 0.01) if s > 0.5 else s + 0.1
        return s

    rows = np.array([0.9, 0.2, 0.45, 1.7])
    np.testing.assert_allclose(fs.compile(f).map(rows), [f(x).data for x in map(fs.Tensor, rows)], rtol=1e-13)

    def g(x):
        s = x
        for _ in range(60):
            s = fsmath.log(s + 2.0)
        return s

    program = fs.compile(g)
    program.map(X)
    with pytest.raises(ValueError, match="row 1: log"):
        program.map(np.array([1.0, -2.5]))


def test_what_hands_on_much_in_each_step_has_to_be_longer(monkeypatch):
    def f(x):
        states = [x]
        for k in range(200):
            states.append(states[-1] * (1.0 + 0.001 * k))
        return sum(s * s for s in states)

    reports = []
    for much in (1, 8):
        monkeypatch.setattr(found, "MUCH", much)
        program = fs.compile(f)
        program.map(X)
        reports.append("found" in program.report())
    assert reports == [True, False]


@pytest.mark.dear
def test_dense_code_stays_dense():
    layers = [[[fs.Tensor(0.1 * math.sin(i + 3 * j + k)) for i in range(16)] for j in range(16)] for k in range(20)]

    def net(x):
        for layer in layers:
            x = [fsmath.tanh(sum((w * t for w, t in zip(row, x, strict=True)), 0.0)) for row in layer]
        return x[0] * x[1]

    program = fs.compile(net)
    program.map(ROWS[:, :16])
    assert "20 matrix products" in program.report() or "matrix product" in program.report()
    assert "found" not in program.report()


def test_what_the_row_has_no_part_in_is_computed_once():
    def f(x):
        s = V
        for _ in range(100):
            s = s * 0.99 + fsmath.sin(s) * 0.01
        return s * x

    program = fs.compile(f)
    program.map(X)
    assert "found" not in program.report()


def test_iterations_without_a_state_stay_side_by_side():
    program = fs.compile(lambda x: [fs.random.normal() * 2.0 + fs.random.uniform() for _ in range(80)] + [x])
    program.map(X, seed=1)
    assert "found" not in program.report()


@pytest.mark.dear
def test_memory_does_not_grow_with_the_steps():
    def f(n):
        def g(x):
            s = x
            for _ in range(n):
                s = s + 1e-3 * fsmath.sin(s)
            return s

        return g

    sizes = []
    for n in (1_000, 4_000):
        program = fs.compile(f(n))
        program.value_and_grad(X)
        sizes.append(len(program._specializations()[0][1].graph.op))
        assert sizes[-1] < 200


@pytest.mark.dear
def test_what_loops_that_are_said_give_and_read_is_not_taken_out_of_its_order():
    program = fs.compile(around_loops_that_are_said)
    values, slopes = program.value_and_grad(X)
    expected, slopes_expected = step_by_step(around_loops_that_are_said, lambda p: p.value_and_grad(X))
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(slopes, slopes_expected, rtol=1e-11)
    np.testing.assert_allclose(values, [around_loops_that_are_said(x).data for x in map(fs.Tensor, X)], rtol=1e-12)


@pytest.mark.parametrize(
    "table",
    [[0.5, 3.0, 1e9, 2.0], [0, 1, 2, 3], np.array([0.25, -1.0, 7.5, 1e300])],
    ids=["floats", "ints", "array"],
)
def test_numbers_that_a_label_selects_beside_a_loop_that_is_found(table):
    def f(k, x):
        y = x[0] * table[k]
        for _ in range(40):
            y = fs.math.tanh(y * x[1] + x[2])
        return y - table[k]

    k, X = np.arange(24) % 4, np.random.default_rng(5).normal(size=(24, 3))
    program = fs.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            expected = [float(f(int(label), fs.to_tensor(x))) for label, x in zip(k, X, strict=True)]
            np.testing.assert_allclose(program.map(k, X), expected, rtol=1e-13)
    assert "gather" in program.report()


@pytest.mark.parametrize("where", ["before", "inside", "after"])
def test_second_derivatives_of_an_operation_of_ones_own_beside_a_loop(where):
    """It has first derivatives only in what is rolled up: zeros came of it."""
    cube = fs.custom_op(lambda a, b: a * a * a * b, lambda a, b: (3.0 * a * a * b, a * a * a))

    def f(x):
        s = cube(x[0], x[1]) if where == "before" else x[0]
        for k in range(40):
            s = s * 0.9 + (cube(x[k % 2], 0.1 * s) if where == "inside" and k % 8 == 3 else x[1]) * 0.1
        return cube(s, x[0]) if where == "after" else s

    X = np.array([[0.5, 1.2], [-0.3, 0.7]])
    program = fs.compile(f)
    for row, hessian in zip(X, program.hessian(X), strict=True):
        np.testing.assert_allclose(hessian, np.array(fs.hessian(f)(row)), rtol=1e-9, atol=1e-12)


SEVERAL = {
    "softmax": lambda xs: fs.softmax(xs),
    "layer": lambda xs: LAYER(xs),
    "cumsum": lambda xs: np.cumsum(fs.to_tensor(np.ones(len(xs))) * xs),
    "array": lambda xs: np.tanh(fs.to_tensor(np.ones(len(xs))) * xs),
}
LAYER = fs.Linear(3, 3, seed=1)


@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("used", [[0], [1], [2], [1, 2], [2, 0], []], ids=str)
@pytest.mark.parametrize("several", SEVERAL)
def test_an_iteration_never_begins_inside_of_an_operation_of_several_outputs(several, used, read):
    """Which part of a step comes first is chosen by what is alive there: that may be inside of one."""
    def f(x):
        t = x * 0.5
        for k in range(40):
            some = SEVERAL[several]([x, t, 0.3])
            t = fsmath.tanh(t + len(f"{some[0]:.0f}")) if read else fsmath.tanh(t + 0.1 * k)
            for j in used:
                t = t - 0.3 * some[j]
        return t if used or not read else t * 0.0 + 1.0

    rows = np.array([-1.0, 0.5, 2.0])
    values, slopes = zip(*(fs.value_and_grad(f)(x) for x in rows.tolist()), strict=True)
    program = fs.compile(f)
    for _ in range(2):
        found = program.value_and_grad(rows)
        assert found[0] == pytest.approx(np.array(values), rel=1e-12)
        assert found[1] == pytest.approx(np.array(slopes), rel=1e-9, abs=1e-14)
