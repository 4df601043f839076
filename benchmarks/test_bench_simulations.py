"""Scalar programs over many rows, a GPT one row at a time, and what Python costs around a call of a program."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
import simulations
from contestants.gpts import GPTS, RATE
from contestants.simulators import FORMULAS, SIMULATORS
from contestants.warps import Warp

pytestmark = pytest.mark.benchmark(group="simulations")
BARS = {"asian": 0.32, "heston": 0.80, "pendulum": 9.0, "barrier": 0.34, "newton": 0.20}  # us a row
ROUNDS = 15


def shortest(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The best of several times of each, the works in turn; of the processor, since others use the machine too."""
    best = dict.fromkeys(works, math.inf)
    for _ in range(rounds):
        for name, work in works.items():
            start = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - start)
    return best


def test_rows(benchmark: Any, bar: Any, small: bool) -> None:
    """Value and gradient by the row, of each program; checked against the plain function."""
    n = 40 if small else 8192
    works: dict[str, Callable[[], Any]] = {}
    for name, function in simulations.SIMULATIONS.items():
        program, X = fs.compile(function), simulations.rows(name, n)
        values, gradients = program.value_and_grad(X)
        for k in range(0, n, max(1, n // 3)):
            x = fs.to_tensor(X[k].tolist())
            y = function(x)
            y.backward()
            assert math.isclose(values[k], y.data, rel_tol=1e-9, abs_tol=1e-12), name
            assert np.allclose(gradients[k], np.asarray(x.grad), rtol=1e-8, atol=1e-10), name
        works[name] = lambda program=program, X=X: program.value_and_grad(X)
    best = benchmark.pedantic(shortest, (works, 1 if small else ROUNDS), rounds=1)
    for name, limit in BARS.items():
        bar(f"simulations: {name}, a row", best[name] * 1e6 / n, "us", at_most=limit)


@pytest.mark.parametrize("name", FORMULAS)
def test_peers(benchmark: Any, bar: Any, small: bool, name: str, skipped: Any) -> None:
    """The same by others: values and gradients compared, then all in turn."""
    n = 40 if small else 4096
    program, X = fs.compile(simulations.SIMULATIONS[name]), simulations.rows(name, n)
    values, gradients = program.value_and_grad(X)
    works: dict[str, Callable[[], Any]] = {"fastscalar": lambda: program.value_and_grad(X)}
    for kind in (*SIMULATORS, Warp):
        if name not in kind.knows or (small and kind.compiles and name != "asian"):
            continue
        if why := kind.missing():
            skipped(kind.name, why)
            continue
        side = kind(name, X)
        their_values, their_gradients = side.run()
        np.testing.assert_allclose(their_values, values, rtol=1e-9, atol=1e-12, err_msg=kind.name)
        np.testing.assert_allclose(their_gradients, gradients, rtol=1e-7, atol=1e-9, err_msg=kind.name)
        works[kind.name] = side.run
    best = benchmark.pedantic(shortest, (works, 1 if small else 5), rounds=1)
    for side_name, seconds in best.items():
        bar(f"simulations: peers, {name}, a row, {side_name}", seconds * 1e6 / n, "us")


@pytest.mark.parametrize(("width", "count", "limit"), [(16, 4_192, 30), (64, 53_632, 300)])
def test_gpt(benchmark: Any, bar: Any, small: bool, width: int, count: int, limit: float) -> None:
    """A step of a GPT with Adam, a name of six letters at a time."""
    model, names = simulations.GPT(width), simulations.names(20, letters=2 if small else 6)
    program = fs.compile(model.loss)
    parameters = model.parameters()
    assert sum(p.size for p in parameters) == count
    for tokens in names[:3]:
        value = program.backward(tokens[None])[0]
        ours = [np.asarray(p.grad) for p in parameters]
        for p in parameters:
            p.grad = np.zeros(p.shape)
        loss = model.loss(tokens.tolist())
        loss.backward()
        assert math.isclose(value, loss.data, rel_tol=1e-10)
        for g, p in zip(ours, parameters, strict=True):
            assert np.allclose(g, np.asarray(p.grad), rtol=1e-9, atol=1e-12)
    optimizer = fs.Adam(parameters, lr=0.01)

    def steps() -> None:
        for tokens in names:
            program.backward(tokens[None])
            optimizer.step()

    best = benchmark.pedantic(shortest, ({"step": steps}, 1 if small else ROUNDS), rounds=1)
    step = best["step"] * 1e6 / len(names)
    bar(f"simulations: a GPT of {count:,} parameters, a step with Adam", step, "us", at_most=limit)


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 5.0), ("float32", 3.0)])
def test_gpt_rows(benchmark: Any, bar: Any, small: bool, dtype: str, limit: float) -> None:
    """1,024 names of six letters at once."""
    n = 8 if small else 1024
    model, program = simulations.GPT(), fs.compile(simulations.GPT().loss)
    X = np.array(simulations.names(n, letters=2 if small else 6))
    losses = program.backward(X, dtype=dtype)
    for k in range(3):
        assert math.isclose(losses[k], model.loss(X[k].tolist()).data, rel_tol=1e-10 if dtype == "float64" else 1e-5)
    works = {"rows": lambda: program.backward(X, dtype=dtype)}
    best = benchmark.pedantic(shortest, (works, 1 if small else ROUNDS), rounds=1)
    bar(f"simulations: 1,024 names, {dtype}, a name", best["rows"] * 1e6 / n, "us", at_most=limit)


