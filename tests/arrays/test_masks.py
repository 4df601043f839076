"""A comparison of arrays is NumPy's array of bool in a program too, whatever is done with it and with its elements."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastscalar as fs

ROWS = np.array([[0.5, -0.3, 1.2, -2.0], [1.0, 0.0, -1.0, 2.0], [0.0, -0.0, 0.0, 0.0], [-1.0, 1.5, 0.2, 3.0]])

OPERATIONS = {
    "m + n": lambda m, n: m + n, "m - n": lambda m, n: m - n, "-m": lambda m, n: -m, "~m": lambda m, n: ~m,
    "m * n": lambda m, n: m * n, "m @ n": lambda m, n: m @ n, "m / n": lambda m, n: m / (n + 1.0),
    "m ** 2": lambda m, n: m**2, "m // 2": lambda m, n: m // 2, "m % 2": lambda m, n: m % 2,
    "m < n": lambda m, n: m < n, "m == n": lambda m, n: m == n, "m & n": lambda m, n: m & n,
    "m + True": lambda m, n: m + True, "2 * m - 1": lambda m, n: 2 * m - 1, "1.0 - m": lambda m, n: 1.0 - m,
    "m << 1": lambda m, n: m << 1, "small integers": lambda m, n: m * np.int8(100) * np.int8(2),
    "exp": lambda m, n: np.exp(m), "sqrt": lambda m, n: np.sqrt(m), "dot": lambda m, n: np.dot(m, n),
    "m.dot": lambda m, n: m.dot(n), "maximum": lambda m, n: np.maximum(m, n),
    "outer": lambda m, n: np.add.outer(m, n), "reduce": lambda m, n: np.add.reduce(m),
    "accumulate": lambda m, n: np.add.accumulate(m), "diff": lambda m, n: np.diff(m),
    "cumsum": lambda m, n: m.cumsum(), "prod": lambda m, n: m.prod(),
    "concatenate": lambda m, n: np.concatenate([m, n]) + n[0], "stack": lambda m, n: np.stack((m, n)) + n,
    "where": lambda m, n: np.where(m, n, ~n) + n, "array": lambda m, n: np.array(m) + np.array(n),
    "asarray": lambda m, n: ~np.asarray(m), "copy": lambda m, n: ~m.copy(), "reshape": lambda m, n: ~m.reshape(2, 2),
    "slice": lambda m, n: m[1:] + n[:-1], "mask of a mask": lambda m, n: ~m[n],
    "T": lambda m, n: -1.0 + m.reshape(2, 2).T, "single precision": lambda m, n: m.astype("f4") * 0.1,
    "int8": lambda m, n: m.astype(np.int8) * np.int8(100), "sum": lambda m, n: m.sum(),
    "mean": lambda m, n: np.mean(m), "sum of int8": lambda m, n: m.sum(dtype=np.int8),
    "sum by axis": lambda m, n: m.reshape(2, 2).sum(axis=0), "packbits": lambda m, n: np.packbits(m),
    "bytes": lambda m, n: list(m.tobytes()), "itemsize": lambda m, n: m.itemsize,
    "dtype": lambda m, n: m.dtype == bool, "any": lambda m, n: any(m), "all": lambda m, n: np.all(m),
    "in": lambda m, n: True in m, "set": lambda m, n: len(set(m)), "sum of elements": lambda m, n: sum(m),
    "list": lambda m, n: [b + b for b in m], "text": lambda m, n: len(f"{m} {m!r}"),
    "element": lambda m, n: m[0] + m[1], "~element": lambda m, n: ~m[0], "-element": lambda m, n: -m[0],
    "element - element": lambda m, n: m[0] - m[1], "element @": lambda m, n: m[0] * n[1],
    "a list's": lambda m, n: [1, 2][m[0]],
    "element's type": lambda m, n: [isinstance(m[0], np.bool_), isinstance(m[0], bool), hasattr(m[0], "dtype")],
    "element's text": lambda m, n: len(f"{m[0]} {m[0]!r}"), "negated": lambda m, n: 5.0 if ~m[0] else 7.0,
    "three of power": lambda m, n: pow(int(m[0]), 2, 5), "of a list": lambda m, n: ~np.array([m[0], m[1]]),
}  # fmt: skip


def in_place(m, n):
    same = m
    m &= n
    return same


def written(m, n):
    m[0] = True
    return m[m]


def filled(m, n):
    m.fill(True)
    return m + n


def sorted_(m, n):
    m.sort()
    return m


OPERATIONS |= {f.__name__: f for f in (in_place, written, filled, sorted_)}


def attempted(call):
    """What a call gives, or the text of its TypeError."""
    try:
        return call()
    except TypeError as error:
        return str(error)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_a_mask_is_in_a_program(name):
    operation = OPERATIONS[name]

    def f(v):
        found = np.ravel(np.asarray(operation(v > 0.0, v < 1.0), dtype=object)).tolist()
        return sum(float(b) * (k + 1.0) for k, b in enumerate(found)) * v[0] + len(found)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)         # of NumPy's, in the plain call too
        for rows in (ROWS, ROWS[::-1]):
            expected = attempted(lambda rows=rows: [f(fs.to_tensor(row)).data for row in rows])
            found = attempted(lambda rows=rows: fs.compile(f).map(rows).tolist())
            assert found == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-14))


@pytest.mark.parametrize("use", [lambda m, v: m * v, lambda m, v: v * m, lambda m, v: np.where(m, v, -v),
                                 lambda m, v: (1.0 - m) * v, lambda m, v: (2 * m - 1) * v, lambda m, v: (m @ v) * v,
                                 lambda m, v: fs.where(m[0], v, v * 2.0), lambda m, v: m.sum() * v])  # fmt: skip
def test_what_is_no_decision(use):
    program = fs.compile(lambda v: use(v > 0.0, v).sum() + v[0])
    program.map(ROWS)
    assert len(program.report().splitlines()) == 1
    assert program.map(ROWS).tolist() == pytest.approx(
        [(use(v > 0.0, fs.to_tensor(v)).sum() + v[0]).data for v in ROWS], rel=1e-14
    )


SIGNED = np.array([0.0, -0.0, np.nan, -np.nan, 5e-324, -5e-324, np.inf, -np.inf])


def test_the_sign_bit_of_a_number():
    slopes = fs.compile(lambda x: x * 2.0 if np.signbit(x) else x * 3.0).value_and_grad(SIGNED)[1]
    assert slopes.tolist() == np.where(np.signbit(SIGNED), 2.0, 3.0).tolist()


def test_the_sign_bits_of_an_array():
    rows = np.stack([SIGNED, -SIGNED, SIGNED[::-1]], axis=1)
    found = fs.compile(lambda v: np.where(np.signbit(v), 1.0, 2.0)).map(rows)
    assert found.tolist() == np.where(np.signbit(rows), 1.0, 2.0).tolist()
