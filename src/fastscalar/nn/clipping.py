"""Gradient clipping, for a training loop of one's own; optimisers have `clip_norm` and `clip_value`."""

from __future__ import annotations

import math
from typing import Any

from fastscalar._settings import real_number
from fastscalar.engine._rules import norm_of_gradients, scale_gradients
from fastscalar.engine._step import distinct_parameters


def clip_grad_norm(parameters: Any, max_norm: float) -> float:
    """Shorten all gradients by one factor, so that together, as one vector, they are at most `max_norm` long.

    Called between `backward()` and `step()` with nested lists of `parameters`; returns the length that they had.  As
    PyTorch's `clip_grad_norm_`, which divides by a length that is 1e-6 larger.

    >>> import fastscalar as fs
    >>> a, b = fs.Tensor(3.0), fs.Tensor(4.0)
    >>> (a * a / 2 + b * b / 2).backward()
    >>> fs.optim.clip_grad_norm([a, b], 1.0), round(a.grad, 5), round(b.grad, 5)
    (5.0, 0.6, 0.8)
    """
    max_norm = real_number("clip_grad_norm: max_norm", max_norm)
    distinct = distinct_parameters(parameters)
    norm = norm_of_gradients(distinct)
    if not norm + 1e-6 <= max_norm:
        scale_gradients(distinct, max_norm / (norm + 1e-6), math.inf)
    return norm


def clip_grad_value(parameters: Any, max_value: float) -> None:
    """Cut every gradient off at `max_value` from zero.

    Called between `backward()` and `step()` with nested lists of `parameters`.

    >>> import fastscalar as fs
    >>> a = fs.Tensor(3.0)
    >>> (a * a).backward()
    >>> fs.optim.clip_grad_value([a], 1.0)
    >>> a.grad
    1.0
    """
    max_value = real_number("clip_grad_value: max_value", max_value)
    scale_gradients(distinct_parameters(parameters), 1.0, max_value)
