"""Threads that take turns as often as the interpreter lets them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any


def side_by_side(work: Callable[[int], Any], count: int, *, interval: float = 1e-6) -> list[BaseException]:
    """What work(0), work(1), ... raised, each in a thread of its own; `interval`: the seconds of a turn."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(300)
    finally:
        sys.setswitchinterval(before)
    return errors
