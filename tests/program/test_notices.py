"""What a program has to notice: lost gradients, frozen randomness, decisions, indices outside, leaves that move."""

import array
import contextlib
import decimal
import itertools
import json
import math as pymath
import random
import statistics
import subprocess
import sys
import textwrap
import threading
import warnings

import numpy as np
import pytest

import fastscalar as fs
from compiled import compiled_only, counted
from fastscalar import math
from fastscalar.engine import testing
from fastscalar.program import recorded, rolling

ROWS = np.array([0.5, 1.0, 2.0])
X = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 4.0]])


def said(call, category):
    """The messages of a category that a call gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [w for w in caught if issubclass(w.category, category)]


def run(source):
    """A script in an interpreter of its own, which may die."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-500:], done.stderr[-1500:])
    return done.stdout


# --- gradients that get lost ------------------------------------------------------------------------------------------


def filled(x):
    table = np.zeros(2)
    table[0] = x
    return x * table[0]


def number(a):
    return float(a)


def copied(x):
    a = np.zeros(2)
    np.copyto(a, x, casting="unsafe")
    return a[0]


LOST = {
    "math.exp": lambda x: x * pymath.exp(x),
    "math.sqrt": lambda x: x * pymath.sqrt(x),
    "float": lambda x: x * float(x),
    "np.float64": lambda x: x * np.float64(x),
    "np.asarray": lambda x: x * np.asarray([x], float)[0],
    "a filled array": filled,
    "np.exp of float": lambda x: x * np.exp(float(x)),
    "hidden in a call": lambda x: x + pymath.hypot(x, 1.0),
    "where nothing was lost before": lambda x: x * (number(fs.Tensor(2.0)) + number(x)),
    "what was chosen": lambda x: x * float(fs.where(x > -1e9, x * 2.0, 1.0)),
    "the largest": lambda x: x * float(fs.max([-1e9, x, x - 1.0])),
    **(FOR_USERS := {
        "np.full": lambda x: x * np.full(2, x, dtype=float)[0],
        "np.copyto": lambda x: x * copied(x),
        "statistics": lambda x: x * statistics.fmean([x, x]),
        "json": lambda x: x * float(json.dumps({"x": float(x)})[6:-1]),
        "np.linspace": lambda x: x * np.linspace(0.0, float(x), 3)[-1],
        "array.array": lambda x: x * array.array("d", [x])[0],
        "decimal": lambda x: x * float(decimal.Decimal(float(x))),
    }),
}


@pytest.mark.parametrize("method", ["value_and_grad", "backward"])
@pytest.mark.parametrize("name", LOST)
def test_a_lost_gradient_is_said_as_fs_grad_says_it(name, method):
    f, w = LOST[name], fs.Tensor(1.0)
    program = fs.compile(lambda x: f(x * w))
    expected = said(lambda: fs.grad(f)(0.5), fs.GradientLossWarning)
    found = said(lambda: getattr(program, method)(ROWS), fs.GradientLossWarning)
    assert expected, "fs.grad says nothing: the test is wrong"
    assert found, "the program says nothing"
    assert {(w.filename, w.lineno) for w in found} == {(w.filename, w.lineno) for w in expected}
    if name in FOR_USERS:                         # not where NumPy's or Python's own code has read it
        assert {w.filename for w in found} == {__file__}


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
@pytest.mark.parametrize("short_way", [False, True])
@pytest.mark.parametrize("method", ["value_and_grad", "backward", "vjp"])
@pytest.mark.parametrize("name", LOST)
def test_a_loss_that_only_a_row_meets_which_runs_eagerly(name, method, short_way, monkeypatch):
    """The program has fallen back, and no recording comes to the line."""
    f, w = LOST[name], fs.Tensor(1.0)
    program = fs.compile(lambda x: f(x * w) if x.data > 1.0 else x * w)
    more = {"cotangents": 1.0} if method == "vjp" else {}
    call = getattr(program, method)
    monkeypatch.setattr(recorded, "SPECIALIZATIONS", 1)
    if short_way:                                 # of calls after those that went the long one
        assert not said(lambda: [call(ROWS[:2], **more) for _ in range(3)], fs.GradientLossWarning)
    expected = said(lambda: fs.grad(f)(2.0), fs.GradientLossWarning)
    found = said(lambda: [call(ROWS, **more) for _ in range(3)], fs.GradientLossWarning)
    assert {(w.filename, w.lineno) for w in found} == {(w.filename, w.lineno) for w in expected}
    assert len(found) == 1


