"""fit, evaluate, predict: the loop of the article over a data set."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fastscalar._array import cross_entropy, mse_loss, squared_loss
from fastscalar._core import _noting, no_grad
from fastscalar.optim import SGD, Optimizer
from fastscalar.programs import Program, Rows, warn
from fastscalar.trainers import CompiledTrainer, EagerProgramTrainer, EagerTrainer, Schedule, rows_named

LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "cross_entropy": cross_entropy, "squared": squared_loss, "mse": mse_loss
}
WHOLE_NUMBERS = "images need scaling to 0..1 first: X / 255; other numbers, or pixels as they are: X.astype(float)"
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

    @property
    def seconds(self) -> float:
        return sum(e.seconds for e in self.epochs)

    @property
    def loss(self) -> list[float]:
        return [e.loss for e in self.epochs]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fit(
    net: Callable[[Any], Any] | Program,
    X: Any,
    y: Any,
    *,
    loss: Callable[[Any, Any], Any] | str = cross_entropy,
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
    compile: bool = True,
    threads: int = 1,
    dtype: str = "float64",
) -> History:
    """Train a net: for every sample (or minibatch) the loss, its gradient, one step of the optimiser.

    net: anything that is called with one row of X and returns what `loss` takes; its parameters come from
    `net.parameters()` unless the optimiser has some already.  Or a program, `fastscalar.compile(sample_loss)`, that is
    called with a row of X and of y and returns the loss: then all leaves that it reads are trained.
    X: array of floats of shape (n, in_features).  Images need scaling: X.reshape(len(X), -1) / 255.
    y: n labels or targets.
    loss: a function of a row's prediction and its y, or a name: "cross_entropy"; "squared", the article's (half the
    sum of the squared differences); "mse", the mean of the squares.
    optimizer: SGD(lr=0.02) if left out.  schedule="linear" lets its learning rate fall linearly to zero over the run;
    None keeps it.
    shuffle: a new order for every epoch, drawn from `seed`.
    first_epoch: where to go on with a run of `epochs` epochs whose earlier ones were done by another call.  Order and
    learning rate continue exactly; an optimiser with a memory of its own (Adam) has to be passed along.
    progress: a bar on the standard error stream, if that is a terminal.
    on_epoch: called with the Epoch after each one; the next has the `optimizer.lr` that it leaves.
    compile: record `loss(net(x), y)` for one sample and replay it (see `fastscalar.compile`); the loss of a batch is
    the mean over its samples.  False: the eager loop, which calls the net for every sample, or once for each batch.
    threads: samples of a batch at the same time; the result does not depend on it.  ValueError for batch_size=1.
    dtype: "float64" or "float32", of the numbers that a compiled program computes with.

    Raises ValueError for data that do not fit, FloatingPointError when the loss is infinite or NaN.  Whatever stops a
    compiled run, the net is as it was after the last whole epoch; one that runs eagerly (compile=False, detect_anomaly,
    after a CompileWarning) keeps every step that it did.

    >>> import fastscalar as fs, numpy as np
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> y = (X.sum(axis=1) > 0).astype(int)
    >>> net = fs.MLP(3, [8, 2], seed=0)
    >>> history = fs.fit(net, X, y, epochs=3, progress=False)
    >>> fs.evaluate(net, X, y) > 0.9
    True
    """
    loss = _loss(loss)
    X, y = _checked(X, y) if not isinstance(net, Program) else _checked_rows(X, y)
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("threads", threads)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"fit: {name}: expected a whole number of at least 1, got {value!r}")
    if first_epoch not in range(1, epochs + 1):
        raise ValueError(f"fit: first_epoch: expected a whole number from 1 to epochs={epochs}, got {first_epoch!r}")
    if schedule not in ("linear", None):
        raise ValueError(f'fit: schedule: expected "linear" or None, got {schedule!r}')
    if dtype not in ("float64", "float32"):
        raise ValueError(f'fit: dtype: expected "float64" or "float32", got {dtype!r}')
    if threads > 1 and batch_size == 1:
        raise ValueError("fit: threads: the samples of a batch are shared among threads, and batch_size is 1")
    if dtype == "float32" and not compile:
        raise ValueError("fit: dtype: float32 needs compile=True; the eager engine computes in float64")
    if validation_data is not None:
        if isinstance(net, Program):
            raise ValueError("fit: validation_data: a program gives losses, no predictions; evaluate the net itself")
        validation_data = _checked(*validation_data)
    optimizer = SGD() if optimizer is None else optimizer
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"fit: optimizer: expected an Optimizer, such as SGD(lr=0.02), got {optimizer!r}")
    if optimizer.parameters is None and not isinstance(net, Program):
        optimizer.bind(net.parameters())  # type: ignore[attr-defined]
    done = Schedule(optimizer, schedule, epochs * len(X), (first_epoch - 1) * len(X))
    run = _trainer(net, loss, X, y, batch_size, done, compile, threads, dtype)
    if optimizer.parameters is not None:         # else they are found when they are read
        optimizer.zero_grad()
    history = History()
    generator = np.random.default_rng(seed)
    for number in range(1, epochs + 1):
        order = generator.permutation(len(X)) if shuffle else np.arange(len(X))
        if number < first_epoch:
            continue
        done.begin_epoch()
        start = time.perf_counter()
        with _bar(number, epochs, len(X), progress) as bar:
            mean = run.epoch(order, bar)
        seconds = time.perf_counter() - start
        accuracy = None if validation_data is None else evaluate(net, *validation_data)
        history.epochs.append(Epoch(number, mean, accuracy, seconds, len(X) / seconds))
        if on_epoch is not None:
            on_epoch(history.epochs[-1])
    return history


def _loss(loss: Any) -> Callable[[Any, Any], Any]:
    """The function of that name; functions stay as they are."""
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]
    expected = f"fit: loss: expected a function or one of {', '.join(map(repr, LOSSES))}, got {loss!r}"
    if isinstance(loss, str):
        raise ValueError(expected)
    if not callable(loss):
        raise TypeError(expected)
    return loss


def _trainer(
    net: Any,
    loss: Callable[[Any, Any], Any],
    X: np.ndarray,
    y: np.ndarray,
    batch_size: int,
    schedule: Schedule,
    compile: bool,
    threads: int,
    dtype: str,
) -> EagerTrainer | EagerProgramTrainer | CompiledTrainer:
    """The loop for these wishes."""
    eager = EagerTrainer(lambda x, label: loss(net(x), label), X, y, batch_size, schedule)
    if isinstance(net, Program):
        program = net
    elif compile:
        program = Program(eager.sample)
        program.__name__ = type(net).__name__
    if not compile or _noting():                 # detect_anomaly looks at what the user's own lines do
        if isinstance(net, Program):
            return EagerProgramTrainer(program, Rows((X, y), "fit"), batch_size, schedule)
        return eager
    trainer = CompiledTrainer(program, X, y, batch_size, schedule, threads, dtype == "float64")
    if isinstance(net, Program):
        return trainer
    if trainer.site.eager:
        return eager
    with rows_named():
        repeats = program.repeats(trainer.rows)
    if not repeats:
        warn(
            f"{type(net).__name__} does something else when it is called again (it draws random numbers, or counts), "
            "which a program would freeze: fit runs eagerly (compile=False says that this is meant)"
        )
        return eager
    return trainer


def _portions(n: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n, size):
        yield first, min(size, n - first)


class _NoBar:
    """In place of a bar where none is shown: tqdm's own also takes its locks, and begins a thread."""

    def __enter__(self) -> _NoBar:
        return self

    def __exit__(self, *exc: object) -> None: ...
    def update(self, n: int) -> None: ...
    def set_postfix_str(self, text: str, refresh: bool) -> None: ...


