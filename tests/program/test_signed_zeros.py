"""The sign of a zero is that of the plain call, however many rows there are and wherever the zero comes from."""

from __future__ import annotations

import math as python

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math

COUNTS = [1, 2, 3, 8, 130]
ZEROS = [0.0, -0.0]
LEAF = fs.Tensor(-0.0)
FROM = {
    "a constant": lambda x, zero: zero,
    "a leaf": lambda x, zero: LEAF if python.copysign(1.0, zero) < 0.0 else -LEAF,
    "a number that is read": lambda x, zero: x.data * zero,
    "the row": lambda x, zero: x * zero,
}
OPERATIONS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "minimum": fs.minimum, "maximum": fs.maximum, "copysign": math.copysign, "atan2": math.atan2,
    "fmod": math.fmod, "sum of three": lambda a, b: a - a + b - 0.0, "%": lambda a, b: a % b,
    "sum of products": lambda a, b: a * b + a * b + a * b, "where": lambda a, b: fs.where(a < b, a, b),
    "square": lambda a, b: -(a * a) * abs(b), "fs.sum": lambda a, b: fs.sum([a, a, -0.0 * b]),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("source", FROM)
def test_the_sign_of_a_zero(source, name):
    def f(x, y, zero):
        a = FROM[source](x, zero)
        return tuple(OPERATIONS[name](*pair) for pair in ((a, y), (y + 1.0, 1.5 + abs(a)), (a, 1.5 + y)))

    for zero in ZEROS:
        for n in COUNTS:
            x, y = np.full(n, 2.0), np.linspace(1.0, 2.0, n)
            found = np.stack(fs.compile(lambda x, y, zero=zero: f(x, y, zero)).map(x, y), axis=1)
            plain = [[fs.Tensor(r).data for r in f(fs.Tensor(2.0), fs.Tensor(b), zero)] for b in y.tolist()]
            assert np.signbit(found).tolist() == np.signbit(plain).tolist()


def test_an_angle_that_a_zero_decides():
    program = fs.compile(lambda y: math.atan2(-0.0 * y, -1.0))
    for n in COUNTS:
        assert program.map(np.ones(n)) == pytest.approx(np.full(n, -np.pi))


@pytest.mark.parametrize("read", [lambda x: len(str(float(x))), lambda x: python.copysign(2.0, float(x))])
def test_recordings_of_a_number_that_was_read_hold_for_its_sign(read):
    """Those of several whole numbers become one: it held for both signs, and gave one of them the other's value."""
    def f(k, x):
        s, n = x * 0.5, read(x)
        for _ in range(k % 3):
            s = s + n
        return s + n

    k, x = np.array([2, 2, 1, 1, 2, 4]), np.array([-0.0, 0.0, 0.0, -0.0, 0.0, -0.0])
    right = [float(f(int(i), fs.Tensor(v))) for i, v in zip(k, x, strict=True)]
    program = fs.compile(f)
    for order in (slice(None), slice(None, None, -1), [3, 0, 5, 1, 2, 4]):
        assert program.map(k[order], x[order]).tolist() == np.array(right)[order].tolist()


READ_BEFORE_A_LOOP = {
    "the sign": lambda x: python.copysign(1.0, float(x)) if x == x else 7.0,
    "the text": lambda x: float(len(str(x.data))),
}
STEPS_OF_A_LOOP = {
    "a branch": lambda k, x, s: lambda t: t * 0.99 + k * s if t < s else t * 0.5 - k,
    "the constant": lambda k, x, s: lambda t: fs.where(t < s, t * 0.9, t * 0.8 - s) * 1.0 + python.copysign(0.0, k),
    "a loop in it": lambda k, x, s: lambda t: fs.loop(66, lambda u: u * 0.99 + k if u < s else u * 0.98, t),
    "a zero that is divided by": lambda k, x, s: lambda t: t * 0.5 if t > s else math.atan2(x * 0.0, -1.0) + t * 0.1,
}


