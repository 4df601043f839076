"""Irregular scalar programs: a function of a few numbers with its gradient, for many samples.

Each program is written once, over whatever has + - * / and, from `lib`, exp, sqrt and relu.  It runs on floats, on
Tensors, on CasADi's expressions and on columns of PyTorch's tensors.  Unrolled, JAX takes minutes and many gigabytes to
compile it; for JAX there are loops and arrays instead.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

import fastscalar as fs
from contestants.base import Products, absent, compiled_only, installed_version
from contestants.child import InChild
from contestants.graphs import jax_settings
from fastscalar import reference

# --- the programs ---


def predators(x: Any, lib: Any, steps: int = 40) -> Any:
    """Predators and prey (Lotka and Volterra) by Runge and Kutta's method: how far from a target they end."""
    prey, hunters, a, b, c, d = (x[k] for k in range(6))
    h = 0.05

    def slope(p: Any, q: Any) -> tuple[Any, Any]:
        return p * (a - b * q), q * (d * p - c)

    for _ in range(steps):
        p1, q1 = slope(prey, hunters)
        p2, q2 = slope(prey + h / 2 * p1, hunters + h / 2 * q1)
        p3, q3 = slope(prey + h / 2 * p2, hunters + h / 2 * q2)
        p4, q4 = slope(prey + h * p3, hunters + h * q3)
        prey = prey + h / 6 * (p1 + 2.0 * (p2 + p3) + p4)
        hunters = hunters + h / 6 * (q1 + 2.0 * (q2 + q3) + q4)
    return (prey - 1.0) * (prey - 1.0) + (hunters - 1.0) * (hunters - 1.0)


def american_put(x: Any, lib: Any, steps: int = 30) -> Any:
    """An option that may be exercised at any time, on a binomial lattice (Cox, Ross and Rubinstein)."""
    price, strike, volatility, rate, years = (x[k] for k in range(5))
    dt = years / float(steps)
    up = lib.exp(volatility * lib.sqrt(dt))
    growth = lib.exp(rate * dt)
    down = 1.0 / up
    p = (growth - down) / (up - down) / growth
    q = 1.0 / growth - p
    prices = [price]
    for _ in range(steps):
        prices = [s * down for s in prices] + [prices[-1] * up]
    values = [lib.relu(strike - s) for s in prices]
    for _ in range(steps):
        prices = [s * up for s in prices[:-1]]
        held = [q * low + p * high for low, high in zip(values, values[1:], strict=False)]
        values = [v + lib.relu(strike - s - v) for v, s in zip(held, prices, strict=True)]
    return values[0]


PROGRAMS: dict[str, tuple[Callable[..., Any], list[tuple[float, float]]]] = {
    "ode": (predators, [(0.8, 1.5), (0.6, 1.2), (0.9, 1.2), (0.8, 1.1), (0.8, 1.1), (0.8, 1.1)]),
    "lattice": (american_put, [(90, 110), (90, 110), (0.15, 0.4), (0.01, 0.06), (0.5, 2.0)]),
}


def samples(name: str, n: int) -> np.ndarray:
    low, high = np.array(PROGRAMS[name][1]).T
    return np.random.default_rng(0).uniform(low, high, size=(n, len(low)))


# --- what they are checked with ---

PLAIN = SimpleNamespace(exp=math.exp, sqrt=math.sqrt, relu=lambda v: max(v, 0.0))
TENSORS = SimpleNamespace(exp=lambda v: v.exp(), sqrt=lambda v: v**0.5, relu=lambda v: v.relu())


class Counted(float):
    """A float that counts what is done with it."""

    done: ClassVar[int] = 0


def _counting(name: str) -> Callable[..., Counted]:
    def method(*operands: float) -> Counted:
        Counted.done += 1
        return Counted(getattr(float, name)(*operands))

    return method


for _name in ("add", "sub", "mul", "truediv"):
    for _prefix in ("__", "__r"):
        setattr(Counted, f"{_prefix}{_name}__", _counting(f"{_prefix}{_name}__"))


def operations(name: str) -> int:
    """Of the value alone, functions included; a number in an expression is none."""
    Counted.done = 0

    def one(f: Callable[[float], float]) -> Callable[[float], Counted]:
        def counted(v: float) -> Counted:
            Counted.done += 1
            return Counted(f(v))

        return counted

    lib = SimpleNamespace(exp=one(math.exp), sqrt=one(math.sqrt), relu=one(lambda v: max(v, 0.0)))
    PROGRAMS[name][0]([Counted(v) for v in samples(name, 1)[0]], lib)
    return Counted.done


