"""Whether code asks for the identity of a bool, or for its type: `(x > 0) is True`, `case True`, `type(x > 0) is bool`.

A comparison that is not decided yet is none of the two bools, and neither `is` nor `type` can be answered for it.

The boundary: looks at code and frames of the user's, and changes nothing.
"""

from __future__ import annotations

import dis
import inspect
import os
from collections.abc import Iterator
from functools import lru_cache, partial
from types import CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from fastscalar._paths import is_users

_RECORDER = os.path.join(os.path.dirname(__file__), "recorded.py")
MOST = 10_000  # codes that are remembered
_AROUND = (staticmethod, classmethod, MethodType, partial, type(lru_cache(len)))
_known: dict[int, tuple[CodeType, bool]] = {}  # by identity, which is quicker than the hash of a code


def wants_bools(frame: FrameType | None) -> bool:
    """Whether this code does, what has called it since the recording began, or a function that these know by name."""
    asks = False
    while frame is not None and frame.f_code.co_filename != _RECORDER:
        known = _known.get(id(frame.f_code))
        if known is None:
            if len(_known) >= MOST:
                _known.clear()
            names = {**frame.f_globals, **frame.f_locals}
            known = _known[id(frame.f_code)] = frame.f_code, _asks(frame.f_code, names, set())
        asks |= known[1]
        frame = frame.f_back
    return asks and frame is not None


def _asks(code: CodeType, names: dict[str, Any], seen: set[int]) -> bool:
    if id(code) in seen or not is_users(code.co_filename):
        return False
    seen.add(id(code))
    named = set(code.co_names)
    if named & {"is_", "is_not"} or named >= {"type", "bool"}:
        return True
    instructions = list(dis.get_instructions(code))
    for before, one in zip(instructions, instructions[1:], strict=False):
        if one.opname == "IS_OP" and (isinstance(before.argval, bool) or before.opname == "COMPARE_OP"):
            return True
    inner = [(part, names) for part in code.co_consts if isinstance(part, CodeType)]
    return any(_asks(*one, seen) for one in [*inner, *_called(code, names)])


def _called(code: CodeType, names: dict[str, Any]) -> Iterator[tuple[CodeType, dict[str, Any]]]:
    """Functions, and methods of objects, that code has names for."""
    for name in (*code.co_names, *code.co_varnames, *code.co_freevars):
        owner = names.get(name)
        if owner is None or isinstance(owner, ModuleType):
            continue
        for found in (owner, *(inspect.getattr_static(owner, attribute, None) for attribute in code.co_names)):
            function = _inside(found)
            if type(function) is FunctionType:
                yield function.__code__, function.__globals__


def _inside(found: Any) -> Any:
    """What a method, a partial or a cache calls; other things are asked nothing, which might run something."""
    while isinstance(found, _AROUND):
        if isinstance(found, partial):
            found = found.func
        else:
            found = found.__func__ if isinstance(found, MethodType) else found.__wrapped__
    return found
