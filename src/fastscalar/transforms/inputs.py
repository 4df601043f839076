"""What goes into a function that is being differentiated, and what comes back in the same structure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._settings import scalar, shown
from fastscalar.arrays.convert import as_ndarray
from fastscalar.engine import _inspect, _modes
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import elementwise, own_array
from fastscalar.engine._axes import assemble
from fastscalar.engine._traced import TracedBool, TracedInt
from fastscalar.engine.views import ArrayView
from fastscalar.transforms.recorded import plain, pull
from fastscalar.transforms.watch import Watch, tracing


def map_structure(function: Callable[[Any, str], Any], x: Any, where: str, inside: tuple[int, ...] = ()) -> Any:
    """A function of every leaf of nested lists, tuples and dictionaries; ValueError where one contains itself.

    Parameters
    ----------
    function
        Of a leaf (what is no list, tuple or dictionary) and its name.
    x, where
        The structure and its name.
    inside
        The ids of the structures that `x` is in.
    """
    if isinstance(x, (dict, list, tuple)):
        if id(x) in inside:
            raise ValueError(f"{where or 'an argument'}: a {type(x).__name__} that contains itself")
        inside = (*inside, id(x))
    if isinstance(x, dict):
        return {key: map_structure(function, value, f"{where}[{key!r}]", inside) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        items = [map_structure(function, value, f"{where}[{k}]", inside) for k, value in enumerate(x)]
        if hasattr(type(x), "_fields"):
            return type(x)(*items)
        return tuple(items) if isinstance(x, tuple) else items
    return function(x, where)


def _is_number(x: Any) -> bool:
    return type(x) is float or isinstance(x, (Real, np.bool_))


def _of_recording(x: Any) -> Any:
    """What stands for a whole number or a truth while a program is recorded, as the number that it is."""
    return x.tensor if isinstance(x, TracedInt) else bool(x) if isinstance(x, TracedBool) else x


def _object_array(tensors: Sequence[Any], shape: tuple[int, ...]) -> Any:
    # fromiter: an assignment asks every Tensor whether it is a sequence
    return np.fromiter(tensors, dtype=object, count=len(tensors)).reshape(shape)


def array_like_an_argument(tensors: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """What a function gets for an array with Tensors in it."""
    if not shape or not tensors:
        return _object_array(tensors, shape)
    return assemble([_object_array(tensors, shape)], np.arange(len(tensors)).reshape(shape))


def _elements(a: TensorArray) -> list[Tensor]:
    return list(a) if a.ndim == 1 else [t for row in a for t in _elements(row)]


class Leaf:
    """One number or array among inputs or results: its elements in row-major order, and what it was."""

    def __init__(self, x: Any, where: str, what: str) -> None:
        self.where = where
        self.shape: tuple[int, ...] | None = None  # None: a single number
        self.is_tensor_array = isinstance(x, TensorArray)
        x = np.asarray(x) if isinstance(x, ArrayView) else as_ndarray(_of_recording(x))
        if isinstance(x, Tensor) or _is_number(x):
            self.elements = [x]
        elif isinstance(x, TensorArray):
            self.shape, self.elements = x.shape, _elements(x)
        elif isinstance(x, np.ndarray) and x.dtype.kind in "fiubO":
            self.shape, self.elements = x.shape, list(map(_of_recording, x.ravel().tolist()))
            for e in self.elements if x.dtype.kind == "O" else ():
                if not isinstance(e, Tensor) and not _is_number(e):
                    raise TypeError(f"{what}: {where} holds {type(e).__name__}, expected real numbers or Tensors")
        else:
            kind = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
            raise TypeError(f"{what}: {where} is {kind}, expected real numbers, Tensors, arrays, or lists, tuples and "
                            "dictionaries of them")  # fmt: skip

    def has_tensors(self) -> bool:
        return self.is_tensor_array or any(isinstance(e, Tensor) for e in self.elements)

    def build(self, values: Sequence[Any], shape: tuple[int, ...] = (), as_tensor_array: bool = False) -> Any:
        """An object of this leaf's kind with other elements; `shape` comes before its own."""
        if self.shape is None and not shape:
            return values[0]
        shape = shape + (self.shape or ())
        if any(isinstance(v, Tensor) for v in values):
            array = _object_array(values, shape)
            return elementwise("*", array, 1.0) if self.is_tensor_array or as_tensor_array else array
        return np.array(values, dtype=np.float64).reshape(shape)


