"""Whether code asks for the identity of a bool or a Tensor, or for a type: `(x > 0) is True`, `case True`,
`type(x > 0) is bool`, `some[k] is x`, `isinstance(k / 4, float)`.

A comparison that is not decided yet is none of the two bools, and neither `is` nor `type` can be answered for it; nor
can `type` for a whole number of the row, or `is` for what it selects; nor `isinstance` for what is computed of it.

The boundary: looks at code and frames of the user's, and changes nothing.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import inspect
import numbers
import os
import threading
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from itertools import islice
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    FrameType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple

import numpy as np

from fastscalar._core import Tensor
from fastscalar._paths import PACKAGE, is_users
from fastscalar.engine._array import TensorArray
from fastscalar.engine._traced import TracedInt

_RECORDER = os.path.join(os.path.dirname(__file__), "recorded.py")
MOST = 10_000  # codes that are remembered
OBJECTS = 3  # in one another, whose methods are looked at
REACHED = 1_000  # functions, at most, that are looked at: of more it is taken for granted that one asks
HELD = 100  # elements of a list, at most, that are looked at
_CALLED = ("__call__", "forward")
_SHOWS_A_FLOAT = frozenset({
    "isinstance", "hasattr", "str", "repr", "ascii", "format", "print", "vars", "dir", "dumps", "__class__",
    "isscalar", "dtype", "issubdtype", "result_type", "hash", "set", "frozenset", "dict", "defaultdict", "Counter",
    "setdefault", "fromkeys",
})  # fmt: skip
"""Names of what a Tensor is told from a float by, if it raises nothing: an error that the plain call does not have is
noticed."""
_ROUNDS = frozenset({"float32", "float16", "single", "half", "longdouble", "Fraction", "astype"})
"""Names of what a float beside a number of theirs is rounded by; a Tensor is not."""
_SHOWS_A_FLOAT_AS_WELL = frozenset({
    "FORMAT_VALUE", "FORMAT_SIMPLE", "CONVERT_VALUE", "MATCH_CLASS", "CONTAINS_OP", "BUILD_SET", "SET_ADD", "BUILD_MAP",
    "BUILD_CONST_KEY_MAP", "MAP_ADD",
})  # fmt: skip
_AROUND = (staticmethod, classmethod, MethodType, partial, type(lru_cache(len)))
_HAVE_NONE = frozenset({
    type(None), bool, int, float, complex, str, bytes, Tensor, TensorArray, TracedInt, np.ndarray, np.ufunc,
    type(Tensor.backward), CodeType, BuiltinFunctionType, ClassMethodDescriptorType, GetSetDescriptorType,
    MemberDescriptorType, MethodDescriptorType, MethodWrapperType, WrapperDescriptorType,
})  # fmt: skip
"""Types whose objects have no methods that a user wrote: most of what names stand for, and dear to ask."""
_read: dict[int, Asked] = {}


class Asked(NamedTuple):
    """What stands in a code, whatever its names are."""

    code: CodeType
    names: tuple[str, ...]
    bools: bool  # it compares a bool, or what a comparison gave, by `is`
    compared: tuple[tuple[str, Any], ...]  # what is loaded last before each `is`: instruction and argument
    loaded: tuple[str, ...]  # names of variables
    types: bool  # it has a name `type` or `id`, maybe of an attribute
    floats: bool  # something in it tells Tensors from floats, maybe


class Wants(NamedTuple):
    """What a function is to get, or to make, as it is: its recording holds for what it was made of."""

    ints: bool  # whole numbers of the row
    truths: bool  # the bools among them
    floats: bool  # what is computed of whole numbers alone


class _Walk:
    """What was looked at: by code and what its names are, which are kept so that no other is at their place.  Two
    functions may have the same code, and not the same names."""

    def __init__(self, before: _Walk | None = None) -> None:
        self.before = {} if before is None else before.seen          # is not looked at again
        self.seen: dict[Any, Any] = {}
        self.functions = 0

    def is_new(self, key: Any, kept: Any) -> bool:
        if key in self.seen or key in self.before:
            return False
        self.seen[key] = kept
        return True


class _OfARecording(threading.local):
    """What was found out since it began; None while none is being made, or nobody says when it ends."""

    known: dict[Any, tuple[list[Any], bool]] | None = None
    asks_nothing: _Walk | None = None


_here = _OfARecording()


@contextlib.contextmanager
def names_kept() -> Iterator[None]:
    """Context of a recording."""
    around = _here.known, _here.asks_nothing
    _here.known, _here.asks_nothing = {}, _Walk()
    try:
        yield
    finally:
        _here.known, _here.asks_nothing = around


def wants_bools(frame: FrameType | None) -> bool:
    """Whether this code does, what has called it since the recording began, or a function that these know by name."""
    asks = False
    while frame is not None and frame.f_code.co_filename != _RECORDER:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            inside = frame.f_locals
            values = [value for value in inside.values() if type(value) not in _HAVE_NONE]
            key = id(code), *map(id, values)     # globals are what they are, for one recording
            known = _here.known.get(key) if _here.known is not None else None
            if known is None:
                walk = _Walk(_here.asks_nothing)
                codes = _reached(code, {**frame.f_globals, **inside}, walk)
                asking = any(_asks_for_a_type(*one) or _asks_for_identity(one[0]) for one in codes)
                known = [code, *values], asking or walk.functions >= REACHED
                if _here.known is not None:
                    _here.known[key] = known
                if not known[1]:
                    walk.before.update(walk.seen)
            asks |= known[1]
        frame = frame.f_back
    return asks and frame is not None


def wants(function: Any, around: int = OBJECTS) -> Wants:
    """Whether a function asks for a type, or which Tensor something is, or one that it knows by name does; whether
    it does, or asks which bool something is; and whether a Tensor is told from a float in it.

    `type(k) is int`, `some[k] is x`: a whole number of the row that stands for those of all rows has another type, and
    selects more than one Tensor.  around: functions of ours, as `fastscalar.grad` makes them, that are looked
    through."""
    inner = _inside(function)
    if type(inner) is not FunctionType:          # an object that is called, a Module
        methods = [_inside(inspect.getattr_static(function, name, None)) for name in _CALLED]
        some = [(f, {**_names_of(f), "self": function}) for f in methods if type(f) is FunctionType]
    else:
        some = [(inner, {**_names_of(inner), "self": getattr(function, "__self__", None)})]
    walk = _Walk()
    codes = [one for f, names in some for one in _reached(f.__code__, names, walk)]
    if walk.functions >= REACHED or any(_asks_for_a_type(*one) or _asks_for_a_tensor(*one) for one in codes):
        return Wants(True, True, True)
    truths = any(_asks_for_identity(code) for code, _ in codes)
    cells = [v for f, names in some if not is_users(f.__code__.co_filename)
             for v in (getattr(f, "__wrapped__", None), *map(names.get, f.__code__.co_freevars),
                       *getattr(names.get("self"), "__dict__", {}).values())]  # fmt: skip
    within = [wants(v, around - 1) for v in cells if callable(v)] if around > 0 else []
    floats = any(_tells_floats(*one) for one in codes)
    return Wants(*map(any, zip((False, truths, floats), *within, strict=True)))


def _asked(code: CodeType) -> Asked:
    known = _read.get(id(code))
    if known is None:
        if len(_read) >= MOST:
            _read.clear()
        instructions = list(dis.get_instructions(code))
        pairs = zip(instructions, instructions[1:], strict=False)
        compared = tuple((before.opname, before.argval) for before, one in pairs if one.opname == "IS_OP")
        loaded: set[str] = set()
        for one in instructions:
            # an attribute that is called so is another thing
            if one.opname.startswith("LOAD_") and one.opname not in ("LOAD_CONST", "LOAD_ATTR", "LOAD_METHOD"):
                some = one.argval if isinstance(one.argval, tuple) else (one.argval,)
                loaded.update(name for name in some if isinstance(name, str))
        bools = any(isinstance(value, bool) or name == "COMPARE_OP" for name, value in compared)
        bools |= not {"is_", "is_not"}.isdisjoint(code.co_names)
        names = (*code.co_names, *code.co_varnames, *code.co_freevars)
        types = not {"type", "id"}.isdisjoint(code.co_names)
        floats = not (_SHOWS_A_FLOAT | _ROUNDS).isdisjoint(code.co_names)
        floats |= not _SHOWS_A_FLOAT_AS_WELL.isdisjoint(one.opname for one in instructions)
        if "getattr" in code.co_names:           # `getattr(v, "backward", None)`
            floats |= any(type(c) is str and hasattr(Tensor, c) != hasattr(float, c) for c in code.co_consts)
        known = Asked(code, names, bools, compared, tuple(loaded), types, floats)
        _read[id(code)] = known
    return known


def _asks_for_identity(code: CodeType) -> bool:
    return _asked(code).bools


def _asks_for_a_tensor(code: CodeType, names: dict[str, Any]) -> bool:
    """Whether it compares by `is` with what is no constant, and no global that is something else (MISSING)."""
    return any(
        instruction != "LOAD_CONST"
        and (instruction != "LOAD_GLOBAL" or isinstance(names.get(value), (Tensor, TensorArray)))
        for instruction, value in _asked(code).compared
    )


def _asks_for_a_type(code: CodeType, names: dict[str, Any]) -> bool:
    """Whether it has a name for `type` or `id`; an attribute that is called so is another thing, unless a module's."""
    asked = _asked(code)
    values = [names.get(name, vars(builtins).get(name)) for name in asked.loaded]
    if any(value is type or value is id for value in values):
        return True
    return asked.types and any(names.get(name) is builtins for name in asked.loaded)


