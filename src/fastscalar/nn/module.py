"""Module: what layers and nets have in common.  Numbers are attributes, `forward` what it does; the rest is found."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.nn.parameters import each_once, named_in, numbers_in
from fastscalar.nn.saved import Rebuildable, save_module


class Module(Rebuildable):
    """Base class of layers and nets: call it to run `forward`; `parameters()` finds what it is made of.

    A subclass sets Tensors, TensorArrays, Modules, or lists and dictionaries of these, as attributes, and defines
    `forward`.  `training` says whether it is being trained: see `train`.

    >>> import fastscalar as fs
    >>> class Scale(fs.Module):
    ...     def __init__(self):
    ...         self.factor = fs.Tensor(3.0)
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale()(fs.Tensor(2.0))
    Tensor(data=6.0)
    >>> Scale().parameters()
    [Tensor(data=3.0)]
    >>> dict(Scale().named_parameters())
    {'factor': Tensor(data=3.0)}
    """


    training = True
    takes_tables = False                         # only rows of one dimension, and blocks of them
    takes_indices = False                        # whole numbers are what it looks up, no images that want scaling

    def forward(self, x: Any) -> Any:
        """What the module makes of x, one row or (n, ...) rows; calling the module calls it."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, x: Any) -> Any:
        return self.forward(x)

    # --- what it is made of ---

    def parameters(self) -> list[Any]:
        """The parameters, nested as the module is: a list with one entry for each attribute that holds some.

        Each is there once: a layer that two attributes share is listed with the first.
        """
        return each_once(_parameters_among(_attributes(self).values(), {id(self)}))

    def named_parameters(self) -> Iterator[tuple[str, Tensor | TensorArray]]:
        """(name, parameter), each once: `linears.0.w` is the `w` of the first of its `linears`.

        >>> import fastscalar as fs
        >>> [name for name, _ in fs.MLP(3, [4, 2], seed=0).named_parameters()]
        ['linears.0.w', 'linears.0.b', 'linears.1.w', 'linears.1.b']
        """
        seen: set[int] = set()
        for name, value in _walk(self):
            if isinstance(value, (Tensor, TensorArray)) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def modules(self) -> Iterator[Module]:
        """Itself and all Modules in it, each once."""
        yield self
        for _, value in _walk(self):
            if isinstance(value, Module):
                yield value

    # --- training and use ---

    def train(self, mode: bool = True) -> Self:
        """Set `training` of this module and all in it, which `Dropout` looks at; returns itself.

        `fit` trains in training mode, `evaluate` and `predict` look in evaluation mode, whatever the mode before, and
        leave it as it was.
        """
        for module in self.modules():
            module.training = bool(mode)
        return self

    def eval(self) -> Self:
        """The same as `train(False)`."""
        return self.train(False)

    # --- its numbers ---

    def state_dict(self) -> dict[str, np.ndarray]:
        """By name, a copy of each parameter as a float64 array: `np.savez(path, **net.state_dict())` writes them.

        >>> import fastscalar as fs
        >>> fs.Linear(2, 1, init="zeros").state_dict()
        {'w': array([[0.],
               [0.]]), 'b': array([0.])}
        """
        return {name: _numbers(p) for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a `state`: what `state_dict` gave, or `np.load` of the file.

        ValueError if a name is missing, unknown, of another shape, or of no numbers; then nothing has changed.
        """
        kind, own = type(self).__name__, dict(self.named_parameters())
        there = named_in(state, kind)
        missing, unknown = [n for n in own if n not in there], [n for n in state if n not in own]
        if missing or unknown:
            raise ValueError(
                f"{kind}: load_state_dict: "
                + "; ".join(f"{what} {', '.join(map(repr, some[:5]))}" for what, some in
                            (("missing", missing), ("unknown", unknown)) if some)
            )  # fmt: skip
        found = numbers_in(state, own, f"{kind}: load_state_dict")
        for name, p in own.items():
            shape = () if isinstance(p, Tensor) else p.shape
            if found[name].shape != shape:
                raise ValueError(f"{kind}: load_state_dict: {name}: expected shape {shape}, got {found[name].shape}")
        for name, p in own.items():
            p.data = float(found[name]) if isinstance(p, Tensor) else found[name]

    def save(self, path: str | os.PathLike[str], **metadata: Any) -> None:
        """Write the module to an .npz file, with `metadata` that JSON can hold; `fastscalar.load` reads it.

        It is rebuilt by its class with the arguments that it was made with, and then given its parameters: so these
        arguments have to be numbers, strings, Modules of that kind, or lists and dictionaries of these.  A class of
        your own is named to `fastscalar.load(path, classes=[Net])`.

        All of the file is written or nothing.  OSError names it; TypeError for arguments, or metadata, that cannot be
        written; ValueError for a module that has been changed since so that it would not be rebuilt.
        """
        save_module(self, path, metadata)

    def _repr_html_(self) -> str:
        """What notebooks show: the layers, and each parameter with its shape and how many numbers it has."""
        rows = [(name, getattr(p, "shape", ()), getattr(p, "size", 1)) for name, p in self.named_parameters()]
        cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{shape}</td><td>{n:,}</td></tr>"
                        for name, shape, n in rows)  # fmt: skip
        total = f"<tr><td>parameters</td><td></td><td>{sum(n for *_, n in rows):,}</td></tr>"
        return f"<code>{html.escape(repr(self))}</code><table>{cells}{total}</table>"


def _numbers(p: Tensor | TensorArray) -> np.ndarray:
    return np.array(p.item()) if isinstance(p, Tensor) else p.numpy()


def _attributes(module: Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name != "_arguments"}


def _walk(module: Module) -> Iterator[tuple[str, Any]]:
    """The Tensors, TensorArrays and Modules below it, in order, with their names; what holds others once."""
    seen: set[int] = set()
    todo: list[tuple[str, Any]] = [("", module)]
    while todo:
        name, value = todo.pop()
        if isinstance(value, (Tensor, TensorArray)):
            yield name, value
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Module):
            if value is not module:
                yield name, value
            inside: Iterable[tuple[Any, Any]] = _attributes(value).items()
        else:
            inside = value.items() if isinstance(value, dict) else enumerate(value)
        todo += reversed([
            (f"{name}.{key}" if name else str(key), entry)
            for key, entry in inside
            if isinstance(entry, (Tensor, TensorArray, Module, dict, list, tuple))
        ])


def _parameters_among(values: Iterable[Any], seen: set[int]) -> list[Any]:
    """seen: by id, what has been gone through."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, (Tensor, TensorArray)):
            found.append(value)
        elif isinstance(value, (Module, dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            if not isinstance(value, Module):
                inner = _parameters_among(value.values() if isinstance(value, dict) else value, seen)
            elif type(value).parameters is Module.parameters:
                inner = _parameters_among(_attributes(value).values(), seen)
            else:
                inner = value.parameters()
            if inner:
                found.append(inner)
    return found


def modules_of(net: Any) -> list[Module]:
    """The Modules of a net; to find them in lists of single Tensors takes milliseconds."""
    return list(net.modules()) if isinstance(net, Module) else []


@contextmanager
def in_mode(modules: list[Module], training: bool) -> Iterator[None]:
    """Modules are in training mode inside, or are not; afterwards in the mode that each was in."""
    before = [module.training for module in modules]
    for module in modules:
        module.training = training
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode
