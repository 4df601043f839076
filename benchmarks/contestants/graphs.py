"""JAX, Paddle and CasADi, each as its own users write it.  The first two run in processes of their own."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from contestants.base import Contestant
from contestants.child import InChild
from nets import initial_layers

# --- JAX ---


def jax_settings(threads: int) -> dict[str, str]:
    """One thread: no parallel loops inside an operation, and a pool of one."""
    flags = "" if threads > 1 else "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "NPROC": str(threads), "OMP_NUM_THREADS": str(threads)}


class Jax(InChild):
    """A jitted step that updates donated parameters; its rows lie on the device from the start."""

    name = "JAX, jitted step, float32"
    dtype = "float32"
    needs = "jax"
    inner = "contestants.graphs:JaxStep"

    @classmethod
    def settings(cls, threads: int) -> dict[str, str]:
        return jax_settings(threads)


class JaxEpoch(Jax):
    """All steps in one `lax.scan`, compiled for their number."""

    name = "JAX, lax.scan, float32"
    inner = "contestants.graphs:JaxScan"
    whole = True


class JaxEpoch64(JaxEpoch):
    name = "JAX, lax.scan"
    dtype = "float64"
    inner = "contestants.graphs:JaxScan64"


class JaxStep(Contestant):
    name = "inside"
    dtype = "float32"

    def start(self) -> None:
        jax: Any = importlib.import_module("jax")
        jax.config.update("jax_enable_x64", self.dtype == "float64")
        jnp, lax = jax.numpy, jax.lax
        squared, rate, batch = self.work.loss == "mse", self.work.rate, self.batch
        self.parameters = [
            (jnp.asarray(w, dtype=self.dtype), jnp.asarray(b, dtype=self.dtype))
            for w, b in initial_layers(self.work.widths)
        ]
        self.jax = jax
        self.inputs = jnp.asarray(self.X)
        self.labels = jnp.asarray(np.array(self.y, dtype=self.dtype if squared else np.int32))

        def loss_of(parameters: Any, x: Any, label: Any) -> Any:
            for w, b in parameters[:-1]:
                x = jax.nn.relu(x @ w + b)
            z = x @ parameters[-1][0] + parameters[-1][1]
            if squared:
                return jnp.mean((z[:, 0] - label) ** 2)
            rows = jax.nn.logsumexp(z, axis=1) - jnp.take_along_axis(z, label[:, None], axis=1)[:, 0]
            return jnp.mean(rows)

        def step(parameters: Any, rows: tuple[Any, Any]) -> tuple[Any, Any]:
            loss, slopes = jax.value_and_grad(loss_of)(parameters, *rows)
            return jax.tree.map(lambda p, g: p - rate * g, parameters, slopes), loss

        def at(parameters: Any, X: Any, y: Any, first: Any) -> tuple[Any, Any]:
            rows = lax.dynamic_slice_in_dim(X, first, batch), lax.dynamic_slice_in_dim(y, first, batch)
            return step(parameters, rows)

        def epoch(parameters: Any, X: Any, y: Any) -> tuple[Any, Any]:
            return lax.scan(step, parameters, (X, y))

        self.step = jax.jit(at, donate_argnums=0)
        self.epoch = jax.jit(epoch, donate_argnums=0)

    def run(self, steps: int) -> Any:
        losses = []
        for k in range(0, steps * self.batch, self.batch):
            self.parameters, loss = self.step(self.parameters, self.inputs, self.labels, k)
            losses.append(loss)
        return np.array(self.jax.device_get(losses))


class JaxScan(JaxStep):
    def run(self, steps: int) -> Any:
        count = steps * self.batch
        X = self.inputs[:count].reshape(steps, self.batch, -1)
        y = self.labels[:count].reshape(steps, self.batch)
        self.parameters, losses = self.epoch(self.parameters, X, y)
        return np.array(losses)


class JaxScan64(JaxScan):
    dtype = "float64"


# --- Paddle ---


class Paddle(InChild):
    """Dynamic graphs, as in the article's own run."""

    name = "Paddle, float32"
    dtype = "float32"
    needs = "paddle"
    inner = "contestants.graphs:PaddleStep"

    @classmethod
    def settings(cls, threads: int) -> dict[str, str]:
        return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "CPU_NUM": str(threads)}


