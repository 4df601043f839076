"""How many rows a replay is given at once."""

from __future__ import annotations

import time
from collections.abc import Iterator

BATCH = 256  # rows at once
PORTION = 0.05  # seconds between two looks at signals
AT_ONCE = 5_000_000  # operations, at first: a look is soon enough also for programs of a million operations


def portions(n: int, batch: int, operations: int) -> Iterator[slice]:
    """Stretches of rows, so that a signal need not wait much longer than PORTION.  Each has whole batches: where they
    end must not depend on the clock."""
    size, first = batch * max(1, min(4 * BATCH, AT_ONCE // (operations + 1)) // batch), 0
    while first < n:
        start = time.perf_counter()
        yield slice(first, min(n, first + size))
        first += size
        if time.perf_counter() - start < PORTION / 2:
            size *= 2
