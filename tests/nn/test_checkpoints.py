"""fit(checkpoint=): a run that was interrupted goes on, and ends with the bits of one that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
import fuzzing_programs
from fastscalar import nn

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(40, 4)) * (DRAW.uniform(size=(40, 4)) < 0.7)
Y = (X[:, 0] + 0.5 * X[:, 1] > 0).astype(int)
X_VALID, Y_VALID = DRAW.normal(size=(20, 4)), DRAW.integers(0, 2, 20)

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda: fs.SGD(lr=0.05),
    "decay": lambda: fs.SGD(lr=0.05, weight_decay=0.01),
    "nesterov": lambda: fs.SGD(lr=0.02, momentum=0.9, nesterov=True),
    "adam": lambda: fs.Adam(lr=0.01),
    "adamw": lambda: fs.AdamW(lr=0.01, clip_norm=1.0),
    "rmsprop": lambda: fs.RMSprop(lr=0.005, momentum=0.5),
}


class Mine(fs.optim.Optimizer):
    """A user's, with a momentum."""

    def bind(self, parameters: Any) -> None:
        super().bind(parameters)
        self.moments = [np.zeros(p.shape) for p in self._distinct]

    def step(self) -> None:
        for p, moment in zip(self._distinct, self.moments, strict=True):
            moment *= 0.9
            moment += p.grad
            p.data -= self.lr * moment

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self.moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for moment, kept in zip(self.moments, state["moments"], strict=True):
            moment[...] = kept


OPTIMIZERS["mine"] = lambda: Mine(None, lr=0.02)


class Halving:
    """A callback with a state: it halves the rate when the loss has not fallen."""

    def __init__(self) -> None:
        self.best, self.seen, self.trace = np.inf, {"epochs": [0]}, np.zeros(2)

    def on_begin(self, course: Any) -> None:
        self.optimizer = course.optimizer

    def on_epoch(self, epoch: Any) -> None:
        self.seen["epochs"].append(epoch.epoch)
        self.trace += epoch.loss
        if epoch.loss > 0.98 * self.best:
            self.optimizer.lr *= 0.5
        self.best = min(self.best, epoch.loss)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "seen": self.seen, "trace": self.trace}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.seen, self.trace = float(state["best"]), state["seen"], np.array(state["trace"])


class Interrupted(Exception): ...


def interrupt_after(epochs: int) -> Any:
    def callback(epoch: Any) -> None:
        if epoch.epoch == epochs:
            raise Interrupted

    return callback


def net_of(dropout: bool) -> Any:
    return nn.Sequential(
        fs.Linear(4, 6, seed=0), "tanh", *([nn.Dropout(0.3)] if dropout else []), fs.Linear(6, 2, seed=1)
    )


def run(path: Any, optimizer: str, stop: int = 0, **options: Any) -> tuple[Any, Any, Any]:
    net, halving = net_of(options.pop("dropout", False)), Halving()
    callbacks = [halving, *options.pop("callbacks", []), *([interrupt_after(stop)] if stop else [])]
    options = {"epochs": 6, "batch_size": 7, "validation_data": (X_VALID, Y_VALID), **options}
    try:
        history = fs.fit(net, X, Y, optimizer=OPTIMIZERS[optimizer](), callbacks=callbacks, checkpoint=path,
                         progress=False, **options)  # fmt: skip
    except Interrupted:
        return None, None, None
    return net.state_dict(), history, halving


def assert_same(ours: Any, other: Any) -> None:
    for name, value in other[0].items():
        assert (ours[0][name] == value).all(), name
    assert ours[1].loss == other[1].loss
    assert ours[1].validation_loss == other[1].validation_loss
    assert ours[1].stopped == other[1].stopped
    assert (ours[2].best, ours[2].seen) == (other[2].best, other[2].seen)
    assert (ours[2].trace == other[2].trace).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 1}, {"compile": False}, {"dtype": "float32"}, {"dropout": True, "schedule": "cosine"}],
    ids=str,
)
def test_a_run_in_parts_is_the_whole_run_to_the_bit(tmp_path: Path, optimizer: str, options: Any) -> None:
    whole = run(None, optimizer, **options)
    for stop in (1, 2, 4, 6):                    # what the callback interrupts is not kept: it is done again
        assert run(tmp_path / "run.npz", optimizer, stop=stop, **options) == (None, None, None)
    assert_same(run(tmp_path / "run.npz", optimizer, **options), whole)
    assert_same(run(tmp_path / "run.npz", optimizer, **options), whole)      # over: it comes back as it was


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("stops", [(), (2,), (3, 4)])
def test_early_stopping_knows_the_best_across_an_interruption(tmp_path: Path, optimizer: str, stops: Any) -> None:
    options = {"epochs": 60, "schedule": None}
    whole = run(None, optimizer, callbacks=[fs.EarlyStopping(patience=3)], **options)
    for stop in stops:
        run(tmp_path / "run.npz", optimizer, stop=stop, callbacks=[fs.EarlyStopping(patience=3)], **options)
    for _ in range(2):
        stopping = fs.EarlyStopping(patience=3)
        assert_same(run(tmp_path / "run.npz", optimizer, callbacks=[stopping], **options), whole)
        assert stopping.value == min(whole[1].validation_loss)


