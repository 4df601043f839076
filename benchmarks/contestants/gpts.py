"""The GPT of the simulations by others, array by array: a step of Adam by one name.

Each starts from our model's numbers; its loss and gradients are compared with ours before its steps are timed.
"""

from __future__ import annotations

import importlib.util
from typing import Any, ClassVar

import numpy as np

NAMES = ("token", "position", "query", "key", "value", "mix", "up", "down", "head")
RATE, BETA1, BETA2, EPSILON = 0.01, 0.9, 0.999, 1e-8


def normed(x: Any) -> Any:
    return x * ((x * x).mean(-1)[..., None] + 1e-5) ** -0.5


def logits_of(xp: Any, p: dict[str, Any], tokens: Any, heads: int, mask: Any) -> Any:
    """Those of each place, for the next letter; xp: jax.numpy or torch."""
    n = len(tokens)
    x = normed(p["token"][tokens] + p["position"][:n])
    y = normed(x)

    def split(w: Any) -> Any:
        return (y @ w.T).reshape(n, heads, -1).swapaxes(0, 1)

    q, k, v = split(p["query"]), split(p["key"]), split(p["value"])
    scores = q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5 + mask
    shares = xp.exp(scores - xp.amax(scores, -1)[..., None])
    shares = shares / shares.sum(-1)[..., None]
    x = x + (shares @ v).swapaxes(0, 1).reshape(n, -1) @ p["mix"].T
    hidden = normed(x) @ p["up"].T
    x = x + (hidden * (hidden > 0)) @ p["down"].T
    return x @ p["head"].T


def causal(n: int) -> np.ndarray:
    return np.triu(np.full((n, n), -np.inf), 1)


