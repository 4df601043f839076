"""`fastscalar bench`: the engine and its compiled programs on this machine, beside the twin and peers that are here.

Contract
1. All contestants of a workload start from the same weights and see the same rows.  Each must reproduce the first
   three losses, which NumPy computes in float64 from the formulas, before it is timed; one that does not is not timed.
2. The contestants take turns, A B A B.  A figure is a median with its spread; ratios are between medians of one run.
3. A peer that is not installed is skipped by name.  Nothing is downloaded and nothing is written, `--json` aside.

`benchmarks/` in the repository is the long version: it has these contestants, more of them, and limits.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import os
import platform
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from textwrap import fill
from typing import Any, ClassVar

import numpy as np

import fastscalar as fs
from fastscalar import datasets, reference
from fastscalar.cli.console import WIDTH, cpu, passing, plural, say
from fastscalar.cli.sources import SYNTHETIC
from fastscalar.engine import testing
from fastscalar.nn.init import initial_weights

SEED = 0
CHECKED = 3  # losses that every contestant has to reproduce
PEERS = ("torch", "micrograd")
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}

# --- workloads ---


@dataclass(frozen=True)
class Workload:
    """A net and how it is trained: one step is forward pass, loss, backward pass and SGD."""

    name: str
    widths: tuple[int, ...]
    loss: str = "cross_entropy"  # or mse: the net hits the label itself, as in the article's run in Paddle
    rate: float = 0.02
    white: float = 1.0  # what a white pixel is

    @property
    def products(self) -> int:
        """Multiplications of the forward pass of one sample."""
        return sum(m * n for m, n in pairwise(self.widths))


LINEAR1 = Workload("linear1", (784, 1), "mse", rate=1e-7, white=255.0)
LINEAR10 = Workload("linear10", (784, 10))
MLP = Workload("mlp", (784, 256, 10))


@cache
def _drawn(widths: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = random.Random(SEED)
    layers = [initial_weights(m, n, "he", rng) for m, n in pairwise(widths)]
    return [(np.array(w), np.array(b)) for w, b in layers]


def initial_layers(widths: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Initial (w, b) of each layer, w of shape (in, out): the same numbers for every contestant."""
    return [(w.copy(), b.copy()) for w, b in _drawn(tuple(widths))]


def digits(n: int) -> tuple[np.ndarray, list[int], str]:
    """n rows of 784 pixels from 0 to 1, their labels, and what they are: MNIST if it is on this machine."""
    try:
        (X, y), _ = datasets.mnist(download=False)
        name = "MNIST"
    except datasets.DatasetUnavailable:
        (X, y), _ = datasets.synthetic_digits(n_train=n, n_test=1)
        name = f"{SYNTHETIC}, NOT MNIST"
    return X[:n].reshape(-1, 784) / 255, y[:n].tolist(), name


def expected_losses(
    work: Workload,
    X: np.ndarray,
    y: Sequence[int],
    batch: int,
    steps: int = CHECKED,
    layers: list[tuple[np.ndarray, np.ndarray]] | None = None,
) -> list[float]:
    """The losses of the first steps in float64, from the formulas: what everybody must reproduce.

    `layers` are the (w, b) to begin with, if they are not those of `initial_layers`.
    """
    layers, losses = initial_layers(work.widths) if layers is None else list(layers), []
    for k in range(steps):
        inputs = [X[k * batch : (k + 1) * batch] * work.white]
        labels = np.array(y[k * batch : (k + 1) * batch])
        for w, b in layers[:-1]:
            inputs.append(np.maximum(inputs[-1] @ w + b, 0.0))
        z = inputs[-1] @ layers[-1][0] + layers[-1][1]
        if work.loss == "mse":
            g = 2.0 * (z - labels[:, None])
            losses.append(float(np.mean(np.sum((z - labels[:, None]) ** 2, axis=1))))
        else:
            each = np.arange(len(labels))
            g = np.exp(z - z.max(axis=1, keepdims=True))
            g /= g.sum(axis=1, keepdims=True)
            losses.append(float(np.mean(-np.log(g[each, labels]))))
            g[each, labels] -= 1.0
        g /= len(labels)
        for i in reversed(range(len(layers))):
            (w, b), h = layers[i], inputs[i]
            layers[i] = (w - work.rate * h.T @ g, b - work.rate * g.sum(axis=0))
            g = (g @ w.T) * (h > 0.0)
    return losses


