"""fs.loop, fs.while_loop, fs.implicit and operations of one's own: eagerly and in programs the same."""

import math

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math as fsmath

X = np.linspace(0.5, 1.5, 40)


def same(f, *columns, rtol=1e-12):
    """A program has the values, gradients by its first argument and shared ones of its function, row by row."""
    program = fs.compile(f)
    values, slopes = program.value_and_grad(*columns)
    assert np.array_equal(program.map(*columns, threads=2), program.map(*columns))
    for i in range(len(columns[0])):
        row = [c if np.ndim(c) == 0 else c[i] for c in columns]
        x = fs.Tensor(float(row[0]))
        y = f(x, *(r if np.asarray(r).dtype.kind == "i" else float(r) for r in row[1:]))
        y.backward()
        assert math.isclose(values[i], y.data, rel_tol=rtol, abs_tol=1e-13)
        assert math.isclose(slopes[i], x.grad, rel_tol=rtol, abs_tol=1e-13)
    return program


# --- loops ---


STATES = {
    "a number": (lambda x: fs.loop(7, lambda s: fsmath.sin(s) * x + 0.1, 1.0)),
    "a tuple": (lambda x: fs.sum(fs.loop(5, lambda s: (s[1], s[0] * x + s[1]), (x, 1.0)))),
    "a dictionary": (lambda x: fs.loop(5, lambda s: {"a": s["b"], "b": s["a"] * x}, {"a": x, "b": 1.0})["b"]),
    "an array": (lambda x: fs.sum(fs.loop(4, lambda s: s * x + 0.5, fs.to_tensor([1.0, 2.0, 3.0])))),
    "nested": (lambda x: fs.loop(4, lambda s: [(s[0][0] * x, s[0][1] + s[1]), s[0][0]], [(x, 2.0), 0.5])[0][1]),
    "numbered": (lambda x: fs.loop(6, lambda k, s: s * x + k, x)),
    "none": (lambda x: fs.loop(0, lambda s: 1 / 0, x * 2.0)),
    "an if inside": (lambda x: fs.loop(9, lambda s: s * 0.5 if s > 1.0 else s * (1.5 + x), x)),
    "in a loop": (lambda x: fs.loop(3, lambda s: fs.loop(2, lambda t: t * x + s, s), 1.0)),
    "while": (lambda x: fs.while_loop(lambda s: s < 20.0, lambda s: s * (1.0 + x), x)),
    "while, never": (lambda x: fs.while_loop(lambda s: s > 20.0, lambda s: s * 0.0, x)),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
def test_loops_in_programs_are_those_of_plain_calls(kind):
    same(STATES[kind], X)


def test_the_number_of_steps_may_be_of_the_row():
    n = np.arange(40) % 4
    program = same(lambda x, n: fs.loop(n, lambda s: s * x, 1.0) + x, X, n)
    assert np.allclose(program.map(X, n), X**n + X)


def test_a_loop_reads_tensors_and_leaves_around_it():
    w = fs.Tensor(0.7)

    def f(x):
        inner = x * x
        return fs.loop(5, lambda s: s * w + inner, 0.0)

    program = same(f, X)
    program.backward(X)
    by_program = w.grad
    fs.sum([f(fs.Tensor(v)) for v in X]).backward()
    assert math.isclose(by_program, w.grad, rel_tol=1e-12)


def test_derivatives_of_any_order():
    f = lambda x: fs.loop(3, lambda s: s * x, 1.0)
    assert fs.grad(f)(2.0) == 12.0
    assert fs.grad(fs.grad(f))(2.0) == 12.0
    assert fs.grad(fs.grad(fs.grad(f)))(2.0) == 6.0


def test_rows_that_end_at_step_3_and_at_step_3000():
    """The first passage of dx = -rate dt, crossing interpolated: its derivative is that of the time 1 / rate."""

    def passage(rate):
        def step(s):
            t, x, _ = s
            return t + 1.0, x - rate, x

        t, x, before = fs.while_loop(lambda s: s[1] > 0.0, step, (0.0, 1.0, 1.0))
        return t - 1.0 + before / (before - x)

    rates = np.array([1 / 2.5, 1 / 2999.5])
    times, slopes = fs.compile(passage).value_and_grad(rates)
    assert np.allclose(times, 1 / rates, rtol=1e-9)
    assert np.allclose(slopes, -1 / rates**2, rtol=1e-9)


def test_random_numbers_of_every_iteration():
    def walk(x):
        return fs.loop(5, lambda s: s + fs.random.normal() * x, 0.0)

    program = fs.compile(walk)
    found = program.map(X, seed=4)
    for i in range(len(X)):
        with fs.random.stream(4, i):
            assert math.isclose(walk(X[i]).data, found[i], rel_tol=1e-12)
    assert len(np.unique(found)) == len(X)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fs.loop(2, lambda s: (s, s), 1.0), TypeError, "loop: step 0: state: .* a tuple of 2"),
        (lambda: fs.loop(3, lambda s: (s[0], [1.0]), (1.0, 2.0)), TypeError, r"state\[1\]: expected a number"),
        (lambda: fs.loop(3, lambda s: {"a": s["a"]}, {"a": 1.0, "b": 2.0}), TypeError, r"state\['b'\].*got nothing"),
        (lambda: fs.loop(3, lambda s: {**s, "c": 1}, {"a": 1.0}), TypeError, r"state\['c'\]: expected nothing"),
        (lambda: fs.loop(1, lambda s: fs.to_tensor([1.0, 2.0]), fs.to_tensor([1.0])), TypeError, r"shape \(1,\), as"),
        (lambda: fs.loop(1, lambda s: s, "text"), TypeError, "loop: state: expected a number.*got str"),
        (lambda: fs.while_loop(lambda s: s < 2, lambda s: None, 1.0), TypeError, "while_loop: step 0: .*NoneType"),
        (lambda: fs.loop(2.0, lambda s: s, 1.0), TypeError, "whole number of steps, got float"),
        (lambda: fs.loop(fs.Tensor(2.0), lambda s: s, 1.0), TypeError, "whole number of steps, got Tensor"),
        (lambda: fs.loop(-1, lambda s: s, 1.0), ValueError, "from 0, got -1"),
        (lambda: fs.loop(9, lambda s: fsmath.log(s - 1.0), fs.Tensor(3.0)), ValueError, "iteration 1: log"),
        (lambda: fs.loop(9, lambda k, s: 1 / (4 - k), 3.0), ZeroDivisionError, "iteration 4: "),
        (lambda: fs.compile(lambda x: fs.loop(9, lambda s: fsmath.log(s - x), 5.0)).map(np.array([-5.0, 1.0])),
         ValueError, "row 1: iteration 2: log"),
    ],
)  # fmt: skip
def test_messages_of_loops(call, error, text):
    with pytest.raises(error, match=text):
        call()