def _tells_floats(code: CodeType, names: dict[str, Any]) -> bool:
    """Whether it may tell a float from a Tensor: by itself; or by a function of functools.singledispatch, a dictionary
    or set whose keys may be floats, a number that rounds what stands beside it, which it has a name for or finds in
    what it has a name for."""
    asked = _asked(code)
    values = [names.get(name) for name in asked.loaded]
    return asked.floats or any(_is_such(v) or any(map(_is_such, _within(v, code))) for v in values)


def _is_such(v: Any) -> bool:
    kind = type(v)
    if kind is FunctionType:
        return "registry" in v.__dict__
    if issubclass(kind, (dict, set, frozenset)):
        return not v or any(type(key) is float for key in islice(v, HELD))
    if kind is np.ndarray:
        return v.dtype.kind == "f" and v.dtype != np.float64
    return issubclass(kind, (np.floating, numbers.Rational)) and not issubclass(kind, (float, numbers.Integral))


def _within(v: Any, code: CodeType) -> Iterable[Any]:
    if type(v) in (list, tuple, dict):
        return islice(v.values() if isinstance(v, dict) else v, HELD)
    return () if type(v) in _HAVE_NONE else _named_in(v, code)


def _reached(code: CodeType, names: dict[str, Any], walk: _Walk) -> Iterator[tuple[CodeType, dict[str, Any]]]:
    """The user's code that code runs, itself first, and what its names are."""
    if not is_users(code.co_filename) or walk.functions >= REACHED:
        return
    values: Iterator[Any] = map(names.get, (*_asked(code).names, "self"))
    owners = [value for value in values if type(value) not in _HAVE_NONE]
    if not walk.is_new((id(code), *map(id, owners)), (code, owners)):
        return
    walk.functions += 1
    yield code, names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _reached(part, names, walk)
    for owner in owners:
        # A frame of a loop has another object in one of its names each time, and the same ones in the others.
        size = len(owner) if type(owner) in (list, dict) else 0
        if walk.is_new((code, id(owner), size), owner):
            for one in _called(code, owner):
                yield from _reached(*one, walk)


