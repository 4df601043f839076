"""compile: record a scalar program once, and replay it over the rows of a data set.

The boundary: `_program` records, `_rewrite` plans, `_replay` computes.  Here are the programs that a user holds: which
recording fits which rows, what happens when none does, and what becomes of errors.
"""

from __future__ import annotations

import operator
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np

from fastscalar import _replay
from fastscalar._array import TensorArray, TracedInt, storage_of, to_tensor
from fastscalar._core import Tensor, _recording
from fastscalar._forks import lock_of
from fastscalar._program import NotReplayable, Recording, extract, leaves_before, line_of, places_of, same_graph
from fastscalar._rewrite import rewrite

MISSED, SUSPECT = 1, 2  # status of a row, as `_replay` has it
VERSIONS = 64  # recordings of one program for arguments of one shape
BATCH = 256  # rows at once
SPARSE = 0.5  # with a larger share of non-zero inputs rows are taken whole
PORTION = 0.05  # seconds between two looks at signals
AT_ONCE = 5_000_000  # operations, at first: a look is soon enough also for programs of a million operations
REPLAYS = 8  # that one version keeps for the next call
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_eagerly = threading.local()  # .rows: how many functions of programs this thread runs for a row


class CompileWarning(UserWarning):
    """A program, or a part of its rows, runs eagerly; the message says why and what to write instead.

    >>> import fastscalar as fs, warnings
    >>> triple = fs.custom_op(lambda x: 3.0 * x, lambda x: 3.0, name="triple")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fs.compile(triple)(2.0)
    6.0
    >>> caught[0].category.__name__
    'CompileWarning'
    """


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

    def __init__(self, arguments: Sequence[Any], name: str) -> None:
        self.kinds: list[Any] = []  # "array" and its shape, "number", "whole", "wholes" and their shape; shared or not
        self.data: list[Any] = []
        self.columns: dict[int, str] = {}  # lists that may have been meant as columns, by the rows that they had then
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
        self.kinds, self.data, self.columns, self.n = [], [], {}, -1
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


def _eager_arguments(kinds: Sequence[Any], row: Sequence[Any]) -> list[Any]:
    arguments = []
    for kind, value in zip(kinds, row, strict=True):
        if kind[0] == "array":
            arguments.append(to_tensor(value))
        elif kind[0] in ("number", "shared"):
            arguments.append(Tensor(float(value)))
        else:
            arguments.append(int(value) if kind[0] == "whole" else value.tolist())
    return arguments


# --- versions -------------------------------------------------------------------------------------


class Version:
    """One recording: its graph, its plans, and replays that nobody uses at the moment."""

    def __init__(self, graph: Any, sizes: list[int], stopped: bool = False) -> None:
        self.stopped = stopped                   # there are blocks of no_grad in it
        self.graph = graph
        self.sizes = sizes
        self.plans: dict[Any, Any] = {}
        self.free: dict[Any, list[Any]] = {}
        self._lock = lock_of(self)

    @property
    def captures(self) -> list[Any]:
        return self.graph.captures

    def plan(self, shared: frozenset[int], parameters: list[Any] | None = None) -> Any:
        trained = None if parameters is None else _replay.trained_elements(self.graph.captures, parameters)
        key = (shared, None if trained is None else tuple(map(_which, trained)))
        with self._lock:
            if key not in self.plans:
                self.plans[key] = rewrite(self.graph, self.sizes, shared, trained)
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


