"""The article's loop in Python at batch size 1, `net(x)`, loss, `backward()`, `sgd`, against PyTorch eager.

Here float64 from rows of a NumPy array; there float32 from rows of a tensor, one thread, `torch.optim.SGD`.
Same initial weights, same images in the same order, cross-entropy, learning rate 0.02.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workloads import RATE, WIDTHS, digits, in_turn, our_net, our_steps, weights

LIMITS = {"Linear(784, 10)": 8, "MLP(784, [256, 10])": 6}
STEPS = 500  # in one timer


def torch_net(torch: Any, widths: tuple[int, ...]) -> tuple[Any, Any]:
    layers: list[Any] = []
    for w, b in weights(widths):
        linear = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T))
            linear.bias.copy_(torch.from_numpy(b))
        layers += [linear, torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    return net, torch.optim.SGD(net.parameters(), lr=RATE)


def torch_steps(torch: Any, net: Any, optimizer: Any, X: Any, y: Any) -> list[float]:
    loss_of = torch.nn.functional.cross_entropy
    losses = []
    for x, label in zip(X, y):  # noqa: B905
        loss = loss_of(net(x), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", WIDTHS)
def test_against_pytorch(benchmark: Any, bar: Any, small: bool, name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: no comparison with it")
    torch.set_num_threads(1)
    steps = 50 if small else STEPS
    rounds = 1 if small else 21
    X, y, source = digits(steps)
    X32, y_torch = torch.from_numpy(X.astype(np.float32)), torch.tensor(y)
    benchmark.extra_info.update(data=source, torch=torch.__version__, steps=steps)

    # First the numbers: the losses of the same steps, which also warms both sides up.
    net, (theirs, optimizer) = our_net(WIDTHS[name]), torch_net(torch, WIDTHS[name])
    losses = np.array(our_steps(net, X, y))
    expected = np.array(torch_steps(torch, theirs, optimizer, X32, y_torch))
    np.testing.assert_allclose(losses, expected, rtol=1e-3, atol=1e-4)  # theirs is float32
    assert np.isfinite(losses).all()

    turns = in_turn(
        benchmark,
        lambda: our_steps(net, X, y) and None,
        {"torch": lambda: torch_steps(torch, theirs, optimizer, X32, y_torch) and None},
        rounds,
    )
    for side in turns.seconds:
        bar(f"article_loop: {name}, {side}", turns.median(side) / steps * 1e6, "us/step")
    ratio = turns.ratio("torch", "fastscalar")
    bar(f"article_loop: {name}, PyTorch eager / ours", ratio, "x", at_least=LIMITS[name])


@pytest.mark.parametrize("name", WIDTHS)
def test_alone(benchmark: Any, bar: Any, small: bool, name: str) -> None:
    """The loop without a peer: samples per second."""
    steps = 50 if small else STEPS
    X, y, source = digits(steps)
    benchmark.extra_info.update(data=source, steps=steps)
    net = our_net(WIDTHS[name])
    first = our_steps(net, X, y)
    turns = in_turn(benchmark, lambda: our_steps(net, X, y) and None, {}, 1 if small else 21)
    assert np.mean(our_steps(net, X, y)) < np.mean(first)
    bar(f"article_loop: {name}, alone", steps / turns.median("fastscalar"), "samples/s")
