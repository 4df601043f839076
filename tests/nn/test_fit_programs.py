"""fit of programs whose rows read different leaves, and of functions that fail: what is trained is what was read,
whatever is collected in between, and what the function raises is what fit raises."""

import functools
import itertools
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from compiled import close
from fastscalar import _core, math


@pytest.fixture(autouse=True)
def eager_rows_are_no_news():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fs.CompileWarning)
        yield


def fit(net, X, y, **keywords):
    return fs.fit(net, X, y, progress=False, **{"shuffle": False, "schedule": None, **keywords})


def by_hand(function, leaves, X, y, make, epochs, batch_size):
    """The loop that fit stands for: the gradient of the mean, one step; what no row has read yet is not known yet."""
    optimizer = make(leaves)
    for _ in range(epochs):
        for k in range(0, len(X), batch_size):
            rows = range(k, min(k + batch_size, len(X)))
            optimizer.zero_grad()
            for i in rows:
                loss = function(fs.Tensor(X[i]), int(y[i]))
                if isinstance(loss, fs.Tensor):
                    loss.backward(accumulate=True)
            for p in leaves:
                p.grad = p.grad / len(rows) if isinstance(p, fs.Tensor) else np.asarray(p.grad) / len(rows)
            optimizer.step()
    return leaves


def values(leaves):
    return np.concatenate([np.ravel(np.asarray(p.data)) for p in leaves])


# --- leaves that only some rows read ----------------------------------------------------------------------------------

triple = fs.custom_op(lambda x: 3.0 * x, lambda x: 3.0, name="triple")  # is not replayed


def scattered(count):
    """Leaves with places on the tape that a collection moves: there was something between them."""
    leaves = []
    for k in range(count):
        [fs.Tensor(0.0) for _ in range(7)]
        leaves.append(fs.Tensor(1.0 + 0.1 * k) if k % 2 == 0 else fs.to_tensor([0.5 + 0.1 * k, 1.0]))
    return leaves


def of_one_leaf(leaves, x, k):
    """Each k has a leaf of its own; 0 reads none."""
    w = leaves[k - 1]
    return (w if isinstance(w, fs.Tensor) else w[0] + w[1]) * x if k else math.tanh(x)


def replayed(leaves):
    return lambda x, k: of_one_leaf(leaves, x, k)


def eager(leaves):
    return lambda x, k: triple(of_one_leaf(leaves, x, k)) * 0.3


def half(leaves):
    """The signs of x are two recordings."""
    return lambda x, k: of_one_leaf(leaves, x, k) if x > 0 else of_one_leaf(leaves, -x, k) * x


ORDERS = {
    "no leaf at first": [0, 0, 0, 1, 2, 3, 4, 0, 2, 2, 1, 4],
    "one after the other": [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4],
    "all at once": [4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1],
    "no leaf in whole batches": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
}


@pytest.mark.dear
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 3, 7, 12])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [replayed, eager, half])
@pytest.mark.parametrize("collecting", [False, True])
def test_what_the_rows_read_is_trained(kind, order, batch_size, threads, collecting, request):
    if threads > batch_size:
        pytest.skip("one sample has one thread")
    y = np.array(ORDERS[order])
    X = np.linspace(-1.0, 1.3, len(y))
    keywords = {"epochs": 3, "batch_size": batch_size}
    if collecting:
        request.getfixturevalue("stress")
    expected = scattered(4)
    by_hand(kind(expected), expected, X, y, functools.partial(fs.SGD, lr=0.05), **keywords)
    for compiled in (True, False):
        leaves = scattered(4)
        program = fs.compile(kind(leaves))
        optimizer = fs.SGD(lr=0.05)
        more = {"threads": threads} if compiled else {}
        fit(program, X, y, optimizer=optimizer, compile=compiled, **more, **keywords)
        close(values(leaves), values(expected))
        assert not any(np.any(np.asarray(p.grad)) for p in leaves)


def test_gradients_add_up_after_a_fit_of_rows_that_run_eagerly(stress):
    leaves = scattered(2)
    program = fs.compile(eager(leaves))
    X, y = np.ones(6), np.array([1, 2, 1, 1, 2, 2])
    fit(program, X, y, optimizer=fs.SGD(lr=0.01), epochs=1)
    program.backward(X, y)
    once = [np.array(p.grad) for p in leaves]
    assert all(np.all(g) for g in once)
    program.backward(X, y, accumulate=True)
    for p, g in zip(leaves, once, strict=True):
        close(np.array(p.grad), 2 * g)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_stops_a_run_leaves_every_leaf_as_it_was_whenever_it_was_first_read(batch_size):
    y = np.array([1, 2, 1, 2, 3, 4, 3, 1])
    X = np.linspace(0.5, 1.0, len(y))
    for kind in (replayed, eager, half):
        leaves = scattered(4)
        before = values(leaves)
        function = kind(leaves)

        def failing(x, k, function=function):
            if x > 0.99:
                raise LookupError("no such row")
            return function(x, k)

        with pytest.raises(LookupError):
            fit(fs.compile(failing), X, y, optimizer=fs.SGD(lr=0.05), epochs=1, batch_size=batch_size)
        assert values(leaves).tolist() == before.tolist(), kind


