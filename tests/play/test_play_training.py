"""A run that is steered: what each command does, what stays, and what looking costs."""

import itertools
import math
import time
import types

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.play import training
from fastscalar.play.samples import Samples
from fastscalar.play.server import Refused
from fastscalar.play.training import Trainer, number, resized, thinned


def digits(train=600, test=200):
    (X, y), (X_test, y_test) = fs.datasets.synthetic_digits(train, test)
    return Samples(X.reshape(-1, 784) / 255, y, X_test.reshape(-1, 784) / 255, y_test, "synthetic digits")


TICK = 0.01


@pytest.fixture(autouse=True)
def ticks(monkeypatch):
    """A piece takes one tick, and so does a look: what a run does depends on no machine's speed."""
    count = itertools.count()
    monkeypatch.setattr(training, "time", types.SimpleNamespace(perf_counter=lambda: TICK * next(count)))


@pytest.fixture
def run():
    made = []

    def make(net=None, samples=None, loss=fs.cross_entropy, **settings):
        net = fs.MLP(784, [8, 10], seed=0) if net is None else net
        made.append(Trainer(net, digits() if samples is None else samples, loss, **settings))
        return made[-1]

    yield make
    for trainer in made:
        trainer.close()
        assert not trainer._thread.is_alive()


def until(trainer, condition, seconds=200):
    end = time.monotonic() + seconds
    version = -1
    while not condition(now := trainer.snapshot()):
        assert time.monotonic() < end, now
        version = trainer.wait(version, 1.0)
    return now


def paused(trainer):
    return until(trainer, lambda now: now["state"] != "running")


def test_a_step_is_a_batch_and_an_epoch_ends_at_its_end(run):
    trainer = run(batch_size=7)
    trainer.step()
    assert paused(trainer)["samples"] == 7
    trainer.step()
    assert paused(trainer)["samples"] == 14
    trainer.epoch()
    assert paused(trainer)["samples"] == 600
    trainer.epoch(2)
    assert paused(trainer)["samples"] == 1800
    assert trainer.snapshot()["epoch"] == 3.0


def test_an_epoch_in_pieces_is_the_epoch_of_fit(run):
    """The same samples in the same order with the same steps: the weights are equal, to rounding."""
    samples = digits()
    net = fs.MLP(784, [8, 10], seed=0)
    trainer = run(net, samples)
    trainer.epoch()
    paused(trainer)
    other = fs.MLP(784, [8, 10], seed=0)
    fs.fit(other, samples.X, samples.y, optimizer=fs.SGD(lr=0.02), epochs=1, schedule=None, seed=0, progress=False)
    for mine, its in zip(net.linears, other.linears, strict=True):
        np.testing.assert_allclose(mine.w.numpy(), its.w.numpy(), rtol=1e-9, atol=1e-12)


def test_it_learns_and_the_curve_says_so(run):
    trainer = run(samples=digits(3000, 300), net=fs.MLP(784, [32, 10], seed=0))
    trainer.epoch(2)
    now = paused(trainer)
    assert now["accuracy"] > 0.85
    assert now["metric"] == "accuracy"
    assert now["rate"] > 0
    assert trainer.points[0][1] > 2 * trainer.points[-1][1]
    assert trainer.points[-1][0] == 6000
    assert trainer.points[-1][2] == now["accuracy"]


def test_start_and_pause(run):
    trainer = run()
    trainer.start()
    until(trainer, lambda now: now["samples"] > 700)
    trainer.pause()
    assert trainer.snapshot()["state"] == "paused"
    there = trainer.snapshot()["samples"]
    time.sleep(0.3)
    assert trainer.snapshot()["samples"] == there


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("wishes", [
    {"lr": 0.001}, {"lr": 0.1}, {"batch_size": 32}, {"hidden": 3}, {"hidden": 20}, {"optimizer": "adam", "lr": 0.001},
    {"optimizer": "adam", "batch_size": 16, "hidden": 5, "lr": 0.002},
])
def test_settings_change_while_it_runs(run, wishes, running):
    trainer = run()
    if running:
        trainer.start()
        until(trainer, lambda now: now["samples"] > 0)
    trainer.set(wishes)
    now = trainer.snapshot()
    assert now["settings"].items() >= wishes.items()
    assert now["state"] == ("running" if running else "paused")
    if "hidden" in wishes:
        assert trainer.net.linears[0].out_features == wishes["hidden"]
    # All of them: where a high rate has left no unit alive, the weights rest, and the last biases alone go on.
    before = [parameter.numpy() for parameter in trainer.net.parameters()]
    there = now["samples"]
    trainer.start()
    until(trainer, lambda now: now["samples"] > there + 100)
    trainer.pause()
    after = [parameter.numpy() for parameter in trainer.net.parameters()]
    assert not all(map(np.array_equal, before, after))


def test_a_whole_number_is_a_rate(run):
    trainer = run()
    trainer.set({"lr": 1})
    assert trainer.snapshot()["settings"]["lr"] == 1


