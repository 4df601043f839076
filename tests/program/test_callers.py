"""Programs as people use them: inside of others, as methods, copied; text of numbers, large tables, ties, arguments."""

import copy
import math
import re
import warnings

import numpy as np
import pytest

import fastscalar as fs
from compiled import bits, check, close, compiled_only
from fastscalar import _core
from fastscalar import math as fsmath
from fastscalar.engine._array_ops import affine
from fastscalar.nn import trainers
from fastscalar.program.rows import Rows

pytestmark = pytest.mark.skipif(_core.tape_info()["stress"], reason="training runs, in stress mode")


def fit(net, X, y, **keywords):
    return fs.fit(net, X, y, progress=False, **keywords)


# --- programs and other things that take functions ---


def test_a_program_inside_of_another_is_its_function():
    """Called before or not, with arguments of the outer one or with plain numbers."""
    w = fs.Tensor(3.0)
    inner = fs.compile(lambda x: x * w)
    assert inner(1.0) == 3.0
    outer = fs.compile(lambda x: inner(x) + inner(2.0) + x)
    values, slopes = outer.value_and_grad(np.array([2.0, 5.0]))
    assert values.tolist() == [14.0, 26.0]
    assert slopes.tolist() == [4.0, 4.0]
    outer.backward(np.array([2.0, 5.0]))
    assert w.grad == 11.0
    w.data = 10.0
    assert outer.map(np.array([2.0])).tolist() == [42.0]


def test_a_program_inside_of_a_function_that_runs_eagerly():
    w = fs.Tensor(3.0)
    inner = fs.compile(lambda x: x * w)
    inner(1.0)

    def triple(x):
        return fs.Tensor(3.0 * x.data, (x,), "triple")

    outer = fs.compile(lambda x: triple(x) + inner(2.0))
    with pytest.warns(fs.CompileWarning, match="triple"):
        outer.backward(np.array([1.0, 4.0]))
    assert w.grad == 4.0


@pytest.mark.parametrize("method", ["map", "value_and_grad", "backward"])
def test_rows_inside_of_another_program(method):
    inner = fs.compile(lambda x: x * 2.0)
    outer = fs.compile(lambda x: x * getattr(inner, method)([1.0, 2.0])[0])
    with pytest.raises(RuntimeError, match=rf"<lambda>\.{method} inside a compiled function"):
        outer(1.0)


def test_derivatives_of_a_program_are_those_of_its_function():
    cube = fs.compile(lambda x: x * x * x)
    assert cube(2.0) == 8.0
    assert fs.grad(cube)(2.0) == 12.0
    assert fs.hessian(cube)(2.0) == 12.0
    x = fs.Tensor(2.0)
    cube(x).backward()
    assert x.grad == 12.0
    dot = fs.compile(lambda x: fs.dot(x, x))
    x = fs.to_tensor([1.0, 2.0])
    dot(x).backward()
    assert x.grad.tolist() == [2.0, 4.0]


class Scaled(fs.Module):
    def __init__(self, w):
        self.w = fs.Tensor(w)

    @fs.compile
    def loss(self, x):
        """What it costs."""
        return self.w * x


def test_methods():
    """Each object has its own program; the class has the undecided one."""
    a, b = Scaled(2.0), Scaled(5.0)
    assert (a.loss(3.0), b.loss(3.0)) == (6.0, 15.0)
    assert a.loss is a.loss
    assert a.loss is not b.loss
    assert a.loss.backward(np.array([1.0, 2.0])).tolist() == [2.0, 4.0]
    assert (a.w.grad, b.w.grad) == (3.0, 0.0)
    assert Scaled.loss.__doc__ == "What it costs."
    assert len(a.parameters()) == 1


def test_copies_read_leaves_of_their_own():
    a = Scaled(2.0)
    a.loss(1.0)
    b = copy.deepcopy(a)
    b.w.data = 7.0
    assert (a.loss(1.0), b.loss(1.0)) == (2.0, 7.0)
    assert copy.copy(a.loss).report() == a.loss.report()


# --- numbers that become text, integers ---


def test_the_text_of_a_number_is_a_decision():
    f = fs.compile(lambda x: x * float(str(x).split("=")[1][:-1]))
    assert f.map(np.array([2.0, 3.0])).tolist() == [4.0, 9.0]
    g = fs.compile(lambda x: x * float(f"{x}"[12:-1]))
    assert g.map(np.array([2.0, 3.0])).tolist() == [4.0, 9.0]


