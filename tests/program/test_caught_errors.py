"""An error that the function catches is a decision: rows that do not raise there never get what was recorded of one
that does, wherever it came from."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import math

X, Y = np.array([-2.0, 1.5, 0.5, -1.0]), np.array([2.0, 3.0, 4.0, 5.0])


def of_one_that_refuses(a):
    if a < 0:
        raise ValueError("negative")
    return a * 2.0


own = fs.custom_op(of_one_that_refuses, lambda a: 2.0, name="own")
own_in_operations = fs.custom_op(lambda a: math.sqrt(a), lambda a: 0.5 / math.sqrt(a), name="root")
inner = fs.compile(lambda a: math.sqrt(a) * 2.0)


def caught(body):
    def f(x, y):
        try:
            t = body(x)
        except (ArithmeticError, ValueError, IndexError, RuntimeError, np.linalg.LinAlgError):
            t = y
        else:
            t = t + math.sin(x)
        return t

    return f


def chosen_by(z):
    if z > 0:
        return z * 1.0
    raise ValueError("not positive")


FROM = {
    "an operation": lambda x: math.sqrt(x),
    "an operation of arrays": lambda x: np.log(fs.to_tensor(np.ones(3)) * x).sum(),
    "an inverse": lambda x: np.linalg.inv(fs.to_tensor(np.eye(2)) * fs.maximum(x, 0.0)).sum(),
    "an operation of one's own": lambda x: own(x),
    "one that is written in operations": lambda x: own_in_operations(x),
    "another program": lambda x: inner(x),
    "a step": lambda x: fs.loop(300, lambda z: math.sqrt(z) * x, x),
    "a later step": lambda x: fs.loop(300, lambda z: math.log(z + 300.0 * (x > 0)) - 0.1, x + 5.0),
    "what a step decides": lambda x: fs.loop(300, chosen_by, x),
    "a step with an operation of one's own": lambda x: fs.loop(300, lambda z: own(z) * 0.4, x),
    "a condition": lambda x: fs.while_loop(lambda z: math.log(z) < 3.0, lambda z: z + 1.0, x),
    "a loop in a derivative": lambda x: fs.grad(lambda t: fs.loop(300, lambda z: math.sqrt(z) * t, t))(x),
    "a loop in a program in a program": lambda x: inner(fs.loop(200, lambda z: math.sqrt(z) * x, x)),
    "a root": lambda x: fs.implicit(lambda r, a: r * r - a)(1.0, x),
    "a step, caught in a step": lambda x: fs.loop(
        70, lambda z: z + caught(lambda a: fs.loop(70, lambda q: math.sqrt(q) * 0.5, a))(x, 7.0) * 0.001, x * 0.0
    ),
    "one's own, caught in a step": lambda x: fs.loop(300, lambda z: z * 0.9 + caught(own)(x, 7.0) * 0.001, x),
}


@pytest.mark.dear
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 0, 2, 3], [3, 2, 1, 0]])
@pytest.mark.parametrize("source", FROM)
def test_rows_that_do_not_raise_are_as_in_the_plain_call(source, order):
    f = caught(FROM[source])
    right = [fs.value_and_grad(f, argnums=(0, 1))(x, y) for x, y in zip(X[order], Y[order], strict=True)]
    values, slopes = [value for value, _ in right], np.array([both for _, both in right], dtype=float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fs.CompileWarning)       # some run in Python
        warnings.simplefilter("ignore", fs.GradientLossWarning)
        program = fs.compile(f)
        for _ in range(2):
            assert program.map(X[order], Y[order]) == pytest.approx(np.array(values), rel=1e-12, nan_ok=True)
        found = program.value_and_grad(X[order], Y[order], argnums=(0, 1))
        assert found[0] == pytest.approx(np.array(values), rel=1e-12, nan_ok=True)
        assert np.array(found[1]) == pytest.approx(slopes, rel=1e-9, nan_ok=True)
        derived = fs.compile(fs.grad(f, argnums=(0, 1))).map(X[order], Y[order])
        assert np.array(derived) == pytest.approx(slopes, rel=1e-9, nan_ok=True)


def test_an_error_that_nobody_catches_leaves_loops_as_they_are():
    program = fs.compile(lambda x: fs.loop(300, lambda z: math.sqrt(z) + x, x))
    with pytest.raises(ValueError, match="row 0: iteration 0"):
        program.map(np.array([-1.0, 1.0]))
    program.map(np.array([1.0, 2.0]))
    assert "1 loop" in program.report()
    assert not program._unrolled


def test_that_rows_run_eagerly_is_said_once_for_all_kinds_of_arguments():
    program = fs.compile(caught(own), shared=(1,))
    with pytest.warns(fs.CompileWarning, match="cannot be replayed"):
        program.map(X, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", fs.CompileWarning)
        program.value_and_grad(X, 2.0, argnums=1, per_row=True)
        program.map(np.ones(4, int), 2)
        program(1, 2)
    program.reset()
    with pytest.warns(fs.CompileWarning, match="cannot be replayed"):
        program.map(X, 2.0)
