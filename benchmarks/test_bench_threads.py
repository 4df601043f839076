"""Two threads against one: on a machine with nothing else to do, and beside processes that keep every core busy.

The epochs of one and of two threads take turns, so that both see the same machine; all have to leave the same bits.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
import workloads
from workloads import rows

pytestmark = pytest.mark.benchmark(group="threads")


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    command = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(processes)]
    try:
        time.sleep(0.2 if processes else 0.0)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait(10)


def trained(X: np.ndarray, y: np.ndarray, batch: int, threads: int, epochs: int) -> tuple[float, bytes]:
    """Seconds of the epochs of one call, and what they left."""
    net = fs.MLP(784, [256, 10], seed=0)
    history = fs.fit(
        net, X, y, epochs=epochs, batch_size=batch, optimizer=fs.SGD(lr=0.01), threads=threads, progress=False
    )
    return sum(epoch.seconds for epoch in history.epochs), net.linears[0].w.numpy().tobytes()


@pytest.mark.parametrize("others", [0, 2], ids=["alone", "busy"])
@pytest.mark.parametrize("batch", [64, 256])
@pytest.mark.parametrize("kind", ["sparse", pytest.param("dense", marks=pytest.mark.thorough)])
def test_threads(benchmark: Any, bar: Any, small: bool, kind: str, batch: int, others: int) -> None:
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core")
    X, y, source = rows(kind, 600 if small else 10_240)
    X = np.asarray(X, np.float64)
    benchmark.extra_info.update(data=source, widths=[784, 256, 10], batch=batch, busy_processes=others)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    left = set()

    def turns() -> None:
        for _ in range(1 if small else 5 if workloads.SHORT else 9):
            for threads in seconds:
                took, weights = trained(X, y, batch, threads, 1 if small else 5)
                seconds[threads].append(took)
                left.add(weights)

    with busy(others):
        benchmark.pedantic(turns, rounds=1)
    assert len(left) == 1, "the number of threads changed what came out"
    one, two = (statistics.median(seconds[threads]) for threads in (1, 2))
    what = f"threads: mlp b{batch}, {kind}, {'beside 2 busy processes' if others else 'alone'}"
    if others:
        bar(f"{what}, 2 threads / 1", two / one, "x", at_most=1.2)
    else:
        bar(f"{what}, 1 thread / 2", one / two, "x", at_least=1.7 if batch == 256 else None)