# --- functions that fail ----------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


def refused(x):
    raise MemoryError("no room")


FAILURES = {
    "its own": lambda x: (_ for _ in ()).throw(Broken("the net is broken")),
    "memory": refused,
    "value": lambda x: math.log(fs.Tensor(-1.0)),
    "zero": lambda x: fs.Tensor(1.0) / 0.0,
    "index": lambda x: [][7],
    "type": lambda x: fs.Tensor(1.0) + "a",
    "key": lambda x: {}["a"],
}
EXPECTED = (Broken, MemoryError, ValueError, ZeroDivisionError, IndexError, TypeError, KeyError)


class FailsOnce(fs.Module):
    """Raises in one of its calls, counted from 1."""

    def __init__(self, call, failure):
        self.linear = fs.Linear(2, 2, seed=0)
        self.call, self.failure, self.calls = call, failure, 0

    def forward(self, x):
        self.calls += 1
        return self.failure(x) if self.calls == self.call else self.linear(x)


@pytest.mark.parametrize("given", [{}, {"compile": False}, {"batch_size": 4}, {"batch_size": 4, "threads": 2}])
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("kind", FAILURES)
def test_a_net_that_raises_in_any_of_its_calls_makes_fit_raise_that(kind, call, given):
    X, y = np.random.default_rng(0).normal(size=(12, 2)), np.arange(12) % 2
    net = FailsOnce(call, FAILURES[kind])
    before = net.linear.w.numpy()
    optimizer = fs.SGD(lr=0.05)
    failed = None
    try:
        fit(net, X, y, optimizer=optimizer, epochs=2, **given)
    except EXPECTED as error:
        failed = error
    if failed is None:  # replayed, so that the call that fails is never made
        assert net.calls < call
        return
    expected = dict(zip(FAILURES, EXPECTED, strict=True))[kind]
    assert type(failed) is expected
    assert optimizer.lr == 0.05
    if given.get("compile", True):
        assert net.linear.w.numpy().tolist() == before.tolist()
    net.call = -1  # the optimiser and the net go on as if nothing had been
    fit(net, X, y, optimizer=optimizer, epochs=1, **given)


@pytest.mark.filterwarnings("ignore::fastscalar.GradientLossWarning")
def test_a_loss_that_is_a_parameter_is_what_it_was_before_the_step():
    """Row by row in Python, since each row is read as a number."""
    X, k = np.array([0.3, 0.7, 1.1, 1.9]), np.array([0, 1, 0, 1])

    def trained(compiled):
        w = fs.to_tensor([3.0, 5.0])
        step = fs.compile(lambda x, k: w[k] if float(x) > 0.0 else x)
        history = fs.fit(
            step, X, k, optimizer=fs.SGD(lr=0.5), batch_size=1, shuffle=False, progress=False, schedule=None,
            compile=compiled, epochs=1,
        )  # fmt: skip
        return history.loss[0], w.numpy().tolist()

    assert trained(True) == trained(False) == (3.75, [2.0, 4.0])


# --- what runs in Python costs what a loop costs ----------------------------------------------------------------------


def _reads(x: Any, k: Any, w: Any) -> Any:
    return (w[0] * x * float(x) + w[1] - k) ** 2


def _decides(x: Any, k: Any, w: Any) -> Any:
    s = w[0] * 1.0
    for j in range(10):
        if x * (w[1] + j) > 3.0 * j - 9.0:
            s = s + x * w[1]
    return (s - k) ** 2


def loop_by_hand(f: Any, w: Any, X: Any, y: Any, optimizer: Any) -> None:
    for i in range(len(X)):
        f(fs.Tensor(X[i]), int(y[i]), w).backward()
        optimizer.step()
        optimizer.zero_grad()


def calls(what: Any) -> int:
    """How many calls of Python functions and from them there are: what does not depend on the machine and its load."""
    count = 0

    def note(frame: Any, event: str, _: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        what()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.skipif(_core.tape_info()["stress"], reason="training runs, in stress mode")
@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning", "ignore::fastscalar.GradientLossWarning")
@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adam])
@pytest.mark.parametrize("bound", [True, False], ids=["parameters given", "parameters found"])
@pytest.mark.parametrize("some", [0, 3], ids=["each another way", "some ways common"])
@pytest.mark.parametrize("function", [_reads, _decides])
def test_batches_of_one_that_run_in_python_are_the_loop_by_hand(
    optimizer: Any, bound: bool, some: int, function: Any
) -> None:
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=3000) * 3.0, np.arange(3000) % 3
    if some:
        X[::some] = np.array([1.0, 2.0, 3.0, 4.0])[np.arange(len(X[::some])) % 4]
    ours, theirs = (fs.to_tensor([0.3, 0.2]) for _ in range(2))
    program = fs.compile(lambda x, k: function(x, k, ours))
    mine, other = optimizer([ours] if bound else None, lr=1e-5), optimizer([theirs], lr=1e-5)

    def fit() -> None:
        fs.fit(program, X, y, optimizer=mine, batch_size=1, epochs=1, shuffle=False, schedule=None, progress=False)

    fit()
    loop_by_hand(function, theirs, X, y, other)
    close(ours.numpy(), theirs.numpy())
    assert any(cache.eager for cache in program._caches.values()) or function is _decides
    by_hand = calls(lambda: loop_by_hand(function, theirs, X, y, other))
    assert calls(fit) - by_hand < 12 * len(X)     # 8.5 to 10.7 more a row; where all are recorded again, hundreds