# --- contestants that train ---


class Contestant:
    """One side of a comparison.  Its data are converted, and its net is made, before anything is timed.

    `run(steps)` trains on the first steps * batch rows and goes on with the weights where the last call ended; the
    losses of these steps, each before its step, or, as a float, the seconds that it says it took.
    """

    name: ClassVar[str]
    dtype: ClassVar[str] = "float64"
    needs: ClassVar[str | None] = None  # the module that it needs
    whole: ClassVar[bool] = False  # compiled for a number of steps: always run with the same

    def __init__(self, work: Workload, X: np.ndarray, y: Sequence[int], batch: int = 1, threads: int = 1) -> None:
        self.work, self.batch, self.threads = work, batch, threads
        self.X = np.ascontiguousarray(X if work.white == 1.0 else X * work.white, dtype=self.dtype)
        self.y = list(y)
        self.start()

    def start(self) -> None:
        raise NotImplementedError

    def run(self, steps: int) -> Sequence[float] | float:
        raise NotImplementedError

    def first(self) -> list[float]:
        """The losses of the first steps of a new net."""
        losses = self.run(CHECKED)
        assert not isinstance(losses, float)
        return [float(loss) for loss in losses]

    def processor_seconds(self) -> float:
        """Of all threads so far."""
        return time.process_time()

    def close(self) -> None:
        pass

    @classmethod
    def expected(cls, work: Workload, X: np.ndarray, y: Sequence[int], batch: int) -> list[float]:
        return expected_losses(work, X, y, batch)

    @classmethod
    def missing(cls) -> str | None:
        """Why this one cannot take part."""
        if cls.needs is None or importlib.util.find_spec(cls.needs) is not None:
            return None
        return f"{cls.needs} is not installed"

    @classmethod
    def version(cls) -> str:
        return fs.__version__ if cls.needs is None else installed_version(cls.needs)


def installed_version(module: str) -> str:
    try:
        return importlib.metadata.version({"paddle": "paddlepaddle"}.get(module, module))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def net_of(work: Workload, module: Any = fs) -> Any:
    """The net of layers, on the engine or on the twin; both draw the weights that `initial_layers` has."""
    if len(work.widths) == 2:
        return module.Linear(*work.widths, seed=SEED)
    return module.MLP(work.widths[0], work.widths[1:], seed=SEED)


class Loop(Contestant):
    """The article's loop in Python: a row of NumPy at a time, or a minibatch of them."""

    name = "fastscalar"
    library: Any = fs

    def start(self) -> None:
        self.net = net_of(self.work, self.library)

    def targets(self, first: int) -> Any:
        labels = self.y[first : first + self.batch]
        if self.work.loss == "mse":
            return labels if self.batch == 1 else [[label] for label in labels]
        return labels[0] if self.batch == 1 else labels

    def inputs(self, first: int) -> Any:
        return self.X[first] if self.batch == 1 else self.X[first : first + self.batch]

    def run(self, steps: int) -> list[float]:
        module, net, rate = self.library, self.net, self.work.rate
        loss_of = module.mse_loss if self.work.loss == "mse" else module.cross_entropy
        losses = []
        for k in range(0, steps * self.batch, self.batch):
            loss = loss_of(net(self.inputs(k)), self.targets(k))
            loss.backward()
            module.sgd(net.parameters(), lr=rate)
            losses.append(loss.item())
        return losses


class Twin(Loop):
    """The same on `fastscalar.reference`, pure Python; a minibatch costs as much as its samples."""

    name = "twin"
    library = reference

    def inputs(self, first: int) -> Any:
        """Python's own numbers, which are faster here than NumPy's.  Not all rows at once: the collector would walk
        through them again and again."""
        return super().inputs(first).tolist()


