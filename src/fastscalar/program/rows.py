"""The arguments of programs: kinds and numbers of many rows, and what a function is called with for one of them.

The boundary: knows arrays and Tensors, no recordings.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import elementwise, to_tensor
from fastscalar.engine._traced import TracedInt
from fastscalar.program import _data

SPARSE = 0.5  # with a larger share of non-zero inputs rows are taken whole
LARGE = 1e150  # sums of products of such numbers may be infinite, or not, as they are ordered


class Rows:
    """The arguments of a program for n rows: for each its kind, and its numbers as the replays want them."""

    _columns: dict[int, np.ndarray] | None = None

    def __init__(self, arguments: Sequence[Any], name: str) -> None:
        self.kinds: list[Any] = []  # "array" and its shape, "number", "whole", "wholes" and their shape; shared or not
        self.data: list[Any] = []
        self.columns: dict[int, str] = {}  # lists that may have been meant as columns, by the rows that they had then
        self._finite: dict[int, bool] = {}
        self.n = -1
        for k, argument in enumerate(arguments):
            self._add(argument, f"{name}: argument {k}")
        if self.n < 0:
            raise ValueError(f"{name}: expected at least one array with a row for each sample")
        if self.n == 0:
            raise ValueError(f"{name}: the arrays are empty")

    def _add(self, argument: Any, what: str) -> None:
        values = _as_array(argument, what)
        if isinstance(argument, (list, tuple)) and values.ndim == 2:
            made = f"{values.shape[0]} columns of {values.shape[1]} numbers"
            self.columns[values.shape[1]] = f"; {what} is a list of {made}, np.column_stack makes rows of them"
        if values.ndim and self.n not in (-1, len(values)):
            advice = self.columns.get(len(values)) or self.columns.get(self.n, "")
            raise ValueError(f"{what} has {len(values)} rows, those before it have {self.n}{advice}")
        if values.ndim:
            self.n = len(values)
        if values.dtype.kind in "iub":
            if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
                raise ValueError(f"{what}: expected whole numbers below 2**63, got {values.max()}")
            values = values.astype(np.int64)
            self.kinds.append(("whole",) if values.ndim <= 1 else ("wholes", values.shape[1:]))
            self.data.append(values)
        else:
            values = np.asarray(values, dtype=np.float64, order="C")
            if values.ndim == 0:
                self.kinds.append(("shared",))
            elif values.ndim == 1:
                self.kinds.append(("number",))
            else:
                if not np.prod(values.shape[1:]):
                    raise ValueError(f"{what}: its rows are empty")
                self.kinds.append(("array", values.shape[1:]))
            self.data.append(values)

    @property
    def signature(self) -> tuple[Any, ...]:
        return tuple(self.kinds)

    def row(self, i: int) -> list[Any]:
        return [d[i] if d.ndim else d[()] for d in self.data]

    def one(self, i: int) -> Rows:
        """Row i alone."""
        rows = Rows.__new__(Rows)
        rows.kinds, rows.columns, rows._finite, rows.n = list(self.kinds), {}, {}, 1
        rows.data = [d[i : i + 1].copy() if d.ndim else d for d in self.data]
        return rows

    def explained(self, error: Exception) -> Exception:
        """One row given where many are expected is many rows of one number each."""
        single = [k for k, kind in enumerate(self.kinds) if kind == ("number",)]
        if type(error) is not TypeError or not single or not _AS_A_LIST.search(str(error)):
            return error
        argument = f"argument {single[0]} of shape ({self.n},) is {self.n} rows of one number each"
        return TypeError(f"{error}; {argument}, a single row x is x[None]").with_traceback(error.__traceback__)

    def whole_columns(self) -> dict[int, np.ndarray]:
        """By input of a recording, the whole numbers of all rows."""
        if self._columns is None:
            self._columns, at = {}, 0
            for kind, data in zip(self.kinds, self.data, strict=True):
                if kind[0] in ("whole", "wholes"):
                    for column in np.broadcast_to(data, (self.n, *data.shape[1:])).reshape(self.n, -1).T:
                        self._columns[at] = np.ascontiguousarray(column)
                        at += 1
                else:
                    at += 1
        return self._columns

    def finite(self, k: int) -> bool:
        """Whether argument k has no NaN and no number that is infinite or as good as that; asked of arrays that matrix
        products read."""
        if k not in self._finite:
            data = self.data[k]
            self._finite[k] = bool(data.max() <= LARGE and data.min() >= -LARGE)     # of NaN both are NaN
        return self._finite[k]


def _as_array(argument: Any, what: str) -> np.ndarray:
    if isinstance(argument, TensorArray):
        argument = argument.numpy()
    elif isinstance(argument, Tensor):
        argument = argument.item()
    try:
        values = np.asarray(argument)
    except ValueError:
        raise ValueError(f"{what}: the rows have different lengths") from None
    if values.dtype.kind not in "fiub":
        got = f"{type(argument).__name__} of {values.dtype}"
        strange = [v for v in values.ravel().tolist() if isinstance(v, (str, bytes)) or v is None]
        found = f", with {strange[0]!r} in it" if strange else ""
        raise TypeError(f"{what}: expected numbers or an array of them, got {got}{found}")
    return values


_AS_A_LIST = re.compile(r"Tensor'.*(not subscriptable|not iterable|no len\(\))")


class One(Rows):
    """The arguments of a single call."""

    def __init__(self, arguments: Sequence[Any], name: str) -> None:
        self.kinds, self.data, self.columns, self._finite, self.n = [], [], {}, {}, -1
        for k, argument in enumerate(arguments):
            self._add(_as_array(argument, f"{name}: argument {k}")[None], f"{name}: argument {k}")
        self.n = 1                               # also of a function without arguments

    def explained(self, error: Exception) -> Exception:
        return error


def handles_of(kinds: Sequence[Any], row: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """What a recorded function is called with, and the inputs of the recording."""
    arguments: list[Any] = []
    inputs: list[Any] = []
    for kind, value in zip(kinds, row, strict=True):
        if kind[0] == "array":
            handle = to_tensor(value)
            inputs.append(("array", handle))
        elif kind[0] in ("number", "shared"):
            handle = Tensor(float(value))
            inputs.append(("number", handle))
        elif kind[0] == "whole":
            handle = TracedInt(int(value), Tensor(float(value)), len(inputs))
            inputs.append(("whole", handle))
        else:
            handle = _nested(value, inputs)
        arguments.append(handle)
    return arguments, inputs


def _nested(values: np.ndarray, inputs: list[Any]) -> Any:
    if values.ndim:
        return [_nested(v, inputs) for v in values]
    handle = TracedInt(int(values), Tensor(float(values)), len(inputs))
    inputs.append(("whole", handle))
    return handle


def eager_column(kind: Any, data: np.ndarray, some: np.ndarray) -> Iterable[Any]:
    """An argument of the function for some rows; one that they share is one Tensor for all of them."""
    if data.ndim == 0:
        return itertools.repeat(Tensor(float(data)) if kind[0] == "shared" else int(data))
    if kind[0] == "array":
        return map(to_tensor, data[some])
    return map(Tensor, data[some].tolist()) if kind[0] == "number" else data[some].tolist()


def first_inputs(kinds: Sequence[Any]) -> list[int]:
    """By argument, its first input in the recording."""
    first, at = [], 0
    for kind in kinds:
        first.append(at)
        at += int(np.prod(kind[1])) if kind[0] == "wholes" else 1
    return first


def shared_inputs(signature: Sequence[Any]) -> frozenset[int]:
    """Inputs that are one number for all rows."""
    first = first_inputs(signature)
    return frozenset(first[k] for k, kind in enumerate(signature) if kind == ("shared",))


def rows_by_entries(rows: Rows, k: int, float64: bool, parts: int) -> Any:
    """Argument k by the non-zero entries of its rows, if few are; remembered with the rows."""
    known = rows.__dict__.setdefault("entries", {})
    if (k, float64, parts) not in known:
        known[k, float64, parts] = _data.sparse_rows(rows.data[k].reshape(rows.n, -1), float64, SPARSE, parts)
    return known[k, float64, parts]


# --- calls of one program by another ---------------------------------------------------------------


def holds_tensors(argument: Any) -> bool:
    if isinstance(argument, (list, tuple)):
        return any(map(holds_tensors, argument))
    if isinstance(argument, np.ndarray):
        return argument.dtype == object and any(map(holds_tensors, argument.flat))
    return isinstance(argument, (Tensor, TensorArray, TracedInt))


def as_in_a_program(argument: Any) -> Any:
    """What a call from another function passes, as it reaches the function in a recording."""
    if isinstance(argument, (float, np.floating)):
        return Tensor(argument)
    if isinstance(argument, np.ndarray) and argument.dtype == object and argument.size and holds_tensors(argument):
        return elementwise("*", argument, 1.0) if argument.ndim else argument.item()
    if not isinstance(argument, (np.ndarray, list, tuple)) or holds_tensors(argument) or not len(argument):
        return argument
    values = np.asarray(argument)
    if values.dtype.kind == "f":
        return to_tensor(values)
    return values.tolist() if values.dtype.kind in "iub" else argument
