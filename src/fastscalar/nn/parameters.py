"""Nested lists of parameters in which each counts once."""

from __future__ import annotations

from typing import Any

from fastscalar._core import Tensor
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