@pytest.mark.filterwarnings("ignore::fastscalar.CompileWarning", "ignore::fastscalar.GradientLossWarning")
@pytest.mark.parametrize("batch_size", [1, 8])
def test_an_epoch_that_turns_to_python_in_the_middle_loses_nothing(batch_size: int) -> None:
    """Its first rows are recorded and replayed; then there are too many ways."""
    X = np.concatenate([np.full(40, 0.5), np.random.default_rng(4).normal(size=400)])
    y = np.arange(440) % 3
    found = []
    for compiled in (True, False):
        w = fs.to_tensor([0.3, 0.2])
        history = fs.fit(
            fs.compile(lambda x, k, w=w: _reads(x, k, w)), X, y, optimizer=fs.SGD(lr=0.01), batch_size=batch_size,
            epochs=2, shuffle=False, progress=False, compile=compiled,
        )  # fmt: skip
        found.append((history.loss, w.numpy().tolist()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 2, 6])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("optimizer", [
    lambda: fs.SGD(lr=0.5), lambda: fs.SGD(lr=0.5, momentum=0.9), lambda: fs.SGD(lr=0.5, momentum=0.9, nesterov=True),
    lambda: fs.SGD(lr=0.5, weight_decay=0.1), lambda: fs.SGD(lr=0.5, clip_norm=1.0), lambda: fs.Adam(lr=0.5),
    lambda: fs.AdamW(lr=0.5), lambda: fs.RMSprop(lr=0.5),
])  # fmt: skip
def test_a_weight_that_no_step_moves_keeps_its_bits(optimizer, dtype, batch_size) -> None:
    begin = [-0.0, 0.0, 5e-324 if dtype == "float64" else 2.0**-140, -0.0]
    moved, one, several, table = fs.Tensor(1.0), fs.Tensor(-0.0), fs.to_tensor(begin), fs.to_tensor([begin] * 20)

    def f(x, y):
        side = 1.0 if math.copysign(1.0, one) < 0 else 2.0   # it would be seen by the rows of the next epoch
        return moved * x * side + (one + several.sum() + (table @ several).sum()) * 0.0

    optimizer = optimizer()
    decays = optimizer.weight_decay and type(optimizer) is not fs.Adam
    X = np.arange(1.0, 7.0)
    history = fs.fit(
        fs.compile(f), X, X, epochs=2, optimizer=optimizer, batch_size=batch_size, dtype=dtype, shuffle=False,
        schedule=None, progress=False,
    )  # fmt: skip
    assert moved.data != 1.0
    assert len(history.loss) == 2
    for found, right in ((one.data, -0.0), (several.numpy(), begin), (table.numpy(), [begin] * 20)):
        if decays:
            assert np.array_equal(np.signbit(found), np.signbit(right))
        else:
            assert np.asarray(found, dtype=float).tobytes() == np.asarray(right, dtype=float).tobytes()


def seldom():
    return fs.random.uniform() < 0.02


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("given", [False, True], ids=["found", "given"])
def test_what_is_drawn_may_reach_leaves_in_a_later_epoch(given, batch_size, compile):
    """Until the last epoch nothing is said of none that was read."""
    ones = np.ones(8)
    probe = fs.compile(lambda x: fs.where(seldom(), x, 0.0))
    drawn = next(s for s in itertools.count() if not probe.map(ones, seed=s, epoch=1).any())
    first = next(e for e in itertools.count(1) if probe.map(ones, seed=drawn, epoch=e).any())

    def trained(epochs):
        w, other = fs.Tensor(1.0), fs.Tensor(2.0)
        loss = lambda x, y: w * x if seldom() else x * 0.5 * y
        optimizer = fs.SGD([w, other] if given else None, lr=0.1)
        fs.fit(
            fs.compile(loss), ones, ones, epochs=epochs, seed=drawn, batch_size=batch_size, optimizer=optimizer,
            compile=compile, progress=False, schedule=None,
        )  # fmt: skip
        return w.data

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for epochs in {1, first - 1}:
            with pytest.raises(ValueError, match="parameters of another net" if given else "nothing to train"):
                trained(epochs)
        hits = probe.map(ones, seed=drawn, epoch=first).sum()
        assert trained(first) == pytest.approx(1.0 - 0.1 * hits / batch_size)
