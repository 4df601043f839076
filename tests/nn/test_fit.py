"""fit, compiled (the default) and eager: the same training; threads, float32; what an error leaves."""

import math
import random
import re
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastscalar as fs
from compiled import WAYS, bits, classified, close, compiled_only, scalar_net, tables, values_of, weights
from fastscalar import _core
from fastscalar.engine import testing
from interrupts import Interrupt

STRESS = _core.tape_info()["stress"]
pytestmark = pytest.mark.skipif(STRESS, reason="training runs, in stress mode")
needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timers here")

# A step is off by about 1e-16 of the terms of its sums, and every later step takes that along: a run of a few hundred
# steps is given a thousandth of a millionth, eager and compiled.
RUN = 1e-9
RUN32 = 2e-4  # the same in float32, where a step is off by some 1e-7


def problem(n=60, columns=4, classes=3, seed=0):
    """A learnable problem: X, y."""
    X, _ = tables(n, columns, classes, seed)
    return X, np.argmax(np.tanh(X @ np.random.default_rng(99).normal(size=(columns, classes))), axis=1)


def fit(net, X, y, **keywords):
    return fs.fit(net, X, y, progress=False, **keywords)


def arrays(net):
    return [a.numpy() for layer in net.linears for a in (layer.w, layer.b)]


def close_nets(a, b, tolerance=RUN):
    for k, (p, q) in enumerate(zip(arrays(a), arrays(b), strict=True)):
        close(p, q, tolerance, what=f"parameter {k}")


def both(make, X, y, tolerance=RUN, compiled=None, **keywords):
    """The same run, eager and compiled: the histories agree, and so do the nets, which are returned."""
    nets = make(), make()
    start = weights(nets[0])
    optimizer = keywords.pop("optimizer", lambda: fs.SGD(lr=0.05))
    theirs = fit(nets[0], X, y, compile=False, optimizer=optimizer(), **keywords)
    with compiled_only():
        ours = fit(nets[1], X, y, optimizer=optimizer(), **keywords, **(compiled or {}))
    assert weights(nets[0]) != start
    close(ours.loss, theirs.loss, tolerance, what="losses")
    assert [e.epoch for e in ours.epochs] == [e.epoch for e in theirs.epochs]
    assert [e.accuracy for e in ours.epochs] == [e.accuracy for e in theirs.epochs]
    close_nets(nets[1], nets[0], tolerance)
    return nets


@pytest.mark.parametrize("schedule", ["linear", None])
@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("way", [{}, {"compile": False}], ids=["compiled", "eager"])
def test_a_rate_that_on_epoch_sets(way, batch_size, schedule):
    """Two epochs with a rate each are two runs of one epoch."""
    X, y = problem()
    nets = [fs.MLP(4, [6, 3], seed=2) for _ in range(2)]
    optimizer = fs.SGD(lr=0.1)
    common = {"batch_size": batch_size, "schedule": schedule, "epochs": 2, **way}

    def slower(epoch):
        optimizer.lr = 0.02

    history = fit(nets[0], X, y, optimizer=optimizer, on_epoch=slower, **common)
    with pytest.raises(StopIteration):
        fit(nets[1], X, y, optimizer=fs.SGD(lr=0.1), on_epoch=lambda epoch: next(iter(())), **common)
    second = fit(nets[1], X, y, optimizer=fs.SGD(lr=0.02), first_epoch=2, **common)
    assert history.loss[1] == second.loss[0]
    assert weights(nets[0]) == weights(nets[1])


def by_hand(f, parameters, X, y, *, epochs, batch_size, lr, seed=0, schedule="linear"):
    """The objective that fit documents: the mean of the rows' losses; one row after the other, in the eager engine."""
    generator = np.random.default_rng(seed)
    optimizer = fs.SGD(parameters, lr=lr)
    optimizer.zero_grad()
    means, done = [], 0
    for _ in range(epochs):
        order, total = generator.permutation(len(X)), 0.0
        for k in range(0, len(X), batch_size):
            batch = order[k : k + batch_size]
            optimizer.lr = lr * (1.0 - done / (epochs * len(X))) if schedule else lr
            for i in batch:
                label = y[i] if np.ndim(y[i]) else y[i].item()
                value = f(fs.to_tensor(X[i]), label)
                (value / len(batch)).backward(accumulate=True)
                total += value.data
            optimizer.step()
            optimizer.zero_grad()
            done += len(batch)
        means.append(total / len(X))
    return means


