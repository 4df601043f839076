"""A classifier of two half moons, in the style of micrograd: neurons are objects, every weight a Tensor.

`main(module)` takes `fastscalar` or `fastscalar.reference`: the code is the same and so are the losses, bit for bit.
Run it with `python examples/porting/moons.py`.
"""

import math
import random


class Neuron:
    def __init__(self, tensor, rng, inputs, activated):
        self.w = [tensor(rng.uniform(-1, 1)) for _ in range(inputs)]
        self.b = tensor(0)
        self.activated = activated

    def __call__(self, x):
        out = sum((wi * xi for wi, xi in zip(self.w, x, strict=True)), self.b)
        return out.relu() if self.activated else out

    def parameters(self):
        return [*self.w, self.b]


class Layer:
    def __init__(self, tensor, rng, inputs, outputs, activated):
        self.neurons = [Neuron(tensor, rng, inputs, activated) for _ in range(outputs)]

    def __call__(self, x):
        return [neuron(x) for neuron in self.neurons]

    def parameters(self):
        return [p for neuron in self.neurons for p in neuron.parameters()]


class MLP:
    def __init__(self, tensor, rng, inputs, sizes):
        widths = [inputs, *sizes]
        last = len(sizes) - 1
        self.layers = [Layer(tensor, rng, widths[k], widths[k + 1], k != last) for k in range(len(sizes))]

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x[0]

    def parameters(self):
        return [p for layer in self.layers for p in layer.parameters()]

    def zero_grad(self):
        for p in self.parameters():
            p.grad = 0.0


def moons(rng, n):
    """n points, every other one on the upper moon (label 1) and on the lower one (label -1)."""
    points, labels = [], []
    for k in range(n):
        angle = math.pi * rng.random()
        x, y = math.cos(angle), math.sin(angle)
        if k % 2:
            x, y = 1 - x, 0.5 - y
        points.append([x + rng.gauss(0, 0.1), y + rng.gauss(0, 0.1)])
        labels.append(-1 if k % 2 else 1)
    return points, labels


def loss_and_accuracy(net, points, labels):
    scores = [net(point) for point in points]
    hinge = sum((1 - label * score).relu() for label, score in zip(labels, scores, strict=True)) / len(scores)
    penalty = 1e-4 * sum(p * p for p in net.parameters())
    right = sum((score > 0) == (label > 0) for label, score in zip(labels, scores, strict=True))
    return hinge + penalty, right / len(scores)


def main(module, steps=50):
    """The losses before each step, and the accuracy before the last one."""
    rng = random.Random(7)
    points, labels = moons(rng, 24)
    net = MLP(module.Tensor, rng, 2, [8, 8, 1])
    losses = []
    for step in range(steps):
        loss, accuracy = loss_and_accuracy(net, points, labels)
        net.zero_grad()
        loss.backward()
        rate = 0.5 - 0.4 * step / steps
        for p in net.parameters():
            p.data -= rate * p.grad
        losses.append(loss.data)
    return losses, accuracy


if __name__ == "__main__":
    import fastscalar

    losses, accuracy = main(fastscalar)
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, accuracy {100 * accuracy:.0f} %")
