"""Weight decay with one sparse row at a time: rows of weights that are not read owe it, and nothing outside sees that.

Also losses that read whole matrices beside the products which do: those take their step after the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from compiled import compiled_only
from fastscalar import _core

pytestmark = pytest.mark.skipif(_core.tape_info()["stress"], reason="training runs, in stress mode")

INPUTS, HIDDEN, OUTPUTS = 40, 24, 3


def problem(n: int = 60, part: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    X = draw.uniform(0.1, 1.0, size=(n, INPUTS)) * (draw.random((n, INPUTS)) < part)
    X[:, 7] = 0.0                                # an input that no row has
    return X, draw.integers(0, OUTPUTS, n)


class Halves(fs.Module):
    """Its first layer is read by a product that sends nothing back, and rows of its second are no sparse ones."""

    def __init__(self) -> None:
        self.frozen = fs.Linear(INPUTS, HIDDEN, seed=1)
        self.first = fs.Linear(INPUTS, HIDDEN, seed=2)
        self.last = fs.Linear(HIDDEN, OUTPUTS, seed=3)

    def forward(self, x: Any) -> Any:
        return self.last((self.frozen(x).detach() + self.first(x)).relu())


NETS = {
    "Linear": lambda: fs.Linear(INPUTS, OUTPUTS, seed=1),
    "MLP": lambda: fs.MLP(INPUTS, [HIDDEN, OUTPUTS], seed=1),
    "deep": lambda: fs.MLP(INPUTS, [HIDDEN, 20, OUTPUTS], seed=1),
    "detached": Halves,
    "one output": lambda: fs.MLP(INPUTS, [1], seed=1),
}
DECAYS = {"usual": 1e-3, "strong": 2.0, "all of it": 20.0, "more than that": 30.0, "grows": 45.0}  # the rate is 0.05


def trained(kind: str, decay: float, X: np.ndarray, y: np.ndarray, **keywords: Any) -> tuple[list[float], np.ndarray]:
    net = NETS[kind]()
    keywords = {"epochs": 3, "optimizer": fs.SGD(lr=0.05, weight_decay=decay), **keywords}
    if kind == "one output":
        keywords["loss"] = "squared"
    history = fs.fit(net, X, y, progress=False, **keywords)
    return history.loss, np.concatenate([v.ravel() for v in net.state_dict().values()])


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("part", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_it_is_the_eager_loop(kind: str, decay: str, part: float, batch_size: int) -> None:
    X, y = problem(part=part)
    epochs = 3 if DECAYS[decay] <= 30.0 else 1
    with compiled_only():
        ours = trained(kind, DECAYS[decay], X, y, batch_size=batch_size, epochs=epochs)
    eager = trained(kind, DECAYS[decay], X, y, batch_size=batch_size, epochs=epochs, compile=False)
    scale = max(1.0, np.abs(eager[1]).max())
    np.testing.assert_allclose(ours[0], eager[0], rtol=1e-10)
    np.testing.assert_allclose(ours[1], eager[1], rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_where_a_run_looks_up_does_not_change_a_bit(dtype: str) -> None:
    """Nothing is paid between portions: they depend on the clock."""
    X, y = problem()

    class Watch:
        def __init__(self, every: int) -> None:
            self.every = every

        def on_samples(self, samples: Any) -> None: ...

    runs = [trained("MLP", 0.1, X, y, dtype=dtype, callbacks=[Watch(every)]) for every in (1, 7, 10_000)]
    assert all(loss == runs[0][0] and (weights == runs[0][1]).all() for loss, weights in runs)


def test_float32_is_float64_to_its_digits() -> None:
    X, y = problem()
    wide, narrow = (trained("MLP", 0.3, X, y, dtype=dtype)[1] for dtype in ("float64", "float32"))
    np.testing.assert_allclose(narrow, wide, rtol=2e-4, atol=2e-5)


def test_a_long_run_pays_before_its_factors_are_too_small_to_keep() -> None:
    """1 - 0.05 * 2 to the 3,000th is 1e-137; floats end at 1e-45."""
    X, y = problem(n=1000)
    X[30:] = 0.0
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-4)):
        ours = trained("MLP", 2.0, X, y, schedule=None, dtype=dtype)[1]
        eager = trained("MLP", 2.0, X, y, schedule=None, compile=False)[1]
        np.testing.assert_allclose(ours, eager, rtol=tolerance, atol=tolerance)


def test_a_row_of_numbers_that_are_not_finite_is_refused_and_the_net_is_as_it_was() -> None:
    X, y = problem()
    X[40, 5] = np.inf
    net = fs.MLP(INPUTS, [HIDDEN, OUTPUTS], seed=1)
    before = net.state_dict()
    with pytest.raises(FloatingPointError, match="row 40, column 5"):
        fs.fit(net, X, y, optimizer=fs.SGD(lr=0.05, weight_decay=0.1), shuffle=False, progress=False)
    assert all((net.state_dict()[name] == value).all() for name, value in before.items())


@pytest.mark.parametrize("batch_size", [1, 6])
def test_it_is_pytorchs(batch_size: int) -> None:
    torch = pytest.importorskip("torch")
    X, y = problem()
    net = fs.MLP(INPUTS, [HIDDEN, OUTPUTS], seed=1)
    weights = [torch.tensor(np.array(value), requires_grad=True) for value in net.state_dict().values()]
    theirs = torch.optim.SGD(weights, lr=0.05, weight_decay=0.02)
    for k in range(0, len(X), batch_size):
        w1, b1, w2, b2 = weights
        z = torch.relu(torch.tensor(X[k : k + batch_size]) @ w1 + b1) @ w2 + b2
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(z, torch.tensor(y[k : k + batch_size])).backward()
        theirs.step()
    fs.fit(net, X, y, optimizer=fs.SGD(lr=0.05, weight_decay=0.02), schedule=None, shuffle=False, epochs=1,
           batch_size=batch_size, progress=False)  # fmt: skip
    for ours, other in zip(net.state_dict().values(), weights, strict=True):
        np.testing.assert_allclose(ours, other.detach().numpy(), rtol=1e-12, atol=1e-12)


# --- losses that read the weights ------------------------------------------------------------------


def squares(arrays: list[Any]) -> Any:
    return sum(((a * a).sum() for a in arrays), fs.Tensor(0.0))


LOSSES = {
    "weights": lambda net, loss, z: loss + 0.01 * squares([layer.w for layer in net.linears]),
    "length": lambda net, loss, z: loss + 0.05 * squares([layer.w for layer in net.linears]) ** 0.5,
    "times the loss": lambda net, loss, z: loss * (1.0 + 0.01 * squares([net.linears[0].w])),
    "some rows": lambda net, loss, z: loss + 0.01 * squares([net.linears[0].w[3:20], net.linears[1].w]),
    "one number": lambda net, loss, z: loss + net.linears[0].w[5][7],
    "without the net": lambda net, loss, z: loss.detach() + 0.01 * squares([layer.w for layer in net.linears]),
}


@pytest.mark.parametrize("which", LOSSES)
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_loss_that_reads_weights_too(which: str, decay: float, batch_size: int) -> None:
    X, y = problem(n=30)
    results = []
    for compile in (True, False):
        net = fs.MLP(INPUTS, [HIDDEN, OUTPUTS], seed=1)

        def sample(x: Any, label: Any, net: Any = net) -> Any:
            z = net(x)
            return LOSSES[which](net, fs.cross_entropy(z, label), z)

        optimizer = fs.SGD(net.parameters(), lr=0.05, weight_decay=decay)
        history = fs.fit(fs.compile(sample), X, y, optimizer=optimizer, epochs=2, compile=compile,
                         batch_size=batch_size, progress=False)  # fmt: skip
        results.append((history.loss, np.concatenate([v.ravel() for v in net.state_dict().values()])))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-10)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-10, atol=1e-12)


def test_a_term_of_squares_is_weight_decay_of_twice_its_factor() -> None:
    X, y = problem()
    nets = [fs.MLP(INPUTS, [HIDDEN, OUTPUTS], seed=1) for _ in range(2)]

    def sample(x: Any, label: Any) -> Any:
        return fs.cross_entropy(nets[0](x), label) + 0.05 * squares(flat(nets[0]))

    def flat(net: Any) -> list[Any]:
        return [p for layer in net.linears for p in (layer.w, layer.b)]

    fs.fit(fs.compile(sample), X, y, optimizer=fs.SGD(flat(nets[0]), lr=0.05), epochs=2, progress=False)
    fs.fit(nets[1], X, y, optimizer=fs.SGD(lr=0.05, weight_decay=0.1), epochs=2, progress=False)
    for name, value in nets[1].state_dict().items():
        np.testing.assert_allclose(nets[0].state_dict()[name], value, rtol=1e-10, atol=1e-12)
