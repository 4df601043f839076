"""Workloads that stay as they are from version to version, with nothing but the library's public names.

`instructions.py` counts what they execute, `compare.py` times them on two versions in turn.  Their numbers are drawn
here, so that no data set and no other file takes part:

    python benchmarks/fixed.py                    # list them
    python benchmarks/fixed.py scalar_ops 20      # do one 20 times, after two that do not count
    python benchmarks/fixed.py --serve            # for compare.py
"""

from __future__ import annotations

import gc
import inspect
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import fastscalar as fs

Work = Callable[[], Any]
WORKLOADS: dict[str, tuple[str, float, Callable[[], Work]]] = {}  # unit, units in one call, how to set it up


def workload(unit: str, units: float) -> Callable[[Callable[[], Work]], Callable[[], Work]]:
    def register(make: Callable[[], Work]) -> Callable[[], Work]:
        WORKLOADS[make.__name__] = unit, units, make
        return make

    return register


def rows(n: int, share: float) -> np.ndarray:
    """Rows like MNIST's: this share of the pixels is not zero."""
    rng = np.random.default_rng(0)
    return rng.uniform(0.05, 1.0, size=(n, 784)) * (rng.random((n, 784)) < share)


@workload("operation", 4000)
def scalar_ops() -> Work:
    """20 dot products of length 100: forward, backward, freeing."""
    rng = np.random.default_rng(0)
    x = [fs.Tensor(v) for v in rng.normal(size=100).tolist()]
    w = [[fs.Tensor(v) for v in row] for row in rng.normal(size=(20, 100)).tolist()]

    def run() -> None:
        total = 0.0
        for row in w:
            s = 0.0
            for a, b in zip(x, row):  # noqa: B905
                s = s + a * b
            total = total + s
        total.backward()  # type: ignore[attr-defined]

    return run


@workload("call", 3000)
def functions() -> Work:
    """exp, log and tanh of a thousand Tensors each."""
    ts = [fs.Tensor(v) for v in np.random.default_rng(0).uniform(0.1, 3.0, size=1000).tolist()]

    def run() -> None:
        [t.exp() for t in ts]
        [t.log() for t in ts]
        [t.tanh() for t in ts]

    return run


@workload("step", 30)
def small_net() -> Work:
    """A net of single numbers, 3-8-8-1: forward, loss, backward, step."""
    rng = np.random.default_rng(0)
    sizes = [3, 8, 8, 1]
    layers = [
        [[fs.Tensor(v) for v in row] for row in rng.normal(size=(n, m + 1)).tolist()]
        for m, n in zip(sizes, sizes[1:], strict=False)
    ]
    points = rng.normal(size=(30, 3)).tolist()

    def run() -> None:
        for point in points:
            h: list[Any] = point
            for layer in layers:
                h = [sum((a * b for a, b in zip(row, h, strict=False)), row[-1]).tanh() for row in layer]
            loss = (h[0] - 0.5) ** 2
            loss.backward()
            fs.sgd(layers, lr=0.01)

    return run


def training(net: Any, share: float) -> Work:
    X = rows(50, share)

    def run() -> None:
        for k, x in enumerate(X):
            loss = fs.cross_entropy(net(x), k % 10)
            loss.backward()
            fs.sgd(net.parameters(), lr=0.01)

    return run


@workload("step", 50)
def linear10() -> Work:
    """The loop of the article on Linear(784, 10), rows like MNIST's."""
    return training(fs.Linear(784, 10, seed=0), 0.19)


@workload("step", 50)
def mlp() -> Work:
    """The same on MLP 784-256-10."""
    return training(fs.MLP(784, [256, 10], seed=0), 0.19)


@workload("step", 50)
def mlp_dense() -> Work:
    """The same, with no pixel zero."""
    return training(fs.MLP(784, [256, 10], seed=0), 1.0)


def fitting(widths: list[int], batch: int, **options: Any) -> Work:
    """One call of fit on 640 rows, what it costs to begin included; older versions have no compiled one."""
    X, y = rows(640, 0.19), np.arange(640) % 10
    net = fs.MLP(784, widths, seed=0)
    known = inspect.signature(fs.fit).parameters
    options = {key: value for key, value in options.items() if key in known}
    optimizer = fs.SGD(lr=0.01)

    def run() -> None:
        fs.fit(net, X, y, optimizer=optimizer, epochs=1, batch_size=batch, progress=False, **options)

    return run


@workload("sample", 640)
def fit_mlp() -> Work:
    """fit at batch size 1, as it is when nothing is said."""
    return fitting([256, 10], 1)


@workload("sample", 640)
def fit_minibatch() -> Work:
    """fit at batch size 64 in float32, where there is one."""
    return fitting([256, 10], 64, dtype="float32")


def simulation(name: str, n: int) -> Work:
    import simulations

    program, X = fs.compile(simulations.SIMULATIONS[name]), simulations.rows(name, n)
    program.value_and_grad(X)
    return lambda: program.value_and_grad(X)


@workload("row", 512)
def heston() -> Work:
    """Value and gradient of a path of prices and variances, 100 steps."""
    return simulation("heston", 512)


@workload("row", 512)
def pendulum() -> Work:
    """Value and gradient of a pendulum, 200 steps of Runge and Kutta."""
    return simulation("pendulum", 512)


@workload("step", 20)
def gpt_step() -> Work:
    """A step of a GPT of 4,192 parameters with Adam, a name of six letters at a time."""
    import simulations

    model, documents = simulations.GPT(), simulations.names(20, letters=6)
    program = fs.compile(model.loss)
    optimizer = fs.Adam(model.parameters(), lr=0.01)
    rows = [document[None] for document in documents]
    program.backward(rows[0])
    program.backward(rows[1])

    def run() -> None:
        for row in rows:
            program.backward(row)
            optimizer.step()

    return run


class Marked:
    """What `dir()` of it does lies within PyObject_Dir, which nothing else calls: so valgrind knows what to count."""

    def __init__(self, run: Work) -> None:
        self.run = run

    def __dir__(self) -> list[str]:
        self.run()
        return []


def many(name: str, times: int) -> None:
    work = WORKLOADS[name][2]()
    work()
    work()
    dir(Marked(lambda: [work() for _ in range(times)]))


def serve() -> None:
    """For each line `name` on the standard input, one on the standard output: the seconds of a unit, or why there are
    none."""
    works: dict[str, tuple[Work, int]] = {}
    for line in sys.stdin:
        name = line.strip()
        _, units, make = WORKLOADS[name]
        try:
            if name not in works:
                work = make()
                work()
                start = time.perf_counter()
                work()
                works[name] = work, max(1, round(0.05 / (time.perf_counter() - start)))
            work, times = works[name]
            gc.collect()
            start = time.perf_counter()
            for _ in range(times):
                work()
        except Exception as error:               # an older version has not everything
            print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
        else:
            print((time.perf_counter() - start) / (times * units), flush=True)


def main(arguments: list[str]) -> int:
    if arguments == ["--serve"]:
        serve()
    elif not arguments:
        for name, (unit, _, make) in WORKLOADS.items():
            print(f"{name:<14} by {unit}: {make.__doc__}")
    elif len(arguments) == 2 and arguments[0] in WORKLOADS and arguments[1].isdigit():
        many(arguments[0], int(arguments[1]))
    else:
        print(f"usage: fixed.py WORKLOAD TIMES, one of {', '.join(WORKLOADS)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