def test_a_history_that_is_given_has_every_epoch_once(tmp_path: Path) -> None:
    history = fs.History()
    assert run(tmp_path / "run.npz", "adam", stop=3, history=history)[0] is None
    assert [e.epoch for e in history.epochs] == [1, 2, 3]
    found = run(tmp_path / "run.npz", "adam", history=fs.History())
    assert [e.epoch for e in found[1].epochs] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 7}, "epochs=6, not 7"),
        ({"batch_size": 8}, "batch_size=7, not 8"),
        ({"seed": 1}, "seed=0, not 1"),
        ({"optimizer": "sgd"}, "trained by Adam, this run 44 by SGD"),
        ({"callbacks": [fs.EarlyStopping()]}, "state of other callbacks: Halving; this run has Halving, EarlyStopping"),
        ({"first_epoch": 2}, "not with first_epoch"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_another_run_is_refused(tmp_path: Path, options: Any, said: str) -> None:
    path = tmp_path / "run.npz"
    run(path, "adam", stop=2)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=said):
        run(path, **{"optimizer": "adam", **options})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_another_file_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "run.npz"
    if content is None:
        fs.MLP(4, [2], seed=0).save(path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"checkpoint .*run.npz: expected what fit writes"):
        run(path, "adam")
    assert path.read_bytes() == before


def test_mutated_files_are_refused_or_trained_on_with(tmp_path: Path) -> None:
    assert 10 < fuzzing_programs.fuzz_checkpoints(tmp_path / "fuzz", 300, 11) < 150


def test_a_state_that_cannot_be_taken_up_leaves_all_as_it_was(tmp_path: Path) -> None:
    """A callback that refuses its state comes after the optimiser and the weights were restored."""
    path = tmp_path / "run.npz"

    class Counts:
        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def on_epoch(self, epoch: Any) -> None: ...

        def state_dict(self) -> dict[str, Any]:
            return {"n": 1}

        def load_state_dict(self, state: Any) -> None:
            if self.fails:
                raise KeyError("m")

    def interrupt(epoch: Any) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    X, y = np.ones((4, 2)), np.array([0, 1, 0, 1])
    trained = fs.MLP(2, [2], seed=0)
    stop = [Counts(False), interrupt]
    with pytest.raises(KeyboardInterrupt):
        fs.fit(trained, X, y, optimizer=fs.Adam(lr=0.1), epochs=3, progress=False, checkpoint=path, callbacks=stop)
    net, optimizer = fs.MLP(2, [2], seed=0), fs.Adam(lr=0.1)
    before = [p.numpy().copy() for p in net.parameters()]
    with pytest.raises(ValueError, match=r"run\.npz: has a state that cannot be taken up: 'm'"):
        fs.fit(net, X, y, optimizer=optimizer, epochs=3, progress=False, checkpoint=path, callbacks=[Counts(True)])
    assert optimizer.state_dict()["steps"] == 0
    assert not optimizer.state_dict()["mean"].any()
    for p, was in zip(net.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), was)


def test_a_state_that_no_file_holds_is_said(tmp_path: Path) -> None:
    class Odd(Halving):
        def state_dict(self) -> dict[str, Any]:
            return {"odd": object()}

    with pytest.raises(TypeError, match=r"Odd.state_dict\(\) has a object"):
        fs.fit(net_of(False), X, Y, callbacks=[Odd()], checkpoint=tmp_path / "run.npz", progress=False)
