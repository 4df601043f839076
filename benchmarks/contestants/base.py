"""The base of all contestants, and the light ones: training a net, or dot products number by number.

All sides of a workload start from the same weights and see the same rows.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

import fastscalar as fs
from fastscalar import reference
from fastscalar.engine import testing
from nets import CHECKED, SEED, Workload, expected_losses, initial_layers

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


def absent(module: str | None) -> str | None:
    if module is None or importlib.util.find_spec(module) is not None:
        return None
    return f"{module} is not installed"


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
