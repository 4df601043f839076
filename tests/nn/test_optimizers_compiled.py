"""Steps inside the replay: every optimiser, as the eager loop takes them, and what interrupts them."""

import copy
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.engine._step import flatten_parameters
from fastscalar.nn import trainers

TRIPLE = fs.custom_op(lambda x: 3.0 * x, lambda x: 3.0, name="triple")  # is not replayed

RULES = {
    "momentum": lambda p=None: fs.SGD(p, lr=0.02, momentum=0.9),
    "fading": lambda p=None: fs.SGD(p, lr=0.02, momentum=0.15, weight_decay=0.1),
    "nesterov": lambda p=None: fs.SGD(p, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.1),
    "decay": lambda p=None: fs.SGD(p, lr=0.05, weight_decay=0.2),
    "norm": lambda p=None: fs.SGD(p, lr=0.05, clip_norm=0.4),
    "value": lambda p=None: fs.SGD(p, lr=0.05, clip_value=0.05),
    "Adam": lambda p=None: fs.Adam(p, lr=0.01, eps=1e-4),
    "AdamW": lambda p=None: fs.AdamW(p, lr=0.01, eps=1e-4, weight_decay=0.3, clip_norm=1.0),
    "RMSprop": lambda p=None: fs.RMSprop(p, lr=0.005, eps=1e-3, momentum=0.5, weight_decay=0.1),
}
rules = pytest.mark.parametrize("rule", RULES)


class Scalars(fs.Module):
    """Tensors of their own, an array used in part as a whole, and a layer."""

    def __init__(self, seed):
        draw = np.random.default_rng(seed)
        self.first = fs.Linear(3, 5, seed=seed)
        self.w = [fs.Tensor(v) for v in draw.normal(size=5)]
        self.pair = fs.to_tensor(draw.normal(size=2))

    def forward(self, x):
        h = [a.tanh() for a in self.first(x)]
        z = sum((a * w for a, w in zip(h, self.w, strict=True)), fs.Tensor(0.0))
        return [z + self.pair[0], z * self.pair[1]]


class Tied(fs.Module):
    def __init__(self, seed):
        self.first = fs.Linear(3, 3, seed=seed)
        self.last = fs.Linear(3, 2, seed=seed + 1)

    def forward(self, x):
        return self.last(self.first(self.first(x).tanh()).tanh())


NETS = {"Linear": lambda s: fs.Linear(3, 2, seed=s), "MLP": lambda s: fs.MLP(3, [6, 2], seed=s), "Scalars": Scalars,
        "Tied": Tied}  # fmt: skip


def problem(n=30, seed=0):
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(n, 3)) * (draw.uniform(size=(n, 3)) < 0.6)
    return X, draw.integers(0, 2, size=n)


def fit(net, X, y, **keywords):
    return fs.fit(net, X, y, progress=False, **{"epochs": 3, **keywords})


def values(net):
    return np.concatenate([np.ravel(np.asarray(p.data)) for p in flatten_parameters(net.parameters(), [])])


def state(optimizer):
    return np.concatenate([np.ravel(v) for v in optimizer.state_dict().values()])


def inside_of(monkeypatch):
    """Whether the runs that follow took their steps in the replay."""
    seen = []
    one_batch, by_replays = trainers.CompiledTrainer._one_batch, trainers.CompiledTrainer._by_replays
    monkeypatch.setattr(trainers.CompiledTrainer, "_one_batch", lambda s, b: (seen.append(False), one_batch(s, b))[1])
    monkeypatch.setattr(
        trainers.CompiledTrainer, "_by_replays", lambda s, *a: (seen.append(True), by_replays(s, *a))[1]
    )
    return seen