KEPT = fs.Tensor(2.0)


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
@pytest.mark.parametrize("f", [
    lambda x: x * float(x.detach()), lambda x: x * float(fs.Tensor(3.0)), lambda x: x * float(fs.argmax([x, x * 2.0])),
    lambda x: x * float(fs.where(x > -1e9, 2.0, x)), lambda x: x * x.data, lambda x: x * round(x.data),
])  # fmt: skip
def test_what_rows_that_run_eagerly_do_not_lose(f, monkeypatch):
    program = fs.compile(lambda x: f(x) * KEPT if x.data > 1.0 else x)
    monkeypatch.setattr(recorded, "SPECIALIZATIONS", 1)
    for method in ("value_and_grad", "backward"):
        assert not said(lambda m=method: [getattr(program, m)(ROWS) for _ in range(3)], fs.GradientLossWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("error", fs.GradientLossWarning)
        assert float(KEPT * 1.0) == 2.0           # outside of a row


@pytest.mark.parametrize("derivative", ["value_and_grad", "backward", "jacobian", "fs.grad in it"])
@pytest.mark.parametrize("name", ["where", "max", "in a loop in it", "replaced"])
@pytest.mark.parametrize("lost", [False, True])
def test_losses_behind_loops_are_those_of_their_steps(name, derivative, lost, monkeypatch):
    """What a step did not choose, or does not read of the state, has no gradient to lose."""
    monkeypatch.setattr(rolling, "UNROLLED", 0)
    w, y = fs.Tensor(1.5), 1.0 if lost else -1.0
    step = {
        "where": lambda x, z: z * 0.5 + fs.where(z * 0.0 + y > 0.0, w * x, 0.0),
        "max": lambda x, z: z * 0.5 + fs.max([w * x * y - 100.0 + 200.0 * (y > 0), 0.0]),
        "in a loop in it": lambda x, z: fs.loop(2, lambda u: u * 0.5 + fs.where(u * 0.0 + y > 0.0, w * x, 0.0), z),
        "replaced": lambda x, z: z * x if lost else w.detach() * 1.0,
    }[name]

    def f(x):
        return x * x + float(fs.loop(3, lambda z: step(x, z), x if name == "replaced" else 0.0)) * x

    if derivative == "fs.grad in it":
        program = fs.compile(fs.grad(f))
        found = said(lambda: program.map(ROWS), fs.GradientLossWarning)
    else:
        program = fs.compile(f)
        found = said(lambda: getattr(program, derivative)(ROWS), fs.GradientLossWarning)
    assert bool(found) == lost


@pytest.mark.parametrize("method", ["value_and_grad", "backward"])
@pytest.mark.parametrize("name", ["where", "max", "min"])
def test_what_another_choice_loses_is_said_although_the_number_is_the_same(name, method):
    """The number is 0.0 with a gradient and without: the first recording has none to lose."""
    f = {
        "where": lambda x, y: x + float(fs.where(y > 0.0, x, 0.0)) + x,
        "max": lambda x, y: x + float(fs.max([-1.0, x, 0.0])) + y,
        "min": lambda x, y: x + float(fs.min([x, 0.0])) + y,
    }[name]
    rows = {"where": ([0.0, 0.0], [-1.0, 1.0]), "max": ([-2.0, 0.0], [1.0, 1.0]), "min": ([1.0, 0.0], [1.0, 1.0])}
    w = fs.Tensor(1.0)
    program = fs.compile(lambda x, y: f(x * w, y))
    first, second = (tuple(np.array(column[k : k + 1]) for column in rows[name]) for k in range(2))
    options = {"argnums": (0, 1)} if method == "value_and_grad" else {}
    assert not said(lambda: getattr(program, method)(*first, **options), fs.GradientLossWarning)
    assert said(lambda: getattr(program, method)(*second, **options), fs.GradientLossWarning)


def test_a_lost_gradient_of_an_array():
    def f(x):
        return x[0] * sum(x.tolist())

    found = said(lambda: fs.compile(f).value_and_grad(np.ones((2, 3))), fs.GradientLossWarning)
    assert found


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * math.exp(x), lambda x: x if x > 1.0 else x * x, lambda x: x * x.detach(), lambda x: x * x.data,
        lambda x: x * [1.0, 2.0, 3.0][int(x)], lambda x: x * len(f"{x:.1f}"),
        lambda x: sum(x for _ in range(int(x))) + x,
        lambda x: max(x, 1.0), lambda x: round(x) + x if math.isfinite(x) else x,
        lambda x: x * float(fs.where(x > -1e9, 2.0, x)), lambda x: x * float(fs.where(x < -1e9, x * x, 2.0)),
        lambda x: x * float(fs.where(x > -1e9, fs.where(x < -1e9, x, 3.0), x) * 2.0),
        lambda x: x * float(fs.max([x, fs.Tensor(1e9)])), lambda x: x * float(fs.min([-1e9, x, x * x])),
        lambda x: x * float(fs.argmax([x, x * 2.0])),
    ],
)  # fmt: skip
def test_nothing_is_lost_and_nothing_said(f):
    program = fs.compile(f)
    assert not said(lambda: program.value_and_grad(ROWS), fs.GradientLossWarning)
    assert not said(lambda: program.backward(ROWS), fs.GradientLossWarning)


def without_every_second(x):
    a = x * 1.0
    a[::2] = 0.0
    return a


BESIDE = {
    "assigned": lambda x: without_every_second(x)[2],
    "stacked": lambda x: np.sum(np.stack([x, np.full(3, 9.0)]), axis=1)[1],
    "joined": lambda x: (np.concatenate([x, [1.0, 2.0]]) * 2.0)[4],
    "added up": lambda x: np.cumsum(np.concatenate([[1.0, 2.0], x]))[1],
    "a matrix's row": lambda x: (np.stack([np.ones(3), x]) @ np.ones((3, 2)))[0, 1],
    "the largest": lambda x: np.max(np.stack([x, np.full(3, 9.0)]), axis=0)[1],
}


