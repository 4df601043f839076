"""The pool of threads that share the work of replays: threads that do not start, waiting without a core."""

import os
import threading
import time

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _replay

pytestmark = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: there are no helpers")


@pytest.fixture
def program():
    """Enough work for many chunks, with gradients of leaves by every route: ports, weights, gathered rows."""
    rng = np.random.default_rng(0)
    w, table = fs.to_tensor(rng.normal(size=8)), fs.to_tensor(rng.normal(size=(3, 8)))
    layer = fs.Linear(8, 40, seed=0)
    X, k = rng.normal(size=(3000, 8)), rng.integers(0, 3, size=3000)

    def f(x, k):
        return fs.sum([a.tanh() for a in layer(x)]) * fs.dot(x, w) + fs.dot(table[k], x)

    return fs.compile(f), [w, table, layer.w, layer.b], X, k


def outcome(program, threads):
    f, leaves, X, k = program
    values = f.backward(X, k, threads=threads)
    return values.tobytes(), [np.asarray(p.grad).tobytes() for p in leaves]


def cpu_seconds():
    """Of all threads of this process."""
    return time.process_time()


def test_bits_do_not_depend_on_threads(program):
    expected = outcome(program, 1)
    for _ in range(30):
        assert outcome(program, 2) == expected


def test_helpers_that_do_not_start(program):
    """Fewer threads, the same results, and none that waits for one that is not there."""
    expected = outcome(program, 1)
    there = _replay._helpers(refuse=1000)
    try:
        for _ in range(3):
            assert outcome(program, 2) == expected
        assert _replay._helpers(refuse=1000) == there
    finally:
        _replay._helpers(refuse=0)
    assert outcome(program, 2) == expected
    assert _replay._helpers() >= 1


def test_idle_helpers_take_no_time(program):
    for _ in range(20):
        outcome(program, 2)
    before = cpu_seconds()
    time.sleep(0.5)
    assert cpu_seconds() - before < 0.1


def test_many_runs_at_once_share_one_pool(program):
    """More threads that ask for help than there are helpers."""
    expected = outcome(program, 1)[0]
    f, _, X, k = program
    wrong = []

    def work():
        for _ in range(10):
            if f.map(X, k, threads=2).tobytes() != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
        assert not t.is_alive()
    assert not wrong
    assert _replay._helpers() <= max(1, (os.cpu_count() or 1) - 1)


@pytest.mark.parametrize(
    ("alone", "factor", "least", "most"),
    [
        (2e-5, 0.6, 0.9, 1.0), (1e-3, 0.6, 0.9, 1.0), (0.1, 0.6, 0.9, 1.0),
        (2e-5, 1.3, 0.0, 0.1), (1e-3, 1.3, 0.0, 0.1), (0.1, 1.3, 0.0, 0.15),
        (2e-5, 12.0, 0.0, 0.02), (1e-3, 12.0, 0.0, 0.02),
    ],
)  # fmt: skip
def test_helpers_are_asked_where_that_is_faster(alone, factor, least, most):
    """The better way is found, and the other is tried for a small part of the time."""
    batches = min(int(100 / alone), 200_000)
    assert least <= _replay._shared_of(alone, alone * factor, batches) / batches <= most


@pytest.mark.parametrize("alone", [2e-5, 4e-4, 2e-3, 8e-3])
def test_helpers_that_cost_much_cost_a_run_little(alone):
    """A run of half a second on a machine where a helper lets others wait for 4 ms: at most 1.2 times."""
    batches = int(0.5 / alone)
    shared = _replay._shared_of(alone, alone + 4e-3, batches)
    assert (batches * alone + shared * 4e-3) / (batches * alone) < 1.2
