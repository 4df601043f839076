"""The kernels of element-wise array operations: the same bits on every set, wherever an element lies."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from operations import BY_SERIES, ROWS, operation

SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -2.5, 1e-310, 5e-324, 1e22, -746.0, 710.0, 1e300, math.inf, -math.inf,
           math.nan]  # fmt: skip
DRAWN = np.random.default_rng(0).normal(0.0, 3.0, 236)
POINTS = np.concatenate([SPECIAL, DRAWN, np.abs(DRAWN), DRAWN / 100.0])
NAMES = [name for name in ROWS if name not in ("polygamma", "send")]


def value(name: str, x: np.ndarray) -> np.ndarray:
    second = [fs.to_tensor(np.roll(x, 3))] if ROWS[name][1] == 2 else []
    return operation(name)(fs.to_tensor(x), *second).numpy()


@pytest.fixture
def sets() -> Iterator[list[str]]:
    before = _core.tape_info()["kernels"]
    yield _core.kernel_sets()
    _core._select_kernels(before)


@pytest.mark.parametrize("name", NAMES)
def test_every_set_gives_the_same_bits(name: str, sets: list[str]) -> None:
    found = {}
    for which in sets:
        _core._select_kernels(which)
        found[which] = value(name, POINTS)
    for which, values in found.items():
        assert np.array_equal(values, found["baseline"], equal_nan=True), which
        assert np.array_equal(np.signbit(values), np.signbit(found["baseline"])) or np.isnan(values).any(), which


@pytest.mark.parametrize("name", NAMES)
def test_the_bits_of_an_element_do_not_depend_on_where_it_lies(name: str) -> None:
    second = [fs.to_tensor(np.roll(POINTS, 3))] if ROWS[name][1] == 2 else []
    x, f = fs.to_tensor(POINTS), operation(name)
    whole = f(x, *second).numpy()
    for key in (slice(1, None), slice(None, None, -1), slice(2, None, 7), slice(5, 6), slice(-3, None)):
        assert np.array_equal(f(x[key], *[y[key] for y in second]).numpy(), whole[key], equal_nan=True), key
    if second:
        anywhere = f(x, [fs.Tensor(v) for v in np.roll(POINTS, 3)])
        assert np.array_equal(anywhere.numpy(), whole, equal_nan=True)
    table = f(x[: 16 * 45].reshape(16, 45).T, *[y[: 16 * 45].reshape(16, 45).T for y in second]).numpy()
    assert np.array_equal(table, whole[: 16 * 45].reshape(16, 45).T, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_an_element_is_as_a_scalar_to_the_stated_rounding(name: str) -> None:
    array = value(name, POINTS)
    for k, (found, x) in enumerate(zip(array, POINTS, strict=True)):
        operands = [x, np.roll(POINTS, 3)[k]][: ROWS[name][1]]
        try:
            single = operation(name)(*map(fs.Tensor, map(float, operands))).data
        except (ArithmeticError, ValueError):
            continue
        if math.isnan(single) or math.isinf(single):
            assert np.array_equal(found, single, equal_nan=True), (name, operands)
        elif abs(single) > 1e-290:
            assert abs(found - single) <= BY_SERIES.get(name, 0) * math.ulp(single), (name, operands)


@pytest.mark.parametrize("power", [2, 3, 4, 2.0])
def test_small_powers_are_products(power: float) -> None:
    x = fs.to_tensor(POINTS)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        square = POINTS * POINTS
        products = {2: square, 3: square * POINTS, 4: square * square}
    assert np.array_equal((x**power).numpy(), products[int(power)], equal_nan=True)
    assert (fs.to_tensor([2.0, 3.0, -5.0]) ** power).tolist() == [v ** int(power) for v in (2.0, 3.0, -5.0)]


def test_powers_that_are_numbers_are_exact() -> None:
    """A power is rounded once: 3^2 is 9, and 7^18 what its product is."""
    pairs = [(a, b) for a in range(2, 300) for b in range(5, 53) if a**b < 2**53]
    base, power = (np.array(part, dtype=float) for part in zip(*pairs, strict=True))
    exact = np.array([float(a**b) for a, b in pairs])
    for sign in (1.0, -1.0):
        found = (fs.to_tensor(sign * base) ** fs.to_tensor(power)).numpy()
        assert np.array_equal(found, np.where(power % 2, sign, 1.0) * exact)
    assert np.array_equal((fs.to_tensor(exact * exact) ** 0.5).numpy(), exact)


def test_hypot_of_an_array_is_that_of_python() -> None:
    x, y = DRAWN, np.roll(DRAWN, 7) * np.logspace(-9, 3, len(DRAWN))
    assert fs.to_tensor(x).hypot(fs.to_tensor(y)).tolist() == [math.hypot(*pair) for pair in zip(x, y, strict=True)]


def test_exp_of_an_array_is_nearly_always_that_of_python() -> None:
    x = np.random.default_rng(1).uniform(-20.0, 20.0, 5000)
    found = fs.to_tensor(x).exp().numpy()
    assert np.mean(found == [math.exp(v) for v in x]) > 0.95
    assert fs.to_tensor([0.0, 1.0]).exp().tolist() == [1.0, math.e]
