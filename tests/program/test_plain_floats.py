"""What a function computes of whole numbers alone is a float in the plain call: however it asks, a program says so."""

import functools
import json
import operator
import random

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math

K = np.array([3, 0, -1, 5, 3, 2])
J = np.array([2, 1, 4, -3, 2, 7])
X = np.linspace(-1.0, 1.0, len(K))
SIXTEENTHS = {n / 16: float(n) for n in range(-400, 400)}
KEPT = frozenset(SIXTEENTHS)


def matched(v):
    match v:
        case fs.Tensor():
            return 1.0
        case float():
            return 2.0
        case int():
            return 3.0
    return 4.0


def length_of_text(v):
    return float(len(str(v)))


@functools.singledispatch
def dispatched(v):
    return 1.0


@dispatched.register
def _(v: float):
    return 2.0


def decoded(v):
    return float(len(json.dumps([v])))


# What is asked of a number, as a number.  Each has names and instructions of its own.
QUESTIONS = {
    "isinstance float": lambda v: 1.0 if isinstance(v, float) else 0.0,
    "isinstance Tensor": lambda v: 1.0 if isinstance(v, fs.Tensor) else 0.0,
    "isinstance of several": lambda v: 1.0 if isinstance(v, (str, float)) else 0.0,
    "match": matched,
    "hasattr": lambda v: 1.0 if hasattr(v, "is_integer") else 0.0,
    "getattr": lambda v: 1.0 if getattr(v, "backward", None) is None else 0.0,
    "class": lambda v: float(len(v.__class__.__name__)),
    "type": lambda v: float(len(type(v).__name__)),
    "str": length_of_text,
    "repr": lambda v: float(len(repr(v))),
    "f-string": lambda v: float(len(f"<{v}>")),
    "f-string !r": lambda v: float(len(f"<{v!r}>")),
    "format": lambda v: float(len(f"{v:.3f}")),
    "str.format": lambda v: float(len("<{}>".format(v))),  # noqa: UP032
    "dictionary": lambda v: SIXTEENTHS.get(v, 77.0),
    "subscript": lambda v: SIXTEENTHS[v] if -20 < v < 20 and v % 0.0625 == 0 else 0.5,
    "set": lambda v: 1.0 if v in KEPT else 0.0,
    "own set": lambda v: float(len({v, v + 1, 0.75, 1, 2.5})),
    "hash": lambda v: float(hash(v) % 1000),
    "as_integer_ratio": lambda v: float(v.as_integer_ratio()[1] % 1000),
    "is_integer": lambda v: 1.0 if v.is_integer() else 0.0,
    "hex": lambda v: float(len(v.hex())),
    "singledispatch": lambda v: dispatched(v),
    "json": decoded,
    "isscalar": lambda v: float(np.isscalar(v)),
    "dtype": lambda v: float(np.array([v]).dtype == float),
}

# What gives a float of whole numbers.
FLOATS = {
    "k / 4": lambda k, j: k / 4,
    "1 / k": lambda k, j: 1 / k,
    "k / j": lambda k, j: k / j,
    "k * 0.5": lambda k, j: k * 0.5,
    "0.25 + k": lambda k, j: 0.25 + k,
    "k - 0.5": lambda k, j: k - 0.5,
    "2 ** -k": lambda k, j: 2.0**k,
    "k ** 0.5": lambda k, j: abs(k) ** 0.5,
    "k // 0.5": lambda k, j: k // 0.5,
    "k % 0.75": lambda k, j: k % 0.75,
    "divmod": lambda k, j: divmod(k, 0.75)[1],
    "a float of floats": lambda k, j: (k / 4 + j / 8) * (k / 2),
    "beside NumPy's": lambda k, j: float(k * np.float64(0.5)),
    "math.sin": lambda k, j: math.sin(k),
    "math.sqrt": lambda k, j: math.sqrt(abs(k)),
    "math.hypot": lambda k, j: math.hypot(k, j),
    "math.atan2": lambda k, j: math.atan2(k, 2.5),
    "math.pow": lambda k, j: math.pow(2.0, k),
    "math.fsum": lambda k, j: math.fsum([k, j, 0.5]),
    "fs.maximum": lambda k, j: fs.maximum(k, 0.5),
    "fs.minimum": lambda k, j: fs.minimum(k, j),
    "fs.sigmoid": lambda k, j: fs.sigmoid(k),
    "fs.clip": lambda k, j: fs.clip(k, -0.5, 2.5),
    "fs.leaky_relu": lambda k, j: fs.leaky_relu(k, 0.25),
    "operator": lambda k, j: operator.truediv(k, 8),
    "sum": lambda k, j: sum([k, 0.5, j / 2]),
    "a bool": lambda k, j: (k > 1) / 4,
    "an argmax": lambda k, j: fs.argmax([k, j, 0.5]) / 4,
    "round": lambda k, j: round(k / 3, 2),
    "abs": lambda k, j: abs(k / 4),
    "minus": lambda k, j: -(k / 4),
    "float": lambda k, j: float(k) / 4,
    "max": lambda k, j: max(k / 4, j / 4),
}