def leaves_of(x: Any, where: str, what: str) -> list[Leaf]:
    out: list[Leaf] = []
    map_structure(lambda e, path: out.append(Leaf(e, path, what)), x, where)
    return out


class Run:
    """A call of f with Tensors in place of the numbers in some of its arguments.

    `tensors`: these, in order; they are new nodes, so that nothing else that f uses can be mistaken for an input.
    `recorded`: derivatives come as Tensors, because an input is one or because f is part of another function that is
    being differentiated.
    """

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], argnums: Any, what: str):
        self.what = what
        self.args = list(args)
        self.single = not isinstance(argnums, (tuple, list))
        self.positions = _positions(argnums, len(args), what)
        self.leaves = [leaf for k in self.positions for leaf in leaves_of(args[k], f"argument {k}", what)]
        self.recorded = tracing() or any(leaf.has_tensors() for leaf in self.leaves)
        self.tensors: list[Tensor] = []
        with _modes.record() as state:
            self.detached = not state.outside
            fresh = iter(self.leaves)
            traced = list(args)
            for k in self.positions:
                traced[k] = map_structure(lambda e, _: self._trace(next(fresh)), args[k], "")
            recording = _modes.current_recording()
            first = recording.length if hasattr(recording, "shorten") else 0
            with Watch(self.tensors):
                self.result = f(*traced, **kwargs)
            if recording is not None and first:
                self._shorten(recording, first)

    def _shorten(self, recording: Any, first: int) -> None:
        """Of a long function in a program: what is to be differentiated of it."""
        if recording.shorten is None:
            return
        try:
            leaves = leaves_of(self.result, "the result", self.what)
        except TypeError:                        # which who wants numbers of it says
            return
        computed = {e: e for leaf in leaves for e in leaf.elements if isinstance(e, Tensor)}
        new = dict(zip(computed, recording.shorten(recording, first, list(computed)), strict=True))
        if any(new[e] is not e for e in computed):
            each = iter(leaves)

            def build(_: Any, __: str) -> Any:
                leaf = next(each)
                return leaf.build([new.get(e, e) if isinstance(e, Tensor) else e for e in leaf.elements])

            self.result = map_structure(build, self.result, "the result")

    def _trace(self, leaf: Leaf) -> Any:
        if leaf.shape and leaf.elements and not leaf.has_tensors():
            array = own_array(np.array(leaf.elements, dtype=np.float64).reshape(leaf.shape))
            self.tensors += _elements(array)
            return array._apart()
        # times 1.0: a node of its own with the same value and derivative 1, connected with what it was computed from
        new = [e * 1.0 if isinstance(e, Tensor) else Tensor(e) for e in leaf.elements]
        if leaf.is_tensor_array:
            array = leaf.build(new)
            self.tensors += _elements(array)
            return array
        self.tensors += new
        if leaf.shape is None:
            return new[0]
        return array_like_an_argument(new, leaf.shape)

    def scalar(self, instead: str = "fastscalar.jacobian takes any result") -> Tensor | float:
        """The result, which has to be a single number."""
        r = self.result
        if isinstance(r, np.ndarray) and r.shape == ():
            r = r.item()
        r = _of_recording(r)
        if isinstance(r, Tensor) or _is_number(r):
            return r if isinstance(r, Tensor) else float(r)
        shape = f" of shape {r.shape}" if isinstance(r, (np.ndarray, TensorArray)) else ""
        raise TypeError(
            f"{self.what}: the function has to return a single number, got {type(r).__name__}{shape} ({instead})"
        )

    def gradients(self, root: Any, recorded: bool) -> list[Any]:
        """d root / d input for each of `tensors`: floats, or Tensors if it is recorded.

        A zero among them is 0.0, as those that the engine adds up are: -0.0 where a slope is negative says nothing."""
        if not recorded:
            return _inspect._gradients(root, self.tensors) if isinstance(root, Tensor) else [0.0] * len(self.tensors)
        found: dict[Tensor, Tensor] = {}
        if isinstance(root, Tensor):
            nodes = _inspect._reached(root, self.tensors)
            found = pull(nodes, {root: Tensor(1.0)} if nodes else {}, set(self.tensors))
        return [found[t] + 0.0 if t in found else Tensor(0.0) for t in self.tensors]

    def give(self, values: Iterable[Any]) -> list[Any]:
        """Values as the caller gets them."""
        return [v.detach() if self.detached and isinstance(v, Tensor) else v for v in values]

    def like_inputs(self, values: Sequence[Any]) -> Any:
        """One value for each of `tensors`, in the structure of the arguments."""
        return self.assemble(lambda leaf, part: leaf.build(part), values)

    def assemble(self, build: Callable[[Leaf, Sequence[Any]], Any], values: Sequence[Any]) -> Any:
        leaves, at = iter(self.leaves), 0

        def next_leaf(_: Any, __: str) -> Any:
            nonlocal at
            leaf = next(leaves)
            at += len(leaf.elements)
            return build(leaf, values[at - len(leaf.elements) : at])

        found = [map_structure(next_leaf, self.args[k], "") for k in self.positions]
        return found[0] if self.single else tuple(found)

    def value(self) -> Any:
        """The result as the caller gets it: plain numbers, or Tensors if derivatives are recorded."""

        def convert(x: Any, where: str) -> Any:
            leaf = Leaf(x, where, self.what)
            if not self.recorded:
                return leaf.build([plain(e) for e in leaf.elements])
            return leaf.build(self.give(leaf.elements)) if self.detached else x

        return map_structure(convert, self.result, "the result")


