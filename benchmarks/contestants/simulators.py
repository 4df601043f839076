"""Who else computes values and gradients of the simulations: the same formulas, step by step, for arrays of rows.

Each takes the name of a simulation and its rows, gets ready (compiles), and is called for (values, gradients).  What
it gives is compared with ours before it is timed.  Who is not installed, or needs a compiler that is not there, is left
out by name.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]


class Formulas(NamedTuple):
    """start(x, f): what a path has at first; step(state, k, draws, x, f): what it has then; end(state, x, f).  x: the
    numbers that are not drawn; f: a library's exp, sin, sqrt and maximum."""

    plain: int  # numbers of a row before the draws
    draws: int  # of a step
    steps: int
    start: Callable[..., tuple[Any, ...]]
    step: Callable[..., tuple[Any, ...]]
    end: Callable[..., Any]


def _asian(s: Any, k: Any, draws: Any, x: Any, f: Any) -> Any:
    log_price = s[0] + (x[1] - 0.5 * x[0] * x[0]) * 0.01 + x[0] * 0.1 * draws[0]
    return log_price, s[1] + f.exp(log_price)


def _heston(s: Any, k: Any, draws: Any, x: Any, f: Any) -> Any:
    root = f.sqrt(f.maximum(s[1], 1e-8) * 0.01)
    other = f.sqrt(1.0 - x[4] * x[4])
    return (
        s[0] - 0.005 * s[1] + root * draws[0],
        s[1] + x[2] * (x[1] - s[1]) * 0.01 + x[3] * root * (x[4] * draws[0] + other * draws[1]),
    )


def _pendulum(s: Any, k: Any, draws: Any, x: Any, f: Any) -> Any:
    h, t = 0.05, k * 0.05
    cos = f.cos

    def slopes(a: Any, v: Any, t: Any) -> Any:
        return v, x[3] * cos(0.7 * t) - x[2] * v - f.sin(a)

    a1, v1 = slopes(s[0], s[1], t)
    a2, v2 = slopes(s[0] + 0.5 * h * a1, s[1] + 0.5 * h * v1, t + 0.5 * h)
    a3, v3 = slopes(s[0] + 0.5 * h * a2, s[1] + 0.5 * h * v2, t + 0.5 * h)
    a4, v4 = slopes(s[0] + h * a3, s[1] + h * v3, t + h)
    return s[0] + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4), s[1] + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)


FORMULAS = {
    "asian": Formulas(3, 1, 100, lambda x, f: (0.0 * x[0], 0.0 * x[0]), _asian,
                      lambda s, x, f: f.maximum(s[1] * 0.01 - x[2], 0.0)),
    "heston": Formulas(5, 2, 100, lambda x, f: (0.0 * x[0], x[0]), _heston,
                       lambda s, x, f: f.maximum(f.exp(s[0]) - 1.0, 0.0)),
    "pendulum": Formulas(4, 0, 200, lambda x, f: (x[0], x[1]), _pendulum, lambda s, x, f: s[0]),
}  # fmt: skip


class Functions:
    """A library's functions under the names that the formulas use; cos is of times, which are numbers."""

    def __init__(self, exp: Any, sin: Any, sqrt: Any, maximum: Any, cos: Any = math.cos) -> None:
        self.exp, self.sin, self.sqrt, self.maximum, self.cos = exp, sin, sqrt, maximum, cos


def unrolled(name: str, x: Any, f: Functions) -> Any:
    """All steps one after the other, x[k] being the k-th number of a row, or of all rows."""
    formulas = FORMULAS[name]
    state = formulas.start(x, f)
    for k in range(formulas.steps):
        first = formulas.plain + k * formulas.draws
        state = formulas.step(state, k, [x[first + j] for j in range(formulas.draws)], x, f)
    return formulas.end(state, x, f)


