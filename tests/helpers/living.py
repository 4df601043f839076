"""What is alive of fastscalar: nodes, and objects of its classes.  In a checked build a test leaves none behind."""

from __future__ import annotations

import collections
import gc

from fastscalar.engine import testing


def counted() -> dict[str, int]:
    for _ in range(3):  # what a destructor lets go may be a cycle once more
        gc.collect()
    counts = collections.Counter(
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in map(type, gc.get_objects())
        if (getattr(kind, "__module__", None) or "").partition(".")[0] == "fastscalar"
    )
    return {**testing.living(), **counts}


def more(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """By kind, how many there are now beside those that were there before."""
    return {kind: n - before.get(kind, 0) for kind, n in after.items() if n > before.get(kind, 0)}


def compare(before: dict[str, int]) -> None:
    left = more(before, counted())
    assert not left, f"the test has left behind {left}"
