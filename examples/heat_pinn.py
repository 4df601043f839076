"""A physicist's day: the heat equation by a net whose loss has the net's own derivatives in it (a PINN).

Run it with `python examples/heat_pinn.py`.  u_t = D u_xx on 0..1, u = sin(pi x) at t = 0 and u = 0 at the ends; the
solution is exp(-D pi^2 t) sin(pi x).  Lagaris et al. 1998: what the net gives is multiplied so that start and ends
hold.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import fastscalar as fs
from fastscalar import math

DIFFUSIVITY, WIDTH = 0.1, 12


def make(seed: int) -> tuple[Callable[[Any, Any], Any], list[fs.TensorArray]]:
    """The net's weights, and its value at a point."""
    random = np.random.default_rng(seed)
    w = fs.to_tensor(random.normal(size=(2, WIDTH)))
    b = fs.to_tensor(random.normal(size=WIDTH))
    v = fs.to_tensor(random.normal(size=WIDTH) / WIDTH)

    def u(x: Any, t: Any) -> Any:
        hidden = [math.tanh(x * w[0][j] + t * w[1][j] + b[j]) * v[j] for j in range(WIDTH)]
        return math.sin(math.pi * x) + t * x * (1.0 - x) * fs.sum(hidden)

    return u, [w, b, v]


def main(epochs: int = 400, seed: int = 0) -> tuple[float, float]:
    """The loss at the end, and the largest error of u on a grid."""
    u, parameters = make(seed)
    u_t, u_xx = fs.grad(u, 1), fs.grad(fs.grad(u))

    @fs.compile
    def residual(x: Any, t: Any) -> Any:
        return (u_t(x, t) - DIFFUSIVITY * u_xx(x, t)) ** 2

    random = np.random.default_rng(seed)
    x, t = random.uniform(size=256), random.uniform(size=256)
    optimizer = fs.Adam(parameters, lr=0.02)
    for _ in range(epochs):
        losses = residual.backward(x, t)             # the gradient of a sum over 256 points, in .grad
        optimizer.step()
    print("recorded:", residual.report())
    X, T = (a.ravel() for a in np.meshgrid(np.linspace(0, 1, 21), np.linspace(0, 1, 21)))
    exact = np.exp(-DIFFUSIVITY * np.pi**2 * T) * np.sin(np.pi * X)
    error = float(np.abs(fs.compile(u).map(X, T) - exact).max())
    print(f"mean loss {losses.mean():.2e}, largest error of u {error:.2e}")
    return float(losses.mean()), error


if __name__ == "__main__":
    main()
