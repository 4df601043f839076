"""compile: record a scalar program once, and replay it over the rows of a data set.

The boundary: here is what a user holds, and what becomes of errors.  `recorded` has the recordings of a function,
`replayed` computes rows with them; `_trace` records, `_lower` plans, `_replay` runs plans.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from fastscalar._settings import whole_number
from fastscalar.engine._modes import is_recording
from fastscalar.engine._step import storage_of
from fastscalar.files import StrPath
from fastscalar.program._called import in_a_plain_way, is_inside
from fastscalar.program.derivatives import DifferentiatedFunction
from fastscalar.program.exported import write_c
from fastscalar.program.kept import read_program, recordings_of, take_up, write_program
from fastscalar.program.methods import CompiledMethod, MethodOf
from fastscalar.program.nests import Container as Nest
from fastscalar.program.nests import described, is_float64, of_one, of_rows, weights_of
from fastscalar.program.recorded import RowFailure, Shared, raise_naming
from fastscalar.program.reports import report
from fastscalar.program.rows import One, Rows, as_in_a_program, holds_tensors
from fastscalar.program.sharing import Sharing, asks_for_ranks, on_all_ranks, shared_by_ranks
from fastscalar.program.streams import DRAWING, Streams
from fastscalar.program.threads import thread_count


@overload
def compile(function: Callable[..., Any], *, shared: Shared = ()) -> Program: ...
@overload
def compile(function: None = None, *, shared: Shared = ()) -> Callable[[Callable[..., Any]], Program]: ...
def compile(function: Callable[..., Any] | None = None, *, shared: Shared = ()) -> Any:
    """A Program of a function that takes the numbers of one row and returns numbers.

    The results are one number, or tuples, lists, dictionaries and arrays of numbers, nested; so are the arguments.
    shared: names or positions of arguments that are one for all rows, whatever their shape.
    Also a decorator, with or without arguments.
    TypeError if it is given something that cannot be called, or, at the first call, returns something else; or if
    there is no such argument as `shared` names.

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
    if function is None:
        return lambda function: Program(function, shared=shared)
    return Program(function, shared=shared)


def load_program(path: StrPath) -> Program:
    """The program in a file that `Program.save` wrote.

    It has no function: a row that takes a way which was not recorded raises UnrecordedPath, which names it.  The leaves
    that it reads are new ones with the saved values, its `parameters`.  OSError; ValueError for a file that is no
    program, or that is damaged, or of a newer version.

    >>> import fastscalar as fs, os, tempfile
    >>> w, path = fs.Tensor(3.0), os.path.join(tempfile.mkdtemp(), "f.npz")
    >>> f = fs.compile(lambda x: x * w)
    >>> f(2.0)
    6.0
    >>> f.save(path)
    >>> g = fs.load_program(path)
    >>> g(5.0), g.parameters
    (15.0, [Tensor(data=3.0)])
    """
    return read_program(path, Program)


