"""Gradients against fourth-order central differences, at random points away from kinks; legal values at kinks.

The check itself is tested: planted wrong derivatives, of the sizes that mistakes have, are caught.
"""

import math
import random

import numpy as np
import pytest

import fastscalar
from fastscalar import reference
from fastscalar.engine import testing
from operations import ROWS, difference

TOLERANCE = 1e-9  # of the larger of 1 and the derivative


def step(x):
    return 1e-3 * max(abs(x), 0.1)


def assert_derivative(found, f, x, where=""):
    expected = difference(f, x, step(x))
    assert abs(found - expected) <= TOLERANCE * max(1.0, abs(expected)), (where, x, found, expected)


def is_settled(f, x):
    """Whether the difference is the derivative to a tenth of the tolerance: near a pole it is not."""
    wide, narrow = difference(f, x, step(x)), difference(f, x, 0.5 * step(x))
    return abs(wide - narrow) <= 0.1 * TOLERANCE * max(1.0, abs(narrow))


def assert_gradients(fs, program, point):
    """Every partial derivative of program(list of Tensors) that backward leaves, at a point."""
    leaves = [fs.Tensor(x) for x in point]
    program(leaves).backward()
    for k, leaf in enumerate(leaves):

        def f(x, k=k):
            return program([fs.Tensor(x if j == k else v) for j, v in enumerate(point)]).data

        assert_derivative(leaf.grad, f, point[k], f"argument {k}")


# --- every row of the operation table -----------------------------------------------------------------------

INTERVALS = [(0.15, 0.85), (-0.85, -0.15), (1.15, 1.85), (-1.85, -1.15), (5.15, 5.85)]
PAIRS = [((0.15, 0.85), (1.15, 1.85)), ((-0.85, -0.15), (1.15, 1.85)), ((2.15, 2.85), (-3.85, -3.15))]


WHOLE = ["polygamma"]  # the right operand is a whole number, a parameter


def is_real(code, *point):
    value = testing.value_and_partials(code, *point)[0]
    return math.isfinite(value)


@pytest.mark.parametrize("name", [name for name, (_, arity) in ROWS.items() if arity == 1])
def test_the_derivative_of_every_function_in_the_table(name):
    code, rng = ROWS[name][0], random.Random(name)
    points = [rng.uniform(*interval) for interval in INTERVALS for _ in range(20)]
    points = [x for x in points if is_real(code, x)]
    points = [x for x in points if is_settled(lambda x: testing.value_and_partials(code, x)[0], x)]
    assert len(points) >= 20
    for x in points:
        assert_derivative(testing.value_and_partials(code, x)[1], lambda x: testing.value_and_partials(code, x)[0], x)


@pytest.mark.parametrize("name", [name for name, (_, arity) in ROWS.items() if arity == 2])
def test_the_derivatives_of_every_binary_operation_in_the_table(name):
    code, rng = ROWS[name][0], random.Random(name)
    points = [(rng.uniform(*a), rng.uniform(*b)) for a, b in PAIRS for _ in range(20)]
    if name in WHOLE:
        points = [(rng.uniform(0.4, 2.4), float(n)) for n in (1, 2, 3) for _ in range(20)]
    points = [p for p in points if is_real(code, *p)]
    if name == "remainder":  # not across a jump
        points = [(a, b) for a, b in points if is_settled(lambda x, b=b: math.remainder(x, b), a)]
        points = [(a, b) for a, b in points if is_settled(lambda x, a=a: math.remainder(a, x), b)]
    assert len(points) >= 20
    for a, b in points:
        _, by_a, by_b = testing.value_and_partials(code, a, b)
        assert_derivative(by_a, lambda x, b=b: testing.value_and_partials(code, x, b)[0], a, "left")
        if name in WHOLE:
            assert by_b == 0.0
        elif name != "**" or a > 0.0:
            assert_derivative(by_b, lambda x, a=a: testing.value_and_partials(code, a, x)[0], b, "right")


def test_a_negative_base_has_a_derivative_for_whole_exponents(fs):
    for exponent in (-3, -2, 1, 2, 3, 5):
        assert_gradients(fs, lambda v, n=exponent: v[0] ** n, [-1.7])


