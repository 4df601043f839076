"""Time in tests, where other work runs on the machine: it only ever adds to a time, and for a while.

Seconds are those of the processor, for they do not count while others have it, and a limit is compared with the best of
several rounds.  What really is too slow is too slow in every round.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

Work = Callable[[], Any]


def seconds(work: Work) -> float:
    """Seconds of the processor that `work` takes, in all threads of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def best(work: Work, below: float = math.inf, least: int = 15, most: int = 60) -> float:
    """The shortest of at least `least` times; of more, up to `most`, as long as none is below `below`."""
    times = [seconds(work)]
    while len(times) < least or (min(times) >= below and len(times) < most):
        times.append(seconds(work))
    return min(times)


def ratio(work: Work, reference: Work, limit: float, least: int = 7, most: int = 60) -> float:
    """How many times the time of `reference` `work` takes: the best of each, the two in turn.

    At least `least` rounds, so that one disturbed round of the reference proves nothing; more, up to `most`, as long
    as the ratio is not below `limit`.
    """
    a, b = [], []
    while len(a) < least or (min(a) >= limit * min(b) and len(a) < most):
        a.append(seconds(work))
        b.append(seconds(reference))
    return min(a) / min(b)