def _names_of(function: FunctionType) -> dict[str, Any]:
    code, defaults = function.__code__, function.__defaults__ or ()
    found = dict(function.__globals__)
    first = code.co_argcount - len(defaults)
    found.update(zip(code.co_varnames[first : code.co_argcount], defaults, strict=True))
    found.update(function.__kwdefaults__ or {})
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):    # not assigned yet
            found[name] = cell.cell_contents
    return found


def _called(code: CodeType, owner: Any) -> Iterator[tuple[CodeType, dict[str, Any]]]:
    """Functions: what code has a name for, what stands in such a list or dictionary, and methods of objects, and of
    objects in these."""
    owners = [owner]
    for _ in range(OBJECTS):
        following = []
        for one in owners:
            if type(one) in _HAVE_NONE:
                continue
            for found in (one, *_named_in(one, code)):
                function = _inside(found)
                if type(function) is FunctionType:
                    yield function.__code__, {**_names_of(function), "self": one}
                if isinstance(found, partial):
                    following += [*found.args, *found.keywords.values()]
                elif type(found) in (list, tuple, dict):
                    inner = islice(found.values() if isinstance(found, dict) else found, HELD)
                    following += [each for each in inner if callable(each)]
                elif found is not one and not isinstance(found, type) and type(function) is not FunctionType:
                    following.append(found)
        owners = following


def _named_in(owner: Any, code: CodeType) -> list[Any]:
    """What code may ask an object for."""
    if type(owner) in (list, tuple, dict, partial):
        return []
    if isinstance(owner, ModuleType):
        file = getattr(owner, "__file__", None)
        return [vars(owner).get(name) for name in code.co_names] if file is not None and is_users(file) else []
    return [inspect.getattr_static(owner, name, None) for name in (*code.co_names, *_CALLED)]


def _inside(found: Any) -> Any:
    """What a method, a partial or a cache calls; other things are asked nothing, which might run something."""
    while isinstance(found, _AROUND):
        if isinstance(found, partial):
            found = found.func
        else:
            found = found.__func__ if isinstance(found, MethodType) else found.__wrapped__
    return found
