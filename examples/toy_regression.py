"""Two toy regressions: `Linear(3, 1)` and `MLP(3, [2, 1])` learn y = x1 + 2 x2 + 4 x3, sample by sample.

The learning rates are ours: 0.01 for the linear layer; the MLP's gradients are products of two layers, and
a tenth of that keeps it steady.  Run it with `python examples/toy_regression.py`.
"""

import fastscalar as fs

X = [[1.0, 2.0, 3.0], [2.0, 1.0, 0.5], [0.5, 3.0, 1.0], [3.0, 0.5, 2.0], [1.5, 1.5, 2.5]]
Y = [x1 + 2 * x2 + 4 * x3 for x1, x2, x3 in X]


def train(net: fs.Linear | fs.MLP, lr: float, epochs: int) -> list[float]:
    """The mean loss of each epoch."""
    losses = []
    for epoch in range(1, epochs + 1):
        total = 0.0
        for x, y in zip(X, Y, strict=True):
            loss = fs.squared_loss(net(x), [y])
            loss.backward()
            fs.sgd(net.parameters(), lr)
            total += loss.item()
        losses.append(total / len(X))
        if epoch == 1 or epoch % 20 == 0:
            print(f"epoch {epoch:3}  loss {losses[-1]:.6f}")
    return losses


def main() -> dict[str, list[float]]:
    linear = fs.Linear(3, 1, init="article", seed=0)
    mlp = fs.MLP(3, [2, 1], init="article", seed=0)
    print("Linear(3, 1)")
    losses = {"linear": train(linear, lr=0.01, epochs=100)}
    weights = [round(row[0].item(), 2) for row in linear.w]
    print(f"weights {weights}, bias {linear.b[0].item():.2f}; y is made with [1, 2, 4] and 0\n")
    print("MLP(3, [2, 1])")
    losses["mlp"] = train(mlp, lr=0.001, epochs=100)
    return losses


if __name__ == "__main__":
    main()
