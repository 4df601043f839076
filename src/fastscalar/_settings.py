"""Numbers that a user sets: of the right kind and within their limits, or a ValueError that says which one, and what it
was to be."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np

LIMITS: dict[str, Callable[[float], bool]] = {
    "": lambda value: True,
    "above 0": lambda value: 0.0 < value < math.inf,
    "from 0 on": lambda value: 0.0 <= value < math.inf,
    "from 0 to 1": lambda value: 0.0 <= value <= 1.0,
    "in [0, 1)": lambda value: 0.0 <= value < 1.0,
}
LARGEST = 2**31 - 1  # of what the engine counts


def real_number(name: str, value: Any, limits: str = "above 0", expected: str = "a number") -> float:
    """The value as a float.  limits: one of LIMITS."""
    number = scalar(value)
    if not isinstance(number, bool) and isinstance(number, Real):
        try:
            number = float(number)
        except OverflowError:                    # an int, or a Fraction
            number = math.inf
        if LIMITS[limits](number):
            return number
    raise ValueError(f"{name}: expected {f'{expected} {limits}'.strip()}, got {shown(value)}")


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None, or_else: str = "") -> int:
    """The value as an int, from `least` to `most`.  or_else: what it may also be, for the message."""
    number = scalar(value)
    if not isinstance(number, bool) and isinstance(number, Integral) and int(number) >= least:
        if most is None or int(number) <= most:
            return int(number)
        limits = f"of at most {most}"
    else:
        limits = "from 0 on" if least == 0 else f"of at least {least}"
    raise ValueError(f"{name}: expected a whole number {limits}{or_else}, got {shown(value)}")


def shown(value: Any) -> str:
    """Its repr in one line, or of what type it is where that is long or cannot be had."""
    try:
        text = " ".join(repr(value).split())
    except Exception:                            # of an int with more digits than Python writes, or the user's own
        return f"something of type {type(value).__name__}"
    return text if len(text) <= 200 else f"something of type {type(value).__name__}"


def scalar(value: Any) -> Any:
    """Python's number for what an array of no dimension, or one of NumPy's, holds: theirs overflow."""
    return value.item() if isinstance(value, (np.ndarray, np.generic)) and value.ndim == 0 else value
