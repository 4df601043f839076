"""One training step at batch size 1 with sparse inputs (MNIST: 19 % of the pixels not zero) and with dense ones.

Ours against NumPy by hand (float64, the same arithmetic written as array expressions) and PyTorch eager (float32),
if it is installed.  Same weights, same rows; each side must reproduce the losses before it is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from test_bench_article_loop import torch_net, torch_steps
from workloads import RATE, WIDTHS, digits, in_turn, our_net, our_steps, weights

STEPS = 300  # in one timer


def rows(kind: str, n: int) -> tuple[np.ndarray, list[int], str]:
    X, y, source = digits(n)
    if kind == "dense":
        X = np.random.default_rng(0).uniform(0.05, 0.5, size=X.shape)
        source = "uniform numbers in 0.05..0.5"
    return X, y, source


def numpy_steps(layers: list[tuple[np.ndarray, np.ndarray]], X: np.ndarray, y: list[int]) -> list[float]:
    """The step written by hand; `layers` is changed in place."""
    losses = []
    for x, label in zip(X, y):  # noqa: B905
        inputs = [x]
        for w, b in layers[:-1]:
            inputs.append(np.maximum(inputs[-1] @ w + b, 0.0))
        w, b = layers[-1]
        z = inputs[-1] @ w + b
        e = np.exp(z - z.max())
        p = e / e.sum()
        losses.append(float(-np.log(p[label])))
        g = p
        g[label] -= 1.0
        for (w, b), h in zip(reversed(layers), reversed(inputs)):  # noqa: B905
            below = w @ g if h is not x else None
            w -= RATE * np.outer(h, g)
            b -= RATE * g
            if below is not None:
                g = np.where(h > 0.0, below, 0.0)
    return losses


@pytest.mark.parametrize("kind", ["sparse", "dense"])
@pytest.mark.parametrize("name", WIDTHS)
def test_step(benchmark: Any, bar: Any, small: bool, name: str, kind: str) -> None:
    steps, rounds = (20, 1) if small else (STEPS, 15)
    X, y, source = rows(kind, steps)
    benchmark.extra_info.update(data=source, steps=steps)
    net, layers = our_net(WIDTHS[name]), weights(WIDTHS[name])
    losses = our_steps(net, X, y)
    np.testing.assert_allclose(losses, numpy_steps(layers, X, y), rtol=1e-9)
    others = {"numpy": lambda: numpy_steps(layers, X, y) and None}
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: no comparison with it")
    else:
        torch.set_num_threads(1)
        theirs, optimizer = torch_net(torch, WIDTHS[name])
        X32, y_torch = torch.from_numpy(X.astype(np.float32)), torch.tensor(y)
        expected = torch_steps(torch, theirs, optimizer, X32, y_torch)
        np.testing.assert_allclose(losses, expected, rtol=1e-2, atol=1e-3)  # theirs is float32
        others["torch"] = lambda: torch_steps(torch, theirs, optimizer, X32, y_torch) and None
    turns = in_turn(benchmark, lambda: our_steps(net, X, y) and None, others, rounds)
    for side in turns.seconds:
        bar(f"sparse_dense: {name}, {kind}, {side}", turns.median(side) / steps * 1e6, "us/step")
    for side in others:
        bar(f"sparse_dense: {name}, {kind}, {side} / ours", turns.ratio(side, "fastscalar"), "x")
