"""Gradients that are Tensors are computed from their node, which holds them: nothing stays of that once dropped."""

import gc

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing
from idioms import IDIOMS, number, points

LARGE = np.random.default_rng(3).normal(size=(11, 11)) + 2.0 * np.eye(11)
SIDES = np.random.default_rng(4).normal(size=(11, 3))

cube = fs.custom_op(lambda x: x**3, lambda x: 3.0 * x * x, name="cube")


def replaced(x):
    inverse = np.linalg.inv(x)
    x[0, 0] = 7.0
    return inverse


# functions of a matrix (11, 11) and of a number
CASES = {
    "solve": lambda A, t: np.linalg.solve(A, SIDES[:, 0] * t + SIDES[:, 1]),
    "solve, a matrix": lambda A, t: np.linalg.solve(A, SIDES * t),
    "solve, numbers": lambda A, t: np.linalg.solve(LARGE, A[0] * t),
    "solve, a stack": lambda A, t: np.linalg.solve(np.stack([A, A * 2.0]), SIDES * t),
    "inv": lambda A, t: np.linalg.inv(A) * t,
    "inv, replaced": lambda A, t: replaced(A.copy()) * t,
    "det": lambda A, t: np.linalg.det(A) * t * 1e-4,
    "slogdet": lambda A, t: np.linalg.slogdet(A)[1] * t,
    "power": lambda A, t: np.linalg.matrix_power(A, -2) * t,
    "a user's operation": lambda A, t: cube(cube(t) * A[0, 0]),
    "a loop": lambda A, t: fs.loop(5, lambda s: s * A[0, 1] + t, t),
    "a loop in a loop": lambda A, t: fs.loop(3, lambda s: fs.loop(3, lambda u: u * t + s, s), t),
    "a while loop": lambda A, t: fs.while_loop(lambda s: s < 9.0, lambda s: s * 1.5 + A[0, 0] ** 2, t),
    "a root": lambda A, t: fs.implicit(lambda z, u: z**3 + z - u)(0.5, t),
    "a program": fs.compile(lambda A, t: (A @ A).sum() * t),
    "a program's derivatives": lambda A, t: fs.grad(lambda u: (A * u).exp().sum() * 1e-4)(t),
}


@pytest.fixture(autouse=True, scope="module")
def only_what_is_new():
    """Python's collector looks at nothing that other tests have left: it is called often here."""
    gc.collect()
    gc.freeze()


def left_after(call):
    """How many nodes stay of each of some calls; the first ones make what is kept once for all."""
    found = []
    for _ in range(4):
        before = _core.tape_info()["nodes"]
        call()
        gc.collect()
        testing.collect()
        testing.collect()
        found.append(_core.tape_info()["nodes"] - before)
    return found[2:]


def total(y):
    parts = [y] if isinstance(y, fs.Tensor) or not isinstance(y, (tuple, list)) else y
    return sum(fs.sum(part) if getattr(part, "shape", ()) else part for part in parts)


@pytest.mark.parametrize("orders", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_of_functions(name, orders):
    def call():
        A, t = fs.to_tensor(LARGE), fs.Tensor(1.3)
        y = (total(CASES[name](A, t)) * 0.1).exp()
        for _ in range(orders):
            y.backward(create_graph=True)
            y = t.grad * 1.0

    assert left_after(call) == [0, 0]


@pytest.mark.parametrize("name", sorted(IDIOMS))
def test_of_idioms(name):
    f = number(IDIOMS[name])

    def call():
        A, S, v = map(fs.to_tensor, points(1))
        y = f(A, S, v)
        if isinstance(y, fs.Tensor):             # what says where something is has no gradient
            y.backward(create_graph=True)

    assert left_after(call) == [0, 0]
