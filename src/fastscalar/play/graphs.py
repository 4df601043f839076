"""Graphs as the pages draw them: one box for each instruction of the tape, or one for many.

A drawing has all that its page needs to play it: boxes from old to young, of scalars the partial derivatives by their
operands, of wider ones the gradients after each backward step.  So a page only multiplies and adds what it got from the
engine, and works without a server once it is saved.  Of a graph of more than `MOST` instructions those of one source
line (or, where lines are not known, of one kind in one stretch of the depth) are one box; its inside is drawn when it
is opened.
"""

from __future__ import annotations

import gc
import linecache
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Any

import numpy as np

from fastscalar import debug
from fastscalar._core import Tensor
from fastscalar.debug.drawing import names_of
from fastscalar.debug.instructions import Instruction, made
from fastscalar.debug.lines import places
from fastscalar.engine._array import TensorArray
from fastscalar.engine._inspect import _describe, _describe_all, _reached
from fastscalar.play.examples import EXAMPLES, run
from fastscalar.play.samples import Samples
from fastscalar.play.server import Refused
from fastscalar.play.training import RECORDING, number

MOST = 220  # boxes of a drawing
LARGEST = 2_000_000  # instructions that are looked at
STEPS = 3000  # operations of which each backward step is shown
BANDS = 40  # stretches of the depth, in a folded drawing

Source = Callable[[], tuple[Any, Samples, Callable[[Any, Any], Any]]]


class Graphs:
    """The graphs that a page can show, by key; drawn when they are asked for."""

    def __init__(self, given: Drawing | None = None) -> None:
        self._made: dict[str, Drawing] = {} if given is None else {"yours": given}
        self._lock = threading.Lock()
        self._net: Source | None = None

    def add_net(self, source: Source) -> None:
        self._net = source

    def titles(self) -> list[str]:
        return [*self._made.keys() & {"yours"}, *([] if self._net is None else ["net"]), *EXAMPLES]

    def show(self, message: dict[str, Any]) -> dict[str, Any]:
        """The drawing of `graph`; of "net" that of the loss of the training sample `sample`, as the net is now."""
        return self._drawing(message).page

    def inside(self, message: dict[str, Any]) -> dict[str, Any]:
        """Up to MOST instructions of the folded box `box`, from the one of number `at` on."""
        drawing = self._drawing(message)
        at = message.get("at", 0)
        if isinstance(at, bool) or not isinstance(at, int) or at < 0:
            raise Refused("at: expected a whole number")
        return drawing.inside(message.get("box"), at)

    def _drawing(self, message: dict[str, Any]) -> Drawing:
        key = message.get("graph")
        if not isinstance(key, str) or key not in self.titles():
            raise Refused(f"graph: expected one of {', '.join(self.titles())}")
        with self._lock:
            if key == "net":
                return self._of_net(message.get("sample", 0))
            if key not in self._made:
                self._made[key] = _of_example(key)
            return self._made[key]

    def _of_net(self, sample: Any) -> Drawing:
        assert self._net is not None
        net, samples, loss = self._net()
        if isinstance(sample, bool) or not isinstance(sample, int) or not 0 <= sample < len(samples.X):
            raise Refused(f"sample: expected a whole number from 0 to {len(samples.X) - 1}")
        return Drawing(lambda: loss(net(samples.X[sample]), samples.y[sample]), {"net": net})


def _of_example(key: str) -> Drawing:
    names: dict[str, Any] = {}
    return Drawing(lambda: run(key, names), names, EXAMPLES[key].splitlines())


