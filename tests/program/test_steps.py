"""Elementwise operations of programs: with every kind of operand, on one row and on many, one and several at once."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastscalar as fs

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "minimum": fs.minimum,
    "maximum": fs.maximum,
    "pow": lambda a, b: abs(a) ** b,
    "atan2": fs.math.atan2,
    "hypot": fs.math.hypot,
}
UNARY: dict[str, Callable[[Any], Any]] = {
    "neg": operator.neg,
    "square": lambda a: a**2,
    "abs": abs,
    "relu": lambda a: a.relu(),
    "tanh": lambda a: a.tanh(),
    "sin": lambda a: a.sin(),
    "sqrt": lambda a: abs(a).sqrt(),
}
ROWS = [1, 2, 9, 40, 131]
KINDS = ["row", "rows", "leaf", "leaves", "number", "computed"]
WIDTH = 5


def operands(kind: str, x: list[Any], leaves: list[Any]) -> list[Any]:
    """WIDTH operands: one of the row's numbers for all, one each, one leaf, one each, ..."""
    return {
        "row": [x[0]] * WIDTH,
        "rows": x[WIDTH : 2 * WIDTH],
        "leaf": [leaves[0]] * WIDTH,
        "leaves": leaves[:WIDTH],
        "number": [0.7] * WIDTH,
        "computed": [x[k] * x[WIDTH - k] + 0.3 for k in range(WIDTH)],
    }[kind]


def agree(function: Callable[[Any], Any], leaves: list[Any], n: int, width: int = 2 * WIDTH) -> None:
    """Values, and gradients by the argument and by the leaves, of a program and of the function row by row."""
    X = np.random.default_rng(n).uniform(0.2, 1.5, (n, width)) * np.random.default_rng(1).choice([-1, 1], (n, width))
    program = fs.compile(function)
    values, gradients = program.value_and_grad(X)
    assert values.tolist() == pytest.approx(program.map(X).tolist(), rel=1e-12)
    program.backward(X)
    ours = [leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = 0.0
    for k in range(n):
        x = fs.to_tensor(X[k].tolist())
        y = function(x)
        y.backward(accumulate=True)
        assert values[k] == pytest.approx(y.data, rel=1e-11, abs=1e-12)
        assert gradients[k] == pytest.approx(np.asarray(x.grad), rel=1e-10, abs=1e-11)
    assert ours == pytest.approx([leaf.grad for leaf in leaves], rel=1e-10, abs=1e-10)


def same_alone(function: Callable[[Any], Any], X: np.ndarray) -> None:
    """Each row has the bits alone that it has among the others."""
    program = fs.compile(function)
    values, gradients = program.value_and_grad(X)
    for k in range(len(X)):
        value, gradient = program.value_and_grad(X[k : k + 1])
        assert value.tobytes() == values[k : k + 1].tobytes()
        assert gradient.tobytes() == gradients[k : k + 1].tobytes()


def some_leaves() -> list[Any]:
    return [fs.Tensor(0.4 + 0.3 * k) for k in range(WIDTH)]


@pytest.mark.dear
@pytest.mark.parametrize("n", [1, 9, 131])
@pytest.mark.parametrize("right", KINDS)
@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize("name", BINARY)
def test_operations_of_two(name: str, left: str, right: str, n: int) -> None:
    if {left, right} <= {"number"}:
        return
    leaves = some_leaves()

    def function(x: Any) -> Any:
        x = list(x)
        a, b = operands(left, x, leaves), operands(right, x, leaves)
        results = [BINARY[name](p, q) for p, q in zip(a, b, strict=True)]
        return fs.sum([r * (k - 1.5) for k, r in enumerate(results)]) + 0.0 * x[0]

    agree(function, leaves, n)


@pytest.mark.dear
@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("kind", ["row", "rows", "computed"])
@pytest.mark.parametrize("name", UNARY)
def test_operations_of_one(name: str, kind: str, n: int) -> None:
    leaves = some_leaves()

    def function(x: Any) -> Any:
        x = list(x)
        results = [UNARY[name](a) for a in operands(kind, x, leaves)]
        return fs.sum([r * leaf for r, leaf in zip(results, leaves, strict=True)])

    agree(function, leaves, n)


@pytest.mark.dear
@pytest.mark.parametrize("n", ROWS)
@pytest.mark.parametrize("seed", range(12))
def test_sums_and_chains(seed: int, n: int) -> None:
    """Sums of numbers, products and squares of either sign, and what is used again: gradients that begin and grow."""
    leaves = some_leaves()

    def function(x: Any) -> Any:
        draw = random.Random(seed)
        known = [*x, *leaves]
        for _ in range(40):
            terms = []
            for _ in range(draw.randrange(1, 7)):
                a, b = draw.choice(known), draw.choice([*known, 1.0, 0.5])
                terms.append((a * b if draw.random() < 0.7 else a) * 0.2)
            total = terms[0]
            for term in terms[1:]:
                total = total + term if draw.random() < 0.6 else total - term
            known.append(fs.math.tanh(total) if draw.random() < 0.3 else -total if draw.random() < 0.2 else total)
        return fs.sum(known[-8:]) + 0.0 * x[0]

    agree(function, leaves, n)


# Where the left and the right operand of term t of sum i lies, of SUMS sums that are computed together, or might be.
MOVES: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "both": lambda i, t: (40 * t + i, 40 * t + 200 + i),
    "right": lambda i, t: (t, 40 * t + 20 + i),
    "left": lambda i, t: (40 * t + 20 + i, t),
    "square": lambda i, t: (40 * t + i, 40 * t + i),
    "over each other": lambda i, t: (i + t, i + t + 1),
    "over each other, back": lambda i, t: (i + t + 1, i + t),
    "from both sides": lambda i, t: (i, 60 - i),
    "side by side": lambda i, t: (4 * i + t, 200 + 4 * i + t),
    "side by side, one stays": lambda i, t: (t, 200 + 4 * i + t),
    "in mixed order": lambda i, t: (7 * i % 40 + t, 3 * t + 11 * i % 50),
}


