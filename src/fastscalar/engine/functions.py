"""The rows of the operation table as functions of numbers, Tensors and arrays."""

from __future__ import annotations

import builtins
from typing import Any

from fastscalar._core import Tensor
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import elementwise
from fastscalar.engine._functions import function_of, operation, operations
from fastscalar.engine.views import ArrayView

CODES = {name: code for code, name, _, is_method in operations() if is_method}


def of_arrays(name: str, *operands: Any) -> TensorArray:
    """A function of the table, element by element; TypeError for an operand that is neither array nor number."""
    value = elementwise(name, *operands) if len(operands) == 2 else getattr(operands[0], name)()
    if value is NotImplemented:
        kinds = " and ".join(type(x).__name__ for x in operands)
        raise TypeError(f"{name}: expected arrays, Tensors or real numbers, got {kinds}")
    return value


def public_function(name: str, value: float | None = None) -> Any:
    """The row of this name as a function; `value`: of 0.5, or of 0.5 and -2.0, to twelve digits, for its docstring."""

    def otherwise(*operands: Any) -> Any:
        """Of operands that are not Tensors: arrays have the method, numbers become a float."""
        if builtins.any(isinstance(x, (TensorArray, ArrayView)) for x in operands):
            return of_arrays(name, *operands)
        if builtins.any(isinstance(x, (str, bytes)) for x in operands):
            wrong = next(type(x).__name__ for x in operands if isinstance(x, (str, bytes)))
            raise TypeError(f"{name}: expected a Tensor or a real number, got {wrong}")
        return getattr(Tensor(operands[0]), name)(*operands[1:]).data

    function = function_of(CODES[name], otherwise)
    function.__module__ = "fastscalar.functions"
    if value is not None:
        home = "math." if operation(CODES[name])["kind"] == "of math" else ""
        others = ", -2.0" if operation(CODES[name])["arity"] == 2 else ""
        example = f">>> round(fs.{home}{name}(fs.Tensor(0.5){others}).data, 12)\n{value}"
        function.__doc__ += f"\n\n>>> import fastscalar as fs\n{example}\n"
    return function