# --- implicit ---


def black_scholes(spot, strike, volatility):
    d = (fsmath.log(spot / strike) + volatility * volatility / 2.0) / volatility
    return spot * fsmath.ndtr(d) - strike * fsmath.ndtr(d - volatility)


def test_implied_volatility():
    solve = fs.implicit(lambda v, price, spot, strike: black_scholes(spot, strike, v) - price)
    price = fs.Tensor(8.0)
    v = solve(0.3, price, 100.0, 105.0)
    v.backward()
    vega = fs.grad(lambda v: black_scholes(100.0, 105.0, v))(v.data)
    assert math.isclose(black_scholes(100.0, 105.0, v).data, 8.0, rel_tol=1e-12)
    assert math.isclose(price.grad, 1.0 / vega, rel_tol=1e-10)


def test_an_equilibrium_of_two_numbers_and_its_derivatives():
    solve = fs.implicit(lambda p, a, b: (p[0] * p[0] * a - p[1], p[0] * p[1] - b))
    a, b = 2.0, 3.0                              # p0 = (b / a)^(1/3), p1 = b / p0
    jacobian = fs.jacobian(lambda q: solve([1.0, 1.0], q[0], q[1]))([a, b])
    p0 = (b / a) ** (1 / 3)
    exact = [[-p0 / 3 / a, p0 / 3 / b], [b / p0 / 3 / a, 2 / 3 / p0]]
    assert np.allclose(np.array(jacobian, dtype=float), exact, rtol=1e-10)