@pytest.mark.parametrize("method", ["value_and_grad", "backward", "jacobian"])
@pytest.mark.parametrize("name", BESIDE)
def test_an_element_beside_others_that_have_a_gradient_loses_none(name, method):
    w = fs.Tensor(1.0)

    def f(x, other=0.0):
        return float(BESIDE[name](x * w) + other) * x[0]

    assert not said(lambda: fs.grad(f)(fs.to_tensor([1.0, 2.0, 3.0])), fs.GradientLossWarning)
    assert not said(lambda: getattr(fs.compile(f), method)(X), fs.GradientLossWarning)
    lost = fs.compile(lambda x: f(x, x[2] * w))
    assert said(lambda: getattr(lost, method)(X), fs.GradientLossWarning)


def test_map_asks_for_no_gradient_and_loses_none():
    program = fs.compile(lambda x: x * pymath.exp(x))
    assert not said(lambda: program.map(ROWS), fs.GradientLossWarning)


# --- what would be frozen ---------------------------------------------------------------------------------------------


def counter():
    count = itertools.count(1)
    return lambda x: x * next(count)


def generator():
    draw = np.random.default_rng(0)
    return lambda x: x + draw.normal()


FROZEN = {
    "random": lambda: lambda x: x * random.random(),
    "numpy's generator": generator,
    "a counter": counter,
    "dropout": lambda: lambda x: x * 2.0 if random.random() < 0.5 else x * 0.0,
}


@pytest.mark.parametrize("again", ["map", "backward", "call", "value_and_grad"])
@pytest.mark.parametrize("name", FROZEN)
def test_the_second_call_notices_what_would_be_frozen(name, again):
    random.seed(1)
    program = fs.compile(FROZEN[name]())
    program.map(ROWS)

    def more():
        for _ in range(12):
            program(2.0) if again == "call" else getattr(program, again)(ROWS)

    assert len(said(more, fs.CompileWarning)) == 1
    assert len({tuple(program.map(ROWS)) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * 2.0, lambda x: x if x < 1.0 else x * x, lambda x: math.log(x), lambda x: x * x.data,
        lambda x: sum(x * i for i in range(20)), lambda x: fs.where(x > 1.0, x, 2.0),
    ],
)  # fmt: skip
def test_nothing_is_frozen_and_nothing_said(f):
    with compiled_only():
        program = fs.compile(f)
        for _ in range(3):
            program.map(ROWS)
            program.backward(ROWS)
            program(1.0)


# --- falling back -----------------------------------------------------------------------------------------------------


def by_hand(x, k):
    logits = [x[i] * (1.0 + i) for i in range(3)]
    m = max(v.data for v in logits)
    es = [math.exp(v - m) for v in logits]
    return -math.log(es[k] / sum(es))


@pytest.mark.dear
@pytest.mark.parametrize("method", ["map", "backward", "value_and_grad"])
def test_falling_back_is_said_once_with_the_line_and_costs_a_loop(method):
    """Each row reads a number of its own: more recordings than a program keeps."""
    f, calls = counted(by_hand)
    program = fs.compile(f)
    draw = np.random.default_rng(0)
    X, y = draw.normal(size=(200, 3)), draw.integers(0, 3, size=200)
    found = said(lambda: [getattr(program, method)(X, y) for _ in range(3)], fs.CompileWarning)
    assert len(found) == 1
    assert f"{__file__}:" in str(found[0].message)
    calls.clear()
    getattr(program, method)(X, y)
    assert len(calls) <= 2 * len(X)  # once for each row, twice where values and gradients are done apart


@pytest.mark.dear
def test_falling_back_in_fit_is_said_once():
    w = fs.Tensor(1.0)
    program = fs.compile(lambda x, k: by_hand([e * w for e in x], k))
    draw = np.random.default_rng(0)
    X, y = draw.normal(size=(150, 3)), draw.integers(0, 3, size=150)
    options = {"epochs": 2, "batch_size": 8, "progress": False, "optimizer": fs.SGD(lr=0.01)}
    found = said(lambda: fs.fit(program, X, y, **options), fs.CompileWarning)
    assert len(found) == 1


