"""Whole numbers that select an operand of a list: one recording for all values that were seen, and none for others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from compiled import close, eager_backward, eager_gradients, eager_values

W = np.random.default_rng(5).normal(size=(3, 4))


def by_hand(softmax: bool) -> tuple[Any, Any]:
    w = fs.to_tensor(W)

    def f(x: Any, label: Any) -> Any:
        logits = [sum(x[i] * w[i][j] for i in range(3)) for j in range(4)]
        if not softmax:
            return logits[label] * logits[label] - logits[0]
        e = [fs.math.exp(v) for v in logits]
        total = fs.sum(e)
        probs = [v / total for v in e]
        return -fs.math.log(probs[label])

    return f, w


SELECTIONS = {
    "probabilities": lambda: by_hand(True),
    "an operand twice": lambda: by_hand(False),
    "two lists": lambda: (lambda x, k: [x[0], x[1], x[2]][k % 3] * [x[2], x[0] + x[1], x[1]][k % 3] + x[0], None),
    "from the end": lambda: (lambda x, k: [x[0], x[1] * x[2], x[2], x[0] - x[1]][-1 - k] * 2.0 + x[1], None),
    "a loop": lambda: (lambda x, k: sum((x[0] * x[j % 3] for j in range(k + 1)), 0.0), None),
    "beside a branch": lambda: (lambda x, k: [x[0], x[1], x[2], x[0]][k] * (2.0 if x[0] > 0.0 else x[1]), None),
    "numbers": lambda: (lambda x, k: x[0] * [1.0, 2.0, 4.0, 8.0][k] + x[1], None),
    "other operations": lambda: (lambda x, k: x[0] * x[1] if k == 2 else [x[2], x[1], x[0], x[0]][k] + x[1], None),
}


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 0, 2, 1], [2, 2, 2, 0], [1, 3]])
def test_a_selection_is_that_of_the_function(name: str, order: list[int]) -> None:
    f, w = SELECTIONS[name]()
    rng = np.random.default_rng(7)
    X, k = rng.normal(size=(40, 3)), np.array([order[i % len(order)] for i in range(40)])
    program = fs.compile(f)
    few = slice(0, 2)                             # not all values at once: a recording that is there takes others in
    close(program.map(X[few], k[few]), eager_values(f, X[few], k[few]))
    for some in (slice(0, 40), slice(13, 20), slice(39, 40)):
        close(program.map(X[some], k[some]), eager_values(f, X[some], k[some]))
        close(program.value_and_grad(X[some], k[some])[1], eager_gradients(f, (X[some], k[some]), 0))
    if w is not None:
        (expected,), absolute = eager_backward(f, [w], (X, k))
        program.backward(X, k)
        close(np.asarray(w.grad), expected, scale=absolute[0])


def test_a_selection_is_one_recording() -> None:
    f, _ = SELECTIONS["probabilities"]()
    program = fs.compile(f)
    X, k = np.random.default_rng(8).normal(size=(60, 3)), np.arange(60) % 4
    program.map(X, k)
    assert len(program.report().splitlines()) == 1
    assert "1 gather" in program.report()


def test_a_value_that_was_not_seen_is_recorded_and_one_that_is_out_of_range_raises() -> None:
    f, _ = SELECTIONS["probabilities"]()
    program = fs.compile(f)
    X = np.random.default_rng(9).normal(size=(30, 3))
    k = np.arange(30) % 3
    for _ in range(2):
        program.value_and_grad(X, k)
    last = k.copy()
    last[7] = 3                                   # in the table's range of values, and not known
    for _ in range(2):
        close(program.map(X, last), eager_values(f, X, last))
        close(program.value_and_grad(X, last)[1], eager_gradients(f, (X, last), 0))
    last[11] = 4
    for call in (program.map, program.value_and_grad, program.backward):
        with pytest.raises(IndexError, match="row 11"):
            call(X, last)


@pytest.mark.parametrize("batch_size", [1, 4, 32])
@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adam])
def test_fit_with_a_selection_is_fit_with_cross_entropy(batch_size: int, optimizer: Any) -> None:
    rng = np.random.default_rng(10)
    X, y = rng.normal(size=(64, 6)), rng.integers(0, 5, 64)
    found = []
    for loss in (fs.cross_entropy, lambda z, label: -fs.math.log(list(fs.softmax(z))[label])):
        net = fs.MLP(6, [8, 5], seed=3)
        history = fs.fit(
            net, X, y, loss=loss, epochs=3, batch_size=batch_size, optimizer=optimizer(lr=0.05), progress=False
        )
        found.append((history.loss[-1], net.linears[0].w.numpy()))
    assert math.isclose(found[0][0], found[1][0], rel_tol=1e-10)
    close(found[1][1], found[0][1], tolerance=1e-9)