@pytest.mark.parametrize("text", [str, repr, lambda k: f"{k}", "{}".format, "%s".__mod__, "%d".__mod__])
def test_the_text_of_an_integer_is_a_decision(text):
    table = {"1": 2.0, "2": 5.0}
    f = fs.compile(lambda x, k: x * table[text(k)])
    assert f.map(np.ones(3), np.array([1, 2, 1])).tolist() == [2.0, 5.0, 2.0]


INTEGERS = [
    lambda k: k & 3, lambda k: k | 8, lambda k: k ^ 5, lambda k: k << 2, lambda k: k >> 1, lambda k: 40 >> k,
    lambda k: ~k, lambda k: divmod(k, 3)[0] + 10 * divmod(k, 3)[1], lambda k: divmod(20, k)[1], round,
    lambda k: k.bit_length(), lambda k: copy.deepcopy(k) + 1,
]  # fmt: skip


@pytest.mark.parametrize("f", INTEGERS)
def test_operations_of_integers(f):
    k = np.array([1, 2, 5, 7])
    p = fs.compile(lambda x, k: x * f(k))
    assert p.map(np.ones(4), k).tolist() == [float(f(int(i))) for i in k]


def test_an_integer_is_a_result():
    f = fs.compile(lambda k: k)
    assert f(3) == 3.0
    assert f.map(np.array([4, 5])).tolist() == [4.0, 5.0]


def test_integers_that_do_not_fit():
    f = fs.compile(lambda x, k: x * k)
    with pytest.raises(ValueError, match=r"argument 1: expected whole numbers below 2\*\*63, got 9223372036854775808"):
        f.map(np.ones(1), np.array([2**63], np.uint64))


def test_many_integers_in_a_row():
    table = fs.to_tensor(np.arange(10.0))
    f = fs.compile(lambda k: sum(table[i] for i in k))
    rows = np.random.default_rng(0).integers(0, 10, (7, 200))
    assert f.map(rows).tolist() == rows.sum(axis=1).tolist()
    history = fit(fs.compile(lambda k, y: (sum(table[i] for i in k) - y) ** 2 * 1e-4), rows, np.zeros(7), epochs=2)
    assert history.loss[1] < history.loss[0]


def test_many_rows_of_a_large_table():
    """Recording costs what is gathered, not gathers times the table; the same row is gathered once."""
    table = fs.to_tensor(np.random.default_rng(0).normal(size=(4000, 8)))
    f = fs.compile(lambda k: sum(sum(table[i][d] for i in k) ** 2 for d in range(8)))
    rows = np.random.default_rng(1).integers(0, 4000, (5, 30))
    f(rows[0])
    graph = next(iter(f._caches.values())).specializations[0].graph
    assert len({id(item[3]) for item in graph.items}) == 1
    close(f.map(rows), (table.numpy()[rows].sum(axis=1) ** 2).sum(axis=1), 1e-12)
    assert "30 gather(8)" in f.report()
    f.backward(rows)
    expected = np.zeros((4000, 8))
    for some in rows:
        np.add.at(expected, some, 2 * table.numpy()[some].sum(axis=0))
    close(np.asarray(table.grad), expected, 1e-12)


def layer(x, w):
    return affine(x, w, [0.25] * 4)


# What else reads the 4 x 4 weights of a layer whose outputs are z, and as how many nodes they are recorded.
READERS = {
    "nobody": (lambda k, z, w: fs.sum(z), 1),
    "the layer again": (lambda k, z, w: fs.sum(layer(z, w)), 1),
    "a gather": (lambda k, z, w: fs.dot(z, w[k]), 1),
    "a layer of what is gathered": (lambda k, z, w: fs.dot(layer(w[k], w), z), 1),
    "the first element": (lambda k, z, w: fs.sum(z) * w[0][0], 16),
    "one in the middle": (lambda k, z, w: fs.sum(z) * w[1][2], 16),
    "the last element": (lambda k, z, w: fs.sum(z) * w[3][3], 16),
    "a decision": (lambda k, z, w: fs.sum(z) if w[2][1] > -9.0 else z[0], 16),
    "a penalty": (lambda k, z, w: fs.sum(z) + fs.sum(w * w), 16),
    "a layer of its columns": (lambda k, z, w: fs.sum(layer(z, [[w[i][j] for i in range(4)] for j in range(4)])), 16),
    "a layer of its rows": (lambda k, z, w: fs.sum(layer(w, w)) * z[2], 16),
    "a layer of one row": (lambda k, z, w: fs.sum(layer(w[1], w)) * z[2], 16),
}


