"""Sums of the squares of weights in a loss: what `fit` keeps as a factor instead of writing every weight.

The replay trains such a matrix as scale * numbers and follows the sum of its squares from step to step; nobody outside
may see a difference to the eager loop.
"""

import numpy as np
import pytest

import fastscalar as fs
from compiled import close, compiled_only
from fastscalar import _core

pytestmark = pytest.mark.skipif(_core.tape_info()["stress"], reason="training runs, in stress mode")

INPUTS, HIDDEN, OUTPUTS = 40, 24, 3
RUN, RUN32 = 1e-9, 2e-4  # as in test_compile_fit


def problem(n, sparse, seed=0):
    generator = np.random.default_rng(seed)
    X = generator.uniform(0.1, 1.0, size=(n, INPUTS))
    if sparse:
        X *= generator.random((n, INPUTS)) < 0.2
    return X, generator.integers(0, OUTPUTS, n)


def squares(arrays):
    total = 0.0
    for a in arrays:
        total = total + (a * a).sum()
    return total


def all_weights(net):
    return [layer.w for layer in net.linears]


def everything(net):
    return [a for layer in net.linears for a in (layer.w, layer.b)]


LOSSES = {
    "weights": lambda net, loss, z: loss + 0.01 * squares(all_weights(net)),
    "and biases": lambda net, loss, z: loss + 0.01 * squares(everything(net)),
    "growing": lambda net, loss, z: loss - 0.002 * squares(all_weights(net)),
    "length": lambda net, loss, z: loss + 0.05 * squares(all_weights(net)) ** 0.5,
    "twice": lambda net, loss, z: loss + 0.01 * squares(all_weights(net)) + 0.005 * squares([net.linears[0].w]),
    "times the loss": lambda net, loss, z: loss * (1.0 + 0.01 * squares(all_weights(net))),
    "some rows": lambda net, loss, z: loss + 0.01 * squares([net.linears[0].w[3:20], net.linears[1].w]),
    "one more reader": lambda net, loss, z: loss + 0.01 * squares(all_weights(net)) + net.linears[0].w[5][7],
    "squares alone": lambda net, loss, z: 0.01 * squares(all_weights(net)) + 0.0 * z[0],
    "without the net": lambda net, loss, z: loss.detach() + 0.01 * squares(all_weights(net)),
}


def trained(loss, X, y, *, lr=0.05, epochs=3, **keywords):
    """(means of the losses, parameters) after a run of a new net."""
    net = fs.MLP(INPUTS, [HIDDEN, OUTPUTS], seed=1)

    def sample(x, label):
        z = net(x)
        return loss(net, fs.cross_entropy(z, label), z)

    optimizer = fs.SGD(net.parameters(), lr=lr)
    with compiled_only():
        history = fs.fit(fs.compile(sample), X, y, optimizer=optimizer, epochs=epochs, progress=False, **keywords)
    return np.array(history.loss), [a.numpy() for a in everything(net)]


def by_hand(loss, X, y, *, lr=0.05, epochs=3, batch_size=1):
    """The same in the eager engine, one row after the other: the mean of the rows' losses, a rate that falls."""
    net = fs.MLP(INPUTS, [HIDDEN, OUTPUTS], seed=1)
    parameters = everything(net)
    generator = np.random.default_rng(0)
    means, done = [], 0
    for _ in range(epochs):
        order, total = generator.permutation(len(X)), 0.0
        for k in range(0, len(X), batch_size):
            batch = order[k : k + batch_size]
            steps = [np.zeros(a.shape) for a in parameters]
            for i in batch:
                z = net(X[i])
                value = loss(net, fs.cross_entropy(z, int(y[i])), z)
                value.backward()
                total += value.data
                for step, a in zip(steps, parameters, strict=True):
                    step += np.array(a.grad)
                    a.grad = 0.0
            rate = lr * (1.0 - done / (epochs * len(X)))
            for step, a in zip(steps, parameters, strict=True):
                a.data = a.numpy() - rate / len(batch) * step
            done += len(batch)
        means.append(total / len(X))
    return np.array(means), [a.numpy() for a in parameters]


def check(ours, theirs, tolerance):
    close(ours[0], theirs[0], tolerance, what="losses")
    for k, (p, q) in enumerate(zip(ours[1], theirs[1], strict=True)):
        close(p, q, tolerance, what=f"parameter {k}")