@pytest.mark.dear
@rules
@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_compiled_and_eager_end_at_the_same_weights_and_state(rule, kind, batch_size, monkeypatch):
    X, y = problem()
    seen = inside_of(monkeypatch)
    nets = [NETS[kind](3) for _ in range(2)]
    optimizers = [RULES[rule]() for _ in nets]
    histories = [fit(net, X, y, optimizer=o, batch_size=batch_size, compile=c)
                 for net, o, c in zip(nets, optimizers, (True, False), strict=True)]  # fmt: skip
    assert seen == [True] * 3
    np.testing.assert_allclose(values(nets[0]), values(nets[1]), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(state(optimizers[0]), state(optimizers[1]), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(histories[0].loss, histories[1].loss, rtol=1e-9)
    assert optimizers[0]._steps == 3 * -(-30 // batch_size)


def a_net_and_rows(kind):
    """What a matrix that takes its step with its gradient may meet, one row at a time."""
    draw = np.random.default_rng(4)
    X, y = draw.normal(size=(24, 40)), draw.integers(0, 3, size=24)
    net = fs.Linear(40, 1, seed=1) if kind.startswith("one output") else fs.MLP(40, [20, 3], seed=1)
    if kind.endswith("sparse"):
        X *= draw.uniform(size=X.shape) < 0.2
    if kind == "dead":                           # no gradient comes through
        net.linears[0].b.data = np.full(20, -100.0)
    if kind == "infinite":                       # meets no gradient: it makes zeros of all that it goes into
        net.linears[0].w.data = np.vstack([np.full((1, 20), -1.0), net.linears[0].w.numpy()[1:]])
        X[::3, 0] = np.inf
        X[1::3, 0] = 0.0
    return net, X, y


@rules
@pytest.mark.parametrize("kind", ["dense", "sparse", "one output", "one output, sparse", "dead", "infinite"])
def test_single_rows_of_all_kinds(rule, kind, monkeypatch):
    seen, results = inside_of(monkeypatch), []
    for compile in (True, False):
        net, X, y = a_net_and_rows(kind)
        optimizer = RULES[rule]()
        loss = "squared" if kind.startswith("one output") else "cross_entropy"
        optimizer.lr /= 10
        fit(net, X, y, loss=loss, optimizer=optimizer, compile=compile, epochs=2)
        results.append((values(net), state(optimizer)))
    assert seen.count(True) == 2
    assert all(seen) or kind == "infinite"
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rule", ["momentum", "fading"])
@pytest.mark.parametrize("kind", ["dense", "sparse", "one output", "one output, sparse", "dead", "infinite"])
def test_a_momentum_in_batches_over_many_steps(rule, kind):
    """Gradients go straight into it, and what fades is a factor, which is multiplied in once it is small."""
    results = []
    for compile, threads in ((False, 1), (True, 1), (True, 2)):
        net, X, y = a_net_and_rows(kind)
        X[::2, 7] = 0.0
        optimizer = RULES[rule]()
        optimizer.lr /= 10
        loss = "squared" if kind.startswith("one output") else "cross_entropy"
        again = np.arange(350) % 24              # 70 steps: at 0.9 it is multiplied in after 66, and at the end
        fit(net, X[again], y[again], loss=loss, optimizer=optimizer, compile=compile, threads=threads, epochs=2,
            batch_size=5)  # fmt: skip
        results.append((values(net), state(optimizer)))
    for found, same in zip(*results[1:], strict=True):
        np.testing.assert_array_equal(found, same)
    for expected, found in zip(*results[:2], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_momentum_that_no_gradient_reaches_any_more_fades_to_zero(dtype):
    """And not through numbers that are too small to be normal, which take a hundred times as long."""
    draw = np.random.default_rng(0)
    X, y = draw.normal(size=(40, 3)), draw.integers(0, 2, size=40)
    X[8:, 1] = 0.0
    net, optimizer = fs.Linear(3, 2, seed=0), fs.SGD(lr=0.01, momentum=0.5)
    for first, stop, epochs in ((0, 8, 1), (8, 40, 150), (8, 40, 120)):
        fit(net, X[first:stop], y[first:stop], optimizer=optimizer, batch_size=8, epochs=epochs, dtype=dtype)
        kept = optimizer.state_dict()["momentum"][2:4]
        if stop == 8:
            assert (abs(kept) > 1e-3).all()
        assert ((kept == 0.0) | (abs(kept) >= np.finfo(dtype).tiny)).all()
    assert (kept == 0.0).all()


def test_a_limit_of_the_norm_that_comes_and_goes():
    """Between epochs: then the whole gradient has to be there before a step, and not else."""
    X, y = problem()
    results = []
    for compile in (True, False):
        net, optimizer = fs.MLP(3, [6, 2], seed=2), fs.Adam(lr=0.01)

        def change(epoch, optimizer=optimizer):
            optimizer.clip_norm = 0.1 if epoch.epoch % 2 else None

        fit(net, X, y, optimizer=optimizer, compile=compile, epochs=4, on_epoch=change)
        results.append(values(net))
    np.testing.assert_allclose(*results, rtol=1e-9, atol=1e-10)


@rules
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["MLP", "Scalars"])
def test_threads_do_not_change_a_bit(rule, dtype, kind):
    X, y = problem(64)
    results = []
    for threads in (1, 2, 3):
        net, optimizer = NETS[kind](1), RULES[rule]()
        fit(net, X, y, optimizer=optimizer, batch_size=16, threads=threads, dtype=dtype)
        results.append((values(net).tolist(), state(optimizer).tolist()))
    assert results[0] == results[1] == results[2]


@rules
@pytest.mark.parametrize("batch_size", [1, 8])
def test_float32_is_float64_to_its_digits(rule, batch_size):
    X, y = problem(40)
    nets = [fs.MLP(3, [6, 2], seed=2) for _ in range(2)]
    for net, dtype in zip(nets, ("float64", "float32"), strict=True):
        fit(net, X, y, optimizer=RULES[rule](), dtype=dtype, batch_size=batch_size)
    np.testing.assert_allclose(values(nets[1]), values(nets[0]), rtol=2e-3, atol=2e-4)


@rules
@pytest.mark.parametrize("batch_size", [1, 6])
def test_an_optimiser_of_ones_own_takes_the_same_steps(rule, batch_size):
    """A subclass steps on the tape, after each replay."""
    X, y = problem()
    nets, optimizers = [fs.MLP(3, [6, 2], seed=2) for _ in range(2)], [RULES[rule]() for _ in range(2)]
    optimizers[1].__class__ = type("Mine", (type(optimizers[1]),), {})
    for net, optimizer in zip(nets, optimizers, strict=True):
        fit(net, X, y, optimizer=optimizer, batch_size=batch_size)
    np.testing.assert_allclose(values(nets[1]), values(nets[0]), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(state(optimizers[1]), state(optimizers[0]), rtol=1e-9, atol=1e-12)


@rules
@pytest.mark.parametrize("compile", [True, False])
def test_parameters_that_the_net_does_not_read_take_part(rule, compile, monkeypatch):
    """Weights decay and momentum moves them: then the optimiser steps itself."""
    X, y = problem()
    seen = inside_of(monkeypatch)
    net, other = fs.Linear(3, 2, seed=0), fs.to_tensor([1.0, -2.0])
    optimizer = RULES[rule]([net.parameters(), other])
    fit(net, X, y, optimizer=optimizer, compile=compile)
    assert True not in seen
    shrinks = optimizer.weight_decay > 0
    assert (other.numpy() == [1.0, -2.0]).all() != shrinks


@rules
def test_a_part_of_a_net_alone(rule, monkeypatch):
    X, y = problem()
    seen = inside_of(monkeypatch)
    nets = [fs.MLP(3, [6, 2], seed=2) for _ in range(2)]
    before = nets[0].linears[1].w.tolist()
    for net, compile in zip(nets, (True, False), strict=True):
        part = [net.linears[0].w[1:], net.linears[1].b[0]]
        fit(net, X, y, optimizer=RULES[rule](part), compile=compile, batch_size=4)
    assert seen == [True] * 3
    assert nets[0].linears[1].w.tolist() == before
    np.testing.assert_allclose(values(nets[0]), values(nets[1]), rtol=1e-9, atol=1e-10)


@rules
@pytest.mark.parametrize("batch_size", [1, 5])
def test_rows_that_no_replay_takes_in_the_middle_of_an_epoch(rule, batch_size):
    """Several recordings, and rows that run eagerly: what the optimiser keeps goes from one to the other."""
    X, y = problem()

    def make():
        w, b = fs.to_tensor(np.linspace(-1, 1, 6).reshape(3, 2)), fs.Tensor(0.5)

        def sample(x, k):
            s = TRIPLE(b) if float(x[0].data) > 1.2 else b * 3.0 if float(x[1].data) > 0.0 else b + b + b
            return fs.cross_entropy([fs.dot(w[:, j], x) + s * j for j in range(2)], k)

        return w, b, sample

    results = []
    for compile in (True, False):
        w, b, sample = make()
        optimizer = RULES[rule]()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(fs.compile(sample), X, y, optimizer=optimizer, batch_size=batch_size, compile=compile)
        results.append(([*w.numpy().ravel(), b.data], optimizer._steps))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-8, atol=1e-10)
    assert results[0][1] == results[1][1]


class Stop(Exception): ...


@rules
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("way", ["goes on", "copied", "state"])
def test_a_run_in_parts_is_the_whole_run_to_the_bit(rule, dtype, way):
    X, y = problem()
    whole, parts = fs.MLP(3, [6, 2], seed=2), fs.MLP(3, [6, 2], seed=2)
    one, two = RULES[rule](), RULES[rule]()
    fit(whole, X, y, optimizer=one, dtype=dtype, batch_size=4)

    def stop(epoch):
        if epoch.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        fit(parts, X, y, optimizer=two, on_epoch=stop, dtype=dtype, batch_size=4)
    if way == "copied":
        parts, two = copy.deepcopy((parts, two))
    elif way == "state":
        known, two = two.state_dict(), RULES[rule](parts.parameters())
        two.load_state_dict(known)
    fit(parts, X, y, optimizer=two, first_epoch=3, dtype=dtype, batch_size=4)
    assert values(parts).tolist() == values(whole).tolist()
    assert state(two).tolist() == state(one).tolist()


@rules
def test_an_epoch_that_diverges_leaves_what_was_known_after_the_one_before(rule):
    X, y = problem()
    net, optimizer = fs.MLP(3, [6, 2], seed=2), RULES[rule]()
    kept = []

    def blow(epoch):
        if epoch.epoch == 2:
            kept.extend([values(net), state(optimizer)])
            X[20] = np.inf

    with pytest.raises(FloatingPointError):
        fit(net, X, y, optimizer=optimizer, on_epoch=blow, epochs=4)
    assert values(net).tolist() == kept[0].tolist()
    assert state(optimizer)[:1].tolist() == kept[1][:1].tolist()
    assert state(optimizer)[2:].tolist() == kept[1][2:].tolist()


def test_what_is_kept_of_gradients_long_gone_ends_at_zero():
    """A number that fades would end among those that are too small to be normal, which take many times the time."""
    w = fs.to_tensor([1.0, 1.0])
    for make in (lambda: fs.SGD([w], lr=1e-3, momentum=0.5), lambda: fs.Adam([w], betas=(0.5, 0.6))):
        optimizer = make()
        w.grad = [1.0, -1.0]
        optimizer.step()
        w.grad = 0.0
        for _ in range(1500):
            optimizer.step()
        assert all((k == 0.0).all() for k in optimizer._kept if k is not None)
        assert np.isfinite(w.numpy()).all()


@pytest.mark.parametrize("change", [{"momentum": 0.9}, {"weight_decay": 0.1}, {"clip_norm": 0.1}])
def test_constants_that_change_between_epochs(change):
    X, y = problem()
    nets = [fs.MLP(3, [6, 2], seed=2) for _ in range(2)]
    for net, compile in zip(nets, (True, False), strict=True):
        optimizer = fs.SGD(lr=0.05)

        def give(epoch, optimizer=optimizer):
            for key, value in change.items():
                setattr(optimizer, key, value)

        fit(net, X, y, optimizer=optimizer, on_epoch=give, compile=compile)
    np.testing.assert_allclose(values(nets[0]), values(nets[1]), rtol=1e-9, atol=1e-10)


@rules
@pytest.mark.parametrize("batch_size", [1, 4])
def test_leaves_that_are_found_late_are_trained_and_those_before_go_on(rule, batch_size):
    """A program reads another leaf for every row: what was moved once has a momentum from then on."""
    found = []
    for given in (False, True):
        table = [fs.Tensor(i / 10) for i in range(20)]
        program = fs.compile(lambda x, y, table=table: (y * table[int(x)] - 1.0) ** 2)
        optimizer = RULES[rule](table if given else None)
        optimizer.weight_decay = 0.0             # what is not known yet would not decay either
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(program, np.arange(20) + 0.5, np.ones(20), optimizer=optimizer, batch_size=batch_size, shuffle=False)
        found.append([t.data for t in table])
    np.testing.assert_allclose(*found, rtol=1e-10)
