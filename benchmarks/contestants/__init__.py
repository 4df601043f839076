"""Everybody who trains the same nets on the same rows, and the race between them.

`base` has what they share and the light ones (ours, the twin, NumPy by hand, PyTorch), `python` the article's classes
and micrograd, `arrays` NumPy and Numba by hand, `graphs` JAX, CasADi and Paddle, `ours` the compiled engine with nets
written in other ways.  A peer is imported when it is first used; one that is missing is skipped by name.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import workloads
from contestants.base import Contestant
from contestants.entries import Entry, training_entry
from nets import Workload
from workloads import Turns

SMALL = slice(8, None, 16)  # the pixels that are left at the smallest size: 49
SMALL_HIDDEN = 8
SLOW_BUDGET = 4.0  # seconds for a side's rounds: after that it keeps the rounds that it has


class Race:
    """The sides of one comparison, each checked before it is timed; afterwards their medians."""

    def __init__(self, benchmark: Any, small: bool, skipped: Callable[[str, str], None]) -> None:
        self.benchmark, self.small, self.skipped = benchmark, small, skipped
        self.entries: list[Entry] = []
        benchmark.extra_info["contestants"] = {}

    def add(self, entry: Entry) -> None:
        """Check it, and find how much of its work fills a timer."""
        about = entry.about | entry.check()
        self.benchmark.extra_info["contestants"][entry.name] = about
        assert about["correct"], f"{entry.name} computes something else: {about}"
        if self.small:
            entry.calls = (1, 1)
        else:
            entry.calibrate(0.05 if workloads.SHORT else 0.1)
        self.entries.append(entry)

    def train(
        self,
        kinds: Sequence[type[Contestant]],
        work: Workload,
        X: np.ndarray,
        y: Sequence[int],
        batch: int = 1,
        threads: int = 1,
    ) -> None:
        """Enter these; the first one is ours, and without it there is no race."""
        if self.small:
            X = X[:, SMALL]
            hidden = (min(n, SMALL_HIDDEN) for n in work.widths[1:-1])
            work = replace(work, widths=(X.shape[1], *hidden, work.widths[-1]))
        for kind in kinds:
            if why := kind.missing():
                if kind is kinds[0]:
                    pytest.skip(f"{kind.name}: {why}")
                self.skipped(kind.name, why)
                continue
            self.add(training_entry(kind, work, X, y, batch, None, threads))

    def run(self, rounds: int, unit: str = "samples_per_s") -> Turns:
        """A B A B; the first one is what pytest-benchmark records.  Seconds are those of a sample or an operation."""
        ours, *others = self.entries
        if workloads.SHORT:
            rounds = min(rounds, workloads.FEWER)
        budget = SLOW_BUDGET / (4 if workloads.SHORT else 1)
        spent = dict.fromkeys((entry.name for entry in others), 0.0)

        def they() -> None:
            for entry in others:
                if spent[entry.name] > budget:
                    continue
                start = time.perf_counter()
                entry.measure()
                spent[entry.name] += time.perf_counter() - start
            gc.collect()

        try:
            self.benchmark.pedantic(ours.measure, setup=they, rounds=1 if self.small else rounds)
            for entry in self.entries:
                self.describe(entry, unit)
        finally:
            for entry in self.entries:
                if entry.side is not None:
                    entry.side.close()
        return Turns({entry.name: entry.seconds for entry in self.entries})

    def describe(self, entry: Entry, unit: str) -> None:
        about = self.benchmark.extra_info["contestants"][entry.name]
        median = statistics.median(entry.seconds)
        about[unit] = 1 / median if unit == "samples_per_s" else median * 1e9
        about |= {"rounds": len(entry.seconds), "calls": entry.calls, "spread": entry.spread}
        if (once := getattr(entry.side, "once", None)) is not None:
            about["seconds_once"] = once
        if isinstance(entry.side, Contestant) and not self.small:
            # The threads that a library was allowed are not always those that it took.
            before, start = entry.side.processor_seconds(), time.perf_counter()
            times, count = entry.calls
            for _ in range(times):
                entry.side.run(count)
            about["cores_used"] = (entry.side.processor_seconds() - before) / (time.perf_counter() - start)
