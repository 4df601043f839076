"""Programs say what their functions say: kinds of code that a compiler of recordings gets wrong easily.

`agrees` (of the fuzzer's judge) compares every public method with the plain call, row by row: values, gradients by
arguments, shared numbers and captured leaves, exceptions, and that nothing changes after one.  Each kind comes in
several forms, and with the rows in several orders: what is recorded first decides what is replayed.
"""

import contextlib

import numpy as np
import pytest

import fastscalar as fs
from compiled import compiled_only
from fastscalar import math
from fuzz.judge import agrees

INF, NAN = float("inf"), float("nan")


def draws(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


# --- dense products whose weights are computed from arguments ---------------------------------------------------------

SIZES = [4, 15, 16, 17, 33]


def discounted(s, r):
    return sum(math.exp(-r * (i + 1)) * s[i] for i in range(len(s)))


def discounted_by_dot(s, r):
    return fs.dot([math.exp(-r * (i + 1)) for i in range(len(s))], s)


def several_outputs(s, r):
    return sum((sum(s[i] * (r * (i - j)).sin() for i in range(len(s)))).tanh() for j in range(4))


def inputs_from_the_shared_number(s, r):
    return sum(s[i] * (r + i) for i in range(len(s)))


def both_from_the_shared_number(s, r):
    return sum((s[i] + r) * (r * i + 1.0) for i in range(len(s)))


def squares_of_it(s, r):
    return sum((r * s[i]) * (r * s[i]) for i in range(len(s)))


def a_plain_copy(s, r):
    weights = [[r, 2.0 * r] for _ in range(len(s))]
    out = [sum(s[i] * weights[i][j] for i in range(len(s))) for j in range(2)]
    return out[0] * out[1]


DISCOUNTS = [
    discounted, discounted_by_dot, several_outputs, inputs_from_the_shared_number, both_from_the_shared_number,
    squares_of_it, a_plain_copy,
]  # fmt: skip


@pytest.mark.dear
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("f", DISCOUNTS)
def test_weights_computed_from_a_shared_number(f, n):
    agrees(f, draws(5, n), 0.05)


@pytest.mark.dear
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("f", DISCOUNTS)
def test_weights_computed_from_a_number_of_the_row(f, n):
    agrees(f, draws(5, n), draws(5, seed=1) * 0.1)


@pytest.mark.parametrize("n", [15, 16])
def test_the_value_of_that_derivative(n):
    r = 0.05
    _, found = fs.compile(discounted).value_and_grad(np.full((3, n), 100.0), r, argnums=1)
    assert found == pytest.approx(-300 * sum((i + 1) * np.exp(-r * (i + 1)) for i in range(n)), rel=1e-12)


def test_four_dots_of_four_inputs():
    def f(s, r):
        return sum(fs.dot([r * (i + j) for i in range(4)], s).sin() for j in range(4))

    agrees(f, draws(6, 4), 0.3)


@pytest.mark.parametrize("n", [4, 16])
def test_weights_computed_from_leaves_and_a_shared_number(n):
    w, v = fs.to_tensor(draws(n, 3)), fs.Tensor(0.4)

    def f(s, r):
        return sum((sum(s[i] * (w[i][j] * r + v) for i in range(n))).sin() for j in range(3))

    agrees(f, draws(5, n, seed=2), 0.3, leaves=[w, v])


@pytest.mark.parametrize("n", [4, 16])
def test_a_layer_of_inputs_that_a_shared_number_scales(n):
    net = fs.Linear(n, 3, seed=1)

    def f(x, scale, k):
        return fs.cross_entropy(net([e * scale for e in x]), k)

    agrees(f, draws(6, n), 0.7, np.arange(6) % 3, leaves=[net.w, net.b])


@pytest.mark.parametrize("n", [4, 16])
def test_weights_that_are_gathered(n):
    w = fs.to_tensor(draws(5, n))

    def f(x, k, r):
        return sum(w[k][i] * r * x[i] for i in range(n)) ** 2

    agrees(f, draws(6, n), np.arange(6) % 5, 0.3, leaves=[w])


def test_a_model_of_volatility():
    """Every parameter is shared by the paths, and each goes into a product with them."""

    def f(z, v0, kappa, theta, xi):
        s, v = 0.0, v0
        for k in range(16):
            s = s + fs.maximum(v, 1e-8).sqrt() * z[k] * 0.1 - 0.005 * v
            v = v + kappa * (theta - v) * 0.1 + xi * fs.maximum(v, 1e-8).sqrt() * z[15 - k] * 0.1
        return fs.maximum(s.exp() - 1.0, 0.0)

    agrees(f, draws(7, 16), 0.04, 1.5, 0.05, 0.3)


# --- exceptions that the function catches -----------------------------------------------------------------------------


def caught(operation, *errors, otherwise=lambda x: x * 0.5 - 100.0):
    def f(x):
        try:
            return operation(x)
        except errors:
            return otherwise(x)

    return f


CAUGHT = {
    "log": (caught(math.log, ValueError), [-1.0, 1.0, 2.0, 0.0, 3.0]),
    "sqrt": (caught(math.sqrt, ValueError), [4.0, -1.0, 9.0, -2.0]),
    "division": (caught(lambda x: 1.0 / x, ZeroDivisionError), [0.0, 1.0, -2.0, -0.0]),
    "division by a difference": (caught(lambda x: x / (x - 1.0), ZeroDivisionError), [1.0, 3.0, 2.0]),
    "power": (caught(lambda x: x**0.5, ValueError), [-1.0, 4.0, 0.0]),
    "negative power": (caught(lambda x: x**-2, ZeroDivisionError), [2.0, 0.0, 3.0]),
    "overflow of exp": (caught(math.exp, OverflowError), [1.0, 1000.0, 2.0]),
    "overflow of a power": (caught(lambda x: 10.0**x, OverflowError), [1.0, 400.0, 2.0]),
    "acos": (caught(math.acos, ValueError), [0.5, 1.5, -0.5]),
    "remainder": (caught(lambda x: 7.0 % x, ZeroDivisionError), [3.0, 0.0, 2.0]),
    "int of NaN": (caught(lambda x: x * int(x), ValueError, OverflowError), [1.5, NAN, INF, 1.7]),
    "a base class": (caught(lambda x: math.log(x) / x, ArithmeticError, ValueError), [1.0, 0.0, -1.0, 2.0]),
    "everything": (caught(lambda x: math.log(x - 1.0), Exception), [1.0, 3.0, 0.0, 2.0]),
    "lgamma": (caught(lambda x: x.lgamma(), ValueError), [1.5, -1.0, 2.5]),
    "a method": (caught(lambda x: x.log() * x.sqrt(), ValueError), [1.5, -1.0, 2.5]),
    "its own": (caught(lambda x: _refuse(x), KeyError), [1.5, -1.0, 2.5]),
    "dead": (caught(lambda x: (math.log(x), x * 2.0)[1], ValueError), [1.5, -1.0, 2.5]),
    "cancelled": (caught(lambda x: 0.0 * math.log(x) + x, ValueError), [1.5, -1.0, 2.5]),
}


def _refuse(x):
    if x < 0.0:
        raise KeyError("negative")
    return x * x


@pytest.mark.parametrize("name", CAUGHT)
def test_a_caught_exception_is_a_decision(name):
    f, rows = CAUGHT[name]
    agrees(f, np.array(rows))


@pytest.mark.parametrize("name", CAUGHT)
def test_a_caught_exception_and_leaves(name):
    f, rows = CAUGHT[name]
    w, v = fs.Tensor(1.0), fs.Tensor(3.0)

    def g(x, y):
        return f(x * w) * v + y

    agrees(g, np.array(rows), 0.5, leaves=[w, v])


def test_what_follows_a_caught_exception():
    def f(x):
        total = x * 1.0
        for k in range(3):
            try:
                total = total + math.log(x - k)
            except ValueError:
                total = total * 0.5
            else:
                total = total + 1.0
            finally:
                total = total - 0.25
        return total

    agrees(f, np.array([3.5, 0.5, 1.5, -1.0, 2.5, 2.0]))


def test_a_suppressed_exception():
    def f(x):
        y = x * 3.0
        with contextlib.suppress(ValueError):
            y = math.sqrt(x)
        return y * x

    agrees(f, np.array([4.0, -1.0, 9.0]))


def test_an_exception_inside_a_called_function():
    def inner(x):
        return math.log(x) / (x - 2.0)

    def f(x):
        try:
            return inner(x)
        except ZeroDivisionError:
            return x * 7.0
        except ValueError:
            return x * 5.0

    agrees(f, np.array([1.0, 2.0, -1.0, 3.0]))


def test_the_message_of_a_caught_exception():
    def f(x):
        try:
            return math.log(x)
        except ValueError as error:
            return x * len(str(error))

    agrees(f, np.array([1.0, -1.0, -10.0, 3.0]))


@pytest.mark.parametrize("width", [1, 3, 64, 4096])
@pytest.mark.parametrize("first", [0, 9], ids=["recorded inside", "recorded outside"])
def test_a_caught_index_out_of_range(width, first):
    w = fs.to_tensor(draws(2, width))

    def f(x, k):
        try:
            row = w[k]
        except IndexError:
            return x * 1.0
        return fs.sum(row) * x

    k = np.array([first, 1, 9, 0, -1, -3, 1])
    agrees(f, draws(7), k, leaves=[w])


def test_a_caught_index_of_a_list_and_of_a_vector():
    w, numbers = fs.to_tensor([1.0, 2.0, 4.0]), [1.0, 2.0]

    def f(x, k):
        try:
            return x * w[k] * numbers[k]
        except IndexError:
            return x * 10.0

    agrees(f, draws(6), np.array([0, 1, 2, 5, -2, -3]), leaves=[w])


def test_a_caught_label_out_of_range():
    w = fs.to_tensor(draws(3))

    def f(x, k):
        try:
            return fs.cross_entropy([w[0] * x, w[1] + x, w[2]], k)
        except (IndexError, ValueError):
            return x * 10.0

    agrees(f, draws(5), np.array([0, 1, 7, 2, 0]), leaves=[w])


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_the_right_numbers_of_a_caught_logarithm(order):
    def f(x):
        try:
            return math.log(x)
        except ValueError:
            return x * 0.0 - 100.0

    rows = np.array([-1.0, 1.0, 2.0])[order]
    values, slopes = fs.compile(f).value_and_grad(rows)
    assert values == pytest.approx(np.array([-100.0, 0.0, np.log(2.0)])[order])
    assert slopes == pytest.approx(np.array([0.0, 1.0, 0.5])[order])


# --- exceptions that it does not catch --------------------------------------------------------------------------------

RAISES = {
    "log": lambda x: math.log(x),
    "its second operation": lambda x: math.log(x + 2.0) / x,
    "dead": lambda x: (math.log(x + 0.5), x * 2.0)[1],
    "times zero": lambda x: 0.0 * math.log(x + 0.5) + x,
    "minus itself": lambda x: math.log(x + 0.5) - math.log(x + 0.5) + x,
    "not chosen": lambda x: fs.where(x > 0.0, x, math.log(x)),
    "detached": lambda x: x * (1.0 / x).detach(),
    "under a branch": lambda x: 1.0 / x if x < 0.5 else math.sqrt(x - 2.0),
    "its own": lambda x: _refuse(x),
}


@pytest.mark.parametrize("name", RAISES)
def test_the_lowest_row_that_raises(name):
    w = fs.Tensor(2.0)
    f = RAISES[name]
    agrees(lambda x: f(x) * w, np.array([1.0, 3.0, 0.0, -1.0, 2.0, -3.0, 0.0]), leaves=[w])


# --- zero times an infinite slope -------------------------------------------------------------------------------------

ZEROS = {
    "where": (lambda x: fs.where(x > 0, x**0.5, 2 * x), [0.0, 4.0]),
    "where of a quotient": (lambda x: fs.where(x == 0.0, x, (x * x).sqrt() * 3.0), [0.0, 2.0]),
    "max": (lambda x: max(math.sqrt(x) - 1, x), [0.0, 4.0, 9.0]),
    "min": (lambda x: min(math.sqrt(x) + 1, x), [0.0, 4.0, 9.0]),
    "maximum": (lambda x: fs.maximum(math.sqrt(x) - 1, x), [0.0, 4.0]),
    "minimum": (lambda x: fs.minimum(math.sqrt(x) + 1, x), [0.0, 4.0]),
    "fs.max": (lambda x: fs.max([math.sqrt(x) - 1, x, -x]), [0.0, 4.0]),
    "detach": (lambda x: x * math.sqrt(x).detach(), [0.0, 4.0]),
    "no_grad": (lambda x: x * _without(math.sqrt, x), [0.0, 4.0]),
    "relu": (lambda x: fs.relu(math.sqrt(x) - 1.0) + x, [0.0, 4.0]),
    "clip": (lambda x: fs.clip(math.sqrt(x), 1.0, 2.0) + x, [0.0, 1.5, 9.0]),
    "times zero": (lambda x: math.sqrt(x) * 0.0 + x, [0.0, 4.0]),
    "times x": (lambda x: math.sqrt(x) * x, [0.0, 4.0]),
    "cbrt": (lambda x: fs.maximum(math.cbrt(x), 1.0) * x, [0.0, 8.0]),
    "acos": (lambda x: fs.where(x < 1.0, math.acos(x), x), [1.0, 0.5]),
    "asin": (lambda x: fs.relu(1.0 - math.asin(x)) + x, [1.0, 0.5]),
    "an infinite argument": (lambda x: fs.where(x > 1e300, 1.0, x * x) + x, [INF, 2.0]),
    "infinity times zero": (lambda x: fs.relu(x - 1e300) * 0.0 + 1.0 / (x + 1.0), [0.0, 4.0]),
    "a power": (lambda x: fs.maximum(x**0.25, 1.0), [0.0, 16.0]),
    "in a dot": (lambda x: fs.dot([x, 0.0 * x], [math.sqrt(x).detach(), math.sqrt(x)]), [0.0, 4.0]),
}


def _without(function, x):
    with fs.no_grad():
        return function(x)


@pytest.mark.parametrize("name", ZEROS)
def test_a_zero_sends_zero(name):
    f, rows = ZEROS[name]
    agrees(f, np.array(rows))


@pytest.mark.parametrize("name", ZEROS)
def test_a_zero_sends_zero_to_leaves(name):
    f, rows = ZEROS[name]
    w = fs.Tensor(1.0)
    agrees(lambda x: f(x * w), np.array(rows), leaves=[w])


@pytest.mark.parametrize(
    ("f", "x", "right"),
    [
        (lambda x: fs.where(x > 0, x**0.5, 2 * x), 0.0, 2.0),
        (lambda x: max(math.sqrt(x) - 1, x), 0.0, 1.0),
        (lambda x: x * math.sqrt(x).detach(), 0.0, 0.0),
        (lambda x: fs.relu(math.sqrt(x) - 1.0), 0.0, 0.0),
        (lambda x: fs.clip(math.sqrt(x), 1.0, 2.0), 0.0, 0.0),
    ],
)
def test_the_right_numbers_beside_an_infinite_slope(f, x, right):
    assert fs.compile(f).value_and_grad(np.array([x]))[1].tolist() == [right]
    assert fs.grad(f)(x) == right


# --- whole numbers of the row -----------------------------------------------------------------------------------------

PAIRS = {
    **{name: getattr(math, name) for name in ("atan2", "hypot", "copysign", "fmod", "pow", "remainder")},
    **{name: getattr(fs, name) for name in ("maximum", "minimum", "leaky_relu", "elu")},
    "max": max, "min": min, "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
    "/": lambda a, b: a / b, "%": lambda a, b: a % b, "//": lambda a, b: a // b, "fs.max": lambda a, b: fs.max([a, b]),
    "fs.min": lambda a, b: fs.min([a, b]), "fs.sum": lambda a, b: fs.sum([a, b]),
    "fs.dot": lambda a, b: fs.dot([a, b], [b, a]),
    "fs.norm": lambda a, b: fs.norm([a, b]), "where": lambda a, b: fs.where(a > b, a * a, b * 2),
    "math.dist": lambda a, b: math.dist([a, 1.0], [b, 3.0]), "fsum": lambda a, b: math.fsum([a, b, a]),
    "fs.prod": lambda a, b: fs.prod([a, b, a]), "fs.mean": lambda a, b: fs.mean([a, b]),
    "softmax": lambda a, b: fs.softmax([a, b])[0], "logsumexp": lambda a, b: fs.logsumexp([a, b]),
    "squared_loss": lambda a, b: fs.squared_loss([a, a], [b, 1]), "clip": lambda a, b: fs.clip(a, 0, b),
    "sorted": lambda a, b: sorted([a, b])[0] * a, "to_tensor": lambda a, b: fs.sum(fs.to_tensor([1.0, 2.0]) * a) * b,
    "hypot of three": lambda a, b: math.hypot(a, b, 1.0), "sum": lambda a, b: sum([a, b, a]),
    "abs": lambda a, b: abs(a) * b,
}  # fmt: skip


@pytest.mark.parametrize("swapped", [False, True], ids=["x, k", "k, x"])
@pytest.mark.parametrize("name", PAIRS)
def test_a_function_of_a_number_and_a_whole_number(name, swapped):
    function, w = PAIRS[name], fs.Tensor(1.25)

    def f(x, k):
        return (function(k, x * w) if swapped else function(x * w, k)) + x

    agrees(f, np.array([1.3, 0.45, 2.6, 1.7]), np.array([3, 1, 2, 5]), leaves=[w])


@pytest.mark.parametrize("name", ["atan2", "hypot", "copysign", "fmod", "minimum", "maximum", "leaky_relu", "elu"])
def test_a_method_with_a_whole_number(name):
    agrees(lambda x, k: getattr(x, name)(k) * x, np.array([1.3, 0.4, 2.6, 1.7]), np.array([3, 1, 2, 5]))


@pytest.mark.parametrize(
    "name",
    [
        "exp",
        "log",
        "sin",
        "sqrt",
        "tanh",
        "floor",
        "ceil",
        "trunc",
        "fabs",
        "lgamma",
        "gamma",
        "log1p",
        "isnan",
        "degrees",
    ],
)
def test_a_function_of_a_whole_number_alone(name):
    function = getattr(math, name)
    agrees(lambda x, k: x * function(k) + k, np.array([1.3, 0.4, 2.6, 1.7]), np.array([3, 1, 2, 5]))


@pytest.mark.parametrize(
    "use",
    [
        lambda x, k: fs.sigmoid(k) * x, lambda x, k: fs.sign(k) * x, lambda x, k: round(k) * x, lambda x, k: int(k) * x,
        lambda x, k: float(k) * x, lambda x, k: x ** k, lambda x, k: k ** x, lambda x, k: 2 ** k * x,
        lambda x, k: divmod(k, 3)[1] * x, lambda x, k: -k * x, lambda x, k: abs(-k) * x,
        lambda x, k: [x, x * x, 1.0 * x][k % 3],
        lambda x, k: sum(x for _ in range(k)), lambda x, k: {1: x, 2: x * x}.get(k, 3.0 * x), lambda x, k: x.maximum(k),
        lambda x, k: math.comb(k, 1) * x, lambda x, k: math.factorial(k) * x, lambda x, k: math.gcd(k, 6) * x,
        lambda x, k: math.ldexp(x, k), lambda x, k: (k + 1) * x, lambda x, k: k * k * x, lambda x, k: (k / 2) * x,
        lambda x, k: int(f"{k}") * x, lambda x, k: len("ab" * k) * x, lambda x, k: len([0] * k) * x,
        lambda x, k: bool(k) * x, lambda x, k: fs.Tensor(k) * x, lambda x, k: fs.to_tensor([1.0, k])[1] * x,
        lambda x, k: np.sqrt(k) * x, lambda x, k: k.bit_length() * x,
        lambda x, k: fs.cross_entropy([x, 2 * x, x * x], k % 3), lambda x, k: np.arange(9.0)[k] * x,
        lambda x, k: (k,)[0] * x, lambda x, k: pow(k, 3, 5) * x, lambda x, k: pow(7, 2, k) * x,
        lambda x, k: pow(3, k, 7) * x,
        lambda x, k: x * (2.0 if type(k) is int else 3.0), lambda x, k: x * {int: 2.0}.get(type(k), 3.0),
        lambda x, k: x * len(type(k).__name__),
    ],
)  # fmt: skip
def test_a_whole_number_is_taken_wherever_an_int_is(use):
    agrees(use, np.array([1.3, 0.4, 2.6, 1.7]), np.array([3, 1, 2, 5]))


def test_the_slope_of_a_hypotenuse():
    x, k = np.array([1.3]), np.array([3])
    found = fs.compile(lambda x, k: math.hypot(k, x)).value_and_grad(x, k)[1]
    assert found == pytest.approx([1.3 / np.hypot(3.0, 1.3)])


# --- values that are not finite ---------------------------------------------------------------------------------------

UNFINITE = {
    "exp": (math.exp, [1.0, NAN, -INF, INF, 2.0]),
    "sqrt": (math.sqrt, [1.0, NAN, INF, 1e200, 4.0]),
    "log": (math.log, [1.0, NAN, INF, 1e200, 2.0]),
    "division": (lambda x: 1.0 / x, [1.0, NAN, INF, 2.0, -INF]),
    "division of": (lambda x: x / 3.0, [1.0, NAN, INF, 2.0]),
    "power": (lambda x: x**1.5, [1.0, NAN, INF, 2.0]),
    "square": (lambda x: x**2, [1.0, NAN, INF, 2.0]),
    "acos": (math.acos, [1.0, NAN, 0.5]),
    "product": (lambda x: x * 1e200, [1.0, NAN, 1e200, 2.0]),
    "a sum": (lambda x: x + x * 3.0 - 2.0, [1.0, NAN, INF, 2.0]),
    "tanh": (math.tanh, [1.0, NAN, INF, -INF, 2.0]),
    "relu": (fs.relu, [1.0, NAN, INF, -INF, -0.0]),
    "maximum": (lambda x: fs.maximum(x, 1.0), [1.0, NAN, INF, -INF, 2.0]),
    "minimum": (lambda x: fs.minimum(1.0, x), [1.0, NAN, INF, -INF, 2.0]),
    "where": (lambda x: fs.where(x > 0.0, x, -x), [1.0, NAN, INF, -INF, 2.0]),
    "abs": (abs, [1.0, NAN, INF, -INF, -0.0]),
    "a comparison": (lambda x: x * 2.0 if x > 1.0 else x * 3.0, [1.0, NAN, INF, -INF, 2.0]),
    "softmax": (lambda x: fs.softmax([x, 1.0])[0], [1.0, NAN, INF, -INF, 2.0]),
    "logsumexp": (lambda x: fs.logsumexp([x, 1.0]), [1.0, NAN, -INF, 2.0]),
    "max": (lambda x: max(x, 1.0), [1.0, NAN, INF, -INF]),
}


@pytest.mark.parametrize("name", UNFINITE)
def test_values_that_are_not_finite(name):
    f, rows = UNFINITE[name]
    w = fs.Tensor(1.0)
    agrees(lambda x: f(x) + w, np.array(rows), leaves=[w])


@pytest.mark.parametrize("name", [n for n in UNFINITE if n not in ("a comparison", "max")])
def test_rows_that_are_not_finite_are_replayed(name):
    f, rows = UNFINITE[name]
    calls = []

    def g(x):
        calls.append(1)
        return f(x) * 1.0

    program, many = fs.compile(g), np.tile(rows, 20)
    with compiled_only():
        program.map(many)
        program.backward(many)
        calls.clear()
        program.map(many)
        program.backward(many)
        program.value_and_grad(many)
    assert len(calls) <= 4


# --- decisions at the last bit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "exp", "sigmoid", "log", "sin", "sqrt", "erf", "log1p", "expm1"])
def test_a_number_that_is_read_is_the_one_of_the_plain_call(name):
    function = getattr(math, name, None) or getattr(fs, name)
    calls = []

    def f(x):
        calls.append(1)
        return function(x) * function(x).data

    rows = np.random.default_rng(0).uniform(0.1, 2.0, size=20)
    agrees(f, rows)
    program = fs.compile(f)
    for _ in range(2):  # the second looks whether the function does the same again
        program.map(rows)
    calls.clear()
    for _ in range(3):
        program.map(rows)
        program.backward(rows)
    assert not calls, "rows miss their own recordings"


@pytest.mark.dear
@pytest.mark.parametrize("n", [3, 15, 16, 17, 64])
def test_the_commonest_softmax(n):
    w = fs.to_tensor(draws(n, 3, seed=3))

    def f(x, k):
        logits = [sum(x[i] * w[i][j] for i in range(n)) for j in range(3)]
        m = max(v.data for v in logits)
        es = [math.exp(v - m) for v in logits]
        return -math.log(es[k] / sum(es))

    agrees(f, draws(9, n), np.arange(9) % 3, leaves=[w])


@pytest.mark.parametrize("n", [4, 16, 17])
def test_a_row_does_not_depend_on_its_neighbours(n):
    """A loop that stops when a saturated number does not change any more: the last bit decides when."""
    w = fs.to_tensor(draws(n, seed=5))

    def f(x):
        t, steps = math.tanh(fs.dot(x, w)), 0
        while t != math.tanh(3.0 * t) and steps < 40:
            t = math.tanh(3.0 * t)
            steps += 1
        return t * steps + x[0]

    rows = draws(257, n, seed=6)
    program = fs.compile(f)
    together = program.map(rows)
    alone = np.array([fs.compile(f)(row) for row in rows[:20]])
    plain = np.array([f(fs.to_tensor(row)).item() for row in rows])
    assert together[:20] == pytest.approx(alone, rel=1e-12)
    assert together == pytest.approx(plain, rel=1e-12)
    assert program.map(rows[::-1])[::-1] == pytest.approx(plain, rel=1e-12)


def test_a_comparison_with_a_product_at_a_tie():
    """x * 3 - x * 2 is compared with x: equal or not, as the plain call rounds, and not as fused operations would."""

    def f(x, y):
        return x * 10.0 if x * 3.0 - y * 2.0 == x else x + y

    rows = np.random.default_rng(1).normal(size=40)
    agrees(f, rows, rows.copy())


@pytest.mark.parametrize("n", [4, 16])
def test_a_comparison_with_a_dot_product_at_a_tie(n):
    def f(x, s):
        total = 0.0
        for e in x:
            total = total + e * 0.1
        return s * 2.0 if total == s else s - 1.0

    x = draws(20, n)
    sums = []
    for row in x:
        total = 0.0
        for e in row.tolist():
            total = total + e * 0.1
        sums.append(total)
    agrees(f, x, np.array(sums))


# --- whole numbers that are not all float64s --------------------------------------------------------------------------

BIG = 2**53
LARGE = {
    "equal": lambda x, k: x * (2.0 if k == BIG + 1 else 3.0),
    "less": lambda x, k: x * (2.0 if k < BIG + 1 else 3.0),
    "another": lambda x, k: x * (2.0 if k == k + 1 - 1 else 3.0),
    "not compared": lambda x, k: x * (2.0 if BIG + 1 != k else 3.0),
    "remainder": lambda x, k: x * (k % 10),
    "a key": lambda x, k: x * {BIG: 1.0, BIG + 1: 2.0}.get(k, 5.0),
    "a number": lambda x, k: x * 1e-9 + k,
    "its parity": lambda x, k: x if k % 2 else -x,
    "text": lambda x, k: x * float(str(k)[-1]),
    "in a list": lambda x, k: x * (k in [BIG + 1, -BIG - 1]),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("rows", [[BIG, BIG + 1, BIG + 2, 5], [BIG + 1, BIG, -BIG - 1, -BIG], [5, 7, BIG + 1, BIG + 3]])
def test_whole_numbers_have_all_their_digits(name, rows):
    x, k = np.array([1.3, 0.4, 2.6, 1.7]), np.array(rows)
    right = [LARGE[name](number, whole) for number, whole in zip(x.tolist(), rows, strict=True)]
    program = fs.compile(LARGE[name])
    assert program.map(x, k).tolist() == pytest.approx(right, rel=1e-15)
    assert [program(*pair) for pair in zip(x.tolist(), rows, strict=True)] == pytest.approx(right, rel=1e-15)


def test_two_whole_numbers_that_differ_in_the_last_digit():
    def f(x, k, j):
        return x * (k - j) if k != j else x * 10.0

    k, j = np.array([BIG, BIG + 1, BIG + 1]), np.array([BIG + 1, BIG + 1, BIG])
    assert fs.compile(f).map(np.ones(3), k, j).tolist() == [-1.0, 10.0, 1.0]
