"""Derivatives of programs, for each row: Jacobians, Hessians, directional derivatives.

Each is a program of its own, of the function that `fastscalar.transforms` makes of the program's: its derivative is
recorded as it is computed, operation by operation, and lowered like any other graph.  So the dense kernels of the
derivative are found where those of the function are, and what is zero by structure is no operation at all.

The boundary: makes programs of functions; `replayed` computes rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastscalar._settings import scalar, shown
from fastscalar.program.nests import assembled, is_nest
from fastscalar.program.recorded import Gone, RowFailure, UnrecordedPath, raise_naming
from fastscalar.program.replayed import ReplayedFunction
from fastscalar.program.rows import Rows
from fastscalar.program.sharing import Sharing, shared_by_ranks
from fastscalar.program.streams import DRAWING
from fastscalar.transforms import transforms
from fastscalar.transforms.sparsity import PatternGrew, SparseJacobian, rows_by_shape

Argnums = int | str | Sequence[int | str]


class SparseRows(NamedTuple):
    """A sparse matrix for each row of the data, of one pattern: `values`, (n, entries), at `rows` and `columns`."""

    values: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    shape: tuple[int, int]


def _joined(parts: list[Any], shape: tuple[int, ...]) -> Any:
    """Derivatives of the numbers of an array, each with an axis of rows first, as one structure of arrays."""
    first = parts[0]
    if isinstance(first, dict):
        return {key: _joined([part[key] for part in parts], shape) for key in first}
    if isinstance(first, (tuple, list)):
        items = [_joined(list(some), shape) for some in zip(*parts, strict=True)]
        return type(first)(*items) if hasattr(type(first), "_fields") else type(first)(items)
    if first is None:
        return None
    return np.stack(parts, axis=1).reshape(len(first), *shape, *first.shape[1:])


def _require_like(x: Any, like: Any, where: str, shared: bool) -> None:
    """ValueError unless a tangent has the structure and shapes of an argument; a number may stand for one of each row,
    and the other way round."""
    if is_nest(like):
        keys = list(like) if isinstance(like, dict) else list(range(len(like)))
        if not (isinstance(x, dict) and x.keys() == set(keys) if isinstance(like, dict) else
                isinstance(x, (list, tuple)) and len(x) == len(keys)):  # fmt: skip
            said = f"a dictionary with the keys {keys}" if isinstance(like, dict) else f"a nest of {len(keys)}"
            raise ValueError(f"{where}: expected the structure of the argument, {said}, got {type(x).__name__}")
        for key in keys:
            _require_like(x[key], like[key], f"{where}[{key!r}]", shared)
        return
    try:
        expected, found = (tuple(getattr(one, "shape", None) or np.shape(one)) for one in (like, x))
    except ValueError:                           # ragged lists, which `map` knows how to say
        return
    got = type(x).__name__ if isinstance(x, (dict, str)) else found
    if expected != found and (shared or max(len(expected), len(found)) > 1 or (expected and found)):
        raise ValueError(f"{where}: expected an array of the shape of the argument, {expected}, got {got}")


class DifferentiatedFunction(ReplayedFunction):
    """The part of a Program that has derivatives by the row."""

    _derivatives: dict[Any, Any]

    def map(
        self, *arguments: Any, threads: int = 1, rows: int | None = None, dtype: str = "float64", **named: Any
    ) -> Any:
        raise NotImplementedError

    def _rows(self, arguments: Any, method: str, named: Any, n: int | None = None, per_row: bool = False) -> Any:
        raise NotImplementedError

    def _prepare(self, rows: Rows) -> None:
        """Record the first row, if that is to be done: then the nest of the results is known."""
        try:
            self._prepared(rows, None)
            rows.prepared = True
        except RowFailure as failure:
            raise_naming(failure.row, failure.error)

    def _by_arguments(self, rows: Any, method: str, argnums: Any, threads: int, seeds: Any, dtype: str) -> Any:
        raise NotImplementedError

    @shared_by_ranks
    def jacobian(
        self,
        *arguments: Any,
        argnums: Argnums = 0,
        sparse: bool = False,
        threads: int = 1,
        rows: int | None = None,
        dtype: str = "float64",
        **named: Any,
    ) -> Any:
        """All derivatives of all results by the arguments `argnums`, positions or names, for each row.

        Of a result of shape s by an argument of shape t: (n, *s, *t), in the structure of the results, and in each
        place of it the structure of the arguments, as `fastscalar.jacobian` has them for one row.  Also by `shared`
        arguments: a derivative for each row.  Entries that are zero by structure are not computed; sparse: a SparseRows
        of the others, rows and columns counted through the flattened results and arguments.
        Errors as in `map`; ValueError if there is no such argument.

        >>> import fastscalar as fs, numpy as np
        >>> f = fs.compile(lambda x: (x[0] * x[1], x[1] ** 2))
        >>> f.jacobian(np.array([[2.0, 3.0]]))
        (array([[3., 2.]]), array([[0., 6.]]))
        >>> f.jacobian(np.array([[2.0, 3.0]]), sparse=True)
        SparseRows(values=array([[3., 2., 6.]]), rows=array([0, 0, 1]), columns=array([0, 1, 1]), shape=(2, 2))
        """
        places = self._positions(argnums, "jacobian", len(arguments))
        if not sparse:
            key = ("jacobian", places)
            if isinstance(self.function, Gone) and key not in self._derivatives and self._has_loops():
                return self._by_results(arguments, named, places, threads, rows, dtype)
            program = self._derived(key, lambda f: transforms.jacobian_by(f, places, rows_by_shape))
            return program.map(*arguments, threads=threads, rows=rows, dtype=dtype, **named)
        program = self._derived(("sparse jacobian", places), lambda f: SparseJacobian(f, places))
        sharing = named.get("comm")
        while True:
            if isinstance(sharing, Sharing):
                sharing.same_pattern(program)
            try:
                values = np.stack(program.map(*arguments, threads=threads, rows=rows, dtype=dtype, **named), axis=1)
                break
            except PatternGrew:
                program.reset()
        function = program.function
        at = np.array(function.pattern, np.int64).reshape(-1, 2)
        return SparseRows(values[:, : len(at)], at[:, 0].copy(), at[:, 1].copy(), function.shape)

    @shared_by_ranks
    def hessian(
        self,
        *arguments: Any,
        argnums: Argnums = 0,
        threads: int = 1,
        rows: int | None = None,
        dtype: str = "float64",
        **named: Any,
    ) -> Any:
        """All second derivatives of the result by the arguments `argnums`, for each row.

        By an argument of shape t: (n, *t, *t); by several, or a nest, in their structure, and in each place of it the
        structure once more, as `fastscalar.hessian` has them for one row.  Errors as in `jacobian`; TypeError if the
        function returns more than one number.

        >>> import fastscalar as fs, numpy as np
        >>> fs.compile(lambda x: x[0] ** 2 * x[1]).hessian(np.array([[3.0, 5.0]]))
        array([[[10.,  6.],
                [ 6.,  0.]]])
        """
        places = self._positions(argnums, "hessian", len(arguments))
        what = f"{self.__name__}.hessian"
        program = self._derived(("hessian", places), lambda f: transforms.hessian_by(f, places, what))
        return program.map(*arguments, threads=threads, rows=rows, dtype=dtype, **named)

    @shared_by_ranks
    def jvp(
        self,
        *arguments: Any,
        tangents: Any,
        threads: int = 1,
        rows: int | None = None,
        dtype: str = "float64",
        **named: Any,
    ) -> tuple[Any, Any]:
        """The results, and their derivatives along a direction: forward mode.

        tangents: for each argument, a tuple of them if there are several, what has its structure and shapes; None where
        it does not change.  Errors as in `map`; ValueError for tangents of other shapes.

        >>> import fastscalar as fs, numpy as np
        >>> f = fs.compile(lambda x, k: (x[0] * x[1], x[0] * k))
        >>> f.jvp(np.array([[2.0, 3.0]]), 4.0, tangents=(np.array([[1.0, 0.0]]), None))
        ((array([6.]), array([8.])), (array([3.]), array([4.])))
        """
        return self._along("jvp", arguments, tangents, None, threads, rows, dtype, named)

    @shared_by_ranks
    def hvp(
        self,
        *arguments: Any,
        tangents: Any,
        argnums: Argnums | None = None,
        threads: int = 1,
        rows: int | None = None,
        dtype: str = "float64",
        **named: Any,
    ) -> Any:
        """The Hessian times a vector, for each row, without the Hessian.

        tangents: the vector, as in `jvp`; or, with argnums, what these arguments' part of it is, the rest being zero.
        The product has the structure and shapes of the arguments that the vector is given for, None for the others.
        Errors as in `jvp`; TypeError if the function returns more than one number.

        >>> import fastscalar as fs, numpy as np
        >>> f = fs.compile(lambda x: x[0] ** 2 * x[1])
        >>> f.hvp(np.array([[3.0, 5.0]]), tangents=np.array([[1.0, 0.0]]))
        array([[10.,  6.]])
        """
        return self._along("hvp", arguments, tangents, argnums, threads, rows, dtype, named)

    def _has_loops(self) -> bool:
        return any(item[0] == "call" for _, one in self._specializations() for item in one.graph.items)

    def _by_results(
        self, arguments: Any, named: dict[str, Any], argnums: Any, threads: int, n: int | None, dtype: str
    ) -> Any:
        """The Jacobian of a function with loops that is not there any more: a way back through them for each result."""
        given = self._rows(arguments, "jacobian", dict(named), n, True)
        self._prepare(given)
        nest, width = given.cache.nest, given.cache.width
        seeds, found = np.zeros((given.n, width)), []
        for k in range(width):
            seeds[:] = 0.0
            seeds[:, k] = 1.0
            found.append(self._by_arguments(given, "jacobian", argnums, threads, seeds, dtype)[1])
        rows = iter(found)

        def leaf(count: int = 1, shape: tuple[int, ...] = ()) -> Any:
            return _joined([next(rows) for _ in range(count)], shape)

        return assembled(nest, leaf, lambda a: leaf(a.size, a.shape))

    # --- programs of derivatives ---

    def _derived(self, key: Any, make: Callable[[Any], Any], shared: tuple[int | str, ...] = ()) -> Any:
        """The program of a function that is made of this one's; made once."""
        with self._lock:
            if key not in self._derivatives and isinstance(self.function, Gone):
                raise UnrecordedPath(f"{self.__name__}.{key[0]} was not called before the program was saved")
            if key not in self._derivatives:
                program = type(self)(make(self.function), shared=(*self._positions_shared(), *shared))
                program._exact_where_not_finite = True
                self._derivatives[key] = program
            return self._derivatives[key]

    def _positions_shared(self) -> tuple[int | str, ...]:
        """What is shared, by position where it has one: functions of functions have no names."""
        places = self._places()
        return tuple(places[s] if isinstance(s, str) and places.get(s, -1) >= 0 else s for s in self._shared)

    def _positions(self, argnums: Any, method: str, count: int) -> Any:
        """argnums as whole numbers."""
        what = f"{self.__name__}.{method}: argnums"

        def position(k: Any) -> int:
            if isinstance(k, str):
                if self._places().get(k, -1) < 0:
                    raise ValueError(f"{what}: no argument {k!r} that has a position")
                return self._places()[k]
            k = scalar(k)
            if isinstance(k, bool) or not isinstance(k, int):
                raise TypeError(f"{what}: expected a whole number or several, got {shown(argnums)}")
            if not -count <= k < count:
                raise ValueError(f"{what}: no argument {shown(k)}, there are {count}")
            return k % count

        return tuple(map(position, argnums)) if isinstance(argnums, (tuple, list)) else position(argnums)

    def _along(
        self,
        method: str,
        arguments: Sequence[Any],
        tangents: Any,
        argnums: Any,
        threads: int,
        rows: int | None,
        dtype: str,
        named: dict[str, Any],
    ) -> Any:
        """jvp or hvp by the arguments that have a tangent."""
        keywords = (*DRAWING, "comm") if isinstance(named.get("comm"), Sharing) else DRAWING
        streams = {key: named.pop(key) for key in keywords if key in named and key not in self._places()}
        arguments, names, shared = self._bound(arguments, named)
        count = len(arguments) - len(names)
        what = f"{self.__name__}.{method}: tangents"
        if argnums is not None:
            places = self._positions(argnums, method, count)
            single = not isinstance(places, tuple)
            given = dict(zip([places] if single else places, [tangents] if single else tangents, strict=True))
        else:
            single = count == 1 and not isinstance(tangents, tuple)
            several = (tangents,) if single else tangents
            if not isinstance(several, (tuple, list)) or len(several) != count:
                raise ValueError(f"{what}: expected one for each of {count} arguments, None where it does not change")
            given = {k: tangent for k, tangent in enumerate(several) if tangent is not None}
        if not given:
            raise ValueError(f"{what}: expected one at least")
        for k, tangent in given.items():
            _require_like(tangent, arguments[k], what if single else f"{what}[{k}]", k in shared)
        chosen = tuple(given)
        of_shared = tuple(count + at for at, k in enumerate(chosen) if k in shared)
        transform = getattr(transforms, method)

        def make(f: Callable[..., Any]) -> Callable[..., Any]:
            def along(*both: Any, **more: Any) -> Any:
                fixed, direction = list(both[:count]), both[count:]

                def of_chosen(*some: Any) -> Any:
                    for k, value in zip(chosen, some, strict=True):
                        fixed[k] = value
                    return f(*fixed, **more)

                return transform(of_chosen, tuple(both[k] for k in chosen), tuple(direction))

            along.__name__ = f"{method}({self.__name__})"
            return along

        program = self._derived((method, count, chosen, of_shared), make, of_shared)
        by_name = {**dict(zip(names, arguments[count:], strict=True)), **streams}
        both = (*arguments[:count], *given.values())
        found = program.map(*both, threads=threads, rows=rows, dtype=dtype, **by_name)
        if method == "jvp" or argnums is not None:
            return found[0] if method == "hvp" and single else found
        return found[0] if single else tuple(dict(zip(chosen, found, strict=True)).get(k) for k in range(count))
