"""Random numbers that do not depend on order: `from fastscalar import random`.

Each number is a function of seed, epoch, row of the data set, call site (the place in the source that draws it) and
occurrence (how many were drawn there before, for this row).  So a row has the same numbers in whatever batch, order,
thread or process it is computed, eagerly or by a program; and draws in one branch of a function do not move those of
another.  Philox4x32-10 (Salmon et al., SC 2011), a counter-based generator, makes the bits.

Eagerly a `stream` says whose numbers they are.  Methods of programs take `seed=` and `row_offset=`, and row i of the
data draws what `stream(seed, row_offset + i)` gives; `fit` draws by its seed, the number of the epoch, and the row.

>>> import fastscalar as fs, numpy as np
>>> def step(x):
...     return x + 0.1 * fs.random.normal()
>>> with fs.random.stream(seed=7, row=1):
...     one = step(2.0)
>>> bool(fs.compile(step).map(np.array([1.0, 2.0]), seed=7)[1] == one)
True
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import SupportsIndex, overload

import numpy as np

from fastscalar._core import Tensor
from fastscalar._settings import real_number
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import elementwise
from fastscalar.engine._random import BERNOULLI, NORMAL, UNIFORM, draw, set_default_seed
from fastscalar.engine._random import Stream as stream
from fastscalar.engine._traced import TracedInt
from fastscalar.functions import where

__all__ = ["bernoulli", "normal", "seed", "stream", "uniform"]

Shape = int | Sequence[int]


@overload
def normal(shape: None = None) -> Tensor: ...
@overload
def normal(shape: Shape) -> TensorArray: ...
def normal(shape: Shape | None = None) -> Tensor | TensorArray:
    """A number drawn from the normal distribution with mean 0 and variance 1: a Tensor, or a TensorArray of a shape.

    By the inverse of the distribution function (Wichura's AS 241): each takes one number of its stream.  |z| < 8.3.

    >>> import fastscalar as fs
    >>> with fs.random.stream(seed=0, row=5):
    ...     a, b = fs.random.normal(), fs.random.normal((2, 3))
    >>> b.shape
    (2, 3)
    """
    return draw(NORMAL, 0.0, shape, sys._getframe(1))


@overload
def uniform(shape: None = None) -> Tensor: ...
@overload
def uniform(shape: Shape) -> TensorArray: ...
def uniform(shape: Shape | None = None) -> Tensor | TensorArray:
    """A number drawn uniformly between 0 and 1, neither of them included: a Tensor, or a TensorArray of a shape.

    >>> import fastscalar as fs
    >>> with fs.random.stream(seed=0, row=5):
    ...     0 < fs.random.uniform() < 1
    True
    """
    return draw(UNIFORM, 0.0, shape, sys._getframe(1))


@overload
def bernoulli(p: float | Tensor, shape: None = None) -> Tensor: ...
@overload
def bernoulli(p: float | Tensor, shape: Shape) -> TensorArray: ...
def bernoulli(p: float | Tensor, shape: Shape | None = None) -> Tensor | TensorArray:
    """1.0 with probability p, else 0.0: a Tensor, or a TensorArray of a shape.  No gradient passes to p.

    ValueError if p is a number that is not between 0 and 1; a Tensor is taken as it is.

    >>> import fastscalar as fs
    >>> with fs.random.stream(seed=0, row=5):
    ...     coins = fs.random.bernoulli(0.5, shape=1000)
    >>> 400 < fs.sum(coins) < 600
    True
    """
    if isinstance(p, (Tensor, TracedInt)):
        if shape is None:
            return where(draw(UNIFORM, 0.0, None, sys._getframe(1)) < p, 1.0, 0.0)
        coins = np.empty(np.empty(shape).size, dtype=object)
        coins[:] = [where(u < p, 1.0, 0.0) for u in draw(UNIFORM, 0.0, len(coins), sys._getframe(1))]
        return elementwise("*", coins.reshape(shape), 1.0)
    p = real_number("bernoulli: p", p, "from 0 to 1", "a probability")
    return draw(BERNOULLI, float(p), shape, sys._getframe(1))


def seed(value: SupportsIndex) -> None:
    """Begin anew the numbers that are drawn outside of any `stream`, with a whole number `value`.

    Programs that are given no seed use it too.  It is 0 at first.

    >>> import fastscalar as fs
    >>> def two():
    ...     fs.random.seed(3)
    ...     return [fs.random.normal() for _ in range(2)]
    >>> two() == two()
    True
    """
    set_default_seed(value)
