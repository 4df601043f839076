"""Arrays beside NumPy: element-wise operations on 1,000 elements, a matrix product, numbers of an ndarray in a loop."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastscalar as fs

pytestmark = pytest.mark.benchmark(group="arrays")
FUNCTIONS = ["exp", "log", "exp2", "expm1", "log2", "log10", "log1p", "sqrt", "cbrt", "sin", "cos", "tan", "sinh",
             "cosh", "tanh", "floor", "ceil", "trunc", "rint", "sign", "arcsin", "arccos", "arctan", "arcsinh",
             "arctanh", "degrees", "square", "abs", "isnan", "isfinite", "signbit", "reciprocal", "modf"]  # fmt: skip


def unary(f: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda x, y: f(x)


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {name: unary(getattr(np, name)) for name in FUNCTIONS}
OPERATIONS |= {
    "x + y": operator.add,
    "x - y": operator.sub,
    "x * y": operator.mul,
    "x / y": operator.truediv,
    "x % y": operator.mod,
    "x // y": operator.floordiv,
    "-x": lambda x, y: -x,
    "x + 1": lambda x, y: x + 1.0,
    "x**2": lambda x, y: x**2,
    "x**y": operator.pow,
    "x < y": operator.lt,
    "less": lambda x, y: np.less(x, y),
    "equal": lambda x, y: np.equal(x, y),
    "fmax": lambda x, y: np.fmax(x, y),
    "ndarray * x": lambda x, y: np.full(x.shape, 0.5) * x,
    "maximum": lambda x, y: np.maximum(x, y),
    "relu": lambda x, y: np.maximum(x, 0.0),
    "clip": lambda x, y: np.clip(x, 0.2, 0.7),
    "where": lambda x, y: np.where(y > 0.5, x, y),
    "arctan2": lambda x, y: np.arctan2(x, y),
    "hypot": lambda x, y: np.hypot(x, y),
    "sum": lambda x, y: x.sum(),
    "mean": lambda x, y: x.mean(),
    "max": lambda x, y: x.max(),
}


def seconds(f: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        f()
    return (time.perf_counter() - start) / calls


def in_turns(rounds: int, calls: int, *sides: Callable[[], Any]) -> list[float]:
    """The best time of each side."""
    best = [math.inf] * len(sides)
    for _ in range(rounds):
        for k, f in enumerate(sides):
            best[k] = min(best[k], seconds(f, calls))
    return best


def values(x: Any) -> Any:
    x = x[0] if isinstance(x, tuple) else x
    return x.numpy() if isinstance(x, fs.TensorArray) else x.data if isinstance(x, fs.Tensor) else x


def test_elementwise(benchmark: Any, bar: Any, small: bool) -> None:
    """An operation on 1,000 elements, its nodes made and dropped, beside NumPy on the same numbers."""
    draw = np.random.default_rng(0)
    a, b = draw.uniform(0.1, 0.9, 1000), draw.uniform(0.1, 0.9, 1000)
    x, y = fs.to_tensor(a), fs.to_tensor(b)
    for name, f in OPERATIONS.items():
        assert np.allclose(values(f(x, y)), values(f(a, b)), rtol=1e-14, atol=1e-15), name
    ratios: dict[str, float] = {}

    def one_round() -> None:
        for name, f in OPERATIONS.items():
            numpy, ours = in_turns(1 if small else 15, 1 if small else 100, lambda f=f: f(a, b), lambda f=f: f(x, y))
            ratios[name] = ours / numpy

    benchmark.pedantic(one_round, rounds=1)
    for name, ratio in ratios.items():
        bar(f"elementwise: {name}", ratio, "x NumPy", at_most=3.0)


def test_matrix_product(benchmark: Any, bar: Any, small: bool) -> None:
    """x @ W beside Linear without zeros in x, whose kernel it is, forward and backward."""
    n_in, n_out = (49, 8) if small else (784, 256)
    draw = np.random.default_rng(0)
    rows = draw.uniform(0.1, 0.9, n_in)
    x, layer = fs.to_tensor(rows), fs.Linear(n_in, n_out, seed=0)
    W = fs.to_tensor(layer.w.numpy())
    assert np.allclose((x @ W).numpy(), rows @ layer.w.numpy(), rtol=1e-12)
    assert np.allclose(layer(x).numpy(), (x @ W).numpy(), rtol=1e-12)
    times: list[float] = []

    def both(f: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: f().sum().backward()

    def one_round() -> None:
        sides = lambda: layer(x), lambda: x @ W
        times[:] = in_turns(1 if small else 31, 1 if small else 20, *sides, *map(both, sides))

    benchmark.pedantic(one_round, rounds=1)
    bar("x @ W, forward", times[1] / times[0], "x Linear", at_most=1.2)
    bar("x @ W, forward and backward", times[3] / times[2], "x Linear", at_most=1.2)


def test_numbers_of_an_ndarray(benchmark: Any, bar: Any, small: bool) -> None:
    """The elements of an ndarray beside Tensors in a loop, and the same numbers as floats; NumPy's own iteration, which
    makes an object of each, is the same on both sides."""
    draw = np.random.default_rng(0)
    weights = [fs.Tensor(w) for w in draw.normal(size=100)]
    row = draw.uniform(0.1, 0.9, 100)
    sides: tuple[list[Any], list[Any]] = (row.tolist(), list(row))

    def loop(xs: Any) -> fs.Tensor:
        s = fs.Tensor(0.0)
        for w, x in zip(weights, xs, strict=True):
            s = s + x * w
        return s

    assert loop(sides[0]).data == loop(sides[1]).data
    times: list[float] = []

    def one_round() -> None:
        times[:] = in_turns(1 if small else 31, 1 if small else 100, lambda: loop(sides[0]), lambda: loop(sides[1]))

    benchmark.pedantic(one_round, rounds=1)
    bar("numbers of an ndarray", times[1] / times[0], "x floats", at_most=1.2)