class Simulator:
    """One side of the race on a simulation."""

    name: ClassVar[str]
    needs: ClassVar[str | None] = None
    knows: ClassVar[tuple[str, ...]] = tuple(FORMULAS)
    compiles: ClassVar[bool] = True  # which takes seconds, whatever the number of rows

    def __init__(self, simulation: str, X: np.ndarray) -> None:
        self.simulation, self.X = simulation, X
        self.columns = np.ascontiguousarray(X.T)
        self.start()

    def start(self) -> None:
        """Get ready: nothing of it is timed."""

    def run(self) -> Arrays:
        """Values, (rows,), and gradients, (rows, numbers) or transposed, as the library has them."""
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str | None:
        if cls.needs is None or importlib.util.find_spec(cls.needs) is not None:
            return None
        return f"{cls.needs} is not installed"


class Torch(Simulator):
    name, needs = "PyTorch, all rows at once", "torch"
    compiles = False

    def run(self) -> Arrays:
        import torch

        f = Functions(torch.exp, torch.sin, torch.sqrt, lambda a, b: torch.clamp(a, min=b))
        x = torch.tensor(self.columns, requires_grad=True)
        y = unrolled(self.simulation, x.unbind(), f)
        y.sum().backward()
        return y.detach().numpy(), x.grad.numpy().T


class Autograd(Simulator):
    name, needs = "HIPS autograd, all rows at once", "autograd"
    compiles = False

    def run(self) -> Arrays:
        import autograd.numpy as anp
        from autograd import make_vjp

        f = Functions(anp.exp, anp.sin, anp.sqrt, anp.maximum)
        back, y = make_vjp(lambda x: unrolled(self.simulation, x, f))(list(self.columns))
        return y, np.array(back(np.ones(len(self.X)))).T


class Jax(Simulator):
    name, needs = "JAX, lax.scan", "jax"

    def start(self) -> None:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        f, formulas = Functions(jnp.exp, jnp.sin, jnp.sqrt, jnp.maximum, jnp.cos), FORMULAS[self.simulation]

        def of_row(x: Any) -> Any:
            draws = x[formulas.plain :].reshape(formulas.steps, -1)

            def step(state: Any, given: Any) -> Any:
                return formulas.step(state, given[0], given[1], x, f), None

            times = jnp.arange(formulas.steps, dtype=jnp.float64)
            state, _ = jax.lax.scan(step, formulas.start(x, f), (times, draws))
            return formulas.end(state, x, f)

        self.compiled = jax.jit(jax.vmap(jax.value_and_grad(of_row)))
        self.rows = jnp.asarray(self.X)
        self.run()

    def run(self) -> Arrays:
        y, g = self.compiled(self.rows)
        return np.asarray(y), np.asarray(g)


class Ddx(Simulator):
    name, needs = "ddx-ad, compiled", "ddx"

    def start(self) -> None:
        import ddx

        f = Functions(ddx.exp, ddx.sin, ddx.sqrt, ddx.max)
        width = self.X.shape[1]
        model = ddx.equation(lambda: unrolled(self.simulation, [ddx.var(f"x{k}") for k in range(width)], f))
        self.compiled = model.compile(points=len(self.X))
        self.order = [int(symbol[1:]) for symbol in self.compiled.symbols]
        self.block = np.ascontiguousarray(self.columns[self.order])

    def run(self) -> Arrays:
        y, g = self.compiled.jacobian(self.block)
        return y, np.asarray(g)[np.argsort(self.order)].T


class DrJit(Simulator):
    name, needs = "Dr.Jit", "drjit"
    knows = ("asian", "heston")  # the pendulum takes it half a minute to compile

    def start(self) -> None:
        import drjit as dr
        from drjit.llvm.ad import Float64

        # `dr.maximum` ends the process where the LLVM that it finds is an old one
        self.f = Functions(dr.exp, dr.sin, dr.sqrt, lambda a, b: dr.select(a > b, a, b))
        self.kind = Float64
        self.run()

    def run(self) -> Arrays:
        import drjit as dr

        x = [self.kind(column) for column in self.columns]
        dr.enable_grad(x)
        y = unrolled(self.simulation, x, self.f)
        dr.backward(y)
        gradients = [dr.grad(v) for v in x]
        dr.eval(y, gradients)
        return np.array(y), np.array([np.array(g) for g in gradients]).T