@pytest.mark.parametrize("sparse", [True, False], ids=["sparse", "dense"])
@pytest.mark.parametrize("batch_size", [1, 7, 40])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))
def test_training_is_that_of_the_eager_loop(loss, batch_size, sparse):
    X, y = problem(61, sparse)
    theirs = by_hand(loss, X, y, batch_size=batch_size)
    check(trained(loss, X, y, batch_size=batch_size), theirs, RUN)
    check(trained(loss, X, y, batch_size=batch_size, dtype="float32"), theirs, RUN32)


@pytest.mark.parametrize("name", ["and biases", "length", "some rows"])
def test_the_number_of_threads_changes_no_bit(name):
    X, y = problem(300, True)
    one, two = (trained(LOSSES[name], X, y, batch_size=64, threads=n) for n in (1, 2))
    assert one[0].tobytes() == two[0].tobytes()
    assert all(p.tobytes() == q.tobytes() for p, q in zip(one[1], two[1], strict=True))


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize("strength", [0.9, 9.0, 10.0, 11.0, 19.0])
def test_a_step_that_shrinks_the_weights_to_little_nothing_or_less(strength, batch_size):
    """A rate of 0.05 leaves 1 - 2 * 0.05 * strength of a weight: 0.91, 0.1, 0, -0.1, -0.9."""
    X, y = problem(48, True)

    def loss(net, loss, z):
        return loss + strength * squares(all_weights(net))

    theirs = by_hand(loss, X, y, batch_size=batch_size, epochs=2)
    check(trained(loss, X, y, batch_size=batch_size, epochs=2), theirs, RUN)


def test_the_sum_of_the_squares_is_right_after_thousands_of_steps():
    """More of them than it is followed without being added up anew."""
    X, y = problem(1500, True)
    loss = LOSSES["weights"]
    theirs = by_hand(loss, X, y, epochs=2)
    check(trained(loss, X, y, epochs=2), theirs, RUN)
    assert theirs[0][1] < theirs[0][0]


def test_a_branch_that_is_taken_in_the_middle_of_an_epoch():
    X, y = problem(200, True)

    def loss(net, loss, z):
        value = loss + 0.01 * squares(all_weights(net))
        return value if z[0] > z[1] else 2.0 * value

    theirs = by_hand(loss, X, y)
    check(trained(loss, X, y), theirs, RUN)
    check(trained(loss, X, y, batch_size=16), by_hand(loss, X, y, batch_size=16), RUN)


def test_an_error_leaves_the_net_of_the_last_epoch():
    X, y = problem(40, True)
    net = fs.MLP(INPUTS, [HIDDEN, OUTPUTS], seed=1)
    seen = []

    @fs.compile
    def sample(x, label):
        return fs.cross_entropy(net(x), label) + 0.01 * squares(all_weights(net)) + (seen[-1] if seen else 0.0)

    fs.fit(sample, X, y, optimizer=fs.SGD(net.parameters(), lr=0.05), epochs=1, progress=False)
    before = [a.numpy() for a in everything(net)]
    bad = X.copy()
    bad[17, 3] = np.inf
    with pytest.raises(FloatingPointError, match="loss is"):
        fs.fit(sample, bad, y, optimizer=fs.SGD(net.parameters(), lr=0.05), epochs=1, progress=False)
    assert all(p.tobytes() == q.numpy().tobytes() for p, q in zip(before, everything(net), strict=True))


def test_values_and_gradients_between_two_runs():
    """A replay that has trained is used for something else."""
    X, y = problem(60, True)
    net, other = (fs.MLP(INPUTS, [HIDDEN, OUTPUTS], seed=1) for _ in range(2))
    programs = []
    for n in (net, other):

        def sample(x, label, n=n):
            return fs.cross_entropy(n(x), label) + 0.01 * squares(all_weights(n))

        programs.append(fs.compile(sample))
    for _ in range(2):
        fs.fit(programs[0], X, y, optimizer=fs.SGD(net.parameters(), lr=0.05), epochs=2, progress=False)
        for p, q in zip(everything(net), everything(other), strict=True):
            q.data = p.numpy()
        close(programs[0].map(X, y), programs[1].map(X, y), RUN, what="values")
        for program in programs:
            program.backward(X, y)
        for p, q in zip(everything(net), everything(other), strict=True):
            close(np.array(p.grad), np.array(q.grad), RUN, what="gradients")
