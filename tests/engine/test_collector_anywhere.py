"""Python's collector may run at any allocation, and a destructor then uses the engine: makes and drops Tensors,
compares them, collects the tape, changes the lists that somebody is reading.  Nothing that C code holds may move."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import debug
from fastscalar.engine import _inspect, testing

SPARE = [fs.Tensor(float(k)) for k in range(8)]
SPARE[4].label = "x"  # as destructors leave it


class Busy:
    """In a cycle, so that only the collector finds it; its destructor uses the engine."""

    def __init__(self, also=None):
        self.me = self
        self.also = also

    def __del__(self):
        a = fs.Tensor(1.0)
        b = a * SPARE[0] + SPARE[1].exp()
        assert (b == a) is False
        assert SPARE[2] < SPARE[3]
        SPARE[4] = fs.Tensor(4.0)
        SPARE[4].label = "x"
        fs.to_tensor([1.0, 2.0, 3.0]).sum()
        testing.collect()
        if self.also is not None:
            self.also()


@pytest.fixture
def busy():
    """The collector runs at every allocation that it tracks, and there is always something to destroy."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what other tests have left is not gone through again and again
    gc.set_threshold(1, 1, 1)
    yield
    gc.set_threshold(*before)
    gc.collect()
    testing.check()


def program(n=6):
    """Something of everything; numbers that do not depend on how the tape was moved about."""
    Busy()
    x = [fs.Tensor(0.25 * k, label=f"x{k}") for k in range(n)]
    w = fs.to_tensor([[0.5, -1.0], [2.0, 0.25], [1.5, 1.0]])
    Busy()
    y = fs.Linear(3, 2, seed=0)(x[:3])
    z = fs.sum([a * b for a, b in zip(x, reversed(x), strict=True)]) + fs.dot(w[0], y) + fs.dot([w[1][0], 2.0], w[2])
    Busy()
    own = fs.Tensor(z.data**2, (z, x[5]), "square")

    def step():
        Busy()
        z.grad += 2.0 * z.data * own.grad

    own._backward = step
    recorded = fs.cross_entropy(y, 1) + fs.logsumexp([*x, w[0][1]]) + fs.softmax(w[1])[0]
    loss = own * 0.5 + recorded
    Busy()
    loss.backward()
    out = [loss.data, *[a.grad for a in x], *np.ravel(w.grad).tolist()]
    Busy()
    out += [p.data for p in loss._parents] + [len(loss._op), len(x[1].label)]
    recorded.backward(create_graph=True)
    return [*out, x[1].grad.data]


def test_the_same_numbers(busy):
    gc.set_threshold(700, 10, 10)
    try:
        expected = program()
    finally:
        gc.set_threshold(1, 1, 1)
    for _ in range(5):
        assert program() == expected


CALLS = {
    "comparison": lambda t, a: [t < 1, t == 0.5, t >= t, sorted([t, fs.Tensor(0.1)])],
    "parents": lambda t, a: (t * t)._parents,
    "attributes": lambda t, a: [setattr(t, f"n{k}", []) for k in range(20)],
    "label": lambda t, a: [fs.Tensor(1.0, label="a").label for _ in range(20)],
    "custom": lambda t, a: fs.Tensor(1.0, (t, t, a[0]), "mine").backward(),
    "reached": lambda t, a: _inspect._reached((t * a[1]).exp()),
    "summary": lambda t, a: debug.summary((t * a.sum()).exp()),
    "dot": lambda t, a: debug.to_dot((t * a.sum()).exp() + fs.sum([t, a[1]])),
    "nonfinite": lambda t, a: debug.find_nonfinite(t * a.sum() * np.inf),
    "grad": lambda t, a: fs.grad(lambda x: x * t * x)(2.0),
    "hessian": lambda t, a: fs.hessian(lambda x: (x[0] * x[1] * t).exp())([0.5, 1.0]),
    "jvp": lambda t, a: fs.jvp(lambda x: x * t, 2.0, 1.0),
    "vjp": lambda t, a: fs.vjp(lambda x: x * a, 2.0)[1](a.numpy()),
    "sums": lambda t, a: [fs.sum([t] * 5), fs.sum([1.0, t]), fs.dot([t, 1], [2, t]), fs.mean([a[0], t])],
    "nested": lambda t, a: fs.to_tensor([[1, 2, 3], (4, 5, 6), np.array([7, 8, 9])]),
    "mixed": lambda t, a: fs.Linear(2, 2, seed=0)([[t, 1.0], [2.0, t]]),
    "labels": lambda t, a: fs.cross_entropy(fs.Linear(2, 3, seed=0)(np.ones((4, 2))), [0, 1, 2, fs.Tensor(1.0)]),
    "views": lambda t, a: [a[1:][::-1], list(a), a[0], a.tolist(), repr(a), a.data[1:]],
    "writes": lambda t, a: [setattr(a, "data", [1.0, 2.0, 3.0]), setattr(t, "data", 0.5), a.data.__setitem__(1, 2.0)],
    "write of a result": lambda t, a: setattr(t * 2.0, "data", 7.0),
    "sgd": lambda t, a: fs.sgd([t, {"a": [a]}, t * 2.0], 0.0),
    "adam": lambda t, a: fs.Adam([[t], a]).step(),
    "recorded": lambda t, a: [(t * t * t).backward(create_graph=True), t.grad, (t * a[0]).backward(), t.grad],
    "elementwise": lambda t, a: (a * t + a.exp() ** 2.0 - [1.0, 2.0, 3.0]).sum().backward(),
    "comparisons of arrays": lambda t, a: [a == a, a < t, a != [1, 2, 3]],
    "copies": lambda t, a: copy.deepcopy([fs.Tensor(2.0, label="c"), a]),
    "numpy": lambda t, a: np.sum(np.array([t, t], dtype=object) * np.array([1.0, 2.0])),
    "watched": lambda t, a: watched(t, a),
    "detach": lambda t, a: [t.detach(), a.detach(), fs.Tensor(t)],
}


