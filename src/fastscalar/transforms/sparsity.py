"""Jacobians of programs: by rows or by columns, and those of which only the entries that can be other than zero are
computed.

Rows whose entries lie in different columns are one colour: the gradient of their sum has the entries of all of them, so
that one backward pass does for the colour (Curtis, Powell, Reid: On the estimation of sparse Jacobian matrices, 1974).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastscalar._core import Tensor
from fastscalar.engine import _inspect, _modes
from fastscalar.engine._array_ops import total
from fastscalar.transforms.inputs import Run, leaves_of
from fastscalar.transforms.recorded import push


def rows_by_shape(run: Run, elements: list[Any]) -> list[list[Any]]:
    """The derivatives of each of `elements` by each input of a recorded run: reverse mode, or forward mode where there
    are fewer inputs.  What that makes of infinite slopes may be another number than reverse mode has."""
    roots = list(dict.fromkeys(e for e in elements if isinstance(e, Tensor)))
    if not run.recorded or len(roots) <= len(run.tensors):
        return [run.gradients(e, run.recorded) for e in elements]
    return rows_by_columns(run, elements)


def rows_by_columns(run: Run, elements: list[Any]) -> list[list[Any]]:
    """The same in forward mode: a pass for each input."""
    roots = list(dict.fromkeys(e for e in elements if isinstance(e, Tensor)))
    columns = []
    for t in run.tensors:
        tangents: dict[Tensor, Any] = {t: Tensor(1.0)}
        with _modes.record():
            root = total(roots)
        push([node for node in _inspect._reached(root, [t]) if node is not root], tangents)
        columns.append([tangents[e] if isinstance(e, Tensor) and e in tangents else Tensor(0.0) for e in elements])
    return [list(row) for row in zip(*columns, strict=True)]


def coloured(supports: Sequence[frozenset[int]]) -> list[list[int]]:
    """Rows of a sparse matrix in groups that have no column in common, the first that fits for each row.

    >>> coloured([frozenset({0, 1}), frozenset({2}), frozenset({1, 2})])
    [[0, 1], [2]]
    """
    groups: list[tuple[list[int], set[int]]] = []
    for row, support in enumerate(supports):
        if not support:
            continue
        for rows, taken in groups:
            if taken.isdisjoint(support):
                rows.append(row)
                taken |= support
                break
        else:
            groups.append(([row], set(support)))
    return [rows for rows, _ in groups]


class PatternGrew(RuntimeError):
    """A row has entries that the rows before did not have: all are to be computed again."""


class SparseJacobian:
    """The function that gives the entries of a Jacobian that are in `pattern`, (row, column), in its order.

    Rows and columns are counted through the flattened results and arguments.  A call that finds entries which are not
    in the pattern adds them, and raises PatternGrew if there was one: all calls before were of too few."""

    def __init__(self, f: Callable[..., Any], argnums: Any) -> None:
        self.f, self.argnums = f, argnums
        self.pattern: list[tuple[int, int]] = []
        self.shape = (0, 0)
        self.colours = 0
        self.__name__ = f"jacobian({getattr(f, '__name__', 'function')})"

    def __call__(self, *args: Any, **kwargs: Any) -> list[Any]:
        run = Run(self.f, args, kwargs, self.argnums, "jacobian")
        elements = [e for leaf in leaves_of(run.result, "the result", "jacobian") for e in leaf.elements]
        place = {t: j for j, t in enumerate(run.tensors)}
        supports = [
            frozenset(place[t] for t in _inspect._reached(e, run.tensors) if t in place)
            if isinstance(e, Tensor) else frozenset()
            for e in elements
        ]
        self.shape = len(elements), len(run.tensors)
        known = set(self.pattern)
        found_here = {(i, j) for i, support in enumerate(supports) for j in support}
        self.pattern = sorted(known | found_here)
        if known and not found_here <= known:
            raise PatternGrew(f"{self.__name__}: entries that no row before has had")
        entries: dict[tuple[int, int], Any] = {}
        groups = coloured(supports)
        self.colours = max(self.colours, len(groups))
        for group in groups:
            with _modes.record():
                root = total([elements[i] for i in group])
            found = run.give(run.gradients(root, run.recorded))
            entries |= {(i, j): found[j] for i in group for j in supports[i]}
        return [entries.get(at, 0.0) for at in self.pattern] or [0.0]
