"""Steps of an optimiser remember where its parameters are on the tape, as long as nothing moves them."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.engine import testing

MAKES = {
    "adam": lambda p: fs.Adam(p, lr=0.1),
    "momentum": lambda p: fs.SGD(p, lr=0.1, momentum=0.5),
    "decay": lambda p: fs.SGD(p, lr=0.1, weight_decay=0.1),
}


def parameters() -> list[Any]:
    """Tensors apart and side by side, an array, elements and a slice with gaps of others."""
    first, garbage = fs.Tensor(0.5), [fs.Tensor(float(k)) for k in range(50)]
    side = [fs.Tensor(v) for v in (0.1, -0.2, 0.3)]
    array, table = fs.to_tensor([1.0, -2.0]), fs.to_tensor(np.arange(12.0).reshape(4, 3) / 10)
    del garbage
    return [first, *side, array, table[:, 1], table[2][2], fs.Tensor(2.0)]


def numbers(p: list[Any]) -> list[Any]:
    return [v for entry in p for v in ([entry] if isinstance(entry, fs.Tensor) else list(entry))]


def loss_of(p: list[Any], k: int) -> Any:
    return sum(((v - 0.1 * j) ** 2 * (1 + (j + k) % 3) for j, v in enumerate(numbers(p))), fs.Tensor(0.0))


def trained(make: Any, disturb: Any, steps: int = 12) -> list[float]:
    p = parameters()
    optimizer = make(p)
    for k in range(steps):
        loss_of(p, k).backward()
        optimizer.step()
        optimizer.zero_grad()
        p, optimizer = disturb(k, p, optimizer)
    return [v.data for v in numbers(p)]


def nothing(k: int, p: list[Any], optimizer: Any) -> Any:
    return p, optimizer


def collected(k: int, p: list[Any], optimizer: Any) -> Any:
    testing.collect()
    return p, optimizer


def new_nodes(k: int, p: list[Any], optimizer: Any) -> Any:
    sum((fs.Tensor(1.0) * j for j in range(500)), fs.Tensor(0.0)).backward()
    return p, optimizer


@pytest.mark.dear
@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("disturb", [collected, new_nodes])
def test_whatever_happens_between_steps(make: Any, disturb: Any) -> None:
    assert trained(make, disturb) == trained(make, nothing)


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_looks_for_its_own(make: Any, again: Any) -> None:
    results = []
    for way in (again, lambda x: x):
        p = [fs.Tensor(0.5), fs.to_tensor([1.0, -2.0]), fs.Tensor(2.0)]
        optimizer = make(p)
        for k in range(6):
            loss_of(p, k).backward()
            optimizer.step()
            optimizer.zero_grad()
            if k == 2:
                old, (p, optimizer) = p, way((p, optimizer))
        results.append([v.data for v in numbers(p)])
        if way is again:
            assert [v.data for v in numbers(old)] != results[0]
    assert results[0] == results[1]


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_a_result_that_was_computed_before_a_step_is_not_swept(make: Any) -> None:
    """Each step says that the values were written, also where it knows the places."""
    p = [fs.Tensor(0.5), fs.to_tensor([1.0, -2.0])]
    optimizer = make(p)
    for k in range(4):
        loss = loss_of(p, k)
        loss.backward()
        stale = [p[0] * p[0], (p[1] * p[1]).sum(), p[1][0] * p[1][0]]
        optimizer.step()
        for result in stale:
            with pytest.raises(RuntimeError, match="was written after"):
                result.backward()
        optimizer.zero_grad()