def expected(name: str, X: np.ndarray, checked: int = 3) -> tuple[list[float], list[list[float]]]:
    """All values from floats, and the gradients of the first samples from the twin."""
    program = PROGRAMS[name][0]
    gradients = []
    for row in X[:checked].tolist():
        leaves = [reference.Tensor(v) for v in row]
        program(leaves, TENSORS).backward()
        gradients.append([leaf.grad for leaf in leaves])
    return [program(row, PLAIN) for row in X.tolist()], gradients


# --- contestants ---


class Evaluation:
    """Value and gradient of a program for the rows of X.  `run(k)` does that k times and keeps the last answer."""

    name: ClassVar[str]
    needs: ClassVar[str | None] = None
    tolerance: ClassVar[float] = 1e-9

    def __init__(self, program: str, X: np.ndarray) -> None:
        self.program, self.X = program, X
        self.function = PROGRAMS[program][0]
        self.start()

    def start(self) -> None:
        pass

    def once(self) -> tuple[Any, Any]:
        raise NotImplementedError

    def run(self, times: int) -> None:
        for _ in range(times):
            self.answer = self.once()

    def close(self) -> None:
        pass

    @classmethod
    def missing(cls) -> str | None:
        return absent(cls.needs)

    @classmethod
    def version(cls) -> str:
        return fs.__version__ if cls.needs is None else installed_version(cls.needs)

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        values, gradients = self.once()
        return np.asarray(values, dtype=float), np.asarray(gradients, dtype=float)

    def check(self) -> dict[str, Any]:
        n = len(self.X)
        values, gradients = self.numbers()
        expected_values, expected_gradients = expected(self.program, self.X[: min(n, 20)])
        head = len(expected_values)
        scale = np.abs(expected_gradients).max()
        right = (
            values.shape == (n,)
            and gradients.shape == self.X.shape
            and np.allclose(values[:head], expected_values, rtol=self.tolerance)
            and np.allclose(gradients[:3], expected_gradients[:n], rtol=self.tolerance, atol=self.tolerance * scale)
            and bool(np.isfinite(gradients).all())
        )
        return {"correct": bool(right)}


class Tape(Evaluation):
    """Recorded anew for every sample."""

    name = "fastscalar"
    tensor: ClassVar[Any] = fs.Tensor

    def once(self) -> tuple[Any, Any]:
        values, gradients = [], []
        for row in self.X.tolist():
            leaves = [self.tensor(v) for v in row]
            result = self.function(leaves, TENSORS)
            result.backward()
            values.append(result.data)
            gradients.append([leaf.grad for leaf in leaves])
        return values, gradients


class TwinTape(Tape):
    name = "twin"
    tensor = reference.Tensor


class Compilation(Evaluation):
    """Recorded once, replayed for all samples."""

    name = "fastscalar compiled"

    def start(self) -> None:
        function = self.function
        self.compiled: Any = getattr(fs, "compile")(lambda x: function(x, TENSORS))  # noqa: B009

    def once(self) -> tuple[Any, Any]:
        with compiled_only():
            return self.compiled.value_and_grad(self.X, argnums=0)

    @classmethod
    def missing(cls) -> str | None:
        return None if hasattr(fs, "compile") else "this version has no fs.compile"


class CasADiReplay(Evaluation):
    """An SX function of value and gradient, mapped over the samples in one thread, through buffers: no copies."""

    name = "CasADi SX, replayed"
    needs = "casadi"

    def start(self) -> None:
        ca: Any = importlib.import_module("casadi")
        n, k = self.X.shape
        x = ca.SX.sym("x", k)
        lib = SimpleNamespace(exp=ca.exp, sqrt=ca.sqrt, relu=lambda v: ca.fmax(v, 0))
        value = self.function(x, lib)
        one = ca.Function("f", [x], [value, ca.gradient(value, x)], {"cse": True})
        self.mapped = one.map(n)
        self.buffer, self.evaluate = self.mapped.buffer()
        self.inputs = np.ascontiguousarray(self.X)  # (n, k) here is (k, n) column by column there
        self.values, self.gradients = np.empty(n), np.empty((n, k))
        self.buffer.set_arg(0, memoryview(self.inputs.reshape(-1)))
        self.buffer.set_res(0, memoryview(self.values))
        self.buffer.set_res(1, memoryview(self.gradients.reshape(-1)))

    def once(self) -> tuple[Any, Any]:
        self.evaluate()
        return self.values, self.gradients


