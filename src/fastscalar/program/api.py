"""compile: record a scalar program once, and replay it over the rows of a data set.

The boundary: `_trace` records, `_lower` plans, `_replay` computes.  Here are the programs that a user holds: which
recording fits which rows, what happens when none does, and what becomes of errors.
"""

from __future__ import annotations

import itertools
import operator
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, overload

import numpy as np

from fastscalar._core import Lock, Tensor, _record, _recording
from fastscalar._warnings import warn, warn_of_loss
from fastscalar.engine._array import TensorArray, elementwise, storage_of, to_tensor, total
from fastscalar.engine._traced import TracedInt
from fastscalar.program import _data, _replay
from fastscalar.program._graph import (
    ARE_EQUAL,
    NODE_CONSTANT,
    NODE_INPUT,
    READ_SAME,
    line_of,
    places_of,
    same_graph,
)
from fastscalar.program._lower import rewrite
from fastscalar.program._trace import NotReplayable, Recording, extract, leaves_before
from fastscalar.program.selections import Family

VERSIONS = 64  # recordings of one program for arguments of one shape, and the same whole numbers where those are read
KEYED_OPERATIONS = 10_000_000  # of all recordings that whole numbers choose: some 600 MB
BATCH = 256  # rows at once
SPARSE = 0.5  # with a larger share of non-zero inputs rows are taken whole
PORTION = 0.05  # seconds between two looks at signals
AT_ONCE = 5_000_000  # operations, at first: a look is soon enough also for programs of a million operations
LARGE = 1e150  # sums of products of such numbers may be infinite, or not, as they are ordered
REPLAYS = 8  # that one version keeps for the next call
UNSURE = _replay.ORDER_MATTERS
_eagerly = threading.local()  # .rows: how many functions of programs this thread runs for a row


@overload
def compile(function: Callable[..., Any]) -> Program: ...
@overload
def compile(function: None = None) -> Callable[[Callable[..., Any]], Program]: ...
def compile(function: Callable[..., Any] | None = None) -> Any:
    """A Program of a function that takes the numbers of one row and returns one number.

    Also a decorator, with or without arguments.
    TypeError if it is given something that cannot be called, or, at the first call, returns something else.

    >>> import fastscalar as fs, numpy as np
    >>> w = fs.to_tensor([1.0, 2.0, 3.0])
    >>> @fs.compile
    ... def error(x, y):
    ...     s = 0.0
    ...     for j in range(3):
    ...         s = s + x[j] * w[j]
    ...     return (s - y) ** 2
    >>> X, y = np.eye(3), np.array([1.0, 1.0, 1.0])
    >>> error(X[1], y[1])
    1.0
    >>> error.map(X, y)
    array([0., 1., 4.])
    >>> error.backward(X, y)
    array([0., 1., 4.])
    >>> w.grad
    array([0., 2., 4.])
    """
    return Program if function is None else Program(function)


# --- arguments ------------------------------------------------------------------------------------


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


def _handles(kinds: Sequence[Any], row: Sequence[Any]) -> tuple[list[Any], list[Any]]:
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


def _eager_column(kind: Any, data: np.ndarray, some: np.ndarray) -> Iterable[Any]:
    """An argument of the function for some rows; one that they share is one Tensor for all of them."""
    if data.ndim == 0:
        return itertools.repeat(Tensor(float(data)) if kind[0] == "shared" else int(data))
    if kind[0] == "array":
        return map(to_tensor, data[some])
    return map(Tensor, data[some].tolist()) if kind[0] == "number" else data[some].tolist()


# --- versions -------------------------------------------------------------------------------------


class Version:
    """One recording: its graph, its plans, and replays that nobody uses at the moment."""

    def __init__(self, graph: Any, sizes: list[int]) -> None:
        self.graph = graph
        self.sizes = sizes
        self.key = _whole_numbers(graph)
        self.served = 0                          # rows that it fitted
        self.lost: list[Any] = []                # places where gradients get lost, until that was said
        self.known: tuple[int, np.ndarray] | None = None     # an input, and its values, if it holds for no others
        self.plans: dict[Any, Any] = {}
        self.free: dict[Any, list[Any]] = {}
        self._lock = Lock()

    @property
    def captures(self) -> list[Any]:
        return self.graph.captures

    def may_fit(self, rows: Rows, some: np.ndarray) -> np.ndarray:
        """Which rows have whole numbers that it is for: a mask."""
        if self.known is None:
            return np.ones(len(some), bool)
        at, known = self.known
        return np.isin(rows.whole_columns()[at][some], known)

    def plan(self, shared: frozenset[int], parameters: list[Any] | None = None, plain: bool = False) -> Any:
        """How it is computed; plain: in the order of the function, for rows with numbers for which that matters."""
        trained = None if parameters is None else _data.trained_elements(self.graph.captures, parameters)
        key = (shared, None if trained is None else tuple(map(_which, trained)), plain)
        with self._lock:
            if key not in self.plans:
                self.plans[key] = rewrite(self.graph, self.sizes, shared, trained, plain)
            return self.plans[key]

    def take(self, plan: Any, batch: int, wide: bool, threads: int) -> Any:
        key = (id(plan), batch, wide, threads, _replay.kernel_set())
        with self._lock:
            if self.free.get(key):
                return self.free[key].pop()
        return _replay.Replay(plan, batch, wide, threads)

    def give(self, replay: Any, batch: int) -> None:
        replay.release_inputs()
        key = (id(replay.plan), batch, replay.wide, replay.threads, _replay.kernel_set())
        with self._lock:
            self.free.setdefault(key, []).append(replay)
            while sum(map(len, self.free.values())) > REPLAYS:
                oldest = next(iter(self.free))
                self.free[oldest].pop()
                if not self.free[oldest]:
                    del self.free[oldest]