def test_second_derivatives_of_a_root():
    root = fs.implicit(lambda x, a: x * x * x - a)
    assert math.isclose(fs.grad(lambda a: root(1.0, a))(2.0), 2 ** (-2 / 3) / 3, rel_tol=1e-12)
    assert math.isclose(fs.grad(fs.grad(lambda a: root(1.0, a)))(2.0), -2 / 9 * 2 ** (-5 / 3), rel_tol=1e-10)


def test_captured_leaves_and_a_guess_that_is_the_root():
    w = fs.Tensor(4.0)
    root = fs.implicit(lambda x: x * x - w)
    x = root(2.0)
    x.backward()
    assert (x.data, w.grad) == (2.0, 0.25)


@pytest.mark.filterwarnings("error")
def test_a_root_in_a_program():
    """Each row takes its own steps, and has the derivatives of any order."""
    w = fs.Tensor(3.0)
    root = fs.implicit(lambda x, a: x * x - a * w)
    program = fs.compile(lambda a: root(1.0, a) * 2.0)
    values, slopes = program.value_and_grad(X)
    assert np.allclose(values, 2 * np.sqrt(3 * X), rtol=1e-12)
    assert np.allclose(slopes, np.sqrt(3 / X), rtol=1e-12)
    assert np.allclose(program.hessian(X[:4]), -0.5 * np.sqrt(3) * X[:4] ** -1.5, rtol=1e-9)
    assert np.allclose(program.jacobian(X), slopes, rtol=1e-12)
    program.backward(X)
    assert math.isclose(w.grad, np.sqrt(X / 3).sum(), rel_tol=1e-12)
    assert "while_loop" in program.report()
    with pytest.raises(ValueError, match=r"^row 2: implicit: .* (singular|no step from x)"):
        program.map(np.array([1.0, 2.0, -3.0]))


def test_implied_volatilities_of_a_batch():
    solve = fs.implicit(lambda v, price, strike: black_scholes(100.0, strike, v) - price)
    volatilities, strikes = np.linspace(0.1, 0.6, 50), np.linspace(70.0, 140.0, 50)
    priced = fs.compile(lambda v, k: black_scholes(100.0, k, v))
    prices, vegas = priced.value_and_grad(volatilities, strikes)
    found, slopes = fs.compile(lambda p, k: solve(0.3, p, k)).value_and_grad(prices, strikes)
    assert np.allclose(found, volatilities, rtol=1e-9)
    assert np.allclose(slopes * vegas, 1.0, rtol=1e-8)


def test_equilibria_of_a_batch():
    solve = fs.implicit(lambda p, a, b: (p[0] * p[0] * a - p[1], p[0] * p[1] - b))
    a, b = np.linspace(1.0, 3.0, 20), np.linspace(4.0, 2.0, 20)
    program = fs.compile(lambda a, b: tuple(solve([1.0, 1.0], a, b)))
    p0 = (b / a) ** (1 / 3)
    assert np.allclose(program.map(a, b), (p0, b / p0), rtol=1e-11)
    by_a, by_b = program.jacobian(a, b, argnums=(0, 1))[0]
    assert np.allclose((by_a, by_b), (-p0 / 3 / a, p0 / 3 / b), rtol=1e-9)


def test_a_residual_with_a_domain():
    root = fs.implicit(lambda x, a: fsmath.log(x) - a)
    a = np.array([0.1, -3.0, 2.0, -5.0])
    assert np.allclose(fs.compile(lambda a: root(5.0, a)).map(a), np.exp(a), rtol=1e-11)


