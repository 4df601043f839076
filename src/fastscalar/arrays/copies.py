"""What Python's module `copy` makes of Tensors and arrays.

Leaves give new leaves, with their gradients and attributes.  The arguments of a function that is being differentiated,
or is a program's, stay what the function depends on: a copy of a number is the number, one of an array another handle,
in which elements can be replaced.  Whatever else was computed is refused, by `__reduce__`.
"""

from __future__ import annotations

import copy as _copy
from typing import Any

from fastscalar._core import Tensor
from fastscalar.engine._modes import is_argument


def __copy__(self: Any) -> Any:
    """`copy.copy`: a new leaf; of an argument of a function that is being differentiated one that gradients pass."""
    return _copied(self, None)


def __deepcopy__(self: Any, memo: dict[int, Any]) -> Any:
    """`copy.deepcopy`: as `copy.copy`."""
    return _copied(self, memo)


def _copied(x: Any, memo: dict[int, Any] | None) -> Any:
    if is_argument(x):
        return x if isinstance(x, Tensor) else x._apart()
    make, given, *state = x.__reduce__()
    made = make(*given)
    if memo is not None:
        memo[id(x)] = made                       # an attribute may lead back to it
    for one in state:
        made.__setstate__(one if memo is None else _copy.deepcopy(one, memo))
    return made


METHODS = {"__copy__": __copy__, "__deepcopy__": __deepcopy__}
