"""How much the rounding of single operations matters to a result: the same function in other directions of rounding.

Under `scattered` each bytecode of the case's own frames runs with a direction of rounding drawn at random, as in
CESTAC (Vignes 1993, doi:10.1016/0378-4754(93)90003-D).  Operations that are exact stay exact, so ties stay ties; what
moves, moves as rounding moves it.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import platform
import random
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

_MODES = {
    "x86_64": (0, 0x400, 0x800, 0xC00),
    "AMD64": (0, 0x400, 0x800, 0xC00),
    "aarch64": (0, 0x800000, 0x400000, 0xC00000),
}
_modes = _MODES.get(platform.machine())
_set = ctypes.CDLL(ctypes.util.find_library("m") or None).fesetround if _modes and sys.platform != "win32" else None
AVAILABLE = _set is not None


@contextlib.contextmanager
def scattered(seed: int, name: str) -> Iterator[None]:
    """Run what is inside, in frames of code from the file `name`, with directions of rounding drawn at random."""
    if _set is None:
        yield
        return
    draw = random.Random(seed)
    directions = [draw.choice(_modes) for _ in range(997)]
    at = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal at
        if frame.f_code.co_filename != name:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        at = (at + 1) % 997
        _set(directions[at])
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        _set(directions[0])
        yield
    finally:
        _set(_modes[0])
        sys.settrace(before)