def _which(elements: np.ndarray) -> Any:
    """Which elements of a capture are trained, to compare; short for millions of which all are."""
    return True if len(elements) > 1 and elements.all() else elements.tobytes()


Key = tuple[tuple[int, int], ...]  # of a recording: (input, its value) of each whole number that it holds for


def _whole_numbers(graph: Any) -> Key:
    """The whole numbers of a row that a recording read: it holds for no others."""
    guards = graph.guards
    read = guards[(guards["op"] == READ_SAME) | ((guards["op"] == ARE_EQUAL) & (guards["value"] != 0.0))]
    found = {}
    for guard in read:
        left, right = int(guard["left"]), int(guard["right"])
        if graph.op[left] != NODE_INPUT or graph.inputs[graph.a[left]] != "whole":
            continue
        if guard["op"] == READ_SAME:
            found[int(graph.a[left])] = int(guard["value"])
        elif graph.op[right] == NODE_CONSTANT and float(graph.value[right]).is_integer():
            found[int(graph.a[left])] = int(graph.value[right])
    return tuple(sorted(found.items()))


class Site:
    """The versions of a program for arguments of one signature.

    Whole numbers of the data that were read (as an index of a list, by `range`) are known beforehand: they choose among
    recordings by a table, `keyed`, by inputs and by their values, and these have no other limit than memory."""

    def __init__(self) -> None:
        self.versions: list[Version] = []        # that hold for any whole numbers
        self.keyed: dict[tuple[int, ...], dict[tuple[int, ...], list[Version]]] = {}
        self.families: list[tuple[Family, Version]] = []     # versions that whole numbers select an operand of
        self.recorded = 0                        # versions, those included that were given up
        self.operations = 0                      # of the keyed ones
        self.misfits = 0                         # recordings that their own row did not fit
        self.captures: list[Any] = []            # of recordings that were given up: their leaves are still trained,
        self.lost: list[Any] = []                # and where gradients get lost is still to be said
        self.eager = False                       # no more versions: what none fits runs eagerly
        self.first: tuple[list[Any], list[Any], Version] | None = None    # the first recording, until it was looked at

    def __bool__(self) -> bool:
        """Whether there is a recording, or there will be none."""
        return bool(self.versions or self.keyed or self.eager)

    def all(self) -> list[Version]:
        keyed = (v for table in list(self.keyed.values()) for some in list(table.values()) for v in list(some))
        return [*self.versions, *keyed]

    def bucket(self, key: Key) -> list[Version]:
        """Where the recordings with a key stand."""
        if not key:
            return self.versions
        inputs, values = zip(*key, strict=True)
        return self.keyed.setdefault(inputs, {}).setdefault(values, [])

    def give_up(self, some: list[Version]) -> None:
        for version in some:
            self.bucket(version.key).remove(version)
            self.families = [pair for pair in self.families if pair[1] is not version]
            self.captures += version.captures
            self.lost += version.lost

    def only(self) -> Version | None:
        """The one recording, if there is no other."""
        found = self.all()
        return found[0] if len(found) == 1 and not found[0].key else None

    def relative(self, version: Version) -> Version | None:
        """A version that a recording fits in, since it only selects another operand; that one may be new."""
        if len(version.key) != 1:
            return None
        ((at, value),) = version.key
        for k, (family, old) in enumerate(self.families):
            if family.at == at and family.add(version.graph, value):
                if old in self.versions:
                    self.versions.remove(old)
                self.families[k] = family, self._grown(family, version, old)
                return self.families[k][1]
        for values, bucket in list(self.keyed.get((at,), {}).items())[:4]:
            for known in bucket:
                family = Family(known.graph, at, values[0])
                if family.add(version.graph, value):
                    family.complete(version.graph, value)
                    bucket.remove(known)
                    self.families.append((family, self._grown(family, version, known)))
                    return self.families[-1][1]
        return None

    def _grown(self, family: Family, version: Version, old: Version) -> Version:
        made = Version(family.graph(), version.sizes)
        made.known = family.at, np.array(sorted(family.selected))
        made.lost, made.served = version.lost + old.lost, old.served
        self.versions.append(made)
        self.recorded += 1
        return made