class CasADiProducts(Products):
    """The dot products of `scalar_ops` and their gradient as one SX function."""

    def __init__(self, name: str, number: None, outputs: int, needs: str) -> None:
        super().__init__(name, number, outputs, needs)
        ca: Any = importlib.import_module("casadi")
        x, w = ca.SX.sym("x", self.LENGTH), ca.SX.sym("w", self.LENGTH, outputs)  # columns there are rows here
        root = 0
        for k in range(outputs):
            s = 0
            for j in range(self.LENGTH):
                s = s + x[j] * w[j, k]
            root = root + s
        function = ca.Function("f", [x, w], [root, ca.gradient(root, x), ca.gradient(root, ca.vec(w))])
        self.buffer, self.evaluate = function.buffer()
        self.results = [np.empty(1), np.empty(self.LENGTH), np.empty(self.w.shape)]
        for k, array in enumerate((self.x, self.w)):
            self.buffer.set_arg(k, memoryview(array.reshape(-1)))
        for k, array in enumerate(self.results):
            self.buffer.set_res(k, memoryview(array.reshape(-1)))

    def run(self, rounds: int) -> None:
        for _ in range(rounds):
            self.evaluate()

    def numbers(self) -> tuple[float, np.ndarray, np.ndarray]:
        self.evaluate()
        value, inputs, weights = self.results
        return float(value[0]), inputs, weights


class TorchColumns(Evaluation):
    """Eager operations on columns of all samples: one operation of PyTorch for each of the program."""

    name = "PyTorch eager, all samples at once"
    needs = "torch"

    def start(self) -> None:
        self.torch: Any = importlib.import_module("torch")
        self.torch.set_num_threads(1)
        self.columns = self.torch.from_numpy(np.ascontiguousarray(self.X.T))

    def once(self) -> tuple[Any, Any]:
        x = self.columns.clone().requires_grad_()
        value = self.function(x, SimpleNamespace(exp=self.torch.exp, sqrt=self.torch.sqrt, relu=self.torch.relu))
        value.sum().backward()
        return value.detach().numpy(), x.grad.numpy().T


class JaxVmap(InChild):
    """`jit(vmap(value_and_grad(f)))` in float64, the program unrolled."""

    name = "JAX, jit of vmap"
    needs = "jax"
    inner = "contestants.programs:JaxInside"
    check = Evaluation.check
    tolerance = Evaluation.tolerance

    def __init__(self, program: str, X: np.ndarray) -> None:
        self.program, self.X, self.threads = program, X, 1
        self.start_child(program, X)

    @classmethod
    def settings(cls, threads: int) -> dict[str, str]:
        return jax_settings(threads) | {"JAX_ENABLE_X64": "1"}

    def numbers(self) -> Any:
        return self.ask("numbers")


class JaxInside(Evaluation):
    name = "inside"

    def start(self) -> None:
        jax: Any = importlib.import_module("jax")
        function = {"ode": predators_in_jax, "lattice": american_put_in_jax}[self.program](jax)
        self.inputs = jax.numpy.asarray(self.X)
        self.mapped = jax.jit(jax.vmap(jax.value_and_grad(function)))

    def once(self) -> tuple[Any, Any]:
        values, gradients = self.mapped(self.inputs)
        return values.block_until_ready(), gradients.block_until_ready()

    def run(self, times: int) -> None:
        for _ in range(times):
            self.once()


def predators_in_jax(jax: Any, steps: int = 40) -> Any:
    """A scan over the time steps."""

    def f(x: Any) -> Any:
        prey, hunters, a, b, c, d = x
        h = 0.05

        def slope(p: Any, q: Any) -> tuple[Any, Any]:
            return p * (a - b * q), q * (d * p - c)

        def step(state: Any, _: None) -> tuple[Any, None]:
            p, q = state
            p1, q1 = slope(p, q)
            p2, q2 = slope(p + h / 2 * p1, q + h / 2 * q1)
            p3, q3 = slope(p + h / 2 * p2, q + h / 2 * q2)
            p4, q4 = slope(p + h * p3, q + h * q3)
            p = p + h / 6 * (p1 + 2.0 * (p2 + p3) + p4)
            return (p, q + h / 6 * (q1 + 2.0 * (q2 + q3) + q4)), None

        (prey, hunters), _ = jax.lax.scan(step, (prey, hunters), None, length=steps)
        return (prey - 1.0) ** 2 + (hunters - 1.0) ** 2

    return f


def american_put_in_jax(jax: Any, steps: int = 30) -> Any:
    """A scan over the levels; each level is an array of the length of the last, its end unused."""
    jnp = jax.numpy

    def f(x: Any) -> Any:
        price, strike, volatility, rate, years = x
        dt = years / steps
        up, growth = jnp.exp(volatility * jnp.sqrt(dt)), jnp.exp(rate * dt)
        down = 1.0 / up
        p = (growth - down) / (up - down) / growth
        q = 1.0 / growth - p
        prices = price * up ** (2.0 * jnp.arange(steps + 1) - steps)

        def level(state: Any, _: None) -> tuple[Any, None]:
            prices, values = state
            prices = prices * up
            held = q * values + p * jnp.roll(values, -1)
            return (prices, jnp.maximum(held, strike - prices)), None

        first = (prices, jnp.maximum(strike - prices, 0.0))
        (_, values), _ = jax.lax.scan(level, first, None, length=steps)
        return values[0]

    return f