def test_recording_a_gpt(benchmark: Any, bar: Any, small: bool) -> None:
    """Names of twelve lengths, the GPT of 64 dimensions: the first call of each, and what it plans for gradients."""
    model = simulations.GPT(64)
    names = [simulations.names(1, letters=k)[0] for k in range(3, 5 if small else 15)]
    seconds = []

    def record() -> None:
        program = fs.compile(model.loss)
        start = time.process_time()
        losses = [program.backward(tokens[None])[0] for tokens in names]
        seconds.append(time.process_time() - start)
        assert np.allclose(losses, math.log(simulations.VOCABULARY), rtol=0.2)   # of weights that know nothing yet

    benchmark.pedantic(record, rounds=1 if small else 3)
    bar("simulations: recording twelve lengths of a GPT of 53,632 parameters", min(seconds), "s", at_most=1.0)


@pytest.mark.parametrize("name", ["heston", "pendulum"])
def test_two_threads(benchmark: Any, bar: Any, small: bool, name: str) -> None:
    """Rows of a program shared out: by the clock, one thread and two in turn, the same bits."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core")
    n = 40 if small else 8192
    program, X = fs.compile(simulations.SIMULATIONS[name]), simulations.rows(name, n)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    found = set()

    def turns() -> None:
        for _ in range(1 if small else ROUNDS):
            for threads, times in seconds.items():
                start = time.perf_counter()
                values, gradients = program.value_and_grad(X, threads=threads)
                times.append(time.perf_counter() - start)
                found.add(values.tobytes() + gradients.tobytes())

    benchmark.pedantic(turns, rounds=1)
    assert len(found) == 1
    ratio = statistics.median(seconds[1]) / statistics.median(seconds[2])
    bar(f"simulations: {name}, 1 thread / 2", ratio, "x", at_least=1.7)


def test_gpt_peers(benchmark: Any, bar: Any, small: bool, skipped: Any) -> None:
    """The same step by others, array by array: loss and gradients compared with ours, then all in turn."""
    letters = 2 if small else 6
    model, names = simulations.GPT(), simulations.names(20, letters=letters)
    program, optimizer = fs.compile(model.loss), fs.Adam(model.parameters(), lr=RATE)
    sides = []
    for kind in GPTS:
        if why := kind.missing():
            skipped(kind.name, why)
            continue
        sides.append(kind(model, letters + 1))
    value = program.backward(names[0][None])[0]
    for side in sides:
        theirs, gradients = side.loss(names[0])
        assert math.isclose(theirs, value, rel_tol=1e-10), side.name
        for name, gradient in gradients.items():
            ours = np.asarray(getattr(model, name).grad)
            np.testing.assert_allclose(gradient, ours, rtol=1e-8, atol=1e-12, err_msg=f"{side.name}: {name}")

    def ours() -> None:
        for tokens in names:
            program.backward(tokens[None])
            optimizer.step()

    works: dict[str, Callable[[], Any]] = {"fastscalar": ours}
    for side in sides:
        works[side.name] = lambda side=side: [side.step(tokens) for tokens in names]
    best = benchmark.pedantic(shortest, (works, 1 if small else 5), rounds=1)
    for side_name, seconds in best.items():
        bar(f"simulations: peers, a GPT of 4,192 parameters, a step, {side_name}", seconds * 1e6 / len(names), "us")


def test_around_a_call(benchmark: Any, bar: Any, small: bool) -> None:
    """A program of one product, called with one row."""
    w, times = fs.Tensor(2.0), 10 if small else 5_000
    one, three = fs.compile(lambda x: x * w), fs.compile(lambda x, y, z: x * w + y + z)
    row = np.array([1.5])
    for _ in range(3):
        assert one(1.5) == 3.0
        assert three(1.5, 2.0, 3.0) == 8.0
        assert one.backward(row).tolist() == [3.0]
        assert w.grad == 1.5

    def repeated(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                call()

        return run

    works = {
        "call": repeated(lambda: one(1.5)),
        "call of three": repeated(lambda: three(1.5, 2.0, 3.0)),
        "backward": repeated(lambda: one.backward(row)),
    }
    best = benchmark.pedantic(shortest, (works, 1 if small else ROUNDS), rounds=1)
    unit = 1e6 / times
    bar("simulations: a trivial program, call", best["call"] * unit, "us", at_most=3)
    bar("simulations: a trivial program, backward", best["backward"] * unit, "us", at_most=4)
    further = (best["call of three"] - best["call"]) / 2 * unit
    bar("simulations: a trivial program, a further argument", further, "us", at_most=0.3)
