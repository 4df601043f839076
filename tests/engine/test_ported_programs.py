"""Programs as users write them (examples/porting) on engine and twin: the same code, and the same bits.

Nets and their optimisers over 50 steps; formulas against closed forms, or against fourth-order differences of
themselves; every pair of operand types.
"""

import importlib.util
import itertools
import math
import operator
import pathlib
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

import fastscalar
from fastscalar import _core, reference
from operations import difference

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "porting"
NUMPY_1 = np.lib.NumpyVersion(np.__version__) < "2.0.0"  # its numbers, on the left, make their own bool of the answer
STRESS = _core.tape_info()["stress"]  # a node costs a full collection then: fewer steps


def program(name):
    """A fresh copy of one of the programs, as a module."""
    spec = importlib.util.spec_from_file_location(f"porting_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def close(found, expected, tolerance):
    """To a part of the value, or of 1 if the value is smaller."""
    assert abs(found - expected) <= tolerance * max(1.0, abs(expected)), (found, expected)


# --- nets --------------------------------------------------------------------------------------------


def losses_on_both(name, steps):
    """The losses, after a check that those of engine and twin are the same, bit for bit."""
    ours, theirs = (program(name).main(module, steps) for module in (fastscalar, reference))
    assert repr(ours) == repr(theirs)  # repr tells -0.0 from 0.0, and one float from the next
    return ours


def test_a_classifier_of_moons():
    steps = 5 if STRESS else 50
    losses, accuracy = losses_on_both("moons", steps)
    assert len(losses) == steps
    if not STRESS:
        assert losses[-1] < 0.1 * losses[0]
        assert accuracy > 0.9


@pytest.mark.dear
def test_a_small_gpt():
    steps = 2 if STRESS else 50
    losses = losses_on_both("small_gpt", steps)
    assert len(losses) == steps
    assert losses[0] == pytest.approx(math.log(7), rel=0.1)  # seven characters, nothing learned yet
    if not STRESS:
        assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_attention_sees_no_later_token():
    """The loss of the first tokens does not depend on those that follow."""
    gpt = program("small_gpt")
    model = gpt.Model(fastscalar.Tensor, 5, context=4, width=4, heads=2, seed=1)
    one, other = ([], []), ([], [])
    for place, (a, b) in enumerate([(0, 0), (3, 3), (1, 2)]):
        x, y = model.forward(a, place, *one), model.forward(b, place, *other)
        assert ([t.data for t in x] == [t.data for t in y]) == (place < 2)


def test_tanh_and_adam_by_hand():
    steps = 10 if STRESS else 50
    losses = losses_on_both("tanh_adam", steps)
    assert len(losses) == steps
    if not STRESS:
        assert losses[-1] < 0.1 * losses[0]


def test_adam_by_hand_is_the_optimiser():
    """Twenty steps on the moments in attributes, and twenty of `fastscalar.Adam`, from the same gradients."""
    tanh_adam = program("tanh_adam")
    ours = [fastscalar.Tensor(x) for x in (0.5, -1.5, 3.0)]
    theirs = [fastscalar.Tensor(x) for x in (0.5, -1.5, 3.0)]
    optimizer = fastscalar.Adam(theirs, lr=0.05, betas=(0.9, 0.99))
    for step in range(1, 21):
        for a, b, c in (ours, theirs):
            (a * b * b + (c * a).sin()).backward()
        tanh_adam.adam(ours, step)
        optimizer.step()
    assert [p.data for p in ours] == pytest.approx([p.data for p in theirs], rel=1e-12)


# --- formulas ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["black_scholes", "implied_volatility", "asian_option", "bouncing_ball"])
def test_formulas_have_the_bits_of_the_twin(name):
    assert repr(program(name).main(fastscalar)) == repr(program(name).main(reference))


def closed_form(spot, strike, rate, volatility, years, kind):
    """Price and greeks of Black and Scholes (1973), term by term."""
    sign = 1 if kind == "call" else -1
    root = math.sqrt(years)
    d1 = (math.log(spot / strike) + (rate + volatility**2 / 2) * years) / (volatility * root)
    d2 = d1 - volatility * root
    density = math.exp(-d1 * d1 / 2) / math.sqrt(2 * math.pi)
    n1, n2 = (math.erfc(-sign * d / math.sqrt(2)) / 2 for d in (d1, d2))
    discounted = strike * math.exp(-rate * years)
    return {
        "price": sign * (spot * n1 - discounted * n2),
        "delta": sign * n1,
        "vega": spot * density * root,
        "rho": sign * years * discounted * n2,
        "theta": -spot * density * volatility / (2 * root) - sign * rate * discounted * n2,
    }


@pytest.mark.parametrize("kind", ["call", "put"])
def test_black_scholes_has_the_greeks_of_the_closed_form(fs, kind):
    greeks = program("black_scholes").greeks
    for spot in (60.0, 95.0, 100.0, 105.0, 170.0):
        for years in (0.1, 1.0, 5.0):
            for volatility in (0.1, 0.45):
                terms = spot, 100.0, 0.03, volatility, years, kind
                expected = closed_form(*terms)
                for name, value in greeks(fs, *terms).items():
                    close(value, expected[name], 1e-12)


def test_implied_volatility_converges(fs):
    solve = program("implied_volatility").implied_volatility
    for volatility in (0.05, 0.2, 0.9):
        for spot in (90.0, 100.0, 110.0):
            terms = spot, 100.0, 0.02, 1.0
            expected = closed_form(*terms[:3], volatility, 1.0, "call")
            found, slope, steps = solve(fs, expected["price"], *terms)
            assert abs(found - volatility) <= 1e-12
            assert slope * expected["vega"] == pytest.approx(1.0, rel=1e-9)
            assert steps < 20


@pytest.mark.dear
def test_asian_option_against_differences_on_the_same_paths(fs):
    option = program("asian_option")
    _, paying, slopes = option.main(fs)
    assert 0 < paying < option.PATHS
    start = [100.0, 0.03, 0.25]
    for k, h in enumerate((1e-3, 1e-5, 1e-5)):

        def moved(x, k=k):
            price, still_paying, _ = option.main(fs, *[x if j == k else v for j, v in enumerate(start)])
            assert still_paying == paying  # a path that begins to pay would put a kink between the points
            return price

        close(slopes[k], difference(moved, start[k], h), 1e-8)
    assert slopes[0] == pytest.approx(difference(lambda x: option.main(fs, x)[0], 100.0, 1e-3), rel=1e-11)


def assert_sensitivities(fs, ball):
    start = [1.5, 0.5, 9.81, 0.1, 0.8]
    *final, impacts = ball.main(fs, *start)
    assert len(impacts) == 4
    for k, x in enumerate(start):

        def moved(x, k=k):
            *final, again = ball.main(fs, *[x if j == k else v for j, v in enumerate(start)])
            # The steps' errors jump when an impact moves from one step to the next.
            assert [int(20 * t) for t in again] == [int(20 * t) for t in impacts]
            return np.array([state for state, _ in final])

        expected = difference(moved, x, 2e-4 * max(x, 0.1))
        for (_, slopes), value in zip(final, expected, strict=True):
            close(slopes[k], value, 1e-8)


@pytest.mark.dear
def test_a_bouncing_ball_against_differences(fs):
    assert_sensitivities(fs, program("bouncing_ball"))


def test_an_impact_taken_as_given_is_caught(fs, monkeypatch):
    """If the moment of impact did not depend on the beginning, the comparison would say so."""
    ball = program("bouncing_ball")
    right = ball.time_to_floor
    monkeypatch.setattr(ball, "time_to_floor", lambda *arguments: float(right(*arguments)))
    with pytest.raises(AssertionError):
        assert_sensitivities(fs, ball)


def test_a_ball_in_a_vacuum_has_a_closed_form(fs):
    """Without drag a Runge-Kutta step is exact; one bounce, then free flight."""
    y0, v0, g, bounce, end = 1.5, 0.5, 9.81, 0.8, 1.2
    height, speed, gravity, factor = (fs.Tensor(x) for x in (y0, v0, g, bounce))
    y, v, (impact,) = program("bouncing_ball").simulate(fs, height, speed, gravity, fs.Tensor(0.0), factor, end, 20)
    root = math.sqrt(v0 * v0 + 2 * g * y0)
    t = (v0 + root) / g
    flight = end - t
    close(float(impact), t, 1e-13)
    close(y.data, bounce * root * flight - g * flight**2 / 2, 1e-12)
    close(v.data, bounce * root - g * flight, 1e-12)
    y.backward()
    by_time = -bounce * root + g * flight  # of the height at the end, by the moment of impact
    close(factor.grad, root * flight, 1e-12)
    close(height.grad, bounce * g / root * flight + by_time / root, 1e-12)
    close(speed.grad, bounce * v0 / root * flight + by_time * (1 + v0 / root) / g, 1e-12)
    by_gravity = -(flight**2) / 2 + bounce * y0 / root * flight + by_time * (y0 / root / g - t / g)
    close(gravity.grad, by_gravity, 1e-12)


# --- every pair of operand types ---------------------------------------------------------------------

NUMBERS = {
    "int": (3, -2, 0),
    "float": (2.5, -0.75, -0.0),
    "bool": (True, False),
    "Fraction": (Fraction(7, 4), Fraction(-1, 3)),
    "np.float64": (np.float64(0.3), np.float64(-1.5)),
    "np.float32": (np.float32(1.1), np.float32(-0.7)),
    "np.int64": (np.int64(2), np.int64(-3)),
    "np.bool_": (np.bool_(True), np.bool_(False)),
    "Tensor": (1.25, -3.0, 0.0),
}
ARITHMETIC = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.mod, operator.floordiv,
]  # fmt: skip
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


