"""Whether code asks for the identity of a bool, or for a type: `(x > 0) is True`, `case True`, `type(x > 0) is bool`.

A comparison that is not decided yet is none of the two bools, and neither `is` nor `type` can be answered for it; nor
can `type(k) is int` for a whole number of the row.

The boundary: looks at code and frames of the user's, and changes nothing.
"""

from __future__ import annotations

import dis
import inspect
import os
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from types import CellType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any

from fastscalar._paths import is_users

_RECORDER = os.path.join(os.path.dirname(__file__), "recorded.py")
MOST = 10_000  # codes that are remembered
_EMPTY = CellType()
_AROUND = (staticmethod, classmethod, MethodType, partial, type(lru_cache(len)))
_known: dict[int, tuple[CodeType, bool]] = {}  # by identity, which is quicker than the hash of a code
Names = dict[str, Any]


def wants_bools(frame: FrameType | None) -> bool:
    """Whether this code does, what has called it since the recording began, or a function that these know by name."""
    asks = False
    while frame is not None and frame.f_code.co_filename != _RECORDER:
        known = _known.get(id(frame.f_code))
        if known is None:
            if len(_known) >= MOST:
                _known.clear()
            names = {**frame.f_globals, **frame.f_locals}
            known = _known[id(frame.f_code)] = frame.f_code, _asks(frame.f_code, names, for_a_bool, set())
        asks |= known[1]
        frame = frame.f_back
    return asks and frame is not None


def wants_ints(function: Any) -> bool:
    """Whether a function, or one that it knows by name, asks for the type of a whole number.

    Of a function of ours, which derives another one, that is looked at."""
    found = _inside(function)
    if type(found) is not FunctionType:
        found = _inside(inspect.getattr_static(type(function), "__call__", None))
    if type(found) is not FunctionType:
        return False
    cells = zip(found.__code__.co_freevars, found.__closure__ or (), strict=False)
    inner = {name: cell.cell_contents for name, cell in cells if cell != _EMPTY}
    if not is_users(found.__code__.co_filename):
        return any(wants_ints(one) for one in inner.values() if callable(one) and one is not function)
    return _asks(found.__code__, {**found.__globals__, **inner}, for_a_type_of_number, set())


def for_a_type_of_number(code: CodeType) -> bool:
    named = set(code.co_names)
    return "type" in named and bool(named & {"int", "__name__", "__qualname__"})


def for_a_bool(code: CodeType) -> bool:
    named = set(code.co_names)
    if named & {"is_", "is_not"} or named >= {"type", "bool"}:
        return True
    instructions = list(dis.get_instructions(code))
    return any(
        one.opname == "IS_OP" and (isinstance(before.argval, bool) or before.opname == "COMPARE_OP")
        for before, one in zip(instructions, instructions[1:], strict=False)
    )


def _asks(code: CodeType, names: Names, what: Callable[[CodeType], bool], seen: set[int]) -> bool:
    if id(code) in seen or not is_users(code.co_filename):
        return False
    seen.add(id(code))
    inner = [(part, names) for part in code.co_consts if isinstance(part, CodeType)]
    return what(code) or any(_asks(*one, what, seen) for one in [*inner, *_called(code, names)])


def _called(code: CodeType, names: Names) -> Iterator[tuple[CodeType, Names]]:
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
