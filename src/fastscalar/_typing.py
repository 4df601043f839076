"""What type checkers are told of functions that take numbers, Tensors and arrays: the kind of the result.

Plain numbers give a float, a Tensor among the arguments a Tensor, an array a TensorArray.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Protocol, TypeAlias, overload

import numpy as np

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine.views import ArrayView

Number: TypeAlias = int | float | Fraction | np.floating[Any] | np.integer[Any] | np.bool_
Scalar: TypeAlias = Tensor | Number
Array: TypeAlias = TensorArray | ArrayView
Row: TypeAlias = "TensorArray | ArrayView | Sequence[Any] | np.ndarray[Any, Any]"  # of numbers and Tensors


class Unary(Protocol):
    """A function of one operand."""

    @overload
    def __call__(self, x: Tensor, /) -> Tensor: ...
    @overload
    def __call__(self, x: Array, /) -> TensorArray: ...
    @overload
    def __call__(self, x: Number, /) -> float: ...


class Binary(Protocol):
    """A function of two operands."""

    @overload
    def __call__(self, a: Tensor, b: Scalar, /) -> Tensor: ...
    @overload
    def __call__(self, a: Number, b: Tensor, /) -> Tensor: ...
    @overload
    def __call__(self, a: Array, b: Array | Scalar, /) -> TensorArray: ...
    @overload
    def __call__(self, a: Scalar, b: Array, /) -> TensorArray: ...
    @overload
    def __call__(self, a: Number, b: Number, /) -> float: ...
