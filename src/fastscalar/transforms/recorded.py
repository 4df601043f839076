"""Sweeps that are themselves recorded, so that their result can be differentiated again.

`pull` goes backward from results to inputs, `push` forward from inputs to results; both multiply adjoints or tangents
by the partial derivatives of `rules`, and of the array operations, as Tensors.  `Tensor.backward(create_graph=True)` is
`record_backward`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

from numpy import unravel_index

from fastscalar._core import Tensor
from fastscalar.engine import _inspect, _modes
from fastscalar.engine._array_ops import best_of, select, softmax
from fastscalar.transforms.rules import RULES, Choice, where
from fastscalar.transforms.watch import Watch


def plain(x: Any) -> float:
    """The value of a Tensor or number."""
    return x.data if isinstance(x, Tensor) else float(x)


LOOPS = ("loop", "while_loop", "found loop", "pullback")  # operations of nodes that may be computed together


class Partials:
    """The partial derivatives of the nodes of one graph.  `active`: the nodes that a derivative is wanted by."""

    def __init__(self, active: Iterable[Tensor]) -> None:
        self.active = set(active)
        self.softmaxes: dict[tuple[int, ...], tuple[list[Any], list[Any]]] = {}
        self.numbers: dict[Any, Any] = {}
        self.adjoints: dict[Tensor, dict[int, Tensor]] = {}      # by first output of several, what reaches each
        self.zero = Tensor(0.0)

    def of(self, node: Tensor) -> Iterator[tuple[Tensor, Any]]:
        """(operand, derivative of node by it) for each active operand: a Tensor, or a float where it is constant."""
        name, operands, numbers = _inspect._instruction(node)
        for operand, partial in self._by_operand(name, node, operands, numbers):
            if isinstance(operand, Tensor) and operand in self.active:
                yield operand, partial() if callable(partial) else partial

    def sent(self, node: Tensor, g: Tensor) -> Iterator[tuple[Tensor, Any]]:
        """What an adjoint of a node sends to each of its active operands."""
        several = _several(node)
        if several is not None:
            yield from self._sent_by_several(several, node, g)
            return
        for operand, partial in self.of(node):
            if not (isinstance(partial, float) and partial == 0.0):
                yield operand, send(g, partial)

    def _sent_by_several(self, several: Any, node: Tensor, g: Tensor) -> Iterator[tuple[Tensor, Any]]:
        """Of outputs that are computed together the first one sends for all, as their parent: it comes last."""
        if several.output:
            first = node._parents[0]
            if first not in self.adjoints:
                self.adjoints[first] = {}
                yield first, self.zero
            self.adjoints[first][several.output] = g
            return
        adjoints = self.adjoints.pop(node, {})
        if g is not self.zero:
            adjoints[0] = g
        operands = _inspect._instruction(node)[1]
        for operand, part in zip(operands, several.pulled(operands, adjoints), strict=True):
            if part is not None and isinstance(operand, Tensor) and operand in self.active:
                yield operand, part

    def _by_operand(self, name: str, node: Tensor, operands: list[Any], numbers: tuple[int, ...]) -> Iterator[Any]:
        # A partial derivative that has to be computed is a callable, so that only what is wanted is recorded.
        half = len(operands) // 2
        if name in _CHOOSING and _modes.is_recording():
            yield from _chosen_operands(name, node, operands, numbers)
        elif name in RULES:
            for operand, rule in zip(operands, RULES[name], strict=True):
                yield operand, lambda rule=rule: rule(*operands, node)
        elif name == "linear":
            for x, w in zip(operands[:half], operands[half:-1], strict=True):
                yield x, w
                yield w, x
            yield operands[-1], 1.0
        elif name in ("sum", "pick", "cumsum"):
            for x in operands:
                yield x, 1.0
        elif name in ("max", "min"):
            yield operands[numbers[0]], 1.0
        elif name == "prod":
            yield from zip(operands, _of_product(operands), strict=True)
        elif name in ("dot", "@") and (numbers_of := self._as_tensors(node)) is not None:
            others = operands[half:] if isinstance(operands[0], float) else operands[:half]
            yield from zip(others, numbers_of, strict=True)
        elif name in ("dot", "@"):
            for x, y in zip(operands[:half], operands[half:], strict=True):
                yield x, y
                yield y, x
        elif name == "logsumexp":
            yield from zip(operands, self._softmax(operands), strict=True)
        elif name == "softmax":
            for j, (x, p) in enumerate(zip(operands, self._softmax(operands), strict=True)):
                yield x, lambda j=j, p=p: node * ((1.0 if j == numbers[0] else 0.0) - p)
        elif name in ("squared_loss", "mse_loss"):
            scale = 1.0 / (numbers[0] or 1) if name == "squared_loss" else 2.0 / half
            for x, y in zip(operands[:half], operands[half:], strict=True):
                yield x, lambda x=x, y=y: x - y if scale == 1.0 else scale * (x - y)
                yield y, lambda x=x, y=y: y - x if scale == 1.0 else scale * (y - x)
        elif name == "cross_entropy":
            rows, cols, *labels = numbers
            given = _inspect._whole_argument(node)
            for row, label in enumerate(labels):
                logits = operands[row * cols : (row + 1) * cols]
                for j, (x, p) in enumerate(zip(logits, self._softmax(logits), strict=True)):
                    yield x, lambda j=j, p=p, label=label: (p - _is_label(given, label, j)) / (rows or 1)
        elif name == "custom":
            yield from zip(operands, _custom_partials(node, operands), strict=True)
        elif operands:
            raise NotImplementedError(f"no derivative of {name!r} that can itself be differentiated")

    def _as_tensors(self, node: Tensor) -> Any:
        """The numbers of a product that stand for more (`arrays.linalg`); None: they are numbers."""
        first, k = _inspect._output(node)
        known = getattr(first, "_numbers", None)
        if known is None:
            return None
        again, part, shape = known
        if again not in self.numbers:
            self.numbers[again] = again(first)
        return part(self.numbers[again], *unravel_index(k, shape))

    def _softmax(self, xs: list[Any]) -> list[Any]:
        key = tuple(map(id, xs))
        if key not in self.softmaxes:
            self.softmaxes[key] = xs, list(softmax(xs))  # xs: so that no id is used again
        return self.softmaxes[key][1]


def _of_product(factors: list[Any]) -> list[Tensor]:
    """The derivatives of x[0] * x[1], times x[2], ... as these products send it (`product_backward`)."""
    before = accumulate(factors[:-1], operator.mul, initial=Tensor(1.0))
    after = [*accumulate(factors[:0:-1], send, initial=Tensor(1.0))]
    return [send(a, b) for a, b in zip(reversed(after), before, strict=True)] if factors else []


_BEST = ("max", "min", "argmax", "argmin")  # codes of `best_of`
_CHOOSING = ("where", "gather", *_BEST)      # in the recording of a program
_COMPARISONS = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)


def _is_label(given: Any, label: int, j: int) -> Any:
    """1 if j is the label: a number of the row, if one is given."""
    if given is None:
        return 1.0 if j == label else 0.0
    return select(given == j, 1.0, 0.0)


def _chosen_operands(name: str, node: Tensor, operands: list[Any], numbers: tuple[int, ...]) -> Iterator[Any]:
    """The partial derivatives of instructions that give one of their operands: of the one that the row chooses."""
    if name == "where":
        left, right, a, b = operands
        condition = _COMPARISONS[numbers[0]](left, right)
        yield a, where(condition, 1.0, 0.0)
        yield b, where(condition, 0.0, 1.0)
    elif name == "gather":
        count, output = numbers
        given = _inspect._whole_argument(node)
        if given is None:
            *operands, given = operands
        rows = len(operands) // count
        for j in range(rows):
            yield operands[j * count + output], lambda j=j: where(
                given == j, 1.0, lambda: where(given == j - rows, 1.0, 0.0)
            )
    elif name in ("max", "min"):
        place = best_of(operands, _BEST.index("arg" + name))
        for j, x in enumerate(operands):
            yield x, lambda j=j: where(place == j, 1.0, 0.0)


def _custom_partials(node: Tensor, operands: list[Tensor]) -> list[Any]:
    """The derivatives of a user's own operation, computed from Tensors so that they are recorded."""
    derivatives = getattr(node._backward, "derivatives", None)
    what = f"the user's own operation {node._op!r}"
    if derivatives is None:
        raise NotImplementedError(
            f"{what}: its _backward gives numbers, which cannot be differentiated again; use fastscalar.custom_op"
        )
    _modes.require_operands_unchanged(node)
    lost: list[Tensor] = []
    with Watch(operands, lost.append):
        found = derivatives(*operands)
    if lost:
        raise NotImplementedError(
            f"{what}: its derivatives turn Tensors into plain numbers, so they cannot be differentiated again; "
            "write them with fastscalar.math"
        )
    return list(found)