@pytest.mark.dear
@pytest.mark.parametrize("n_terms", [2, 4, 5])
@pytest.mark.parametrize("sums", [1, 2, 4, 5, 16, 37])
@pytest.mark.parametrize("move", MOVES)
def test_sums_side_by_side(move: str, sums: int, n_terms: int) -> None:
    """The same numbers as the function; and a row has the same bits alone and among others."""
    signs = [1, -1, 1, 1, -1] if n_terms == 5 else [1] * n_terms

    def function(x: Any) -> Any:
        x, found = [0.5 * v for v in x], []
        for i in range(sums):
            total = x[0] if n_terms == 2 else 0.0
            for t, sign in zip(range(n_terms), signs, strict=False):
                left, right = MOVES[move](i, t)
                product = x[left] * x[right] if (t + i // 20) % 3 < 2 or sums < 5 else 2.0 * x[right]
                total = total + product if sign > 0 else total - product
            found.append(total + x[i] * 0.25)
        return fs.sum([0.1 * (k - 3.5) * total for k, total in enumerate(found)])

    agree(function, [], 3, 420)
    same_alone(function, np.random.default_rng(sums).uniform(-1.5, 1.5, (7, 420)))


@pytest.mark.parametrize("right", ["row", "rows", "mixed", "number", "computed"])
@pytest.mark.parametrize("left", ["row", "rows", "mixed", "number", "computed"])
@pytest.mark.parametrize("name", BINARY)
def test_a_row_has_the_same_bits_alone_and_among_others(name: str, left: str, right: str) -> None:
    if left == right == "number":
        return

    def function(x: Any) -> Any:
        x = [0.5 * v for v in x]
        some = {kind: operands(kind, x, [1.0]) for kind in ["row", "rows", "number", "computed"]}
        some["mixed"] = [x[0], x[0], x[0], x[3], x[3]]
        results = [BINARY[name](p, q) for p, q in zip(some[left], some[right], strict=True)]
        return (results[0] * results[4] - results[1]) * results[2] + results[3]

    same_alone(function, np.random.default_rng(5).uniform(0.3, 1.5, (21, 2 * WIDTH)))


@pytest.mark.parametrize("unused", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("n", [1, 3, 40])
def test_operands_side_by_side_whose_gradients_lie_apart(unused: int, first: int, n: int) -> None:
    """Operations of one kind whose operands are of several instructions, some without influence on the result: their
    slots follow each other, and the places of their gradients do not."""
    for constant in (1.0, 2.0):
        for shared in (0.0, 2.0, 5.0):

            def function(x: Any, constant: float = constant, shared: float = shared) -> Any:
                t = x[0] * 1.0
                for i in range(first, first + unused):
                    for j in range(2):
                        fs.math.sin(t + i * t + j)
                return t + shared + constant

            agree(function, [], n)
