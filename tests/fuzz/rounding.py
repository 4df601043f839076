"""How much the rounding of single operations matters to a result: the same function in other directions of rounding.

Under `scattered` each bytecode of the case's own frames runs with a direction of rounding drawn at random, as in
CESTAC (Vignes 1993, doi:10.1016/0378-4754(93)90003-D).  Operations that are exact stay exact, so ties stay ties; what
moves, moves as rounding moves it.  `noisy` adds an error in the last place to functions that round (exp, tanh): they
are computed in other ways elsewhere, and the ones of C do not all follow the direction.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import math as _math
import platform
import random
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import fastscalar as fs
from fastscalar.engine._functions import operations

_MODES = {
    "x86_64": (0, 0x400, 0x800, 0xC00),
    "AMD64": (0, 0x400, 0x800, 0xC00),
    "aarch64": (0, 0x800000, 0x400000, 0xC00000),
}
_modes = _MODES.get(platform.machine())
_set = ctypes.CDLL(ctypes.util.find_library("m") or None).fesetround if _modes and sys.platform != "win32" else None
AVAILABLE = _set is not None


@functools.cache
def _directions(seed: int) -> list[int]:
    assert _modes is not None
    return random.Random(seed).choices(_modes, k=997)


@contextlib.contextmanager
def scattered(seed: int, name: str) -> Iterator[None]:
    """Run what is inside, in frames of code from the file `name`, with directions of rounding drawn at random."""
    if _set is None:
        yield
        return
    directions = _directions(seed)
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


EXACT = {"relu", "abs", "sign", "floor", "ceil", "trunc", "rint", "minimum", "maximum", "copysign", "fmod",
         "leaky_relu"}  # fmt: skip
ROUNDED = {name for _, name, _, is_method in operations() if is_method} - EXACT | {"gamma", "pow", "remainder"}
# what is left to the limit: a slope is computed from it, and it errs as much as the whole value does
SATURATED = {"tanh": lambda v: 2.0 * (1.0 - abs(v)), "expm1": lambda v: 1.0 + v}
LAST_PLACE = (1.0 - 2.0**-52, 1.0, 1.0 + 2.0**-52)


def written_out(y_hat: Any, y: Any) -> Any:
    """squared_loss as programs compute it: half of a gradient of 5e-324 is nothing, before it meets a difference."""
    try:
        pairs = list(zip(y_hat, y, strict=True))
    except (TypeError, ValueError):
        return fs.squared_loss(y_hat, y)
    if not all(isinstance(a, fs.Tensor) or isinstance(b, fs.Tensor) for a, b in pairs):
        return fs.squared_loss(y_hat, y)         # rows
    return fs.sum([(a - b) * (a - b) for a, b in pairs]) * 0.5


class _Noisy:
    """A module whose functions err in the last place."""

    def __init__(self, module: Any, draw: random.Random) -> None:
        self.module, self.draw = module, draw

    def __getattr__(self, name: str) -> Any:
        function = getattr(self.module, name)
        if name == "squared_loss":
            return written_out
        if name not in ROUNDED:
            return function

        def with_error(*operands: Any) -> Any:
            if name in SATURATED and isinstance(operands[0], fs.Tensor):
                x = operands[0].data
                left = SATURATED[name](getattr(_math, name)(x)) * abs(x)
                if 0.0 < left < 0.5:
                    operands = (operands[0] * (1.0 + self.draw.choice((-1.0, 0.0, 1.0)) * 2.0**-52 / left),)
            result = function(*operands)
            # A float may come from a whole number of the row, of which programs compute it.  Not 1.0, as exp(0) is.
            number = result.data if isinstance(result, fs.Tensor) else result if isinstance(result, float) else 1.0
            if (number * 2.0**20) % 1.0 != 0.0:
                return result * self.draw.choice(LAST_PLACE)
            return result

        return with_error


@contextlib.contextmanager
def noisy(seed: int, names: dict[str, Any]) -> Iterator[None]:
    """Run what is inside with noisy functions under the names `fs` and `math`."""
    draw = random.Random(seed)
    before = {name: module for name, module in names.items() if module is fs or module is fs.math}
    names.update({name: _Noisy(module, draw) for name, module in before.items()})
    try:
        yield
    finally:
        names.update(before)
