"""What a function is told of the types of its arguments is the same in a program and in a plain call."""

from __future__ import annotations

import builtins
import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastscalar as fs

X, K = np.array([0.5, 1.5, -2.0, 3.0, 0.25, 4.0]), np.array([0, 1, 2, 3, 2, 1])
kind_of = type


def helper(k: Any) -> bool:
    return type(k) is int


@functools.singledispatch
def by_dispatch(k: Any) -> bool:
    return False


@by_dispatch.register
def _(k: int) -> bool:
    return True


def by_match(k: Any) -> bool:
    match k:
        case int():
            return True
    return False


class Asking:
    def asks(self, k: Any) -> bool:
        return type(k) is int


class Around:
    def __init__(self) -> None:
        self.inner = SimpleNamespace(deeper=Asking())

    def asks(self, k: Any) -> bool:
        return self.inner.deeper.asks(k)


ASKING, AROUND, INT = Asking(), Around(), int

# of a whole number of the row
WHOLE: dict[str, Any] = {
    "type is": lambda k: type(k) is int,
    "type equals": lambda k: type(k) == int,  # noqa: E721
    "type is not": lambda k: type(k) is not int,
    "type in": lambda k: type(k) in (int, float),
    "a table by type": lambda k: {int: True}.get(type(k), False),
    "its name": lambda k: type(k).__name__ == "int",
    "another name": lambda k: kind_of(k) is int,
    "of a constant": lambda k: type(k) is type(K.size),
    "of a module": lambda k: builtins.type(k) is int,
    "int by another name": lambda k: type(k) is INT,
    "mapped": lambda k: set(map(type, [k, 1])) == {int},
    "in a helper": helper,
    "in a helper of a helper": lambda k: [helper(k)][0],
    "in a method": lambda k: ASKING.asks(k),
    "in a method of a part": lambda k: AROUND.asks(k),
    "in a comprehension": lambda k: all(type(e) is int for e in [k]),
    "in a partial": functools.partial(lambda k, wanted: type(k) is wanted, wanted=int),
    "in a closure": (lambda ask: lambda k: ask(k))(lambda k: type(k) is int),
    "a closure's name": (lambda of: lambda k: of(k) is int)(type),
    "the class": lambda k: k.__class__ is int,
    "isinstance": lambda k: isinstance(k, int),
    "no float": lambda k: isinstance(k, float),
    "dispatched": by_dispatch,
    "matched": by_match,
    "a subclass": lambda k: issubclass(type(k), int),
}
# of a number of the row, which is a Tensor in a plain call
NUMBER: dict[str, Any] = {
    "type is float": lambda x: type(x) is float,
    "type is Tensor": lambda x: type(x) is fs.Tensor,
    "the class": lambda x: x.__class__ is fs.Tensor,
    "isinstance": lambda x: isinstance(x, float),
    "a name": lambda x: type(x).__name__ == "Tensor",
    "of an expression": lambda x: type(x * 2.0 + 1.0) is fs.Tensor,
    "of its data": lambda x: type(x.data) is float,
    "of a comparison": lambda x: type(x > 1.0) is bool,
    "of a comparison, in": lambda x: type(x > 1.0) in (bool, int),
    "of a comparison, its name": lambda x: type(x > 1.0).__name__ == "bool",
    "of a comparison, another name": lambda x: kind_of(x > 1.0) is kind_of(True),
    "the class of a comparison": lambda x: (x > 1.0).__class__ is bool,
}


def check(f: Any, *columns: np.ndarray) -> None:
    """All methods, before and after it is known which recordings there are, rows in any order."""
    given = list(zip(*(c.tolist() for c in columns), strict=True))
    numbers = [[fs.Tensor(v) if type(v) is float else v for v in row] for row in given]
    expected = [f(*row).data for row in numbers]
    slopes = [fs.grad(f)(*row) for row in given]
    program = fs.compile(f)
    for order in (slice(None), slice(None, None, -1)):
        some = tuple(c[order] for c in columns)
        assert program.map(*some).tolist() == expected[order]
        values, gradients = program.value_and_grad(*some)
        assert (values.tolist(), gradients.tolist()) == (expected[order], slopes[order])
        assert program.jacobian(*some).tolist() == slopes[order]
        assert fs.compile(fs.grad(f)).map(*some).tolist() == slopes[order]
    assert [program(*row) for row in given] == expected


@pytest.mark.parametrize("name", WHOLE)
def test_of_whole_numbers(name: str) -> None:
    asks = WHOLE[name]
    check(lambda x, k: x * 3.0 + k if asks(k) else x * x - k, X, K)


@pytest.mark.parametrize("name", NUMBER)
def test_of_numbers(name: str) -> None:
    asks = NUMBER[name]
    check(lambda x: x * 3.0 if asks(x) else x * x, X)


def test_of_whole_numbers_in_arrays_and_objects_that_are_called() -> None:
    class Called:
        def __call__(self, x: Any, k: Any) -> Any:
            return x * 3.0 if all(type(e) is int for e in k) else x * x

    class Net(fs.Module):
        def forward(self, x: Any) -> Any:
            return x[0] * 3.0 if type(x[1]) is int else x[0] * x[0]

    net = Net()
    for f in (Called(), lambda x, k: net((x, k[0]))):
        program = fs.compile(f)
        assert program.map(X, np.stack([K, K], 1)).tolist() == (X * 3.0).tolist()


def test_an_attribute_of_that_name_asks_for_nothing() -> None:
    """Then a label stays one for all rows: one recording."""
    layer = SimpleNamespace(type="relu")
    w = fs.to_tensor(np.arange(4.0))
    program = fs.compile(lambda x, k: x * w[k] if layer.type == "relu" else x)
    assert program.map(X, K).tolist() == (X * K).tolist()
    assert len(program.report().splitlines()) == 1