# --- the same training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", None])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 16, 60, 100])
def test_compiled_and_eager(batch_size, schedule):
    """60 rows: batches that divide them, that leave a rest, that are all of them, that are more than all of them."""
    X, y = problem()
    both(lambda: fs.MLP(4, [8, 3], seed=1), X, y, epochs=3, batch_size=batch_size, schedule=schedule, seed=5)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_adam(batch_size):
    """Its memory goes on from call to call, and steps that are small in the gradient are not small in the weight."""
    X, y = problem()
    adam = lambda: fs.Adam(lr=0.01)
    both(lambda: fs.MLP(4, [8, 3], seed=1), X, y, epochs=2, batch_size=batch_size, optimizer=adam, tolerance=1e-7)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_adam_goes_on_where_an_eager_run_stopped(batch_size):
    X, y = problem()
    nets = [fs.MLP(4, [8, 3], seed=1) for _ in range(2)]
    for net, modes in zip(nets, ((False, False), (False, True)), strict=True):
        optimizer = fs.Adam(net.parameters(), lr=0.01)
        for first, compiled in zip((1, 2), modes, strict=True):
            stop = Stop(first)
            with pytest.raises(Stop):
                fit(
                    net, X, y, optimizer=optimizer, epochs=2, first_epoch=first, batch_size=batch_size,
                    compile=compiled, on_epoch=stop,
                )  # fmt: skip
    close_nets(nets[1], nets[0], 1e-7)


class Stop(Exception):
    """Ends a run after an epoch."""

    def __init__(self, epoch):
        super().__init__(epoch)
        self.epoch = epoch

    def __call__(self, epoch):
        if epoch.epoch == self.epoch:
            raise self


def test_an_optimizer_of_the_users():
    class Signs(fs.SGD):
        """Steps of one length; reads and writes what any other program could."""

        def step(self):
            for p in self.parameters:
                p.data = p.numpy() - self.lr * np.sign(np.asarray(p.grad))

    X, y = problem(20)
    both(lambda: fs.MLP(4, [8, 3], seed=1), X, y, epochs=2, batch_size=5, optimizer=lambda: Signs(lr=0.01))


