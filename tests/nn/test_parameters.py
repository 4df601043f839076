"""A parameter counts once wherever it is listed: shared layers, a Tensor beside its array, overlapping slices."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastscalar as fs
from compiled import close
from fastscalar import _core
from fastscalar.engine import testing
from fastscalar.engine._step import all_apart, distinct_parameters, flatten_parameters
from fastscalar.nn.optimizers import Optimizer
from fastscalar.nn.parameters import each_once

# --- ways to list what lies in one array of 12 numbers ----------------------------------------------------------------

VIEWS = {
    "whole": lambda w: w,
    "again": lambda w: w[:],
    "element": lambda w: w[1, 2],
    "corner": lambda w: w[0, 0],
    "row": lambda w: w[1],
    "column": lambda w: w[:, 1],
    "top": lambda w: w[:2],
    "bottom": lambda w: w[1:],
    "backwards": lambda w: w[::-1],
    "every other": lambda w: w[:, ::2],
}


def numbers_of(listed):
    """By number of the parameter, how often it is listed: the addresses that writing through each entry changes."""
    return [np.ravel(np.asarray(p.data)).tolist() for p in listed]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(sorted(VIEWS))), max_size=9), st.booleans())
def test_whatever_is_listed_each_number_is_there_once(chosen, nested):
    arrays = [fs.to_tensor(np.arange(12.0).reshape(3, 4) + 100 * k) for k in range(2)]
    alone = fs.Tensor(-1.0)
    listed = [alone if k == 2 else VIEWS[name](arrays[k]) for k, name in chosen]
    given = [listed[:2], {"rest": tuple(listed[2:])}] if nested else listed
    expected = set(itertools.chain.from_iterable(numbers_of(listed)))
    found = list(itertools.chain.from_iterable(numbers_of(distinct_parameters(given))))
    assert sorted(found) == sorted(expected)
    assert all_apart(listed) or len(listed) > 1
    if all_apart(listed):
        assert each_once(given) is given
        assert all(a is b for a, b in zip(distinct_parameters(given), listed, strict=True))
    pruned = flatten_parameters(each_once(given), [])
    assert sorted(itertools.chain.from_iterable(numbers_of(pruned))) == sorted(expected)


def test_many_parameters_that_are_apart_and_that_are_not():
    w = fs.to_tensor(np.zeros((3, 40)))
    tensors = [fs.Tensor(float(k)) for k in range(20)]
    elements = [w[0, k] for k in range(20)]
    apart = [*tensors, *elements, fs.to_tensor([1.0])]
    assert all_apart(apart)
    for more in (tensors[3], elements[5], w, w[1], apart[-1][0]):
        assert all_apart([*apart, more]) == (more is w[1])
    assert len(distinct_parameters([*apart, tensors[0], elements[0]])) == len(apart)


def test_the_first_place_counts():
    w, v = fs.to_tensor([1.0, 2.0, 3.0, 4.0]), fs.Tensor(5.0)
    kept = distinct_parameters([w[1:3], v, w[2], w[0:4:3], v])
    assert [np.ravel(np.asarray(p.data)).tolist() for p in kept] == [[2.0, 3.0], [1.0, 4.0], [5.0]]
    assert each_once([[v, w], [v], {"a": w}]) == [[v, w]]


def test_lists_that_hold_themselves_are_an_error_before_anything_has_changed():
    a = [fs.Tensor(1.0)]
    a += [a, {"b": a}]
    a[0].grad = 1.0
    for call in (lambda: fs.sgd(a, 0.5), lambda: distinct_parameters(a), lambda: fs.SGD(a)):
        with pytest.raises(ValueError, match="contains itself"):
            call()
    assert (a[0].data, a[0].grad) == (1.0, 1.0)
    with pytest.raises(TypeError, match="str"):
        fs.sgd([["w"], a], 0.5)


@pytest.mark.parametrize("n", [1, 15, 16, 31, 32, 33, 100])
def test_lists_are_gone_through_once_and_in_order(n):
    rows = [[fs.Tensor(k), (), [fs.Tensor(k + 0.25)], fs.Tensor(k + 0.5)] for k in range(n)]
    found = flatten_parameters([*rows, *reversed(rows), {"again": rows}], [])
    assert [p.data for p in found] == [k + part for k in range(n) for part in (0.0, 0.25, 0.5)]
    nest = rows
    for _ in range(100):
        nest = [nest, nest]
    assert flatten_parameters(nest, []) == found


# --- modules ----------------------------------------------------------------------------------------------------------


class Shared(fs.Module):
    """One layer under three names, a bias twice, and an element of it."""

    def __init__(self):
        self.first = fs.Linear(3, 3, seed=1)
        self.second = self.first
        self.more = {"again": [self.first], "bias": self.first.b, "element": self.first.b[0]}
        self.last = fs.Linear(3, 2, seed=2)
        self.parent = self

    def forward(self, x):
        h = self.second(self.first(x).tanh()).tanh()
        return self.last(self.more["again"][0](h + self.more["bias"]).tanh() * self.more["element"])


class Unshared(fs.Module):
    """The same function, with nothing listed twice."""

    def __init__(self):
        self.first, self.last = fs.Linear(3, 3, seed=1), fs.Linear(3, 2, seed=2)

    def forward(self, x):
        h = self.first(self.first(x).tanh()).tanh()
        return self.last(self.first(h + self.first.b).tanh() * self.first.b[0])


def test_a_module_lists_what_it_shares_once():
    net = Shared()
    assert net.parameters() == [[net.first.w, net.first.b], [net.last.w, net.last.b]]
    assert len(flatten_parameters(net.parameters(), [])) == 4


def test_a_net_of_the_same_layer_twice():
    net = fs.MLP(3, [3, 3], seed=0)
    net.linears[1] = net.linears[0]
    (only,) = net.linears[:1]
    assert flatten_parameters(net.parameters(), []) == [only.w, only.b]


def test_modules_that_know_each_other():
    class Child(fs.Module):
        pass

    parent, child = Child(), Child()
    parent.child, parent.w = child, fs.Tensor(1.0)
    child.parent, child.v = parent, fs.Tensor(2.0)
    assert parent.parameters() == [[child.v], parent.w]
    assert child.parameters() == [[parent.w], child.v]


# --- steps ------------------------------------------------------------------------------------------------------------


class Momentum(fs.SGD):
    """A user's own, with a state."""

    def bind(self, parameters):
        super().bind(parameters)
        self.flat = flatten_parameters(self.parameters, [])
        self.velocity = [np.zeros(np.shape(np.asarray(p.grad))) for p in self.flat]

    def step(self):
        for p, v in zip(self.flat, self.velocity, strict=True):
            v *= 0.9
            v += np.asarray(p.grad)
            p.data = p.data - self.lr * (float(v) if isinstance(p, fs.Tensor) else v)