def _groups(rows: Rows, inputs: tuple[int, ...], some: np.ndarray) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Rows with the same values of these inputs, together."""
    columns = rows.whole_columns()
    values = np.stack([columns[i][some] for i in inputs], axis=1)
    if len(some) == 1:
        yield tuple(values[0].tolist()), some
        return
    order = np.lexsort(values.T)
    ordered = values[order]
    ends = np.flatnonzero((ordered[1:] != ordered[:-1]).any(axis=1)) + 1
    for part in np.split(order, ends):
        yield tuple(values[part[0]].tolist()), some[np.sort(part)]


class _Failure(Exception):
    """A row that raises: `row`, `error`."""

    def __init__(self, row: int, error: BaseException) -> None:
        self.row, self.error = row, error


def _named(row: int, error: BaseException) -> BaseException:
    """The same error, saying which row it was."""
    if type(error) in (ValueError, ZeroDivisionError, OverflowError, IndexError, FloatingPointError, ArithmeticError):
        return type(error)(f"row {row}: {error}").with_traceback(error.__traceback__)
    error.add_note(f"row {row}")
    return error


class Program:
    """What `fastscalar.compile` makes of a function.

    The first call records; others replay what was recorded, over many rows at once and without Python.  Leaves that
    the function reads (parameters) are captured: each replay uses the value that they have then, and `backward` leaves
    gradients in them.  Everything else that it reads is frozen, until `reset()`.

    >>> import fastscalar as fs, numpy as np
    >>> w = fs.Tensor(2.0)
    >>> f = fs.Program(lambda x: (x * w).exp())
    >>> f.value_and_grad(np.zeros(3))
    (array([1., 1., 1.]), array([2., 2., 2.]))
    >>> print(f.report())
    2 operations -> 1 *, 1 exp
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        if not callable(function):
            raise TypeError(f"compile: expected a function, got {type(function).__name__}")
        self.function = function
        self.__wrapped__ = function
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.__doc__ = getattr(function, "__doc__", None)
        self._sites: dict[Any, Site] = {}
        self._lock = Lock()
        self._eager_leaves: dict[Any, Any] = {}  # read by rows that ran eagerly,
        self._wants_leaves = False               # while fit wants to know

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the function, and records anew."""
        return {"function": self.function}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["function"])  # type: ignore[misc]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: each object has a program of its own, kept in its attributes."""
        if instance is None:
            return self
        bound = type(self)(self.function.__get__(instance, owner))
        return vars(instance).setdefault(self.__name__, bound)       # another thread may have been here first

    def __repr__(self) -> str:
        return f"<fastscalar program {self.__name__}>"

    # --- what a user calls ---

    def __call__(self, *arguments: Any) -> float:
        """The value for one row, a float; the first call records.

        Called with Tensors or TensorArrays, or by the function of another program, it is the function itself: the
        result is a Tensor, and gradients pass.

        >>> import fastscalar as fs
        >>> square = fs.compile(lambda x: x * x)
        >>> square(3.0)
        9.0
        >>> fs.grad(square)(3.0)
        6.0
        """
        if _recording() or vars(_eagerly).get("rows") or any(map(_holds_tensors, arguments)):
            return self.function(*map(_as_in_a_program, arguments))
        rows = One(arguments, self.__name__)
        try:
            return float(self._values(rows, 1)[0])
        except _Failure as failure:
            raise failure.error from None

    def map(self, *arguments: Any, threads: int = 1) -> np.ndarray:
        """One value for each row: float64 of shape (n,).

        Arrays have a row for each sample, along their first axis; a single number is the same for all rows.
        ValueError if the arrays do not have the same number of rows, at least one; TypeError for what is no number.
        Raises what the function raises for the first row that does, with that row named.  threads: the values do not
        depend on it; more than there are cores are a RuntimeWarning and not used.

        >>> import fastscalar as fs, numpy as np
        >>> fs.compile(lambda x, k: x[0] * k).map(np.array([[1.0, 5.0], [2.0, 6.0]]), 10.0)
        array([10., 20.])
        """
        rows = self._rows(arguments, "map")
        try:
            return self._values(rows, thread_count(threads))
        except _Failure as failure:
            raise _named(failure.row, failure.error) from failure.error

    def value_and_grad(self, *arguments: Any, argnums: int | Sequence[int] = 0, threads: int = 1) -> tuple[Any, Any]:
        """Values, (n,), and for each row the derivatives by the arguments `argnums`.

        Of an array argument they have its shape; of a single number, which all rows share, it is their sum, a float.
        Captured leaves keep their gradients.  With a tuple of argnums a tuple of derivatives.
        Errors as in `map`; ValueError if there is no such argument, or if it holds whole numbers.

        >>> import fastscalar as fs, numpy as np
        >>> f = fs.compile(lambda x, k: x[0] * x[1] * k)
        >>> f.value_and_grad(np.array([[2.0, 3.0]]), 10.0, argnums=(0, 1))
        (array([60.]), (array([[30., 20.]]), 6.0))
        """
        rows = self._rows(arguments, "value_and_grad")
        try:
            numbers = tuple(map(operator.index, argnums if isinstance(argnums, (tuple, list)) else [argnums]))
        except TypeError:
            raise TypeError(
                f"{self.__name__}.value_and_grad: argnums: expected a whole number or several, got {argnums!r}"
            ) from None
        for k in numbers:
            if not -len(arguments) <= k < len(arguments):
                raise ValueError(
                    f"{self.__name__}.value_and_grad: argnums: no argument {k}, there are {len(arguments)}"
                )
            if rows.kinds[k][0] in ("whole", "wholes"):
                raise ValueError(f"{self.__name__}.value_and_grad: argnums: argument {k} holds whole numbers")
        gradients = {k % len(arguments): np.zeros(rows.data[k].shape) for k in numbers}
        try:
            values = self._gradients(rows, thread_count(threads), gradients)
        except _Failure as failure:
            raise _named(failure.row, failure.error) from failure.error
        found = tuple(g if g.ndim else float(g) for g in (gradients[k % len(arguments)] for k in numbers))
        return values, found if isinstance(argnums, (tuple, list)) else found[0]

    def backward(self, *arguments: Any, accumulate: bool = False, threads: int = 1) -> np.ndarray:
        """The values, (n,); leaves the sum over the rows of their derivatives in `.grad` of the captured leaves.

        Their gradients are reset first, unless accumulate=True.  All or nothing: if a row raises, none has changed.
        Errors as in `map`.

        >>> import fastscalar as fs, numpy as np
        >>> w = fs.Tensor(3.0)
        >>> f = fs.compile(lambda x: x * x * w)
        >>> f.backward(np.array([1.0, 2.0]))
        array([ 3., 12.])
        >>> w.grad
        5.0
        """
        rows = self._rows(arguments, "backward")
        try:
            return self._gradients(rows, thread_count(threads), None, accumulate)
        except _Failure as failure:
            raise _named(failure.row, failure.error) from failure.error

    def report(self) -> str:
        """What was recovered from the recordings so far, a line for each.

        >>> import fastscalar as fs
        >>> f = fs.compile(lambda x: fs.sum(x * x))
        >>> f([1.0, 2.0, 3.0, 4.0])
        30.0
        >>> print(f.report())
        8 operations -> 1 dot(4)
        """
        lines: dict[str, int] = {}
        versions = self._versions()
        for signature, version in versions:
            line = version.plan(_shared(signature)).summary
            lines[line] = lines.get(line, 0) + 1
        some = [line if n == 1 else f"{n} times: {line}" for line, n in lines.items()]
        if len(versions) > 1:
            file, number = _parting([version for _, version in versions])
            some.append(f"they part at {file}:{number}")
        return "\n".join(some) or f"{self.__name__}: nothing was recorded yet"

    def reset(self) -> None:
        """Forget all recordings: the next call records again.

        >>> import fastscalar as fs
        >>> k = 2.0
        >>> f = fs.compile(lambda x: x * k)
        >>> f(1.0), f(1.0)                           # the second call looks whether the function does what it did
        (2.0, 2.0)
        >>> k = 5.0                                  # frozen in the recording
        >>> f(1.0)
        2.0
        >>> f.reset()
        >>> f(1.0)
        5.0
        """
        with self._lock:
            self._sites.clear()

    @property
    def parameters(self) -> list[Any]:
        """The captured leaves of all versions: Tensors, and arrays as one-dimensional TensorArrays."""
        found: dict[Any, Any] = {}
        captures = [capture for site in list(self._sites.values()) for capture in site.captures]
        for capture in (*captures, *(c for _, version in self._versions() for c in version.captures)):
            found.setdefault(storage_of(capture), capture)
        for leaf in list(self._eager_leaves.values()):
            found.setdefault(storage_of(leaf), leaf)
        return list(found.values())

    def _versions(self) -> list[tuple[Any, Version]]:
        """With their signatures; a copy, since other threads may record."""
        return [(signature, v) for signature, site in list(self._sites.items()) for v in site.all()]

    # --- recording ---

    def _rows(self, arguments: Sequence[Any], method: str) -> Rows:
        if _recording():
            name = self.__name__
            raise RuntimeError(f"{name}.{method} inside a compiled function: call {name} itself there")
        return Rows(arguments, f"{self.__name__}.{method}")

    def _site(self, rows: Rows) -> Site:
        """Of the rows' signature; the second time, whether the function does what it did."""
        key = tuple(("number",) if k == ("shared",) else k for k in rows.kinds)
        with self._lock:
            site = self._sites.setdefault(key, Site())
            if site.first is not None:
                try:
                    same = self.repeats(site)
                except _Failure:                 # of a row that may not be among these
                    same = False
                if not same:
                    self.forget(site)
            return site

    def forget(self, site: Site) -> None:
        """The function does not repeat itself: from now on it is called for every row."""
        site.give_up(site.all())
        site.eager = True
        self._warn(
            "does something else when it is called again (it draws random numbers, counts, or reads something that has "
            "changed), which a program would freeze: it runs eagerly. Draw them outside and pass them as arguments; "
            "reset() where something has changed for good"
        )

    def _record(self, site: Site, rows: Rows, i: int) -> tuple[Version | None, float]:
        """A version that fits row i, and its value.  None if this program cannot be replayed, or not any more."""
        with self._lock:
            try:
                graph, value, sizes, lost = self._recorded(rows.kinds, rows.row(i))
            except NotReplayable as reason:
                site.eager = True
                site.lost += reason.lost
                self._warn(f"{reason} cannot be replayed: this program runs eagerly")
                return None, float("nan")
            except Exception as error:
                raise _Failure(i, rows.explained(error)) from error
            version = Version(graph, sizes)
            version.lost = lost
            families = len(site.families)
            relative = site.relative(version)
            if relative is not None:
                if len(site.families) > families:
                    relative = self._complete(site, rows, *site.families[-1])
                return relative, value
            bucket = site.bucket(version.key)
            keyed = graph.operations if version.key else 0
            if len(bucket) + site.misfits >= VERSIONS or (keyed and site.operations + keyed > KEYED_OPERATIONS):
                site.eager = True
                self._warn(self._why(site))
                site.give_up([known for known in site.all() if known.served <= 1])     # they only cost time
                return None, value
            bucket.append(version)
            site.recorded += 1
            site.operations += keyed
            if site.first is None and len(site.all()) == 1:
                site.first = list(rows.kinds), rows.row(i), version
            return version, value

    def _complete(self, site: Site, rows: Rows, family: Family, version: Version) -> Version:
        """Record a row of each other value that the rows have: the plan of all of them is made once.

        Of one of them, if lists have said what all select, to see whether that is so."""
        values, first = np.unique(rows.whole_columns()[family.at], return_index=True)
        for value, i in reversed(list(zip(values.tolist(), first.tolist(), strict=True))):
            if value in family.recorded:
                continue
            try:
                graph = self._recorded(rows.kinds, rows.row(i))[0]
            except Exception:
                break                            # its row will say it when its turn comes
            if family.predicts(graph, value):
                break
            family.forget_lists()
            if _whole_numbers(graph) != ((family.at, value),) or not family.add(graph, value):
                break
            family.complete(graph, value)
        site.versions.remove(version)
        site.families.pop()
        site.families.append((family, site._grown(family, version, version)))
        return site.families[-1][1]

    def _recorded(self, kinds: list[Any], row: list[Any]) -> tuple[Any, float, list[int], list[Any]]:
        """The graph of a call, its value, by input how many numbers it is, and where gradients got lost."""
        recording = Recording()
        with recording:
            arguments, recording.inputs = _handles(kinds, row)
            recording.begin()
            result = self._one_number(self.function(*arguments))
            try:
                graph = extract(recording, result)
            except NotReplayable as reason:
                reason.lost = recording.lost
                raise
        sizes = [handle.size if kind == "array" else 1 for kind, handle in recording.inputs]
        return graph, result.item(), sizes, recording.lost

    def _one_number(self, result: Any) -> Tensor:
        if isinstance(result, TracedInt):
            return result.tensor
        if isinstance(result, Tensor):
            return result
        if isinstance(result, bool) or not isinstance(result, (int, float, np.number)):
            got = type(result).__name__
            raise TypeError(f"{self.__name__}: expected one number (a Tensor) as result, got {got}")
        return Tensor(result)

    def repeats(self, site: Site) -> bool:
        """Whether a second recording of the first row is like the first one; asked once.  The _Failure of row 0 if it
        raises."""
        assert site.first is not None
        (kinds, row, version), site.first = site.first, None
        try:
            graph = self._recorded(kinds, row)[0]
        except NotReplayable:
            return False
        except Exception as error:
            raise _Failure(0, error) from error
        return same_graph(version.graph, graph)

    def _why(self, site: Site) -> str:
        file, line = _parting(site.all())
        return (
            f"more than {VERSIONS} ways through {self.__name__}; they part at {file}:{line}. "
            "Rows that none of them fits run eagerly. fastscalar.max, maximum, minimum or where instead of a decision "
            "on a value or reading it, and a TensorArray instead of a list that is indexed, make one way of them"
        )

    def warn_of_loss(self, of: Version | Site) -> None:
        """Gradients are asked for: say where some get lost."""
        places, of.lost = of.lost, []
        for place in dict.fromkeys(places):
            warn_of_loss(*line_of(place), getattr(self.function, "__module__", None), vars(self))

    def _warn(self, message: str) -> None:
        warn(f"{self.__name__}: {message}")

    # --- eagerly ---

    @contextmanager
    def _called(self, rows: Rows, some: np.ndarray) -> Iterator[Iterator[tuple[tuple[Any, ...], Tensor]]]:
        """Context of `_calls`, which ends with it: an interrupt between two rows leaves nothing open."""
        with closing(self._calls(rows, some)) as calls:
            yield calls

    def _calls(self, rows: Rows, some: np.ndarray) -> Generator[tuple[tuple[Any, ...], Tensor], None, None]:
        """The loop that a user would write: what the function was called with for some rows, and its results.

        Raises the _Failure of the first that raises."""
        function, at = self.function, -1
        columns = [_eager_column(kind, data, some) for kind, data in zip(rows.kinds, rows.data, strict=True)]
        calls = zip(*columns, strict=False) if columns else itertools.repeat(())
        state = vars(_eagerly)
        state["rows"] = state.get("rows", 0) + 1
        try:
            for at, arguments in zip(some.tolist(), calls, strict=False):  # noqa: B007 - said if it raises
                result = function(*arguments)
                yield arguments, result if type(result) is Tensor else self._one_number(result)
        except Exception as error:
            raise _Failure(at, rows.explained(error)) from error
        finally:
            state["rows"] -= 1

    def _eager_values(self, rows: Rows, some: np.ndarray, values: np.ndarray) -> None:
        with self._called(rows, some) as calls:
            values[some] = [result.data for _, result in calls]

    @staticmethod
    def _sum(losses: list[Tensor]) -> Tensor:
        with _record():
            return total(losses)

    def eager_losses(self, rows: Rows, some: np.ndarray) -> tuple[list[Tensor], list[tuple[Any, ...]], list[Any]]:
        """Results for some rows, what the function was called with, and the leaves that it read."""
        marker = Tensor(0.0)
        losses, arguments = [], []
        with _record(), self._called(rows, some) as calls:       # as replays do, also in a block of no_grad
            for given, result in calls:
                losses.append(result)
                arguments.append(given)
            leaves = leaves_before(marker, total(losses)) if losses else []
        if self._wants_leaves:
            for leaf in leaves:
                self._eager_leaves.setdefault(storage_of(leaf), leaf)
        return losses, arguments, leaves

    # --- replays ---

    def _bind(self, replay: Any, rows: Rows, gradients: dict[int, np.ndarray] | None = None) -> None:
        at = 0
        for k, (kind, data) in enumerate(zip(rows.kinds, rows.data, strict=True)):
            wanted = None if gradients is None else gradients.get(k)
            if kind[0] == "array":
                flat = data.reshape(rows.n, -1)
                products = replay.wants_sparse(at)
                replay.bind(
                    at, flat, None if wanted is None else wanted.reshape(rows.n, -1), products and rows.finite(k)
                )
                if products:
                    found = rows_by_entries(rows, k, replay.wide, replay.parts)
                    if found is not None:
                        replay.sparse(at, *found)
            elif kind[0] == "shared":
                replay.share(at, float(data))
            elif kind[0] == "number":
                replay.bind(at, data, wanted)
            else:
                columns = np.broadcast_to(data, (rows.n,)) if data.ndim == 0 else data
                for column in columns.reshape(rows.n, -1).T:
                    replay.bind(at, np.ascontiguousarray(column))
                    at += 1
                continue
            at += 1

    def _replay(
        self, version: Version, rows: Rows, threads: int, wide: bool, gradients: Any = None, plain: bool = False
    ) -> Any:
        replay = version.take(version.plan(_shared(rows.signature), None, plain), BATCH, wide, threads)
        replay.load()
        self._bind(replay, rows, gradients)
        return replay

    def _values(self, rows: Rows, threads: int) -> np.ndarray:
        values, _, eager = self._classify(rows, threads)
        if len(eager):
            self._eager_values(rows, eager, values)
        return values

    def _classify(
        self, rows: Rows, threads: int, chosen: np.ndarray | None = None, wide: bool = True
    ) -> tuple[np.ndarray, list[tuple[Version, np.ndarray]], np.ndarray]:
        """Which version fits which of all rows, or of the chosen ones, and their values; rows that none fits, sorted.

        Raises the _Failure of the lowest row that raises while it is recorded: all below it fit a version."""
        site = self._site(rows)
        values = np.empty(rows.n)
        found: list[tuple[Version, np.ndarray]] = []
        pending = np.arange(rows.n, dtype=np.int64) if chosen is None else chosen
        alone: list[int] = []                    # rows that do not fit their own recording

        def attempt(version: Version, some: np.ndarray) -> np.ndarray:
            fits = version.may_fit(rows, some)
            fits[fits] = self._try(version, rows, some[fits], values, threads, wide) if fits.any() else True
            if fits.any():
                found.append((version, some[fits]))
                version.served += int(np.count_nonzero(fits))
            return some[~fits]

        known = site.recorded
        for version in list(site.versions):
            if len(pending):
                pending = attempt(version, pending)
        for inputs, table in list(site.keyed.items()):
            left = []
            for key, some in _groups(rows, inputs, pending) if len(pending) else ():
                for version in list(table.get(key, ())):
                    if len(some):
                        some = attempt(version, some)
                left.append(some)
            pending = np.concatenate(left) if left else pending
        while len(pending) and not site.eager:
            i = int(pending.min())
            made = None
            with self._lock:
                if site.recorded == known:
                    made, _ = self._record(site, rows, i)
                    if made is None:
                        break
                following = site.all() if made is None else [made]       # all: another thread has recorded meanwhile
                known = site.recorded
            for version in following:
                same = np.ones(len(pending), bool)
                for k, value in version.key:
                    same &= rows.whole_columns()[k][pending] == value
                others, pending = pending[~same], pending[same]
                pending = np.concatenate([attempt(version, pending) if len(pending) else pending, others])
            if made is not None and (pending == i).any():
                alone.append(i)
                pending = pending[pending != i]
                self._count_misfit(site, made)
        return values, found, np.sort(np.concatenate([pending, np.array(alone, np.int64)]))

    def _count_misfit(self, site: Site, version: Version) -> None:
        """A recording that its own row does not fit: something overflows in it where the function's order does not, or
        a float32 falls on the other side of a decision."""
        with self._lock:
            site.misfits += 1
            bucket = site.bucket(version.key)
            if not version.served and version in bucket:
                site.give_up([version])

    def _try(
        self, version: Version, rows: Rows, some: np.ndarray, values: np.ndarray, threads: int, wide: bool
    ) -> np.ndarray:
        """Which of some rows a version fits; their values are set."""
        status = self._replay_values(version, rows, some, values, threads, wide)
        unsure = status == UNSURE
        if unsure.any():
            status[unsure] = self._replay_values(version, rows, some[unsure], values, threads, wide, True)
        return status == 0

    def _replay_values(
        self, version: Version, rows: Rows, some: np.ndarray, values: np.ndarray, threads: int, wide: bool,
        plain: bool = False,
    ) -> np.ndarray:  # fmt: skip
        """What a replay says about some rows; the values of those that it fits are set."""
        replay = self._replay(version, rows, threads, wide, None, plain)
        found = np.empty(len(some))
        status = np.empty(len(some), np.uint8)
        for part in _portions(len(some), replay.batch, version.graph.operations):
            replay.values(some[part], found[part], status[part])
        version.give(replay, BATCH)
        fits = status == 0
        values[some[fits]] = found[fits]
        return status

    def _gradients(
        self,
        rows: Rows,
        threads: int,
        gradients: dict[int, np.ndarray] | None,
        accumulate: bool = False,
        chosen: np.ndarray | None = None,
        wide: bool = True,
        reset: Callable[[], None] | None = None,
    ) -> np.ndarray:
        """Values; derivatives by arguments are added to `gradients`, or those by captured leaves left in them.

        chosen: only these rows.  reset: called before gradients are left in the leaves."""
        site = self._site(rows)
        all_rows = np.arange(rows.n, dtype=np.int64) if chosen is None else chosen
        with self._lock:
            if not site:                         # else another thread has just recorded
                self._record(site, rows, int(all_rows.min()))
        values = np.empty(rows.n)
        replays: list[tuple[Version, Any]] = []
        eager = np.empty(0, np.int64)
        version = site.only()                    # the common case: one way for all rows
        if version is not None and not version.may_fit(rows, all_rows).all():
            version = None
        if version is not None:
            replays = self._backward(version, rows, all_rows, values, threads, gradients, wide)
        if not replays:
            values, found, eager = self._classify(rows, threads, chosen, wide)
            missed = []
            for version, fits in found:
                made = self._backward(version, rows, fits, values, threads, gradients, wide)
                replays += made
                if not made:                     # at the edge of an error, by another rounding
                    missed.append(fits)
            eager = np.sort(np.concatenate([eager, *missed]))
        if len(eager):
            self.warn_of_loss(site)
        if gradients is not None:
            self._collect(replays, rows, eager, values, gradients)
        else:
            losses, _, leaves = self.eager_losses(rows, eager)       # before anything changes
            values[eager] = [loss.data for loss in losses]
            if reset is not None:
                reset()
            self._commit(replays, losses, leaves, accumulate or reset is not None)
        for version, replay in replays:
            version.give(replay, BATCH)
        return values

    def _backward(
        self,
        version: Version,
        rows: Rows,
        some: np.ndarray,
        values: np.ndarray,
        threads: int,
        gradients: Any,
        wide: bool,
        plain: bool = False,
    ) -> list[tuple[Version, Any]]:
        """Replays of a version with the gradients of some rows in them; none if it does not fit all of them.

        Rows for which the order of additions matters are replayed in that of the function."""
        self.warn_of_loss(version)
        replay = self._replay(version, rows, threads, wide, gradients, plain)
        found = np.empty(len(some))
        status = np.zeros(len(some), np.uint8)
        fits = True
        for part in _portions(len(some), replay.batch, version.graph.operations):
            last = part.stop == len(some)
            first, by_arguments = part.start == 0, gradients is not None
            fits = replay.gradients(some[part], found[part], status[part], by_arguments, first, last)
            if not fits and (status & ~np.uint8(UNSURE)).any():
                break
        if fits and not status.any():
            values[some] = found
            return [(version, replay)]
        version.give(replay, BATCH)
        unsure = status == UNSURE
        if (status[~unsure] != 0).any():
            return []
        replays: list[tuple[Version, Any]] = []
        for way, chosen in ((False, some[~unsure]), (True, some[unsure])):
            if not len(chosen):
                continue
            made = self._backward(version, rows, chosen, values, threads, gradients, wide, way)
            if not made:
                for _, replay in replays:
                    version.give(replay, BATCH)
                return []
            replays += made
        return replays

    def _collect(
        self,
        replays: list[tuple[Version, Any]],
        rows: Rows,
        eager: np.ndarray,
        values: np.ndarray,
        gradients: dict[int, np.ndarray],
    ) -> None:
        """Derivatives by arguments: what replays have summed up of shared ones, and all of rows that ran eagerly."""
        inputs = _first_inputs(rows.kinds)
        for _, replay in replays:
            for k, gradient in gradients.items():
                if rows.kinds[k] == ("shared",):
                    gradient += replay.shared_gradient(inputs[k])
        with _data.KeptGradients(always=True) as kept:
            for part in np.split(eager, range(BATCH, len(eager), BATCH)) if len(eager) else ():
                losses, arguments, leaves = self.eager_losses(rows, part)
                kept.add(leaves)
                values[part] = [loss.data for loss in losses]
                self._sum(losses).backward()
                for k, gradient in gradients.items():
                    if rows.kinds[k] != ("shared",):
                        gradient[part] = [np.asarray(given[k].grad) for given in arguments]
                    else:
                        gradient += arguments[0][k].grad

    def _commit(
        self, replays: list[tuple[Version, Any]], losses: list[Tensor], leaves: list[Any], accumulate: bool
    ) -> None:
        """The gradients of replays and of losses that were computed eagerly, to the leaves."""
        if len(replays) == 1 and not losses:
            replays[0][1].commit_gradients(accumulate)
            return
        with _data.KeptGradients(always=False) as kept:
            for version, _ in replays:
                kept.add(version.captures)
            kept.add(leaves)
            if not accumulate:
                for _, replay in replays:
                    replay.commit_gradients(False, True)
                for p in leaves:
                    p.grad = 0.0
            for _, replay in replays:
                replay.commit_gradients(True)
            if losses:
                self._sum(losses).backward(accumulate=True)


