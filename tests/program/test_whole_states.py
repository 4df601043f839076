"""Whole numbers in the state of a loop: a program has all their digits, as Python has, or raises what it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.program import rolling

X = np.array([0.5, 1.0, -2.0, 3.0])
K = np.array([1, 0, 7, 2**40])


def counted(n: int, step: Any, state: Any) -> Any:
    return fs.loop(n, step, state)


def while_counted(n: int, step: Any, state: Any) -> Any:
    return fs.while_loop(lambda z: z[1] < n, lambda z: (step(z[0]), z[1] + 1), (state, 0))[0]


STEPS = {
    "congruence": lambda z: (z * 1103515245 + 12345) % 2**31,
    "doubles": lambda z: z * 2,
    "doubles by itself": lambda z: z + z,
    "squares": lambda z: z * z % 1_000_003 * 2**40 + 3,
    "powers": lambda z: z**3 % 1_000_003,
    "large steps": lambda z: z + 2**51 + 1,
    "down": lambda z: z * 3 - 2**30,
    "divides": lambda z: (z * 2**45 + 1) // 3 % 2**20,
    "counts": lambda z: z + 1,
}


@pytest.mark.parametrize("of_row", [False, True])
@pytest.mark.parametrize("loop", [counted, while_counted])
@pytest.mark.parametrize("name", STEPS)
def test_digits(name, loop, of_row):
    def f(x, k):
        return x * (loop(70, STEPS[name], k if of_row else 42) % 1_000)

    program = fs.compile(f)
    for some in (slice(0, 1), slice(None), slice(None, None, -1)):
        expected = [f(x, k) for x, k in zip(X[some].tolist(), K[some].tolist(), strict=True)]
        assert program.map(X[some], K[some]).tolist() == expected


@pytest.mark.parametrize("start", [2**53 + 1, 3**60, -(2**64) - 1, 10**300])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_beginning_beyond_what_floats_have(start, steps):
    def f(x):
        z = fs.while_loop(lambda z: z[1] < steps, lambda z: (z[0] - 1, z[1] + 1), (start, 0))[0]
        return x * (z % 1_000)

    assert fs.compile(f).map(X).tolist() == [f(x) for x in X.tolist()]


@pytest.mark.parametrize("loop", [counted, while_counted])
def test_beyond_the_range_of_floats(loop):
    def f(x):
        return x + float(loop(70, lambda z: z * 10**5, 7))

    with pytest.raises(OverflowError, match="row 0: int too large to convert to float"):
        fs.compile(f).map(X)


def test_gradients():
    def f(x, k):
        return fs.loop(70, lambda s: ((s[0] * 69069 + 1) % 2**32, s[1] * x + s[0] * 1e-9), (k, 0.5))[1]

    program = fs.compile(f)
    values, slopes = program.value_and_grad(X * 0.25, K)
    right = [fs.value_and_grad(f)(x, k) for x, k in zip((X * 0.25).tolist(), K.tolist(), strict=True)]
    np.testing.assert_allclose(values, [v for v, _ in right], rtol=1e-14)
    np.testing.assert_allclose(slopes, [d for _, d in right], rtol=1e-13)


@pytest.mark.parametrize("step", [
    lambda z: (z[0] * 0.5 + 1.0, z[1] + 1),
    lambda z: (z[0] + z[1], z[1] + 3),
    lambda z: (z[0] + 1, z[1] + z[0]),
])  # fmt: skip
def test_small_ones_stay_instructions(step, monkeypatch):
    monkeypatch.setattr(rolling, "UNROLLED", 0)

    def f(x):
        return x * fs.loop(1_000, step, (0, 0))[0]

    program = fs.compile(f)
    assert program.map(X).tolist() == [f(x) for x in X.tolist()]
    assert "loop" in program.report()
