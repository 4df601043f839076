"""Initial weights: He's, Glorot's, LeCun's, the article's, or a function's.

All are drawn from one `random.Random`, number by number in the order in which the weights lie, so that `"he"` and
`"article"` give what `fastscalar.reference` draws from the same generator; a test compares them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np

from fastscalar._settings import shown

Draw = Callable[[], float]
Initializer = Callable[[int, int, random.Random], float]  # a user's, of one weight: fan_in, fan_out, generator


def _normal(variance: float, rng: random.Random) -> Draw:
    return partial(rng.gauss, 0.0, math.sqrt(variance))


def _uniform(variance: float, rng: random.Random) -> Draw:
    bound = math.sqrt(3.0 * variance)
    return partial(rng.uniform, -bound, bound)


# By name, from fan_in, fan_out and a generator, what draws one weight after the other.
#   he       variance 2 / fan_in: for relu and its like (He et al. 2015, arXiv:1502.01852)
#   glorot   variance 2 / (fan_in + fan_out): for tanh and sigmoid (Glorot and Bengio 2010)
#   lecun    variance 1 / fan_in (LeCun et al. 1998)
#   normal   variance 1: of an embedding
#   zeros    of a last layer: its outputs are all equal at first
#   article  in [0, 1); biases too
INITIALIZERS: dict[str, Callable[[int, int, random.Random], Draw]] = {
    "he": lambda m, n, rng: _normal(2.0 / m, rng),
    "he_uniform": lambda m, n, rng: _uniform(2.0 / m, rng),
    "glorot": lambda m, n, rng: _normal(2.0 / (m + n), rng),
    "glorot_uniform": lambda m, n, rng: _uniform(2.0 / (m + n), rng),
    "lecun": lambda m, n, rng: _normal(1.0 / m, rng),
    "normal": lambda m, n, rng: _normal(1.0, rng),
    "zeros": lambda m, n, rng: float,
    "article": lambda m, n, rng: rng.random,
}


def initial_weights(
    shape: tuple[int, ...],
    init: str | Initializer,
    rng: random.Random,
    *,
    fan_out: int | None = None,
    biases: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Initial weights of a layer and its biases.

    Parameters
    ----------
    shape : tuple
        Of the weights; the last dimension are the outputs, the others the inputs of each.
    init : str or function
        "he", "he_uniform", "glorot", "glorot_uniform", "lecun", "normal", "zeros" or "article"; or a function (fan_in,
        fan_out, generator) that gives one weight.
    rng : random.Random
        The generator; it is moved on.
    fan_out : int, optional
        How many outputs an input has; the last dimension if left out, as of a linear layer.
    biases : bool
        Whether the layer has any.

    Returns
    -------
    w, b
        float64 of that shape, and of (outputs,): zero, but for "article".

    Raises
    ------
    ValueError
        If `init` is no such name; inside `without_drawing`, if there are more weights than that allows.
    MemoryError
        For more weights than the tape has room for.

    Examples
    --------
    >>> w, b = initial_weights((2, 3), "he", random.Random(0))
    >>> w.shape, b.tolist()
    ((2, 3), [0.0, 0.0, 0.0])
    """
    if isinstance(init, str) and init not in INITIALIZERS:
        raise ValueError(f"init: expected a function or one of {', '.join(map(repr, INITIALIZERS))}, got {init!r}")
    if not isinstance(init, str) and not callable(init):
        raise TypeError(f"init: expected a name or a function, got {init!r}")
    inputs, outputs = math.prod(shape[:-1]), shape[-1]
    if (room := _room.get()) is not None:
        room.take(inputs * outputs + outputs * biases)
        return np.zeros(shape), np.zeros(outputs)
    if (inputs + 1) * outputs > 0x7FFFFFFF:       # before drawing them, which may take hours
        raise MemoryError(f"a layer of {inputs * outputs:,} weights: the tape holds at most {0x7FFFFFFF:,} nodes")
    fans = inputs, outputs if fan_out is None else fan_out
    draw = INITIALIZERS[init](*fans, rng) if isinstance(init, str) else partial(init, *fans, rng)
    w = np.array([draw() for _ in range(inputs * outputs)], dtype=float).reshape(shape)
    return w, np.array([draw() if init == "article" else 0.0 for _ in range(outputs)])


def generator(seed: int | random.Random | None) -> random.Random:
    """The `random.Random` that a seed stands for: one itself, an integer, or None for another one every time."""
    if isinstance(seed, random.Random):
        return seed
    try:
        return random.Random(seed)
    except TypeError:
        expected = "a whole number, a random.Random, or None"
        raise TypeError(f"seed: expected {expected}, got {shown(seed)}") from None


# --- layers that are made to be filled --------------------------------------------------------------


class _Room:
    def __init__(self, numbers: int) -> None:
        self.numbers = numbers

    def take(self, numbers: int) -> None:
        self.numbers -= numbers
        if self.numbers < 0:
            raise ValueError("the layers that are described have more parameters than there are")


_room: ContextVar[_Room | None] = ContextVar("room", default=None)


@contextmanager
def without_drawing(numbers: int) -> Iterator[Any]:
    """Layers that are made inside have weights of zero, and all together at most so many parameters."""
    token = _room.set(_Room(numbers))
    try:
        yield
    finally:
        _room.reset(token)


def room_for(count: int) -> None:
    """Before a layer allocates parameters that are not drawn."""
    if (room := _room.get()) is not None:
        room.take(count)
