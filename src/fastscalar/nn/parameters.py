"""Nested lists of parameters in which each counts once; and numbers that they take over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar._settings import shown
from fastscalar.engine._array import TensorArray
from fastscalar.engine._step import all_apart, distinct_parameters, flatten_parameters


def each_once(parameters: Any) -> Any:
    """Nested lists of parameters without those that were there before; themselves if nothing repeats.

    A parameter counts once wherever it is listed, as in PyTorch: a layer that two modules share, a Tensor beside the
    array that it lies in.  Of arrays that overlap in part a flat list is left."""
    if all_apart(flat := flatten_parameters(parameters, [])):
        return parameters
    distinct = distinct_parameters(parameters)
    wanted = set(map(id, distinct))
    if len(distinct) == len(flat) and wanted == set(map(id, flat)):
        return parameters
    nested = _pruned(parameters, wanted) or []
    return distinct if wanted else nested        # some are new: what was left of an array


def _pruned(nested: Any, wanted: set[int]) -> Any:
    """What is wanted of nested lists, which is wanted no more then."""
    if isinstance(nested, (Tensor, TensorArray)):
        if id(nested) not in wanted:
            return None
        wanted.remove(id(nested))
        return nested
    entries = nested.values() if isinstance(nested, dict) else nested
    return [p for p in (_pruned(entry, wanted) for entry in entries) if p is not None] or None


def numbers_in(state: Any, names: Iterable[str], what: str) -> dict[str, np.ndarray]:
    """Arrays of float64 by these names, which a state has; ValueError for one that is of something else."""
    found = {}
    for name in names:
        array = array_of(state[name], f"{what}: {name}")
        if array.dtype.kind not in "fiub":
            raise ValueError(f"{what}: {name}: expected an array of numbers, got an array of {array.dtype}")
        found[name] = array.astype(float)
    return found


def named_in(state: Any, what: str) -> set[Any]:
    """The names in a state; TypeError if it is none."""
    if not hasattr(state, "keys"):
        raise TypeError(f"{what}: load_state_dict: expected a dictionary, or what np.load gives, got {shown(state)}")
    return set(state.keys())


def array_of(x: Any, name: str) -> np.ndarray:
    """Whatever it holds, with the numbers of Tensors."""
    if isinstance(x, TensorArray):
        return x.numpy()
    try:
        array = np.asarray(x)
    except ValueError:
        raise ValueError(f"{name}: the rows have different lengths") from None
    some = set(map(type, array.flat)) if array.dtype.kind == "O" else set()
    if Tensor in some and some <= {Tensor, int, float}:
        return np.reshape([float(v) for v in array.flat], array.shape)
    return array
