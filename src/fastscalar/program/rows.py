"""The arguments of programs: kinds and numbers of many rows, and what a function is called with for one of them.

The boundary: knows arrays and Tensors, no recordings.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.arrays.convert import is_array_like, is_buffer
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import elementwise, own_array, to_tensor
from fastscalar.engine._traced import TracedInt
from fastscalar.program import _data
from fastscalar.program.nests import assembled, flattened, placed
from fastscalar.program.streams import Here, Streams

WHOLE = frozenset(("whole", "wholes", "truth", "truths"))  # kinds of whole numbers: of each row one, or an array; bools
SPARSE = 0.5  # with a larger share of non-zero inputs rows are taken whole
_PLAIN = frozenset((np.ndarray, float, int, Tensor, TensorArray))  # leaves, as nearly all arguments are
LARGE = 1e150  # sums of products of such numbers may be infinite, or not, as they are ordered


class Rows:
    """The arguments of a program for n rows: for each leaf its kind, and its numbers as the replays want them.

    Kinds: ("number",), ("array", shape), ("whole",), ("wholes", shape) of each row, of bools ("truth",), ("truths",
    shape); of all rows ("shared",), one number whose place is that of a number of a row in recordings, and ("leaf",
    shape), which stands there as a captured array.
    """

    _columns: dict[int, np.ndarray] | None = None
    nests: tuple[Any, ...] | None = None         # by argument; None: each is a leaf
    names: tuple[str, ...] = ()                  # of the last arguments, which are given by keyword
    prepared = False                             # their recordings have just been looked at
    cache: Any = None                            # the recordings for their signature, when they have been looked for
    sharing: Any = None                          # among processes: what computes a part of them here

    def __init__(
        self,
        arguments: Sequence[Any],
        name: str,
        names: tuple[str, ...] = (),
        shared: Container[int] = (),
        n: int | None = None,
        per_row: bool = False,
        streams: Streams | None = None,
    ) -> None:
        """names: of the last arguments.  shared: which are one for all rows; per_row: with a derivative for each."""
        self.kinds: list[Any] = []
        self.data: list[Any] = []
        self.columns: dict[int, str] = {}  # lists that may have been meant as columns, by the rows that they had then
        self._finite: dict[int, bool] = {}
        self.streams = streams or Streams()      # of what they draw
        self.n = -1
        self._enter(arguments, name, names, shared)
        if self.n < 0 and n is None:
            raise ValueError(f"{name}: expected at least one array with a row for each sample")
        if n is not None and self.n not in (-1, n):
            raise ValueError(f"{name}: rows is {n}, but the arrays have {self.n} rows")
        self.n = n if n is not None else self.n
        if self.n == 0:
            raise ValueError(f"{name}: the arrays are empty")
        self._scattered(per_row)

    def _enter(self, arguments: Sequence[Any], name: str, names: tuple[str, ...], shared: Container[int]) -> None:
        if not names and not shared and all(type(argument) in _PLAIN for argument in arguments):
            for k, argument in enumerate(arguments):
                self._add(argument, f"{name}: argument {k}")
            return
        first_name = len(arguments) - len(names)
        nests: list[Any] = []
        for k, argument in enumerate(arguments):
            what = f"{name}: argument {k if k < first_name else names[k - first_name]!r}"
            nests.append(flattened(argument, what, self._add_shared if k in shared else self._add))
        if names or any(nest is not None for nest in nests):
            self.nests, self.names = tuple(nests), names

    def _add_shared(self, argument: Any, what: str) -> None:
        """One for all rows; whole numbers are repeated later."""
        values = _as_array(argument, what)
        if values.dtype.kind in "iub":
            self.kinds.append(_kind_of_whole(values, values.shape))
            self.data.append(_whole(values, what)[None] if values.ndim else _whole(values, what))
        else:
            if not values.size:
                raise ValueError(f"{what}: is empty")
            self.kinds.append(("leaf", values.shape) if values.ndim else ("shared",))
            self.data.append(np.array(values, dtype=np.float64, order="C"))

    def _scattered(self, per_row: bool) -> None:
        """What is there once and is wanted for each row is repeated."""
        for k, (kind, data) in enumerate(zip(self.kinds, self.data, strict=True)):
            if kind[0] in WHOLE and data.ndim and len(data) == 1 != self.n:
                self.data[k] = np.broadcast_to(data, (self.n, *data.shape[1:]))
            elif per_row and kind[0] in ("shared", "leaf"):
                self.kinds[k] = ("array", kind[1]) if kind[0] == "leaf" else ("number",)
                self.data[k] = np.ascontiguousarray(np.broadcast_to(data, (self.n, *data.shape)))

    def _add(self, argument: Any, what: str) -> None:
        self._take(argument, _as_array(argument, what), what)

    def _take(self, argument: Any, values: np.ndarray, what: str) -> None:
        if isinstance(argument, (list, tuple)) and values.ndim == 2:
            made = f"{values.shape[0]} columns of {values.shape[1]} numbers"
            self.columns[values.shape[1]] = f"; {what} is a list of {made}, np.column_stack makes rows of them"
        if values.ndim and self.n not in (-1, len(values)):
            advice = self.columns.get(len(values)) or self.columns.get(self.n, "")
            raise ValueError(f"{what} has {len(values)} rows, those before it have {self.n}{advice}")
        if values.ndim:
            self.n = len(values)
        if values.dtype.kind in "iub":
            self.kinds.append(_kind_of_whole(values, values.shape[1:]))
            self.data.append(_whole(values, what))
        else:
            values = np.asarray(values, dtype=np.float64, order="C")
            if values.ndim == 0:
                self.kinds.append(("shared",))
            elif values.ndim == 1:
                self.kinds.append(("number",))
            else:
                if not math.prod(values.shape[1:]):
                    raise ValueError(f"{what}: its rows are empty")
                self.kinds.append(("array", values.shape[1:]))
            self.data.append(values)

    @property
    def signature(self) -> tuple[Any, ...]:
        return tuple(self.kinds)

    def key(self) -> tuple[Any, ...]:
        """What recordings are looked up by."""
        kinds = tuple(("number",) if k == ("shared",) else k for k in self.kinds)
        return kinds if self.nests is None else (kinds, self.nests, self.names)

    def row(self, i: int) -> list[Any]:
        return [
            d if kind[0] == "leaf" else d[i] if d.ndim else d[()]
            for kind, d in zip(self.kinds, self.data, strict=True)
        ]

    def call(self, function: Callable[..., Any], leaves: Sequence[Any]) -> Any:
        """The function of these leaves, as `eager_column` has them."""
        given = (x._apart() if kind[0] == "array" else x for kind, x in zip(self.kinds, leaves, strict=True))
        if self.nests is None:
            return function(*given)
        one_by_one = given.__next__
        arguments = [assembled(nest, one_by_one) for nest in self.nests]
        first_name = len(arguments) - len(self.names)
        return function(*arguments[:first_name], **dict(zip(self.names, arguments[first_name:], strict=True)))

    def leaves_of(self, k: int) -> range:
        """Which leaves are of argument k."""
        return range(k, k + 1) if self.nests is None else placed(self.nests)[k]

    def is_real_leaf(self, leaf: int) -> bool:
        return self.kinds[leaf][0] not in WHOLE

    def room_for_gradient(self, leaf: int) -> np.ndarray:
        """Zeros where all rows are added up; else what is there, since each row is written."""
        summed = self.kinds[leaf][0] in ("shared", "leaf")
        return (np.zeros if summed else np.empty)(self.data[leaf].shape)

    def is_real(self, k: int) -> bool:
        """Whether there are real numbers in argument k, to differentiate by."""
        return any(map(self.is_real_leaf, self.leaves_of(k)))

    def argument(self, k: int, leaves: Sequence[Any]) -> Any:
        """Argument k, put together of what there is for each of its leaves."""
        return leaves[0] if self.nests is None else assembled(self.nests[k], iter(leaves).__next__)

    def one(self, i: int) -> Rows:
        """Row i alone, in memory of its own."""
        rows = self.part(i, i + 1)
        rows.data = [
            d.copy() if d.ndim and kind[0] != "leaf" else d for kind, d in zip(rows.kinds, rows.data, strict=True)
        ]
        return rows

    def part(self, first: int, stop: int) -> Rows:
        """The rows from first to stop, as if they had been given alone; their streams stay theirs."""
        rows = Rows.__new__(Rows)
        rows.kinds, rows.columns, rows._finite, rows.n = list(self.kinds), {}, {}, stop - first
        rows.nests, rows.names, rows.cache = self.nests, self.names, self.cache
        rows.streams = self.streams.shifted(first)
        rows.data = [
            d[first:stop] if d.ndim and kind[0] != "leaf" else d for kind, d in zip(self.kinds, self.data, strict=True)
        ]
        return rows

    def explained(self, error: Exception) -> Exception:
        """One row given where many are expected is many rows of one number each."""
        single = [k for k, kind in enumerate(self.kinds) if kind == ("number",)]
        missing = type(error) is AttributeError and type(error.obj) is Tensor and hasattr(TensorArray, str(error.name))
        as_a_list = type(error) in (TypeError, ValueError) and _AS_A_LIST.search(str(error))
        if not single or not (missing or as_a_list):
            return error
        argument = f"argument {single[0]} of shape ({self.n},) is {self.n} rows of one number each"
        said = f"{error}; {argument}, a single row x is x[None]"
        return type(error)(said).with_traceback(error.__traceback__)

    def replace(self, k: int, values: np.ndarray) -> None:
        """Other numbers for argument k, of the same shape and kind."""
        values = np.asarray(values, dtype=self.data[k].dtype, order="C")
        assert values.shape == self.data[k].shape, values.shape
        self.data[k] = values
        self._columns, self._finite = None, {}
        self.__dict__.pop("derived", None)

    def whole_columns(self) -> dict[int, np.ndarray]:
        """By input of a recording, the whole numbers of all rows."""
        if self._columns is None:
            self._columns, at = {}, 0
            for kind, data in zip(self.kinds, self.data, strict=True):
                if kind[0] in WHOLE:
                    for column in np.broadcast_to(data, (self.n, *data.shape[1:])).reshape(self.n, -1).T:
                        self._columns[at] = np.ascontiguousarray(column)
                        at += 1
                else:
                    at += kind[0] != "leaf"
        return self._columns

    def bind(self, replay: Any, gradients: dict[int, np.ndarray] | None = None) -> None:
        """Give a replay these rows, and where gradients by them go."""
        at = 0
        for k, (kind, data) in enumerate(zip(self.kinds, self.data, strict=True)):
            wanted = None if gradients is None else gradients.get(k)
            if kind[0] == "array":
                flat = data.reshape(self.n, -1)
                products = replay.wants_sparse(at)
                replay.bind(
                    at, flat, None if wanted is None else wanted.reshape(self.n, -1), products and self.finite(k)
                )
                if products:
                    found = rows_by_entries(self, k, replay.float64, replay.parts)
                    if found is not None:
                        replay.sparse(at, *found)
                    elif replay.batch == 1 and not replay.float64:
                        replay.read_as_floats(at, rows_as_floats(self, k))
            elif kind[0] == "shared":
                replay.share(at, float(data))
            elif kind[0] == "leaf":
                continue
            elif kind[0] == "number":
                replay.bind(at, data, wanted)
            else:
                columns = np.broadcast_to(data, (self.n,)) if data.ndim == 0 else data
                for column in columns.reshape(self.n, -1).T:
                    replay.bind(at, np.ascontiguousarray(column))
                    at += 1
                continue
            at += 1

    def finite(self, k: int) -> bool:
        """Whether argument k has no NaN and no number that is infinite or as good as that; asked of arrays that matrix
        products read."""
        if k not in self._finite:
            data = self.data[k]
            self._finite[k] = bool(data.max() <= LARGE and data.min() >= -LARGE)     # of NaN both are NaN
        return self._finite[k]


def _kind_of_whole(values: np.ndarray, shape: tuple[int, ...]) -> tuple[Any, ...]:
    name = "truth" if values.dtype.kind == "b" else "whole"
    return (name + "s", shape) if shape else (name,)


def _whole(values: np.ndarray, what: str) -> np.ndarray:
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{what}: expected whole numbers below 2**63, got {values.max()}")
    return values.astype(np.int64)


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


_AS_A_LIST = re.compile(
    r"Tensor'.*(not subscriptable|not iterable|not reversible|no len\(\))|(be an iterable, not|non-iterable) \S*Tensor"
    r"|for @: .*Tensor'|got shape \(\)"
)


class One(Rows):
    """The arguments of a single call."""

    def __init__(
        self, arguments: Sequence[Any], name: str, names: tuple[str, ...] = (), shared: Container[int] = ()
    ) -> None:
        self.kinds, self.data, self.columns, self._finite, self.n = [], [], {}, {}, -1
        self.streams = Here()
        self._enter(arguments, name, names, shared)
        self.n = 1                               # also of a function without arguments

    def _add(self, argument: Any, what: str) -> None:
        self._take(None, _as_array(argument, what)[None], what)

    def explained(self, error: Exception) -> Exception:
        return error


def handles_of(kinds: Sequence[Any], row: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """The leaves that a recorded function is called with, and the inputs of the recording."""
    arguments: list[Any] = []
    inputs: list[Any] = []
    handle: Any
    for kind, value in zip(kinds, row, strict=True):
        if kind[0] == "array":
            handle = own_array(value)
            inputs.append(("array", handle))
        elif kind[0] == "leaf":
            handle = to_tensor(value)
        elif kind[0] in ("number", "shared"):
            handle = Tensor(float(value))
            inputs.append(("number", handle))
        else:
            handle = _nested(value, inputs, kind[0].startswith("truth"))
        arguments.append(handle)
    return arguments, inputs


def _nested(values: np.ndarray, inputs: list[Any], truths: bool) -> Any:
    if values.ndim:
        return [_nested(v, inputs, truths) for v in values]
    handle = TracedInt(int(values), Tensor(float(values)), len(inputs), truths)
    inputs.append(("whole", handle))
    return handle


def read_whole(arguments: list[Any], truths_only: bool) -> list[Any]:
    """Arguments in a recording, whole numbers of them as ints and bools: it holds for rows with the same."""

    def read(x: Any) -> Any:
        if isinstance(x, list):
            return list(map(read, x))
        if type(x) is not TracedInt or (truths_only and not x.is_truth):
            return x
        return bool(operator.index(x)) if x.is_truth else operator.index(x)

    return list(map(read, arguments))


def eager_column(kind: Any, data: np.ndarray, some: np.ndarray) -> Iterable[Any]:
    """An argument of the function for some rows; one that they share is one Tensor for all of them.

    Of an array the function gets `_apart()`, in which it may replace elements: those here keep the gradient."""
    if kind[0] == "leaf":
        return itertools.repeat(to_tensor(data))
    data = data != 0 if kind[0].startswith("truth") else data
    if data.ndim == 0:
        return itertools.repeat(Tensor(float(data)) if kind[0] == "shared" else data.item())
    if kind[0] == "array":
        return map(own_array, data[some])
    return map(Tensor, data[some].tolist()) if kind[0] == "number" else data[some].tolist()


def first_inputs(kinds: Sequence[Any]) -> list[int]:
    """By argument, its first input in the recording."""
    first, at = [], 0
    for kind in kinds:
        first.append(at)
        at += math.prod(kind[1]) if kind[0] in ("wholes", "truths") else kind[0] != "leaf"
    return first


def shared_inputs(signature: Sequence[Any]) -> frozenset[int]:
    """Inputs that are one number for all rows."""
    first = first_inputs(signature)
    return frozenset(first[k] for k, kind in enumerate(signature) if kind == ("shared",))


def rows_by_entries(rows: Rows, k: int, float64: bool, parts: int) -> Any:
    """Argument k by the non-zero entries of its rows, if few are; remembered with the rows."""
    known = rows.__dict__.setdefault("derived", {})
    if (k, float64, parts) not in known:
        known[k, float64, parts] = _data.sparse_rows(rows.data[k].reshape(rows.n, -1), float64, SPARSE, parts)
    return known[k, float64, parts]


def rows_as_floats(rows: Rows, k: int) -> np.ndarray:
    """Argument k in float32, row by row; remembered with the rows."""
    known = rows.__dict__.setdefault("derived", {})
    if k not in known:
        with np.errstate(over="ignore"):
            known[k] = rows.data[k].reshape(rows.n, -1).astype(np.float32)
    return known[k]


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
    if not is_array_like(argument) and type(argument) is not bytes and is_buffer(argument):
        argument = np.asarray(argument)
    if not isinstance(argument, (np.ndarray, list, tuple)) or holds_tensors(argument) or not len(argument):
        return argument
    values = np.asarray(argument)
    if values.dtype.kind == "f":
        return to_tensor(values)
    return values.tolist() if values.dtype.kind in "iub" else argument