class Signs(Optimizer):
    """A user's own that reads nothing but `parameters`."""

    def step(self):
        for p in flatten_parameters(self.parameters, []):
            p.data = p.data - self.lr * (fs.sign(p.grad) if isinstance(p, fs.Tensor) else np.sign(np.asarray(p.grad)))


OPTIMIZERS = [fs.SGD, fs.Adam, Momentum, Signs]


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize(
    "listing",
    [
        lambda w: [w, w],
        lambda w: [w, [w, {"w": w}]],
        lambda w: [w, w[0], w[1:]],
        lambda w: [w[0], w],
        lambda w: [w[0:2], w[1:3], w[2:]],
        lambda w: [w[::-1], w[3]],
        lambda w: [*w, w[1], *w[2:]],
        lambda w: [w[2], w[0:3], w[3], w[2]],
    ],
)
def test_steps_are_those_of_the_parameter_listed_once(make, listing):
    arrays = [fs.to_tensor([1.0, -2.0, 3.0, 0.5]) for _ in range(2)]
    optimizers = [make([arrays[0]], lr=0.1), make(listing(arrays[1]), lr=0.1)]
    for _ in range(3):
        for w, optimizer in zip(arrays, optimizers, strict=True):
            (fs.sum(w * w) + w[0] * w[1]).backward()
            optimizer.step()
        assert arrays[1].numpy().tolist() == arrays[0].numpy().tolist()
    for optimizer in optimizers:
        optimizer.zero_grad()
    assert not np.any(arrays[1].grad)


def test_sgd_by_hand():
    w, t = fs.to_tensor([1.0, 2.0]), fs.Tensor(3.0)
    for optimizer in (fs.SGD([w, w, t, w[1], t], lr=0.25), None):
        w.data, t.data = [1.0, 2.0], 3.0
        (w[0] * w[0] + w[1] * t).backward()  # 2 w0, t, w1
        if optimizer is None:
            fs.sgd([w, w, t, w[1], t], 0.25)
        else:
            optimizer.step()
        assert (w.tolist(), t.data) == ([0.5, 1.25], 2.5)


