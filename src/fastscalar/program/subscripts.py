"""Which list a whole number is used as an index of: `probs[label]`, `probs[int(label)]`, as Python's own instructions
say it.

A list asks its index for an int and says nothing of itself.  The instruction that runs then, and those before it, say
which variable holds it.  Where they do not, nothing is known, and nothing is guessed.

The boundary: looks at a frame of the user's and changes nothing; `_graph` notes what is found.
"""

from __future__ import annotations

import builtins
import dis
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

_LOCAL = ("LOAD_FAST", "LOAD_DEREF", "LOAD_NAME", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_NOTHING = object()


class Variable(NamedTuple):
    is_global: bool
    name: str

    def value(self, frame: FrameType) -> Any:
        found = _NOTHING if self.is_global else frame.f_locals.get(self.name, _NOTHING)
        if found is _NOTHING:
            found = frame.f_globals.get(self.name, _NOTHING)
        return getattr(builtins, self.name, _NOTHING) if found is _NOTHING else found


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    return (i for i in dis.get_instructions(code) if i.opname not in ("EXTENDED_ARG", "CACHE", "PUSH_NULL"))


def _is_subscript(i: dis.Instruction) -> bool:
    return i.opname == "BINARY_SUBSCR" or (i.opname == "BINARY_OP" and i.argrepr == "[]")


@lru_cache(maxsize=256)
def _variables(code: CodeType, at: int) -> list[Variable] | None:
    """[a, b] of a[b], or [a, f, b] of a[f(b)], if that instruction, or the call, is the one at an offset."""
    loads: list[Variable] = []                   # what has been put on the stack by the instructions right before
    reached = called = False
    for i in _instructions(code):
        reached = reached or i.offset == at
        if i.is_jump_target:                     # it may be reached from elsewhere
            if reached:
                return None
            loads = []
        if reached:
            if _is_subscript(i):
                wanted = 3 if called else 2
                return loads[-wanted:] if len(loads) >= wanted else None
            if i.opname not in ("PRECALL", "CALL") or i.arg != 1:
                return None
            called = True
        elif i.opname.startswith("LOAD_FAST") and isinstance(i.argval, tuple):   # two in one
            loads += [Variable(False, name) for name in i.argval]
        elif i.opname == "STORE_FAST_LOAD_FAST":
            loads = [Variable(False, i.argval[1])]
        elif i.opname.startswith(_LOCAL):
            loads.append(Variable(False, i.argval))
        elif i.opname == "LOAD_GLOBAL":
            loads.append(Variable(True, i.argval))
        elif i.opname != "PRECALL":
            loads = []
    return None


def list_and_index(frame: FrameType) -> tuple[list[Any], Any] | None:
    """What a frame that stands in a[b] takes an element of, copied, and the index; None: it does something else."""
    variables = _variables(frame.f_code, frame.f_lasti)
    if variables is None or (len(variables) == 3 and variables[1].value(frame) is not int):
        return None
    container = variables[0].value(frame)
    return (list(container), variables[-1].value(frame)) if type(container) in (list, tuple) else None