class GPT:
    """One side; all names have one length."""

    name: ClassVar[str]
    needs: ClassVar[str]

    def __init__(self, model: Any, length: int) -> None:
        self.heads, self.length = model.heads, length
        self.start({name: getattr(model, name).numpy().copy() for name in NAMES})

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec(cls.needs) is not None else f"{cls.needs} is not installed"

    def start(self, parameters: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    def loss(self, tokens: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """And its gradients, without a step."""
        raise NotImplementedError

    def step(self, tokens: np.ndarray) -> None:
        raise NotImplementedError


class JaxGPT(GPT):
    name, needs = "JAX, jitted step", "jax"

    def start(self, parameters: dict[str, np.ndarray]) -> None:
        import jax
        import jax.numpy as jnp

        jax.config.update("jax_enable_x64", True)
        mask, heads = jnp.asarray(causal(self.length)), self.heads

        def loss(p: Any, tokens: Any) -> Any:
            rows = jax.nn.log_softmax(logits_of(jnp, p, tokens[:-1], heads, mask))
            return -rows[jnp.arange(rows.shape[0]), tokens[1:]].mean()

        def step(p: Any, first: Any, second: Any, count: Any, tokens: Any) -> Any:
            value, g = jax.value_and_grad(loss)(p, tokens)
            first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, g)
            second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, g)
            a, b = 1 - BETA1 ** (count + 1), 1 - BETA2 ** (count + 1)
            p = jax.tree.map(lambda p, m, v: p - RATE * (m / a) / (jnp.sqrt(v / b) + EPSILON), p, first, second)
            return p, first, second, count + 1, value

        self.gradients = jax.jit(jax.value_and_grad(loss))
        self.compiled = jax.jit(step, donate_argnums=(0, 1, 2))
        p = {name: jnp.asarray(array) for name, array in parameters.items()}
        self.state = p, jax.tree.map(jnp.zeros_like, p), jax.tree.map(jnp.zeros_like, p), 0.0

    def loss(self, tokens: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        value, g = self.gradients(self.state[0], tokens)
        return float(value), {name: np.asarray(array) for name, array in g.items()}

    def step(self, tokens: np.ndarray) -> None:
        *state, value = self.compiled(*self.state, tokens)
        self.state = tuple(state)
        value.block_until_ready()


class TorchGPT(GPT):
    name, needs = "PyTorch eager", "torch"

    def start(self, parameters: dict[str, np.ndarray]) -> None:
        import torch

        self.p = {name: torch.tensor(array, requires_grad=True) for name, array in parameters.items()}
        self.mask = torch.tensor(causal(self.length))
        self.optimizer = torch.optim.Adam(list(self.p.values()), lr=RATE)

    def backward(self, tokens: np.ndarray) -> Any:
        import torch

        self.optimizer.zero_grad()
        letters = torch.from_numpy(tokens)
        logits = logits_of(torch, self.p, letters[:-1], self.heads, self.mask)
        loss = torch.nn.functional.cross_entropy(logits, letters[1:])
        loss.backward()
        return loss

    def loss(self, tokens: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        value = self.backward(tokens).item()
        return value, {name: p.grad.numpy().copy() for name, p in self.p.items()}

    def step(self, tokens: np.ndarray) -> None:
        self.backward(tokens)
        self.optimizer.step()


class NumPyGPT(GPT):
    """The backward pass written out."""

    name, needs = "NumPy by hand", "numpy"

    def start(self, parameters: dict[str, np.ndarray]) -> None:
        self.p = parameters
        self.first = {name: np.zeros_like(array) for name, array in parameters.items()}
        self.second = {name: np.zeros_like(array) for name, array in parameters.items()}
        self.mask, self.count = causal(self.length), 0

    def loss(self, tokens: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        p, n, heads = self.p, self.length, self.heads
        letters, following, places = tokens[:-1], tokens[1:], np.arange(self.length)

        def norm(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            scale = ((x * x).mean(-1, keepdims=True) + 1e-5) ** -0.5
            return x * scale, scale

        def norm_back(g: np.ndarray, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
            return scale * g - x * scale**3 * (g * x).mean(-1, keepdims=True)

        def split(x: np.ndarray) -> np.ndarray:
            return x.reshape(n, heads, -1).swapaxes(0, 1)

        def joined(x: np.ndarray) -> np.ndarray:
            return x.swapaxes(0, 1).reshape(n, -1)

        x0 = p["token"][letters] + p["position"][:n]
        x1, s1 = norm(x0)
        y, s2 = norm(x1)
        q, k, v = (split(y @ p[name].T) for name in ("query", "key", "value"))
        root = q.shape[-1] ** 0.5
        scores = q @ k.swapaxes(1, 2) / root + self.mask
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        attended = joined(shares @ v)
        x2 = x1 + attended @ p["mix"].T
        z, s3 = norm(x2)
        hidden = np.maximum(z @ p["up"].T, 0.0)
        x3 = x2 + hidden @ p["down"].T
        logits = x3 @ p["head"].T
        logits -= logits.max(-1, keepdims=True)
        odds = np.exp(logits)
        total = odds.sum(-1, keepdims=True)
        loss = float((np.log(total[:, 0]) - logits[places, following]).mean())
        g = odds / total
        g[places, following] -= 1.0
        g /= n
        found = {"head": g.T @ x3}
        g3 = g @ p["head"]
        found["down"] = g3.T @ hidden
        gh = (g3 @ p["down"]) * (hidden > 0)
        found["up"] = gh.T @ z
        g2 = g3 + norm_back(gh @ p["up"], x2, s3)
        found["mix"] = g2.T @ attended
        ga = split(g2 @ p["mix"])
        gs = ga @ v.swapaxes(1, 2)
        gs = shares * (gs - (gs * shares).sum(-1, keepdims=True)) / root
        gy = np.zeros_like(y)
        back, shares_back = gs.swapaxes(1, 2), shares.swapaxes(1, 2)
        for name, gradient in (("query", gs @ k), ("key", back @ q), ("value", shares_back @ ga)):
            flat = joined(gradient)
            found[name] = flat.T @ y
            gy += flat @ p[name]
        g0 = norm_back(g2 + norm_back(gy, x1, s2), x0, s1)
        found["token"], found["position"] = np.zeros_like(p["token"]), np.zeros_like(p["position"])
        np.add.at(found["token"], letters, g0)
        found["position"][:n] = g0
        return loss, found

    def step(self, tokens: np.ndarray) -> None:
        _, found = self.loss(tokens)
        self.count += 1
        a, b = 1 - BETA1**self.count, 1 - BETA2**self.count
        for name, g in found.items():
            first, second = self.first[name], self.second[name]
            first += (1 - BETA1) * (g - first)
            second += (1 - BETA2) * (g * g - second)
            self.p[name] -= RATE * (first / a) / (np.sqrt(second / b) + EPSILON)


GPTS: tuple[type[GPT], ...] = (NumPyGPT, JaxGPT, TorchGPT)