def _bar(number: int, epochs: int, n: int, progress: bool) -> Any:
    if not progress or sys.stderr is None or not sys.stderr.isatty():
        return _NoBar()
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
    )


def _checked(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The data as arrays; ValueError says what is wrong with them."""
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 2:
        raise ValueError(f"X: expected an array of shape (n, in_features), got {X.shape}; X.reshape(len(X), -1)?")
    if X.dtype.kind in "iub":
        raise ValueError(f"X: got an array of {X.dtype}; {WHOLE_NUMBERS}")
    if X.dtype.kind != "f":
        raise ValueError(f"X: expected an array of floats, got {X.dtype}")
    if y.shape[:1] != X.shape[:1]:
        raise ValueError(f"X has {len(X)} rows but y has shape {y.shape}")
    if not len(X):
        raise ValueError("X is empty")
    return X, y


def _checked_rows(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The same for a program, whose rows may have any shape."""
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim == 0 or y.shape[:1] != X.shape[:1]:
        raise ValueError(f"X of shape {X.shape} and y of shape {y.shape}: expected as many rows in both")
    if X.ndim > 1 and X.dtype == np.uint8:       # other whole numbers may be indices
        raise ValueError(f"X: got an array of {X.dtype}; {WHOLE_NUMBERS}")
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
