"""fit, evaluate, predict, save and load, optimisers; real digits and real MNIST."""

import math
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing

STRESS = _core.tape_info()["stress"]


@pytest.fixture(scope="module")
def digits():
    """scikit-learn's 1,797 scanned digits of 8 x 8: X_train, y_train, X_test, y_test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X / 16.0, y, test_size=500, random_state=0, stratify=y)
    return X_train, y_train, X_test, y_test


def small(n=60, seed=0):
    """A learnable problem in the plane: X, y."""
    X = np.random.default_rng(seed).normal(size=(n, 2))
    return X, (X[:, 0] > X[:, 1]).astype(int)


def weights(net):
    return b"".join(layer.w.numpy().tobytes() + layer.b.numpy().tobytes() for layer in net.linears)


def fit(net, X, y, **keywords):
    return fs.fit(net, X, y, progress=False, **keywords)


# --- real data ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(STRESS, reason="a whole training run, in stress mode")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_digits_96_percent_and_within_a_point_of_scikit_learn(digits):
    from sklearn.neural_network import MLPClassifier

    X, y, X_test, y_test = digits
    net = fs.MLP(64, [32, 10], seed=0)
    history = fit(net, X, y, epochs=20)
    accuracy = fs.evaluate(net, X_test, y_test)
    theirs = MLPClassifier((32,), max_iter=400, random_state=0).fit(X, y).score(X_test, y_test)
    assert accuracy >= 0.96
    assert accuracy >= theirs - 0.01
    assert history.loss[-1] < 0.1 * history.loss[0]


@pytest.mark.mnist
@pytest.mark.big
def test_mnist_96_percent_after_one_epoch(mnist):
    X, y, X_test, y_test = mnist
    assert X.shape == (60_000, 784)
    net = fs.MLP(784, [256, 10], seed=0)
    history = fit(net, X, y, epochs=1, validation_data=(X_test, y_test))
    assert history.epochs[0].accuracy == fs.evaluate(net, X_test, y_test) >= 0.96
    assert history.epochs[0].samples_per_s > 0


# --- what fit does ------------------------------------------------------------------------------------------


def by_hand(net, X, y, epochs, batch_size, lr, seed, schedule, loss=fs.cross_entropy):
    """The loop that fit stands for; the mean loss of each epoch."""
    generator = np.random.default_rng(seed)
    means, done = [], 0
    for _ in range(epochs):
        order = generator.permutation(len(X))
        total = 0.0
        for k in range(0, len(X), batch_size):
            batch = order[k : k + batch_size]
            value = loss(net(X[batch]), y[batch]) if batch_size > 1 else loss(net(X[batch[0]]), y[batch[0]])
            value.backward()
            rate = lr * (1.0 - done / (epochs * len(X))) if schedule else lr
            fs.sgd(net.parameters(), rate)
            done += len(batch)
            total += value.data * len(batch)
        means.append(total / len(X))
    return means


@pytest.mark.parametrize("schedule", ["linear", None])
@pytest.mark.parametrize("batch_size", [1, 16, 60])
def test_fit_is_the_loop_written_by_hand(batch_size, schedule):
    X, y = small()
    nets = [fs.MLP(2, [8, 2], seed=1) for _ in range(2)]
    given = {"epochs": 3, "batch_size": batch_size, "seed": 5, "schedule": schedule}
    history = fit(nets[0], X, y, **given, optimizer=fs.SGD(lr=0.05), compile=False)
    means = by_hand(nets[1], X, y, 3, batch_size, 0.05, 5, schedule)
    assert weights(nets[0]) == weights(nets[1])
    assert history.loss == pytest.approx(means, rel=1e-12)


def test_a_minibatch_is_the_mean_of_its_samples_by_accumulate():
    X, y = small(16)
    nets = [fs.MLP(2, [8, 2], seed=1) for _ in range(2)]
    fit(nets[0], X, y, epochs=1, batch_size=16, shuffle=False, schedule=None)
    optimizer = fs.SGD(nets[1].parameters(), lr=0.02)
    optimizer.zero_grad()
    for x, k in zip(X, y, strict=True):
        (fs.cross_entropy(nets[1](x), k) / 16).backward(accumulate=True)
    optimizer.step()
    for a, b in zip(nets[0].linears, nets[1].linears, strict=True):
        np.testing.assert_allclose(a.w.numpy(), b.w.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(batch_size):
    X, y = small()
    nets = [fs.MLP(2, [8, 2], seed=1) for _ in range(3)]
    for net, seed in zip(nets, (7, 7, 8), strict=True):
        fit(net, X, y, epochs=2, batch_size=batch_size, seed=seed)
    assert weights(nets[0]) == weights(nets[1]) != weights(nets[2])


def test_without_shuffling_the_order_is_that_of_the_rows():
    X, y = small(10)
    seen = []

    class Net(fs.MLP):
        def forward(self, x):
            seen.append(x.tolist())
            return super().forward(x)

    fit(Net(2, [2], seed=0), X, y, epochs=2, shuffle=False, compile=False)
    assert seen == [*X.tolist(), *X.tolist()]
    seen.clear()
    fit(Net(2, [2], seed=0), X, y, epochs=2, compile=False)
    assert seen != [*X.tolist(), *X.tolist()]
    assert sorted(seen[:10]) == sorted(seen[10:]) == sorted(X.tolist())
    assert seen[:10] != seen[10:]


def test_a_run_in_two_parts_is_the_whole_run():
    X, y = small()
    nets = [fs.MLP(2, [8, 2], seed=1) for _ in range(2)]
    fit(nets[0], X, y, epochs=4)

    class Enough(Exception):
        pass

    def stop(epoch):
        if epoch.epoch == 2:
            raise Enough

    with pytest.raises(Enough):
        fit(nets[1], X, y, epochs=4, on_epoch=stop)
    assert weights(nets[0]) != weights(nets[1])
    history = fit(nets[1], X, y, epochs=4, first_epoch=3)
    assert [e.epoch for e in history.epochs] == [3, 4]
    assert weights(nets[0]) == weights(nets[1])


def test_the_history_says_what_happened():
    X, y = small()
    told = []
    history = fit(fs.MLP(2, [8, 2], seed=1), X, y, epochs=3, validation_data=(X, y), on_epoch=told.append)
    assert history.epochs == told
    assert [e.epoch for e in told] == [1, 2, 3]
    assert history.loss == [e.loss for e in told]
    assert told[-1].accuracy >= told[0].accuracy
    assert history.seconds == sum(e.seconds for e in told) > 0
    assert history.as_dict()["epochs"][0]["loss"] == told[0].loss


def test_any_function_with_a_loss_and_parameters_of_its_own():
    """No path is chosen by the type of the net: a function of a row, an optimiser that has the parameters."""
    X, y = small()
    w, b = fs.to_tensor([0.0, 0.0]), fs.Tensor(0.0)

    def net(x):
        return w[0] * x[0] + w[1] * x[1] + b

    def loss(out, label):
        return (1.0 - out * (2 * label - 1)).relu()  # a support vector machine

    history = fit(net, X, y, loss=loss, optimizer=fs.SGD([w, b], lr=0.1), epochs=10)
    assert history.loss[-1] < 0.2 * history.loss[0]
    assert w.data[0] > 0 > w.data[1]


def test_regression_with_targets_of_several_columns():
    X = np.random.default_rng(0).normal(size=(50, 3))
    Y = X @ np.array([[1.0, 0.0], [2.0, -1.0], [4.0, 0.5]])
    for batch_size in (1, 10):
        net = fs.Linear(3, 2, seed=0)
        fit(net, X, Y, loss=fs.squared_loss, optimizer=fs.SGD(lr=0.2), epochs=30, batch_size=batch_size)
        np.testing.assert_allclose(net.w.numpy(), [[1.0, 0.0], [2.0, -1.0], [4.0, 0.5]], atol=0.02)


@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adam])
def test_fit_binds_the_parameters_and_gives_the_learning_rate_back(optimizer):
    X, y = small()
    mine = optimizer(lr=0.01)
    net = fs.MLP(2, [8, 2], seed=1)
    history = fit(net, X, y, optimizer=mine, epochs=5)
    assert history.loss[-1] < history.loss[0]
    assert mine.lr == 0.01
    assert mine.parameters is not None
    assert not np.asarray(net.linears[0].w.grad).any()


def test_gradients_from_before_are_not_part_of_the_first_step():
    X, y = small(5)
    nets = [fs.MLP(2, [3, 2], seed=1) for _ in range(2)]
    nets[1].linears[0].w.grad = np.full((2, 3), 1e6)
    for net in nets:
        fit(net, X, y, epochs=1)
    assert weights(nets[0]) == weights(nets[1])


# --- errors -------------------------------------------------------------------------------------------------

X0, Y0 = small(6)


@pytest.mark.parametrize(
    ("X", "y", "keywords", "words"),
    [
        (X0, Y0, {"epochs": 0}, "epochs"),
        (X0, Y0, {"epochs": 2.5}, "epochs"),
        (X0, Y0, {"batch_size": 0}, "batch_size"),
        (X0, Y0, {"batch_size": True}, "batch_size"),
        (X0, Y0, {"first_epoch": 9}, "first_epoch"),
        (X0, Y0, {"schedule": "cosin"}, "cosin"),
        (X0, Y0[:5], {}, "6 rows"),
        (X0, 1, {}, "6 rows"),
        (X0[:0], Y0[:0], {}, "empty"),
        (X0[0], Y0, {}, "shape"),
        (X0.reshape(6, 1, 2), Y0, {}, "reshape"),
        (X0 > 0, Y0, {}, r"bool; expected floats: X.astype\(float\)"),
        (np.zeros((6, 2), np.uint8), Y0, {}, "/ 255"),
        (X0.astype(object), Y0, {}, "floats"),
        (X0.astype(complex), Y0, {}, "floats"),
        (X0, Y0, {"validation_data": (X0, Y0[:2])}, "6 rows"),
        (X0, Y0, {"validation_data": (np.zeros((6, 2), np.uint8), Y0)}, "/ 255"),
        (np.zeros((6, 3)), Y0, {}, "expected 2 inputs"),
        (X0, Y0 + 5, {}, "label"),
    ],
)
def test_data_that_do_not_fit_are_value_errors_that_say_what_is_wrong(X, y, keywords, words):
    net = fs.MLP(2, [3, 2], seed=0)
    before = weights(net)
    with pytest.raises(ValueError, match=words):
        fit(net, X, y, **keywords)
    assert weights(net) == before


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_a_learning_rate_is_above_zero(lr):
    for optimizer in (fs.SGD, fs.Adam):
        with pytest.raises(ValueError, match="learning rate"):
            optimizer(lr=lr)
    with pytest.raises(ValueError, match="betas"):
        fs.Adam(betas=(1.0, 0.9))


def test_an_optimiser_without_parameters_says_so():
    for optimizer in (fs.SGD(), fs.Adam()):
        with pytest.raises(ValueError, match="no parameters"):
            optimizer.step()
        with pytest.raises(ValueError, match="no parameters"):
            optimizer.zero_grad()
        with pytest.raises(TypeError, match="str"):
            optimizer.bind(["w"])


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_before_its_step(value, batch_size):
    X, y = small(20)
    X[12, 1] = value
    net = fs.MLP(2, [3, 2], seed=0)
    optimizer = fs.SGD(lr=0.05)
    with pytest.raises(FloatingPointError, match=r"(nan|inf) after 12 samples"):
        fit(net, X, y, shuffle=False, batch_size=batch_size, optimizer=optimizer, compile=False)
    assert np.isfinite(np.frombuffer(weights(net))).all()
    assert optimizer.lr == 0.05
    same = fs.MLP(2, [3, 2], seed=0)
    for k in range(0, 12, batch_size):
        x, t = (X[k], y[k]) if batch_size == 1 else (X[k : k + 4], y[k : k + 4])
        fs.cross_entropy(same(x), t).backward()
        fs.sgd(same.parameters(), 0.05 * (1.0 - k / 100))
    assert weights(net) == weights(same)


def test_a_learning_rate_that_diverges_says_so():
    X, y = small()
    net = fs.MLP(2, [8, 1], seed=0)
    with pytest.raises(FloatingPointError, match=r"learning rate 1e\+200"):
        fit(net, X, y.reshape(-1, 1), loss=fs.squared_loss, optimizer=fs.SGD(lr=1e200))


# --- evaluate, predict --------------------------------------------------------------------------------------


def test_predict_is_the_index_of_the_largest_output():
    X, y = small(3000 if not STRESS else 30)
    net = fs.MLP(2, [8, 2], seed=3)
    expected = [int(np.argmax([t.data for t in net(x)])) for x in X]
    assert fs.predict(net, X).tolist() == expected
    assert fs.evaluate(net, X, y) == np.mean(np.array(expected) == y)
    assert fs.predict(net, X.astype(np.float32)).shape == (len(X),)


def test_predict_and_evaluate_record_nothing_and_leave_gradients_alone():
    X, y = small(50)
    net = fs.MLP(2, [8, 2], seed=3)
    fs.cross_entropy(net(X[0]), 1).backward()
    before = net.linears[0].w.grad.copy()
    testing.collect()
    nodes = _core.tape_info()["nodes"]
    fs.evaluate(net, X, y)
    fs.predict(net, X)
    testing.collect()
    assert _core.tape_info()["nodes"] <= nodes + 1
    np.testing.assert_array_equal(net.linears[0].w.grad, before)


def test_predict_refuses_images_that_are_not_scaled():
    net = fs.MLP(4, [2], seed=0)
    with pytest.raises(ValueError, match=r"/ 255; .*\.astype\(float\)"):
        fs.predict(net, np.zeros((3, 4), np.uint8))
    with pytest.raises(ValueError, match="rows"):
        fs.evaluate(net, np.zeros((3, 4)), [1, 0])


# --- save and load ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [lambda: fs.MLP(5, [7, 4, 3], seed=1), lambda: fs.Linear(5, 3, seed=1)])
def test_a_saved_net_comes_back_bit_for_bit(tmp_path, make):
    net = make()
    net.save(tmp_path / "net.npz", dataset="digits", accuracy=0.5)
    again = fs.load(tmp_path / "net.npz")
    assert type(again) is type(net)
    assert repr(again) == repr(net)
    x = np.linspace(-1, 1, 5)
    assert again(x).tolist() == net(x).tolist()
    assert again.metadata == {"dataset": "digits", "accuracy": 0.5}
    fs.cross_entropy(again(x), 1).backward()
    fs.sgd(again.parameters(), 0.1)
    assert again(x).tolist() != net(x).tolist()
    assert [p.name for p in tmp_path.iterdir()] == ["net.npz"]


def test_saving_over_a_net_replaces_it_and_a_failed_save_does_not(tmp_path):
    path = str(tmp_path / "net.npz")
    fs.MLP(2, [3], seed=1).save(path)
    fs.MLP(2, [3], seed=2).save(path)
    expected = weights(fs.MLP(2, [3], seed=2))
    with pytest.raises(TypeError):
        fs.MLP(2, [3], seed=3).save(path, what=object())
    assert weights(fs.load(path)) == expected
    with pytest.raises(FileNotFoundError):
        fs.MLP(2, [3], seed=3).save(tmp_path / "nowhere" / "net.npz")


def test_files_that_are_not_nets_are_errors_that_name_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        fs.load(tmp_path / "missing.npz")
    good = tmp_path / "good.npz"
    fs.MLP(4, [3, 2], seed=0).save(good)
    content = good.read_bytes()
    broken = {
        "empty": b"",
        "text": b"not a net",
        "truncated": content[: len(content) // 2],
        "flipped": content[:200] + bytes([content[200] ^ 1]) + content[201:],
    }
    for name, data in broken.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}\.npz"):
            fs.load(path)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match=r"other\.npz"):
        fs.load(tmp_path / "other.npz")
    with np.load(good) as archive:
        arrays = dict(archive)
    for name, value in (("w0", np.ones((3, 4))), ("b1", None), ("header", np.array('{"format": 99}'))):
        changed = {**arrays, name: value}
        if value is None:
            del changed[name]
        np.savez(tmp_path / "changed.npz", **changed)
        with pytest.raises(ValueError, match=r"changed\.npz"):
            fs.load(tmp_path / "changed.npz")


# --- optimisers ---------------------------------------------------------------------------------------------


def test_sgd_steps_and_resets_nested_parameters(fs):
    a, b, c = fs.Tensor(1.0), fs.Tensor(2.0), fs.Tensor(3.0)
    (a * b * c).backward()
    fs.sgd([a, [b, (c,)]], lr=0.5)
    assert [t.data for t in (a, b, c)] == [1.0 - 3.0, 2.0 - 1.5, 3.0 - 1.0]
    assert [t.grad for t in (a, b, c)] == [0.0] * 3


def test_step_keeps_gradients_and_zero_grad_takes_them():
    w, a = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]]), fs.Tensor(1.0)
    optimizer = fs.SGD({"w": w, "rest": [a]}, lr=0.5)
    (w.sum() * a).backward()
    optimizer.step()
    optimizer.step()
    assert w.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert (a.data, a.grad) == (1.0 - 10.0, 10.0)
    optimizer.zero_grad()
    assert not np.asarray(w.grad).any()
    assert a.grad == 0.0


def test_adam_is_its_formula_and_moves_untouched_rows_too():
    w = fs.to_tensor([[1.0], [2.0], [3.0]])
    optimizer = fs.Adam([w], lr=0.1, betas=(0.5, 0.25), eps=1e-3)
    x, m, v = w.numpy(), 0.0, 0.0
    for step, row in enumerate([0, 0, 1, 2, 2], 1):
        optimizer.zero_grad()
        (w[row] * w[row] * 0.5).sum().backward()
        optimizer.step()
        g = np.zeros((3, 1))
        g[row] = x[row]
        m, v = 0.5 * m + 0.5 * g, 0.25 * v + 0.75 * g * g
        x = x - 0.1 * (m / (1 - 0.5**step)) / (np.sqrt(v / (1 - 0.25**step)) + 1e-3)
        np.testing.assert_allclose(w.numpy(), x, rtol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_tape_is_whole_before_each_row(stress, compiled):
    """A scalar operation right after an array's left its Tensor where the next array's nodes came to lie."""

    class Scaled(fs.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.factor = fs.Linear(4, 3, seed=0), 1.0

        def forward(self, x):
            testing.check()
            return self.layer(x) * self.factor

    def changed(epoch):
        net.factor *= 0.5

    net, rng = Scaled(), np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fs.fit(net, rng.normal(size=(6, 4)), np.arange(6) % 3, epochs=2, compile=compiled, progress=False,
               callbacks=[changed])  # fmt: skip