def operands(fs, kind):
    return [fs.Tensor(x) for x in NUMBERS[kind]] if kind == "Tensor" else NUMBERS[kind]


def on_floats(op, a, b):
    """What Python's floats give, but a complex result is the error that it is here."""
    result = op(a, b)
    if isinstance(result, complex):
        raise ValueError
    return result


def outcome(f, *values):
    try:
        return f(*values)
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        return type(error)


@pytest.mark.parametrize("right", NUMBERS)
@pytest.mark.parametrize("left", NUMBERS)
def test_every_pair_of_operand_types(fs, left, right):
    """(left op Tensor) op right, and left op (Tensor op right).

    The value is that of floats, the result a Tensor, the gradient that of the same program with nothing but Tensors.
    """
    programs = [lambda op, a, t, b: op(op(a, t), b), lambda op, a, t, b: op(a, op(t, b))]
    cases = itertools.product(programs, ARITHMETIC, operands(fs, left), (2.25, -2.0), operands(fs, right))
    compared = 0
    for f, op, a, x, b in cases:
        where = op.__name__, a, x, b
        t = fs.Tensor(x)
        expected = outcome(f, partial(on_floats, op), float(a), x, float(b))
        if isinstance(expected, type):
            assert outcome(f, op, a, t, b) is expected, where
            continue
        result = f(op, a, t, b)
        assert type(result) is fs.Tensor
        assert repr(result.data) == repr(expected), where
        result.backward()
        leaves = [fs.Tensor(float(v)) for v in (a, t, b)]
        f(op, *leaves).backward()
        assert repr(t.grad) == repr(leaves[1].grad), where
        compared += 1
    assert compared >= 50


