"""Directions and weights have the structure of what they are for; what has not is said, with its place."""

from __future__ import annotations

import numpy as np
import pytest

import fastscalar as fs

X = np.array([1.0, 2.0, 3.0])


def test_dictionaries_are_matched_by_key():
    f = lambda p: 3.0 * p["a"] + 5.0 * p["b"]
    there, direction = {"a": 1.0, "b": 2.0}, {"b": 10.0, "a": 1.0}
    assert fs.jvp(f, there, direction) == (13.0, 53.0)
    g = lambda p: p["a"] ** 2 * p["b"]
    assert fs.hvp(g, there, direction) == {"a": 2 * 2.0 * 1.0 + 2 * 10.0, "b": 2.0}
    back = fs.vjp(lambda x: {"a": 3.0 * x, "b": 5.0 * x}, 1.0)[1]
    assert back(direction) == (53.0,)
    rows, along = ({k: np.full(2, v) for k, v in d.items()} for d in (there, direction))
    assert fs.compile(f).jvp(rows, tangents=along)[1].tolist() == [53.0, 53.0]
    assert fs.compile(g).hvp(rows, tangents=along)["a"].tolist() == [24.0, 24.0]


@pytest.mark.parametrize(
    ("primals", "tangents", "text"),
    [
        (X, np.ones(2), r"tangents: expected an array of shape \(3,\), got an array of shape \(2,\)$"),
        (X, 1.0, r"tangents: expected an array of shape \(3,\), got a number$"),
        (X, [1.0, 1.0, 1.0], r"tangents: expected an array of shape \(3,\), got a list of 3$"),
        ([1.0, 2.0], X[:2], r"tangents: expected a list of 2, got an array of shape \(2,\)$"),
        ((X, 2.0), (X,), r"tangents: expected one for each of 2 arguments, got 1$"),
        ((X, 2.0), X, r"tangents: expected one for each of 2 arguments, got 1$"),
        ((X, 2.0), (X, X), r"tangents\[1\]: expected a number, got an array of shape \(3,\)$"),
        ({"a": 1.0}, {"b": 1.0}, r"tangents: expected a dictionary with the keys \['a'\], got a .*\['b'\]$"),
        ({"a": [X]}, {"a": [X[:2]]}, r"tangents\['a'\]\[0\]: expected an array of shape \(3,\), got .*\(2,\)$"),
        ({"a": 1.0}, [1.0], r"tangents: expected a dictionary with the keys \['a'\], got a list of 1$"),
    ],
)  # fmt: skip
def test_tangents_of_another_structure(primals, tangents, text):
    for name in ("jvp", "hvp"):
        with pytest.raises(ValueError, match=f"^{name}: {text}"):
            getattr(fs, name)(lambda *args: 1.0 * fs.Tensor(1.0), primals, tangents)


def test_weights_of_another_structure():
    back = fs.vjp(lambda x: (x * x, {"s": fs.sum(x)}), X)[1]
    with pytest.raises(ValueError, match=r"^vjp: the weights\[0\]: expected an array of shape \(3,\), got .*\(2,\)$"):
        back((np.ones(2), {"s": 1.0}))
    with pytest.raises(ValueError, match=r"^vjp: the weights: expected a tuple of 2, got a tuple of 1$"):
        back((np.ones(3),))
    with pytest.raises(ValueError, match=r"^vjp: the weights\[1\]: expected a dictionary with the keys \['s'\]"):
        back((np.ones(3), {"t": 1.0}))


@pytest.mark.parametrize("method", ["jvp", "hvp"])
@pytest.mark.parametrize(
    ("tangents", "text"),
    [
        (np.ones((4, 2)), r"tangents: expected an array of the shape of the argument, \(4, 3\), got \(4, 2\)$"),
        (np.ones(3), r"tangents: expected an array of the shape of the argument, \(4, 3\), got \(3,\)$"),
        (np.ones((3, 3)), r"tangents: expected an array of the shape of the argument, \(4, 3\), got \(3, 3\)$"),
        (1.0, r"tangents: expected an array of the shape of the argument, \(4, 3\), got \(\)$"),
        ((np.ones((4, 3)),) * 2, "tangents: expected one for each of 1 arguments"),
    ],
)
def test_tangents_of_rows(method, tangents, text):
    program = fs.compile(lambda x: fs.sum(x * x))
    with pytest.raises(ValueError, match=f"^<lambda>.{method}: {text}"):
        getattr(program, method)(np.ones((4, 3)), tangents=tangents)
    both = fs.compile(lambda x, p: fs.sum(p["a"] * x), shared="p")
    with pytest.raises(ValueError, match=rf"^<lambda>.{method}: tangents\[1\]\['a'\]: .* \(3,\), got \(4, 3\)$"):
        getattr(both, method)(np.ones((4, 3)), {"a": X}, tangents=(None, {"a": np.ones((4, 3))}))
    with pytest.raises(ValueError, match=rf"^<lambda>.{method}: tangents\[1\]: expected the structure of the argument"):
        getattr(both, method)(np.ones((4, 3)), {"a": X}, tangents=(None, {"b": X}))


def test_a_tangent_of_each_row_or_one_for_all():
    program = fs.compile(lambda x, s: x * s)
    along = np.array([1.0, 2.0, 3.0])
    assert program.jvp(X, 2.0, tangents=(1.0, None))[1].tolist() == [2.0] * 3
    assert program.jvp(X, 2.0, tangents=(None, along))[1].tolist() == (X * along).tolist()
    assert program.jvp(X, 2.0, tangents=(along, 1.0))[1].tolist() == (2.0 * along + X).tolist()


@pytest.mark.parametrize("several", [lambda x: x * x, lambda x: (x[0], x[1]), lambda x: {"a": x[0]}, lambda x: [x[0]]])
def test_second_derivatives_are_of_one_number(several):
    got = "the function has to return a single number, got .* \\(second derivatives are of one number: of one of the"
    with pytest.raises(TypeError, match=f"^hessian: {got}"):
        fs.hessian(several)(X)
    with pytest.raises(TypeError, match=f"^hvp: {got}"):
        fs.hvp(several, X, X)
    with pytest.raises(TypeError, match=f"^<lambda>.hessian: {got}"):
        fs.compile(several).hessian(X[None])
    with pytest.raises(TypeError, match=f"hvp: {got}"):
        fs.compile(several).hvp(X[None], tangents=X[None])
    with pytest.raises(TypeError, match=r"^grad: the function has to return a single number"):
        fs.grad(several)(X)
