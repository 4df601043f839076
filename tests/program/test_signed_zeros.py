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