class Drawing:
    """The graph behind a Tensor, looked at once; gradients are those of a backward pass from it, and what the user had
    in `.grad` is there again afterwards.

    made: the Tensor, or a function without arguments that returns it: then the lines of Python are known.
    labels: names of Tensors, as for `debug.draw`.  source: the lines of the program, of an example.
    """

    def __init__(
        self, made: Any, labels: Mapping[str, Any] | None = None, source: list[str] | None = None
    ) -> None:
        if callable(made) and not isinstance(made, Tensor):
            with RECORDING, debug.detect_anomaly():
                self.root = _result(made())
                self._read(labels)
        else:
            self.root = _result(made)
            self._read(labels)
        self.groups: list[list[int]] = []
        folded = len(self.instructions) > MOST
        with _no_collector(), _kept(nodes := _reached(self.root)):
            self._backward(nodes)
            self.gradients = [self._gradient(one) for one in self.instructions]
            boxes = self._folded() if folded else list(map(self._box, range(len(self.instructions))))
            frames, why = (None, "folded") if folded else self._steps(nodes, boxes)
        self.page: dict[str, Any] = {
            "nodes": len(nodes), "operations": sum(bool(one.operands) for one in self.instructions), "folded": folded,
            "boxes": boxes, "frames": frames, "why": why, "source": source or [],
        }  # fmt: skip

    def _read(self, labels: Mapping[str, Any] | None) -> None:
        """What the instructions are, and their lines while they are known."""
        with _no_collector():
            found = _describe_all(self.root, LARGEST)
        if found is None:
            raise ValueError(f"play: the graph has more than {LARGEST:,} operations; play with a part of it")
        with _no_collector():
            self.instructions = list(map(made, found))
        self.names = names_of(labels)
        self.lines: dict[int, tuple[str, int, str]] = {}
        for place in {one.place for one in self.instructions} & places.keys():
            file, line = places[place]
            self.lines[place] = PurePath(file).name, line, linecache.getline(file, line).strip()
        self.number = number_of = {one.first: k for k, one in enumerate(self.instructions)}
        self.parents: list[dict[int, int]] = []  # of each instruction, with how many of their numbers it takes
        for one in self.instructions:
            taken: dict[int, int] = {}
            for operand in one.operands:
                for first, _, count in operand.sources:
                    parent = number_of[first]
                    taken[parent] = taken.get(parent, 0) + count
            self.parents.append(taken)

    # --- gradients ---

    def _backward(self, nodes: list[Tensor]) -> None:
        for node in nodes:
            node.grad = 0.0
        with suppress(RuntimeError, ArithmeticError):  # a value was changed: what can be seen is drawn all the same
            self.root.backward()

    def _gradient(self, one: Instruction) -> tuple[float, float]:
        """The smallest and the largest gradient of its nodes, as they are now."""
        if one.size == 1:
            return (gradient := float(one.first.grad)), gradient
        found: tuple[float, float] = _describe(one.first, 1)[0][8]
        return found

    def _box(self, k: int) -> dict[str, Any]:
        one = self.instructions[k]
        parents = self.parents[k]
        file, line, code = self.lines.get(one.place, ("", None, ""))
        return {
            "id": k, "op": one.name, "kind": one.kind, "size": one.size, "shape": list(one.shape or ()),
            "label": self.names.get(one.first) or str(getattr(one.first, "label", "") or ""),
            "data": list(map(number, one.values)), "grad": list(map(number, self.gradients[k])),
            "parents": sorted(parents), "used": [parents[p] for p in sorted(parents)],
            "plain": sum(operand.size for operand in one.operands if not operand.sources),
            "file": file, "line": line, "code": code, "classes": list(one.labels),
        }  # fmt: skip

    def _steps(
        self, nodes: list[Tensor], boxes: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]] | None, str]:
        """The gradients that change at each backward step, from the youngest operation to the oldest; or None, and why.
        Each step is the engine's `_backward()` of the instruction's nodes.  Scalars get their partial derivatives."""
        steps: dict[int, list[Tensor]] = {}
        operations = [node for node in nodes if node._op not in ("", "const")]
        if len(operations) > STEPS:
            return None, "large"
        for node in operations:
            steps.setdefault(self.number[_describe(node, 1)[0][0]], []).append(node)
        try:
            for k, box in enumerate(boxes):
                if k in steps and box["size"] == 1 and all(boxes[p]["size"] == 1 for p in box["parents"]):
                    box["partials"] = self._partials(k, box["parents"])
            for node in nodes:
                node.grad = 0.0
            self.root.grad = 1.0
            frames = []
            for k in sorted(steps, reverse=True):
                for node in steps[k]:
                    node._backward()
                after = {p: list(map(number, self._gradient(self.instructions[p]))) for p in boxes[k]["parents"]}
                frames.append({"box": k, "grads": after})
        except (RuntimeError, ArithmeticError) as error:
            return None, str(error)
        return frames, ""

    def _partials(self, k: int, parents: list[int]) -> list[float | str | None]:
        """What `_backward()` adds to each operand for a gradient of 1."""
        one = self.instructions[k].first
        firsts = [self.instructions[p].first for p in parents]
        for first in firsts:
            first.grad = 0.0
        one.grad = 1.0
        one._backward()
        return [number(float(first.grad)) for first in firsts]

    # --- folded ---

    def _folded(self) -> list[dict[str, Any]]:
        """One box for all that came from one line, or for one kind of operation in one stretch of the depth."""
        depth: list[int] = []
        for parents in self.parents:
            depth.append(1 + max(map(depth.__getitem__, parents), default=-1))
        deepest = max(depth) + 1
        bands = BANDS
        while True:
            keys: dict[Any, int] = {}
            of = [keys.setdefault(self._key(one, d * bands // deepest), len(keys))
                  for one, d in zip(self.instructions, depth, strict=True)]  # fmt: skip
            if len(keys) <= MOST or bands == 1:
                break
            bands = max(1, bands // 2)
        self.groups = [[] for _ in keys]
        for k, group in enumerate(of):
            self.groups[group].append(k)
        return [self._group(k, members, of) for k, members in enumerate(self.groups)]

    def _key(self, one: Instruction, band: int) -> Any:
        if one.place in self.lines:
            return one.place, bool(one.operands)
        return (band, one.name) if one.operands else one.kind

    def _group(self, k: int, members: list[int], of: list[int]) -> dict[str, Any]:
        uses: dict[int, int] = {}
        for member in members:
            for p in self.parents[member]:
                if of[p] != k:
                    uses[of[p]] = uses.get(of[p], 0) + 1
        names = {self.instructions[m].name for m in members}
        return self._box(members[0]) | {
            "id": k, "count": len(members), "op": min(names) if len(names) == 1 else "\N{HORIZONTAL ELLIPSIS}",
            "data": _span([self.instructions[m].values for m in members]),
            "grad": _span([self.gradients[m] for m in members]),
            "parents": sorted(uses), "used": [uses[p] for p in sorted(uses)],
        }  # fmt: skip

    def inside(self, group: Any, at: int) -> dict[str, Any]:
        if isinstance(group, bool) or not isinstance(group, int) or not 0 <= group < len(self.groups):
            raise Refused(f"box: expected a whole number below {len(self.groups)}")
        members = self.groups[group][at : at + MOST // 2]
        shown = set(members)
        around = [p for m in members for p in self.parents[m] if p not in shown][: MOST // 2]
        ids = sorted(shown | set(around))
        place = {k: i for i, k in enumerate(ids)}
        boxes = []
        for k in ids:
            kept = [p for p in sorted(self.parents[k]) if k in shown and p in place]
            boxes.append(self._box(k) | {"id": place[k], "parents": [place[p] for p in kept],
                                         "used": [self.parents[k][p] for p in kept], "outside": k not in shown})
        return {"boxes": boxes, "at": at, "count": len(self.groups[group]), "nodes": self.page["nodes"],
                "operations": len(self.groups[group]), "folded": False, "frames": None, "why": "folded",
                "source": self.page["source"]}  # fmt: skip


def _result(found: Any) -> Tensor:
    while isinstance(found, (list, TensorArray)) and len(found) == 1:
        found = found[0]
    if not isinstance(found, Tensor):
        shape = f" of shape {found.shape}" if isinstance(found, TensorArray) else ""
        raise TypeError(f"play: expected a Tensor, or a function that returns one, got {type(found).__name__}{shape}")
    return found


def _span(ends: list[tuple[float, float]]) -> list[Any]:
    low, high = np.array(ends).min(), np.array(ends).max()  # NaN if one is
    return [number(float(low)), number(float(high))]


@contextmanager
def _kept(nodes: list[Tensor]) -> Iterator[None]:
    """Gradients are afterwards what they were."""
    before = [node.grad for node in nodes]
    try:
        yield
    finally:
        for node, gradient in zip(nodes, before, strict=True):
            if isinstance(gradient, float):
                node.grad = gradient


@contextmanager
def _no_collector() -> Iterator[None]:
    """Millions of tuples at once: Python's collector would go through them again and again, and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
