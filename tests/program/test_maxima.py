"""max, min, argmax and argmin of several numbers in a program: one instruction, no decision, eager's bits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from compiled import check, compiled_only
from fastscalar import _core

NAMES = ["max", "min", "argmax", "argmin"]
SPECIAL = [0.0, -0.0, 1.0, 2.0, -3.0, math.inf, -math.inf, math.nan]
POINTS = np.array(list(itertools.product(SPECIAL, repeat=3)))
W = fs.to_tensor([0.5, -1.0, 2.0, 0.25])

OPERANDS: dict[str, Callable[..., Any]] = {
    "the columns of an array": lambda x: x,
    "a part of them": lambda x: x[1:],
    "backwards": lambda x: [x[2], x[1], x[0]],
    "the same twice": lambda x: [x[1], x[0], x[1], x[0]],
    "computed": lambda x: [x[0] * 1.0, x[1] - x[2], abs(x[2])],
    "computed, of a run": lambda x: list(x * 2.0),
    "two": lambda x: [x[0], x[1]],
    "beside numbers and leaves": lambda x: [x[0] * 2.0, W[1], 0.5, x[2], W[0] * 3.0, x[1], True],
    "leaves": lambda x: [W[2] * x[0] * 0.0 + W[0], W[1], W[2]],
    "leaves only": lambda x: W,
}


@pytest.fixture(params=_core.kernel_sets())
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    before = _core.tape_info()["kernels"]
    _core._select_kernels(request.param)
    yield
    _core._select_kernels(before)


@pytest.mark.dear
@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("operands", OPERANDS)
def test_as_the_eager_function_at_special_points(operands: str, name: str) -> None:
    def f(x: Any) -> Any:
        return getattr(fs, name)(OPERANDS[operands](x)) * 3.0

    program = fs.compile(f)
    with compiled_only():
        values, slopes = program.value_and_grad(POINTS)
        assert len(program.report().splitlines()) == 1
        assert program.map(POINTS, threads=2).tobytes() == values.tobytes()
        for point, value, slope in zip(POINTS, values, slopes, strict=True):
            x = fs.to_tensor(point)
            W.grad = 0.0
            result = f(x)
            if isinstance(result, fs.Tensor):
                result.backward()
            expected = float(result)
            assert (value != value and expected != expected) or np.array(expected).tobytes() == value.tobytes()
            assert np.array_equal(slope, np.asarray(x.grad), equal_nan=True), point
        finite = POINTS[np.isfinite(POINTS).all(axis=1)]
        read = operands.startswith(("leaves", "beside")) and not name.startswith("arg")
        check(lambda x: f(x) + x[0] * x[1], [W] if read else [], finite)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_them(name: str, n: int) -> None:
    rng = np.random.default_rng(n)
    X = rng.integers(0, 1 + n // 2, size=(70, n)) * 0.5 - 3.0  # with ties
    X[rng.integers(0, 70, 3), rng.integers(0, n, 3)] = math.nan
    of_run = fs.compile(lambda x: getattr(fs, name)(x) * 1.0)
    of_slots = fs.compile(lambda x: getattr(fs, name)([v + 0.25 for v in x[::-1]]) * 1.0)
    with compiled_only():
        for program, Y in ((of_run, X), (of_slots, X[:, ::-1] + 0.25)):
            place = (np.argmax if name.endswith("max") else np.argmin)(Y, axis=1)  # NumPy has the same rules
            chosen = Y[np.arange(70), place]
            values, slopes = program.value_and_grad(X)
            assert np.array_equal(values, place if name.startswith("arg") else chosen, equal_nan=True)
            expected = np.zeros_like(Y) if name.startswith("arg") else np.eye(n)[place]
            assert (slopes == (expected if program is of_run else expected[:, ::-1])).all()
            if n > 1:
                assert f"1 {name}({n})" in program.report()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_of_the_same_is_computed_once(name: str) -> None:
    program = fs.compile(lambda x: fs.sum([v * getattr(fs, name)(x) for v in x]))
    program(np.arange(20.0))
    assert f"1 {name}(20)" in program.report()


@pytest.mark.parametrize("name", ["max", "min"])
def test_zero_sends_zero_through_it(name: str) -> None:
    """The infinite slope behind what was not chosen makes no NaN, nor one that a gradient of zero meets."""
    best = getattr(fs, name)
    sign = 1.0 if name == "max" else -1.0
    f = lambda x: best([fs.math.sqrt(x[0]), x[1]]) + best([x[1], fs.math.sqrt(x[0])]) * 0.0
    X = np.array([[0.0, sign], [0.0, 2.0 * sign], [4.0, sign]])
    assert np.isfinite(fs.compile(f).value_and_grad(X)[1][:2]).all()
    check(f, [], X)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_training_through_a_maximum(batch_size: int, dtype: str, threads: int) -> None:
    """A hinge of the strongest class, and a table that is read at a computed place."""
    threads = threads if batch_size > 1 else 1
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 5))
    found = []
    for compiled in (True, False):
        w, table = fs.to_tensor(np.ones((5, 3))), fs.to_tensor([0.5, -0.5, 1.0])

        def loss(x: Any, y: Any, w: Any = w, table: Any = table) -> Any:
            scores = [fs.dot(x, w[:, j]) * (j + 1.0) for j in range(3)]
            return (fs.max([abs(s) for s in scores]) - table[fs.argmin(scores)] - y) ** 2 + fs.min([w[0, 0], w[1, 1]])

        if compiled:
            with compiled_only():
                fs.fit(fs.compile(loss), X, X[:, 0], epochs=2, batch_size=batch_size, shuffle=False, progress=False,
                       optimizer=fs.SGD(lr=1e-4), schedule=None, dtype=dtype, threads=threads)  # fmt: skip
        else:
            opt = fs.SGD([w, table], lr=1e-4)
            for _ in range(2):
                for first in range(0, 90, batch_size):
                    opt.zero_grad()
                    fs.mean([loss(fs.to_tensor(x), x[0]) for x in X[first : first + batch_size]]).backward()
                    opt.step()
        found.append((np.asarray(w.data), np.asarray(table.data)))
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, rel=1e-11 if dtype == "float64" else 1e-4)
