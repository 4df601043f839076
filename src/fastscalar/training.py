"""fit, evaluate, predict: the loop of the article over a data set."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fastscalar._array import cross_entropy
from fastscalar._core import no_grad
from fastscalar.optim import SGD, Optimizer

REPORT_EVERY = 512  # samples, at least, between two updates of the progress bar
EVALUATE_ROWS = 1024  # samples in one call of the net in `evaluate` and `predict`


@dataclass
class Epoch:
    """One pass over the training data."""

    epoch: int  # from 1
    loss: float  # mean over its samples, each taken before its step
    accuracy: float | None  # on the validation data, from 0 to 1; None without any
    seconds: float  # of training; evaluation aside
    samples_per_s: float


@dataclass
class History:
    """What `fit` did: `epochs`, a list of Epoch; `seconds` of training in all."""

    epochs: list[Epoch] = field(default_factory=list)
    interrupted: bool = False  # by Ctrl-C

    @property
    def seconds(self) -> float:
        return sum(e.seconds for e in self.epochs)

    @property
    def loss(self) -> list[float]:
        return [e.loss for e in self.epochs]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit(
    net: Callable[[Any], Any],
    X: Any,
    y: Any,
    *,
    loss: Callable[[Any, Any], Any] = cross_entropy,
    optimizer: Optimizer | None = None,
    epochs: int = 5,
    first_epoch: int = 1,
    batch_size: int = 1,
    shuffle: bool = True,
    seed: int | None = 0,
    schedule: str | None = "linear",
    validation_data: tuple[Any, Any] | None = None,
    progress: bool = True,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Train a net: for every sample (or minibatch) the loss, its gradient, one step of the optimiser.

    net: anything that is called with one row of X (or, for batch_size > 1, with several rows) and returns what `loss`
    takes; its parameters come from `net.parameters()` unless the optimiser has some already.
    X: array of floats of shape (n, in_features).  Images need scaling: X.reshape(len(X), -1) / 255.
    y: n labels or targets.
    optimizer: SGD(lr=0.02) if left out.  schedule="linear" lets its learning rate fall linearly to zero over the run;
    None keeps it.
    shuffle: a new order for every epoch, drawn from `seed`.
    first_epoch: where to go on with a run of `epochs` epochs whose earlier ones were done by another call.  Order and
    learning rate continue exactly; an optimiser with a memory of its own (Adam) has to be passed along.
    progress: a bar on the standard error stream, if that is a terminal.
    on_epoch: called with the Epoch after each one.

    Raises ValueError for data that do not fit, FloatingPointError when the loss is infinite or NaN; the parameters
    then are those before that step.  The numbers that it trained on so far stay in the net whatever stops it.

    >>> import fastscalar as fs, numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = (X.sum(axis=1) > 0).astype(int)
    >>> net = fs.MLP(3, [8, 2], seed=0)
    >>> history = fs.fit(net, X, y, epochs=3, progress=False)
    >>> fs.evaluate(net, X, y) > 0.9
    True
    """
    X, y = _checked(X, y)
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"fit: {name}: expected a whole number of at least 1, got {value!r}")
    if first_epoch not in range(1, epochs + 1):
        raise ValueError(f"fit: first_epoch: expected a whole number from 1 to epochs={epochs}, got {first_epoch!r}")
    if schedule not in ("linear", None):
        raise ValueError(f'fit: schedule: expected "linear" or None, got {schedule!r}')
    if validation_data is not None:
        validation_data = _checked(*validation_data)
    optimizer = SGD() if optimizer is None else optimizer
    if optimizer.parameters is None:
        optimizer.bind(net.parameters())  # type: ignore[attr-defined]
    optimizer.zero_grad()
    run = _Run(net, X, y, loss, optimizer, epochs, batch_size, schedule, done=(first_epoch - 1) * len(X))
    history = History()
    generator = np.random.default_rng(seed)
    for number in range(1, epochs + 1):
        order = generator.permutation(len(X)) if shuffle else np.arange(len(X))
        if number < first_epoch:
            continue
        start = time.perf_counter()
        mean = run.epoch(number, order, progress)
        seconds = time.perf_counter() - start
        accuracy = None if validation_data is None else evaluate(net, *validation_data)
        history.epochs.append(Epoch(number, mean, accuracy, seconds, len(X) / seconds))
        if on_epoch is not None:
            on_epoch(history.epochs[-1])
    return history


