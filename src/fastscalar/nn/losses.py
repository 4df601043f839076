"""Losses: functions of predictions and what they should have been, by name for `fit` and `evaluate`.

Those of the engine are one instruction each; the others are written with its functions, and a program takes them apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._settings import real_number
from fastscalar.engine import _array_ops
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import mse_loss, squared_loss, to_tensor
from fastscalar.engine._traced import TracedInt
from fastscalar.functions import clip, logsumexp, mean, softplus

TRACED = (Tensor, TracedInt, float)              # of these the limits alone are looked at


def cross_entropy(logits: Any, label: Any, *, label_smoothing: float = 0.0) -> Tensor:
    """-log softmax(logits)[label], the cross-entropy of a class; of n rows and n labels the mean.

    label_smoothing: so much of the probability that the label should have is shared among all classes (Szegedy et al.
    2016, arXiv:1512.00567), as in PyTorch.

    >>> import fastscalar as fs
    >>> fs.cross_entropy([fs.Tensor(0.0), fs.Tensor(0.0)], 1)
    Tensor(data=0.6931471805599453)
    >>> fs.cross_entropy([fs.Tensor(1.0), fs.Tensor(3.0)], 1, label_smoothing=0.5).data > 0.5
    True
    """
    loss: Tensor = _array_ops.cross_entropy(logits, label)
    if not isinstance(label_smoothing, TRACED):
        label_smoothing = real_number("cross_entropy: label_smoothing", label_smoothing, "from 0 to 1")
    if label_smoothing == 0.0:
        return loss
    if not 0.0 < label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing: expected a number from 0 to 1, got {label_smoothing!r}")
    rows = [logits] if _is_row(logits) else list(logits)
    even: Any = mean([logsumexp(row) - mean(row) for row in rows])
    smoothed: Tensor = loss * (1.0 - label_smoothing) + even * label_smoothing
    return smoothed


def _is_row(logits: Any) -> bool:
    return logits.ndim == 1 if isinstance(logits, (TensorArray, np.ndarray)) else not _is_sequence(logits[0])


def _is_sequence(x: Any) -> bool:
    return isinstance(x, (list, tuple, TensorArray, np.ndarray)) and (not isinstance(x, np.ndarray) or x.ndim > 0)


def binary_cross_entropy(logits: Any, y: Any) -> Tensor:
    """The cross-entropy of the probability sigmoid(logit) and y, which is 0, 1 or between; the mean over `logits`.

    A sum of y softplus(-logit) and (1 - y) softplus(logit): exact to the last digits for any finite logit.

    >>> import fastscalar as fs
    >>> fs.binary_cross_entropy(fs.Tensor(0.0), 1)
    Tensor(data=0.6931471805599453)
    >>> fs.binary_cross_entropy(fs.Tensor(800.0), 1), fs.binary_cross_entropy(fs.Tensor(800.0), 0)
    (Tensor(data=0.0), Tensor(data=800.0))
    """
    return _mean_over(_binary, logits, y, "binary_cross_entropy")


def _binary(z: Any, y: Any) -> Any:
    return softplus(-z) * y + softplus(z) * (1.0 - y)


def huber_loss(y_hat: Any, y: Any, delta: float = 1.0) -> Tensor:
    """Half the square of a difference y_hat - y up to `delta`, beyond it delta times (the difference less delta / 2);
    the mean of several (Huber 1964).  PyTorch's `huber_loss`.

    >>> import fastscalar as fs
    >>> fs.huber_loss(fs.Tensor(0.5), 0.0), fs.huber_loss(fs.Tensor(-3.0), 0.0)
    (Tensor(data=0.125), Tensor(data=2.5))
    """
    if not isinstance(delta, TRACED):
        delta = real_number("huber_loss: delta", delta)
    if not delta > 0.0:
        raise ValueError(f"huber_loss: delta: expected a number above 0, got {delta!r}")

    def huber(p: Any, t: Any) -> Any:
        d = p - t
        near = clip(d, -delta, delta)
        return near * (d - near * 0.5)

    return _mean_over(huber, y_hat, y, "huber_loss")


def _mean_over(element: Callable[[Any, Any], Any], p: Any, t: Any, name: str) -> Tensor:
    """The mean of a function of each prediction and its target."""
    if not _is_sequence(p) and not _is_sequence(t):
        return _as_tensor(element(p, t))
    if isinstance(p, np.ndarray):
        p = to_tensor(p)
    if isinstance(p, TensorArray) and isinstance(t, np.ndarray) and p.size == t.size:
        t = t.reshape(p.shape)                   # as arrays: one instruction for an operation
    if isinstance(p, TensorArray) and isinstance(t, (TensorArray, np.ndarray)) and p.shape == t.shape and p.size:
        return _as_tensor(mean(element(p, t)))
    predictions, targets = _flat(p), _flat(t)
    if len(predictions) != len(targets):
        raise ValueError(f"{name}: {len(predictions)} predictions but {len(targets)} targets")
    if not predictions:
        raise ValueError(f"{name}: no predictions")
    return _as_tensor(mean([element(a, b) for a, b in zip(predictions, targets, strict=True)]))


def _flat(x: Any) -> list[Any]:
    return [v for entry in x for v in _flat(entry)] if _is_sequence(x) else [x]


def _as_tensor(x: Any) -> Any:
    return x if isinstance(x, (Tensor, TensorArray)) else to_tensor(float(x))


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "squared": squared_loss,
    "mse": mse_loss,
    "huber": huber_loss,
}
OF_TARGETS = (squared_loss, mse_loss, huber_loss)  # with these an output is no logit


def loss_of(loss: Any, what: str) -> Callable[[Any, Any], Any]:
    """The function of that name; functions stay as they are."""
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]
    expected = f"{what}: loss: expected a function or one of {', '.join(map(repr, LOSSES))}, got {loss!r}"
    if isinstance(loss, str):
        raise ValueError(expected)
    if not callable(loss):
        raise TypeError(expected)
    return loss
