"""`TensorArray.data` and `TensorArray.grad`: live views that never expose memory.

The columns of the tape move when it grows and collects, so a view holds no pointer: every access goes through the
TensorArray that it was taken from.  It behaves like the NumPy array that it stands for, in-place operators included.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

# `+=` and `-=` in place: how often the operand is subtracted; operands that overflow or are invalid, for NumPy to tell.
_STEPS: dict[Any, Any] = {
    np.subtract: (1.0, np.array([-1.7e308, np.inf]), np.array([1.7e308, np.inf])),
    np.add: (-1.0, np.array([1.7e308, np.inf]), np.array([1.7e308, -np.inf])),
}


def _is_basic(key: Any) -> bool:
    """Whether a key selects by integers and slices only, so that it selects a view."""
    keys = key if isinstance(key, tuple) else (key,)
    return all(isinstance(k, (int, np.integer, slice)) and not isinstance(k, (bool, np.bool_)) for k in keys)


def _room(ufunc: np.ufunc, inputs: tuple[Any, ...], plain: list[Any]) -> np.ndarray | None:
    """The copy of a view that a result may be written to: to make fresh memory takes longer than the arithmetic."""
    if ufunc.nout != 1 or "d" * ufunc.nin + "->d" not in ufunc.types:
        return None
    copies = [p for x, p in zip(inputs, plain, strict=True) if isinstance(x, ArrayView)]
    fits = bool(copies) and all(
        type(p) is float or (type(p) is np.ndarray and p.dtype == np.float64 and p.shape in ((), copies[0].shape))
        for p in plain
    )
    return copies[0] if fits else None


class ArrayView(NDArrayOperatorsMixin):
    """The values (`field="data"`) or the gradients (`field="grad"`) of a TensorArray, as they are at each access.

    >>> import fastscalar as fs
    >>> p = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> p.data[0, 1] = 5.0
    >>> p.data -= 0.5 * np.ones((2, 2))
    >>> p.numpy()
    array([[0.5, 4.5],
           [2.5, 3.5]])
    """

    __slots__ = ("_array", "_field")

    def __init__(self, array: Any, field: str) -> None:
        self._array = array
        self._field = field

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self._array._read(self._field)
        return values if dtype is None else values.astype(dtype)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **kwargs: Any) -> Any:
        in_place = bool(out) and isinstance(out[0], ArrayView) and inputs[0] is out[0]
        if in_place and ufunc in _STEPS and not kwargs and self._stepped(ufunc, out[0], inputs[1]):
            return out[0]
        plain = [np.asarray(x) if isinstance(x, ArrayView) else x for x in inputs]
        if any(type(x).__name__ in ("Tensor", "TensorArray") for x in plain):
            return NotImplemented
        if not any(isinstance(x, ArrayView) for x in out):
            if method == "__call__" and not out and not kwargs:
                return ufunc(*plain, out=_room(ufunc, inputs, plain))
            return getattr(ufunc, method)(*plain, **({"out": out} if out else {}), **kwargs)
        if len(out) != 1 or method != "__call__":
            raise TypeError(f"{ufunc.__name__}: a view of a TensorArray can be the only out= of a plain call")
        result = ufunc(*plain, **({} if kwargs else {"out": _room(ufunc, inputs, plain)}))
        if np.shape(result) != self.shape and np.shape(result) != out[0].shape:
            raise ValueError(f"{ufunc.__name__}: a result of shape {np.shape(result)} does not fit in {out[0].shape}")
        out[0][...] = result
        return out[0]

    @staticmethod
    def _stepped(ufunc: np.ufunc, view: ArrayView, operand: Any) -> bool:
        """Whether `view += operand`, or -=, could be done without a copy."""
        times, left, right = _STEPS[ufunc]
        if view._field != "data" or not (done := view._array._subtract(operand, times)):
            return False
        for k in range(2):
            if done & (2 << k):
                ufunc(left[k : k + 1], right[k : k + 1])
        return True

    def __getitem__(self, key: Any) -> Any:
        if key is Ellipsis:
            return self
        if _is_basic(key):
            part = self._array[key]
            return ArrayView(part, self._field) if hasattr(part, "shape") else getattr(part, self._field)
        return np.asarray(self)[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is Ellipsis:
            self._array._write(self._field, value)
        elif _is_basic(key):
            part = self._array[key]
            if hasattr(part, "shape"):
                part._write(self._field, value)
            else:
                setattr(part, self._field, value)
        else:
            value = np.asarray(value)
            if value.dtype.kind not in "fiub":
                raise TypeError(f"TensorArray.{self._field}: expected real numbers, got an array of {value.dtype}")
            values = np.asarray(self)
            values[key] = value
            self._array._write(self._field, values)

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    def __getattr__(self, name: str) -> Any:
        """Everything else that an array has (`sum`, `mean`, `T`, `tolist`, `copy` ...), of a copy."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def size(self) -> int:
        return self._array.size

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float64)