@dataclass
class _Run:
    """The loop inside one call of `fit`."""

    net: Callable[[Any], Any]
    X: np.ndarray
    y: Any
    loss: Callable[[Any, Any], Any]
    optimizer: Optimizer
    epochs: int
    batch_size: int
    schedule: str | None
    done: int  # samples of the whole run

    def __post_init__(self) -> None:
        self.first_rate = self.optimizer.lr
        self.labels = self.y.tolist() if self.y.ndim == 1 else self.y

    def epoch(self, number: int, order: np.ndarray, progress: bool) -> float:
        """Train on the samples in this order; the mean of their losses."""
        total = 0.0
        try:
            with _bar(number, self.epochs, len(order), progress) as bar:
                for first, count in _portions(len(order), -(-REPORT_EVERY // self.batch_size) * self.batch_size):
                    total += self._some(order[first : first + count].tolist())
                    bar.set_postfix_str(f"loss {total / (first + count):.4f}", refresh=False)
                    bar.update(count)
        finally:
            self.optimizer.lr = self.first_rate
        return total / len(order)

    def _some(self, indices: list[int]) -> float:
        X, labels, net, loss, optimizer = self.X, self.labels, self.net, self.loss, self.optimizer
        total = 0.0
        for k in range(0, len(indices), self.batch_size):
            if self.batch_size == 1:
                i = indices[k]
                result = loss(net(X[i]), labels[i])
                count = 1
            else:
                batch = indices[k : k + self.batch_size]
                result = loss(net(X[batch]), self.y[batch])
                count = len(batch)
            value = result.data
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"the loss is {value} after {self.done:,} samples; the learning rate "
                    f"{self.first_rate:g} may be too large"
                )
            if self.schedule == "linear":
                optimizer.lr = self.first_rate * (1.0 - self.done / (self.epochs * len(X)))
            result.backward()
            optimizer.step()
            optimizer.zero_grad()
            self.done += count
            total += value * count
        return total


def _portions(n: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n, size):
        yield first, min(size, n - first)


def _bar(number: int, epochs: int, n: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=n,
        desc=f"epoch {number}/{epochs}",
        unit=" samples",
        unit_scale=True,
        bar_format="{desc}: {percentage:3.0f} % |{bar}| {rate_fmt}, {remaining} left{postfix}",
        file=sys.stderr,
        leave=False,
        dynamic_ncols=True,
        disable=None if progress else True,  # None: only on a terminal
    )


def _checked(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The data as arrays; ValueError says what is wrong with them."""
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 2:
        raise ValueError(f"X: expected an array of shape (n, in_features), got {X.shape}; X.reshape(len(X), -1)?")
    if X.dtype.kind in "iub":
        raise ValueError(f"X: got an array of {X.dtype}; images need scaling to 0..1 first: X / 255")
    if X.dtype.kind != "f":
        raise ValueError(f"X: expected an array of floats, got {X.dtype}")
    if y.shape[:1] != X.shape[:1]:
        raise ValueError(f"X has {len(X)} rows but y has shape {y.shape}")
    if not len(X):
        raise ValueError("X is empty")
    return X, y


def outputs(net: Callable[[Any], Any], X: np.ndarray) -> Iterator[np.ndarray]:
    """What the net makes of the rows of X, some of them at a time, without recording a graph."""
    with no_grad():
        for first, count in _portions(len(X), EVALUATE_ROWS):
            yield net(X[first : first + count]).numpy()


def predict(net: Callable[[Any], Any], X: Any) -> np.ndarray:
    """The most probable class of each row of X, shape (n,): the index of the largest output.

    >>> import fastscalar as fs, numpy as np
    >>> net = fs.MLP(4, [3, 2], seed=0)
    >>> fs.predict(net, np.zeros((5, 4))).shape
    (5,)
    """
    X, _ = _checked(X, np.zeros(len(X)))
    return np.concatenate([some.argmax(axis=1) for some in outputs(net, X)])


def evaluate(net: Callable[[Any], Any], X: Any, y: Any) -> float:
    """The accuracy, from 0 to 1: the part of the rows of X whose most probable class is their label in y.

    >>> import fastscalar as fs, numpy as np
    >>> net = fs.MLP(4, [3, 2], seed=0)
    >>> X = np.eye(4)
    >>> fs.evaluate(net, X, fs.predict(net, X))
    1.0
    """
    X, y = _checked(X, y)
    return float(np.mean(predict(net, X) == y))