def compiler() -> str | None:
    return shutil.which(os.environ.get("CC", "cc"))


def build(text: str, folder: str) -> Path:
    """A shared library of a text in C."""
    source, library = Path(folder, "made.c"), Path(folder, "made.so")
    source.write_text(text)
    command = [compiler() or "cc", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC"]
    subprocess.run([*command, str(source), "-o", str(library), "-lm"], check=True, timeout=600)
    return library


class CasADi(Simulator):
    """C that CasADi generates for a row, compiled here."""

    name, needs = "CasADi, generated C", "casadi"

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or (None if compiler() else "there is no compiler of C")

    def start(self) -> None:
        import casadi

        x = casadi.SX.sym("x", self.X.shape[1])
        f = Functions(casadi.exp, casadi.sin, casadi.sqrt, casadi.fmax)
        y = unrolled(self.simulation, [x[k] for k in range(self.X.shape[1])], f)
        made = casadi.Function("made", [x], [y, casadi.gradient(y, x)])
        generator = casadi.CodeGenerator("made")
        generator.add(made)
        self.folder = tempfile.TemporaryDirectory()
        library = build(generator.dump(), self.folder.name)
        self.compiled = casadi.external("made", str(library)).map(len(self.X))

    def run(self) -> Arrays:
        y, g = self.compiled(self.columns)
        return np.asarray(y).ravel(), np.asarray(g).T


BY_HAND = """
#include <math.h>
/* The Asian option, forward and backward by hand, rows in blocks so that loops over them become vectors. */
#define N 32
void asian(const double *restrict x, double *restrict value, double *restrict gradient, long rows)
{ /* x, gradient: [103][rows] */
    static double price[100][N];
    for (long first = 0; first < rows; first += N) {
        double log_price[N] = {0}, total[N] = {0}, back[N] = {0}, drift[N] = {0}, scale[N] = {0}, g[N];
        const long n = rows - first < N ? rows - first : N;
        const double *v = x + first, *r = v + rows, *strike = r + rows;
        for (int k = 0; k < 100; k++) {
            const double *z = x + (3 + k) * rows + first;
            for (long i = 0; i < n; i++) {
                log_price[i] += (r[i] - 0.5 * v[i] * v[i]) * 0.01 + v[i] * 0.1 * z[i];
                price[k][i] = exp(log_price[i]);
                total[i] += price[k][i];
            }
        }
        for (long i = 0; i < n; i++) {
            const double y = total[i] * 0.01 - strike[i];
            value[first + i] = y > 0 ? y : 0;
            g[i] = y > 0 ? 1 : 0;
            gradient[2 * rows + first + i] = -g[i];
        }
        for (int k = 99; k >= 0; k--) {
            const double *z = x + (3 + k) * rows + first;
            double *dz = gradient + (3 + k) * rows + first;
            for (long i = 0; i < n; i++) {
                back[i] += g[i] * 0.01 * price[k][i];
                drift[i] += back[i];
                scale[i] += back[i] * z[i];
                dz[i] = back[i] * v[i] * 0.1;
            }
        }
        for (long i = 0; i < n; i++) {
            gradient[first + i] = 0.1 * scale[i] - 0.01 * v[i] * drift[i];
            gradient[rows + first + i] = 0.01 * drift[i];
        }
    }
}
"""


class ByHand(Simulator):
    name = "C by hand, compiled on the spot"
    knows = ("asian",)

    @classmethod
    def missing(cls) -> str | None:
        return None if compiler() else "there is no compiler of C"

    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.function = ctypes.CDLL(str(build(BY_HAND, self.folder.name))).asian
        self.values, self.gradients = np.empty(len(self.X)), np.empty_like(self.columns)

    def run(self) -> Arrays:
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in (self.columns, self.values, self.gradients)]
        self.function(*pointers, ctypes.c_long(len(self.X)))
        return self.values, self.gradients.T


SIMULATORS: tuple[type[Simulator], ...] = (ByHand, Jax, Torch, Autograd, Ddx, DrJit, CasADi)
