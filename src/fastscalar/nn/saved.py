"""Any Module in a file: the classes and arguments that it was made with, and its parameters by name.

`modules` in the header is a list, a Module after those that it was given: of each its `class`, whether that is one of
`ours`, its arguments, `positional` and `named`.  Numbers, strings, true, false and null stand for themselves, lists for
lists; {"module": 3} for the third of the list, {"tuple": [...]}, {"dict": {...}} and {"function": "relu"} for what they
say.  Nothing else is in a file, and of classes only ours are made, or those that the user names.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from fastscalar.files import StrPath, brief
from fastscalar.nn.activations import ACTIVATIONS, name_of
from fastscalar.nn.init import without_drawing
from fastscalar.nn.models import Arrays, write_model


class Unwritable:
    """Stands for an argument that no file holds."""

    def __init__(self, value: Any) -> None:
        self.kind = f"{type(value).__name__} {brief(value)}" if isinstance(value, float) else type(value).__name__


def _written(value: Any) -> Any:
    """An argument as it is now, so far as a file may hold it: lists may change, and what is held lives as long."""
    if value is None or isinstance(value, (bool, str, int, Rebuildable)):
        return value
    if isinstance(value, random.Random):
        return None                              # what it drew is in the parameters
    if isinstance(value, np.number):
        return _written(value.item())
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(map(_written, value)) if type(value) in (list, tuple) else list(map(_written, value))
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _written(entry) for key, entry in value.items()}
    return value if callable(value) and name_of(value) is not None else Unwritable(value)


class Rebuildable:
    """What remembers the arguments that it was made with: the base of Module."""

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if (args or kwargs) and cls.__init__ is object.__init__:
            raise TypeError(f"{cls.__name__}() takes no arguments")
        self = super().__new__(cls)
        self._arguments = tuple(map(_written, args)), {name: _written(value) for name, value in kwargs.items()}
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def modules(self) -> Iterator[Rebuildable]:
        raise NotImplementedError


OURS: dict[str, type[Rebuildable]] = {}  # by name; `ours` fills it


def ours(kind: type[Any]) -> type[Any]:
    """A decorator: a class that `load` knows."""
    OURS[kind.__name__] = kind
    return kind


# --- writing ---


def save_module(module: Rebuildable, path: StrPath, metadata: dict[str, Any]) -> None:
    modules: list[dict[str, Any]] = []
    _describe(module, modules, {})
    state = module.state_dict()
    parameters = [[name, list(array.shape)] for name, array in state.items()]
    about = {"class": "Module", "modules": modules, "parameters": parameters}
    classes = {type(m) for m in module.modules()}
    again = rebuilt(about, [cls for cls in classes if OURS.get(cls.__name__) is not cls])
    if [[name, list(np.shape(p))] for name, p in again.state_dict().items()] != parameters:
        raise ValueError(
            f"{type(module).__name__}: save: made again with the arguments that it was made with it has other "
            "parameters; it was changed since"
        )
    write_model(path, about, list(state.values()), metadata)


def _describe(module: Rebuildable, modules: list[dict[str, Any]], known: dict[int, int]) -> int:
    """Its number among the modules, which it and those that it was given are added to."""
    if id(module) in known:
        return known[id(module)]
    kind = type(module)

    def described(value: Any, where: str) -> Any:
        if isinstance(value, Rebuildable):
            return {"module": _describe(value, modules, known)}
        if isinstance(value, (list, tuple)):
            entries = [described(entry, where) for entry in value]
            return {"tuple": entries} if isinstance(value, tuple) else entries
        if isinstance(value, dict):
            return {"dict": {key: described(entry, where) for key, entry in value.items()}}
        if isinstance(value, Unwritable):
            raise TypeError(
                f"{kind.__name__}: save: {where} is a {value.kind}; expected a number, a string, a Module, or lists "
                "and dictionaries of these: a file holds nothing else"
            )
        return {"function": name_of(value)} if callable(value) else value

    positional, named = module._arguments
    entry = {
        "class": kind.__qualname__,
        "ours": OURS.get(kind.__name__) is kind,
        "positional": [described(value, f"its argument {k + 1}") for k, value in enumerate(positional)],
        "named": {name: described(value, f"its argument {name}") for name, value in named.items()},
    }
    modules.append(entry)
    known[id(module)] = len(modules) - 1
    return known[id(module)]


# --- reading ---


def rebuilt(header: dict[str, Any], classes: Iterable[type[Any]]) -> Rebuildable:
    """The module that a header describes, with parameters of zero.  ValueError for all that is wrong in it."""
    mine = {cls.__qualname__: cls for cls in classes}
    made: list[Rebuildable] = []
    with without_drawing(sum(math.prod(shape) for _, shape in header["parameters"])):
        for entry in header["modules"]:
            made.append(_made(entry, made, mine))
    return made[-1]


def filled(header: dict[str, Any], arrays: Arrays, classes: Iterable[type[Any]]) -> Rebuildable:
    """The same with its parameters."""
    module = rebuilt(header, classes)
    module.load_state_dict({name: a for (name, _), a in zip(header["parameters"], arrays, strict=True)})
    return module


def _made(entry: dict[str, Any], made: list[Rebuildable], mine: dict[str, type[Any]]) -> Rebuildable:
    name, known, positional = entry.get("class"), entry.get("ours"), entry.get("positional")
    named = entry.get("named")
    if not isinstance(name, str) or not isinstance(positional, list) or not isinstance(named, dict):
        raise ValueError(f"a module is described by {brief(entry)}")
    kind = OURS.get(name) if known is True else mine.get(name)
    if kind is None:
        if known is True:
            raise ValueError(f"the class {brief(repr(name))} is none of this version's")
        simple = brief(name).rpartition(".")[2]
        raise ValueError(
            f"it holds a {simple}, a class that is not fastscalar's; fs.load(..., classes=[{simple}]) makes it"
        )

    def value_of(x: Any) -> Any:
        if isinstance(x, list):
            return [value_of(e) for e in x]
        if not isinstance(x, dict):
            return x
        (what, inside), *rest = x.items() if x else [("", None)]
        if what == "tuple" and not rest and isinstance(inside, list):
            return tuple(value_of(e) for e in inside)
        if what == "dict" and not rest and isinstance(inside, dict):
            return {key: value_of(e) for key, e in inside.items()}
        if what == "function" and not rest and isinstance(inside, str) and inside in ACTIVATIONS:
            return ACTIVATIONS[inside]
        if what == "module" and not rest and type(inside) is int and 0 <= inside < len(made):
            return made[inside]
        raise ValueError(f"an argument of {name} is described by {brief(x)}")

    try:
        module = kind(*[value_of(x) for x in positional], **{key: value_of(x) for key, x in named.items()})
    except (TypeError, AttributeError, ArithmeticError, LookupError) as error:
        raise ValueError(f"{name} cannot be made: {brief(error)}") from error
    if not isinstance(module, Rebuildable):
        raise ValueError(f"{name} is no Module")
    return module