@pytest.mark.parametrize("reader", READERS)
def test_weights_are_one_node_unless_somebody_reads_single_ones(reader):
    """Millions of weights are not recorded one by one; whatever else reads them, the numbers are the same."""
    read, nodes = READERS[reader]
    rng = np.random.default_rng(0)
    W, X, rows = rng.normal(size=(4, 4)), rng.normal(size=(5, 4)), rng.integers(0, 4, 5)
    before, w, after = fs.Tensor(0.5), fs.to_tensor(W), fs.Tensor(1.5)
    f = lambda x, k: read(k, layer(x * before, w).tanh(), w) * after
    program = check(f, [before, w, after], X, rows)
    graph = next(iter(program._caches.values())).specializations[0].graph
    (which,) = [k for k, leaves in enumerate(graph.captures) if isinstance(leaves, fs.TensorArray)]
    assert ((graph.a == which) & np.isin(graph.op, [-1, -5])).sum() == nodes      # PARAMETER, BLOCK
    found = []
    for compile in (True, False):                                         # one row of it is trained, the others are not
        w.data, after.data = W, 1.5
        fit(program, X, rows, optimizer=fs.SGD([w[1], after], lr=0.01), epochs=2, batch_size=2, compile=compile)
        found.append(np.append(w.numpy(), after.data))
    close(*found)
    assert not np.array_equal(found[0][4:8], W[1])
    assert np.array_equal(np.delete(found[0][:16].reshape(4, 4), 1, axis=0), np.delete(W, 1, axis=0))


def test_weights_that_are_an_argument():
    rng = np.random.default_rng(0)
    f = lambda x, w: fs.sum(layer(x, w).tanh() * fs.dot(w[1], x))
    check(f, [], rng.normal(size=(5, 4)), rng.normal(size=(5, 4, 4)))


def test_an_array_that_is_weights_and_a_table_of_other_rows():
    rng = np.random.default_rng(0)
    tables = fs.to_tensor(rng.normal(size=(1, 4, 4)))
    f = lambda x, k: fs.dot(layer(x, tables[0]).tanh(), tables[k][2])
    check(f, [tables], rng.normal(size=(5, 4)), np.zeros(5, int))


# --- arguments ---


def test_without_arguments():
    w = fs.Tensor(2.0)
    f = fs.compile(lambda: w * w)
    assert [f(), f()] == [4.0, 4.0]
    w.data = 3.0
    assert f() == 9.0
    with pytest.raises(ValueError, match="at least one array"):
        f.map()


@pytest.mark.parametrize("shape", [(0,), (0, 3), (0, 2, 2)])
def test_no_rows(shape):
    with pytest.raises(ValueError, match="the arrays are empty"):
        fs.compile(lambda x: x).map(np.empty(shape))


@pytest.mark.parametrize("argnums", [None, 1.0, "0", (0.5,)])
def test_argnums_that_are_no_numbers(argnums):
    f = fs.compile(lambda x: x * 2.0)
    with pytest.raises(TypeError, match=r"argnums: expected a whole number or several"):
        f.value_and_grad(np.ones(2), argnums=argnums)


def test_an_optimizer_that_is_none():
    net = fs.MLP(2, [3, 2], seed=0)
    with pytest.raises(TypeError, match="optimizer: expected an Optimizer"):
        fit(net, np.ones((2, 2)), np.zeros(2, int), optimizer="sgd")


# --- errors, ties ---


@pytest.mark.parametrize(
    "f",
    [
        lambda x: 1.0 / x**2,
        lambda x: 1.0 / fsmath.pow(x, 2),
        lambda x: 1.0 / (x**2 + (3.0 * x) ** 2 + x),
    ],
)
def test_a_square_that_overflows_raises(f):
    with pytest.raises(OverflowError, match=r"^row 1: 1e\+200 \*\* 2.0"):
        fs.compile(f).map(np.array([1.0, 1e200]))


def test_a_product_that_overflows_is_infinite():
    assert fs.compile(lambda x: 1.0 / (x * x)).map(np.array([1.0, 1e200])).tolist() == [1.0, 0.0]


def test_a_row_at_a_tie():
    """A replay rounds in another way than the decision was made by: such a row has the value of the function, and does
    not use up recordings."""

    def f(x):
        mean = sum(x[j] for j in range(6)) / 6
        variance = sum((x[j] - mean) ** 2 for j in range(6)) / 6
        return (x[0] - mean) / fsmath.sqrt(variance) if variance > 0 else x[0] * 0

    numbers = np.random.default_rng(0).normal(size=40)
    rows = np.repeat(numbers[:, None], 6, axis=1)
    p = fs.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p.map(rows)
        p.value_and_grad(rows)
    assert len(p.report().splitlines()) <= 3      # two recordings, and where they part