# --- fit --------------------------------------------------------------------------------------------------------------


def problem(n=30):
    draw = np.random.default_rng(0)
    return draw.normal(size=(n, 3)), draw.integers(0, 2, size=n)


class OfLeaves(fs.Module):
    """A function over leaves, some of them listed more than once."""

    def __init__(self, tied):
        draw = np.random.default_rng(4)
        self.w = fs.to_tensor(draw.normal(size=(3, 2)))
        self.s = fs.Tensor(0.5)
        if tied:
            self.rows = [self.w[0], self.w[1:], self.w[2, 1]]
            self.scale = {"s": self.s}

    def forward(self, x):
        return [fs.dot(self.w[:, k], x) * self.s + self.s for k in range(2)]


NETS = {
    "Linear": (lambda: fs.Linear(3, 2, seed=3), lambda: fs.Linear(3, 2, seed=3)),
    "MLP": (lambda: fs.MLP(3, [4, 2], seed=3), lambda: fs.MLP(3, [4, 2], seed=3)),
    "shared layer": (Shared, Unshared),
    "leaves": (lambda: OfLeaves(True), lambda: OfLeaves(False)),
}


def values(net):
    return np.concatenate([np.ravel(np.asarray(p.data)) for p in flatten_parameters(net.parameters(), [])])


def by_hand(net, X, y, optimizer, epochs, batch_size, schedule):
    """One loop for all: sums over the samples, their mean, a step."""
    order = np.random.default_rng(0)
    done, first_rate = 0, optimizer.lr
    for _ in range(epochs):
        rows = order.permutation(len(X))
        for k in range(0, len(X), batch_size):
            batch = rows[k : k + batch_size]
            optimizer.zero_grad()
            for i in batch:
                (fs.cross_entropy(net(X[i]), y[i]) / len(batch)).backward(accumulate=True)
            optimizer.lr = first_rate * (1 - done / (epochs * len(X))) if schedule else first_rate
            optimizer.step()
            done += len(batch)


@pytest.mark.dear
@pytest.mark.parametrize("schedule", ["linear", None])
@pytest.mark.parametrize("batch_size", [1, 7, 30])
@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("kind", NETS)
def test_fit_is_the_loop_by_hand_compiled_and_not(kind, make, batch_size, schedule):
    X, y = problem()
    tied, plain = NETS[kind]
    lr = 0.002 if make is Signs else 0.05
    expected = plain()
    by_hand(expected, X, y, make(expected.parameters(), lr=lr), 2, batch_size, schedule)
    bound = [None, lambda net: net.parameters(), lambda net: [net.parameters(), net.parameters()]]
    for parameters, compiled in itertools.product(bound, (True, False)):
        net = tied()
        optimizer = make(None if parameters is None else parameters(net), lr=lr)
        given = {"epochs": 2, "batch_size": batch_size, "schedule": schedule, "compile": compiled}
        fs.fit(net, X, y, optimizer=optimizer, progress=False, **given)
        tolerance = 1e-6 if make is fs.Adam else 1e-9
        close(values(net), values(expected), tolerance, what=f"compile={compiled}")


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_program_with_an_optimizer_that_lists_parts_more_than_once(batch_size):
    X, y = problem()
    runs = []
    for listing in (lambda w: [w[0], w[2]], lambda w: [w[2], w[0], w[2, 1], w[0:1], w[0, 0]]):
        w = fs.to_tensor(np.ones((3, 2)))
        program = fs.compile(lambda x, k, w=w: fs.cross_entropy([fs.dot(w[:, j], x) for j in range(2)], k))
        fs.fit(program, X, y, optimizer=fs.SGD(listing(w), lr=0.1), batch_size=batch_size, epochs=2, progress=False)
        runs.append(w.numpy())
    close(runs[1], runs[0])
    assert runs[0][1].tolist() == [1.0, 1.0]
    assert not np.any(runs[0][[0, 2]] == 1.0)


def test_listing_costs_the_tape_nothing():
    net = Shared()
    net.parameters()
    testing.collect()
    nodes = _core.tape_info()["nodes"]
    for _ in range(10):
        fs.SGD([net.parameters(), net.first.b[:2]]).zero_grad()
    testing.collect()
    assert _core.tape_info()["nodes"] == nodes
