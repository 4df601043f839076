"""A case: the function, its rows and leaves, and what the plain function does with them."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar.engine import _inspect, _modes
from fastscalar.transforms.recorded import Partials
from fastscalar.transforms.watch import Watch

from .rounding import AVAILABLE, noisy, scattered

NAME = "<case>"
READINGS = ("float(", "int(", "round(", "tolist(", ":.1f}")
SAMPLES = 24
GRAIN = 2.0**24  # multiples of 1 / GRAIN up to GRAIN, and some thousand of them, are added exactly in any order


class Unstable(Exception):
    """Rounding decides what the plain function does."""


class WrongResult(TypeError):
    """The function returned something else than a number; what a program says about it is its own affair."""


def _of_positive(a: float) -> float:
    if a < 0:
        raise ValueError("refused")
    return a * 1.5


REFUSES = fs.custom_op(_of_positive, lambda a: 1.5, name="refuses")  # an operation of one's own that raises


@dataclass
class Outcome:
    """What the plain function did with one row."""

    error: Exception | None
    value: float = 0.0
    arguments: tuple[Any, ...] = ()  # derivatives, None by whole numbers
    leaves: tuple[Any, ...] = ()

    def pattern(self) -> Any:
        if self.error is not None:
            return type(self.error)
        return [_signs(x) for x in (self.value, *self.arguments, *self.leaves) if x is not None]


def _signs(x: Any) -> Any:
    """Which numbers are finite, and the others."""
    x = np.asarray(x, dtype=float)
    return np.where(np.isfinite(x), 0.0, x).tobytes()


class Case:
    """A case's module, its leaves, and what the plain function does."""

    def __init__(
        self, function: Callable[..., Any], arguments: Sequence[Any], leaves: Sequence[Any] = (),
        plan: Sequence[tuple[Any, ...]] = (), kind: str = "tame",
    ) -> None:  # fmt: skip
        self.function, self.arguments, self.plan, self.kind = function, arguments, plan, kind
        self.leaves = list(leaves)
        self.file = function.__code__.co_filename
        self.rows = next(len(a) for a in arguments if np.ndim(a))
        self.known: dict[Any, Any] = {}
        self.reads = False  # numbers may be read in ways that lose a gradient
        self.stops = False  # under no_grad nothing can get lost, which fs.grad does not know
        self.draws = False  # random numbers: those of row i are drawn by its stream
        self.epoch = 0
        self.reading_lines: set[int] = set()  # where arrays are, which fs.grad does not hear of

    @staticmethod
    def of(text: str) -> Case:
        names: dict[str, Any] = {
            "__name__": "case", "np": np, "fs": fs, "math": fs.math, "inf": math.inf, "nan": math.nan,
            "refuses": REFUSES,
        }  # fmt: skip
        before = set(names) | {"__builtins__", "ARGUMENTS", "PLAN"}
        exec(compile(text, NAME, "exec"), names)
        leaves = [leaf for name, value in names.items() if name not in before for leaf in _leaves_of(value)]
        case = Case(names["f"], names["ARGUMENTS"], leaves, names["PLAN"], names.get("KIND", "tame"))
        case.stops = "no_grad" in text
        case.reading_lines = {k for k, line in enumerate(text.splitlines(), 1) if ".tolist(" in line}
        case.draws = "fs.random." in text
        case.reads = any(word in text for word in READINGS)
        return case

    def like(self, function: Callable[..., Any]) -> Case:
        """Another function, of the same rows and leaves."""
        case = Case(function, self.arguments, self.leaves, (), "tame")
        case.stops, case.reading_lines, case.draws = self.stops, self.reading_lines, self.draws
        return case

    def stream(self, i: int) -> Any:
        return fs.random.stream(0, i, epoch=self.epoch)

    def called(self, i: int, given: Sequence[Any]) -> Any:
        """The function of row i."""
        with self.stream(i):
            return self.function(*given)

    def at(self, some: Sequence[int] | None) -> tuple[Sequence[int] | None, dict[str, int]]:
        """Which rows a method is given for these, and where they lie: rows that draw are those of a stretch."""
        if some is None or not self.draws:
            return some, {}
        return range(min(some), max(some) + 1), {"row_offset": min(some)}

    def row(self, i: int) -> list[Any]:
        """What the plain function gets: Tensors, TensorArrays, ints, nested lists of ints."""
        given = []
        for a in self.arguments:
            value = np.asarray(a if np.ndim(a) == 0 else a[i])
            if value.dtype.kind in "iub":
                given.append(value.astype(int).tolist())
            else:
                given.append(fs.to_tensor(value) if value.ndim else fs.Tensor(float(value)))
        return given

    def chosen(self, rows: Sequence[int] | None) -> list[Any]:
        return [a if rows is None or np.ndim(a) == 0 else np.asarray(a)[list(rows)] for a in self.arguments]

    def plainly(self, i: int) -> Outcome:
        """The function of row i, and its derivatives; leaves the leaves' gradients at zero."""
        given = self.row(i)
        for leaf in self.leaves:
            set_gradient(leaf, 0.0)
        try:
            result = self.called(i, given)
        except Exception as error:
            return Outcome(error)
        if isinstance(result, fs.Tensor):
            result.backward()
            value = result.data
        elif isinstance(result, (int, float)) and not isinstance(result, bool):
            value = float(result)
        else:
            return Outcome(WrongResult(f"returns {type(result).__name__}"))
        arguments = tuple(None if isinstance(g, (int, list)) else gradient_of(g) for g in given)
        leaves = tuple(gradient_of(leaf) for leaf in self.leaves)
        for leaf in self.leaves:
            set_gradient(leaf, 0.0)
        return Outcome(None, value, arguments, leaves)

    def truth(self, i: int) -> Outcome:
        if i not in self.known:
            kept = [gradient_of(leaf) for leaf in self.leaves]
            self.known[i] = self.plainly(i)
            for leaf, gradient in zip(self.leaves, kept, strict=True):
                set_gradient(leaf, gradient)
        return self.known[i]

    def samples(self, i: int) -> list[Outcome]:
        """The same in other directions of rounding."""
        if not AVAILABLE:
            raise Unstable
        if ("samples", i) not in self.known:
            kept = [gradient_of(leaf) for leaf in self.leaves]
            found = []
            for seed in range(SAMPLES):
                with scattered(seed, self.file), noisy(seed, self.function.__globals__):
                    found.append(self.plainly(i))
            for leaf, gradient in zip(self.leaves, kept, strict=True):
                set_gradient(leaf, gradient)
            pattern = self.truth(i).pattern()
            if any(sample.pattern() != pattern for sample in found):
                raise Unstable
            self.known["samples", i] = found
        return self.known["samples", i]

    def rounds(self, i: int) -> bool:
        """Whether anything in the plain function, or in its derivatives, is not exact."""
        truth = self.truth(i)
        numbers = [np.asarray(x).tobytes() for x in (truth.value, *truth.arguments, *truth.leaves) if x is not None]
        for some in self.samples(i):
            if numbers != [
                np.asarray(x).tobytes() for x in (some.value, *some.arguments, *some.leaves) if x is not None
            ]:
                return True
        return self.is_fine(i)

    def is_fine(self, i: int) -> bool:
        """Whether a number in the plain function, or a derivative of one step of it, has so many digits that sums of
        such are exact in some orders only."""
        result = self.called(i, self.row(i))
        nodes = _inspect._reached(result) if isinstance(result, fs.Tensor) else []
        partials = Partials(nodes)
        with _modes.ieee(), np.errstate(all="ignore"):
            numbers = [x for node in nodes for x in (node.data, *(float(slope) for _, slope in partials.of(node)))]
        return any(math.isfinite(x) and (x * GRAIN % 1.0 != 0.0 or abs(x) > GRAIN) for x in numbers)

    def lost(self, i: int) -> tuple[set[int], set[int]]:
        """The lines at which a number is read that depends on an argument, or on a leaf, as `fs.grad` says it."""
        if ("lost", i) not in self.known:
            found = []
            for whose in range(2):
                given = self.row(i)
                watched = [t for x in (self.leaves if whose else given) for t in _tensors(x)]
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    with Watch(watched), contextlib.suppress(Exception):
                        self.called(i, given)
                messages = [w for w in caught if issubclass(w.category, fs.GradientLossWarning)]
                found.append({w.lineno for w in messages if w.filename == self.file})
            self.known["lost", i] = tuple(found)
        return self.known["lost", i]

    def absolute(self, i: int) -> Outcome:
        """In place of each number the sum of the absolute terms that it is made of: for the value all numbers of the
        graph, times their influence on it; for a derivative the products along all paths.  Rounding, in whatever order
        it is added up, changes it by some 2**-52 of that."""
        given = self.row(i)
        result = self.called(i, given)
        sums: dict[fs.Tensor, float] = {}
        value = 0.0
        if isinstance(result, fs.Tensor):
            nodes = _inspect._reached(result)
            partials, sums = Partials(nodes), {result: 1.0}
            with _modes.ieee(), np.errstate(all="ignore"):
                size: dict[Any, float] = {}  # of the terms that a node's own value is made of
                for node in reversed(nodes):
                    parts = [_size(slope) * size.get(x, 0.0) for x, slope in partials.of(node)]
                    terms = sum(p for p in parts if math.isfinite(p))
                    size[node] = max(_size(node), terms) if math.isfinite(node.data) else 0.0
                for node in nodes:
                    influence = sums.get(node, 0.0)
                    value += abs(node.data) * influence if math.isfinite(node.data) else 0.0
                    for operand, slope in partials.of(node) if influence else ():
                        part = influence * (size[slope] if slope in size else _size(slope))
                        sums[operand] = sums.get(operand, 0.0) + (part if math.isfinite(part) else 0.0)

        def of(x: Any) -> Any:
            if isinstance(x, fs.Tensor):
                return np.array(sums.get(x, 0.0))
            return np.array([of(e) for e in x])

        return Outcome(
            None,
            value,
            tuple(None if isinstance(g, (int, list)) else of(g) for g in given),
            tuple(map(of, self.leaves)),
        )

    def changed(self) -> None:
        """The leaves have other values now."""
        self.known = {}

    def data(self) -> list[np.ndarray]:
        return [
            np.array(leaf.data, dtype=float) if isinstance(leaf, fs.Tensor) else leaf.numpy() for leaf in self.leaves
        ]

    def set_data(self, data: list[np.ndarray]) -> None:
        for leaf, value in zip(self.leaves, data, strict=True):
            leaf.data = float(value) if isinstance(leaf, fs.Tensor) else value
        self.changed()


def _size(x: Any) -> float:
    return abs(x.data if isinstance(x, fs.Tensor) else x)


def _tensors(x: Any) -> list[Any]:
    if isinstance(x, (list, fs.TensorArray)):
        return [t for e in x for t in _tensors(e)]
    return [x] if isinstance(x, fs.Tensor) else []


def _leaves_of(value: Any) -> list[Any]:
    if isinstance(value, (fs.Tensor, fs.TensorArray)):
        return [value]
    if isinstance(value, list):
        return [leaf for v in value for leaf in _leaves_of(v)]
    if isinstance(value, fs.Module):
        return _leaves_of(list(value.parameters()))
    return []


def gradient_of(leaf: Any) -> Any:
    return np.array(leaf.grad, dtype=float)


def set_gradient(leaf: Any, gradient: Any) -> None:
    leaf.grad = float(gradient) if isinstance(leaf, fs.Tensor) else np.broadcast_to(gradient, leaf.shape).copy()