@pytest.mark.parametrize(
    ("residual", "guess", "text"),
    [
        (lambda x: x * x + 1.0, 1.0, "no step from x|singular|no root"),
        (lambda x: x * 0.0 + 1.0, 1.0, "singular"),
        (lambda x: (x, x), 1.0, "expected 1 numbers.*got 2"),
        (lambda p: [p[0]], [1.0, 2.0], "expected 2 numbers.*got 1"),
    ],
)
def test_messages_of_implicit(residual, guess, text):
    with pytest.raises(ValueError, match=text):
        fs.implicit(residual)(guess)


# --- operations of one's own ---


def counted(value, derivatives):
    calls = []

    def noted(*operands):
        calls.append(type(operands[0]))
        return value(*operands)

    return fs.custom_op(noted, derivatives, name="own"), calls


def plain(x):
    """Not of Tensors, which have no spacing."""
    return x + 0.0 * np.spacing(x)


OWN = {
    "of arrays": (lambda a, b: np.exp(plain(a)) * b, lambda a, b: (np.exp(a) * b, np.exp(a))),
    "of Tensors": (lambda a, b: np.exp(a) * b, lambda a, b: (np.exp(a) * b, np.exp(a))),
    "of numbers": (lambda a, b: math.exp(a) * b, lambda a, b: (math.exp(a) * b, math.exp(a))),
    "with an if": (lambda a, b: a * b if a > 1 else a + b, lambda a, b: (b, a) if a > 1 else (1.0, 1.0)),
    "other with arrays": (lambda a, b: a * b * (1 + np.ndim(a)), lambda a, b: (b * (1 + np.ndim(a)), a)),
    "constant slopes": (lambda a, b: 2.0 * a + b, lambda a, b: (2.0, 1.0)),
}  # fmt: skip


@pytest.mark.dear
@pytest.mark.parametrize("kind", OWN)
@pytest.mark.filterwarnings("error")
def test_an_operation_of_ones_own_is_called_for_many_rows(kind):
    op, calls = counted(*OWN[kind])
    w = fs.Tensor(0.5)
    f = lambda x: op(x * w, x + 1.0) * 3.0 + op(x, 2.0)
    columns = np.linspace(0.1, 3.0, 300)
    program = same(f, columns)
    calls.clear()
    program.value_and_grad(columns)
    if kind == "of numbers":
        assert calls.count(float) >= 600
    else:                                         # in one call for many, or recorded
        assert (len(calls) > 0) is (kind == "of arrays")
        assert len(calls) < 60
    program.backward(columns)
    by_program = w.grad
    fs.sum([f(fs.Tensor(v)) for v in columns]).backward()
    assert math.isclose(by_program, w.grad, rel_tol=1e-12)


@pytest.mark.filterwarnings("error")
def test_an_operation_of_ones_own_in_operations_of_tensors_is_recorded(tmp_path):
    """With the derivative that is given, not that of how it is computed; so it can be saved."""
    op = fs.custom_op(lambda a, b: fsmath.exp(a) * fsmath.sin(b), lambda a, b: (7.0 * fsmath.cos(a), b * b), name="own")
    w = fs.Tensor(0.5)
    f = lambda x: op(x * w, x + 1.0) * x
    program = same(f, X)
    assert "call" not in program.report()
    program.backward(X)
    by_program = w.grad
    fs.sum([f(fs.Tensor(v)) for v in X]).backward()
    assert math.isclose(by_program, w.grad, rel_tol=1e-12)
    program.save(tmp_path / "own.npz")
    assert np.allclose(fs.load_program(tmp_path / "own.npz").map(X), program.map(X), rtol=1e-12)
    assert np.allclose(program.hessian(X[:3]), [fs.hessian(f)(x) for x in X[:3].tolist()], rtol=1e-11)