# --- fit ---


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (8, 1), (8, 2)])
def test_where_fit_looks_at_the_clock_does_not_matter(monkeypatch, batch_size, threads):
    X = np.random.default_rng(0).normal(size=(4000, 6))
    y = np.arange(4000) % 3
    found = set()
    for portion in (0.1, 0.0, 1e-4):
        monkeypatch.setattr(trainers, "PORTION", portion)
        net = fs.MLP(6, [8, 3], seed=1)
        with compiled_only():
            history = fit(net, X, y, epochs=2, batch_size=batch_size, threads=threads)
        found.add((tuple(history.loss), *(bits(layer.w.numpy()) for layer in net.linears)))
    assert len(found) == 1


def test_leaves_that_only_later_rows_read_are_trained():
    a, b = fs.Tensor(1.0), fs.Tensor(1.0)
    f = fs.compile(lambda x, k: (a * x - 3.0) ** 2 if x > 0 else (b * x - 3.0) ** 2)
    fit(f, np.array([1.0, -1.0] * 20), np.zeros(40), shuffle=False)
    assert a.data > 2.0
    assert b.data < -2.0


@pytest.mark.parametrize("batch_size", [1, 10])
@pytest.mark.parametrize("make", [fs.SGD, fs.Adam])
def test_leaves_that_only_eager_rows_read_are_trained(make, batch_size):
    """More ways than there are recordings: the same as if the optimiser had been given all of them."""
    found = []
    for given in (False, True):
        table = [fs.Tensor(i / 50) for i in range(100)]
        f = fs.compile(lambda x, y, table=table: (y * table[int(x)] - 1.0) ** 2)
        optimizer = make(table if given else None, lr=0.1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit(f, np.arange(100) + 0.5, np.ones(100), epochs=3, optimizer=optimizer, batch_size=batch_size)
        said = [(w.filename, "more than 64 ways" in str(w.message)) for w in caught]
        assert said == [(__file__, True)]
        assert all(t.grad == 0.0 for t in table)
        assert table[99].data < 1.97
        found.append([t.data for t in table])
    close(*found, 1e-12)


@pytest.mark.parametrize("keywords", [{}, {"compile": False}])
def test_a_program_with_an_operation_of_ones_own_finds_what_it_trains(keywords):
    w = fs.Tensor(1.0)
    square = fs.custom_op(lambda x: x * x, lambda x: 2 * x, name="square")
    f = fs.compile(lambda x, y: (square(w) * x - y) ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fs.CompileWarning)
        fit(f, np.ones(60), np.full(60, 4.0), epochs=5, **keywords)
    assert math.isclose(w.data, 2.0, rel_tol=1e-6)


def test_replays_of_many_batch_sizes_are_not_kept():
    w = fs.to_tensor(np.zeros(4))
    f = fs.compile(lambda x, y: (fs.dot(w, x) - y) ** 2)
    for size in range(1, 40):
        fit(f, np.ones((40, 4)), np.ones(40), epochs=1, batch_size=size)
    [site] = f._caches.values()
    assert sum(map(len, site.specializations[0].free.values())) <= 8


def test_the_line_where_recordings_part_is_named():
    def f(x):
        total = x
        for k in range(70):
            if x > k:                            # here
                total = total + k
        return total

    with pytest.warns(fs.CompileWarning) as caught:
        fs.compile(f).map(np.arange(80.0))
    line = f.__code__.co_firstlineno + 3
    assert re.search(rf"{re.escape(__file__)}:{line}\b", str(caught[0].message))
    assert caught[0].filename == __file__


def test_an_interrupt_between_two_rows_that_run_eagerly_leaves_nothing_open() -> None:
    """The error is kept, as an interactive session keeps its last one: what it refers to must not stay open."""
    program = fs.compile(lambda x: x * x.data)
    rows = np.arange(1.0, 3001.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            program.map(rows)                     # by now there are no recordings
    assert next(iter(program._caches.values())).eager

    kept = []
    try:
        with program._called(Rows((rows,), "map"), np.arange(5)) as calls:
            for _ in calls:
                raise KeyboardInterrupt           # where a row's result is put away
    except KeyboardInterrupt as error:
        kept.append(error)
    assert kept
    assert type(program(2.0)) is float
    assert np.isfinite(program.map(rows)).all()
