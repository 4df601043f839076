"""The same training by hand, NumPy in float64 and loops that Numba compiles; and by scikit-learn."""

from __future__ import annotations

import importlib
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from contestants.base import Contestant, NumPy, absent, limit_blas
from nets import CHECKED, initial_layers


class NumPy64(NumPy):
    name = "NumPy by hand"
    dtype = "float64"


@cache
def kernels(widths: tuple[int, ...], fastmath: bool) -> Any:
    """Training at batch size 1 as loops over contiguous arrays, every product computed: one layer, or two.

    The widths are constants of the compiled code, and the few sums of a narrow layer stay in registers.
    """
    numba: Any = importlib.import_module("numba")
    njit = numba.njit(fastmath=fastmath, error_model="numpy")

    @njit
    def top(z: Any, label: Any, rate: Any, squared: bool) -> Any:
        """The loss; z becomes its gradient times the rate."""
        if squared:
            z[0] -= label
            loss = z[0] * z[0]
            z[0] *= 2 * rate
            return loss
        highest = z[0]
        for i in range(1, len(z)):
            highest = max(highest, z[i])
        at = z[label]
        total = z.dtype.type(0)
        for i in range(len(z)):
            z[i] = np.exp(z[i] - highest)
            total += z[i]
        factor = rate / total
        for i in range(len(z)):
            z[i] *= factor
        z[label] -= rate
        return np.log(total) + highest - at

    def layer(m: int, n: int) -> tuple[Any, Any, Any]:
        """Forward, backward to the inputs, and the step; w is (n, m) if `transposed` says so, else (m, n)."""
        if transposed(n, fastmath):

            @njit
            def forward(x: Any, w: Any, b: Any, z: Any) -> None:
                for i in range(n):
                    s = b[i]
                    for j in range(m):
                        s += w[i, j] * x[j]
                    z[i] = s

            @njit
            def back(w: Any, g: Any, below: Any) -> None:
                below[:] = 0
                for i in range(n):
                    gi = g[i]
                    for j in range(m):
                        below[j] += gi * w[i, j]

            @njit
            def step(x: Any, w: Any, b: Any, g: Any) -> None:
                for i in range(n):
                    gi = g[i]
                    for j in range(m):
                        w[i, j] -= gi * x[j]
                    b[i] -= gi

        else:

            @njit
            def forward(x: Any, w: Any, b: Any, z: Any) -> None:
                z[:] = b
                for j in range(m):
                    xj = x[j]
                    for i in range(n):
                        z[i] += xj * w[j, i]

            @njit
            def back(w: Any, g: Any, below: Any) -> None:
                for j in range(m):
                    s = w[j, 0] * g[0]
                    for i in range(1, n):
                        s += w[j, i] * g[i]
                    below[j] = s

            @njit
            def step(x: Any, w: Any, b: Any, g: Any) -> None:
                for j in range(m):
                    xj = x[j]
                    for i in range(n):
                        w[j, i] -= xj * g[i]
                for i in range(n):
                    b[i] -= g[i]

        return forward, back, step

    (forward, _, step), *upper = [layer(m, n) for m, n in pairwise(widths)]

    @njit
    def linear(X: Any, y: Any, w: Any, b: Any, rate: Any, squared: bool, losses: Any) -> None:
        z = np.empty_like(b)
        for k in range(len(losses)):
            forward(X[k], w, b, z)
            losses[k] = top(z, y[k], rate, squared)
            step(X[k], w, b, z)

    if not upper:
        return linear
    ((forward2, back2, step2),) = upper

    @njit
    def mlp(X: Any, y: Any, w1: Any, b1: Any, w2: Any, b2: Any, rate: Any, squared: bool, losses: Any) -> None:
        h, below, z = np.empty_like(b1), np.empty_like(b1), np.empty_like(b2)
        for k in range(len(losses)):
            forward(X[k], w1, b1, h)
            for j in range(len(h)):
                h[j] = max(h[j], h.dtype.type(0))
            forward2(h, w2, b2, z)
            losses[k] = top(z, y[k], rate, squared)
            back2(w2, z, below)
            for j in range(len(h)):
                if h[j] <= 0:
                    below[j] = 0
            step2(h, w2, b2, z)
            step(X[k], w1, b1, below)

    return mlp


def transposed(n: int, fastmath: bool) -> bool:
    """A narrow layer is fastest as long dot products, if the compiler may add them up in another order."""
    return fastmath and n <= 32


class Numba(Contestant):
    """Loops by hand; at batch size 1 only, since in a minibatch it would call NumPy's matrix product."""

    name = "Numba by hand"
    needs = "numba"
    fastmath = False

    def start(self) -> None:
        assert self.batch == 1
        self.layers: list[np.ndarray] = []
        for w, b in initial_layers(self.work.widths):
            w = np.ascontiguousarray(w.T) if transposed(w.shape[1], self.fastmath) else w
            self.layers += [w.astype(self.dtype), b.astype(self.dtype)]
        self.labels = np.array(self.y)
        self.kernel = kernels(self.work.widths, self.fastmath)

    def run(self, steps: int) -> Any:
        losses = np.empty(steps, self.dtype)
        rate = self.X.dtype.type(self.work.rate)
        self.kernel(self.X, self.labels, *self.layers, rate, self.work.loss == "mse", losses)
        return losses


class NumbaFast(Numba):
    name = "Numba by hand, fastmath"
    fastmath = True


class Numba32(Numba):
    name = "Numba by hand, float32"
    dtype = "float32"


class NumbaFast32(Numba32):
    name = "Numba by hand, float32, fastmath"
    fastmath = True


class ScikitLearn(Contestant):
    """`MLPClassifier.partial_fit` over all rows at once: an epoch of minibatches within the library, not shuffled."""

    name = "scikit-learn, MLPClassifier"

    @classmethod
    def missing(cls) -> str | None:
        return absent("sklearn")

    @classmethod
    def version(cls) -> str:
        return str(importlib.import_module("sklearn").__version__)

    def start(self) -> None:
        network: Any = importlib.import_module("sklearn.neural_network")
        limit_blas(self.threads)
        self.labels, self.classes = np.array(self.y), np.arange(self.work.widths[-1])
        self.net = network.MLPClassifier(
            self.work.widths[1:-1], solver="sgd", alpha=0.0, batch_size=self.batch, shuffle=False, momentum=0.0,
            learning_rate_init=self.work.rate,
        )  # fmt: skip
        self.train(0, 1)                         # makes the weights, which are then those of everybody
        for k, (w, b) in enumerate(initial_layers(self.work.widths)):
            self.net.coefs_[k][...] = w
            self.net.intercepts_[k][...] = b

    def train(self, first: int, steps: int) -> None:
        rows = slice(first * self.batch, (first + steps) * self.batch)
        self.net.partial_fit(self.X[rows], self.labels[rows], classes=self.classes)

    def first(self) -> list[float]:
        losses = []
        for k in range(CHECKED):                 # of a call it says the mean loss
            self.train(k, 1)
            losses.append(float(self.net.loss_))
        return losses

    def run(self, steps: int) -> list[float]:
        self.train(0, steps)
        return []


class ScikitLearn32(ScikitLearn):
    name = "scikit-learn, MLPClassifier, float32"
    dtype = "float32"