def test_what_an_operation_of_ones_own_does_with_zeros_and_infinities():
    op = fs.custom_op(lambda a: -a * abs(a), lambda a: np.exp(a), name="own")
    x = np.array([0.0, -0.0, np.inf, -np.inf, 2.0, np.nan])
    values, slopes = fs.compile(lambda x: op(x)).value_and_grad(x)
    for i, number in enumerate(x.tolist()):
        t = fs.Tensor(number)
        y = op(t)
        y.backward()
        assert np.array_equal(values[i], y.data, equal_nan=True)
        np.testing.assert_allclose(slopes[i], t.grad, rtol=1e-14)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("first", [2.0, None])
def test_an_operation_of_ones_own_passes_gradients_where_an_operand_is_not_finite(number, first):
    op = fs.custom_op(lambda a, b: a * b, lambda a, b: (b, a), name="own")
    rows = np.array([[number, 0.5], [1.5, number]] if first is None else [[first, 0.5], [number, 0.5], [1.5, number]])
    program = fs.compile(lambda x: op(x[0], x[1]) * 3.0)
    values, slopes = program.value_and_grad(rows)
    for i, row in enumerate(rows.tolist()):
        a, b = map(fs.Tensor, row)
        y = op(a, b) * 3.0
        y.backward()
        np.testing.assert_array_equal(values[i], y.data)
        np.testing.assert_array_equal(slopes[i], [a.grad, b.grad])


def test_a_recorded_operation_of_ones_own_keeps_the_sign_of_a_zero():
    op = fs.custom_op(lambda a: -a * abs(a), lambda a: -2.0 * abs(a), name="own")
    for x in (0.0, -0.0):
        program = fs.compile(lambda x: fsmath.fmod(op(x), 0.0))
        sign = "-" if math.copysign(1.0, x) > 0 else ""
        with pytest.raises(ValueError, match=rf"fmod\({sign}0\.0, 0\.0\)"):
            program(x)


def test_errors_of_an_operation_of_ones_own_name_the_row():
    root = fs.custom_op(lambda r: math.sqrt(r), lambda r: 0.5 / math.sqrt(r), name="root")
    for f in (lambda x: root(x) * 2.0, lambda x: (root(x), x)[1]):
        with pytest.raises(ValueError, match="row 2: math domain error"):
            fs.compile(f).map(np.array([1.0, 2.0, -1.0, 4.0]))


def test_decisions_on_an_operation_of_ones_own():
    op = fs.custom_op(lambda a: np.sin(a), lambda a: np.cos(a), name="own")
    same(lambda x: op(x) * x if op(x * 3.0) > 0.5 else -x, np.linspace(0.0, 3.0, 200))


def test_an_operation_of_ones_own_in_a_block_of_no_grad():
    op = fs.custom_op(lambda a: a * 2.0, lambda a: 2.0, name="own")

    def f(x):
        with fs.no_grad():
            k = op(x)
        return k * 1.0 + x

    assert fs.compile(f).map(np.array([1.0, 2.0])).tolist() == [3.0, 6.0]


def test_ctrl_c_in_an_operation_of_ones_own_is_heard():
    def value(a):
        if type(a) is not float:
            raise KeyboardInterrupt
        return 2.0 * a

    op = fs.custom_op(value, lambda a: 2.0)
    program = fs.compile(lambda x: op(x))
    with pytest.raises(KeyboardInterrupt):
        program.map(np.ones(10))


def test_second_derivatives_of_roots_by_a_recorded_backward_pass():
    """Of one unknown and of two, as fs.hessian has them."""
    one = fs.implicit(lambda y, x, w: y * y * y + y - x * w)
    two = fs.implicit(lambda p, x, w: (p[0] * p[0] + p[1] * p[1] - x * w, p[0] - x * p[1]))

    for f in (lambda x, w: one(1.0, x, w), lambda x, w: two([1.0, 2.0], x, w)[1] * x):
        x, w = fs.Tensor(1.3), fs.Tensor(0.7)
        f(x, w).backward(create_graph=True)
        slope = x.grad
        slope.backward()
        expected = fs.hessian(f, (0, 1))(1.3, 0.7)
        np.testing.assert_allclose([x.grad, w.grad], [float(v) for v in expected[0]], rtol=1e-10)
