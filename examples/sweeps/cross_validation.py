"""Five-fold cross-validation of a penalty, as tasks that need nothing of each other: what all sweeps here share."""

import numpy as np

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


def recorded(X, y):
    """The program, after two rows: it is pickled with its recordings, and the workers replay them."""
    program = fs.compile(loss, shared=("w", "penalty"))
    program.value_and_grad(X[:2], y[:2], np.zeros(X.shape[1]), 0.0, argnums="w")
    return program


def tasks():
    return [(penalty, fold) for penalty in PENALTIES for fold in range(FOLDS)]


def show(losses):
    """The mean loss of each penalty; the best has a star."""
    means = np.reshape(losses, (len(PENALTIES), FOLDS)).mean(axis=1)
    for penalty, mean in zip(PENALTIES, means, strict=True):
        print(f"penalty {penalty:8.4f}: {mean:.6f}{' *' if mean == means.min() else ''}")