@pytest.mark.dear
@pytest.mark.parametrize("read", READ_BEFORE_A_LOOP)
@pytest.mark.parametrize("step", STEPS_OF_A_LOOP)
def test_recordings_that_differ_in_the_bodies_of_a_loop_become_one_only_where_they_read_the_same(read, step):
    """Several ways through a step make recordings that are taken together: not those of 0.0 and -0.0, nor of NaN."""
    def f(x, s):
        return fs.loop(67, STEPS_OF_A_LOOP[step](READ_BEFORE_A_LOOP[read](x), x, s), s * 1.0)

    x = np.array([0.0, -0.0, np.nan, -0.0, 0.0, 1.0, -np.nan, -1.0])
    s = np.array([0.3, 2.0, 5.0, -20.0, -1.0, 0.7, 9.0, 50.0])
    right = np.array([float(f(fs.Tensor(v), fs.Tensor(w))) for v, w in zip(x.tolist(), s.tolist(), strict=True)])
    for order in (np.arange(8), np.array([3, 0, 1, 4, 6, 2, 7, 5])):
        program = fs.compile(f)
        for _ in range(2):
            assert program.map(x[order], s[order]) == pytest.approx(right[order], rel=1e-12, nan_ok=True)
            assert [program(a, b) for a, b in zip(x[order], s[order], strict=True)] == pytest.approx(
                right[order], rel=1e-12, nan_ok=True
            )


def some_expression(rng, depth):
    """Source of an expression of x and y whose terms cancel, or are zeros, at small whole numbers."""
    if depth == 0 or rng.random() < 0.1:
        return rng.choice(["x", "y", "x", "y", "0.0", "-0.0", "1.0"])
    kind = rng.random()
    if kind < 0.1:
        return f"(-{some_expression(rng, depth - 1)})"
    if kind < 0.2:
        return f"own({some_expression(rng, depth - 1)}, {some_expression(rng, depth - 1)})"
    if kind < 0.25:
        return f"fs.sum([{', '.join(some_expression(rng, depth - 1) for _ in range(3))}])"
    operator = rng.choice(["+", "-", "-", "-", "*"])
    return f"({some_expression(rng, depth - 1)} {operator} {some_expression(rng, depth - 1)})"


own = fs.custom_op(lambda a, b: a * b, lambda a, b: (b, a), name="own")
PAIRS = np.array([[a, b] for a in (0.0, -0.0, 1.0, -1.0) for b in (0.0, -0.0, 1.0, -1.0)])


@pytest.mark.parametrize("seed", range(60))
def test_sums_of_what_cancels(seed):
    """-0.0 - (a - a) is -0.0, which a sum of the three terms is not; and no derivative is -0.0."""
    text = some_expression(np.random.default_rng(seed), 4)
    f = eval(f"lambda x, y: fs.Tensor(1.0) * ({text})", {"fs": fs, "own": own})
    right = [fs.value_and_grad(f, argnums=(0, 1))(x, y) for x, y in PAIRS.tolist()]
    values, slopes = np.array([value for value, _ in right]), np.array([both for _, both in right], dtype=float)
    assert not np.signbit(slopes[slopes == 0.0]).any(), text
    program, x, y = fs.compile(f), *PAIRS.T.copy()
    found, by = program.value_and_grad(x, y, argnums=(0, 1))
    for got in (program.map(x, y), found, [program(a, b) for a, b in PAIRS.tolist()]):
        assert np.array(got) == pytest.approx(values, rel=1e-12, abs=1e-12)
        assert np.signbit(got).tolist() == np.signbit(values).tolist(), text
    derived = fs.compile(fs.grad(f, argnums=(0, 1))).map(x, y)
    plainly = [fs.grad(lambda a, b: fs.grad(f)(a, b) + 0.0 * a, argnums=(0, 1))(a, b) for a, b in PAIRS.tolist()]
    for got in (np.stack(by, axis=1), np.stack(derived, axis=1)):
        assert got == pytest.approx(slopes, rel=1e-12, abs=1e-12)
        assert np.signbit(got).tolist() == np.signbit(slopes).tolist(), text
    assert not np.signbit(np.array(plainly)[np.array(plainly) == 0.0]).any(), text
