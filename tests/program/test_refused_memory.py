"""Refused allocations in programs: a MemoryError, and everything is as it was."""

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing
from fastscalar.program import _trace
from fastscalar.program._trace import Recording

X = np.random.default_rng(0).normal(size=(40, 6)) * (np.arange(6) % 2)
Y = np.arange(40) % 3


def make():
    net = fs.MLP(6, [16, 3], seed=0)
    table = fs.to_tensor(np.arange(12.0).reshape(3, 4) / 10)
    scale = fs.Tensor(0.5)

    def f(x, y):
        row = table[y]
        total = row[0] * x[0] + row[1] * x[1] + row[2] * x[2] + row[3] * scale.exp()
        return fs.cross_entropy(net(x), y) + total * (scale * scale).sin() + fs.softmax(list(row))[1]

    return fs.compile(f), [net.linears[0].w, net.linears[0].b, net.linears[1].w, table]


@pytest.mark.parametrize(
    "work",
    [
        lambda p: p(X[0], Y[0]),
        lambda p: p.map(X, Y),
        lambda p: p.backward(X, Y),
        lambda p: p.value_and_grad(X, Y)[1],
    ],
    ids=["call", "map", "backward", "value_and_grad"],
)
def test_every_allocation_of_a_program_may_be_refused(work):
    expected = work(make()[0])
    failures = 0
    for k in range(2000):
        program, parameters = make()
        before = [a.grad.copy() for a in parameters]
        testing.fail_after(k)
        try:
            found = work(program)
        except MemoryError:
            failures += 1
            testing.fail_after(-1)
            for a, g in zip(parameters, before, strict=True):
                np.testing.assert_array_equal(a.grad, g)
            found = work(program)
        finally:
            done = testing.requests_left() >= 0
            testing.fail_after(-1)
        np.testing.assert_array_equal(found, expected)
        if done:
            break
    else:
        pytest.fail("there is no end of allocations")
    assert failures > 10


@pytest.mark.skipif(_core.tape_info()["stress"], reason="other nodes are on the tape, in stress mode")
def test_recording_takes_at_most_100_bytes_an_operation():
    """On the tape and off it, for scalar code that writes a new node for every operation."""
    n = 20_000
    w = fs.to_tensor(np.linspace(0.5, 1.0, n))

    def chain(x):
        s = x
        for k in range(n):
            s = s * w[k] + x
        return s

    before = _core.tape_info()["nodes"]
    recording = Recording()
    with recording:
        x = fs.Tensor(1.0)
        recording.inputs = [("number", x)]
        recording.begin()
        result = chain(x)
        nodes = _core.tape_info()["nodes"] - before
        from fastscalar.program._trace import extract

        graph = extract(recording, [result])
    columns = sum(c.nbytes for c in (graph.op, graph.a, graph.b, graph.value, graph.stopped))
    assert graph.operations == 2 * n
    assert (nodes * _core.tape_info()["bytes_per_node"] + columns) / graph.operations < 100


def test_an_error_after_the_first_marks_leaves_none(monkeypatch):
    """Nor does a child of a thread that was forked just there; a later recording would take in what they mark."""
    w = [fs.Tensor(0.5 * k) for k in range(3)]

    def f(x):
        return fs.sum([a * x for a in w])

    known, calls = _trace.marked, []

    def marked(*arguments):
        calls.append(arguments)
        if len(calls) == 2:                      # the results are marked by now
            raise MemoryError
        return known(*arguments)

    monkeypatch.setattr(_trace, "marked", marked)
    with pytest.raises(MemoryError):
        fs.compile(f).map(np.arange(3.0))
    testing.check()
    np.testing.assert_array_equal(fs.compile(f).map(np.arange(3.0)), [0.0, 1.5, 3.0])