@pytest.mark.parametrize("wishes", [
    {"lr": 0}, {"lr": -1}, {"lr": "0.1"}, {"lr": True}, {"lr": math.inf}, {"lr": None}, {"batch_size": 0},
    {"batch_size": 1.5}, {"batch_size": 10**9}, {"hidden": 0}, {"hidden": 10**6}, {"optimizer": "x"},
    {"optimizer": None}, {"seed": 1}, {"net": 1},
])
def test_what_cannot_be_set_is_refused_and_changes_nothing(run, wishes):
    trainer = run()
    before = dict(trainer.settings)
    with pytest.raises(Refused):
        trainer.set({"lr": 0.5, **wishes} if "lr" not in wishes else wishes)
    assert trainer.settings == before


def test_units_that_stay_keep_what_they_know():
    net = fs.MLP(5, [4, 3], seed=1)
    x = np.arange(5.0)
    more = resized(net, 6, 0)
    assert more.linears[0].w.shape == (5, 6)
    assert more.linears[1].w.shape == (6, 3)
    np.testing.assert_array_equal(more.linears[0].w.numpy()[:, :4], net.linears[0].w.numpy())
    np.testing.assert_array_equal(more.linears[1].w.numpy()[:4], net.linears[1].w.numpy())
    np.testing.assert_array_equal(resized(more, 4, 0)(x).numpy(), net(x).numpy())


def test_a_diverging_rate_is_seen_and_the_net_is_as_it_was(run):
    X = np.random.default_rng(0).normal(size=(100, 4))
    y = X.sum(axis=1)
    trainer = run(fs.Linear(4, 1, seed=0), Samples(X, y, X, y, ""), fs.squared_loss)
    trainer.epoch()
    good = paused(trainer)
    trainer.set({"lr": 1.5})
    trainer.start()
    now = paused(trainer)
    assert now["state"] == "diverged"
    assert "learning rate" in now["message"]
    assert now["loss"] == "inf"
    assert trainer.points[-1][1] == "inf"
    assert all(np.isfinite(p.numpy()).all() for p in trainer.net.parameters())
    trainer.set({"lr": 0.01})
    assert trainer.snapshot()["state"] == "paused"
    trainer.reset()
    assert trainer.points == []
    assert trainer.snapshot()["samples"] == 0
    trainer.epoch(3)
    assert paused(trainer)["loss"] < max(1.0, good["loss"])


def test_a_rate_that_is_much_too_large_for_a_net_shows_in_the_loss(run):
    """Its units die before anything is infinite: it goes on, and the curve goes up."""
    trainer = run()
    trainer.epoch()
    good = paused(trainer)
    trainer.set({"lr": 100.0})
    trainer.epoch()
    assert paused(trainer)["loss"] > 3 * good["loss"]


def test_whatever_stops_a_run_is_said_and_the_thread_lives_on(run):
    class Breaks(fs.Module):
        def __init__(self):
            self.w, self.bad = fs.Tensor(1.0), False

        def forward(self, x):
            if self.bad:
                raise KeyError("the middle of it")
            return [self.w * x[0]]

    X = np.linspace(0, 1, 50).reshape(-1, 1)
    net = Breaks()
    trainer = run(net, Samples(X, X[:, 0], X, X[:, 0], ""), fs.squared_loss)
    net.bad = True
    trainer.start()
    now = paused(trainer)
    assert now["state"] == "failed"
    assert "the middle of it" in now["message"]
    net.bad = False
    trainer.epoch()
    assert paused(trainer)["metric"] == "r2"


def test_one_step_by_hand_moves_that_sample(run):
    trainer = run()
    x = trainer.samples.X[0]
    first = trainer.teach(x, 3)
    for _ in range(100):
        last = trainer.teach(x, 3)
    assert last < first / 2
    assert all((np.asarray(p.grad) == 0).all() for p in trainer.net.parameters())


def test_a_net_of_the_users_own_is_trained_itself(run):
    net = fs.MLP(784, [6, 10], seed=3)
    before = net.linears[0].w.numpy()
    trainer = run(net)
    trainer.step()
    paused(trainer)
    assert trainer.net is net
    assert not np.array_equal(before, net.linears[0].w.numpy())


def test_accuracy_is_measured_for_a_small_share_of_the_time(run):
    trainer = run(samples=digits(600, 1000))
    trainer.start()
    until(trainer, lambda now: now["samples"] > 20_000)
    trainer.pause()
    with trainer.changed:
        pieces, looks = len(trainer.points), sum(p[2] is not None for p in trainer.points)
    assert pieces > 30
    assert (looks - 1) * TICK <= training.SHARE * pieces * TICK + training.ALLOWANCE < looks * TICK + TICK


def test_commands_after_the_end_are_refused(run):
    trainer = run()
    trainer.close()
    with pytest.raises(Refused, match="ended"):
        trainer.start()


@pytest.mark.parametrize(("value", "expected"), [(1.5, 1.5), (math.inf, "inf"), (-math.inf, "inf"), (math.nan, None)])
def test_numbers_for_json(value, expected):
    assert number(value) == expected


@pytest.mark.parametrize("n", [1, 2, 5, 1201])
def test_a_thinned_curve_keeps_its_end_and_what_was_measured(n):
    points = [[k, 1.0, 0.5 if k == 2 * (n // 4) else None] for k in range(n)]
    kept = thinned(points)
    assert len(kept) == (n + 1) // 2
    assert kept[-1][0] == n - 1
    assert any(p[2] == 0.5 for p in kept)
