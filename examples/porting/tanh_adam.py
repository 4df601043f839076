"""A curve learned by a net with tanh, and Adam written by hand: its moments are attributes of the parameters.

`main(module)` takes `fastscalar` or `fastscalar.reference`: the code is the same and so are the losses, bit for bit.
Run it with `python examples/porting/tanh_adam.py`.
"""

import math
import random


def layer(tensor, rng, inputs, outputs):
    """Rows of weights, the bias last in each."""
    spread = 1 / math.sqrt(inputs)
    return [[tensor(rng.gauss(0, spread)) for _ in range(inputs)] + [tensor(0.0)] for _ in range(outputs)]


def affine(rows, x):
    return [sum((w * v for w, v in zip(row, x, strict=False)), row[-1]) for row in rows]


def adam(parameters, step, rate=0.05, decay=0.9, square_decay=0.99):
    for p in parameters:
        if step == 1:
            p.m = p.v = 0.0
        p.m = decay * p.m + (1 - decay) * p.grad
        p.v = square_decay * p.v + (1 - square_decay) * p.grad * p.grad
        mean, square = p.m / (1 - decay**step), p.v / (1 - square_decay**step)
        p.data -= rate * mean / (math.sqrt(square) + 1e-8)


def main(module, steps=50):
    """The mean squared errors before each step."""
    rng = random.Random(11)
    xs = [-2 + 4 * k / 15 for k in range(16)]
    ys = [math.sin(2 * x) + 0.3 * x for x in xs]
    net = [layer(module.Tensor, rng, 1, 10), layer(module.Tensor, rng, 10, 1)]
    parameters = [p for rows in net for row in rows for p in row]
    losses = []
    for step in range(1, steps + 1):
        loss = 0.0
        for x, y in zip(xs, ys, strict=True):
            hidden = [h.tanh() for h in affine(net[0], [x])]
            (out,) = affine(net[1], hidden)
            loss += (out - y) ** 2
        loss /= len(xs)
        loss.backward()
        adam(parameters, step)
        losses.append(loss.data)
    return losses


if __name__ == "__main__":
    import fastscalar

    losses = main(fastscalar)
    print(f"mean squared error {losses[0]:.4f} -> {losses[-1]:.4f}")