@contextmanager
def compiled_only() -> Iterator[None]:
    """What falls back to the loop is a failure here, whatever its numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", getattr(fs, "CompileWarning", UserWarning))
        yield


class Compiled(Contestant):
    """`fit` with its compiled program, in the order of the rows and at a fixed rate.

    Its seconds are those of epochs after the first.  What a call of fit costs before, recording and translating, is
    kept as `once`: it is no part of a step, as the compilers of JAX and Numba are none.
    """

    name = "fastscalar compiled"
    whole = True
    EPOCHS = 4

    def start(self) -> None:
        self.net, self.loss = self.model()
        self.optimizer = fs.SGD(self.net.parameters(), lr=self.work.rate)
        self.targets: np.ndarray = np.array(self.y)
        if self.work.loss == "mse":
            self.targets = self.targets[:, None].astype(float)

    def model(self) -> tuple[Any, Callable[[Any, Any], Any]]:
        return net_of(self.work), fs.mse_loss if self.work.loss == "mse" else fs.cross_entropy

    def fit(self, rows: slice, epochs: int = 1) -> fs.History:
        options: dict[str, Any] = {"dtype": self.dtype, "threads": self.threads, "compile": True}
        with compiled_only():
            return fs.fit(
                self.net,
                self.X[rows],
                self.targets[rows],
                loss=self.loss,
                optimizer=self.optimizer,
                epochs=epochs,
                batch_size=self.batch,
                schedule=None,
                shuffle=False,
                progress=False,
                **options,
            )

    def run(self, steps: int) -> float:
        start = time.perf_counter()
        history = self.fit(slice(steps * self.batch), self.EPOCHS)
        seconds = statistics.mean(epoch.seconds for epoch in history.epochs[1:])
        self.once = time.perf_counter() - start - self.EPOCHS * seconds
        return seconds

    def first(self) -> list[float]:
        """fit tells the mean of an epoch: one epoch for each step."""
        return [self.fit(slice(k * self.batch, (k + 1) * self.batch)).loss[0] for k in range(CHECKED)]

    @classmethod
    def missing(cls) -> str | None:
        if not hasattr(fs, "compile"):
            return "this version has no fs.compile"
        if "compile" not in inspect.signature(fs.fit).parameters:
            return "this version's fit does not compile"
        return None


class Compiled32(Compiled):
    name = "fastscalar compiled, float32"
    dtype = "float32"


class NumPy(Contestant):
    """By hand: array expressions into memory that is there already.  The gradient is scaled by the rate at its top."""

    name = "NumPy by hand, float32"
    dtype = "float32"
    needs = "numpy"

    def start(self) -> None:
        self.layers = [(w.astype(self.dtype), b.astype(self.dtype)) for w, b in initial_layers(self.work.widths)]
        self.labels = np.array(self.y)
        rows = () if self.batch == 1 else (self.batch,)
        self.outputs = [np.empty((*rows, n), self.dtype) for n in self.work.widths[1:]]
        self.below = [np.empty((*rows, n), self.dtype) for n in self.work.widths[1:-1]]
        self.steps = [np.empty_like(w) for w, _ in self.layers]
        limit_blas(self.threads)

    def run(self, steps: int) -> list[float]:
        return (self.samples if self.batch == 1 else self.minibatches)(steps)

    def forward(self, h: np.ndarray) -> list[np.ndarray]:
        """The inputs of each layer, and what comes out of the last."""
        inputs = [h]
        for (w, b), z in zip(self.layers, self.outputs, strict=True):
            np.dot(inputs[-1], w, out=z)
            z += b
            if z is not self.outputs[-1]:
                np.maximum(z, 0, out=z)
            inputs.append(z)
        return inputs

    def samples(self, steps: int) -> list[float]:
        losses, rate = [], self.work.rate
        for x, label in zip(self.X[:steps], self.y, strict=False):
            inputs = self.forward(x)
            g = inputs.pop()
            if self.work.loss == "mse":
                g -= label
                losses.append(float(g @ g))
                g *= 2 * rate
            else:
                g -= g.max()
                at = float(g[label])
                np.exp(g, out=g)
                total = float(g.sum())
                losses.append(math.log(total) - at)
                g *= rate / total
                g[label] -= rate
            for i in reversed(range(len(inputs))):
                (w, b), h, step = self.layers[i], inputs[i], self.steps[i]
                below = np.dot(w, g, out=self.below[i - 1]) if i else g
                np.multiply(h[:, None], g, out=step)
                w -= step
                b -= g
                below *= h > 0 if i else 1
                g = below
        return losses

    def minibatches(self, steps: int) -> list[float]:
        losses, rate, each = [], self.work.rate / self.batch, np.arange(self.batch)
        for k in range(0, steps * self.batch, self.batch):
            inputs, labels = self.forward(self.X[k : k + self.batch]), self.labels[k : k + self.batch]
            g = inputs.pop()
            if self.work.loss == "mse":
                g -= labels[:, None]
                losses.append(float(np.vdot(g, g)) / self.batch)
                g *= 2 * rate
            else:
                g -= g.max(axis=1, keepdims=True)
                at = g[each, labels]
                np.exp(g, out=g)
                total = g.sum(axis=1, keepdims=True)
                losses.append(float(np.mean(np.log(total[:, 0]) - at)))
                g *= rate / total
                g[each, labels] -= rate
            for i in reversed(range(len(inputs))):
                (w, b), h, step = self.layers[i], inputs[i], self.steps[i]
                below = np.dot(g, w.T, out=self.below[i - 1]) if i else g
                w -= np.dot(h.T, g, out=step)
                b -= g.sum(axis=0)
                if i:
                    below *= h > 0
                g = below
        return losses


def limit_blas(threads: int) -> None:
    """From now on NumPy's matrix products take so many threads, if threadpoolctl is here to tell them.  Not for each
    run anew: threads that were let go and come back spin for a while, which disturbs whoever has the next turn."""
    if absent("threadpoolctl"):
        return
    pools: Any = importlib.import_module("threadpoolctl")
    if any(pool["num_threads"] != threads for pool in pools.threadpool_info() if pool["user_api"] == "blas"):
        pools.threadpool_limits(limits=threads, user_api="blas")


class Torch(Contestant):
    """Eager, as in PyTorch's own tutorials."""

    name = "PyTorch eager, float32"
    dtype = "float32"
    needs = "torch"

    def start(self) -> None:
        self.torch: Any = importlib.import_module("torch")
        torch = self.torch
        layers: list[Any] = []
        for w, b in initial_layers(self.work.widths):
            linear = torch.nn.Linear(*w.shape)
            with torch.no_grad():
                linear.weight.copy_(torch.from_numpy(w.T))
                linear.bias.copy_(torch.from_numpy(b))
            layers += [linear, torch.nn.ReLU()]
        self.net = torch.nn.Sequential(*layers[:-1])
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=self.work.rate)
        self.rows, self.labels = torch.from_numpy(self.X), torch.tensor(self.y)
        self.loss: Any = torch.nn.functional.cross_entropy
        if self.work.loss == "mse":
            count = self.batch
            self.labels = self.labels[:, None].float()
            self.loss = lambda z, t: torch.nn.functional.mse_loss(z, t, reduction="sum") / count

    def run(self, steps: int) -> list[float]:
        self.torch.set_num_threads(self.threads)
        net, optimizer, loss_of, batch, losses = self.net, self.optimizer, self.loss, self.batch, []
        for k in range(0, steps * batch, batch):
            some = k if batch == 1 else slice(k, k + batch)
            loss = loss_of(net(self.rows[some]), self.labels[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return losses


# --- contestants that compute dot products number by number ---


class Products:
    """`s = s + x * w` over the numbers of some library: forward, backward from the sum of all, and freeing."""

    LENGTH = 100

    def __init__(
        self, name: str, number: Callable[[float], Any] | None, outputs: int, needs: str | None = None
    ) -> None:
        self.name, self.needs, self.outputs = name, needs, outputs
        rng = np.random.default_rng(SEED)
        self.x, self.w = rng.normal(size=self.LENGTH), rng.normal(size=(outputs, self.LENGTH))
        if number is not None:
            self.inputs = [number(v) for v in self.x.tolist()]
            self.weights = [[number(v) for v in row] for row in self.w.tolist()]

    @property
    def operations(self) -> int:
        return 2 * self.outputs * self.LENGTH

    def once(self) -> Any:
        root = 0.0
        for row in self.weights:
            s = 0.0
            for a, b in zip(self.inputs, row):  # noqa: B905  (strict would be measured too)
                s = s + a * b
            root = root + s
        root.backward()  # type: ignore[attr-defined]
        return root

    def run(self, rounds: int) -> None:
        """What is left behind is freed inside the timer, where the engine would do it later."""
        for _ in range(rounds):
            self.once()
        testing.collect()

    def numbers(self) -> tuple[float, np.ndarray, np.ndarray]:
        """The sum of all dot products, and its gradients with respect to inputs and weights."""
        root = self.once()
        inputs = np.array([float(v.grad) for v in self.inputs])
        weights = np.array([[float(v.grad) for v in row] for row in self.weights])
        return float(root.data), inputs, weights

    def correct(self) -> bool:
        value, inputs, weights = self.numbers()
        return (
            math.isclose(value, float((self.w @ self.x).sum()), rel_tol=1e-9)
            and np.allclose(inputs, self.w.sum(axis=0), rtol=1e-9, atol=1e-12)
            and np.allclose(weights, np.tile(self.x, (self.outputs, 1)), rtol=1e-12)
        )


class CompiledProducts(Products):
    """One dot product recorded once and replayed for every row of weights; the inputs are leaves beside them."""

    def __init__(self, name: str, outputs: int) -> None:
        super().__init__(name, None, outputs)
        self.inputs = [fs.Tensor(v) for v in self.x.tolist()]

        def product(row: Any) -> Any:
            s = 0.0
            for j, a in enumerate(self.inputs):
                s = s + a * row[j]
            return s

        self.program: Any = getattr(fs, "compile")(product)  # noqa: B009

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            self.program.value_and_grad(self.w, argnums=0)

    def correct(self) -> bool:
        values, gradients = self.program.value_and_grad(self.w, argnums=0)
        return np.allclose(values, self.w @ self.x, rtol=1e-9) and np.allclose(
            gradients, np.tile(self.x, (self.outputs, 1)), rtol=1e-12
        )


def micrograd_number(value: float) -> Any:
    return importlib.import_module("micrograd.engine").Value(value)


def torch_number(value: float) -> Any:
    torch: Any = importlib.import_module("torch")
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


# --- measuring ---


@dataclass
class Entry:
    """A contestant of a workload as it stands in the table: how to check it and how to run so many units of work."""

    name: str
    check: Callable[[], dict[str, Any]]
    run: Callable[[int], Any]
    unit: float  # operations or samples in run(1)
    most: int | None = None  # the largest argument of `run`; more is done by calling again
    factor: float = 1.0  # from the size that was run to the size of the workload
    about: dict[str, Any] = field(default_factory=dict)
    side: Any = None
    seconds: list[float] = field(default_factory=list)  # for each operation or sample, scaled, by round
    calls: tuple[int, int] = (1, 1)  # how often in one timer, and with what argument

    def calibrate(self, target: float) -> None:
        """Find how often to run so that one timer lasts about `target` seconds."""
        if self.most is not None and getattr(self.side, "whole", False):
            self.timed(1, self.most)
            self.calls = (max(1, round(target / self.timed(1, self.most))), self.most)
            return
        count = 1
        while (spent := self.timed(1, count)) < target / 4 and count != self.most:
            count = min(count * 4, self.most or count * 4)
        wanted = count * target / max(spent, 1e-9)
        if self.most is not None and wanted > self.most:
            self.calls = (max(1, round(wanted / self.most)), self.most)
        else:
            self.calls = (1, max(1, round(wanted)))

    def timed(self, times: int, count: int) -> float:
        gc.collect()
        start = time.perf_counter()
        results = [self.run(count) for _ in range(times)]
        seconds = time.perf_counter() - start
        return sum(results) if isinstance(results[0], float) else seconds

    def measure(self) -> None:
        times, count = self.calls
        self.seconds.append(self.timed(times, count) / (times * count * self.unit) * self.factor)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


def training_entry(
    kind: type[Contestant],
    work: Workload,
    X: np.ndarray,
    y: Sequence[int],
    batch: int,
    as_work: Workload | None = None,
    threads: int = 1,
) -> Entry:
    """`as_work`: the workload that the figure stands for, if another size was run."""
    side = kind(work, X, y, batch, threads)
    expected = kind.expected(work, X, y, batch)

    def check() -> dict[str, Any]:
        losses = side.first()
        right = bool(np.allclose(losses, expected, rtol=TOLERANCE[kind.dtype], atol=TOLERANCE[kind.dtype] / 10))
        return {"correct": right, "losses": losses, "expected_losses": expected}

    about = {"dtype": kind.dtype, "threads": threads, "version": kind.version()}
    if as_work is not None:
        about["run_with"] = list(work.widths)
    factor = 1.0 if as_work is None else as_work.products / work.products
    return Entry(kind.name, check, side.run, batch, len(X) // batch, factor, about, side)


def products_entry(side: Products) -> Entry:
    version = fs.__version__ if side.needs is None else installed_version(side.needs)
    about = {"dtype": "float64", "threads": 1, "version": version}
    return Entry(side.name, lambda: {"correct": bool(side.correct())}, side.run, side.operations, None, 1.0, about)


@dataclass
class Comparison:
    """One block of the table."""

    name: str
    title: str
    unit: str  # of the figures: ns/op or us/sample
    notes: list[str]
    makers: list[tuple[str, str | None, Callable[[], Entry]]]  # name, why it is skipped, how it is made


def comparisons(X: np.ndarray, y: Sequence[int], quick: bool) -> Iterator[Comparison]:
    outputs = 10 if quick else 50

    def products(name: str, number: Callable[[float], Any], needs: str | None = None) -> Any:
        return name, absent(needs), lambda: products_entry(Products(name, number, outputs, needs))

    def training(kind: type[Contestant], work: Workload, batch: int, as_work: Workload | None = None) -> Any:
        name = kind.name if as_work is None else f"{kind.name}, scaled"
        return name, kind.missing(), lambda: training_entry(kind, work, X, y, batch, as_work)

    yield Comparison(
        "scalar_ops",
        "scalar operations: s = s + x * w, backward, freeing",
        "ns/op",
        [],
        [
            products("twin", reference.Tensor),
            products("fastscalar", fs.Tensor),
            (
                "fastscalar compiled",
                None if hasattr(fs, "compile") else "this version has no fs.compile",
                lambda: products_entry(CompiledProducts("fastscalar compiled", 50 * outputs)),
            ),
            products("micrograd", micrograd_number, "micrograd"),
            products("PyTorch, tensors of one number", torch_number, "torch"),
        ],
    )
    ours: list[type[Contestant]] = [Loop, Compiled, Compiled32]
    peers: list[type[Contestant]] = [Torch, NumPy]
    yield Comparison(
        LINEAR10.name,
        "Linear(784, 10), batch size 1",
        "us/sample",
        [],
        [training(Twin, LINEAR10, 1), *(training(kind, LINEAR10, 1) for kind in (*ours, *peers))],
    )
    tiny = Workload("tiny", (784, 4 if quick else 8, 10))
    factor = MLP.products / tiny.products
    scaled = f"The twin ran with {tiny.widths[1]} hidden units; its time is multiplied by {factor:.1f}."
    yield Comparison(
        MLP.name,
        "MLP 784-256-10, batch size 1",
        "us/sample",
        [scaled],
        [training(Twin, tiny, 1, MLP), *(training(kind, MLP, 1) for kind in (*ours, *peers))],
    )
    yield Comparison(
        "minibatch",
        "MLP 784-256-10, batch size 64",
        "us/sample",
        [scaled, "It ran sample by sample: in pure Python a batch takes as long."],
        [training(Twin, tiny, 1, MLP), *(training(kind, MLP, 64) for kind in (*ours, *peers))],
    )


def absent(module: str | None) -> str | None:
    if module is None or importlib.util.find_spec(module) is not None:
        return None
    return f"{module} is not installed"


@contextmanager
def collector() -> Iterator[None]:
    """Python's cyclic collector on, as in a user's program; the objects of peers' modules are not its business, which
    would be slower for it and so would everything in pure Python."""
    before = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.enable()
    try:
        yield
    finally:
        gc.unfreeze()
        if not before:
            gc.disable()


@contextmanager
def deep() -> Iterator[None]:
    """micrograd's backward pass is recursive."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 20_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def prepared(comparison: Comparison, target: float, skipped: dict[str, str]) -> list[Entry]:
    """The contestants that are here, checked; those with right numbers also calibrated."""
    entries = []
    for name, why, make in comparison.makers:
        if why is not None:
            skipped[name] = why
            continue
        with passing(f"{comparison.title}: checking {name} ..."):
            try:
                entry = make()
                entry.name = name
                entry.about |= entry.check()
                if entry.about["correct"]:
                    entry.calibrate(target)
            except Exception as error:  # of a peer or of ours: the others still run, and the exit status tells
                what = " ".join(f"{type(error).__name__}: {error}".split())
                entry = Entry(name, dict, int, 1.0, about={"correct": False, "error": what})
        entries.append(entry)
    return entries


def measured(comparison: Comparison, quick: bool) -> dict[str, Any]:
    """Check, time in turn, print; what goes into the JSON."""
    skipped: dict[str, str] = {}
    deadline = time.perf_counter() + (2.0 if quick else 11.0)
    entries = prepared(comparison, 0.01 if quick else 0.1, skipped)
    timed = [entry for entry in entries if entry.about["correct"]]
    rounds = 3 if quick else 7
    for number in range(rounds):
        if number >= 3 and time.perf_counter() > deadline:  # a slow machine gets fewer rounds, not a longer wait
            break
        for entry in timed:
            with passing(f"{comparison.title}: round {number + 1} of {rounds}, {entry.name} ..."):
                entry.measure()
    twin = next((entry for entry in timed if entry.name.startswith("twin")), None)
    say()
    say(comparison.title, "bold")
    say(f"  {'':<32} {comparison.unit:>12} {'spread':>9} {'twin / it':>11}  {'numbers':<7}", "dim")
    results: dict[str, Any] = {}
    for entry in entries:
        result = results[entry.name] = dict(entry.about)
        if not entry.seconds:
            say(f"  {entry.name:<32} {'':>12} {'':>9} {'':>11}  WRONG", "bold", "yellow")
            if "error" in entry.about:
                say(f"    {entry.about['error'][:74]}")
            continue
        ratio = twin.median / entry.median if twin is not None else None
        figure = entry.median * (1e9 if comparison.unit.startswith("ns") else 1e6)
        said = "" if ratio is None else f"{short_number(ratio)} x"
        say(f"  {entry.name:<32} {short_number(figure):>12} {100 * entry.spread:>7.1f} % {said:>11}  right")
        per_second = {"ns_per_operation": figure} if comparison.unit == "ns/op" else {"samples_per_s": 1 / entry.median}
        result |= {"median": figure, "spread": entry.spread, "twin_ratio": ratio, **per_second}
        result["rounds"] = [s / entry.median * figure for s in entry.seconds]
    for entry in timed:
        if (once := getattr(entry.side, "once", None)) is not None:
            results[entry.name]["seconds_once"] = once
            note = f"{entry.name}: {1e3 * once:.0f} ms more for each call of fit"
            say(f"  {note}", "dim")
    for note in comparison.notes:
        say(f"  {note}", "dim")
    for name, why in skipped.items():
        say(f"  {name}: skipped, {why}", "dim")
    return {
        "name": comparison.name,
        "title": comparison.title,
        "unit": comparison.unit,
        "notes": comparison.notes,
        "contestants": results,
        "skipped": skipped,
    }


def short_number(x: float) -> str:
    """Three digits, or all before the point."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def compare_all(quick: bool) -> dict[str, Any]:
    """Everything that `fastscalar bench` does; "correct" in the result says whether all checks were passed."""
    began = time.perf_counter()
    X, y, source = digits(640 if quick else 2560)
    with passing("importing the peers ..."):
        for module in PEERS:
            if not absent(module):
                importlib.import_module(module)
        if not Torch.missing():  # it imports the rest of itself when it is first used
            with suppress(Exception):  # said by the check
                Torch(LINEAR10, X, y).run(1)
    versions = {"fastscalar": fs.__version__, "Python": platform.python_version(), "NumPy": np.__version__}
    kernels = fs.tape_info()["kernels"]
    say(", ".join(f"{name} {version}" for name, version in versions.items()), "bold")
    say(f"{cpu()}, {plural(os.cpu_count() or 1, 'core')}, kernels {kernels}; one thread, Python's collector on")
    if absent("threadpoolctl"):
        say("NumPy may take more threads: threadpoolctl, which could tell it, is missing")
    say(f"data: the first {len(X):,} images of {source}" if source == "MNIST" else f"data: {source}", "bold")
    with deep(), collector():
        blocks = [measured(comparison, quick) for comparison in comparisons(X, y, quick)]
    wrong = [
        f"{name} ({block['name']})"
        for block in blocks
        for name, result in block["contestants"].items()
        if not result["correct"]
    ]
    seconds = time.perf_counter() - began
    say()
    say("Medians of rounds taken in turn; spread: half the distance of the quartiles.")
    say(f"Before it is timed, each must get the same sums, or the same first {CHECKED} losses.")
    if wrong:
        say(fill(f"WRONG numbers, not timed: {'; '.join(wrong)}", WIDTH - 1), "bold", "yellow")
    else:
        say(f"All numbers right; {seconds:.0f} s", "bold")
    return {
        **{name.lower(): version for name, version in versions.items()},
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "kernels": kernels,
        "collector": "on",
        "data": source,
        "quick": quick,
        "seconds": seconds,
        "correct": not wrong,
        "workloads": blocks,
    }