@pytest.mark.dear
def test_recordings_that_no_row_fits_count():
    """However a row comes to miss its own recording: the function is not called for every row for ever, in silence."""
    w = fs.to_tensor(np.random.default_rng(1).normal(size=(20, 3)))

    def f(x):
        logits = [sum(x[i] * w[i][j] for i in range(20)) for j in range(3)]
        return sum(math.exp(v - max(e.data for e in logits)) for v in logits)

    g, calls = counted(f)
    program = fs.compile(g)
    X = np.random.default_rng(0).normal(size=(100, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            program.map(X)
    calls.clear()
    program.map(X)
    assert len(calls) <= len(X)


# --- leaves that collections move -------------------------------------------------------------------------------------


def scattered_leaves(n):
    """Leaves with nodes between them that die when they are asked to."""
    leaves, between = [], []
    for _ in range(n):
        between.append([fs.Tensor(0.0) for _ in range(3)])
        leaves.append(fs.Tensor(1.0))
    return leaves, between


triple = fs.custom_op(lambda x: 3.0 * x, lambda x: 3.0, name="triple")


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning", "ignore::fastscalar.GradientLossWarning")
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("operation", [triple, lambda x: x * float(x)], ids=["eager", "compiled"])
def test_every_leaf_is_trained_wherever_collections_move_it(operation, batch):
    leaves, between = scattered_leaves(8)

    def f(x, k):
        if between:
            between.pop()
            testing.collect()
        return operation(leaves[k] * x)

    X, y = np.full(8, 0.5), np.arange(8)
    fs.fit(fs.compile(f), X, y, epochs=1, shuffle=False, progress=False, schedule=None, batch_size=batch,
           optimizer=fs.SGD(lr=0.1))  # fmt: skip
    assert all(leaf.data != 1.0 for leaf in leaves), [leaf.data for leaf in leaves]
    assert len({leaf.data for leaf in leaves[: 8 // batch * batch]}) == 1


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
def test_gradients_add_up_after_fit_when_leaves_have_moved():
    (w,), between = scattered_leaves(1)
    w.data = 2.0
    program = fs.compile(lambda x, k: triple(w * x))
    X, y = np.ones(2), np.zeros(2, int)
    fs.fit(program, X, y, epochs=1, progress=False, optimizer=fs.SGD(lr=1e-9))
    program.backward(X, y)
    assert w.grad == 6.0
    between.clear()
    testing.collect()
    program.backward(X, y, accumulate=True)
    assert w.grad == 12.0


def test_leaves_are_told_apart_by_name_after_a_collection():
    leaves, between = scattered_leaves(4)
    program = fs.compile(lambda x, k: leaves[k] * x)
    for k in range(4):
        program(1.0, k)
        between.pop()
        testing.collect()
    assert len(program.parameters) == 4
    program.backward(np.ones(4), np.arange(4))
    assert [leaf.grad for leaf in leaves] == [1.0] * 4


# --- the collector of Python ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", ["t < 1.0", "t == t", "float(t)", "int(t)", "t.data", "t.detach()", "t * 2.0"])
def test_a_destructor_that_computes_while_a_program_is_recorded(thing):
    run(f"""
        import gc
        import fastscalar as fs, numpy as np
        t = fs.Tensor(0.5)
        class Cycle:
            def __init__(self): self.me = self
            def __del__(self): {thing}
        gc.set_threshold(1, 1, 1)
        def f(x):
            total = x * 0.0
            for k in range(300):
                Cycle()
                if x > k * 0.01: total = total + x
                total = total + x.detach() * x.data
            return total
        for _ in range(3):
            program = fs.compile(f)
            program.map(np.linspace(0.0, 3.0, 5))
            program.backward(np.linspace(0.0, 3.0, 5))
    """)


# --- programs under fs.grad -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "point", [[1.0, 2.0], np.array([1.0, 2.0]), fs.to_tensor([1.0, 2.0])], ids=["list", "ndarray", "TensorArray"]
)
def test_derivatives_of_a_program(point):
    program = fs.compile(lambda x: x[0] * x[0] * x[1])
    program([3.0, 4.0])

    def numbers(x):
        return np.array([e.data if isinstance(e, fs.Tensor) else e for e in x], dtype=float)

    assert numbers(fs.grad(program)(point)) == pytest.approx([4.0, 1.0])
    value, slopes = fs.value_and_grad(program)(point)
    assert float(value) == 2.0
    assert numbers(slopes) == pytest.approx([4.0, 1.0])


def test_hessian_of_a_program_at_an_array():
    program = fs.compile(lambda x: x[0] * x[0] * x[1])
    assert np.array(fs.hessian(program)(np.array([1.0, 2.0])), float).tolist() == [[4.0, 2.0], [2.0, 0.0]]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_the_gradient_of_a_program_is_the_gradient_of_its_function(shape):
    f = lambda x: fs.sum(x * x) if shape else x * x
    point = np.random.default_rng(0).normal(size=shape)
    assert np.asarray(fs.grad(fs.compile(f))(point), float) == pytest.approx(2.0 * point)


# --- indices outside --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 3, 64])
@pytest.mark.parametrize(
    "use", ["f.backward(X, k)", "f.backward(X, k, accumulate=True)", "f.value_and_grad(X, k)", "f.map(X, k)"]
)
def test_an_index_out_of_range_writes_nowhere(width, use):
    run(f"""
        import fastscalar as fs, numpy as np
        E = fs.to_tensor(np.ones((50, {width}))); f = fs.compile(lambda x, k: fs.dot(E[k], x))
        X = np.ones((200, {width})); k = np.arange(200) % 50
        f.backward(X, k)
        before = np.array(E.grad)
        k[100], k[150] = 50, -51
        for _ in range(50):
            try:
                {use}
            except IndexError as error:
                assert "row 100" in str(error), error
            else:
                raise SystemExit("nothing was raised")
            assert (np.array(E.grad) == before).all() and (E.numpy() == 1.0).all()
        k[100], k[150] = 49, -1
        assert (f.map(X, k) == {width}).all()
    """)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("batch", [1, 32])
def test_an_index_out_of_range_in_fit(optimizer, batch):
    run(f"""
        import fastscalar as fs, numpy as np
        E = fs.to_tensor(np.ones((50, 64))); f = fs.compile(lambda x, k: (fs.dot(E[k], x) - 1.0) ** 2 * 1e-3)
        X = np.ones((200, 64)); k = np.arange(200) % 50
        fs.fit(f, X, k, epochs=1, progress=False, batch_size={batch}, optimizer=fs.{optimizer}(lr=1e-3))
        before = E.numpy()
        k[150] = 5000
        for _ in range(20):
            try:
                fs.fit(f, X, k, epochs=1, progress=False, batch_size={batch}, optimizer=fs.{optimizer}(lr=1e-3))
            except IndexError as error:
                assert "row 150" in str(error), error
            else:
                raise SystemExit("nothing was raised")
            assert (E.numpy() == before).all()
    """)


# --- errors that are ours ---------------------------------------------------------------------------------------------


class Trouble(Exception):
    pass


@pytest.mark.parametrize("error", [Trouble, ValueError, MemoryError, StopIteration])
@pytest.mark.parametrize("at", [1, 2, 3, 5])
def test_a_net_that_raises_at_some_call_of_fit(error, at):
    count = itertools.count(1)
    net = fs.Linear(2, 2, seed=0)

    class Net(fs.Module):
        def __init__(self):
            self.net = net

        def forward(self, x):
            if next(count) == at:
                raise error("on purpose")
            return self.net(x)

    before = net.w.numpy()
    with contextlib.suppress(error):  # and no other; how often it is called is nobody's business
        fs.fit(Net(), np.ones((4, 2)), np.zeros(4, int), epochs=1, progress=False)
    assert np.array_equal(net.w.numpy(), before) or at > 2


def test_a_report_while_another_thread_records():
    program = fs.compile(lambda x, k: fs.sum(x) * k)
    stop, failures = threading.Event(), []

    def look():
        while not stop.is_set():
            try:
                program.report()
                program.parameters
            except Exception as error:
                failures.append(error)
                return

    thread = threading.Thread(target=look)
    thread.start()
    for n in range(1, 150):
        program.map(np.ones((2, n)), 2.0)
    stop.set()
    thread.join(timeout=300)
    assert not thread.is_alive()
    assert not failures


# --- what fit trains when recordings read different leaves ------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adam])
@pytest.mark.parametrize("batch", [1, 2, 7, 25])
@pytest.mark.parametrize("first", [3, 20])
def test_a_leaf_that_the_first_batches_do_not_read(optimizer, batch, first):
    w = fs.Tensor(2.0)
    X = -np.ones(25)
    X[first] = 1.0
    y = np.arange(25) % 5
    f = lambda x, k: w * k if x > 0 else math.tanh(k)
    fs.fit(fs.compile(f), X, y, epochs=1, shuffle=False, progress=False, batch_size=batch, schedule=None,
           optimizer=optimizer(lr=0.01))  # fmt: skip
    if y[first]:
        assert w.data < 2.0
    if optimizer is fs.SGD:
        size = min(batch, 25 - first // batch * batch)
        assert w.data == pytest.approx(2.0 - 0.01 * y[first] / size, rel=1e-12)


# --- decisions that are none ------------------------------------------------------------------------------------------

DRAWS = np.random.default_rng(0).normal(size=(200, 5))

NO_DECISION = {
    "fs.max": lambda x: fs.max(x),
    "fs.min": lambda x: fs.min(x),
    "fs.max of a list": lambda x: fs.max([e * 2.0 for e in x]),
    "fs.max of a generator": lambda x: fs.max(e * e for e in x),
    "softmax by hand": lambda x: math.exp(x[0] - fs.max(x)) / sum(math.exp(e - fs.max(x)) for e in x),
    "maximum": lambda x: fs.maximum(x[0], x[1]),
    "abs": lambda x: abs(x[0]),
    "clip": lambda x: fs.clip(x[0], -0.5, 0.5),
}


@pytest.mark.parametrize("name", NO_DECISION)
def test_no_decision(name):
    f, calls = counted(NO_DECISION[name])
    program = fs.compile(f)
    with compiled_only():
        values = program.map(DRAWS)
        slopes = program.value_and_grad(DRAWS)[1]
    assert len(program.report().splitlines()) == 1
    assert len(calls) <= 8
    plain = [NO_DECISION[name](fs.to_tensor(row)).item() for row in DRAWS]
    assert values == pytest.approx(plain, rel=1e-12)
    for row, slope in zip(DRAWS[:20], slopes, strict=False):
        x = fs.to_tensor(row)
        NO_DECISION[name](x).backward()
        assert slope == pytest.approx(np.array(x.grad), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_the_place_of_the_largest_is_few_recordings(name):
    """One for each place, found by the place: not one for each row."""
    f, calls = counted(lambda x: x[getattr(fs, name)(x)] * 2.0)
    program = fs.compile(f)
    with compiled_only():
        values = program.map(DRAWS)
        slopes = program.value_and_grad(DRAWS)[1]
    assert len(calls) <= 8
    places = getattr(DRAWS, name)(axis=1)
    assert values == pytest.approx(2.0 * DRAWS[np.arange(200), places])
    assert (slopes == 2.0 * np.eye(5)[places]).all()


@pytest.mark.parametrize("name", ["max", "min"])
def test_the_first_of_equals_has_the_derivative(name):
    program = fs.compile(lambda x: getattr(fs, name)([x[0], x[1], x[2]]))
    ties = np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [1.0, 2.0, 2.0], [1.0, 1.0, 2.0], [0.0, -0.0, 0.0]])
    for row, slope in zip(ties, program.value_and_grad(ties)[1], strict=True):
        right = int(np.argmax(row) if name == "max" else np.argmin(row))
        assert slope.tolist() == np.eye(3)[right].tolist()


FEW_DECISIONS = {
    "gamma": (lambda x: math.gamma(x), 2),
    "isfinite": (lambda x: x if math.isfinite(x) else 0.0 * x, 1),
    "isnan": (lambda x: x * 2.0 if not math.isnan(x) else 0.0, 1),
    "isinf": (lambda x: x * 2.0 if not math.isinf(x) else 0.0, 1),
    "remainder": (lambda x: math.remainder(x, 0.75), 1),
    "isclose": (lambda x: x * 2.0 if math.isclose(x, 100.0) else x, 1),
    "modf": (lambda x: math.modf(x)[0], 1),
    "fmod": (lambda x: math.fmod(x, 0.75), 1),
}


@pytest.mark.parametrize("name", FEW_DECISIONS)
def test_functions_of_math_read_no_number(name):
    f, most = FEW_DECISIONS[name]
    program = fs.compile(f)
    with compiled_only():
        values = program.map(DRAWS[:, 0])
    assert len(program.report().splitlines()) <= most
    assert values == pytest.approx([fs.Tensor(f(fs.Tensor(v))).item() for v in DRAWS[:, 0]], rel=1e-12)


@pytest.mark.parametrize("classes", [3, 10, 100])
def test_picking_a_probability_by_its_label(classes):
    """`probs[label]` of a list: a recording for each class, found by the class, and no more calls then."""
    net = fs.Linear(4, classes, seed=1)

    def f(x, k):
        shares = list(fs.softmax(net(x)))
        return -math.log(shares[k])

    g, calls = counted(f)
    program = fs.compile(g)
    draw = np.random.default_rng(0)
    X, y = draw.normal(size=(3 * classes, 4)), np.arange(3 * classes) % classes
    with compiled_only():
        values = program.map(X, y)
        for _ in range(2):
            program.backward(X, y)
        calls.clear()
        assert program.map(X, y) == pytest.approx(values, rel=1e-12)
        program.backward(X, y)
    assert not calls
    right = [fs.cross_entropy(net(x), int(k)).item() for x, k in zip(X, y, strict=True)]
    assert values == pytest.approx(right, rel=1e-9)


@pytest.mark.dear
def test_a_loop_as_long_as_a_whole_number_says():
    """range(k): more lengths than recordings of decisions are allowed, and none of them falls back."""
    f, calls = counted(lambda x, k: sum((x * i for i in range(k)), x))
    program = fs.compile(f)
    k = np.arange(200)
    with compiled_only():
        for _ in range(2):  # the second looks whether the function does the same again
            values = program.map(np.ones(200), k)
        calls.clear()
        program.map(np.ones(200), k)
    assert not calls
    assert values == pytest.approx(1.0 + k * (k - 1) / 2)


def test_a_report_has_no_lines_that_are_alike():
    program = fs.compile(lambda x: sum(e if e > 0 else 2.0 * e for e in x))
    program.map(DRAWS)
    lines = program.report().splitlines()
    assert len(lines) == len(set(lines))


def test_a_report_of_64_recordings_is_short():
    def f(x):
        s = x
        for k in range(64):
            if s > k:
                s = s * 1.01 if k % 3 else s + 0.5
        return s

    program = fs.compile(f)
    program.map(np.linspace(0.5, 60.0, 60))
    lines = program.report().splitlines()
    assert len(program._specializations()) > 30
    assert len(lines) == 10
    assert lines[-2].endswith(" more recordings")
    assert len(program.report(details=True).splitlines()) < 20


def test_what_had_no_gradient_loses_none() -> None:
    """Numbers from a block of no_grad, or detached, may be read; those behind an operation of one's own may not."""

    def in_a_block(x):
        with fs.no_grad():
            t = x // 1.0
        return x * float(t)

    h = fs.custom_op(lambda x: 3.0 * x, lambda x: 3.0, name="triple_it")
    pair = fs.to_tensor([1.0, 2.0])
    for f in (in_a_block, lambda x: x * float((x * 2.0).detach()), lambda x: x * float(pair[1].detach())):
        program = fs.compile(f)
        assert not said(lambda program=program: program.value_and_grad(ROWS), fs.GradientLossWarning)
    program = fs.compile(lambda x: x * float(h(x)))
    losses = said(lambda: program.value_and_grad(ROWS), fs.GradientLossWarning)
    assert len({str(w.message) for w in losses}) == 1


# --- a leaf that decides, and changes before the second call ----------------------------------------------------------

LEAF = fs.Tensor(1.0)
LEAVES = fs.to_tensor([1.0, 2.0, 3.0])


def _by_index(x):
    return LEAVES[int(LEAF)] * x


def _by_argmax(x):
    return x * fs.argmax([LEAF * x, x * 1.5])


def _by_raising(x):
    try:
        return fs.math.log(LEAF * x)
    except ValueError:
        return x * 3.0


def _by_a_loop(x):
    y = x
    while y < 4.0 * LEAF:
        y = y * 2.0
    return y


DECIDING = {
    "the leaf": lambda x: x * 2.0 if LEAF < 1.5 else x * 3.0,
    "with an input": lambda x: 1.0 - LEAF * x if LEAF * x < 1.0 else 0.0 * x,
    "one that nothing needs": lambda x: x if LEAF * LEAF == 1.0 else x * 1.0,
    "read as a number": lambda x: x * float(LEAF),
    "an index": _by_index,
    "a place": _by_argmax,
    "an error": _by_raising,
    "a loop": _by_a_loop,
}


@pytest.mark.filterwarnings("ignore::fastscalar.GradientLossWarning")
@pytest.mark.parametrize("how", DECIDING)
@pytest.mark.parametrize("changed", [2.0, -1.0, 0.0])
@pytest.mark.parametrize("second", ["map", "backward", "value_and_grad"])
def test_a_leaf_that_decides_otherwise_is_no_function_that_does_not_repeat_itself(how, changed, second):
    f, x = DECIDING[how], np.array([0.75, 2.5, 0.25])
    LEAF.data = 1.0
    program = fs.compile(f)
    with warnings.catch_warnings():
        warnings.simplefilter("error", fs.CompileWarning)
        program.map(x)
        LEAF.data = changed
        found = getattr(program, second)(x)
        found = found[0] if second == "value_and_grad" else found
        right = [float(f(fs.Tensor(e))) for e in x]
        np.testing.assert_allclose(found, right)
        np.testing.assert_allclose(program.map(x), right)
        LEAF.data = 1.0
        np.testing.assert_allclose(program.map(x), [float(f(fs.Tensor(e))) for e in x])
    assert not any(cache.eager for cache in program._caches.values())


@pytest.mark.parametrize("changed", [1.0, 2.0])
@pytest.mark.parametrize("what", ["counts", "draws", "has changed"])
def test_one_that_does_not_repeat_itself_is_found_whatever_a_leaf_decides(what, changed):
    draw, state = np.random.default_rng(0), {"calls": 0, "scale": 2.0}

    def f(x):
        state["calls"] += 1
        factor = {"counts": state["calls"], "draws": draw.random(), "has changed": state["scale"]}[what]
        return x * factor if LEAF < 1.5 else x * factor * 3.0

    LEAF.data = 1.0
    program = fs.compile(f)
    program.map(np.array([1.0, 2.0]))
    LEAF.data, state["scale"] = changed, 5.0
    if (what, changed) == ("has changed", 2.0):  # rows go another way, which is recorded now
        assert program.map(np.array([1.0, 2.0])).tolist() == [15.0, 30.0]
        return
    with pytest.warns(fs.CompileWarning, match="does something else when it is called again"):
        program.map(np.array([1.0, 2.0]))


# --- calls of programs that have fallen back ---------------------------------------------------------


def fallen_back(f, *rows):
    program = fs.compile(f)
    program.map(*rows)
    for values in zip(*(r.tolist() for r in rows), strict=True):
        program(*values)
    assert program._plain_ways, "calls go the long way"
    return program


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
def test_a_call_of_what_has_fallen_back_is_the_call_of_the_function():
    w = fs.Tensor(1.5)
    rows, wholes = np.random.default_rng(0).normal(size=200), np.arange(200) % 3

    def f(x, k):
        if k == 2 and x.data > 100.0:
            raise KeyError("here")
        if x.data > 50.0:
            return 7
        return x * round(x.data, 3) * w + k

    program = fallen_back(f, rows, wholes)
    for x, k in zip(rows.tolist(), wholes.tolist(), strict=True):
        assert program(x, k) == f(fs.Tensor(x), k).data
        assert program(np.float64(x), np.int64(k)) == program(x, k)      # the long way
    assert type(program(0.5, 1)) is float
    assert program(60.0, 0) == 7.0
    with pytest.raises(KeyError, match="here"):
        program(101.0, 2)
    with pytest.raises(TypeError):
        program(1.0)
    t = fs.Tensor(0.5)
    program(t, 1).backward()                      # with Tensors it is the function itself
    assert t.grad == 0.75
    outer = fs.compile(lambda x: program(x, 1) + program(2.0, 0))
    assert outer.map(np.array([0.5]))[0] == f(fs.Tensor(0.5), 1).data + f(fs.Tensor(2.0), 0).data
    w.data = 3.0
    assert program(0.5, 1) == f(fs.Tensor(0.5), 1).data
    program.reset()
    assert not program._plain_ways
    assert program(0.5, 1) == f(fs.Tensor(0.5), 1).data


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning")
def test_rows_of_what_has_fallen_back_draw_and_raise_as_they_would():
    rows = np.random.default_rng(0).normal(size=200)

    def f(x):
        if x.data > 50.0:
            raise LookupError("too much")
        return 7 if x.data > 40.0 else x * round(x.data, 4) + fs.random.normal()

    program = fs.compile(f)
    found = program.map(rows, seed=3, row_offset=5)
    for i in (0, 70, 199):
        with fs.random.stream(3, 5 + i):
            assert found[i] == pytest.approx(f(fs.Tensor(rows[i])).data, rel=1e-14)
    assert program.map(rows, seed=3, row_offset=5).tobytes() == found.tobytes()
    mixed = rows.copy()
    mixed[150] = 45.0
    assert program.map(mixed, seed=3, row_offset=5)[150] == 7.0
    mixed[[160, 170]] = 60.0
    with pytest.raises(LookupError) as caught:
        program.map(mixed)
    assert "row 160" in str(caught.value) + str(getattr(caught.value, "__notes__", ""))
    assert program.map(rows, seed=3, row_offset=5).tobytes() == found.tobytes()


@pytest.mark.parametrize("labels", [2, 10, 100])
def test_numbers_that_are_read_beside_labels_are_too_many_ways(labels):
    """Whole numbers have recordings without a limit: where a number is read, too, it is 64 of all of them."""
    calls = 0

    def f(x, k):
        nonlocal calls
        calls += 1
        return x * round(x.data, 3) + [1.0, 2.0][k % 2] * sum(range(k), 0.0)

    x, k = np.random.default_rng(0).normal(size=600), np.random.default_rng(1).integers(0, labels, 600)
    program = fs.compile(f)
    with pytest.warns(fs.CompileWarning, match="more than 64 ways") as caught:
        found = program.map(x, k)
    assert len(caught) == 1
    assert calls < 600 + 64 + 4 * labels
    expected = [f(fs.Tensor(v), n).data for v, n in zip(x.tolist(), k.tolist(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-13)
    assert program._plain_ways


@pytest.mark.parametrize("batch", [1, 7, 400])
def test_branches_beside_labels_are_no_such_ways(batch):
    def f(x, k):
        y = x
        for step in range(4):
            y = y * 2.0 if y > 0.25 * step - k % 3 else y - 1.0
        return y * float(k)

    rng = np.random.default_rng(2)
    x, k = rng.normal(size=400), rng.integers(0, 40, 400)
    program = fs.compile(f)
    with compiled_only():
        for i in range(0, 400, batch):
            some = slice(i, i + batch)
            expected = [f(v, n) for v, n in zip(x[some].tolist(), k[some].tolist(), strict=True)]
            np.testing.assert_allclose(program.map(x[some], k[some]), expected, rtol=1e-13)


# --- gradients that are read ------------------------------------------------------------------------------------------

GRADIENTS = {
    "of a leaf": lambda x, w, a: x * w.grad,
    "of an argument": lambda x, w, a: x * (x.grad + w.grad),
    "of an array": lambda x, w, a: x * a.grad[1],
    "all of an array": lambda x, w, a: x * np.asarray(a.grad).sum(),
    "of a slice": lambda x, w, a: x * a[1:].grad[0],
    "that decides": lambda x, w, a: x * 2.0 if w.grad > 1.0 else x * 3.0,
    "in a loop": lambda x, w, a: fs.loop(3, lambda s: s * w.grad, x),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_function_that_reads_gradients_runs_eagerly(name):
    w, a, x = fs.Tensor(1.0), fs.to_tensor([1.0, 2.0]), np.array([1.0, 2.0])
    program = fs.compile(lambda x: GRADIENTS[name](x, w, a))

    def follows():
        for gradient in (0.5, 3.0, 0.0):
            w.grad, a.grad = gradient, [0.0, gradient]
            plain = [GRADIENTS[name](fs.Tensor(number), w, a).data for number in x.tolist()]
            assert program.map(x).tolist() == plain
            assert [program(number) for number in x.tolist()] == plain

    (warning,) = said(follows, fs.CompileWarning)
    assert "reading .grad cannot be replayed" in str(warning.message)


class OfItsOwn(Exception):
    pass


@pytest.mark.parametrize("kind", [KeyError, RuntimeError, TypeError, MemoryError, OfItsOwn, ValueError, IndexError])
@pytest.mark.parametrize("method", ["map", "backward", "value_and_grad"])
@pytest.mark.parametrize("caused", [False, True])
def test_the_chain_of_causes_of_an_error_in_a_row_ends(kind, method, caused):
    cause = OSError("before") if caused else None

    def f(x):
        raise kind("here") from cause

    with pytest.raises(kind) as caught:
        getattr(fs.compile(f), method)(X)
    chain = [caught.value]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
        assert len(chain) <= 3
    assert (cause in chain) is caused
    assert "row 0" in str(caught.value) + str(getattr(caught.value, "__notes__", ""))


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [0], [1]])
def test_what_an_index_that_was_computed_takes_says_whether_a_gradient_gets_lost(order):
    """Of the elements one has a gradient: rows that take another lose nothing, and are no reason to say so."""
    w, v = fs.Tensor(2.0), fs.Tensor(1.0)

    def f(x, y):
        return float((fs.to_tensor(np.ones(2)) * [3.0, w])[fs.argmin([x, y])]) * x * v

    X, Y = np.array([1.0, 5.0])[order], np.array([2.0, 3.0])[order]
    program = fs.compile(f)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = program.backward(X, Y)
    assert found.tolist() == np.array([3.0, 10.0])[order].tolist()
    lost = [w for w in caught if issubclass(w.category, fs.GradientLossWarning)]
    assert len(lost) == (1 in order)


def test_an_element_without_a_gradient_is_no_derivative_of_those_that_were_not_taken():
    def f(x, y):
        return fs.grad(lambda t: (fs.to_tensor(np.ones(2)) * [3.0, t])[fs.argmin([t, y])] * t)(x) * x

    X, Y = np.array([1.0, 5.0, 2.0, 7.0]), np.array([2.0, 3.0, 4.0, 1.0])
    program = fs.compile(f)
    assert program.map(X, Y).tolist() == [f(fs.Tensor(x), fs.Tensor(y)).data for x, y in zip(X, Y, strict=True)]
