"""Compiled methods: each object has a program of its own, however it was made and whatever its class overrides."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import fastscalar as fs

X = np.array([1.0, -2.0, 0.5])


class Scaled:
    def __init__(self, factor):
        self.factor = fs.Tensor(factor)

    @fs.compile
    def value(self, x):
        return x * self.factor

    @fs.compile(shared="p")
    def shifted(self, x, p):
        return x * self.factor + p[0]


class Doubled(Scaled):
    @fs.compile
    def value(self, x):
        return super().value(x) * 2.0


class Slotted:
    __slots__ = ("factor",)
    value = Scaled.value


COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": lambda o: pickle.loads(pickle.dumps(o))}


@pytest.mark.parametrize("kind", [Scaled, Doubled])
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_an_object_has_a_program_of_its_own(how, kind):
    one = kind(2.0)
    right = one.value.map(X).tolist()
    other = COPIES[how](one)
    other.factor = fs.Tensor(7.0)
    assert other.value.map(X).tolist() == [3.5 * v for v in right]
    assert other.shifted.map(X, np.array([1.0])).tolist() == [7.0 * x + 1.0 for x in X.tolist()]
    assert [other.value(x) for x in X.tolist()] == [3.5 * v for v in right]
    assert one.value.map(X).tolist() == right
    assert other.value is other.value is not one.value


def test_a_method_that_calls_the_one_that_it_overrides():
    two = Doubled(3.0)
    for _ in range(2):
        assert two.value.map(X).tolist() == (6.0 * X).tolist()
    assert two.value.value_and_grad(X)[1].tolist() == [6.0] * 3
    two.value.backward(X)
    assert two.factor.grad == 2.0 * X.sum()


def test_an_attribute_of_an_object_stands_before_the_method():
    one = Scaled(2.0)
    one.value = abs
    assert one.value(-3) == 3
    del one.value
    assert one.value(3.0) == 6.0
    with pytest.raises(AttributeError):
        del Scaled(1.0).value


def test_objects_without_attributes_of_their_own():
    with pytest.raises(TypeError, match=r"a Slotted has none; compile the method of an object"):
        Slotted().value