def _parting(versions: list[Version]) -> tuple[str, int]:
    """File and line where most versions part."""
    places: dict[Any, int] = {}
    for version in versions:
        for place, count in places_of(version.graph):
            places[place] = places.get(place, 0) + count
    return line_of(max(places, key=places.__getitem__) if places else None)


def _holds_tensors(argument: Any) -> bool:
    if isinstance(argument, (list, tuple)):
        return any(map(_holds_tensors, argument))
    if isinstance(argument, np.ndarray):
        return argument.dtype == object and any(map(_holds_tensors, argument.flat))
    return isinstance(argument, (Tensor, TensorArray, TracedInt))


def _as_in_a_program(argument: Any) -> Any:
    """What a call from another function passes, as it reaches the function in a recording."""
    if isinstance(argument, (float, np.floating)):
        return Tensor(argument)
    if isinstance(argument, np.ndarray) and argument.dtype == object and argument.size and _holds_tensors(argument):
        return elementwise("*", argument, 1.0) if argument.ndim else argument.item()
    if not isinstance(argument, (np.ndarray, list, tuple)) or _holds_tensors(argument) or not len(argument):
        return argument
    values = np.asarray(argument)
    if values.dtype.kind == "f":
        return to_tensor(values)
    return values.tolist() if values.dtype.kind in "iub" else argument


