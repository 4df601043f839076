"""Calls with one row: those that go the short way say what all others say."""

from __future__ import annotations

import math
import threading
import warnings
from typing import Any

import numpy as np
import pytest

import fastscalar as fs


def plain(function: Any, *arguments: Any) -> Any:
    """The function itself, for one row."""

    def leaf(value: Any) -> Any:
        if isinstance(value, (bool, np.bool_, int, np.integer)):
            return int(value)
        if isinstance(value, (float, np.floating)):
            return fs.Tensor(float(value))
        values = np.asarray(value)
        return values.tolist() if values.dtype.kind in "iub" else fs.to_tensor(values.astype(float))

    return function(*map(leaf, arguments))


W = fs.to_tensor([0.5, -1.5, 2.0])
B = fs.Tensor(0.3)


def number(x: Any) -> Any:
    return x * x * B


def array(x: Any) -> Any:
    return x[0] * W[0] + x[1] * W[1] + x[2] * W[2]


def matrix(x: Any) -> Any:
    return x[0][1] * x[1][0] + B


def whole(k: Any) -> Any:
    return W[k] * 2.0


def wholes(k: Any) -> Any:
    return W[k[0]] * W[k[1]]


def several(x: Any, y: Any, k: Any) -> Any:
    return x * W[k] + y[0] * y[1]


def nothing() -> Any:
    return B * 2.0


def nest(x: Any) -> Any:
    return {"a": x * B, "b": (x, [x + 1.0])}


def branches(x: Any) -> Any:
    return x * B if x > 0 else -x


def raises(x: Any) -> Any:
    return fs.math.log(x) * B


ARGUMENTS: dict[Any, list[tuple[Any, ...]]] = {
    number: [(2.0,), (-3.5,), (np.float64(1.5),), (np.array(0.5),), (2,), (True,), (math.inf,), (math.nan,), (1e300,)],
    array: [
        ([1.0, 2.0, 3.0],),
        (np.array([1.0, 2.0, 3.0]),),
        (np.arange(6.0)[::2],),
        (np.array([1, 2, 3]),),
        ([1, 2, 3],),
        ([1, 2.5, 3],),
        ((1.0, 2.0, 3.0),),
        (np.array([1.0, 2.0, 3.0], np.float32),),
        (np.array([1.0, 2.0, 3.0], ">f8"),),
        (np.array([1.0, math.inf, 3.0]),),
        (np.array([1.0, 2.0, 3.0, 4.0]),),
    ],
    matrix: [(np.eye(2),), (np.arange(4.0).reshape(2, 2).T,), ([[1.0, 2.0], [3.0, 4.0]],), (np.ones((2, 3)),)],
    whole: [(0,), (2,), (np.int32(1),), (-1,)],
    wholes: [(np.array([0, 2]),), ([1, 1],), (np.array([2, 0], np.int32),)],
    several: [(1.0, [2.0, 3.0], 1), (2.0, np.array([0.0, 1.0]), 2), (3, [2.0, 3.0], 0), (1.5, [2, 3], 0)],
    nothing: [()],
    branches: [(1.0,), (-1.0,), (0.0,), (2.0,), (-3.0,), (math.nan,)],
}
CASES = [(f, i) for f, some in ARGUMENTS.items() for i in range(len(some))]


