"""Functions of floats, called once for many rows, where that is provably the same as row by row.

Such a function is given columns in the place of floats.  A column answers to operations that treat each row alone, and
to nothing else: what looks at its numbers (`if x > 0`, `float(x)`, `np.all(x < 5)`), and what floats do otherwise than
arrays (a division by zero raises, True + True is 2), is refused, and the rows are then called one by one.  A comparison
of what came of it with single rows could not tell: a later batch may be the first that takes another branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# The operators that raise for floats where arrays give infinity or NaN.
_RAISING = {np.true_divide, np.floor_divide, np.remainder, np.divmod, np.power}
_OF_TRUTHS = {np.logical_and, np.logical_or, np.logical_xor, np.logical_not, np.bitwise_and, np.bitwise_or,
              np.bitwise_xor, np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal}  # fmt: skip
_TRUTH = "?"  # NumPy's letters for what columns hold
_FLOAT = "d"
# Functions that are no ufuncs, and which of their arguments may be columns.
_FUNCTIONS: dict[Callable[..., Any], tuple[int, ...]] = {
    np.where: (0, 1, 2),
    np.clip: (0, 1, 2),
    np.interp: (0,),
    np.polyval: (1,),
    np.sinc: (0,),
    np.zeros_like: (0,),
    np.ones_like: (0,),
}


class _Trial:
    """One call of a function with columns; refused, even where the function catches that."""

    __slots__ = ("refused",)

    def __init__(self) -> None:
        self.refused = False

    def refuse(self, what: str) -> TypeError:
        self.refused = True
        return TypeError(f"{what} of a column of numbers")


def _refusing(what: str) -> Callable[..., Any]:
    def refuse(self: Any, *_: Any) -> Any:
        raise self._trial.refuse(what)

    return refuse


class _Column(np.lib.mixins.NDArrayOperatorsMixin):
    """A float64 or a bool for each row."""

    __slots__ = ("_trial", "_values")
    _values: np.ndarray
    _trial: _Trial

    def __init__(self, values: np.ndarray, trial: _Trial) -> None:
        self._values, self._trial = values, trial

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # isinstance(x, float) is what functions of floats ask
        return float

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__array"):  # NumPy asks for those before it takes something for a single object
            self._trial.refuse(name)
        raise AttributeError(name)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **settings: Any) -> Any:
        trial = self._trial
        in_place = len(out) == 1 and out[0] is inputs[0]  # `x += 1`: of a float it makes another
        if method != "__call__" or ufunc.signature is not None or settings or (out and not in_place):
            raise trial.refuse(f"{ufunc.__name__}.{method}")
        values = [self._operand(x) for x in inputs]
        if ufunc not in _OF_TRUTHS:
            truths = [type(v) is bool or (type(v) is np.ndarray and v.dtype.char == _TRUTH) for v in values]
            if any(truths):
                if all(truths):  # True + True is 2 of Python's own, and True of NumPy's
                    raise trial.refuse(f"{ufunc.__name__} of truths")
                values = [1.0 * v if t else v for v, t in zip(values, truths, strict=True)]
        found = ufunc(*values)
        if ufunc in _RAISING and not all(np.isfinite(part).all() for part in np.atleast_2d(found)):
            raise trial.refuse(f"{ufunc.__name__}, which may raise,")
        return tuple(map(self._alike, found)) if ufunc.nout > 1 else self._alike(found)

    def __array_function__(self, function: Any, _types: Any, inputs: Sequence[Any], settings: Any) -> Any:
        if function is np.ndim or function is np.shape:
            return 0 if function is np.ndim else ()
        columns = _FUNCTIONS.get(function, ())
        if settings or not columns or (function in (np.where, np.clip) and len(inputs) != len(columns)):
            raise self._trial.refuse(getattr(function, "__name__", "a function"))
        values = [self._operand(x) if k in columns else x for k, x in enumerate(inputs)]
        if any(type(v) is _Column for v in values):
            raise self._trial.refuse(function.__name__)
        return self._alike(function(*values))

    def _operand(self, x: Any) -> Any:
        kind = type(x)
        if kind is _Column:
            return x._values
        if kind is float or kind is bool:
            return x
        if kind is np.float64 or kind is np.bool_:
            return x.item()
        if isinstance(x, (int, np.integer)) and abs(int(x)) <= 2**53:
            return float(x)
        # Arrays would be one element for each row; numbers of 32 bits make others of 32 bits, beside a float.
        raise self._trial.refuse(f"a {kind.__name__} with numbers")

    def _alike(self, found: Any) -> _Column:
        if found.dtype.char not in (_FLOAT, _TRUTH):
            if found.dtype.kind not in "iu":
                raise self._trial.refuse(f"numbers of type {found.dtype}")
            found = found.astype(float)
        return _Column(found, self._trial)


for _name in ("bool", "float", "int", "complex", "round", "trunc", "floor", "ceil", "hash", "repr", "str", "format",
              "invert", "reduce_ex"):  # fmt: skip
    setattr(_Column, f"__{_name}__", _refusing(_name))


def of_rows(function: Callable[..., Sequence[Any]], x: np.ndarray, count: int) -> np.ndarray | None:
    """What the function gives of each row of x (rows, operands), as (rows, count); None if its rows have to be called
    one by one: it looks at numbers, a row may raise, or a result is not finite."""
    trial = _Trial()
    found = np.empty((len(x), count))
    try:
        with np.errstate(all="ignore"):
            columns = function(*(_Column(column.copy(), trial) for column in x.T))
        for k, column in enumerate(columns):
            found[:, k] = column._values if type(column) is _Column else float(column)
    except Exception:  # row by row it says what is wrong, or nothing is
        return None
    return None if trial.refused or not np.isfinite(found).all() else found
