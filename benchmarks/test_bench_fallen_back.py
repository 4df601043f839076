"""Programs that have fallen back, beside the loop in Python that a user would write: calls, rows, gradients, fit.

What is called reads a number of its row, so that no recording holds for a second one."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from workloads import in_turn

pytestmark = pytest.mark.benchmark(group="compile")

W, V = fs.Tensor(1.5), fs.to_tensor([1.0, 2.0, 3.0])


def of_a_number(x: Any) -> Any:
    return x * round(x.data, 3) * W


def of_an_array(x: Any) -> Any:
    return (x[0] * V[0] + x[1] * V[1] + x[2] * V[2]) * round(x[0].data, 3)


FUNCTIONS: dict[str, tuple[Any, Any, tuple[int, ...]]] = {
    "a number": (of_a_number, fs.Tensor, ()),
    "an array": (of_an_array, fs.to_tensor, (3,)),
}


def fallen_back(f: Any, rows: np.ndarray) -> fs.Program:
    program = fs.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fs.CompileWarning)
        program.map(rows)
        program.map(rows)
    return program


def values_in_a_loop(f: Any, leaves: Any, rows: np.ndarray) -> np.ndarray:
    values = np.empty(len(rows))
    for i, x in enumerate(rows.tolist()):
        values[i] = f(leaves(x)).data
    return values


def gradients_in_a_loop(f: Any, leaves: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, slopes = np.empty(len(rows)), np.empty(rows.shape)
    for i, x in enumerate(rows.tolist()):
        t = leaves(x)
        y = f(t)
        y.backward()
        values[i], slopes[i] = y.data, t.grad
    return values, slopes


def backward_in_a_loop(f: Any, leaves: Any, rows: np.ndarray) -> np.ndarray:
    values = np.empty(len(rows))
    W.grad, V.grad = 0.0, 0.0
    for i, x in enumerate(rows.tolist()):
        y = f(leaves(x))
        y.backward(accumulate=True)
        values[i] = y.data
    return values


WAYS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "map": (fs.Program.map, values_in_a_loop),
    "value_and_grad": (fs.Program.value_and_grad, gradients_in_a_loop),
    "backward": (fs.Program.backward, backward_in_a_loop),
}


def flat(found: Any) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in (found if isinstance(found, tuple) else (found,))])


def repeated(call: Callable[[], Any], times: int) -> Callable[[], float]:
    """The seconds of a processor that so many calls take: other processes do not count."""

    def run() -> float:
        start = time.thread_time()
        for _ in range(times):
            call()
        return time.thread_time() - start

    return run


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", FUNCTIONS)
def test_rows(benchmark: Any, bar: Any, small: bool, what: str, way: str, count: int) -> None:
    f, leaves, shape = FUNCTIONS[what]
    rows = np.random.default_rng(0).normal(size=(1000, *shape))
    program, some = fallen_back(f, rows[:100]), rows[:count]
    ours, loop = WAYS[way]
    np.testing.assert_allclose(flat(ours(program, some)), flat(loop(f, leaves, some)), rtol=1e-12)
    times = 1 if small else 20_000 // count
    turns = in_turn(
        benchmark,
        repeated(lambda: ours(program, some), times),
        {"loop": repeated(lambda: loop(f, leaves, some), times)},
        rounds=1 if small else 9,
    )
    bar(f"fallen back: {way} of {what}, {count} rows / loop", turns.ratio("fastscalar", "loop"), "x", at_most=1.5)


@pytest.mark.parametrize("what", FUNCTIONS)
def test_a_call(benchmark: Any, bar: Any, small: bool, what: str) -> None:
    f, leaves, shape = FUNCTIONS[what]
    rows = np.random.default_rng(0).normal(size=(100, *shape))
    program, x = fallen_back(f, rows), rows[0] if shape else float(rows[0])
    assert program(x) == f(leaves(x)).data
    times = 1 if small else 20_000
    turns = in_turn(
        benchmark,
        repeated(lambda: program(x), times),
        {"loop": repeated(lambda: f(leaves(x)).data, times)},
        rounds=1 if small else 9,
    )
    bar(f"fallen back: a call with {what} / the function", turns.ratio("fastscalar", "loop"), "x", at_most=1.5)


def test_fit(benchmark: Any, bar: Any, small: bool) -> None:
    n, epochs = (100, 1) if small else (4000, 3)
    X, y = np.random.default_rng(0).normal(size=(2, n))
    v = fs.Tensor(1.0)

    def loss(x: Any, y: Any) -> Any:
        return (x * round(x.data, 3) * v - y) ** 2

    program = fs.compile(loss)

    def ours() -> float:
        v.data = 1.0
        fs.fit(program, X, y, optimizer=fs.SGD(lr=1e-4), epochs=epochs, batch_size=1, progress=False, shuffle=False,
               schedule=None)  # fmt: skip
        return v.data

    def loop() -> float:
        v.data = 1.0
        optimizer = fs.SGD([v], lr=1e-4)
        xs, ys = X.tolist(), y.tolist()
        for _ in range(epochs):
            total = 0.0
            for i in range(n):
                found = loss(fs.Tensor(xs[i]), fs.Tensor(ys[i]))
                found.backward()
                optimizer.step()
                optimizer.zero_grad()
                total += found.data
        return v.data

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fs.CompileWarning)
        assert ours() == pytest.approx(loop(), rel=1e-12)
        turns = in_turn(benchmark, repeated(ours, 1), {"loop": repeated(loop, 1)}, rounds=1 if small else 9)
    bar("fallen back: fit row by row / loop", turns.ratio("fastscalar", "loop"), "x", at_most=1.5)
