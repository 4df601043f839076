"""Memory: bytes a node, training loops that stay flat, what is dropped is given back.

What needs a process of its own runs in one: RSS there is that of the engine and of nothing else.
"""

import os
import pathlib
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing

STRESS = _core.tape_info()["stress"]
PREAMBLE = """
    import gc, sys
    import numpy as np
    import fastscalar as fs
    from fastscalar import _core
    from fastscalar.engine import testing

    def rss():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
"""

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc/self/statm")
is_ours = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer has memory of its own beside each block"
)


def measure(code):
    """Run a program in a fresh process; the numbers that it prints."""
    folder = pathlib.Path(fs.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(folder), "FASTSCALAR_STRESS": "0"}
    program = textwrap.dedent(PREAMBLE) + textwrap.dedent(code)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return [float(x) for x in done.stdout.split()]


# --- bytes a node -------------------------------------------------------------------------------------------


def test_a_node_takes_at_most_48_bytes_with_the_column_of_its_handle():
    assert _core.tape_info()["bytes_per_node"] <= 48


def test_a_handle_takes_32_bytes():
    assert sys.getsizeof(fs.Tensor(1.0)) == fs.Tensor.__basicsize__ == 32


@pytest.mark.big
@is_ours
@needs_proc
def test_a_chain_takes_at_most_48_bytes_a_node_of_real_memory():
    """Measured after a backward, which has written every column.  Slack is not touched, so not counted."""
    (bytes_per_node,) = measure("""
        n = 8_000_000
        x = fs.Tensor(1.0)
        before = rss()
        y = x
        for _ in range(n):
            y = y + x
        y.backward()
        print((rss() - before) / n)
    """)
    assert bytes_per_node <= 48


@pytest.mark.big
@is_ours
@needs_proc
def test_a_held_leaf_array_takes_its_values_until_gradients_are_used():
    """`grad` and `handle` of a big leaf array stay untouched zero pages: 8 + 12 bytes and one of marks, not 37."""
    at_first, with_gradients = measure("""
        n = 8_000_000
        numbers = np.ones((n // 10, 10))
        before = rss()
        w = fs.to_tensor(numbers)
        print((rss() - before) / n)
        (w * 2.0).sum().backward()
        w.grad[0, 0]
        print((rss() - before) / n)
    """)
    assert at_first < 22
    assert with_gradients < 100  # a second array and its columns besides


# --- flat ---------------------------------------------------------------------------------------------------


@pytest.mark.big
@is_ours
@needs_proc
def test_rss_grows_by_less_than_5_mb_over_20_000_further_training_steps():
    (grown,) = measure("""
        net = fs.MLP(784, [256, 10], seed=0)
        rng = np.random.default_rng(0)
        X = rng.random((500, 784)) * (rng.random((500, 784)) < 0.19)

        def train(steps):
            for k in range(steps):
                loss = fs.cross_entropy(net(X[k % 500]), k % 10)
                loss.backward()
                fs.sgd(net.parameters(), lr=0.001)

        train(1000)
        before = rss()
        train(20_000)
        print(rss() - before)
    """)
    assert grown < 5e6


@pytest.mark.big
@is_ours
@needs_proc
def test_rss_is_flat_over_scalar_loops_with_attributes_and_no_grad():
    (grown,) = measure("""
        w = [fs.Tensor(0.1 * k) for k in range(100)]

        def train(steps):
            for k in range(steps):
                s = fs.Tensor(0.0)
                s.step = k
                for x in w:
                    s = s + x * 0.5
                s.backward()
                s.note = [k]
                with fs.no_grad():
                    for x in w:
                        x * 2.0
                fs.sgd(w, 1e-9)

        train(2000)
        before = rss()
        train(10_000)
        print(rss() - before)
    """)
    assert grown < 5e6


@pytest.mark.big
@needs_proc
def test_memory_of_large_graphs_is_used_again_and_given_back():
    one, five, capacity = measure("""
        x = fs.Tensor(1.0)

        def graph():
            y = x
            for _ in range(4_000_000):
                y = y + x
            y.backward()

        before = rss()
        y = x
        for _ in range(4_000_000):
            y = y + x
        y.backward()
        print(rss() - before)
        del y
        for _ in range(5):
            graph()
        print(rss() - before)
        testing.collect()
        print(_core.tape_info()["capacity"])
    """)
    assert five < 3 * one  # a dead one stays until as much has been promoted again
    assert capacity < 200_000


