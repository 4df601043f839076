"""What is measured, each piece of work defined once for all sides, and how the sides take turns."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import nets as work

SEED = 0

# --- scalar operations ---

INPUTS, OUTPUTS = 100, 500
OPERATIONS = 2 * INPUTS * OUTPUTS  # of the dot products: a multiplication and an addition for each pair


def dot_product_numbers() -> tuple[list[float], list[list[float]]]:
    """x[j] and w[k][j]: inputs and weights of 500 dot products of length 100."""
    generator = np.random.default_rng(SEED)
    return generator.normal(size=INPUTS).tolist(), generator.normal(size=(OUTPUTS, INPUTS)).tolist()


def made_of(number: Callable[[float], Any], x: list[float], w: list[list[float]]) -> tuple[list[Any], list[list[Any]]]:
    """The same inputs and weights as objects of another kind."""
    return [number(v) for v in x], [[number(v) for v in row] for row in w]


def dot_products(x: list[Any], w: list[list[Any]]) -> list[Any]:
    """The loop: runs unchanged on `complex`, on Tensors, on the twin's and on the article's."""
    sums = []
    for row in w:
        s = 0.0
        for a, b in zip(x, row):  # noqa: B905  (strict would be measured too)
            s = s + a * b
        sums.append(s)
    return sums


def total(sums: list[Any]) -> Any:
    """One root above all dot products."""
    t = 0.0
    for s in sums:
        t = t + s
    return t


# --- a training loop ---


@cache
def digits(n: int) -> tuple[np.ndarray, list[int], str]:
    """n rows of 784 pixels from 0 to 1, their labels, and the name of the data set: MNIST if it is here."""
    return work.digits(n)


@cache
def rows(kind: str, n: int) -> tuple[np.ndarray, list[int], str]:
    """The same, `sparse`, or `dense`: without zeros."""
    X, y, source = digits(n)
    if kind == "dense":
        X = np.random.default_rng(0).uniform(0.05, 0.5, size=X.shape)
        source = "uniform numbers in 0.05..0.5"
    return X, y, source


# --- taking turns ---


@dataclass
class Turns:
    """Seconds of each round, by side."""

    seconds: dict[str, list[float]]

    def median(self, side: str) -> float:
        return statistics.median(self.seconds[side])

    def ratio(self, side: str, other: str) -> float:
        """Median of `side` over median of `other`."""
        return self.median(side) / self.median(other)


SHORT = False  # with --short: the tables of the documents within ten minutes
FEWER = 5  # rounds at most, then


def in_turn(benchmark: Any, ours: Callable[[], Any], others: dict[str, Callable[[], Any]], rounds: int) -> Turns:
    """Run A B A B: in each round every other side once, then ours, which is what pytest-benchmark records.

    A side that returns a float says by it how many seconds it took; else the whole call counts.  The garbage
    of one side is collected before the next begins.  With --benchmark-disable there is one round.
    """
    seconds: dict[str, list[float]] = {side: [] for side in ("fastscalar", *others)}

    def timed(side: str, run: Callable[[], Any]) -> None:
        start = time.perf_counter()
        result = run()
        end = time.perf_counter()
        seconds[side].append(result if isinstance(result, float) else end - start)

    def they() -> None:
        for side, run in others.items():
            gc.collect()
            timed(side, run)
        gc.collect()

    benchmark.pedantic(timed, ("fastscalar", ours), setup=they, rounds=min(rounds, FEWER) if SHORT else rounds)
    return Turns(seconds)


@contextmanager
def collector(on: bool) -> Iterator[None]:
    """Python's cyclic collector on or off."""
    before = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        yield
    finally:
        (gc.enable if before else gc.disable)()
