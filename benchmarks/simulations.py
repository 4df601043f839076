"""Programs of single numbers that are computed for many rows: functions of one row, and rows for them.

Paths of prices and volatilities, a pendulum, a barrier that is decided on, Newton's method, and a GPT in one file; what
they compute is stated in plain floats beside them, so that a benchmark can check it.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

import fastscalar as fs


def asian(x: Any) -> Any:
    """The payoff of an Asian call: the mean of a path of 100 prices.  x: volatility, rate, strike, 100 draws."""
    volatility, rate, strike = x[0], x[1], x[2]
    drift, scale = (rate - 0.5 * volatility * volatility) * 0.01, volatility * 0.1
    log_price, total = 0.0, 0.0
    for k in range(100):
        log_price = log_price + drift + scale * x[3 + k]
        total = total + fs.math.exp(log_price)
    return fs.maximum(total * 0.01 - strike, 0.0)


def heston(x: Any) -> Any:
    """The payoff of a call where the variance is a process too, 100 steps.  x: variance, its mean, speed, volatility,
    correlation, 200 draws."""
    variance, mean, speed, volatility, correlation = x[0], x[1], x[2], x[3], x[4]
    other = fs.math.sqrt(1.0 - correlation * correlation)
    log_price = 0.0
    for k in range(100):
        root = fs.math.sqrt(fs.maximum(variance, 1e-8) * 0.01)
        first, second = x[5 + 2 * k], x[6 + 2 * k]
        log_price = log_price - 0.005 * variance + root * first
        variance = (
            variance + speed * (mean - variance) * 0.01 + volatility * root * (correlation * first + other * second)
        )
    return fs.maximum(fs.math.exp(log_price) - 1.0, 0.0)


def pendulum(x: Any) -> Any:
    """Where a damped, driven pendulum is after 200 steps of Runge and Kutta.  x: angle, speed, damping, drive."""
    angle, speed, damping, drive = x[0], x[1], x[2], x[3]
    h = 0.05

    def slopes(a: Any, v: Any, t: float) -> tuple[Any, Any]:
        return v, drive * math.cos(0.7 * t) - damping * v - fs.math.sin(a)

    for k in range(200):
        t = k * h
        a1, v1 = slopes(angle, speed, t)
        a2, v2 = slopes(angle + 0.5 * h * a1, speed + 0.5 * h * v1, t + 0.5 * h)
        a3, v3 = slopes(angle + 0.5 * h * a2, speed + 0.5 * h * v2, t + 0.5 * h)
        a4, v4 = slopes(angle + h * a3, speed + h * v3, t + h)
        angle = angle + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
        speed = speed + h / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
    return angle


def barrier(x: Any) -> Any:
    """A call that is lost when its path of 50 prices falls below a barrier.  x: volatility, barrier, 50 draws."""
    volatility, low = x[0], x[1]
    log_price, scale = 0.0, volatility * 0.14
    for k in range(50):
        log_price = log_price - 0.01 * volatility * volatility + scale * x[2 + k]
        if log_price < low:
            return 0.0 * volatility
    return fs.maximum(fs.math.exp(log_price) - 1.0, 0.0)


def newton(x: Any) -> Any:
    """The root of y^3 + x[0] y = x[1] by Newton's method, until it moves no more."""
    y, step = 1.0 + 0.0 * x[0], 1.0
    while abs(step) > 1e-9:
        step = (y * y * y + x[0] * y - x[1]) / (3.0 * y * y + x[0])
        y = y - step
    return y


def rows(name: str, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)

    def between(*limits: tuple[float, float]) -> np.ndarray:
        return np.stack([rng.uniform(low, high, n) for low, high in limits], axis=1)

    if name == "asian":
        return np.hstack([between((0.1, 0.4), (0.0, 0.05), (0.9, 1.1)), rng.normal(size=(n, 100))])
    if name == "heston":
        limits = ((0.02, 0.09), (0.03, 0.06), (1.0, 3.0), (0.2, 0.5), (-0.8, -0.2))
        return np.hstack([between(*limits), rng.normal(size=(n, 200))])
    if name == "pendulum":
        return between((-1.0, 1.0), (-1.0, 1.0), (0.1, 0.3), (0.2, 0.8))
    if name == "barrier":
        return np.hstack([between((0.1, 0.4), (-0.4, -0.2)), rng.normal(size=(n, 50))])
    return between((0.5, 2.0), (1.0, 5.0))


SIMULATIONS = {"asian": asian, "heston": heston, "pendulum": pendulum, "barrier": barrier, "newton": newton}


# --- a GPT in one file: 4,192 parameters, one layer, four heads, names of up to 15 letters ---

VOCABULARY = 27


class GPT:
    """The published configuration: no biases, RMS normalisation, ReLU; matrices of outputs x inputs."""

    def __init__(self, width: int = 16, heads: int = 4, context: int = 16, seed: int = 0) -> None:
        rng = random.Random(seed)

        def matrix(rows: int, columns: int, spread: float = 0.08) -> Any:
            return fs.to_tensor([[rng.gauss(0, spread) for _ in range(columns)] for _ in range(rows)])

        self.width, self.heads = width, heads
        self.token, self.position = matrix(VOCABULARY, width), matrix(context, width)
        self.query, self.key, self.value, self.mix = (matrix(width, width) for _ in range(4))
        self.up, self.down = matrix(4 * width, width), matrix(width, 4 * width)
        self.head = matrix(VOCABULARY, width)

    def parameters(self) -> list[Any]:
        return [v for v in vars(self).values() if isinstance(v, fs.TensorArray)]

    def loss(self, tokens: Any) -> Any:
        """Mean loss of each letter after those before it; tokens as integers."""
        keys: list[Any] = []
        values: list[Any] = []
        losses = []
        for place in range(len(tokens) - 1):
            x = [t + p for t, p in zip(self.token[tokens[place]], self.position[place], strict=True)]
            x = normed(x)
            y = normed(x)
            query = linear(y, self.query)
            keys.append(linear(y, self.key))
            values.append(linear(y, self.value))
            x = [a + b for a, b in zip(x, linear(self.attended(query, keys, values), self.mix), strict=True)]
            hidden = [fs.relu(h) for h in linear(normed(x), self.up)]
            x = [a + b for a, b in zip(x, linear(hidden, self.down), strict=True)]
            losses.append(fs.cross_entropy(linear(x, self.head), tokens[place + 1]))
        return fs.sum(losses) / len(losses)

    def attended(self, query: list[Any], keys: list[Any], values: list[Any]) -> list[Any]:
        size, found = self.width // self.heads, []
        for start in range(0, self.width, size):
            scores = [fs.sum([query[j] * key[j] for j in range(start, start + size)]) / size**0.5 for key in keys]
            shares = fs.softmax(scores)
            for j in range(start, start + size):
                found.append(fs.sum([s * v[j] for s, v in zip(shares, values, strict=True)]))
        return found


def linear(x: list[Any], w: Any) -> list[Any]:
    return [fs.sum([a * b for a, b in zip(row, x, strict=True)]) for row in w]


def normed(x: list[Any]) -> list[Any]:
    scale = (fs.sum([a * a for a in x]) / len(x) + 1e-5) ** -0.5
    return [a * scale for a in x]


def names(n: int, letters: int | None = None, seed: int = 0) -> list[np.ndarray]:
    """Names of 1 to 15 letters, or of as many, between two stops: 0."""
    rng = np.random.default_rng(seed)
    return [np.array([0, *rng.integers(1, VOCABULARY, size=letters or rng.integers(1, 16)), 0]) for _ in range(n)]