class Program(CompiledMethod, DifferentiatedFunction):
    """What `fastscalar.compile` makes of a function.

    The first call records; others replay what was recorded, over many rows at once and without Python.  Leaves that
    the function reads (parameters) are captured: each replay uses the value that they have then, and `backward` leaves
    gradients in them.  Everything else that it reads is frozen, until `reset()`.  function, shared: as in `compile`.

    >>> import fastscalar as fs, numpy as np
    >>> w = fs.Tensor(2.0)
    >>> f = fs.Program(lambda x: (x * w).exp())
    >>> f.value_and_grad(np.zeros(3))
    (array([1., 1., 1.]), array([2., 2., 2.]))
    >>> print(f.report())
    2 operations -> 1 *, 1 exp
    """

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the function and the recordings; of these, leaves become those that the function reads."""
        return {"function": self._as_state(), "shared": self._shared, "recordings": recordings_of(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        function = state["function"]
        function = function.bound() if isinstance(function, MethodOf) else function
        self.__init__(function, shared=state["shared"])  # type: ignore[misc]
        if state["recordings"] is not None:
            take_up(self, state["recordings"])

    def __repr__(self) -> str:
        return f"<fastscalar program {self.__name__}>"

    # --- what a user calls ---

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """The results for one row: a float, or the nest that the function returns; the first call records.

        Called with Tensors or TensorArrays, or by the function of another program, it is the function itself: the
        result is a Tensor, and gradients pass.

        >>> import fastscalar as fs
        >>> square = fs.compile(lambda x: x * x)
        >>> square(3.0)
        9.0
        >>> fs.grad(square)(3.0)
        6.0
        >>> fs.compile(lambda x: {"sum": x[0] + x[1], "both": (x[0], x[1])})([1.0, 2.0])
        {'sum': 3.0, 'both': (1.0, 2.0)}
        """
        for way in self._plain_ways:
            if (found := way.call(arguments, named)) is not None:
                return found
        inside = is_inside()
        if self._one_rows and not inside and (plain := self._by_position(arguments, named)) is not None:
            for nest, one in self._one_rows:
                if (values := one.value(plain)) is not None:
                    return of_one(nest, values)
        if inside or any(map(holds_tensors, arguments)) or (named and any(map(holds_tensors, named.values()))):
            named = {name: as_in_a_program(value) for name, value in named.items()}
            return self.function(*map(as_in_a_program, arguments), **named)
        if named or self._shared:
            given, names, shared = self._bound(arguments, named)
            rows = One(given, self.__name__, names, shared)
        else:
            rows = One(arguments, self.__name__)
        try:
            values = self._values(rows, 1)
        except RowFailure as failure:
            raise failure.error from None
        self._keep_short_way(rows)
        return of_one(rows.cache.nest, values[0])

    def map(
        self, *arguments: Any, threads: int = 1, rows: int | None = None, dtype: str = "float64", **named: Any
    ) -> Any:
        """The results of each row: float64 of shape (n,), or the nest that the function returns with an axis of rows
        before all others.

        Arrays have a row for each sample, along their first axis; a single number is the same for all rows, and so are
        strings, None, bools, and what is `shared`.  Tuples, lists and dictionaries of arrays are arguments too.
        rows: how many, where no array says it.  dtype: "float32" computes in single precision, and gives such arrays.
        ValueError if the arrays do not have the same number of rows, at least one; TypeError for what is no number, and
        where rows return different nests.
        Raises what the function raises for the first row that does, with that row named.  threads: the values do not
        depend on it; more than there are cores are a RuntimeWarning and not used.
        What the function draws by `fastscalar.random` follows from `seed=`, that of `random.seed` if it is left out,
        `epoch=` and `row_offset=`, both 0 if left out: row i has the numbers of `random.stream(seed, row_offset + i,
        epoch=epoch)`.  `antithetic=True`: rows 2k and 2k + 1 have mirrored ones, u and 1 - u.
        `comm=`, here and in all methods of rows, is a communicator whose ranks share the rows; each has all results, or
        with `gather=False` those of its own rows; sums over rows are of all (docs/scale-out.md).

        >>> import fastscalar as fs, numpy as np
        >>> fs.compile(lambda x, k: x[0] * k).map(np.array([[1.0, 5.0], [2.0, 6.0]]), 10.0)
        array([10., 20.])
        >>> fs.compile(lambda x: (x + 1, x * x)).map(np.array([1.0, 2.0, 3.0]))
        (array([2., 3., 4.]), array([1., 4., 9.]))
        >>> fs.compile(lambda x, p: x * p["a"] + p["b"], shared="p").map(np.array([1.0, 2.0]), {"a": 3.0, "b": 1.0})
        array([4., 7.])
        """
        plain = self._plain_ways and threads == 1 and rows is None and dtype == "float64" and not named
        if plain and (found := in_a_plain_way(self, "map", arguments, None)) is not None:
            return found
        if asks_for_ranks(self, named):
            return on_all_ranks(Program.map, self, *arguments, threads=threads, rows=rows, dtype=dtype, **named)
        given = self._rows(arguments, "map", named, rows)
        try:
            values = self._values(given, thread_count(threads), is_float64(dtype, f"{self.__name__}.map"))
        except RowFailure as failure:
            raise_naming(failure.row, failure.error)
        self._keep_plain_way(given)
        return of_rows(given.cache.nest, values, dtype)

    def value_and_grad(
        self,
        *arguments: Any,
        argnums: int | str | Sequence[int | str] = 0,
        threads: int = 1,
        has_aux: bool = False,
        per_row: bool = False,
        rows: int | None = None,
        dtype: str = "float64",
        **named: Any,
    ) -> tuple[Any, Any]:
        """Values, (n,), and for each row the derivatives by the arguments `argnums`, positions or names.

        Of an array argument they have its shape, of a nest its structure.  Of a single number, which all rows share,
        and of `shared` arguments, they are the sum over the rows, in the shape of the argument; per_row: one for each
        row, with an axis of rows before all others.  Captured leaves keep their gradients.  With a tuple of argnums a
        tuple of derivatives.  has_aux: the function returns (value, more); what comes back is ((value, more),
        derivatives), of the value alone.
        Other arguments and errors: as in `map`; ValueError if there is no such argument, or if it holds whole numbers;
        TypeError if the function returns more than one number.

        >>> import fastscalar as fs, numpy as np
        >>> f = fs.compile(lambda x, k: x[0] * x[1] * k)
        >>> f.value_and_grad(np.array([[2.0, 3.0]]), 10.0, argnums=(0, 1))
        (array([60.]), (array([[30., 20.]]), 6.0))
        >>> g = fs.compile(lambda x, w: x[0] * w[0] + x[1] * w[1], shared="w")
        >>> X, w = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([10.0, 1.0])
        >>> g.value_and_grad(X, w, argnums="w")
        (array([12., 34.]), array([4., 6.]))
        >>> g.value_and_grad(X, w, argnums="w", per_row=True)[1]
        array([[1., 2.],
               [3., 4.]])
        """
        plain = self._plain_ways and threads == 1 and not has_aux and rows is None and dtype == "float64" and not named
        if plain and (both := in_a_plain_way(self, "value_and_grad", arguments, argnums)) is not None:
            return both
        if asks_for_ranks(self, named):
            return on_all_ranks(Program.value_and_grad, self, *arguments, argnums=argnums, threads=threads,
                                has_aux=has_aux, per_row=per_row, rows=rows, dtype=dtype, **named)  # fmt: skip
        given = self._rows(arguments, "value_and_grad", named, rows, per_row)
        seeds = self._seeds_of_value(given, "value_and_grad", has_aux)
        values, found = self._by_arguments(given, "value_and_grad", argnums, threads, seeds, dtype)
        self._keep_plain_way(given)
        return of_rows(given.cache.nest, values, dtype), found

    @shared_by_ranks
    def vjp(
        self,
        *arguments: Any,
        cotangents: Any,
        argnums: int | str | Sequence[int | str] | None = None,
        threads: int = 1,
        per_row: bool = False,
        rows: int | None = None,
        dtype: str = "float64",
        **named: Any,
    ) -> tuple[Any, Any]:
        """The results, and for each row the derivatives of their sum weighted by `cotangents`: reverse mode.

        cotangents: in the structure of the results, with or without the axis of rows.  argnums: as in `value_and_grad`,
        whose shapes the derivatives have; None: a tuple for all arguments that hold real numbers, None for the others.
        Other arguments and errors: as there; ValueError for cotangents of another structure.

        >>> import fastscalar as fs, numpy as np
        >>> f = fs.compile(lambda x: (x[0] * x[1], x[0] + x[1]))
        >>> f.vjp(np.array([[2.0, 3.0]]), cotangents=(1.0, 10.0), argnums=0)
        ((array([6.]), array([5.])), array([[13., 12.]]))
        """
        given = self._rows(arguments, "vjp", named, rows, per_row)
        seeds = self._seeds(given, "vjp", cotangents)
        count = len(given.nests) if given.nests is not None else len(given.kinds)
        if argnums is not None:
            values, found = self._by_arguments(given, "vjp", argnums, threads, seeds, dtype)
        else:
            real = tuple(k for k in range(count) if given.is_real(k))
            values, some = self._by_arguments(given, "vjp", real, threads, seeds, dtype)
            by_number = dict(zip(real, some, strict=True))
            found = tuple(by_number.get(k) for k in range(count))
        return of_rows(given.cache.nest, values, dtype), found

    def backward(
        self,
        *arguments: Any,
        accumulate: bool = False,
        threads: int = 1,
        cotangents: Any = None,
        rows: int | None = None,
        dtype: str = "float64",
        **named: Any,
    ) -> Any:
        """The results, as in `map`; leaves the sum over the rows of their derivatives in `.grad` of captured leaves.

        Their gradients are reset first, unless accumulate=True.  All or nothing: if a row raises, none has changed.
        cotangents: what each result counts for, in the structure of the results, with or without the axis of rows.
        Other arguments and errors: as in `map`; TypeError for several results without cotangents.

        >>> import fastscalar as fs, numpy as np
        >>> w = fs.Tensor(3.0)
        >>> f = fs.compile(lambda x: x * x * w)
        >>> f.backward(np.array([1.0, 2.0]))
        array([ 3., 12.])
        >>> w.grad
        5.0
        >>> values = fs.compile(lambda x: (x * w, w * w)).backward(np.array([1.0, 2.0]), cotangents=(1.0, 0.5))
        >>> w.grad
        9.0
        """
        plain = threads == 1 and cotangents is None and rows is None and dtype == "float64"
        if plain and not named and not is_recording():
            for nest, one in self._one_rows:
                if nest is None and (values := one.backward(arguments, accumulate)) is not None:
                    return values.reshape(1)
            if (found := in_a_plain_way(self, "backward", arguments, accumulate)) is not None:
                return found
        if asks_for_ranks(self, named):
            return on_all_ranks(Program.backward, self, *arguments, accumulate=accumulate, threads=threads,
                                cotangents=cotangents, rows=rows, dtype=dtype, **named)  # fmt: skip
        given = self._rows(arguments, "backward", named, rows)
        if cotangents is None:
            seeds = self._seeds_of_value(given, "backward", False)
        else:
            seeds = self._seeds(given, "backward", cotangents)
        try:
            float64 = is_float64(dtype, f"{self.__name__}.backward")
            values = self._gradients(given, thread_count(threads), None, accumulate, float64=float64, seeds=seeds)
        except RowFailure as failure:
            raise_naming(failure.row, failure.error)
        if given.n == 1 and cotangents is None and float64:
            self._keep_short_way(given)
        self._keep_plain_way(given)
        return of_rows(given.cache.nest, values, dtype)

    def save(self, path: StrPath) -> None:
        """Write the recordings so far, with the values of the leaves that they read, to an .npz file.

        `fastscalar.load_program` reads it, in other processes too and without the function.  The derivatives that were
        asked for are in it.  Nothing is pickled.  OSError; ValueError if nothing was recorded, or if the function runs
        in Python for every row; TypeError for what a file cannot hold.

        >>> import fastscalar as fs, numpy as np, os, tempfile
        >>> f = fs.compile(lambda x: x[0] * x[1] if x[0] > 0 else x[1])
        >>> rows = np.array([[2.0, 3.0], [-1.0, 3.0]])
        >>> f.map(rows)
        array([6., 3.])
        >>> path = os.path.join(tempfile.mkdtemp(), "f.npz")
        >>> f.save(path)
        >>> g = fs.load_program(path)
        >>> g.value_and_grad(rows * 2)
        (array([24.,  6.]), array([[6., 4.],
               [0., 1.]]))
        """
        write_program(self, path)

    def export_c(self, path: StrPath, *, name: str | None = None) -> None:
        """Write the recordings so far as one C file that needs nothing but the C library (C99).

        Its functions compute the results of a row or of a batch, with or without their derivatives by all numbers of
        the row, and return a status where no recording fits, or where the Python function would raise; the comment at
        its head says how a row is laid out.  Where the program draws random numbers they also take a stream, and give a
        row the numbers that it has here.  Loops are written step by step, as the rows went that were recorded.
        name: of the functions; that of the file is taken if it is left out.
        Errors as of `save`; ValueError also if it was called with several kinds of arguments.

        >>> import fastscalar as fs, os, tempfile
        >>> f = fs.compile(lambda x: x[0] * x[1])
        >>> f([2.0, 3.0])
        6.0
        >>> path = os.path.join(tempfile.mkdtemp(), "f.c")
        >>> f.export_c(path)
        >>> "int f_derivatives(const double *x, double *y, double *d)" in open(path).read()
        True
        """
        write_c(self, path, name)

    def report(self, details: bool = False) -> str:
        """What was recovered from the recordings so far, a line for each; those that are alike share one.

        details: of each, those that served most rows first, how many these were, the lines where it decides, and the
        memory that it takes; the others are added up.

        >>> import fastscalar as fs
        >>> f = fs.compile(lambda x: fs.sum(x * x))
        >>> f([1.0, 2.0, 3.0, 4.0])
        30.0
        >>> print(f.report())
        8 operations -> 1 dot(4)
        """
        return report(self, details)

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
            self._caches.clear()
            self._one_rows, self._plain_ways = (), ()
            self._derivatives.clear()
            self._said = {key: said for key, said in self._said.items() if not isinstance(key, str)}
            self._wants = None

    @property
    def parameters(self) -> list[Any]:
        """The captured leaves of all specializations: Tensors, and arrays as one-dimensional TensorArrays."""
        found: dict[Any, Any] = {}
        captures = [capture for cache in list(self._caches.values()) for capture in cache.captures]
        captures += [capture for _, one in self._specializations() for capture in one.captures]
        for capture in captures:
            found.setdefault(storage_of(capture), capture)
        for leaf in list(self._eager_leaves.values()):
            found.setdefault(storage_of(leaf), leaf)
        return list(found.values())

    # --- arguments and derivatives ---

    def _rows(
        self,
        arguments: Sequence[Any],
        method: str,
        named: dict[str, Any],
        n: int | None = None,
        per_row: bool = False,
    ) -> Rows:
        name = f"{self.__name__}.{method}"
        if is_recording():
            raise RuntimeError(f"{name} inside a compiled function: call {self.__name__} itself there")
        if n is not None:
            n = whole_number(f"{name}: rows", n)
        sharing = named.pop("comm") if isinstance(named.get("comm"), Sharing) else None
        own = [key for key in DRAWING if key in named and key not in self._places()]
        streams = Streams(**{key: named.pop(key) for key in own}, what=name)
        arguments, names, shared = self._bound(arguments, named)
        given = Rows(arguments, name, names, shared, n, per_row, streams)
        given.sharing = sharing
        return given

    def _seeds(self, rows: Rows, method: str, cotangents: Any) -> np.ndarray:
        self._prepare(rows)
        what = f"{self.__name__}.{method}: cotangents"
        return weights_of(cotangents, rows.cache.nest, rows.n, rows.cache.width, what)

    def _seeds_of_value(self, rows: Rows, method: str, has_aux: bool) -> np.ndarray | None:
        """Adjoints that make one number of the results: the first; None: it is the only one."""
        self._prepare(rows)
        nest = rows.cache.nest
        if has_aux:
            if not isinstance(nest, Nest) or len(nest.items) != 2 or nest.keys is not None or nest.items[0] is not None:
                raise TypeError(
                    f"{self.__name__}.{method}: has_aux: expected (value, more) as result, got {described(nest)}"
                )
            seeds = np.zeros((rows.n, rows.cache.width))
            seeds[:, 0] = 1.0
            return seeds
        if rows.cache.width == 1:
            return None
        how = "cotangents= says what each result counts for" if method == "backward" else (
            "jacobian has the derivatives of all of them, vjp those of a weighted sum"
        )
        raise TypeError(f"{self.__name__}.{method}: expected one number as result, got {described(nest)}; {how}")

    def _by_arguments(
        self, rows: Rows, method: str, argnums: Any, threads: int, seeds: np.ndarray | None, dtype: str
    ) -> tuple[np.ndarray, Any]:
        """Results, and derivatives by arguments in their structure."""
        what = f"{self.__name__}.{method}: argnums"
        several = isinstance(argnums, (tuple, list))
        numbers = [self._argument_number(rows, k, what) for k in (argnums if several else [argnums])]
        gradients: dict[int, np.ndarray] = {}
        for k, given in zip(numbers, argnums if several else [argnums], strict=True):
            if not rows.is_real(k):
                raise ValueError(f"{what}: argument {given!r} holds whole numbers, or none")
            for leaf in filter(rows.is_real_leaf, rows.leaves_of(k)):
                gradients[leaf] = rows.room_for_gradient(leaf)
        try:
            float64 = is_float64(dtype, f"{self.__name__}.{method}")
            values = self._gradients(rows, thread_count(threads), gradients, float64=float64, seeds=seeds)
        except RowFailure as failure:
            raise_naming(failure.row, failure.error)

        def of(k: int) -> Any:
            some, twice = (gradients.get(leaf) for leaf in rows.leaves_of(k)), numbers.count(k) > 1
            given = (g if g is None else g.astype(dtype, copy=twice) if g.ndim else float(g) for g in some)
            return rows.argument(k, list(given))

        return values, tuple(map(of, numbers)) if several else of(numbers[0])