@pytest.mark.parametrize("kind", NUMBERS)
def test_comparisons_give_the_bool_of_the_floats(fs, kind):
    for operation in COMPARISONS:
        for a in operands(fs, kind):
            for x in (2.25, float(a), -3.0):
                for pair in ((a, fs.Tensor(x)), (fs.Tensor(x), a)):
                    result = operation(*pair)
                    assert type(result) is bool or (NUMPY_1 and isinstance(result, np.bool_))
                    exact = [y if isinstance(y, Fraction) else float(y) for y in pair]  # no Fraction is rounded
                    assert result == operation(*exact), (operation, pair)


@pytest.mark.parametrize("kind", NUMBERS)
def test_operators_in_place_make_new_tensors(fs, kind):
    for operation in (operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow):
        before = t = fs.Tensor(2.25)
        b = operands(fs, kind)[0]
        t = operation(t, b)
        assert type(t) is fs.Tensor
        assert t is not before
        assert (before.data, t.data) == (2.25, operation(2.25, float(b)))
        t.backward()
        assert before.grad != 0.0


def test_every_program_is_tested():
    text = pathlib.Path(__file__).read_text()
    paths = list(FOLDER.glob("*.py"))
    assert len(paths) == 7
    for path in paths:
        assert f'"{path.stem}"' in text, path.name
