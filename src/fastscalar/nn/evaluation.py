"""predict and evaluate: what a net makes of samples, and how good that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastscalar._core import Tensor, no_grad
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import squared_loss, to_tensor
from fastscalar.nn.layers import MLP, Linear
from fastscalar.nn.losses import LOSSES, OF_TARGETS, binary_cross_entropy, cross_entropy, loss_of
from fastscalar.nn.module import in_mode, modules_of
from fastscalar.nn.samples import rows_of, samples_of, table_of, what_is_not_finite
from fastscalar.program.api import Program

EVALUATE_ROWS = 1024  # samples in one call of the net
SAME = 1e-9  # relative; of two ways to compute a number


class Evaluation(float):
    """What `evaluate` returns: a number, its `value`, and what it is.

    `metric`: "accuracy", from 0 to 1, or "r2", the coefficient of determination: 1 is perfect, 0 what the mean of the
    targets would get.  `loss`: the mean over the samples.

    >>> import fastscalar as fs, numpy as np
    >>> fs.evaluate(lambda x: [x[0] - 1.0], np.array([[1.0], [3.0]]), [0.0, 2.0]).metric
    'r2'
    """

    metric: str
    loss: float

    def __new__(cls, value: float, metric: str, loss: float) -> Evaluation:
        self = super().__new__(cls, value)
        self.metric, self.loss = metric, loss
        return self

    def __getnewargs__(self) -> tuple[float, str, float]:  # type: ignore[override]
        return float(self), self.metric, self.loss


# --- calling a net --------------------------------------------------------------------------------


def takes_blocks(net: Any) -> bool:
    """Whether it is known to do with many rows what it does with each."""
    return type(net) in (Linear, MLP)


def numbers_in(result: Any) -> list[float]:
    """The outputs that a net returned for one row: a Tensor, a TensorArray, a number, or lists of these."""
    if isinstance(result, (list, tuple)):
        return [v for entry in result for v in numbers_in(entry)]
    if isinstance(result, Tensor):
        return [result.item()]
    if isinstance(result, TensorArray):
        return result.numpy().ravel().tolist()
    array = np.asarray(result)
    if array.dtype == object:
        return numbers_in(list(array.ravel()))
    if array.dtype.kind not in "fiub":
        raise TypeError(f"the net returned {type(result).__name__}; expected Tensors or numbers")
    return array.ravel().astype(float).tolist()


def far_rows(column: np.ndarray) -> list[np.ndarray]:
    """Rows far above and far below those of a column: beside them whatever looks at all rows together (`x.max()`,
    `np.any(x > 1)`, a mean) gives the others something else."""
    if column.dtype.kind not in "fiu" or not column.size:
        return []
    far = 1 + 10 * max(abs(column.max().item()), abs(column.min().item()))
    if column.dtype.kind == "f":
        return [np.full_like(column[:1], value) for value in (far, -far)]
    limits = np.iinfo(column.dtype)
    return [np.full_like(column[:1], value) for value in (min(far, limits.max), max(-far, limits.min))]


def of_block(net: Any, X: np.ndarray) -> np.ndarray | None:
    """The outputs for some rows at once, (n, k); None if the net does not take rows so, or looks at them together."""

    def called(X: np.ndarray) -> np.ndarray | None:
        result = net(X)
        if not isinstance(result, TensorArray) or result.shape[0] != len(X) or result.ndim > 2:
            return None
        return result.numpy().reshape(len(X), -1)

    def same(found: np.ndarray | None, right: np.ndarray) -> bool:
        if found is None or found.shape != right.shape:
            return False
        return np.allclose(found, right, SAME, SAME, equal_nan=True)

    try:
        block = called(X)
        if block is None or takes_blocks(net):
            return block
        some = np.unique([0, len(X) - 1])
        alone = np.array([numbers_in(net(X[k])) for k in some])
        if not same(block[some], alone):
            return None
        with np.errstate(all="ignore"):
            for far in far_rows(X):
                beside = called(np.concatenate([X[some], far]))
                if beside is None or not same(beside[:-1], alone):
                    return None
    except Exception:  # whatever it is: asked row by row it says so again, or it does not
        return None
    return block


def outputs(net: Callable[[Any], Any], X: np.ndarray) -> Iterator[np.ndarray]:
    """What the net makes of the rows of X, (n, k) for some of them at a time, without recording a graph.

    A net is called with one row; with many at once if it is one of ours, or gives the same then."""
    if isinstance(net, Program):
        yield net.map(X).reshape(-1, 1)
        return
    with in_mode(modules_of(net), training=False):
        yield from _outputs(net, X)


def _outputs(net: Callable[[Any], Any], X: np.ndarray) -> Iterator[np.ndarray]:
    blocks = True
    for first in range(0, len(X), EVALUATE_ROWS):
        some = X[first : first + EVALUATE_ROWS]
        with no_grad():
            if takes_blocks(net):
                yield net(some).numpy()
                continue
            found = of_block(net, some) if blocks else None
            if found is None:
                blocks = False
                rows = [numbers_in(net(x)) for x in some]
                if len(widths := set(map(len, rows))) > 1:
                    raise ValueError(f"the net gives {min(widths)} outputs for some rows and {max(widths)} for others")
                found = np.array(rows)
        yield found


# --- what is measured -----------------------------------------------------------------------------


def metric_of(width: int, y: np.ndarray, loss: Any, what: str) -> str:
    """What to measure, by the outputs for a row and the kind of y; ValueError if they do not go together."""
    per_row = math.prod(y.shape[1:])
    whole = y.dtype.kind in "iub"
    if width == 1 and per_row == 1:
        logit = whole and loss not in OF_TARGETS and np.isin(y, (0, 1)).all()
        return "accuracy" if logit else "r2"
    if y.ndim > 1 and per_row == width:
        return "r2"
    if y.ndim > 1 and per_row == 1 and whole:
        raise ValueError(f"{what}: y has shape {y.shape}; labels of {width} classes have shape (n,): y.ravel()")
    if y.ndim > 1 or width == 1:
        raise ValueError(f"{what}: the net gives {width} outputs a row, and y has {per_row} targets (shape {y.shape})")
    if not (whole or (y == np.trunc(y)).all()):
        raise ValueError(
            f"{what}: the net gives {width} outputs a row, and y has one: labels are whole numbers; "
            f"targets of a regression have shape (n, {width})"
        )
    if y.min() < 0 or y.max() >= width:
        row = int(np.argmax((y < 0) | (y >= width)))
        raise ValueError(f"{what}: expected labels in 0..{width - 1}, got {y[row]} at row {row}")
    return "accuracy"


class Measure:
    """A net on labelled samples, checked once and evaluated as often as it is called."""

    def __init__(self, net: Callable[[Any], Any], X: Any, y: Any, loss: Any, what: str) -> None:
        self.net, self.what, self.loss = net, what, loss
        self.X, self.y = rows_of(X, y) if isinstance(net, Program) else samples_of(X, y, net=net)
        if (wrong := what_is_not_finite({"y": self.y})) is not None:
            raise ValueError(f"{what}: {wrong}")
        (first,) = outputs(net, self.X[:1])
        self.metric = metric_of(first.shape[1], self.y, loss, what)
        self.labels: Any = self.y.tolist() if self.y.ndim == 1 else self.y

    def __call__(self) -> Evaluation:
        out = finite(np.concatenate(list(outputs(self.net, self.X))), self.X, self.what, self.metric == "r2")
        y = self.y.reshape(len(out), -1)
        if self.metric == "accuracy":
            chosen = out.argmax(axis=1) if out.shape[1] > 1 else out[:, 0] > 0
            value = float(np.mean(chosen == y[:, 0]))
        else:
            value = r2(out, y)
        return Evaluation(value, self.metric, self.mean_loss(out))

    def mean_loss(self, out: np.ndarray) -> float:
        labels = cross_entropy if out.shape[1] > 1 else binary_cross_entropy
        loss = self.loss or (labels if self.metric == "accuracy" else squared_loss)
        with no_grad():
            if loss in LOSSES.values():
                return float(loss(out, self.y).data)
            if isinstance(self.net, Program):
                given: Any = map(Tensor, out[:, 0].tolist())
            elif takes_blocks(self.net):
                given = map(to_tensor, out)
            else:
                given = map(self.net, self.X)
            with in_mode(modules_of(self.net), training=False):
                losses = [numbers_in(loss(x, k))[0] for x, k in zip(given, self.labels, strict=True)]
            return float(np.mean(losses))


def finite(out: np.ndarray, X: np.ndarray, what: str, infinities: bool = False) -> np.ndarray:
    """Outputs that say something: FloatingPointError names the first row for which they are NaN."""
    wrong = np.flatnonzero((~np.isfinite(out) if infinities else np.isnan(out)).any(axis=1))
    if len(wrong):
        diverged = "its parameters may have diverged, by too large a learning rate"
        why = what_is_not_finite({"X": X}, wrong[:1]) or diverged
        value = out[wrong[0]][~np.isfinite(out[wrong[0]])][0]
        raise FloatingPointError(f"{what}: the output of the net is {value} for row {wrong[0]}: {why}")
    return out


def r2(out: np.ndarray, y: np.ndarray) -> float:
    """The coefficient of determination, the mean over the outputs.  Of targets that are all the same: 1 if they are
    met, 0 if not."""
    missed = ((y - out) ** 2).sum(axis=0)
    spread = ((y - y.mean(axis=0)) ** 2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(np.where(spread > 0, 1.0 - missed / spread, missed == 0)))


# --- for the user ---------------------------------------------------------------------------------


def predict(net: Callable[[Any], Any], X: Any) -> np.ndarray:
    """For each row of X the most probable class, the index of the largest output; of a net with one output, that.

    net: anything that is called with one row and returns a Tensor, a TensorArray or a list.  X: floats of shape
    (n, in_features).
    Returns shape (n,), of whole numbers or, with one output, of floats.
    Raises ValueError for data that do not fit, FloatingPointError where an output is NaN.

    >>> import fastscalar as fs, numpy as np
    >>> net = fs.MLP(4, [3, 2], seed=0)
    >>> fs.predict(net, np.zeros((5, 4))).shape
    (5,)
    """
    X = rows_of(X, np.zeros(np.shape(X)[:1]))[0] if isinstance(net, Program) else table_of(X, net=net)
    out = finite(np.concatenate(list(outputs(net, X))), X, "predict")
    return out[:, 0] if out.shape[1] == 1 else out.argmax(axis=1)


def predict_proba(net: Callable[[Any], Any], X: Any) -> np.ndarray:
    """For each row of X the probability of each class: softmax of the outputs; of a net with one output, which is a
    logit, that of 0 and of 1.

    X: floats of shape (n, in_features).  Returns shape (n, classes), rows that add up to 1.
    Raises ValueError for data that do not fit, FloatingPointError where an output is NaN.

    >>> import fastscalar as fs, numpy as np
    >>> net = fs.MLP(4, [3, 2], seed=0)
    >>> fs.predict_proba(net, np.zeros((1, 4)))
    array([[0.5, 0.5]])
    """
    X = rows_of(X, np.zeros(np.shape(X)[:1]))[0] if isinstance(net, Program) else table_of(X)
    out = finite(np.concatenate(list(outputs(net, X))), X, "predict_proba")
    return probabilities(np.hstack([np.zeros_like(out), out]) if out.shape[1] == 1 else out)


def probabilities(logits: np.ndarray) -> np.ndarray:
    """softmax of each row, (n, classes); infinite logits share what there is."""
    largest = logits.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        weights = np.exp(np.where(logits == largest, 0.0, logits - largest))
    shares: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return shares


def evaluate(net: Callable[[Any], Any], X: Any, y: Any, *, loss: Any = None) -> Evaluation:
    """How good a net is on samples: a float whose meaning follows from y, with attributes `metric` and `loss`.

    * whole numbers, whatever their type, and a net of k > 1 outputs: the accuracy, from 0 to 1; the part of the rows
      whose largest output is the one that y names.
    * 0 and 1 as whole numbers or bools, and a net of one output, which is a logit (unless `loss` is one of squared
      differences): the accuracy, where an output above 0 says 1.
    * everything else is a regression: R2, the coefficient of determination; 1 if all targets are met.  y has a target
      for each output: shape (n, k), or (n,) if there is one.

    loss: as in `fit`, of one row and its y; `.loss` is its mean.  If it is left out: cross-entropy for labels, half of
    the squared differences for targets.
    Raises ValueError for data that do not fit, FloatingPointError where an output is NaN.

    >>> import fastscalar as fs, numpy as np
    >>> net = fs.MLP(4, [3, 2], seed=0)
    >>> X = np.eye(4)
    >>> fs.evaluate(net, X, fs.predict(net, X))
    1.0
    """
    return Measure(net, X, y, None if loss is None else loss_of(loss, "evaluate"), "evaluate")()
