"""Five-fold cross-validation of a penalty, spread over the workers of a Dask cluster.

Run it with `python examples/sweeps/dask_sweep.py` (`pip install dask distributed`);
`Client("scheduler:8786")` instead uses a cluster of machines.
The program is recorded here, once: it is pickled with its recordings, and the workers replay them.
"""

import numpy as np
from dask.distributed import Client, LocalCluster

import fastscalar as fs

PENALTIES = 10.0 ** np.linspace(-5, 0, 6)
FOLDS = 5


def loss(x, y, w, penalty):
    """Of one sample: log(1 + exp(-y w.x)), and its share of a penalty on the weights."""
    margin, size = 0.0, 0.0
    for j in range(len(x)):
        margin = margin + x[j] * w[j]
        size = size + w[j] * w[j]
    return (-y * margin).softplus() + penalty * size


def trained(program, X, y, penalty, steps=200):
    """The weights that gradient descent finds."""
    w = np.zeros(X.shape[1])
    for _ in range(steps):
        _, gradient = program.value_and_grad(X, y, w, penalty, argnums="w")
        w -= 0.5 * gradient / len(X)
    return w


def held_out(program, X, y, penalty, fold):
    """The mean loss on a fold of the weights that the others give."""
    test = np.arange(len(X)) % FOLDS == fold
    w = trained(program, X[~test], y[~test], penalty)
    return float(program.map(X[test], y[test], w, 0.0).mean())


def data():
    random = np.random.default_rng(0)
    X = random.normal(size=(400, 20))
    return X, np.where(X[:, :3].sum(axis=1) + random.normal(size=400) > 0, 1.0, -1.0)


def main():
    X, y = data()
    program = fs.compile(loss, shared=("w", "penalty"))
    program.value_and_grad(X[:2], y[:2], np.zeros(20), 0.0, argnums="w")     # recorded, and looked at once more
    tasks = [(penalty, fold) for penalty in PENALTIES for fold in range(FOLDS)]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        program, X, y = client.scatter([program, X, y], broadcast=True)      # to each worker once, not with each task
        losses = client.gather([client.submit(held_out, program, X, y, *task) for task in tasks])
    means = np.reshape(losses, (len(PENALTIES), FOLDS)).mean(axis=1)
    for penalty, mean in zip(PENALTIES, means, strict=True):
        print(f"penalty {penalty:8.4f}: {mean:.6f}{' *' if mean == means.min() else ''}")


if __name__ == "__main__":
    main()
