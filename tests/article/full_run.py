"""The article's program on all 60,000 images, in a process of its own; prints what it cost as JSON.

What is tested is that all of it fits, that it learns, and what a step costs once every image was seen.  (The
first time through, the system also has to find the pages for 47 million gradients.)
"""

import json
import resource
import sys
import time

import numpy as np

import cells
import fastscalar as fs

STEPS = 500  # each side of the comparison takes in turn
ROUNDS, MORE, LIMIT = 41, 119, 1.5  # more of them as long as the ratio is above the limit


def steps(net, x, y, first):
    """Train on STEPS images from `first`: seconds for each, and the losses."""
    parameters = net.parameters()
    losses = []
    start = time.process_time()
    for i in range(first, first + STEPS):
        loss = fs.squared_loss(net(x[i])[:1], [y[i]])
        loss.backward()
        fs.sgd(parameters, lr=1e-8)
        losses.append(loss.data)
    return (time.process_time() - start) / STEPS, losses


def compare(outputs, leaves, rows):
    """Microseconds a step with leaves and with NumPy rows, and their ratio: the best of rounds taken in turn."""
    nets = [fs.Linear(784, outputs, init="article", seed=0) for _ in range(2)]
    times = []
    for r in range(MORE):
        (a, losses), (b, expected) = (
            steps(net, *data, STEPS * r) for net, data in zip(nets, (leaves, rows), strict=True)
        )
        if losses != expected:
            raise AssertionError(f"Linear(784, {outputs}): other losses with leaves than with NumPy rows")
        if r:  # the first round warms up
            times.append((a * 1e6, b * 1e6))
        if r + 1 >= ROUNDS and min(a for a, _ in times) <= LIMIT * min(b for _, b in times):
            break
    for p, q in zip(*(net.parameters() for net in nets), strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    leaf, numpy = (min(side) for side in zip(*times, strict=True))
    return {"leaf_us": leaf, "numpy_us": numpy, "ratio": leaf / numpy}


def main():
    namespace = {}
    printed, seconds = cells.run(namespace, [("train_data, test_data = 1000, 10", "train_data, test_data = 60000, 10")])
    unit = 1 if sys.platform == "darwin" else 1024
    report = {
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,  # before the copy for NumPy
        "nodes": fs.tape_info()["nodes"],
        "losses": namespace["train_losses"],
        "test_losses": namespace["test_losses"],
        "printed": printed,
        "seconds": seconds,
    }
    (images, labels), _ = fs.datasets.mnist()
    images = images.reshape(-1, 784)
    # The gradient of the last image, by hand: both weights and leaves have one.
    net, x, target = namespace["net"], namespace["X_train"][-1], namespace["y_train"][-1][0]
    y_hat = net(x)[:1]
    fs.squared_loss(y_hat, [target]).backward()
    slope = y_hat[0].data - target.data
    np.testing.assert_allclose(x.grad, slope * net.w.numpy()[:, 0], rtol=1e-15)
    np.testing.assert_allclose(net.w.grad[:, 0], slope * images[-1], rtol=1e-15)

    leaves = (namespace["X_train"], [row[0] for row in namespace["y_train"]])
    rows = (images.astype(float), labels.astype(float).tolist())
    report["steps"] = {f"Linear(784, {n})": compare(n, leaves, rows) for n in (10, 1)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