def test_several_layers_one_layer_and_rows_with_zeros():
    X, y = problem()
    X = np.where(X > 0.5, X, 0.0)
    for sizes in ([3], [6, 5, 4, 3]):
        for batch_size in (1, 16):
            both(lambda sizes=sizes: fs.MLP(4, sizes, seed=1), X, y, epochs=2, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_targets_of_several_columns(batch_size):
    X, _ = problem(50, 3)
    Y = X @ np.array([[1.0, 0.0], [2.0, -1.0], [4.0, 0.5]])
    make = lambda: fs.MLP(3, [5, 2], seed=0)
    both(make, X, Y, loss=fs.squared_loss, epochs=3, batch_size=batch_size)


def test_float32_data():
    X, y = problem()
    nets = [fs.MLP(4, [8, 3], seed=1) for _ in range(2)]
    for net, data in zip(nets, (X.astype(np.float32), X.astype(np.float32).astype(np.float64)), strict=True):
        fit(net, data, y, epochs=2, batch_size=8)
    assert weights(nets[0]) == weights(nets[1])


@pytest.mark.parametrize("batch_size", [1, 16])
def test_validation_and_history(batch_size):
    X, y = problem()
    told = []
    net = fs.MLP(4, [8, 3], seed=1)
    keywords = {"epochs": 3, "batch_size": batch_size, "optimizer": fs.SGD(lr=0.05)}

    def on_epoch(epoch):
        told.append(epoch)
        assert epoch.accuracy == fs.evaluate(net, X, y)  # the weights are those after the epoch

    with compiled_only():
        history = fit(net, X, y, validation_data=(X, y), on_epoch=on_epoch, **keywords)
    assert history.epochs == told
    assert [e.epoch for e in told] == [1, 2, 3]
    assert history.loss[2] < history.loss[0]
    assert all(e.seconds > 0 and e.samples_per_s > 0 for e in told)
    both(lambda: fs.MLP(4, [8, 3], seed=1), X, y, validation_data=(X, y), epochs=3, batch_size=batch_size)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_a_run_in_two_parts_is_the_whole_run_bit_for_bit(batch_size, dtype):
    X, y = problem()
    nets = [fs.MLP(4, [8, 3], seed=1) for _ in range(2)]
    keywords = {"epochs": 4, "batch_size": batch_size, "dtype": dtype}
    whole = fit(nets[0], X, y, **keywords)
    with pytest.raises(Stop):
        fit(nets[1], X, y, on_epoch=Stop(2), **keywords)
    assert weights(nets[0]) != weights(nets[1])
    rest = fit(nets[1], X, y, first_epoch=3, **keywords)
    assert [e.epoch for e in rest.epochs] == [3, 4]
    assert rest.loss == whole.loss[2:]
    assert weights(nets[0]) == weights(nets[1])


def test_a_callback_that_changes_the_net():
    X, y = problem()

    def run(**keywords):
        net, optimizer = fs.MLP(4, [8, 3], seed=1), fs.SGD(lr=0.05)

        def on_epoch(epoch):
            net.linears[0].w.data = net.linears[0].w.numpy() * 0.5
            net.linears[1].b.data[0] = float(epoch.epoch)

        fit(net, X, y, epochs=3, batch_size=8, optimizer=optimizer, on_epoch=on_epoch, **keywords)
        return net

    close_nets(run(), run(compile=False))


def test_gradients_after_fit_are_zero_and_the_rate_is_given_back():
    X, y = problem()
    net, optimizer = fs.MLP(4, [8, 3], seed=1), fs.SGD(lr=0.05)
    net.linears[0].w.grad = np.full((4, 8), 1e6)  # from before, not part of the first step
    fit(net, X, y, epochs=2, batch_size=8, optimizer=optimizer)
    assert optimizer.lr == 0.05
    assert not any(np.any(np.asarray(a.grad)) for layer in net.linears for a in (layer.w, layer.b))
    other = fs.MLP(4, [8, 3], seed=1)
    fit(other, X, y, epochs=2, batch_size=8, optimizer=fs.SGD(lr=0.05))
    assert weights(net) == weights(other)


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("keywords", [{}, {"dtype": "float32"}])
def test_the_same_seed_gives_the_same_bits(batch_size, keywords):
    X, y = problem()
    nets = [fs.MLP(4, [8, 3], seed=1) for _ in range(3)]
    for net, seed in zip(nets, (7, 7, 8), strict=True):
        fit(net, X, y, epochs=2, batch_size=batch_size, seed=seed, **keywords)
    assert weights(nets[0]) == weights(nets[1]) != weights(nets[2])


# --- any program ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("way", WAYS)
def test_a_net_in_scalar_loops(way, batch_size):
    X, y = problem(24)
    runs = []
    for compiled in (False, True):
        net, parameters = scalar_net(fs, way, (4, 5, 3))
        keywords = {"epochs": 2, "batch_size": batch_size, "lr": 0.05}
        if compiled:
            optimizer = fs.SGD(parameters, lr=keywords.pop("lr"))
            with compiled_only():
                losses = fit(net, X, y, optimizer=optimizer, **keywords).loss
        else:
            losses = by_hand(classified(fs, net), parameters, X, y, **keywords)
        runs.append((losses, [values_of(p) for p in parameters]))
    (eager, e), (compiled, c) = runs
    close(compiled, eager, RUN)
    for p, q in zip(c, e, strict=True):
        close(p, q, RUN)


class Residual(fs.Module):
    """A module of the user's, whose forward pass decides on a value and shares a weight."""

    def __init__(self):
        self.first, self.last = fs.Linear(4, 4, seed=1), fs.Linear(4, 3, seed=2)
        self.scale = {"s": fs.Tensor(0.5)}

    def forward(self, x):
        h = self.first(x)
        h = [a.tanh() * self.scale["s"] + b for a, b in zip(h, x, strict=True)]
        if h[0] > 0.2:
            h = [a * self.scale["s"] for a in h]
        return self.last(h)

    def everything(self):
        return [self.first.w, self.first.b, self.last.w, self.last.b, self.scale["s"]]


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_users_module_that_branches(batch_size):
    X, y = problem(40)
    nets = Residual(), Residual()
    f = lambda x, k: fs.cross_entropy(nets[0](x), k)
    means = by_hand(f, nets[0].everything(), X, y, epochs=3, batch_size=batch_size, lr=0.05)
    with compiled_only():
        history = fit(nets[1], X, y, epochs=3, batch_size=batch_size, optimizer=fs.SGD(lr=0.05))
    close(history.loss, means, RUN)
    assert history.loss[-1] < history.loss[0]
    for p, q in zip(nets[1].everything(), nets[0].everything(), strict=True):
        close(values_of(p), values_of(q), RUN)


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("decorated", [True, False])
def test_a_compiled_function_with_a_penalty_trains_what_it_captured(batch_size, decorated):
    X, y = problem(40)
    nets = [fs.MLP(4, [6, 3], seed=1) for _ in range(2)]
    alone = [fs.Tensor(0.3) for _ in range(2)]

    def loss_of(net, t):
        def sample_loss(x, y):
            penalty = fs.sum([w * w for layer in net.linears for row in layer.w for w in row])
            return fs.cross_entropy(net(x) * t, y) + 1e-2 * penalty

        return sample_loss

    parameters = [p for layer in nets[0].linears for p in (layer.w, layer.b)] + [alone[0]]
    means = by_hand(loss_of(nets[0], alone[0]), parameters, X, y, epochs=3, batch_size=batch_size, lr=0.05)
    p = fs.compile(loss_of(nets[1], alone[1]))
    if decorated:
        p.map(X[:2], y[:2])  # recorded before
    with compiled_only():
        history = fit(p, X, y, optimizer=fs.SGD(lr=0.05), epochs=3, batch_size=batch_size)
    close(history.loss, means, RUN)
    close_nets(nets[1], nets[0])
    close(alone[1].data, alone[0].data, RUN)
    assert alone[1].data != 0.3
    assert "matrix product" in p.report()


def test_parameters_that_only_another_branch_reads_are_trained():
    """All captured leaves of all versions: which ones there are is found out on the way."""
    X = np.array([[1.0], [2.0], [-1.0], [3.0], [-2.0], [1.5]])
    y = np.array([2.0, 4.0, 3.0, 6.0, 6.0, 3.0])
    pairs = [[fs.Tensor(0.5), fs.Tensor(-0.5)] for _ in range(2)]

    def loss_of(a, b):
        return lambda x, target: ((x[0] * a if x[0] > 0.0 else x[0] * b) - target) ** 2

    means = by_hand(loss_of(*pairs[0]), pairs[0], X, y, epochs=4, batch_size=2, lr=0.02)
    with compiled_only():
        history = fit(fs.compile(loss_of(*pairs[1])), X, y, epochs=4, batch_size=2, optimizer=fs.SGD(lr=0.02))
    close(history.loss, means, RUN)
    close([t.data for t in pairs[1]], [t.data for t in pairs[0]], RUN)
    assert pairs[1][0].data > 0.5
    assert pairs[1][1].data < -0.5


@pytest.mark.parametrize("batch_size", [1, 8])
def test_an_optimizer_with_parameters_trains_only_those(batch_size):
    X, y = problem(40)
    nets = [fs.MLP(4, [6, 3], seed=1) for _ in range(2)]
    fixed = bits(nets[0].linears[0].w.numpy())
    trained = [[net.linears[1].w, net.linears[0].b] for net in nets]
    f = lambda x, k: fs.cross_entropy(nets[0](x), k)
    means = by_hand(f, trained[0], X, y, epochs=2, batch_size=batch_size, lr=0.05)
    p = fs.compile(lambda x, k: fs.cross_entropy(nets[1](x), k))
    with compiled_only():
        history = fit(p, X, y, optimizer=fs.SGD(trained[1], lr=0.05), epochs=2, batch_size=batch_size)
    close(history.loss, means, RUN)
    close_nets(nets[1], nets[0])
    assert bits(nets[1].linears[0].w.numpy()) == bits(nets[0].linears[0].w.numpy()) == fixed
    assert bits(nets[1].linears[1].b.numpy()) == bits(np.zeros(3))


def test_a_parameter_that_the_loss_does_not_reach_is_left_alone():
    X, y = problem(20)
    w, idle = fs.to_tensor([0.5, 0.1, -0.2, 0.3]), fs.Tensor(7.0)
    f = fs.compile(lambda x, k: (fs.dot(w, x) - k) ** 2)
    fit(f, X, y, optimizer=fs.SGD([w, idle], lr=0.01), epochs=2, batch_size=4)
    assert idle.data == 7.0
    assert w.tolist() != [0.5, 0.1, -0.2, 0.3]


class Fan(fs.Module):
    """The inputs through two layers and as they are."""

    def __init__(self):
        self.linears = [fs.Linear(4, 5, seed=1), fs.Linear(4, 5, seed=2), fs.Linear(9, 3, seed=3)]

    def forward(self, x):
        a, b, last = self.linears
        return last([*(a(x).relu() + b(x)), *(x * 0.5)])


def test_detect_anomaly_runs_a_program_row_by_row():
    X, y = problem(30)
    w, expected = fs.to_tensor([0.5, 0.1, -0.2, 0.3]), fs.to_tensor([0.5, 0.1, -0.2, 0.3])
    f = fs.compile(lambda x, k: (fs.dot(w, x) - k) ** 2)
    with fs.debug.detect_anomaly():
        fit(f, X, y, epochs=2, optimizer=fs.SGD(lr=0.01))
    g = fs.compile(lambda x, k: (fs.dot(expected, x) - k) ** 2)
    fit(g, X, y, epochs=2, optimizer=fs.SGD([expected], lr=0.01))
    close(w.numpy(), expected.numpy())


# --- threads, float32 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("batch_size", [2, 16, 37, 64, 300])
def test_the_result_does_not_depend_on_the_number_of_threads(batch_size, dtype):
    """Bit for bit, with a rest of every size in the last batch; versions among them."""
    X, y = problem(211, 6)
    found = set()
    for threads in (1, 2, 3):
        net = fs.MLP(6, [20, 3], seed=1)

        def forward(x, net=net):
            out = net(x)
            return out * 2.0 if out[0] > out[1] else out

        with compiled_only():
            history = fit(
                forward, X, y, epochs=2, batch_size=batch_size, threads=threads, dtype=dtype,
                optimizer=fs.SGD(net.parameters(), lr=0.05),
            )  # fmt: skip
        found.add((weights(net), tuple(history.loss)))
    assert len(found) == 1


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("hidden", [10, 40])
@pytest.mark.parametrize("batch_size", [3, 40, 130])
@pytest.mark.parametrize("rows", ["scattered", "one column", "none"])
def test_rows_with_zeros_are_shared_among_threads(rows, batch_size, hidden, dtype):
    """The inputs are cut into as many parts as there are threads: some are empty here, some columns never used."""
    X, y = problem(211, 23)
    generator = np.random.default_rng(3)
    X[:, generator.permutation(23)[:5]] = 0.0
    if rows == "scattered":
        X[generator.random(X.shape) < 0.7] = 0.0
    else:
        X[:, np.arange(23) != 7 if rows == "one column" else slice(None)] = 0.0

    def run(**keywords):
        net = fs.MLP(23, [hidden, 3], seed=1)
        optimizer = fs.SGD(lr=0.05)
        return net, fit(net, X, y, epochs=2, batch_size=batch_size, optimizer=optimizer, **keywords)

    found = set()
    for threads in (1, 2, 3, 5):
        with compiled_only():
            net, history = run(threads=threads, dtype=dtype)
        found.add((weights(net), tuple(history.loss)))
    assert len(found) == 1
    close_nets(net, run(compile=False)[0], RUN if dtype == "float64" else RUN32)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_threads_that_add_to_the_same_numbers(dtype):
    """Rows that are picked from a table: many rows of a large batch scatter their gradients to the same place."""
    X, y = problem(1500, 3)
    found = set()
    for threads in (1, 2):
        table = fs.to_tensor(np.random.default_rng(5).normal(size=(3, 3)))
        p = fs.compile(lambda x, k, table=table: (fs.dot(table[k], x).tanh() - k) ** 2)
        with compiled_only():
            history = fit(p, X, y, epochs=1, batch_size=1024, threads=threads, dtype=dtype)
        found.add((bits(table.numpy()), history.loss[0]))
    assert len(found) == 1


def test_fits_in_two_threads_while_a_third_works_eagerly():
    X, y = problem(200)
    keywords = {"epochs": 4, "batch_size": 16}
    expected = [fs.MLP(4, [8, 3], seed=seed) for seed in (1, 2)]
    for net in expected:
        fit(net, X, y, **keywords)
    nets = [fs.MLP(4, [8, 3], seed=seed) for seed in (1, 2)]
    done = threading.Event()

    def eager():
        w, rounds = fs.Tensor(1.5), 0
        while not done.is_set() or rounds < 3:
            s = fs.sum([w * w * float(k) for k in range(50)])
            s.backward()
            if w.grad != 2 * 1.5 * 1225.0:
                return False
            rounds += 1
        return True

    with ThreadPoolExecutor(3) as pool:
        other = pool.submit(eager)
        try:
            for run in [pool.submit(fit, net, X, y, threads=2, **keywords) for net in nets]:
                run.result()
        finally:
            done.set()
        assert other.result()
    assert [weights(net) for net in nets] == [weights(net) for net in expected]


@pytest.mark.parametrize("batch_size", [1, 16, 64])
def test_float32(batch_size):
    X, y = problem(128)
    both(lambda: fs.MLP(4, [8, 3], seed=1), X, y, RUN32, {"dtype": "float32"}, epochs=3, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_float32_is_float32(batch_size):
    """It is not float64 under another name: the numbers that come back are floats of 24 bits, and differ."""
    X, y = problem(128)
    nets = [fs.MLP(4, [8, 3], seed=1) for _ in range(2)]
    fit(nets[0], X, y, epochs=1, batch_size=batch_size)
    fit(nets[1], X, y, epochs=1, batch_size=batch_size, dtype="float32")
    assert weights(nets[0]) != weights(nets[1])
    for a in arrays(nets[1]):
        assert a.dtype == np.float64
        assert bits(a.astype(np.float32)) == bits(a)


def test_float32_and_adam():
    X, y = problem(128)
    adam = lambda: fs.Adam(lr=0.01)
    make = lambda: fs.MLP(4, [8, 3], seed=1)
    # Adam divides by the size of the gradient: where that is all rounding, so is the step, which is lr long
    both(make, X, y, 1e-2, {"dtype": "float32"}, epochs=2, batch_size=16, optimizer=adam)


def test_arguments_that_make_no_sense_are_value_errors():
    X, y = problem(10)
    net = fs.MLP(4, [3], seed=1)
    before = weights(net)
    for keywords, words in (
        ({"threads": 2}, "threads"),
        ({"threads": 2, "batch_size": 1}, "threads"),
        ({"threads": 0, "batch_size": 4}, "threads"),
        ({"threads": -1, "batch_size": 4}, "threads"),
        ({"threads": 1.5, "batch_size": 4}, "threads"),
        ({"dtype": "float16"}, "dtype"),
        ({"dtype": "int64"}, "dtype"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(net, X, y, **keywords)
    with pytest.raises(ValueError, match="float32"):
        fit(net, X, y, dtype="float32", compile=False)
    with pytest.raises(TypeError, match="exact"):
        fit(net, X, y, exact=True)
    assert weights(net) == before


def test_data_that_do_not_fit_a_compiled_function():
    X, y = problem(10)
    p = fs.compile(lambda x, k: (x[0] - k) ** 2)
    for A, b, words in (
        ((X > 0).astype(np.uint8), y, "X / 255"),
        (X, y[:5], "rows"),
        (X[:0], y[:0], "empty"),
    ):
        with pytest.raises(ValueError, match=words):
            fit(p, A, b)


# --- errors: an epoch is committed whole or not at all ----------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_commits_nothing(value, batch_size):
    X, y = problem(20)
    X[12, 1] = value
    net, optimizer = fs.MLP(4, [8, 3], seed=1), fs.SGD(lr=0.05)
    before = weights(net)
    with pytest.raises(FloatingPointError, match=r"nan|inf") as error:
        fit(net, X, y, shuffle=False, batch_size=batch_size, optimizer=optimizer)
    assert "12" in str(error.value)  # samples before it
    assert weights(net) == before
    assert optimizer.lr == 0.05
    assert not any(np.any(np.asarray(a.grad)) for layer in net.linears for a in (layer.w, layer.b))


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_run_that_diverges_keeps_the_last_whole_epoch(batch_size):
    X, y = problem(40)
    net, kept = fs.MLP(4, [8, 3], seed=1), []

    def on_epoch(epoch):
        kept.append(weights(net))
        if epoch.epoch == 2:  # the next one cannot go well
            net.linears[0].w.data = np.full((4, 8), 1e300)
            net.linears[1].w.data = np.full((8, 3), 1e300)
            kept.append(weights(net))

    with pytest.raises(FloatingPointError):
        fit(net, X, y, epochs=5, batch_size=batch_size, on_epoch=on_epoch)
    assert len(kept) == 3
    assert weights(net) == kept[-1]


@pytest.mark.parametrize("batch_size", [1, 4, 20])
@pytest.mark.parametrize("kind", ["domain", "label", "index", "user"])
def test_an_error_in_a_row_commits_nothing_and_names_the_row(kind, batch_size):
    X, y = problem(20)
    X = abs(X) + 0.1
    w, table = fs.to_tensor([0.5, 0.2, 0.1, 0.3]), fs.to_tensor([0.1, 0.2, 0.3])

    class Mine(Exception):
        pass

    def f(x, k):
        if kind == "user" and x[0] > 100.0:
            raise Mine
        out = [w[j] * x[j].log() for j in range(3)]
        loss = fs.cross_entropy(out, k) if kind == "label" else fs.sum(out) ** 2
        return loss * table[k] if kind != "label" else loss

    if kind == "domain":
        X[13, 2] = X[17, 2] = -1.0
    elif kind == "user":
        X[13, 0] = 1000.0
    else:
        y[[13, 17]] = 7
    error = {"domain": ValueError, "label": ValueError, "index": IndexError, "user": Mine}[kind]
    before = bits(w.numpy()), bits(table.numpy())
    with pytest.raises(error) as caught:
        fit(fs.compile(f), X, y, shuffle=False, batch_size=batch_size, epochs=2)
    if kind != "user":
        assert re.search(r"\brow 13\b", str(caught.value))
    assert (bits(w.numpy()), bits(table.numpy())) == before
    assert not np.any(np.asarray(w.grad))


def test_the_row_that_is_named_is_the_row_of_the_data_when_they_are_shuffled():
    X, y = problem(40)
    X = abs(X) + 0.1
    X[23, 1] = -1.0
    w = fs.Tensor(0.5)
    with pytest.raises(ValueError, match=r"\brow 23\b"):
        fit(fs.compile(lambda x, k: (x[1].log() * w - k) ** 2), X, y, batch_size=8, seed=3)
    assert w.data == 0.5


def test_an_exception_in_the_callback_leaves_the_epochs_that_were():
    X, y = problem()
    nets = [fs.MLP(4, [8, 3], seed=1) for _ in range(2)]
    for net in nets:
        with pytest.raises(Stop):
            fit(net, X, y, epochs=3, batch_size=8, on_epoch=Stop(2))
    assert weights(nets[0]) == weights(nets[1]) != weights(fs.MLP(4, [8, 3], seed=1))
    fs.cross_entropy(nets[0](X[0]), 1).backward()  # the engine goes on


@needs_signals
@pytest.mark.parametrize("keywords", [{}, {"batch_size": 32}, {"batch_size": 32, "threads": 2, "dtype": "float32"}])
def test_ctrl_c_commits_nothing_of_the_running_epoch(keywords):
    X, y = problem(20_000)
    net, kept = fs.MLP(4, [64, 3], seed=1), []

    def on_epoch(epoch):
        kept.append(weights(net))
        if epoch.epoch == 2:  # by now everything is recorded: half of an epoch later is in the middle of one
            signal.setitimer(signal.ITIMER_REAL, max(0.001, 0.5 * epoch.seconds))

    with pytest.raises(KeyboardInterrupt), Interrupt(1000.0):
        fit(net, X, y, epochs=10_000, on_epoch=on_epoch, **keywords)
    assert len(kept) >= 2
    assert len(set(kept)) == len(kept)
    # It comes between two epochs too: after one is whole, before or in the middle of its callback.
    other, whole = fs.MLP(4, [64, 3], seed=1), []

    def note(epoch):
        whole.append(weights(other))
        if epoch.epoch == len(kept) + 1:
            raise Stop(epoch.epoch)

    with pytest.raises(Stop):
        fit(other, X, y, epochs=10_000, on_epoch=note, **keywords)
    assert kept == whole[: len(kept)]
    assert weights(net) in (whole[len(kept) - 1], whole[len(kept)])
    testing.check()
    fit(net, X[:64], y[:64], epochs=1, **keywords)  # and it can be trained on
    assert weights(net) != kept[-1]


# --- what cannot be replayed ------------------------------------------------------------------------------------------


def compile_warnings(work):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [str(c.message) for c in caught if issubclass(c.category, fs.CompileWarning)]


class Dropout(fs.Module):
    """Hidden numbers that are scaled at random, for each sample or batch anew."""

    def __init__(self, generator):
        self.layers, self.generator, self.calls = [fs.Linear(4, 8, seed=1), fs.Linear(8, 3, seed=2)], generator, 0

    def forward(self, x):
        self.calls += 1
        h = self.layers[0](x).relu()
        mask = 0.5 + self.generator.random()
        return self.layers[1](h * mask)


@pytest.mark.parametrize("make", [random.Random, np.random.default_rng])
@pytest.mark.parametrize("batch_size", [1, 10])
def test_random_numbers_in_the_forward_pass_are_not_frozen(make, batch_size):
    """Dropout would stay the dropout of the first sample.  fit sees it, says it, and takes the eager loop."""
    X, y = problem(40)
    net = Dropout(make(3))
    parameters = [a for layer in net.layers for a in (layer.w, layer.b)]
    before = [bits(values_of(a)) for a in parameters]
    said = compile_warnings(lambda: fit(net, X, y, epochs=2, batch_size=batch_size))
    assert len(said) == 1
    assert net.calls >= 2 * 40 // batch_size
    assert all(bits(values_of(a)) != b for a, b in zip(parameters, before, strict=True))
    quiet = Dropout(make(3))
    assert not compile_warnings(lambda: fit(quiet, X, y, epochs=2, batch_size=batch_size, compile=False))


class Masked(fs.Module):
    """Dropout of single numbers: a mask, one number for each hidden node."""

    def __init__(self):
        self.layers = [fs.Linear(4, 8, seed=1), fs.Linear(8, 3, seed=2)]
        self.generator, self.calls = random.Random(1), 0

    def forward(self, x):
        self.calls += 1
        h = [a.relu() * (2.0 if self.generator.random() < 0.5 else 0.0) for a in self.layers[0](x)]
        return self.layers[1](h)


def test_a_mask_of_random_numbers_is_not_frozen():
    X, y = problem(40)
    net = Masked()
    said = compile_warnings(lambda: fit(net, X, y, epochs=1))
    assert len(said) == 1
    assert net.calls >= 40


def test_too_many_versions_train_as_the_eager_loop_does():
    X, y = problem(150, 8)

    class Signs(fs.Module):
        def __init__(self):
            self.first, self.last = fs.Linear(8, 8, seed=1), fs.Linear(8, 3, seed=2)

        def forward(self, x):
            return self.last([a if a > 0.0 else a * 0.1 for a in self.first(x)])

    nets = Signs(), Signs()
    fit(nets[0], X, y, epochs=2, compile=False, optimizer=fs.SGD(lr=0.05))
    said = compile_warnings(lambda: fit(nets[1], X, y, epochs=2, optimizer=fs.SGD(lr=0.05)))
    assert len(said) == 1
    assert re.search(r"maximum|where", said[0])
    assert "test_fit.py" in said[0]
    for layer, other in ((nets[1].first, nets[0].first), (nets[1].last, nets[0].last)):
        close(layer.w.numpy(), other.w.numpy(), RUN)


def test_an_operation_of_the_users_trains_as_the_eager_loop_does():
    X, y = problem(30)
    squash = fs.custom_op(math.tanh, lambda a: 1.0 - math.tanh(a) ** 2, name="squash")

    class Net(fs.Module):
        def __init__(self):
            self.first, self.last = fs.Linear(4, 5, seed=1), fs.Linear(5, 3, seed=2)

        def forward(self, x):
            return self.last([squash(a) for a in self.first(x)])

    nets = Net(), Net()
    fit(nets[0], X, y, epochs=2, compile=False)
    assert not compile_warnings(lambda: fit(nets[1], X, y, epochs=2))
    for layer, other in ((nets[1].first, nets[0].first), (nets[1].last, nets[0].last)):
        close(layer.w.numpy(), other.w.numpy(), RUN)


def test_compile_false_calls_the_net_for_every_sample():
    X, y = problem(10)
    seen = []

    class Net(fs.MLP):
        def forward(self, x):
            seen.append(np.shape(x))
            return super().forward(x)

    fit(Net(4, [3], seed=0), X, y, epochs=2, compile=False)
    assert len(seen) == 20
    seen.clear()
    with compiled_only():
        fit(Net(4, [3], seed=0), X, y, epochs=2)
    assert 1 <= len(seen) <= 4