class PaddleStep(Contestant):
    name = "inside"
    dtype = "float32"

    def start(self) -> None:
        paddle: Any = importlib.import_module("paddle")
        paddle.set_device("cpu")
        squared, layers = self.work.loss == "mse", []
        for w, b in initial_layers(self.work.widths):
            linear = paddle.nn.Linear(*w.shape)
            linear.weight.set_value(w.astype("float32"))
            linear.bias.set_value(b.astype("float32"))
            layers += [linear, paddle.nn.ReLU()]
        self.net = paddle.nn.Sequential(*layers[:-1])
        self.optimizer = paddle.optimizer.SGD(self.work.rate, parameters=self.net.parameters())
        self.inputs = paddle.to_tensor(self.X)
        self.labels = paddle.to_tensor(np.array(self.y, dtype="float32" if squared else "int64")[:, None])
        self.loss = paddle.nn.functional.mse_loss if squared else paddle.nn.functional.cross_entropy

    def run(self, steps: int) -> list[float]:
        losses = []
        for k in range(0, steps * self.batch, self.batch):
            rows = slice(k, k + self.batch)
            loss = self.loss(self.net(self.inputs[rows]), self.labels[rows])
            loss.backward()
            self.optimizer.step()
            self.optimizer.clear_grad()
            losses.append(loss.item())
        return losses


# --- CasADi ---


class CasADi(Contestant):
    """One step as an SX function, recorded once and replayed: every scalar operation is an instruction of it.

    Weights go in and come out through buffers that change places; without a C compiler this is its fastest way.
    """

    name = "CasADi SX, replayed"
    needs = "casadi"

    def start(self) -> None:
        assert self.batch == 1
        ca: Any = importlib.import_module("casadi")
        x, target = ca.SX.sym("x", self.work.widths[0]), ca.SX.sym("t", self.work.widths[-1])
        h, parameters, values = x, [], []
        layers = initial_layers(self.work.widths)
        for k, (w, b) in enumerate(layers):
            weight, bias = ca.SX.sym("w", w.shape[1], w.shape[0]), ca.SX.sym("b", len(b))
            h = ca.mtimes(weight, h) + bias
            if k < len(layers) - 1:
                h = ca.fmax(h, 0)
            parameters += [ca.vec(weight), bias]
            values += [w.ravel(), b]  # column by column of the transposed matrix: the order of ours
        if self.work.loss == "mse":
            loss = ca.sumsqr(h - target)
        else:
            top = ca.mmax(h)
            loss = ca.log(ca.sum1(ca.exp(h - top))) + top - ca.dot(h, target)
        p = ca.vertcat(*parameters)
        after = p - self.work.rate * ca.gradient(loss, p)
        self.program = ca.Function("step", [p, x, target], [loss, after])
        self.buffer, self.evaluate = self.program.buffer()
        self.weights = [np.concatenate(values), np.empty(sum(v.size for v in values))]
        self.row, self.target, self.loss = np.empty(x.numel()), np.zeros(target.numel()), np.zeros(1)
        self.buffer.set_arg(1, memoryview(self.row))
        self.buffer.set_arg(2, memoryview(self.target))
        self.buffer.set_res(0, memoryview(self.loss))

    def run(self, steps: int) -> list[float]:
        losses = []
        for k in range(steps):
            self.row[:] = self.X[k]
            self.target[:] = 0.0
            if self.work.loss == "mse":
                self.target[0] = self.y[k]
            else:
                self.target[self.y[k]] = 1.0
            self.buffer.set_arg(0, memoryview(self.weights[0]))
            self.buffer.set_res(1, memoryview(self.weights[1]))
            self.evaluate()
            self.weights.reverse()
            losses.append(float(self.loss[0]))
        return losses
