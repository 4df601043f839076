"""What a whole number selects of a list: `probs[label]`, `self.probs[int(label) - 1]`, as Python's own instructions say
it.

A list asks its index for an int and says nothing of itself.  The instruction that runs then, those before it, and those
behind it up to the subscript, say what the list is and how its index is computed.  Where they do not, nothing is known,
and nothing is guessed.

The boundary: looks at a frame of the user's and changes nothing, and runs nothing of the user's; `_graph` notes what is
found.
"""

from __future__ import annotations

import builtins
import dis
import inspect
import operator
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple

from fastscalar.engine._array import TensorArray

_LOCAL = ("LOAD_FAST", "LOAD_DEREF", "LOAD_NAME", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip
MOST = 4096  # values of a whole number


class Unknown(Exception):
    """An expression whose value cannot be had without running something of the user's."""


class Variable(NamedTuple):
    is_global: bool
    name: str

    def value(self, frame: FrameType) -> Any:
        if not self.is_global and self.name in frame.f_locals:
            return frame.f_locals[self.name]
        if self.name in frame.f_globals:
            return frame.f_globals[self.name]
        try:
            return getattr(builtins, self.name)
        except AttributeError:
            raise Unknown from None

    def of(self, frame: FrameType, wanted: Any, number: int) -> int:
        """As a part of an index: `number` where it is what is asked for an int."""
        value = self.value(frame)
        if value is not wanted and type(value) is not int:
            raise Unknown
        return number if value is wanted else value


class Constant(NamedTuple):
    is_value: Any

    def value(self, frame: FrameType) -> Any:
        return self.is_value

    def of(self, frame: FrameType, wanted: Any, number: int) -> int:
        if type(self.is_value) is not int:
            raise Unknown
        return self.is_value


class Attribute(NamedTuple):
    owner: Any
    name: str

    def value(self, frame: FrameType) -> Any:
        owner = self.owner.value(frame)
        if type(owner).__getattribute__ is not object.__getattribute__:
            raise Unknown
        found = inspect.getattr_static(owner, self.name, None)
        if type(found) not in (list, tuple, dict, TensorArray):      # a property, or what has attributes itself
            raise Unknown
        return found


class Item(NamedTuple):
    container: Any
    index: Any

    def value(self, frame: FrameType) -> Any:
        container = self.container.value(frame)
        if type(self.index) is not Constant or type(container) not in (list, tuple, dict):
            raise Unknown
        try:
            return container[self.index.is_value]
        except (LookupError, TypeError):
            raise Unknown from None


class Call(NamedTuple):
    """Of a function of one argument: `int`, `list`, `tuple`."""

    function: Any
    argument: Any

    def value(self, frame: FrameType) -> Any:
        function, argument = self.function.value(frame), self.argument.value(frame)
        if function not in (list, tuple) or type(argument) not in (list, tuple, TensorArray):
            raise Unknown
        return function(argument)

    def of(self, frame: FrameType, wanted: Any, number: int) -> int:
        if self.function.value(frame) is not int:
            raise Unknown
        return self.argument.of(frame, wanted, number)


class Arithmetic(NamedTuple):
    sign: str
    left: Any
    right: Any

    def of(self, frame: FrameType, wanted: Any, number: int) -> int:
        left, right = self.left.of(frame, wanted, number), self.right.of(frame, wanted, number)
        return _OPERATORS[self.sign](left, right)


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    return (i for i in dis.get_instructions(code) if i.opname not in ("EXTENDED_ARG", "CACHE", "PUSH_NULL", "PRECALL"))


def _is_subscript(i: dis.Instruction) -> bool:
    return i.opname == "BINARY_SUBSCR" or (i.opname == "BINARY_OP" and i.argrepr == "[]")


def _pushed(i: dis.Instruction, stack: list[Any]) -> list[Any]:
    """The expressions on the stack after an instruction, as far as they are known."""
    name = i.opname
    if name.startswith("LOAD_FAST") and isinstance(i.argval, tuple):     # two in one
        return [*stack, *(Variable(False, one) for one in i.argval)]
    if name == "STORE_FAST_LOAD_FAST":
        return [Variable(False, i.argval[1])]
    if name.startswith(_LOCAL):
        return [*stack, Variable(False, i.argval)]
    if name == "LOAD_GLOBAL":
        return [*stack, Variable(True, i.argval)]
    if name in ("LOAD_CONST", "LOAD_SMALL_INT"):
        return [*stack, Constant(i.argval)]
    if name == "LOAD_ATTR" and i.argrepr == i.argval and stack:      # else it is a method's
        return [*stack[:-1], Attribute(stack[-1], i.argval)]
    if name == "UNARY_NEGATIVE" and stack:
        return [*stack[:-1], Arithmetic("-", Constant(0), stack[-1])]
    if len(stack) < 2:
        return []
    if _is_subscript(i):
        return [*stack[:-2], Item(*stack[-2:])]
    if name == "BINARY_OP" and i.argrepr in _OPERATORS:
        return [*stack[:-2], Arithmetic(i.argrepr, *stack[-2:])]
    if name == "CALL" and i.arg == 1:
        return [*stack[:-2], Call(*stack[-2:])]
    return []


@lru_cache(maxsize=256)
def _subscript(code: CodeType, at: int) -> tuple[Any, Any] | None:
    """(a, b) of the a[b] that the instruction at an offset is, or computes the b of."""
    stack: list[Any] = []                        # what has been put there by the instructions right before
    depth = -1                                   # where on it what is computed lies
    for i in _instructions(code):
        if i.is_jump_target:                     # it may be reached from elsewhere
            if depth >= 0:
                return None
            stack = []
        if _is_subscript(i) and len(stack) >= 2 and (i.offset == at or depth == len(stack) - 1):
            return stack[-2], stack[-1]
        stack = _pushed(i, stack)
        if i.offset == at or depth >= len(stack):
            depth = len(stack) - 1
            if depth < 1:
                return None
    return None


def _wanted(part: Any, frame: FrameType) -> list[Any]:
    """What is no int among the variables of an index."""
    if isinstance(part, Variable):
        value = part.value(frame)
        return [] if type(value) is int else [value]
    if isinstance(part, Call):
        return _wanted(part.argument, frame)
    return [*_wanted(part.left, frame), *_wanted(part.right, frame)] if isinstance(part, Arithmetic) else []


def list_and_index(frame: FrameType) -> tuple[list[Any], Any] | None:
    """What a frame that stands in a[b], or in b, takes of the list a for each value 0, 1, ... of a whole number, and
    what it asks for that; None: it does something else."""
    found = _subscript(frame.f_code, frame.f_lasti)
    if found is None:
        return None
    container, index = found
    try:
        elements = container.value(frame)
        wanted = _wanted(index, frame)
        if isinstance(elements, TensorArray) and elements.ndim == 1:
            elements = list(elements)
        if type(elements) not in (list, tuple) or not wanted or any(one is not wanted[0] for one in wanted):
            return None
        if isinstance(index, Variable) or (isinstance(index, Call) and isinstance(index.argument, Variable)):
            index.of(frame, wanted[0], 0)
            return list(elements), wanted[0]
        selected: list[Any] = []
        for number in range(min(MOST, 2 * len(elements) + 64)):
            try:
                selected.append(elements[index.of(frame, wanted[0], number)])
            except (IndexError, ZeroDivisionError):
                break
        return (selected, wanted[0]) if selected else None
    except (Unknown, AttributeError):            # not every expression is an index, or a list
        return None