def _positions(argnums: Any, count: int, what: str) -> list[int]:
    given = [scalar(k) for k in argnums] if isinstance(argnums, (tuple, list)) else [scalar(argnums)]
    for k in given:
        if isinstance(k, bool) or not isinstance(k, int):
            raise TypeError(f"{what}: argnums: expected an integer or a tuple of integers, got {shown(argnums)}")
        if not -count <= k < count:
            raise ValueError(f"{what}: argnums is {shown(argnums)}, but the function was called with {count} arguments")
    return [k % count for k in given]


def elements_like(x: Any, like: Any, where: str, what: str) -> list[Any]:
    """The elements of x in the order of those of `like`, whose structure and shapes it has to have: else a ValueError
    that says where it has not."""
    if isinstance(like, dict) and isinstance(x, dict) and x.keys() == like.keys():
        return [e for key in like for e in elements_like(x[key], like[key], f"{where}[{key!r}]", what)]
    if isinstance(like, (list, tuple)) and isinstance(x, (list, tuple)) and len(x) == len(like):
        each = enumerate(zip(x, like, strict=True))
        return [e for k, pair in each for e in elements_like(*pair, f"{where}[{k}]", what)]
    nested = isinstance(x, (dict, list, tuple)) or isinstance(like, (dict, list, tuple))
    leaf = None if nested else Leaf(x, where, what)
    if leaf is None or (leaf.shape or ()) != (Leaf(like, where, what).shape or ()):
        raise ValueError(f"{what}: {where}: expected {_described(like)}, got {_described(x)}")
    return leaf.elements


def _described(x: Any) -> str:
    if isinstance(x, dict):
        return f"a dictionary with the keys {list(x)}"
    if isinstance(x, (list, tuple)):
        return f"a {'tuple' if isinstance(x, tuple) else 'list'} of {len(x)}"
    shape = getattr(as_ndarray(x), "shape", ())
    return f"an array of shape {tuple(shape)}" if shape else "a number" if _is_number(x) else type(x).__name__


def as_arguments(x: Any) -> tuple[Any, ...]:
    return x if type(x) is tuple else (x,)
