"""Functions with the same code and other names: what one asks of a truth is not what the other asks."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.program import identities
from fastscalar.program._trace import Recording

X = np.array([1.0, -1.0, 2.0])


def plainly(b: Any) -> float:
    return 1.0 if b else 3.0


def by_identity(b: Any) -> float:
    return 1.0 if b is True else 2.0 if b is False else 99.0


def by_type(b: Any) -> float:
    return (1.0 if b else 5.0) if type(b) is bool else 98.0


class Chooser:
    def __init__(self, how: Callable[[Any], float]) -> None:
        self.how = how

    def choose(self, b: Any) -> float:
        return self.how(b)


def of_closure(how: Any) -> Any:
    return lambda x: x * how(x > 0.0)


def of_module(how: Any) -> Any:
    module = types.ModuleType("helpers")
    module.__file__, module.how = "helpers.py", how
    return lambda x: x * module.how(x > 0.0)


def of_method(how: Any) -> Any:
    one = Chooser(how)
    return lambda x: x * one.choose(x > 0.0)


def of_default(how: Any) -> Any:
    def inner(b: Any, f: Any = how) -> Any:
        return f(b)

    return lambda x: x * inner(x > 0.0)


def of_keyword(how: Any) -> Any:
    def inner(b: Any, *, f: Any = how) -> Any:
        return f(b)

    return lambda x: x * inner(x > 0.0)


def of_partial(how: Any) -> Any:
    inner = functools.partial(lambda f, b: f(b), how)
    return lambda x: x * inner(x > 0.0)


def of_table(how: Any) -> Any:
    table = {"how": how}
    return lambda x: x * table["how"](x > 0.0)


def of_argument(how: Any) -> Any:
    def inner(f: Any, x: Any) -> Any:
        return x * f(x > 0.0)

    return lambda x: inner(how, x)


def of_argument_before(how: Any) -> Any:
    """The harmless one first, in the same recording."""
    def inner(f: Any, x: Any) -> Any:
        return x * f(x > 0.0)

    return lambda x: inner(plainly, x) + 10.0 * inner(how, x)


def of_throwaways(how: Any) -> Any:
    """Each may be at the place of the one before."""
    def inner(f: Any, x: Any) -> Any:
        return x * f(x > 0.0)

    return lambda x: sum(inner(lambda b, h=h: h(b), x) for h in (plainly, plainly, how, plainly, how))


def of_closures(how: Any) -> Any:
    both = [of_closure(plainly), of_closure(how)]
    return lambda x: sum(f(x) for f in both)


@pytest.mark.parametrize("how", [by_identity, by_type])
@pytest.mark.parametrize(
    "make",
    [of_closure, of_module, of_method, of_default, of_keyword, of_partial, of_table, of_argument, of_argument_before,
     of_throwaways, of_closures],
)  # fmt: skip
def test_the_one_that_is_recorded_first_says_nothing_of_the_other(make, how):
    for asks in (plainly, how, plainly, how):
        f = make(asks)
        program = fs.compile(f)
        right = [float(f(fs.Tensor(x))) for x in X.tolist()]
        for _ in range(2):
            assert program.map(X).tolist() == right


@pytest.mark.parametrize("how", [by_identity, by_type])
def test_what_a_name_stands_for_may_change_before_a_reset(how):
    table = [plainly]
    f = lambda k, x: x * table[0](k > 0) + table[0](x > 0.0)
    program = fs.compile(f)
    for asks in (plainly, how, plainly, how):
        table[0] = asks
        program.reset()
        right = [float(f(k, fs.Tensor(x))) for k, x in zip((1, -1, 0), X.tolist(), strict=True)]
        assert program.map(np.array([1, -1, 0]), X).tolist() == right


def as_int(k: Any) -> float:
    return 1.0 if type(k) is int else 97.0


@pytest.mark.parametrize("first", [0, 1])
def test_nor_of_whole_numbers(first):
    def of(how: Any) -> Any:
        return lambda k, x: x * how(k)

    some = [of(float), of(as_int)]
    for f in (some[first], some[1 - first], lambda k, x: sum(g(k, x) for g in some)):
        program = fs.compile(f)
        right = [float(f(k, fs.Tensor(x))) for k, x in zip((1, 2, 3), X.tolist(), strict=True)]
        assert program.map(np.array([1, 2, 3]), X).tolist() == right


def test_nothing_of_a_recording_is_kept_after_it():
    """Also of one within another, of a graph that nobody makes a program of, and where the function raises."""
    inner = fs.compile(lambda x: x * x if x > 1.0 else x)

    def outer(x):
        y = inner(x)
        if x > 2.0:
            raise KeyError("mine")
        return y

    program = fs.compile(outer)
    program.map(np.array([0.5, 1.5]))
    with pytest.raises(KeyError):
        program.map(np.array([0.5, 3.0]))
    recording = Recording()
    with recording:
        recording.inputs = [("number", fs.Tensor(1.0))]
        recording.begin()
        assert outer(recording.inputs[0][1]) == 1.0
    assert identities._here.known is None
