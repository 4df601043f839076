"""Learning rates over a run: each schedule is its formula, in every loop that fit has, and in a run of two parts."""

import math
import pickle

import numpy as np
import pytest

import fastscalar as fs


def problem(n=23, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, 3)), draw.integers(0, 2, size=n)


class Watching(fs.optim.Optimizer):
    """Moves nothing much, and keeps the rate of every step."""

    def step(self):
        self.seen = [*getattr(self, "seen", []), self.lr]


FORMULAS = {
    "constant": ("constant", lambda k, steps, part: 1.0),
    "None": (None, lambda k, steps, part: 1.0),
    "linear": ("linear", lambda k, steps, part: 1.0 - part),
    "linear to": (fs.schedules.linear(to=0.25), lambda k, steps, part: 1.0 - 0.75 * part),
    "cosine": ("cosine", lambda k, steps, part: (1 + math.cos(math.pi * part)) / 2),
    "cosine to": (fs.schedules.cosine(to=0.1), lambda k, steps, part: 0.1 + 0.9 * (1 + math.cos(math.pi * part)) / 2),
    "step": (fs.schedules.step(5, factor=0.5), lambda k, steps, part: 0.5 ** (k // 5)),
    "step, part": (fs.schedules.step(0.5), lambda k, steps, part: 0.1 ** (k // round(0.5 * steps))),
    "warm-up": (fs.schedules.warmup(4), lambda k, steps, part: min(1.0, (k + 1) / 4)),
    "warm-up, linear": (
        fs.schedules.warmup(4, then="linear"),
        lambda k, steps, part: (k + 1) / 4 if k < 4 else 1 - (k - 4) / (steps - 4),
    ),
    "function of the step": (lambda k: 1.0 / (1 + k), lambda k, steps, part: 1.0 / (1 + k)),
    "function of step and steps": (lambda k, n: 1.0 - k / n, lambda k, steps, part: 1.0 - k / steps),
}
schedules = pytest.mark.parametrize("name", FORMULAS)


def expected_rates(name, n, batch, epochs, lr):
    steps = -(-n // batch) * epochs
    done, rates = 0, []
    for k in range(steps):
        rates.append(lr * FORMULAS[name][1](k, steps, done / (n * epochs)))
        done = min(done + batch, (done // n + 1) * n)
    return rates


@schedules
@pytest.mark.parametrize("batch", [1, 4, 23, 50])
@pytest.mark.parametrize("compile", [True, False])
def test_the_rates_that_an_optimiser_sees(name, batch, compile):
    X, y = problem()
    optimizer = Watching(None, lr=0.3)
    given = {"schedule": FORMULAS[name][0], "batch_size": batch, "compile": compile, "epochs": 3, "progress": False}
    fs.fit(fs.Linear(3, 2, seed=0), X, y, optimizer=optimizer, **given)
    np.testing.assert_allclose(optimizer.seen, expected_rates(name, 23, batch, 3, 0.3), rtol=1e-12, atol=1e-16)
    assert optimizer.lr == 0.3


@schedules
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("make", [fs.SGD, lambda lr: fs.SGD(lr=lr, momentum=0.5), fs.Adam], ids=["SGD", "mom", "Adam"])
def test_compiled_eager_and_a_run_in_two_parts_end_at_the_same_weights(name, batch, make):
    X, y = problem()
    nets = [fs.MLP(3, [4, 2], seed=1) for _ in range(3)]
    given = {"schedule": FORMULAS[name][0], "batch_size": batch, "epochs": 3, "progress": False}
    fs.fit(nets[0], X, y, optimizer=make(lr=0.05), compile=False, **given)
    fs.fit(nets[1], X, y, optimizer=make(lr=0.05), **given)
    optimizer = make(lr=0.05)

    class Stop(Exception): ...

    def stop(epoch):
        raise Stop

    with pytest.raises(Stop):
        fs.fit(nets[2], X, y, optimizer=optimizer, on_epoch=stop, **given)
    fs.fit(nets[2], X, y, optimizer=optimizer, first_epoch=2, **given)
    tolerance = 1e-6 if make is fs.Adam else 1e-9
    np.testing.assert_allclose(nets[1].linears[0].w.numpy(), nets[0].linears[0].w.numpy(), rtol=tolerance, atol=1e-9)
    assert nets[2].linears[0].w.tolist() == nets[1].linears[0].w.tolist()


def test_a_rate_that_on_epoch_sets_is_the_one_that_is_multiplied():
    X, y = problem(4)
    optimizer = Watching(None, lr=1.0)

    def halve(epoch):
        optimizer.lr /= 2

    fs.fit(fs.Linear(3, 2, seed=0), X, y, optimizer=optimizer, schedule="constant", epochs=3, progress=False,
           on_epoch=halve)  # fmt: skip
    assert optimizer.seen == [1.0] * 4 + [0.5] * 4 + [0.25] * 4


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: "cosin", "linear"),
        (lambda: 3, "function of the step"),
        (lambda: fs.schedules.step, "takes its numbers"),
        (lambda: fs.schedules.step(0), "number of steps"),
        (lambda: fs.schedules.step(2.5), "number of steps"),
        (lambda: fs.schedules.warmup(True), "number of steps"),
        (lambda: fs.schedules.warmup(3, then="nothing"), "linear"),
        (lambda: lambda k: -1.0, "at least 0"),
        (lambda: lambda k: math.nan, "at least 0"),
        (lambda: lambda k: "1", "at least 0"),
    ],
)
def test_what_is_no_schedule_says_so(make, words):
    X, y = problem()
    with pytest.raises((ValueError, TypeError), match=words):
        fs.fit(fs.Linear(3, 2, seed=0), X, y, schedule=make(), progress=False)


def test_schedules_print_compare_and_pickle():
    warm = fs.schedules.warmup(0.1, then=fs.schedules.cosine(to=0.01))
    assert repr(warm) == "warmup(steps=0.1, then=cosine(to=0.01))"
    assert pickle.loads(pickle.dumps(warm)) == warm
    assert warm != fs.schedules.warmup(0.1)