def watched(t, a):
    with debug.detect_anomaly():
        Busy()
        (t * a.sum()).backward()


@pytest.mark.parametrize("name", CALLS)
def test_every_way_into_the_engine(busy, name):
    t, a = fs.Tensor(0.5), fs.to_tensor([1.0, 2.0, 3.0])
    for _ in range(8):
        Busy()
        CALLS[name](t, a)
        Busy()
        CALLS[name](t + 0.0 if name == "comparison" else t, a)
    testing.check()


@pytest.mark.parametrize("change", ["grow", "shrink", "deepen"])
@pytest.mark.parametrize("call", [
    lambda x: fs.to_tensor(x), lambda x: fs.sum(x), lambda x: fs.Linear(3, 2, seed=0)(x),
    lambda x: fs.dot(x, [1, 2, 3]),
    lambda x: fs.to_tensor([x, [1, 2, 3]]), lambda x: fs.sum([x, [fs.Tensor(1.0), 2, 3]]),
    lambda x: fs.cross_entropy(np.ones((3, 2)), x), lambda x: fs.sgd(x, 0.1),
])  # fmt: skip
def test_a_list_that_is_changed_while_it_is_read(busy, call, change):
    """By a destructor that the collector runs, earlier or later; a value or an error, never beyond an array."""
    for wait in range(1, 24):
        row = [0, 1, 0] if wait % 2 else [fs.Tensor(0.0), 1, 0]

        def also(row=row):
            if change == "grow":
                row.extend([1.0] * 500)
            elif change == "shrink":
                row.clear()
            else:
                row[:] = [[[1.0]]] * 3

        gc.set_threshold(0)
        gc.collect()
        Busy(also)
        gc.set_threshold(wait // 2 + 1, 1000, 1000)
        with contextlib.suppress(ValueError, TypeError, IndexError):
            call(row)
    testing.check()


class Converting:
    """A number whose conversion runs the collector and moves everything."""

    def __init__(self, value):
        self.value = value

    def __float__(self):
        Busy()
        gc.collect()
        testing.collect()
        return self.value


def test_numbers_that_collect_while_they_are_converted(busy):
    for _ in range(10):
        t = fs.Tensor(Converting(2.0))
        a = fs.to_tensor([1.0, 2.0])
        assert (t * 3.0).data == 6.0
        assert (a * t).tolist() == [2.0, 4.0]


def test_under_memory_checks_of_the_allocator():
    """The same in a process whose allocator finds writes beyond a block."""
    code = """
        import gc, sys
        sys.path.insert(0, {folder!r})
        import test_collector_anywhere as t
        gc.set_threshold(1, 1, 1)
        import fastscalar as fs
        for name, call in t.CALLS.items():
            x, a = fs.Tensor(0.5), fs.to_tensor([1.0, 2.0, 3.0])
            for _ in range(3):
                t.Busy(); call(x, a)
        t.program()
        print("whole")
    """
    folder = __file__.rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code).format(folder=folder)], capture_output=True, text=True,
        timeout=300, check=False, env={**os.environ, "PYTHONMALLOC": "debug", "MALLOC_CHECK_": "3"},
    )  # fmt: skip
    assert done.stdout.strip() == "whole", done.stderr[-2000:]