def send(g: Tensor, partial: Any) -> Tensor:
    """A gradient times a partial derivative, where zero sends zero.

    A numerical zero keeps its edge: the next derivative by `g` is `partial`, that by `partial` is `g`.  Where both are
    finite the product says all that, and is what a reader of the graph expects to see.  A program, which does not know
    its rows, has the operation that says it.
    """
    if isinstance(partial, Choice):
        return select(partial.condition, _sent(g, partial.yes), _sent(g, partial.no))
    if isinstance(partial, Tensor) and _modes.is_recording():
        return g.send(partial)
    number = partial if isinstance(partial, float) else partial.data
    if not isfinite(number) or not ((isinstance(partial, float) and _modes.is_recording()) or isfinite(g.data)):
        return g.send(partial)
    if isinstance(partial, float):
        if partial == 1.0:
            return g
        if partial == -1.0:
            return -g
    return g * partial


def _sent(g: Tensor, partial: Any) -> Any:
    """What goes through one side of a choice."""
    return 0.0 if isinstance(partial, float) and partial == 0.0 else send(g, partial)


def pull(nodes: Sequence[Tensor], seeds: dict[Tensor, Tensor], wanted: set[Tensor] | None) -> dict[Tensor, Tensor]:
    """A recorded backward sweep.

    Parameters
    ----------
    nodes
        What the sweep goes over, in reverse creation order.
    seeds
        Adjoints to begin with.
    wanted
        The nodes whose gradients are kept; None: of all.

    Returns
    -------
    The gradients by node; a node that nothing reaches has none.
    """
    partials = Partials(nodes)
    gradients = dict(seeds)
    with _modes.record(), _modes.ieee():
        for node in nodes:
            if node not in gradients:
                continue
            g = gradients[node] if wanted is None or node in wanted else gradients.pop(node)
            for operand, part in partials.sent(node, g):
                gradients[operand] = gradients[operand] + part if operand in gradients else part
    return gradients


