"""How many threads a call may use."""

from __future__ import annotations

import os
from typing import Any

from fastscalar._settings import whole_number
from fastscalar._warnings import warn


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(value: Any, what: str = "threads", processes: int = 1) -> int:
    """A number of threads as it was given, or, with a warning, how many there are cores for: more are only slower.

    processes: so many share this machine's cores."""
    value = whole_number(what, value)
    there = max(1, cores() // processes) if value > 1 else 1
    if value > there:
        many = "1 core" if there == 1 else f"{there} cores"
        warn(f"{what}: {value} are asked for, and this process may use {many}: it takes {there}", RuntimeWarning)
    return min(value, there)
