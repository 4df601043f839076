"""The article's framework with its mistakes put right and its design left alone: the second baseline.

Every operation hangs a closure on its result, and the closure refers to that result.  So each node is in a
reference cycle, and only Python's cyclic collector can free it: that, and not the arithmetic, is most of
what this costs, and it is why `fastscalar.reference` (the first baseline, without closures) is several
times faster.

Put right: weights are independent, the activation is applied, the order of the backward pass is a
topological one and found without recursion, the loss checks its lengths.  The order is a depth-first
post-order, as in the article's family of frameworks, where `fastscalar` takes the order of creation:
gradients with several terms may differ in the last bits.

>>> a, b = Tensor(2), Tensor(3)
>>> x = a * b
>>> z = x + x
>>> z.backward()
>>> a.grad, b.grad, x.grad, z.grad
(6.0, 4.0, 2.0, 1.0)
"""

import random
from itertools import pairwise


class Tensor:
    """One number, its gradient, its parents, and a function that hands the gradient on to them."""

    def __init__(self, data, _parents=()):
        self.data = float(data)
        self.grad = 0.0
        self._parents = _parents
        self._backward = lambda: None

    def __repr__(self):
        return f"Tensor(data={self.data})"

    def __add__(self, other):
        other = other if isinstance(other, Tensor) else Tensor(other)
        out = Tensor(self.data + other.data, (self, other))

        def _backward():
            self.grad += out.grad
            other.grad += out.grad

        out._backward = _backward
        return out

    def __mul__(self, other):
        other = other if isinstance(other, Tensor) else Tensor(other)
        out = Tensor(self.data * other.data, (self, other))

        def _backward():
            self.grad += out.grad * other.data
            other.grad += out.grad * self.data

        out._backward = _backward
        return out

    def relu(self):
        out = Tensor(0.0 if self.data <= 0.0 else self.data, (self,))

        def _backward():
            self.grad += out.grad * (0.0 if self.data <= 0.0 else 1.0)

        out._backward = _backward
        return out

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + (-other)

    def __radd__(self, other):
        return Tensor(other) + self

    def __rmul__(self, other):
        return Tensor(other) * self

    def __rsub__(self, other):
        return Tensor(other) + (-self)

    def build_topo(self):
        """Every node that self was made of, parents before children."""
        topo, visited, todo = [], {self}, [(self, iter(self._parents))]
        while todo:
            node, parents = todo[-1]
            for parent in parents:
                if parent not in visited:
                    visited.add(parent)
                    todo.append((parent, iter(parent._parents)))
                    break
            else:
                topo.append(node)
                todo.pop()
        return topo

    def backward(self):
        topo = self.build_topo()
        for node in topo:
            node.grad = 0.0
        self.grad = 1.0
        for node in reversed(topo):
            node._backward()


def to_tensor(numbers):
    """Nested lists of numbers become nested lists of Tensors."""
    return [to_tensor(x) for x in numbers] if isinstance(numbers, (list, tuple)) else Tensor(numbers)


class Linear:
    """y[i] = b[i] + x[0] w[0][i] + x[1] w[1][i] + ...; weights are uniform in [0, 1)."""

    def __init__(self, in_features, out_features, rng=random):
        self.in_features, self.out_features = in_features, out_features
        self.w = [[Tensor(rng.random()) for _ in range(out_features)] for _ in range(in_features)]
        self.b = [Tensor(rng.random()) for _ in range(out_features)]

    def forward(self, x):
        y = []
        for i in range(self.out_features):
            total = 0.0 + self.b[i]
            for j in range(self.in_features):
                total = total + x[j] * self.w[j][i]
            y.append(total)
        return y

    __call__ = forward

    def parameters(self):
        return [self.w, self.b]


class MLP:
    """Linear layers of the given sizes with relu between them."""

    def __init__(self, in_features, sizes, rng=random):
        widths = [in_features, *sizes]
        self.linears = [Linear(m, n, rng) for m, n in pairwise(widths)]

    def forward(self, x):
        for linear in self.linears[:-1]:
            x = [y.relu() for y in linear(x)]
        return self.linears[-1](x)

    __call__ = forward

    def parameters(self):
        return [p for linear in self.linears for p in linear.parameters()]


def squared_loss(y_hat, y):
    if len(y_hat) != len(y):
        raise ValueError(f"squared_loss: {len(y_hat)} predictions but {len(y)} targets")
    total = Tensor(0.0)
    for p, t in zip(y_hat, y, strict=True):
        difference = p - t
        total = total + difference * difference * 0.5
    return total


def sgd(parameters, lr):
    if isinstance(parameters, list):
        for p in parameters:
            sgd(p, lr)
    else:
        parameters.data -= lr * parameters.grad
        parameters.grad = 0.0
