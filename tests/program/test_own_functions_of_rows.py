"""Operations of one's own in programs: called once for many rows only where each row gets what it gets alone."""

import math

import numpy as np
import pytest

import fastscalar as fs


def in_place(a):
    before = a
    a += np.float64(1.0)
    return before * a


def caught(a):
    try:
        return np.exp(float(a))
    except TypeError:
        return 1.0


def caught_division(a):
    try:
        return np.float64(2.0) * (1.0 / a)
    except ZeroDivisionError:
        return 7.0


def hidden(a):
    return np.float64(3.0) if hasattr(a, "shape") else np.sqrt(a)


def text(a):
    return np.float64(len(str(a)))


def typed(a):
    return np.square(a) if isinstance(a, float) else np.float64(0.0)


def float32(a):
    return a * np.float32(0.1) + 0.0 * np.spacing(a)


def key(a):
    return np.float64({2.0: 3.0}.get(a, 4.0))


# Each with its first batch, where nothing shows, and a second.
FUNCTIONS = {
    "all": (lambda a: np.float64(a * a if np.all(a < 5) else a), [1.0, 2.0, 3.0], [1.0, 2.0, 7.0]),
    "any": (lambda a: np.where(np.any(a > 5), 1.0, 2.0) * a, [1.0, 2.0, 3.0], [1.0, 2.0, 7.0]),
    "maximum of all": (lambda a: np.exp(a) / np.max(np.exp(a)), [2.0, 2.0, 2.0], [1.0, 2.0, 3.0]),
    "sum": (lambda a: np.add.reduce(np.atleast_1d(a)) + np.exp(0.0), [0.0, 0.0], [1.0, 2.0]),
    "mean": (lambda a: a - np.mean(a), [1.0, 1.0], [1.0, 2.0]),
    "cumulated": (lambda a: np.cumsum(a)[-1], [0.0, 0.0], [1.0, 2.0]),
    "truths added": (lambda a: (a > 1) + (a > 2) + np.float64(0.0), [0.0, 1.0, 1.5], [1.0, 2.0, 7.0]),
    "truths of numpy added": (lambda a: (np.exp(a) > 3) + (np.exp(a) > 9), [0.0, 1.0, 1.5], [1.0, 2.0, 7.0]),
    "truths added up": (lambda a: 1.0 * ((a > 1) + True), [0.0, 0.5], [1.0, 2.0, 7.0]),
    "a truth inverted": (lambda a: np.float64(~(a > 1)), [0.0, 0.5], [1.0, 2.0]),
    "exponent of a truth": (lambda a: np.exp(a > 1), [0.0, 0.5], [1.0, 2.0]),
    "in place": (in_place, [1.0, 2.0], [3.0, 4.0]),
    "zero divides": (lambda a: 1.0 / (1.0 / a) * np.exp(0.0), [1.0, 2.0], [1.0, 0.0]),
    "zero divides, looked at": (lambda a: np.minimum(1.0 / a, 5.0) + 1.0, [1.0, 2.0], [1.0, 0.0]),
    "zero divides whole": (lambda a: np.exp(-(1.0 // (a * a))), [1.0, 2.0], [1.0, 0.0]),
    "root of a negative": (lambda a: np.nan_to_num(a**0.5), [1.0, 2.0], [1.0, -1.0]),
    "overflowing power": (lambda a: np.exp(-(10.0 ** (a * 100.0))), [1.0, 2.0], [1.0, 5.0]),
    "caught": (caught, [0.0, 0.0], [1.0, 2.0]),
    "caught division": (caught_division, [1.0, 2.0], [1.0, 0.0]),
    "single precision": (float32, [0.0, 0.0], [1.0, 3.0]),
    "hidden": (hidden, [9.0, 9.0], [1.0, 4.0]),
    "text": (text, [1.0, 2.0], [1.0, 1.0625]),
    "key": (key, [1.0, 5.0], [1.0, 2.0]),
    "if": (lambda a: np.exp(a) if a > 2 else np.float64(0.0), [0.0, 1.0], [1.0, 3.0]),
    "a list": (lambda a: np.float64(a in (2.0, 3.0)), [0.0, 1.0], [1.0, 3.0]),
    "rounded": (lambda a: np.float64(round(a)), [0.0, 1.0], [1.3, 2.6]),
    "an array beside it": (lambda a: np.sum(a * np.array([1.0, 2.0])), [0.0, 0.0], [1.0, 3.0]),
    "sorted": (lambda a: sorted([a, np.float64(2.0)])[0], [0.0, 1.0], [1.0, 3.0]),
    "integers": (lambda a: np.floor(a) * 2**62 * 4 / 2**60, [0.0, 0.0], [1.0, 3.0]),
}
# One call for all rows, in the first batch and in each later one.
TOGETHER = {
    "operators": lambda a: (a * a - 2.0 * a + 3) / (a + 1.0) ** 2 % 3.0 // 0.5 + abs(-a),
    "ufuncs": lambda a: np.exp(a) + np.maximum(a, 1.5) * np.sign(a) + np.arctan2(a, 2),
    "numbers of numpy": lambda a: np.float64(2.0) * a + np.sqrt(2.0) - a * np.float64(3.0),
    "where": lambda a: np.where(a > 2.0, a, 3.0 * a),
    "where, guarded": lambda a: np.where(a > 2.0, np.log(a - 2.0), 0.5) + np.clip(a, 1.2, 2.5),
    "truths as masks": lambda a: (a > 2.0) * a + (a <= 2.0) * 3.0,
    "truths joined": lambda a: np.where((a > 1.0) & (a < 2.5) | (a == 3.0), 1.0, a),
    "polynomials": lambda a: np.polyval([1.0, 2.0, 3.0], a) + np.interp(a, [1.0, 2.0, 3.0], [4.0, 2.0, 1.0]),
    "typed": typed,
    "a constant": lambda a: np.float64(2.0),
    "parts": lambda a: np.divmod(a, 0.75)[1] + np.sinc(a) + np.ones_like(a),
}


def values(function):
    op = fs.custom_op(function, lambda a: 1.0)
    return fs.compile(lambda a: op(a) * 1.0).map


def derivatives(function):
    op = fs.custom_op(lambda a: math.exp(a), function)
    program = fs.compile(lambda a: op(a) * 1.0)
    return lambda x: program.value_and_grad(x)[1]


OF = {"value": values, "derivative": derivatives}


def outcome(call, x):
    """Values, or what was raised."""
    try:
        with np.errstate(all="ignore"):
            return [float(v) for v in call(x)]
    except (ArithmeticError, TypeError, ValueError) as error:
        return type(error)


def compared(found, wanted):
    if isinstance(wanted, type) or isinstance(found, type):
        assert found is wanted
    else:
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:Casting complex")
@pytest.mark.parametrize("where", ["value", "derivative"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_row_alone(name, where):
    function, *batches = FUNCTIONS[name]
    for batches_in_turn in (batches, batches[::-1]):
        called = OF[where](function)
        for batch in [*batches_in_turn, batches[0] + batches[1]]:
            compared(outcome(called, np.array(batch)), outcome(lambda x: map(function, x.tolist()), np.array(batch)))


@pytest.mark.parametrize("name", TOGETHER)
def test_all_rows_in_one_call(name):
    calls = 0

    def function(a):
        nonlocal calls
        calls += 1
        return TOGETHER[name](a)

    op = fs.custom_op(function, lambda a: 1.0)
    program = fs.compile(lambda a: op(a) * 1.0)
    x = np.linspace(1.0, 3.0, 50)
    with np.errstate(all="ignore"):
        wanted = [float(TOGETHER[name](a)) for a in x.tolist()]
        np.testing.assert_allclose(program.map(x), wanted, rtol=1e-12)
        calls = 0
        for _ in range(3):
            np.testing.assert_allclose(program.map(x), wanted, rtol=1e-12)
    assert calls < 10  # of 150 rows; none, if it is written in operations of Tensors


def test_what_a_first_batch_cannot_do_together_a_later_one_can():
    """One row that raises, or has no finite result, says nothing of the function."""
    calls = 0

    def function(a):
        nonlocal calls
        calls += 1
        return np.float64(2.0) / np.maximum(a, 0.0)

    op = fs.custom_op(function, lambda a: 1.0)
    program = fs.compile(lambda a: op(a) * 1.0)
    with np.errstate(all="ignore"):
        assert program.map(np.array([1.0, 0.0, -1.0])).tolist() == [2.0, math.inf, math.inf]
    calls = 0
    assert program.map(np.linspace(1.0, 2.0, 500)).tolist() == (2.0 / np.linspace(1.0, 2.0, 500)).tolist()
    assert calls < 50
