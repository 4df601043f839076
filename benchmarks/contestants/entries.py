"""Contestants as a race has them: how each is checked, and how often it is run in one timer."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastscalar as fs
from contestants.base import Contestant, Products, installed_version
from nets import TOLERANCE, Workload


@dataclass
class Entry:
    """A contestant of a workload as it stands in the table: how to check it and how to run so many units of work."""

    name: str
    check: Callable[[], dict[str, Any]]
    run: Callable[[int], Any]
    unit: float  # operations or samples in run(1)
    most: int | None = None  # the largest argument of `run`; more is done by calling again
    factor: float = 1.0  # from the size that was run to the size of the workload
    about: dict[str, Any] = field(default_factory=dict)
    side: Any = None
    seconds: list[float] = field(default_factory=list)  # for each operation or sample, scaled, by round
    calls: tuple[int, int] = (1, 1)  # how often in one timer, and with what argument

    def calibrate(self, target: float) -> None:
        """Find how often to run so that one timer lasts about `target` seconds."""
        if self.most is not None and getattr(self.side, "whole", False):
            self.timed(1, self.most)
            self.calls = (max(1, round(target / self.timed(1, self.most))), self.most)
            return
        count = 1
        while (spent := self.timed(1, count)) < target / 4 and count != self.most:
            count = min(count * 4, self.most or count * 4)
        wanted = count * target / max(spent, 1e-9)
        if self.most is not None and wanted > self.most:
            self.calls = (max(1, round(wanted / self.most)), self.most)
        else:
            self.calls = (1, max(1, round(wanted)))

    def timed(self, times: int, count: int) -> float:
        gc.collect()
        start = time.perf_counter()
        results = [self.run(count) for _ in range(times)]
        seconds = time.perf_counter() - start
        return sum(results) if isinstance(results[0], float) else seconds

    def measure(self) -> None:
        times, count = self.calls
        self.seconds.append(self.timed(times, count) / (times * count * self.unit) * self.factor)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def training_entry(
    kind: type[Contestant],
    work: Workload,
    X: np.ndarray,
    y: Sequence[int],
    batch: int,
    as_work: Workload | None = None,
    threads: int = 1,
) -> Entry:
    """`as_work`: the workload that the figure stands for, if another size was run."""
    side = kind(work, X, y, batch, threads)
    expected = kind.expected(work, X, y, batch)

    def check() -> dict[str, Any]:
        losses = side.first()
        right = bool(np.allclose(losses, expected, rtol=TOLERANCE[kind.dtype], atol=TOLERANCE[kind.dtype] / 10))
        return {"correct": right, "losses": losses, "expected_losses": expected}

    about = {"dtype": kind.dtype, "threads": threads, "version": kind.version()}
    if as_work is not None:
        about["run_with"] = list(work.widths)
    factor = 1.0 if as_work is None else as_work.products / work.products
    return Entry(kind.name, check, side.run, batch, len(X) // batch, factor, about, side)


def products_entry(side: Products) -> Entry:
    version = fs.__version__ if side.needs is None else installed_version(side.needs)
    about = {"dtype": "float64", "threads": 1, "version": version}
    return Entry(side.name, lambda: {"correct": bool(side.correct())}, side.run, side.operations, None, 1.0, about)


@contextmanager
def deep() -> Iterator[None]:
    """micrograd's backward pass is recursive."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
