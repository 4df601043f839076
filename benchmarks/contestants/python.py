"""Frameworks in pure Python whose nodes hold closures: the article's own classes, and micrograd."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from typing import Any

import article
from contestants.base import Contestant
from nets import initial_layers


class Closures(Contestant):
    """The loop on lists of numbers.  Neither library has exp and log, so they are added in its own manner."""

    def net(self) -> tuple[Callable[[list[float]], list[Any]], Any]:
        """The net and its parameters."""
        raise NotImplementedError

    def number(self, value: float, parents: tuple[Any, ...]) -> Any:
        raise NotImplementedError

    def start(self) -> None:
        sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))  # micrograd's backward pass is recursive
        self.forward, self.parameters = self.net()

    def function(self, x: Any, value: float, slope: float) -> Any:
        out = self.number(value, (x,))

        def _backward() -> None:
            x.grad += slope * out.grad

        out._backward = _backward
        return out

    def loss(self, outputs: list[Any], label: int) -> Any:
        if self.work.loss == "mse":
            difference = outputs[0] - float(label)
            return difference * difference
        top = max(z.data for z in outputs)
        powers = []
        for z in outputs:
            e = math.exp(z.data - top)
            powers.append(self.function(z, e, e))
        total = powers[0]
        for p in powers[1:]:
            total = total + p
        return self.function(total, math.log(total.data) + top, 1.0 / total.data) - outputs[label]

    def step(self) -> None:
        raise NotImplementedError

    def run(self, steps: int) -> list[float]:
        losses = []
        for k in range(steps):
            total = 0.0
            for i in range(k * self.batch, (k + 1) * self.batch):
                total = total + self.loss(self.forward(self.X[i].tolist()), self.y[i])
            loss = total * (1.0 / self.batch)
            loss.backward()
            self.step()
            losses.append(loss.data)
        return losses


class Article(Closures):
    name = "the article's classes"

    def net(self) -> tuple[Callable[[list[float]], list[Any]], Any]:
        net = article.MLP(self.work.widths[0], self.work.widths[1:])
        for linear, (w, b) in zip(net.linears, initial_layers(self.work.widths), strict=True):
            linear.w, linear.b = article.to_tensor(w.tolist()), article.to_tensor(b.tolist())
        return net, net.parameters()

    def number(self, value: float, parents: tuple[Any, ...]) -> Any:
        return article.Tensor(value, parents)

    def step(self) -> None:
        article.sgd(self.parameters, self.work.rate)


class Micrograd(Closures):
    """`micrograd.nn.MLP`; its gradients are reset and its weights stepped by the loop of its own demo."""

    name = "micrograd"
    needs = "micrograd"

    def net(self) -> tuple[Callable[[list[float]], list[Any]], Any]:
        nn: Any = importlib.import_module("micrograd.nn")
        self.value: Any = importlib.import_module("micrograd.engine").Value
        net = nn.MLP(self.work.widths[0], list(self.work.widths[1:]))
        for layer, (w, b) in zip(net.layers, initial_layers(self.work.widths), strict=True):
            for i, neuron in enumerate(layer.neurons):
                neuron.b.data = float(b[i])
                for p, value in zip(neuron.w, w[:, i].tolist(), strict=True):
                    p.data = value

        def forward(x: list[float]) -> list[Any]:
            outputs = net(x)
            return outputs if isinstance(outputs, list) else [outputs]

        return forward, net.parameters()

    def number(self, value: float, parents: tuple[Any, ...]) -> Any:
        return self.value(value, parents)

    def step(self) -> None:
        for p in self.parameters:
            p.data -= self.work.rate * p.grad
            p.grad = 0