def _several(node: Tensor) -> Any:
    """Of an output of a loop that is one instruction of a program, what has its derivatives (`Derivatives` of
    `program.differentiated`); else None."""
    if _modes.is_recording() and node._op in LOOPS:
        return getattr(node, "_several", None)
    return None


def _push_several(several: Any, node: Tensor, tangents: dict[Any, Any]) -> None:
    """Outputs that are computed together have their tangents together: kept by the first of them, in a tuple."""
    first = node if several.output == 0 else node._parents[0]
    if (first,) not in tangents:
        operands = _inspect._instruction(first)[1]
        tangents[first,] = several.pushed(operands, [
            tangents.get(t) if isinstance(t, Tensor) else None for t in operands])
    tangent = tangents[first,][several.output]
    if tangent is not None:
        tangents[node] = tangent


def push(nodes: Sequence[Tensor], tangents: dict[Any, Any]) -> None:
    """A forward sweep from old to young over `nodes`, which are in reverse creation order.

    It adds to `tangents` the tangent of every node that depends on one with a tangent.

    A tangent of zero sends zero, and nothing passes a partial derivative of zero: so a path with a zero on it counts as
    nothing from whichever end it is gone, as it does in a backward pass.
    """
    partials = Partials(nodes)
    with _modes.ieee():
        for node in reversed(nodes):
            if node in tangents:
                continue
            several = _several(node)
            if several is not None:
                _push_several(several, node, tangents)
                continue
            for operand, partial in partials.of(node):
                if operand not in tangents:      # a place among numbers, which no direction changes
                    continue
                tangent = tangents[operand]
                nothing = isinstance(partial, float) and partial == 0.0
                part = Tensor(0.0) if nothing else send(tangent, partial)
                tangents[node] = tangents[node] + part if node in tangents else part


def dot(gradients: Sequence[Any], tangents: Sequence[Tensor]) -> Tensor:
    """The derivative along a direction, from a gradient: numbers or Tensors; zero sends zero."""
    total = Tensor(0.0)
    with _modes.ieee():
        for gradient, tangent in zip(gradients, tangents, strict=True):
            total = total + send(tangent, gradient)
    return total


def record_backward(root: Tensor, accumulate: bool) -> None:
    """Tensor.backward(create_graph=True).

    First the recorded sweep, which can fail and has written nothing until then; then the engine's own, which leaves the
    numbers, those of constants too; then each gradient goes to its node.
    """
    nodes = [node for node in _inspect._reached(root) if node._op != "const" or node._parents]
    before = {node: node.grad for node in nodes if accumulate and not node._parents}
    gradients = pull(nodes, {root: Tensor(1.0)}, None)
    root.backward(accumulate=accumulate)
    with _modes.record():
        for node in nodes:
            gradient = gradients[node] if node in gradients else Tensor(0.0)
            _modes.set_recorded(node, before[node] + gradient if node in before else gradient)
