"""compile: record a scalar program once, and replay it over the rows of a data set.

The boundary: here is what a user holds, and what becomes of errors.  `recorded` has the recordings of a function,
`replayed` computes rows with them; `_trace` records, `_lower` plans, `_replay` runs plans.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from fastscalar.engine._modes import is_recording
from fastscalar.engine._step import storage_of
from fastscalar.program.recorded import RowFailure, naming_row
from fastscalar.program.replayed import ReplayedFunction, _eagerly
from fastscalar.program.rows import One, Rows, as_in_a_program, holds_tensors, shared_inputs
from fastscalar.program.specializations import where_they_part
from fastscalar.program.threads import thread_count


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


class Program(ReplayedFunction):
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
        if is_recording() or vars(_eagerly).get("rows") or any(map(holds_tensors, arguments)):
            return self.function(*map(as_in_a_program, arguments))
        rows = One(arguments, self.__name__)
        try:
            return float(self._values(rows, 1)[0])
        except RowFailure as failure:
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
        except RowFailure as failure:
            raise naming_row(failure.row, failure.error) from failure.error

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
        except RowFailure as failure:
            raise naming_row(failure.row, failure.error) from failure.error
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
        except RowFailure as failure:
            raise naming_row(failure.row, failure.error) from failure.error

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
        specializations = self._specializations()
        for signature, specialization in specializations:
            line = specialization.plan(shared_inputs(signature)).summary
            lines[line] = lines.get(line, 0) + 1
        some = [line if n == 1 else f"{n} times: {line}" for line, n in lines.items()]
        if len(specializations) > 1:
            file, number = where_they_part([specialization for _, specialization in specializations])
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
            self._caches.clear()

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

    def _rows(self, arguments: Sequence[Any], method: str) -> Rows:
        if is_recording():
            name = self.__name__
            raise RuntimeError(f"{name}.{method} inside a compiled function: call {name} itself there")
        return Rows(arguments, f"{self.__name__}.{method}")
