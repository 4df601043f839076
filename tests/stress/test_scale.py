"""Ten million nodes; backward costs what it reaches; nothing recurses and nothing grows quadratically."""

import gc
import math

import numpy as np
import pytest

import clock
import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing

STRESS = _core.tape_info()["stress"]
TEN_MILLION = 10_000_000


def released(nodes_before):
    """After a collection, nothing of the graph is left."""
    testing.collect()
    return _core.tape_info()["nodes"] <= nodes_before + 100


@pytest.fixture
def nodes():
    testing.collect()
    return _core.tape_info()["nodes"]


# --- ten million nodes --------------------------------------------------------------------------------------


@pytest.mark.big
def test_ten_million_nodes_deep(nodes):
    x = fs.Tensor(1.0)
    y = x
    for _ in range(TEN_MILLION):
        y = y + x
    assert _core.tape_info()["nodes"] >= TEN_MILLION
    y.backward()
    assert x.grad == y.data == TEN_MILLION + 1.0
    del y
    assert released(nodes)
    assert x.grad == TEN_MILLION + 1.0


@pytest.mark.big
def test_ten_million_nodes_wide(nodes):
    """One leaf with ten million children that one node after another adds up; every handle is held."""
    x = fs.Tensor(2.0)
    children = [x * k for k in range(TEN_MILLION // 2)]
    total = fs.Tensor(0.0)
    for child in children:
        total = total + child
    total.backward()
    n = len(children)
    assert x.grad == n * (n - 1) / 2
    assert children[0].grad == children[-1].grad == 1.0
    children.clear()
    del total, child
    assert released(nodes)


@pytest.mark.big
def test_ten_million_leaves_in_an_array(nodes):
    w = fs.to_tensor(np.ones((TEN_MILLION // 10, 10)))
    y = ((w * w).relu() + 1.0).sum()
    y.backward()
    assert y.data == 2.0 * TEN_MILLION
    assert float(np.asarray(w.grad).sum()) == 2.0 * TEN_MILLION
    fs.sgd(w, 0.25)
    assert w.data[-1, -1] == 0.5
    del w, y
    assert released(nodes)


@pytest.mark.big
def test_ten_million_nodes_by_index_lists(nodes):
    """Operands that are not runs: the elements of one array and single Tensors, mixed."""
    a = [fs.Tensor(1.0) for _ in range(TEN_MILLION // 4)]
    y = fs.squared_loss(a, a[::-1]) + fs.squared_loss(a, [0.0] * len(a))
    y.backward()
    assert a[7].grad == 1.0
    del a, y
    assert released(nodes)


def test_a_layer_on_ten_thousand_rows(nodes):
    rows = 10_000 if not STRESS else 100
    net = fs.MLP(20, [30, 10], seed=0)
    X = np.random.default_rng(0).normal(size=(rows, 20))
    loss = fs.cross_entropy(net(X), np.arange(rows) % 10)
    loss.backward()
    gradient = net.linears[0].w.grad.copy()
    parts = np.zeros_like(gradient)
    for k in range(0, rows, rows // 10):
        part = fs.cross_entropy(net(X[k : k + rows // 10]), np.arange(k, k + rows // 10) % 10)
        part.backward()
        parts += np.asarray(net.linears[0].w.grad) / 10
    np.testing.assert_allclose(gradient, parts, rtol=1e-9, atol=1e-12)
    del loss, part, net
    assert released(nodes)


# --- cost ---------------------------------------------------------------------------------------------------


def graph(size):
    x = fs.Tensor(1.0)
    y = x
    for _ in range(size // 2):
        y = y * x + x
    return x, y


def test_ten_thousand_held_graphs_of_a_thousand_nodes_backward_in_linear_time():
    """The last graphs cost what the first cost: backward does not look at the other graphs on the tape."""
    count, size = (10_000, 1000) if not STRESS else (20, 50)
    graphs = [graph(size) for _ in range(count)]
    first, last = graphs[: count // 10], graphs[-(count // 10) :]

    def run(some):
        for _, y in some:
            y.backward()

    run(graphs)
    if not STRESS:
        assert clock.ratio(lambda: run(last), lambda: run(first), limit=2.0, least=9) < 2.0
    gradients = {x.grad for x, _ in graphs}
    assert len(gradients) == 1


@pytest.mark.big
def test_building_graphs_that_are_held_takes_linear_time():
    """Seven million nodes; at the end each costs at most twice what it cost at the beginning."""
    graphs = []

    def build():
        graphs.extend(graph(1000) for _ in range(500))

    times = [clock.seconds(build) for _ in range(14)]
    assert min(times[-5:]) < 2.0 * min(times[:5])


@pytest.mark.big
def test_a_small_backward_beside_ten_million_unrelated_nodes_costs_what_it_costs_alone():
    """At most 1.5 times, with the unrelated nodes older, younger, and between the nodes of the graph."""

    def time_of(y, below=math.inf):
        def many():
            for _ in range(1000):
                y.backward()

        return clock.best(many, below)

    def small():
        x = fs.Tensor(1.0)
        y = x
        for _ in range(50):
            y = y * x + x
        return y

    alone = small()
    reference = time_of(alone)
    x = fs.Tensor(1.0)
    start = x * 1.0
    y = start
    for k in range(TEN_MILLION):
        y = y + x
        if k == TEN_MILLION // 2:
            middle = start * x
    after = small()
    between = small() * middle  # reaches over the whole tape
    graphs = {"older nodes": after, "nodes between": between, "younger nodes": alone}
    times = {where: time_of(graph, 1.5 * reference) for where, graph in graphs.items()}
    assert _core.tape_info()["nodes"] > TEN_MILLION
    del y
    testing.collect()
    reference = max(reference, time_of(alone))  # before and after: the clock of the machine may have changed
    assert all(t < 1.5 * reference for t in times.values()), (reference, times)


@pytest.mark.big
def test_steps_beside_many_live_rows_cost_what_they_cost_alone():
    """60,000 rows made with to_tensor are old arrays: neither a collection nor a backward looks at them."""
    net = fs.MLP(784, [32, 10], seed=0)
    x = np.random.default_rng(0).random(784) * (np.arange(784) % 5 == 0)

    def train():
        for _ in range(500):
            fs.cross_entropy(net(x), 3).backward()
            fs.sgd(net.parameters(), 1e-6)

    train()
    alone = clock.best(train, least=7)
    rows = [fs.to_tensor(np.ones(50)) for _ in range(60_000)]
    train()
    beside = clock.best(train, 1.5 * alone, least=7)
    assert len(rows) == 60_000
    assert beside < 1.5 * alone


# --- release ------------------------------------------------------------------------------------------------


@pytest.mark.big
@pytest.mark.parametrize("collector", [True, False], ids=["collector on", "collector off"])
def test_dropping_a_chain_of_three_million_does_not_recurse(collector, nodes):
    was = gc.isenabled()
    (gc.enable if collector else gc.disable)()
    try:
        x = fs.Tensor(1.0)
        held = [x]
        y = x
        for _ in range(3_000_000):
            y = y + 1.0
            held.append(y)
        y.backward()
        del y
        held.clear()  # every handle, old ones first
        assert released(nodes)
        y = x
        for _ in range(3_000_000):
            y = -y
        y.tail = "held by an attribute"
        del x, y
        assert released(nodes)
    finally:
        (gc.enable if was else gc.disable)()


def test_a_list_of_parameters_nested_a_hundred_thousand_deep_is_no_recursion():
    w = fs.Tensor(1.0)
    nested = [w]
    for _ in range(100_000):
        nested = [nested]
    w.grad = 2.0
    fs.sgd(nested, 0.25)
    assert (w.data, w.grad) == (0.5, 0.0)
    while isinstance(nested, list):  # CPython itself would recurse
        nested = nested.pop()