def plain(f, *columns):
    found = []
    for x, *whole in zip(*columns, strict=True):
        try:
            found.append(float(f(fs.Tensor(x), *map(int, whole))))
        except Exception as error:
            found.append(type(error))
    return found


def compiled(f, *columns):
    """Row by row, as one that raises ends a call, and all at once where none does."""
    program, found = fs.compile(f), []
    for row in zip(*columns, strict=True):
        try:
            found.append(float(program.map(*(np.array([v]) for v in row))[0]))
        except Exception as error:
            found.append(type(error))
    if not any(isinstance(v, type) for v in found):
        assert fs.compile(f).map(*columns).tolist() == found
    return found


PAIRS = [(n, q) for i, n in enumerate(FLOATS) for j, q in enumerate(QUESTIONS) if (i + j) % 3 == 0]


@pytest.mark.parametrize(("number", "question"), PAIRS)
def test_a_float_of_whole_numbers_is_one(number, question):
    made, asks = FLOATS[number], QUESTIONS[question]

    def f(x, k, j):
        return x + asks(made(k, j))

    assert compiled(f, X, K, J) == plain(f, X, K, J)


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_a_tensor_has_a_part_in_is_a_tensor(question):
    asks = QUESTIONS[question]

    def f(x, k, j):
        return asks(k / 4 + 0.0 * x) if question not in ("hash", "own set", "dictionary", "set", "subscript") else x

    assert compiled(f, X, K, J) == plain(f, X, K, J)


BINARY = (operator.add, operator.sub, operator.mul, operator.truediv, fs.maximum, math.hypot, operator.mod)
UNARY = (operator.neg, abs, math.sin, math.atan, fs.sigmoid, math.floor, round, math.expm1)


def random_number(rng, depth):
    """A function of k and j, of whole numbers and constants alone."""
    kind = rng.random()
    if depth == 0 or kind < 0.2:
        constant = rng.choice([2, 0.5, -0.75, 3])
        return rng.choice([lambda k, j: k, lambda k, j: j, lambda k, j: constant])
    if kind < 0.7:
        op, a, b = rng.choice(BINARY), random_number(rng, depth - 1), random_number(rng, depth - 1)
        return lambda k, j: op(a(k, j), b(k, j))
    if kind < 0.8:
        a, b, c = (random_number(rng, depth - 1) for _ in range(3))
        return lambda k, j: b(k, j) if a(k, j) > 0.3 else c(k, j)
    op, a = rng.choice(UNARY), random_number(rng, depth - 1)
    return lambda k, j: op(a(k, j))


@pytest.mark.parametrize("seed", range(60))
def test_random_numbers(seed):
    rng = random.Random(seed)
    made = random_number(rng, 4)
    asks = QUESTIONS[rng.choice(sorted(set(QUESTIONS) - {"hash"}))]

    def f(x, k, j):
        return x * asks(made(k, j))

    assert compiled(f, X, K, J) == plain(f, X, K, J)


def test_where_nobody_asks_it_is_a_number_of_the_row():
    many = fs.compile(lambda x, k: x * (k / 4) + math.sin(k))
    many.map(np.ones(1000), np.arange(1000))
    assert len(many._specializations()) == 1


def test_inside_of_a_loop():
    def f(x, n):
        return fs.loop(3, lambda state: state + (0.5 if isinstance(n / 4, float) else 100.0), x)

    assert compiled(f, X, K) == plain(f, X, K)


def test_of_the_number_of_a_step():
    def f(x, n):
        return fs.loop(4, lambda i, state: state + (i / 4 if isinstance(i / 4, float) else 100.0) * n, x)

    assert compiled(f, X, K) == plain(f, X, K)