def test_the_tape_of_a_training_loop_is_flat():
    net = fs.MLP(20, [8, 3], seed=0)
    x = np.linspace(0, 1, 20)
    nodes = []
    for k in range(30_000 if not STRESS else 300):
        loss = fs.cross_entropy(net(x), k % 3)
        loss.backward()
        fs.sgd(net.parameters(), 0.01)
        nodes.append(_core.tape_info()["nodes"])
    assert max(nodes[len(nodes) // 2 :]) <= max(nodes[: len(nodes) // 2]) + 100
    del loss
    testing.collect()
    info = _core.tape_info()
    assert info["wide_instructions"] <= 4 + info["nodes"] // 2


def test_array_operations_make_collections_due_by_their_bytes():
    """Few nodes, many numbers: a loss over 100,000 constants is one node and 2.4 MB."""
    if STRESS:
        pytest.skip("stress mode collects at every safepoint anyway")
    x, y = fs.to_tensor(np.ones(100_000)), np.zeros(100_000)
    held = 0
    for _ in range(200):
        fs.squared_loss(x, y)
        held = max(held, _core.tape_info()["wide_bytes"])
    assert held < 64e6


def test_full_collections_of_a_graph_that_grows_are_each_for_twice_as_many():
    """Each goes over all that is alive: at every so many nodes they would take a square of the time."""
    if STRESS:
        pytest.skip("stress mode collects at every safepoint anyway")
    (full,) = measure("""
        y = fs.Tensor(1.0)
        for _ in range(2_000_000):
            y = y * 0.5
        print(_core.tape_info()["full_collections"])
    """)
    assert 2 <= full <= 6                        # 15 at every 131,072 nodes


def test_array_operations_that_die_young_make_no_full_collection_due():
    """What a young collection has freed is not counted: nearly a gigabyte here, where 32 MB would do."""
    (full,) = measure("""
        x, y = fs.to_tensor(np.ones(100_000)), np.zeros(100_000)
        for _ in range(400):
            fs.squared_loss(x, y)
        print(_core.tape_info()["full_collections"])
    """)
    assert full == 0


def test_leaves_do_not_put_full_collections_off():
    """Weights are alive, whatever becomes of the graphs: those decide when it pays to look at all."""
    (full,) = measure("""
        weights = fs.to_tensor(np.zeros(3_000_000))
        for _ in range(30):
            y = fs.Tensor(1.0)
            for _ in range(50_000):              # too long to die young
                y = y * 0.5
        print(_core.tape_info()["full_collections"])
    """)
    assert full >= 5


def test_holding_a_loss_holds_its_graph():
    testing.collect()
    before = _core.tape_info()["nodes"]
    x = fs.Tensor(2.0)
    loss = x
    for _ in range(100):
        loss = loss * 1.5
    testing.collect()
    assert _core.tape_info()["nodes"] - before >= 201
    loss.backward()
    assert x.grad == 1.5**100
    loss = loss.detach()
    testing.collect()
    assert _core.tape_info()["nodes"] - before <= 10


def test_what_an_array_element_needs_is_all_that_is_kept():
    testing.collect()
    before = _core.tape_info()
    x = fs.to_tensor(np.ones(50))
    y = (x * 2.0).relu()
    element = y[3]
    del x, y
    testing.collect()
    assert _core.tape_info()["wide_instructions"] == before["wide_instructions"] + 3
    element.backward()
    assert element._parents[0]._parents[0].grad == 2.0
    del element
    testing.collect()
    assert _core.tape_info()["wide_instructions"] == before["wide_instructions"]


# --- at the edges of the nursery ----------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1])
def test_the_last_nodes_before_a_safepoint_count_as_written(offset):
    """A scalar operation writes up to two nodes from the limit on.  An array that begins there has gradient zero."""
    (gradients,) = measure(f"""
        held = [fs.Tensor(1.0) for _ in range(1 + {offset})]
        while _core.tape_info()["collections"] == 0:
            y = held[0] + 1.0
            y.grad = 9.0
            held.append(y)
            if _core.tape_info()["nodes"] > 32_700:
                testing.check()
        held.clear()
        del y
        testing.collect()
        arrays = [fs.to_tensor(np.ones(1000)) for _ in range(40)]
        testing.check()
        print(sum(np.abs(np.asarray(a.grad)).sum() for a in arrays))
    """)
    assert gradients == 0.0


def test_operations_never_see_a_collection_between_their_operands():
    """Every phase of a loop is hit by a collection at some length of what came before."""
    for before in range(0, 60 if not STRESS else 5, 7):
        [fs.Tensor(0.0) for _ in range(before)]
        x = fs.Tensor(1.5)
        total = fs.Tensor(0.0)
        for k in range(20_000 if not STRESS else 200):
            total = total * 0.5 + (x * 2.0 - 1.0) / 2 + (-x).relu() + k * 0.0
        total.backward()
        assert total.data == pytest.approx(2.0)
        assert x.grad == pytest.approx(2.0)