class Site:
    """The versions of a program for arguments of one signature."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self.eager = False  # no more versions: what none fits runs eagerly


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
        self._lock = lock_of(self)
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
            return self.function(*arguments)
        rows = One(arguments, self.__name__)
        site = self._site(rows.signature)
        if not site.versions and not site.eager:
            try:
                return self._record(site, rows, 0)[1]
            except _Failure as failure:
                raise failure.error from None
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
        lines = [version.plan(_shared(signature)).summary for signature, version in self._versions()]
        return "\n".join(lines) or f"{self.__name__}: nothing was recorded yet"

    def reset(self) -> None:
        """Forget all recordings: the next call records again.

        >>> import fastscalar as fs
        >>> k = 2.0
        >>> f = fs.compile(lambda x: x * k)
        >>> f(1.0)
        2.0
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
        for _, version in self._versions():
            for capture in version.captures:
                found.setdefault(storage_of(capture), capture)
        for leaf in list(self._eager_leaves.values()):
            found.setdefault(storage_of(leaf), leaf)
        return list(found.values())

    def _versions(self) -> list[tuple[Any, Version]]:
        """With their signatures; a copy, since other threads may record."""
        return [(signature, v) for signature, site in list(self._sites.items()) for v in list(site.versions)]

    # --- recording ---

    def _rows(self, arguments: Sequence[Any], method: str) -> Rows:
        if _recording():
            name = self.__name__
            raise RuntimeError(f"{name}.{method} inside a compiled function: call {name} itself there")
        return Rows(arguments, f"{self.__name__}.{method}")

    def _site(self, signature: tuple[Any, ...]) -> Site:
        with self._lock:
            return self._sites.setdefault(tuple(("number",) if k == ("shared",) else k for k in signature), Site())

    def _record(self, site: Site, rows: Rows, i: int) -> tuple[Version | None, float]:
        """A version that fits row i, and its value.  None if this program cannot be replayed, or not any more."""
        with self._lock:
            recording = Recording()
            try:
                with recording:
                    arguments, recording.inputs = _handles(rows.kinds, rows.row(i))
                    recording.begin()
                    result = self.function(*arguments)
                    if isinstance(result, TracedInt):
                        result = result.tensor
                    if not isinstance(result, Tensor):
                        if isinstance(result, bool) or not isinstance(result, (int, float, np.number)):
                            got = type(result).__name__
                            raise TypeError(f"{self.__name__}: expected one number (a Tensor) as result, got {got}")
                        result = Tensor(result)
                    graph = extract(recording, result)
                value = result.item()
            except NotReplayable as reason:
                site.eager = True
                self._warn(f"{reason} cannot be replayed: this program runs eagerly")
                return None, result.item()
            except Exception as error:
                raise _Failure(i, rows.explained(error)) from error
            stopped = bool(recording.stopped)
            sizes = [handle.size if kind == "array" else 1 for kind, handle in recording.inputs]
            if len(site.versions) >= VERSIONS:
                site.eager = True
                self._warn(self._why(site))
                return None, value
            version = Version(graph, sizes, stopped)
            site.versions.append(version)
            return version, value

    def repeats(self, rows: Rows) -> bool:
        """Whether a second recording of the first row is like the first one."""
        site = self._site(rows.signature)
        with self._lock:
            if not site.versions:
                return True
            self._record(site, rows, 0)
            return len(site.versions) < 2 or same_graph(site.versions[0].graph, site.versions.pop().graph)

    def _why(self, site: Site) -> str:
        """The place where most versions part."""
        places: dict[Any, int] = {}
        for version in site.versions:
            for place, count in places_of(version.graph):
                places[place] = places.get(place, 0) + count
        file, line = line_of(max(places, key=places.__getitem__) if places else None)
        return (
            f"more than {VERSIONS} ways through {self.__name__}; they part at {file}:{line}. "
            "Rows that none of them fits run eagerly. fastscalar.maximum, minimum or where instead of a decision on a "
            "value, and a TensorArray instead of a list that is indexed, make one way of them"
        )

    def _warn(self, message: str) -> None:
        warn(f"{self.__name__}: {message}")

    # --- eagerly ---

    def _eager(self, rows: Rows, i: int) -> tuple[Tensor, list[Any]]:
        marker = Tensor(0.0)
        arguments = _eager_arguments(rows.kinds, rows.row(i))
        _eagerly.rows = vars(_eagerly).get("rows", 0) + 1
        try:
            result = self.function(*arguments)
        except Exception as error:
            raise _Failure(i, rows.explained(error)) from error
        finally:
            _eagerly.rows -= 1
        loss = result if isinstance(result, Tensor) else Tensor(result)
        if self._wants_leaves:
            for leaf in leaves_before(marker, loss):
                self._eager_leaves.setdefault(storage_of(leaf), leaf)
        return loss, arguments

    # --- replays ---

    def _bind(self, replay: Any, rows: Rows, gradients: dict[int, np.ndarray] | None = None) -> None:
        at = 0
        for k, (kind, data) in enumerate(zip(rows.kinds, rows.data, strict=True)):
            wanted = None if gradients is None else gradients.get(k)
            if kind[0] == "array":
                flat = data.reshape(rows.n, -1)
                replay.bind(at, flat, None if wanted is None else wanted.reshape(rows.n, -1))
                if replay.wants_sparse(at):
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

    def _replay(self, version: Version, rows: Rows, threads: int, wide: bool, gradients: Any = None) -> Any:
        replay = version.take(version.plan(_shared(rows.signature)), BATCH, wide, threads)
        replay.trusting = False
        replay.load()
        self._bind(replay, rows, gradients)
        return replay

    def _values(self, rows: Rows, threads: int) -> np.ndarray:
        return self._classify(rows, threads)[0]

    def _classify(
        self, rows: Rows, threads: int, chosen: np.ndarray | None = None, wide: bool = True
    ) -> tuple[np.ndarray, list[tuple[Version | None, np.ndarray]]]:
        """The values of all rows, or of the chosen ones, and which version fits which of them (None: none, eagerly).

        Raises the _Failure of the lowest row that raises."""
        site = self._site(rows.signature)
        values = np.empty(rows.n)
        pending = np.arange(rows.n, dtype=np.int64) if chosen is None else chosen
        found: list[tuple[Version | None, np.ndarray]] = []
        failure: _Failure | None = None
        alone: dict[int, float] = {}             # rows that miss their own recording: a decision at a tie
        k, made, recorded, value = 0, None, -1, 0.0
        while len(pending):
            following = site.versions[k : k + 1]     # a copy: another thread may drop the last one
            if following:
                version = following[0]
                k += 1
            elif site.eager:
                break
            else:
                recorded = int(pending.min())
                try:
                    made, value = self._record(site, rows, recorded)
                except _Failure as raised:
                    failure = raised
                    break
                if made is None:
                    break
                continue
            fits, missed, raised_here = self._try(version, rows, pending, values, threads, wide)
            if raised_here is not None and (failure is None or raised_here.row < failure.row):
                failure = raised_here
            if len(fits):
                found.append((version, fits))
            if version is made and recorded in missed:
                alone[recorded] = value
                missed = missed[missed != recorded]
                if not len(fits) and self._forget(site, version):
                    k -= 1
            pending = missed
            if failure is not None:
                pending = pending[pending < failure.row]
        if failure is not None:
            raise failure
        for i in pending:
            values[i] = self._eager(rows, int(i))[0].item()
        for i, value in alone.items():
            values[i] = value
        pending = np.concatenate([pending, np.array(list(alone), np.int64)])
        if len(pending):
            found.append((None, pending))
        return values, found

    def _forget(self, site: Site, version: Version) -> bool:
        """Drop a recording that fits nothing, if it is still the last."""
        with self._lock:
            if site.versions and site.versions[-1] is version:
                site.versions.pop()
                return True
        return False

    def _try(
        self, version: Version, rows: Rows, pending: np.ndarray, values: np.ndarray, threads: int, wide: bool
    ) -> tuple[np.ndarray, np.ndarray, _Failure | None]:
        """Which of the pending rows a version fits, which it does not, and the first that raises."""
        replay = self._replay(version, rows, threads, wide)
        some = np.empty(len(pending))
        status = np.empty(len(pending), np.uint8)
        for part in _portions(len(pending), replay.batch, version.graph.operations):
            replay.values(pending[part], some[part], status[part])
        version.give(replay, BATCH)
        fits = (status & MISSED) == 0
        values[pending[fits]] = some[fits]
        for i in np.sort(pending[fits & ((status & SUSPECT) != 0)]):
            try:
                values[i] = self._eager(rows, int(i))[0].item()
            except _Failure as failure:
                return pending[fits], pending[~fits], failure
        return pending[fits], pending[~fits], None

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
        site = self._site(rows.signature)
        all_rows = np.arange(rows.n, dtype=np.int64) if chosen is None else chosen
        if not site.versions and not site.eager:
            self._record(site, rows, int(all_rows.min()))
        replays: list[Any] = []
        versions = site.versions[:]
        if len(versions) == 1:                   # the common case: one way for all rows
            version = versions[0]
            values, some_values = np.empty(rows.n), np.empty(len(all_rows))
            replay = self._backward(version, rows, all_rows, some_values, threads, gradients, False, wide)
            if replay is not None:
                values[all_rows] = some_values
                replays, eager = [(version, replay)], np.empty(0, np.int64)
        if not replays:
            values, found = self._classify(rows, threads, chosen, wide)
            eager = np.empty(0, np.int64)
            for some, fits in found:
                if some is None:
                    eager = fits
                elif len(fits):
                    some_values = np.empty(len(fits))
                    replay = self._backward(some, rows, fits, some_values, threads, gradients, True, wide)
                    replays.append((some, replay))
        if gradients is not None:
            self._collect(replays, rows, eager, gradients)
        else:
            if reset is not None:
                reset()
            self._commit(replays, rows, eager, accumulate or reset is not None)
        for version, replay in replays:
            version.give(replay, BATCH)
        return values

    def _backward(
        self,
        version: Version,
        rows: Rows,
        chosen: np.ndarray,
        values: np.ndarray,
        threads: int,
        gradients: Any,
        trusting: bool,
        wide: bool,
    ) -> Any:
        """The replay of a version with the gradients of some rows in it; None if it does not fit all of them."""
        replay = self._replay(version, rows, threads, wide, gradients)
        replay.trusting = trusting
        status = np.empty(len(chosen), np.uint8)
        for part in _portions(len(chosen), replay.batch, version.graph.operations):
            last = part.stop == len(chosen)
            if not replay.gradients(
                chosen[part], values[part], status[part], gradients is not None, part.start == 0, last
            ):
                version.give(replay, BATCH)
                return None
        return replay

    def _collect(
        self, replays: list[Any], rows: Rows, eager: np.ndarray, gradients: dict[int, np.ndarray]
    ) -> None:
        inputs = _first_inputs(rows.kinds)
        for _, replay in replays:
            for k, gradient in gradients.items():
                if rows.kinds[k] == ("shared",):
                    gradient += replay.shared_gradient(inputs[k])
        for i in eager:
            loss, arguments = self._eager(rows, int(i))
            with _kept_gradients(self.parameters):
                loss.backward()
                for k, gradient in gradients.items():
                    if rows.kinds[k] == ("shared",):
                        gradient += arguments[k].grad
                    else:
                        gradient[i] = np.asarray(arguments[k].grad)

    def _commit(self, replays: list[Any], rows: Rows, eager: np.ndarray, accumulate: bool) -> None:
        if len(replays) == 1 and not len(eager):
            replays[0][1].commit_gradients(accumulate)
            return
        losses = [self._eager(rows, int(i))[0] for i in eager]    # all of them, before anything changes
        if not accumulate:
            for _, replay in replays:
                replay.commit_gradients(False, True)
            for loss in losses:
                loss.backward()
            for _, replay in replays:
                replay.commit_gradients(False, True)
            for loss in losses:
                reset_leaves(loss)
        for _, replay in replays:
            replay.commit_gradients(True)
        for loss in losses:
            loss.backward(accumulate=True)


def warn(message: str, category: type[Warning] = CompileWarning) -> None:
    """A warning at the line of the user's that led to it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _holds_tensors(argument: Any) -> bool:
    if isinstance(argument, (list, tuple)):
        return any(map(_holds_tensors, argument))
    return isinstance(argument, (Tensor, TensorArray, TracedInt))


def reset_leaves(loss: Tensor) -> None:
    """Gradients of the leaves that a loss reaches to zero."""
    from fastscalar._graph import _reached

    for t in _reached(loss):
        if not t._parents:
            t.grad = 0.0


class _kept_gradients:
    """Context after which captured leaves have the gradients that they had before."""

    def __init__(self, parameters: list[Any]) -> None:
        self.parameters = parameters

    def __enter__(self) -> None:
        self.before = [p.grad if isinstance(p, Tensor) else np.array(p.grad) for p in self.parameters]

    def __exit__(self, *exc: Any) -> None:
        for p, gradient in zip(self.parameters, self.before, strict=True):
            p.grad = gradient


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
        known[k, wide, parts] = _replay.sparse_rows(rows.data[k].reshape(rows.n, -1), wide, SPARSE, parts)
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
