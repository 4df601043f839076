"""What is alive of fastscalar: nodes, and objects of its classes.  In a checked build a test leaves none behind."""

from __future__ import annotations

import collections
import gc

from fastscalar.engine import testing


def ours(kind: type) -> bool:
    module = getattr(kind, "__module__", None)  # of some types of C it is not a string
    return isinstance(module, str) and module.partition(".")[0] == "fastscalar"


def counted() -> dict[str, int]:
    for _ in range(2):  # what a destructor lets go may be a cycle once more
        gc.collect()
    kinds = collections.Counter(map(type, gc.get_objects()))
    counts = {f"{kind.__module__}.{kind.__qualname__}": n for kind, n in kinds.items() if ours(kind)}
    return {"frozen": gc.get_freeze_count(), **testing.living(), **counts}


def more(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """By kind, how many there are now beside those that were there before."""
    return {kind: n - before.get(kind, 0) for kind, n in after.items() if n > before.get(kind, 0) and kind != "frozen"}


def compare(before: dict[str, int]) -> None:
    after = counted()
    if after["frozen"] < before["frozen"]:  # a test of the collector took what was there before all tests into account
        gc.collect()
        gc.freeze()
        return
    left = more(before, after)
    assert not left, f"the test has left behind {left}"