def _first_inputs(kinds: Sequence[Any]) -> list[int]:
    """By argument, its first input in the recording."""
    first, at = [], 0
    for kind in kinds:
        first.append(at)
        at += int(np.prod(kind[1])) if kind[0] == "wholes" else 1
    return first


def _shared(signature: Sequence[Any]) -> frozenset[int]:
    """Inputs that are one number for all rows."""
    first = _first_inputs(signature)
    return frozenset(first[k] for k, kind in enumerate(signature) if kind == ("shared",))


def rows_by_entries(rows: Rows, k: int, wide: bool, parts: int) -> Any:
    """Argument k by the non-zero entries of its rows, if few are; remembered with the rows."""
    known = rows.__dict__.setdefault("entries", {})
    if (k, wide, parts) not in known:
        known[k, wide, parts] = _data.sparse_rows(rows.data[k].reshape(rows.n, -1), wide, SPARSE, parts)
    return known[k, wide, parts]


def _portions(n: int, batch: int, operations: int) -> Iterator[slice]:
    """Stretches of rows, so that a signal need not wait much longer than PORTION.  Each has whole batches: where they
    end must not depend on the clock."""
    size, first = batch * max(1, min(4 * BATCH, AT_ONCE // (operations + 1)) // batch), 0
    while first < n:
        start = time.perf_counter()
        yield slice(first, min(n, first + size))
        first += size
        if time.perf_counter() - start < PORTION / 2:
            size *= 2


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_count(value: Any, what: str = "threads") -> int:
    """A number of threads as it was given, or, with a warning, how many there are cores for: more are only slower."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{what}: expected a whole number of at least 1, got {value!r}")
    there = cores() if value > 1 else 1
    if value > there:
        many = "1 core" if there == 1 else f"{there} cores"
        warn(f"{what}: {value} are asked for, and this process may use {many}: it takes {there}", RuntimeWarning)
    return min(operator.index(value), there)
