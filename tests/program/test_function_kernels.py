"""The functions of programs: kernels for vectors, held against Python's `math`, NumPy, mpmath and the engine."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.program import _lower, _replay

Points = list[np.ndarray]
N = 400
RNG = np.random.default_rng(0)


def available(name: str) -> bool:
    try:
        _replay._apply_kernel(name, 0, np.empty(1), np.ones(1), np.ones(1))
    except ValueError:
        return False
    return True


SETS = [name for name in ("baseline", "avx2", "avx512") if available(name)]


def between(low: float, high: float) -> np.ndarray:
    return RNG.uniform(low, high, N)


def sizes(low: float, high: float, signs: bool = True) -> np.ndarray:
    """Of every order of magnitude."""
    x = np.exp(RNG.uniform(math.log(low), math.log(high), N))
    return x * RNG.choice([-1.0, 1.0], N) if signs else x


def sigmoid(x: float) -> float:
    e = math.exp(-abs(x))
    return 1.0 / (1.0 + e) if x >= 0 else e / (1.0 + e)


def each(f: Callable[..., float]) -> Callable[..., Any]:
    return np.vectorize(f, otypes=[float])


def ndtr(x: float) -> float:
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


near_one = 1.0 + sizes(1e-16, 0.5)
above_minus_one = -1.0 + sizes(1e-16, 0.5, signs=False)
quarters = np.round(between(-1e5, 1e5)) * (math.pi / 2)
positive = [sizes(1e-300, 1e300, signs=False), between(0.5, 2.0), near_one, sizes(5e-324, 1e-307, signs=False)]
unit = [between(-1.0, 1.0), sizes(1e-20, 1.0), 1.0 - sizes(1e-16, 0.5, signs=False), between(-0.55, -0.45)]

# What gives the value, independently; where it is asked; the name of mpmath's function, or the function by them.
UNARY: dict[str, tuple[Any, Points, Any]] = {
    "exp": (np.exp, [between(-708, 709), sizes(1e-20, 10)], "exp"),
    "exp2": (np.exp2, [between(-1022, 1023), sizes(1e-20, 10)], lambda m, x: m.mpf(2) ** x),
    "expm1": (np.expm1, [between(-50, 709), sizes(1e-20, 10), between(-2, 2)], "expm1"),
    "log": (np.log, positive, "log"),
    "log2": (np.log2, positive, lambda m, x: m.log(x, 2)),
    "log10": (np.log10, positive, "log10"),
    "log1p": (np.log1p, [*positive[:1], between(-1, 2), sizes(1e-20, 0.9), above_minus_one], "log1p"),
    "sin": (np.sin, [between(-10, 10), sizes(1e-10, 1e6), quarters, sizes(1e6, 1e300)], "sin"),
    "cos": (np.cos, [between(-10, 10), sizes(1e-10, 1e6), quarters, sizes(1e6, 1e300)], "cos"),
    "tan": (np.tan, [between(-10, 10), sizes(1e-10, 1e6), quarters, sizes(1e6, 1e300)], "tan"),
    "asin": (np.arcsin, unit, "asin"),
    "acos": (np.arccos, unit, "acos"),
    "atan": (np.arctan, [between(-3, 3), sizes(1e-20, 1e20)], "atan"),
    "sinh": (np.sinh, [between(-709, 709), sizes(1e-20, 10)], "sinh"),
    "cosh": (np.cosh, [between(-709, 709), sizes(1e-20, 10)], "cosh"),
    "tanh": (np.tanh, [between(-3, 3), sizes(1e-20, 30)], "tanh"),
    "asinh": (np.arcsinh, [between(-3, 3), sizes(1e-20, 1e300)], "asinh"),
    "acosh": (np.arccosh, [1 + sizes(1e-15, 1e200, signs=False), between(1, 3)], "acosh"),
    "atanh": (np.arctanh, unit, "atanh"),
    "erf": (each(math.erf), [between(-7, 7), sizes(1e-20, 3), between(0.9, 1.1)], "erf"),
    "erfc": (each(math.erfc), [between(-7, 26.5), sizes(1e-20, 3), sizes(1e-3, 26, signs=False)], "erfc"),
    "ndtr": (each(ndtr), [between(-37, 9), sizes(1e-20, 3)], lambda m, x: m.erfc(-x / m.sqrt(2)) / 2),
    "sigmoid": (each(sigmoid), [between(-700, 50), between(-3, 3)], lambda m, x: 1 / (1 + m.exp(-x))),
    "softplus": (
        lambda x: np.logaddexp(0, x),
        [between(-700, 50), between(-3, 3)],
        lambda m, x: m.log1p(m.exp(x)),
    ),
    "silu": (each(lambda x: x * sigmoid(x)), [between(-700, 50), between(-3, 3)], lambda m, x: x / (1 + m.exp(-x))),
    "gelu": (
        each(lambda x: x * ndtr(x)),
        [between(-37, 9), between(-3, 3)],
        lambda m, x: x * m.erfc(-x / m.sqrt(2)) / 2,
    ),
    "cbrt": (np.cbrt, [sizes(1e-300, 1e300), between(-8, 8)], lambda m, x: m.sign(x) * m.cbrt(abs(x))),
}
BINARY: dict[str, tuple[Any, list[tuple[np.ndarray, np.ndarray]], str]] = {
    "**": (
        np.power,
        [
            (sizes(1e-3, 1e3, signs=False), between(-30, 30)),
            (near_one, sizes(1, 1e3)),
            (positive[0], between(-1, 1)),
            (between(-9, 0), np.round(between(-20, 20))),
        ],
        "power",
    ),
    "atan2": (np.arctan2, [(between(-3, 3), between(-3, 3)), (sizes(1e-300, 1e300), sizes(1e-300, 1e300))], "atan2"),
    "hypot": (np.hypot, [(between(-3, 3), between(-3, 3)), (sizes(1e-300, 1e300), sizes(1e-300, 1e300))], "hypot"),
}
EDGES = [5e-324, -5e-324, 2.2250738585072014e-308, 1e308, -1e308, math.inf, -math.inf, math.nan]
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 710.0, -746.0, 1e22, -1e3 - 1, 1e16, 1100.0, *EDGES])


def kernel(name: str) -> int:
    op = _lower._kernel(name)
    if op < 0:
        pytest.skip("this compiler has no vectors of its own: programs call the C library")
    return op


def apply(kernels: str, name: str, a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    out = np.empty_like(a)
    _replay._apply_kernel(kernels, kernel(name), out, a, b)
    return out


def ulps(y: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """By how many of their last places finite numbers differ; infinite if one is not finite and the other is."""
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(y - expected) / np.spacing(np.abs(expected))
    same = (y == expected) | (np.isnan(y) & np.isnan(expected))
    return np.where(same, 0.0, np.where(np.isfinite(off), off, np.inf))


def cases() -> list[Any]:
    return [(name, f, [(x,) for x in points], truth) for name, (f, points, truth) in UNARY.items()] + [
        (name, f, points, truth) for name, (f, points, truth) in BINARY.items()
    ]


def ids(case: Any) -> str | None:
    return case if isinstance(case, str) else ""


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize(("name", "f", "points", "truth"), cases(), ids=ids)
def test_values_are_those_of_the_libraries(kernels: str, name: str, f: Any, points: Any, truth: Any) -> None:
    """Within 4 ulp of the function; the others are some ulp off themselves, and round where they take arguments
    apart: ndtr and what is made of it by x * sqrt(1/2)."""
    for operands in points:
        with np.errstate(all="ignore"):
            expected = f(*operands)
        limit = 8 + (2 * operands[0] ** 2 if name in ("ndtr", "gelu") else 0)
        assert (ulps(apply(kernels, name, *operands), expected) <= limit).all()


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize(("name", "f", "points", "truth"), cases(), ids=ids)
def test_values_within_four_ulp(kernels: str, name: str, f: Any, points: Any, truth: Any) -> None:
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workprec(160):
        for operands in points:
            y = apply(kernels, name, *operands)
            for i in range(0, N, 2):
                xs = [mpmath.mpf(float(x[i])) for x in operands]
                exact = mpmath.re(getattr(mpmath, truth)(*xs) if isinstance(truth, str) else truth(mpmath, *xs))
                if 2.3e-308 < abs(exact) < 1.7e308:
                    off = abs(mpmath.mpf(float(y[i])) - exact) / float(np.spacing(abs(float(exact))))
                    assert off <= 4, (operands[0][i], y[i])


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize(("name", "f", "points", "truth"), cases(), ids=ids)
def test_special_points(kernels: str, name: str, f: Any, points: Any, truth: Any) -> None:
    """Zeros and their signs, infinities, NaN, what over- and underflows."""
    if name in UNARY:
        operands: tuple[np.ndarray, ...] = (SPECIAL,)
    else:
        operands = np.repeat(SPECIAL, len(SPECIAL)), np.tile(SPECIAL, len(SPECIAL))
    with np.errstate(all="ignore"):
        expected = f(*operands) if name not in ("silu", "gelu") else np.where(SPECIAL < -1e3, -0.0, f(*operands))
        expected = np.where(operands[0] == math.inf, math.inf, expected) if name in ("silu", "gelu") else expected
    y = apply(kernels, name, *operands)
    assert (ulps(y, expected) <= 8).all(), list(zip(*operands, y, expected, strict=True))
    signed = ~np.isnan(expected)
    assert (np.signbit(y) == np.signbit(expected))[signed].all()


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_bits_depend_on_neither_place_nor_length(kernels: str, name: str) -> None:
    points = UNARY[name][1] if name in UNARY else [np.concatenate(p) for p in zip(*BINARY[name][1], strict=True)]
    operands = [np.concatenate(points)[::7].copy()] if name in UNARY else [p[::7].copy() for p in points]
    whole = apply(kernels, name, *operands)
    for length in (*range(1, 19), 33):
        for first in (0, 1, 5):
            part = [np.ascontiguousarray(x[first : first + length]) for x in operands]
            assert apply(kernels, name, *part).tobytes() == whole[first : first + length].tobytes()


@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize(("name", "f", "points", "truth"), cases(), ids=ids)
def test_floats_are_rounded_once(kernels: str, name: str, f: Any, points: Any, truth: Any) -> None:
    """They go by way of doubles, but for exp, tanh and sigmoid, which have kernels of their own."""
    for operands in points:
        operands = tuple(np.clip(x, -1e30, 1e30) for x in operands)
        narrow = [x[np.abs(np.log10(np.abs(operands[0]))) < 30].astype(np.float32) for x in operands]
        with np.errstate(all="ignore"):
            expected = f(*[x.astype(float) for x in narrow]).astype(np.float32)
        usual = np.abs(expected) > 1.2e-38
        off = ulps(apply(kernels, name, *narrow), expected)[usual]
        assert (off <= (3 if name in ("exp", "tanh", "sigmoid") else 1)).all()


SLOPES = {"acosh": (1.01, 3.0), "log": (0.1, 3.0), "log2": (0.1, 3.0), "log10": (0.1, 3.0), "**": (0.1, 3.0)}


@pytest.mark.dear
@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_slopes_are_those_of_the_engine(kernels: str, name: str) -> None:
    for low, high in (SLOPES.get(name, (-0.95, 0.95)), SLOPES.get(name, (0.01, 0.1))):
        a, b, g = between(low, high), between(0.2, 2.5), between(-1, 1)
        second = () if name in UNARY else (b,)
        v, sent = apply(kernels, name, a, *second), np.ones(N)
        _replay._apply_kernel(kernels, kernel(name), sent, a, *(second or (None,)), v, g)
        for i in range(N):
            x = fs.Tensor(a[i])
            y = x ** b[i] if name == "**" else getattr(x, name)(*([b[i]] if second else []))
            y.backward()
            assert sent[i] == pytest.approx(1 + g[i] * x.grad, rel=1e-13, abs=1e-14)


@pytest.mark.parametrize("name", UNARY)
def test_programs_use_them(name: str) -> None:
    """Values and gradients of a program, and decisions in it, which are the engine's to the bit."""
    low, high = SLOPES.get(name, (-0.9, 0.9))
    X = np.random.default_rng(1).uniform(low, high, 300)
    program = fs.compile(lambda x: getattr(x, name)() * 3.0)
    values, slopes = program.value_and_grad(X)
    edge = getattr(fs.Tensor(X[17]), name)().data
    decided = fs.compile(lambda x: x * 2.0 if getattr(x, name)() > edge else x)
    decisions = decided.map(X)
    for k, x in enumerate(X):
        leaf = fs.Tensor(x)
        y = getattr(leaf, name)() * 3.0
        y.backward()
        assert values[k] == pytest.approx(y.data, rel=2e-15)
        assert slopes[k] == pytest.approx(leaf.grad, rel=1e-13)
        assert decisions[k] == (x * 2.0 if getattr(leaf, name)().data > edge else x)
