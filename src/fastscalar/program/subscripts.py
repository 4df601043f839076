"""Which list a whole number is used as an index of: `probs[label]`, as Python's own instructions say it.

A list asks its index for an int and says nothing of itself.  The instruction that runs then, and the two before it, say
which variable holds it.  Where they do not, nothing is known, and nothing is guessed.

The boundary: looks at a frame of the user's and changes nothing; `_graph` notes what is found.
"""

from __future__ import annotations

import dis
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

_OF_LOCALS = ("LOAD_FAST", "LOAD_DEREF", "LOAD_NAME", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_NOTHING = object()


@lru_cache(maxsize=256)
def _names(code: CodeType, at: int) -> list[tuple[bool, str]] | None:
    """The variables of a[b], if that is the instruction at an offset: for each whether it is global, and its name."""
    loads: list[tuple[bool, str]] = []           # what has been put on the stack by the instructions right before
    for instruction in dis.get_instructions(code):
        name, found = instruction.opname, instruction.argval
        if instruction.is_jump_target:
            loads = []                           # somebody may come here from elsewhere
        if instruction.offset == at:
            subscript = name == "BINARY_SUBSCR" or (name == "BINARY_OP" and instruction.argrepr == "[]")
            return loads[-2:] if subscript and len(loads) >= 2 else None
        if name.startswith("LOAD_FAST") and isinstance(found, tuple):    # two in one
            loads += [(False, one) for one in found]
        elif name.startswith(_OF_LOCALS):
            loads.append((False, found))
        elif name == "LOAD_GLOBAL":
            loads.append((True, found))
        elif name not in ("EXTENDED_ARG", "CACHE"):
            loads = []
    return None


def list_and_index(frame: FrameType) -> tuple[list[Any], Any] | None:
    """What a frame that stands in a[b] takes an element of, copied, and the index; None: it does something else."""
    names = _names(frame.f_code, frame.f_lasti)
    if names is None:
        return None
    local, common = frame.f_locals, frame.f_globals
    container, index = (
        common.get(name, _NOTHING) if is_global else local.get(name, common.get(name, _NOTHING))
        for is_global, name in names
    )
    return (list(container), index) if type(container) in (list, tuple) else None
