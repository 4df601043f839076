"""Whether code asks for the identity of a bool: `(x > 0) is True`, `case True`.

A comparison that is not decided yet is none of the two bools, and `is` cannot be answered for it.

The boundary: looks at code and frames of the user's, and changes nothing.
"""

from __future__ import annotations

import dis
import os
from types import CodeType, FrameType, FunctionType
from typing import Any

from fastscalar._paths import is_users

_RECORDER = os.path.join(os.path.dirname(__file__), "recorded.py")
MOST = 10_000  # codes that are remembered
_known: dict[int, tuple[CodeType, bool]] = {}  # by identity, which is quicker than the hash of a code


def wants_bools(frame: FrameType | None) -> bool:
    """Whether this code does, what has called it since the recording began, or a function that these know by name."""
    while frame is not None and frame.f_code.co_filename != _RECORDER:
        known = _known.get(id(frame.f_code))
        if known is None:
            if len(_known) >= MOST:
                _known.clear()
            known = _known[id(frame.f_code)] = frame.f_code, _asks(frame.f_code, frame.f_globals, set())
        if known[1]:
            return True
        frame = frame.f_back
    return False


def _asks(code: CodeType, names: dict[str, Any], seen: set[int]) -> bool:
    if id(code) in seen or not is_users(code.co_filename):
        return False
    seen.add(id(code))
    instructions = list(dis.get_instructions(code))
    for before, one in zip(instructions, instructions[1:], strict=False):
        if one.opname == "IS_OP" and (isinstance(before.argval, bool) or before.opname == "COMPARE_OP"):
            return True
    inner = [(part, names) for part in code.co_consts if isinstance(part, CodeType)]
    called = [f for f in map(names.get, code.co_names) if type(f) is FunctionType]
    return any(_asks(*one, seen) for one in inner + [(f.__code__, f.__globals__) for f in called])
