"""Functions in programs: what a function costs beside the product that it is applied to, value and gradient."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastscalar as fs

pytestmark = pytest.mark.benchmark(group="functions")
CALLS = 20  # of the function for each row
NAMES = [
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sqrt",
    "cbrt",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "atanh",
    "erf",
    "erfc",
    "ndtr",
    "sigmoid",
    "softplus",
    "silu",
    "gelu",
]
FUNCTIONS: dict[str, Callable[[Any], Any]] = {name: lambda x, name=name: getattr(x, name)() for name in NAMES} | {
    "acosh": lambda x: (x + 1.0).acosh(),
    "pow": lambda x: x**2.7,
    "atan2": lambda x: fs.math.atan2(x, 0.6),
    "hypot": lambda x: fs.math.hypot(x, 0.6),
}


def program_of(f: Callable[[Any], Any]) -> Any:
    def total(x: Any) -> Any:
        s = 0.0
        for k in range(CALLS):
            s = s + f(x[k] * 1.01)
        return s

    return total


def test_functions(benchmark: Any, bar: Any, small: bool) -> None:
    """Beyond the product alone, with the sides in turn; the values and slopes are those of the plain function."""
    n = 30 if small else 4_000
    X = np.random.default_rng(0).uniform(0.1, 0.9, (n, CALLS))
    functions = {"product": program_of(lambda x: x)} | {name: program_of(f) for name, f in FUNCTIONS.items()}
    programs = {name: fs.compile(f) for name, f in functions.items()}
    for name, program in programs.items():
        values, gradients = program.value_and_grad(X)
        for k in (0, n - 1):
            row = fs.to_tensor(X[k].tolist())
            y = functions[name](row)
            y.backward()
            assert math.isclose(values[k], y.data, rel_tol=1e-13), name
            assert np.allclose(gradients[k], row.grad, rtol=1e-12, atol=1e-14), name
    best = dict.fromkeys(programs, math.inf)

    def one_round() -> None:
        for name, program in programs.items():
            start = time.perf_counter()
            program.value_and_grad(X)
            best[name] = min(best[name], time.perf_counter() - start)

    benchmark.pedantic(one_round, rounds=1 if small else 15)
    for name in FUNCTIONS:
        bar(f"functions: {name}", (best[name] - best["product"]) * 1e9 / (n * CALLS), "ns", at_most=5)
