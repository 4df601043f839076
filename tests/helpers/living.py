"""What is alive of fastscalar: nodes, and objects of its classes.  In a checked build a test leaves none behind."""

from __future__ import annotations

import collections
import functools
import gc
import sys
import types
from typing import Any

from fastscalar.engine import testing
from fastscalar.program import identities

KEPT = type(functools.lru_cache(len))


def ours(kind: type) -> bool:
    module = getattr(kind, "__module__", None)  # of some types of C it is not a string
    return isinstance(module, str) and module.partition(".")[0] == "fastscalar"


def held(module: types.ModuleType) -> set[int]:
    """What a module's variables lead to, by address: programs that all its tests call, and what those have recorded."""
    seen = {id(vars(one)) for one in list(sys.modules.values()) if isinstance(one, types.ModuleType)}
    rest: list[Any] = [value for name, value in vars(module).items() if not name.startswith("__")]
    while rest:
        one = rest.pop()
        if gc.is_tracked(one) and id(one) not in seen and not isinstance(one, (types.ModuleType, type)):
            seen.add(id(one))
            rest += gc.get_referents(one)
    return seen


def forget() -> None:
    """What functions of the package keep of their last calls, by arguments, and of code that they have read."""
    identities._read.clear()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "fastscalar":
            for value in list(vars(module).values()):
                if isinstance(value, KEPT):
                    value.cache_clear()


def counted(module: types.ModuleType | None = None) -> dict[str, int]:
    """By kind, how many there are beside those that the module holds."""
    forget()
    for _ in range(2):  # what a destructor lets go, or a node that the tape collects, may be a cycle once more
        gc.collect()
        alive = testing.living()
    gc.collect()
    known = held(module) if module else set()
    kinds = collections.Counter(type(one) for one in gc.get_objects() if id(one) not in known)
    counts = {f"{kind.__module__}.{kind.__qualname__}": n for kind, n in kinds.items() if ours(kind)}
    return {"frozen": gc.get_freeze_count(), **alive, **counts}


def more(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """By kind, how many there are now beside those that were there before."""
    return {kind: n - before.get(kind, 0) for kind, n in after.items() if n > before.get(kind, 0) and kind != "frozen"}


def compare(before: dict[str, int], module: types.ModuleType) -> None:
    after = counted(module)
    if after["frozen"] < before["frozen"]:  # part of what was there before all tests has gone: who knows what it held
        gc.collect()
        gc.freeze()
        return
    left = more(before, after)
    assert not left, f"the test has left behind {left}"
