"""Which list an index is of, as Python's instructions say it: the right one, or none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from fastscalar.program.subscripts import list_and_index

COMMON = [1, 2, 3]


class Index:
    """Looks, when it is asked for its int, which list that is for."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __index__(self) -> int:
        self.seen.append(list_and_index(sys._getframe(1)))
        return 1

    __int__ = __index__

    def __add__(self, other: int) -> int:
        self.seen.append(list_and_index(sys._getframe(1)))
        return 1 + other

    def __rsub__(self, other: int) -> int:
        self.seen.append(list_and_index(sys._getframe(1)))
        return other - 1


def a_variable(k: Any) -> Any:
    p = [1, 2, 3]
    return p[k]


def as_an_int(k: Any) -> Any:
    p = [1, 2, 3]
    return p[int(k)]


def a_global(k: Any) -> Any:
    return COMMON[k]


def a_cell(k: Any) -> Any:
    p = [1, 2, 3]
    return [p[k] for _ in range(2)]


def an_argument(k: Any) -> Any:
    return (lambda q: q[k])([1, 2, 3])


def a_tuple(k: Any) -> Any:
    p = (1, 2, 3)
    return p[k]


def beside_others(k: Any) -> Any:
    o, p = [7, 8, 9], [1, 2, 3]
    return o[0] + p[k] * o[2]


def of_an_object(k: Any) -> Any:
    class Holder:
        def __init__(self) -> None:
            self.p = [1, 2, 3]

    o = Holder()
    return o.p[k]


def in_others(k: Any) -> Any:
    d = {"a": [[4], (1, 2, 3)]}
    return d["a"][-1][int(k)]


def computed(k: Any) -> Any:
    p = (3, 1, 2)
    return p[k + 1]


def computed_on(k: Any) -> Any:
    p, n = [3, 1, 2], 2
    return p[(k + n * 2) % 3]


def from_the_end(k: Any) -> Any:
    p = [3, 2, 1]
    return p[-1 - k]


def of_two_lists(k: Any, first: bool = False) -> Any:
    p, u = [1, 2, 3], [4, 5, 6]
    return (u if first else p)[k]


def of_two_indices(k: Any, first: bool = False) -> Any:
    p = [1, 2, 3]
    return p[0 if first else k]


def a_property(k: Any) -> Any:
    class Holder:
        @property
        def p(self) -> list[int]:
            raise AssertionError("looked at")

    o = Holder()
    try:
        return o.p[k]
    except AssertionError:
        return [1, 2, 3].__getitem__(k)


def attributes_of_its_own(k: Any) -> Any:
    class Holder:
        p: Any

        def __getattribute__(self, name: str) -> Any:
            return [1, 2, 3] if name == "p" else object.__getattribute__(self, name)

    o = Holder()
    return o.p[k]


def used_elsewhere(k: Any) -> Any:
    p = [1, 2, 3]
    return p[len(p[: k + 1])]


def stored(k: Any) -> Any:
    p = [1, 2, 3]
    i = k + 1
    return p[i]


def of_two_numbers(k: Any) -> Any:
    p = [1, 2, 3]
    other = Index()
    return p[(k + 0) * (other + 0)]


def without_a_name(k: Any) -> Any:
    return sorted(COMMON)[k]


def another_function(k: Any) -> Any:
    def own(k: Any) -> int:
        return 2 - k.__index__()

    p = [1, 2, 3]
    return p[own(k)]


def a_name_that_is_taken(k: Any) -> Any:
    int = lambda k: 2 - k.__index__()
    p = [1, 2, 3]
    return p[int(k)]


def a_slice(k: Any) -> Any:
    p = [1, 2, 3]
    return p[k:]


def a_dictionary(k: Any) -> Any:
    p = {1: 2}
    return p[k.__index__()]


FOUND = [a_variable, as_an_int, a_global, a_cell, an_argument, a_tuple, beside_others, of_an_object, in_others]
COMPUTED = [computed, computed_on, from_the_end]
MAYBE = [of_two_lists, of_two_indices]
NOTHING = [
    without_a_name, another_function, a_name_that_is_taken, a_slice, a_dictionary, a_property, attributes_of_its_own,
    used_elsewhere, stored, of_two_numbers,
]  # fmt: skip


@pytest.mark.parametrize("f", COMPUTED, ids=lambda f: f.__name__)
def test_what_each_number_selects(f: Callable[[Any], Any]) -> None:
    k = Index()
    f(k)
    (found,) = k.seen
    assert found[0][:3] == ([1, 2] if f is computed else [1, 2, 3])
    assert found[1] is k


@pytest.mark.parametrize("f", [*FOUND, *MAYBE, *NOTHING], ids=lambda f: f.__name__)
def test_the_list_or_none(f: Callable[[Any], Any]) -> None:
    k = Index()
    f(k)
    assert k.seen
    for found in k.seen:
        if f in NOTHING or (f in MAYBE and found is None):
            assert found is None
        else:
            assert found[0] == [1, 2, 3]
            assert found[1] is k