def same(ours: float, theirs: float) -> bool:
    return ours == pytest.approx(theirs, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("function", ARGUMENTS)
def test_values_in_any_order(function: Any, first: int) -> None:
    program = fs.compile(function)
    some = ARGUMENTS[function]
    some = some[first % len(some) :] + some
    for arguments in some + some:
        expected = plain(function, *arguments)
        expected = expected.data if isinstance(expected, fs.Tensor) else expected
        assert same(program(*arguments), expected), arguments


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("function", [f for f in ARGUMENTS if f is not nothing])
def test_gradients_of_one_row(function: Any, accumulate: bool) -> None:
    program = fs.compile(function)
    for arguments in [a for a in ARGUMENTS[function] * 3 if "shape" not in str(a)]:
        rows = [np.asarray(a)[None] for a in arguments]
        B.grad = 2.0
        W.grad = np.zeros(3)
        values = program.backward(*rows, accumulate=accumulate)
        ours = [B.grad, *np.asarray(W.grad).tolist()]
        B.grad = 2.0
        W.grad = np.zeros(3)
        loss = plain(function, *arguments)
        if isinstance(loss, fs.Tensor):
            loss.backward(accumulate=accumulate)
        assert values.shape == (1,)
        assert same(values[0], float(loss.data))
        reached = [B.grad, *np.asarray(W.grad).tolist()]
        if accumulate or function not in (array, whole, wholes):
            assert all(map(same, ours, reached)), arguments


def test_nests_of_results() -> None:
    program = fs.compile(nest)
    for x in (1.0, 2.0, 3.0, 4.0):
        assert program(x) == {"a": pytest.approx(x * B.data), "b": (x, [x + 1.0])}
    with pytest.raises(TypeError):
        program.backward(np.array([1.0]))


def test_what_is_returned_is_the_callers() -> None:
    program = fs.compile(lambda x: (x * B).reshape(1) if False else x * W)
    found = [program(float(k)) for k in range(1, 6)]
    for k, one in enumerate(found, 1):
        assert np.allclose(one, k * np.asarray(W.data))
    single = fs.compile(number)
    values = [single.backward(np.array([float(k)])) for k in range(1, 6)]
    assert [v[0] for v in values] == pytest.approx([k * k * B.data for k in range(1, 6)])


def test_errors_are_those_of_the_function() -> None:
    program = fs.compile(raises)
    assert same(program(2.0), math.log(2.0) * B.data)
    for _ in range(3):
        assert same(program(3.0), math.log(3.0) * B.data)
        with pytest.raises(ValueError, match=r"log\(-1.0\)"):
            program(-1.0)
        B.grad = 7.0
        with pytest.raises(ValueError, match=r"row 0: log\(-1.0\)"):
            program.backward(np.array([-1.0]))
        assert B.grad == 7.0


def test_leaves_as_they_are_now_and_reset() -> None:
    w, factor = fs.Tensor(2.0), 3.0
    program = fs.compile(lambda x: x * w * factor)
    assert [program(1.0) for _ in range(4)] == [6.0] * 4
    w.data, factor = 10.0, 100.0
    assert program(1.0) == 30.0
    program.reset()
    assert [program(1.0) for _ in range(3)] == [1000.0] * 3


def test_a_function_that_does_not_repeat_itself() -> None:
    calls = []

    def counting(x: Any) -> Any:
        calls.append(x)
        return x * float(len(calls))

    program = fs.compile(counting)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [program(1.0) for _ in range(6)]
    assert found[3:] == sorted(found[3:])
    assert len(set(found[3:])) == 3


def test_inside_of_other_programs_and_with_tensors() -> None:
    inner = fs.compile(number)
    for _ in range(4):
        inner(2.0)
    outer = fs.compile(lambda x: inner(x) + inner(x * 2.0))
    for x in (1.0, 2.0, 3.0):
        assert same(outer(x), 5.0 * x * x * B.data)
    x = fs.Tensor(3.0)
    y = inner(x)
    y.backward()
    assert same(x.grad, 6.0 * B.data)
    with pytest.raises(RuntimeError, match="inside a compiled function"):
        fs.compile(lambda x: inner.backward(np.array([1.0]))[0] * x)(1.0)


def test_from_several_threads() -> None:
    program = fs.compile(lambda x: fs.sum(x * x) * B)
    rows = [np.full(40, float(k)) for k in range(1, 9)]
    for _ in range(3):
        program(rows[0])
    found: dict[int, list[float]] = {}

    def work(k: int) -> None:
        found[k] = [program(rows[k]) for _ in range(200)]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    for k in range(8):
        assert all(same(v, 40.0 * (k + 1) ** 2 * B.data) for v in found[k])