# --- programs -----------------------------------------------------------------------------------------------


def diamond(v):
    a, b = v[0] * v[1], v[0] + v[1]
    c = a * b + a
    return c * a - b / c


def chain(v):
    y = v[0]
    for k in range(200):
        y = y * 0.99 + v[1] / (k + 1.0)
    return y * y


def functions(v):
    x, y, z = v
    return ((x * y).exp() + (z * z + 1.0).log()) ** 0.5 - (x - y).relu() * z + (-y).relu() / (x + 3.0)


def number_sides(v):
    x, y = v
    return 2.0 / (1.0 + x * x) - 3.0 ** (0.5 * y) + 1 - y - (x - 2) * True + x**3 / 4


def in_place(v):
    total = v[0]
    total += v[1]
    total *= total
    total -= v[0] / 2
    total /= v[1] * v[1] + 1
    total **= 2
    return total


PROGRAMS = {
    "a + a": (lambda v: v[0] + v[0], 1),
    "a * a": (lambda v: v[0] * v[0], 1),
    "a - a": (lambda v: v[0] - v[0], 1),
    "a / a": (lambda v: v[0] / v[0], 1),
    "a ** a": (lambda v: (v[0] * v[0]) ** v[0], 1),
    "diamond": (diamond, 2),
    "chain": (chain, 2),
    "functions": (functions, 3),
    "numbers on both sides": (number_sides, 2),
    "in place": (in_place, 2),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_of_scalar_programs(fs, name):
    program, arity = PROGRAMS[name]
    rng = random.Random(name)
    for _ in range(5):
        assert_gradients(fs, program, [rng.choice([-1, 1]) * rng.uniform(0.3, 1.7) for _ in range(arity)])


def mlp(fs, loss):
    """A program of the inputs, the weights and the biases of a small net, as one list of Tensors."""

    def program(v):
        x, w1, b1, w2, b2 = (
            v[:3],
            [v[3:7], v[7:11], v[11:15]],
            v[15:19],
            [v[k : k + 2] for k in (19, 21, 23, 25)],
            v[27:29],
        )
        first, second = fs.Linear(3, 4, seed=0), fs.Linear(4, 2, seed=0)
        first.w, first.b, second.w, second.b = w1, b1, w2, b2
        return loss(second(fs.relu(first(x))))

    return program


LOSSES = {
    "squared_loss": lambda fs: lambda out: fs.squared_loss(out, [0.5, -1.0]),
    "mse_loss": lambda fs: lambda out: fs.mse_loss(out, [0.5, -1.0]),
    "cross_entropy": lambda fs: lambda out: fs.cross_entropy(out, 1),
    "one output": lambda fs: lambda out: out[0] * out[0],
    "rows": lambda fs: lambda out: fs.cross_entropy([list(out), list(out)[::-1]], [0, 0]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_of_a_net_by_inputs_weights_and_biases(fs, name):
    rng = random.Random(name)
    for _ in range(3):
        assert_gradients(
            fs, mlp(fs, LOSSES[name](fs)), [rng.choice([-1, 1]) * rng.uniform(0.1, 0.9) for _ in range(29)]
        )


@pytest.mark.parametrize(
    "program",
    [
        lambda a: (a * a + a).sum(),
        lambda a: (a / (a * a + 2.0)).sum(),
        lambda a: ((a * a) ** 1.5).sum(),
        lambda a: (2.0**a - 3.0 / a).sum(),
        lambda a: (a[0] * a[1]).sum() - (-a).sum(),
        lambda a: (a * a[0][1] + a[1][1]).sum(),
        lambda a: (a[:, ::2] * a[::-1, 1:]).relu().sum(),
        lambda a: a.exp().sum().log(),
        lambda a: (a * a).log().sum() * a[1][2],
        lambda a: fastscalar.squared_loss(a, a[::-1]),
        lambda a: fastscalar.cross_entropy(a * 3.0, [2, 0]),
    ],
)
def test_gradients_of_array_operations(program):
    rng = np.random.default_rng(1)
    for _ in range(3):
        point = rng.uniform(0.3, 1.7, (2, 3)) * rng.choice([-1.0, 1.0], (2, 3))
        a = fastscalar.to_tensor(point)
        program(a).backward()
        for index in np.ndindex(2, 3):

            def f(x, index=index, point=point):
                moved = point.copy()
                moved[index] = x
                return program(fastscalar.to_tensor(moved)).data

            assert_derivative(a.grad[index], f, point[index], index)


# --- kinks and singular points: the legal values ------------------------------------------------------------

AT_A_KINK = [
    ("relu", (0.0,), (0.0,)),
    ("relu", (-0.0,), (0.0,)),
    ("relu", (5e-324,), (1.0,)),
    ("relu", (math.inf,), (1.0,)),
    ("relu", (-math.inf,), (0.0,)),
    ("**", (0.0, 0.0), (0.0, 0.0)),
    ("**", (0.0, 2.0), (0.0, 0.0)),
    ("**", (0.0, 1.0), (1.0, 0.0)),
    ("**", (0.0, 0.5), (math.inf, 0.0)),
    ("**", (-2.0, 0.0), (0.0, math.nan)),
    ("**", (-2.0, 3.0), (12.0, math.nan)),
    ("exp", (-math.inf,), (0.0,)),
    ("log", (math.inf,), (0.0,)),
]


@pytest.mark.parametrize(("name", "point", "legal"), AT_A_KINK)
def test_the_value_at_a_kink(fs, name, point, legal):
    leaves = [fs.Tensor(x) for x in point]
    y = leaves[0] ** leaves[1] if name == "**" else getattr(leaves[0], name)()
    y.backward()
    for leaf, value in zip(leaves, legal, strict=True):
        assert leaf.grad == value or (math.isnan(leaf.grad) and math.isnan(value))


def test_nan_goes_through_relu(fs):
    a = fs.Tensor(math.nan)
    y = a.relu()
    y.backward()
    assert math.isnan(y.data)
    assert a.grad == 1.0


# --- the check can fail -------------------------------------------------------------------------------------

PLANTED = {
    "*": (lambda v: v[0] * v[1], lambda a, b, v: (b, a * (1 + 1e-6))),
    "/": (lambda v: v[0] / v[1], lambda a, b, v: (1.0 / b, v / b)),  # the sign
    "-": (lambda v: v[0] - v[1], lambda a, b, v: (1.0, 1.0)),
    "**": (lambda v: v[0] ** v[1], lambda a, b, v: (b * a**b, v * math.log(a))),  # the exponent
    "exp": (lambda v: v[0].exp(), lambda a, v: (v + 1e-7,)),
    "log": (lambda v: v[0].log(), lambda a, v: (1.0 / a + 1e-7,)),
    "relu": (lambda v: v[0].relu() + (-v[1]).relu(), lambda a, v: (1.0,)),
    "neg": (lambda v: -v[0], lambda a, v: (1.0,)),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_wrong_derivative_is_caught(monkeypatch, name):
    program, slopes = PLANTED[name]
    assert_gradients(reference, program, [0.7, 2.0])
    monkeypatch.setitem(reference._DERIVATIVES, name, slopes)
    with pytest.raises(AssertionError):
        assert_gradients(reference, program, [0.7, 2.0])


def test_a_planted_wrong_derivative_is_caught_on_the_engine():
    """`detach` in the wrong place is the mistake that an engine can be led to make."""
    assert_gradients(fastscalar, lambda v: v[0] * v[0], [0.7])
    for program in (lambda v: v[0] * v[0].detach(), lambda v: v[0] * v[0] + (v[0] * 1e-6).detach()):
        with pytest.raises(AssertionError):
            assert_gradients(fastscalar, program, [0.7])


def test_every_row_of_the_table_with_a_slope_off_by_a_millionth_is_caught():
    for name, (code, arity) in ROWS.items():
        point = next(p for p in ((0.45, 1.35), (1.45, 1.35), (1.45, 2.0)) if is_real(code, *p[:arity]))
        slope = testing.value_and_partials(code, *point[:arity])[1]
        f = lambda x, code=code, rest=point[1:arity]: testing.value_and_partials(code, x, *rest)[0]
        assert_derivative(slope, f, point[0], name)
        with pytest.raises(AssertionError):
            assert_derivative(slope + 1e-6 * max(1.0, abs(slope)), f, point[0], name)
