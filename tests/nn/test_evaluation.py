"""evaluate, predict and validation_data: what they measure, what they take, what they say of data that do not fit."""

import math
import pickle
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fastscalar.engine import testing


def tables(n=40, k=3, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, 4)), draw.integers(0, k, size=n)


W = np.random.default_rng(5).normal(size=(4, 3))


class AsList(fs.Module):
    """The outputs as a list of Tensors, as scalar code has them."""

    def __init__(self, columns=3):
        self.w = fs.to_tensor(W[:, :columns])

    def forward(self, x):
        return [fs.dot(self.w[:, k], x) for k in range(len(self.w[0]))]


class AsTuples(AsList):
    def forward(self, x):
        first, *rest = super().forward(x)
        return (first, tuple(rest))


class AsArray(AsList):
    """Takes any number of rows."""

    def __init__(self, columns=3):
        super().__init__(columns)
        self.b = fs.to_tensor(np.zeros(columns))

    def forward(self, x):
        linear = fs.Linear(4, len(self.b), seed=0)
        linear.w, linear.b = self.w, self.b
        return linear(x)


class OverTheRows(AsArray):
    """Takes any number of rows, but does something else with many: not the same for each."""

    def forward(self, x):
        out = super().forward(x)
        return out if out.ndim == 1 else out * 0.0


def function(columns=3):
    w = fs.to_tensor(W[:, :columns])

    def net(x):
        return [sum((w[j, k] * x[j] for j in range(4)), 0.0) for k in range(columns)]

    return net


def of_numpy(columns=3):
    return lambda x: np.asarray(x) @ W[:, :columns]


def linear(columns=3):
    net = fs.Linear(4, columns, seed=0)
    net.w.data, net.b.data = W[:, :columns], 0.0
    return net


NETS = [linear, AsList, AsTuples, AsArray, OverTheRows, function, of_numpy]
nets = pytest.mark.parametrize("make", NETS, ids=lambda make: make.__name__)


# --- the same numbers, however a net returns them ---------------------------------------------------------------------


@nets
def test_classes(make):
    X, y = tables()
    scores = X @ W
    assert fs.predict(make(), X).tolist() == scores.argmax(axis=1).tolist()
    found = fs.evaluate(make(), X, y)
    assert (found.metric, float(found)) == ("accuracy", np.mean(scores.argmax(axis=1) == y))
    log_probabilities = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    assert found.loss == pytest.approx(-log_probabilities[np.arange(len(y)), y].mean())
    assert fs.evaluate(make(), X, y, loss=fs.cross_entropy).loss == pytest.approx(found.loss)
    if make is not AsTuples:
        twice = fs.evaluate(make(), X, y, loss=lambda out, k: fs.cross_entropy(out, k) * 2.0)
        assert twice.loss == pytest.approx(2 * found.loss)


@nets
@pytest.mark.parametrize("kind", [int, bool, np.uint8])
def test_one_logit_with_labels_0_and_1_is_accurate_where_its_sign_is_right(make, kind):
    X, _ = tables()
    z = X @ W[:, 0]
    for y in ((z > 0), (z > 0.7)):
        found = fs.evaluate(make(1), X, y.astype(kind))
        assert (found.metric, float(found)) == ("accuracy", np.mean((z > 0) == y))
        assert found.loss == pytest.approx(np.mean(np.log1p(np.exp(z)) - y * z))
    assert fs.evaluate(make(1), X, (z > 0).astype(kind)) == 1.0
    assert fs.evaluate(make(1), X, (z > 0).astype(kind)[:, None]) == 1.0


@nets
@pytest.mark.parametrize("columns", [1, 3])
def test_float_targets_are_measured_by_r2(make, columns):
    X, _ = tables()
    exact = X @ W[:, :columns]
    Y = exact + np.random.default_rng(1).normal(scale=0.1, size=exact.shape)
    expected = np.mean(1 - ((Y - exact) ** 2).sum(axis=0) / ((Y - Y.mean(axis=0)) ** 2).sum(axis=0))
    for y in (Y, Y[:, 0]) if columns == 1 else (Y,):
        found = fs.evaluate(make(columns), X, y)
        assert found.metric == "r2"
        assert found == pytest.approx(expected)
        assert 0.9 < found < 1.0
        assert found.loss == pytest.approx(0.5 * ((Y - exact) ** 2).sum(axis=1).mean())
        assert fs.evaluate(make(columns), X, y, loss="mse").loss == pytest.approx(((Y - exact) ** 2).mean())
        assert fs.evaluate(make(columns), X, y, loss="mse") == found
    assert fs.evaluate(make(columns), X, exact) == pytest.approx(1.0)


@nets
def test_one_output_is_predicted_as_it_is(make):
    X, _ = tables()
    np.testing.assert_allclose(fs.predict(make(1), X), X @ W[:, 0], rtol=1e-9)


def test_counts_are_targets_and_squared_differences_make_targets_of_0_and_1():
    X, _ = tables()
    counts = np.arange(40) % 7
    assert fs.evaluate(linear(1), X, counts).metric == "r2"
    labels = counts % 2
    assert fs.evaluate(linear(1), X, labels).metric == "accuracy"
    for loss in ("squared", "mse", fs.squared_loss):
        assert fs.evaluate(linear(1), X, labels, loss=loss).metric == "r2"


@pytest.mark.parametrize(
    "way", [np.float64, np.float32, np.uint8, list, fs.to_tensor, lambda y: [fs.Tensor(k) for k in y]]
)
def test_labels_and_targets_of_any_kind(way):
    X, y = tables()
    labels = way(y.astype(float) if way is fs.to_tensor else y)
    assert fs.evaluate(linear(), X, labels) == fs.evaluate(linear(), X, y)
    nets = linear(), linear()
    for net, given in zip(nets, (labels, y), strict=True):
        fs.fit(net, X, given, progress=False, epochs=1, validation_data=(X, given))
    assert nets[0].w.tolist() == nets[1].w.tolist()
    if way is fs.to_tensor:
        assert fs.evaluate(linear(), fs.to_tensor(X), fs.to_tensor(X @ W)) == pytest.approx(1.0)
        assert fs.predict(linear(), fs.to_tensor(X)).tolist() == fs.predict(linear(), X).tolist()


def test_r2_is_that_of_scikit_learn():
    from sklearn.metrics import r2_score

    X, _ = tables()
    draw = np.random.default_rng(3)
    for Y in (draw.normal(size=(40, 3)), X @ W + 1.0, np.ones((40, 3))):
        assert fs.evaluate(linear(), X, Y) == pytest.approx(r2_score(Y, X @ W))
    constant = np.zeros((4, 4))
    assert fs.evaluate(linear(), constant, np.zeros((4, 3))) == 1.0


def test_a_program_of_a_row_has_one_output():
    X, _ = tables()
    w = fs.to_tensor(W[:, 0])
    program = fs.compile(lambda x: fs.dot(w, x))
    np.testing.assert_allclose(fs.predict(program, X), X @ W[:, 0])
    assert fs.evaluate(program, X, (X @ W[:, 0] > 0)) == 1.0
    assert fs.evaluate(program, X, X @ W[:, 0] + 0.1, loss=lambda z, t: (z - t) ** 2).loss == pytest.approx(0.01)


def test_what_evaluate_returns_is_a_float():
    X, y = tables()
    found = fs.evaluate(linear(), X, y)
    assert isinstance(found, float)
    assert repr(found) == repr(float(found))
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.metric, again.loss) == (found, found.metric, found.loss)


@nets
def test_nothing_is_recorded(make):
    X, y = tables()
    net = make()
    fs.evaluate(net, X, y, loss=lambda out, k: fs.squared_loss([out[0]], [k]))
    testing.collect()
    nodes = _core.tape_info()["nodes"]
    fs.evaluate(net, X, y, loss=lambda out, k: fs.squared_loss([out[0]], [k]))
    fs.predict(net, X)
    testing.collect()
    assert _core.tape_info()["nodes"] <= nodes


# --- fit --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"batch_size": 8}, {"compile": False}, {"compile": False, "batch_size": 8}])
@pytest.mark.parametrize("make", [linear, AsList, AsArray], ids=lambda make: make.__name__)
def test_fit_says_after_each_epoch_what_evaluate_says(make, given):
    X, y = tables()
    net, told = make(), []

    def on_epoch(epoch):
        found = fs.evaluate(net, X, y, loss=fs.cross_entropy)
        told.append((float(found), found.loss))
        assert (epoch.validation_metric, epoch.accuracy, epoch.metric) == (found, found, "accuracy")
        assert epoch.validation_loss == pytest.approx(found.loss)

    history = fs.fit(net, X, y, epochs=3, validation_data=(X, y), on_epoch=on_epoch, progress=False, **given)
    assert history.validation_metric == [a for a, _ in told]
    assert history.validation_loss == pytest.approx([b for _, b in told])
    assert history.validation_loss[-1] < history.validation_loss[0]
    assert history.as_dict()["epochs"][0]["validation_metric"] == told[0][0]


def test_a_regression_that_fit_validates():
    X, _ = tables()
    Y = X @ W
    net = fs.Linear(4, 3, seed=1)
    given = {"loss": "squared", "epochs": 30, "progress": False, "optimizer": fs.SGD(lr=0.1)}
    history = fs.fit(net, X, Y, validation_data=(X, Y), **given)
    assert history.epochs[-1].accuracy is None
    assert history.epochs[-1].metric == "r2"
    assert history.validation_metric[-1] > 0.999
    assert history.validation_loss[-1] < 0.1 * history.validation_loss[0]


def test_a_logistic_regression_that_fit_validates():
    X, _ = tables(200)
    y = (X @ W[:, 0] > 0).astype(int)
    net = fs.Linear(4, 1, seed=1)
    loss = lambda z, k: fs.softplus(z[0]) - k * z[0]
    history = fs.fit(net, X, y, loss=loss, validation_data=(X, y), epochs=20, progress=False, optimizer=fs.SGD(lr=0.3))
    assert history.validation_metric[-1] > 0.95
    assert history.validation_loss[-1] == pytest.approx(fs.evaluate(net, X, y).loss)


def test_without_validation_data_there_are_none():
    X, y = tables()
    history = fs.fit(linear(), X, y, epochs=2, progress=False)
    assert history.validation_loss == history.validation_metric == [None, None]


# --- data that do not fit ---------------------------------------------------------------------------------------------

X4, Y3 = tables()
IMAGES = np.random.default_rng(0).integers(0, 256, size=(40, 64))
WRONG = {
    "labels of shape (n, 1)": (linear, X4, Y3[:, None], r"y\.ravel\(\)"),
    "strings": (linear, X4, np.array(["cat", "dog"] * 20), r"labels are strings \('cat', \.\.\.\).*np\.unique"),
    "a list of strings": (linear, X4, ["cat", "dog"] * 20, r"labels are strings"),
    "strings as objects": (linear, X4, np.array(["cat", 1] * 20, dtype=object), r"labels are strings"),
    "too few": (linear, X4, Y3[:5], "40 rows"),
    "a label too large": (linear, X4, np.where(np.arange(40) == 7, 3, Y3), r"labels in 0\.\.2, got 3 at row 7"),
    "a negative label": (linear, X4, Y3 - 3, r"labels in 0\.\.2, got -"),
    "no whole numbers": (linear, X4, Y3 + 0.5, "labels are whole numbers"),
    "two targets, three outputs": (linear, X4, np.zeros((40, 2)), "3 outputs a row, and y has 2 targets"),
    "two targets, one output": (lambda: linear(1), X4, np.zeros((40, 2)), "1 outputs a row, and y has 2 targets"),
    "NaN as a target": (lambda: linear(1), X4, np.full(40, np.nan), "y has NaN at row 0"),
    "no numbers": (linear, X4, [None] * 40, "y: expected whole numbers as labels"),
    "ragged labels": (linear, X4, [[1], [2, 3]], "different lengths"),
    "bytes as images": (linear, X4.astype(np.uint8), Y3, "images need scaling"),
    "one row": (linear, X4[0], Y3, "shape"),
    "a list of columns": (linear, list(X4.T), Y3, r"list of 4 columns of 40 numbers; np\.column_stack\(X\)"),
    "ragged rows": (linear, [[1.0], [2.0, 3.0]], [0, 1], "X: the rows have different lengths"),
    "complex": (linear, X4.astype(complex), Y3, "floats"),
    "a column of strings": (
        linear, [[1.0, "red", 2.0, 3.0]] * 40, Y3, "X: expected"
    ),
    "objects": (linear, np.array([[1.0, None, 2.0, 3.0]] * 40, dtype=object), Y3, "column 1 has NoneType"),
    "empty": (linear, X4[:0], Y3[:0], "empty"),
    "width": (lambda: fs.Linear(5, 3, seed=0), X4, Y3, "expected 5 inputs"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_evaluate_and_validation_data_check_as_fit_does(case):
    make, X, y, words = WRONG[case]
    with pytest.raises(ValueError, match=words):
        fs.evaluate(make(), X, y)
    net = make()
    before = net.w.numpy().tolist()
    good_y = Y3 if net.out_features == 3 else Y3.astype(float)
    good = (X4, good_y) if net.in_features == 4 else (np.zeros((40, 5)), good_y)
    loss = fs.cross_entropy if net.out_features == 3 else "squared"
    with pytest.raises(ValueError, match=words):
        fs.fit(net, *good, loss=loss, validation_data=(X, y), progress=False, epochs=1)
    assert net.w.numpy().tolist() == before, "it was found before anything was trained"
    if X is not X4:  # what is wrong with X, fit says of its own
        with pytest.raises(ValueError, match=words):
            fs.fit(net, X, y, loss=loss, progress=False, epochs=1)


@pytest.mark.parametrize("what", ["list", "array", "function"])
def test_predict_checks_too(what):
    net = {"list": AsList(), "array": linear(), "function": function()}[what]
    for X in (X4[0], X4[:0], X4.astype(complex), X4.astype(np.uint8), [["a"] * 4], [[1.0], [1.0, 2.0]]):
        with pytest.raises(ValueError, match="X"):
            fs.predict(net, X)


@nets
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_outputs_that_say_nothing_are_an_error_that_names_the_row_and_its_cause(make, value):
    X, y = tables()
    X[3, 2] = X[30, 1] = value
    said = f"row 3: X has {'NaN' if math.isnan(value) else 'inf'} at row 3, column 2"
    with pytest.raises(FloatingPointError, match=said):
        fs.evaluate(make(1), X, np.linspace(0.0, 1.0, 40))
    if math.isnan(value):  # an infinite score is the largest, or is not
        for work in (lambda: fs.predict(make(), X), lambda: fs.evaluate(make(), X, y)):
            with pytest.raises(FloatingPointError, match=said):
                work()


def test_a_net_of_nan_says_so():
    net = linear()
    net.w.data = np.nan
    with pytest.raises(FloatingPointError, match="nan for row 0: its parameters"):
        fs.evaluate(net, X4, Y3)


def test_a_net_whose_outputs_change_their_number():
    with pytest.raises(ValueError, match="1 outputs for some rows and 2 for others"):
        fs.predict(lambda x: [x[0], x[1]] if x[0] > 0 else [x[0]], X4)


# --- what fit says of its data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"batch_size": 8}, {"compile": False}, {"compile": False, "batch_size": 8}])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adam])
def test_nan_in_the_data_is_named_and_not_the_learning_rate(optimizer, value, given):
    X, y = tables()
    X[13, 2] = value
    net = linear()
    name = "NaN" if math.isnan(value) else str(value)
    with pytest.raises(FloatingPointError) as caught:
        fs.fit(net, X, y, progress=False, epochs=2, optimizer=optimizer(), **given)
    assert f"X has {name} at row 13, column 2" in str(caught.value)
    assert "rate" not in str(caught.value)
    Y = np.zeros((40, 3))
    Y[5, 1] = value
    with pytest.raises(FloatingPointError, match=f"y has {name} at row 5, column 1"):
        fs.fit(linear(), X4, Y, loss="squared", progress=False, epochs=2, **given)


def test_a_first_loss_that_is_not_finite_is_not_the_rates_fault():
    net = linear()
    net.w.data = np.nan
    with pytest.raises(FloatingPointError, match="after 0 samples; a parameter of the net is not finite"):
        fs.fit(net, X4, Y3, progress=False)
    with pytest.raises(FloatingPointError, match="after 0 samples; nothing was trained yet"):
        fs.fit(linear(), X4 * 1e300, Y3.astype(float)[:, None] * np.ones(3), loss="squared", progress=False)


def test_whole_numbers_that_are_no_images_are_not_called_so():
    table = np.arange(160).reshape(40, 4)
    for X in (table, table.astype(np.int32), table % 2 == 0, -IMAGES, IMAGES * 1000):
        with pytest.raises(ValueError, match=r"expected floats: X\.astype\(float\)") as caught:
            fs.fit(linear(), X, Y3, progress=False)
        assert "image" not in str(caught.value)
    for X in (IMAGES, IMAGES.astype(np.uint8), IMAGES.astype(np.int16)):
        with pytest.raises(ValueError, match=r"images need scaling to 0\.\.1 first: X / 255"):
            fs.fit(fs.Linear(64, 3, seed=0), X, Y3, progress=False)


def test_float_images_that_were_not_scaled_are_noticed():
    net = fs.Linear(64, 3, seed=0)
    for work in (
        lambda X: fs.fit(net, X, Y3, progress=False, epochs=1, optimizer=fs.SGD(lr=1e-6)),
        lambda X: fs.evaluate(net, X, Y3),
        lambda X: fs.predict(net, X),
    ):
        for X in (IMAGES.astype(float), IMAGES.astype(np.float32)):
            with pytest.warns(UserWarning, match=r"images of 0\.\.255.*X / 255") as caught:
                work(X)
            assert caught[0].filename == __file__
        for X in (IMAGES / 255, IMAGES - 128.0, IMAGES * 3.0):
            work(X)


@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adam])
def test_pixels_as_they_are_with_a_learning_rate_for_them(optimizer):
    """The article's: 1e-8 and 1e-7; a hundred times as much is no such rate."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for lr in (1e-8, 1e-7):
            fs.fit(fs.Linear(64, 3, seed=0), IMAGES.astype(float), Y3, progress=False, optimizer=optimizer(lr=lr))
    with pytest.warns(UserWarning, match=r"images of 0\.\.255"):
        fs.fit(fs.Linear(64, 3, seed=0), IMAGES.astype(float), Y3, progress=False, optimizer=optimizer(lr=1e-5))


def test_validation_data_are_a_pair():
    for wrong in ((X4,), (X4, Y3, Y3), X4, "ab c"):
        with pytest.raises(ValueError, match=r"validation_data: expected \(X, y\)"):
            fs.fit(linear(), X4, Y3, validation_data=wrong)


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("optimizer", [fs.SGD, fs.Adam])
def test_a_program_that_reads_nothing(compile, optimizer):
    program = fs.compile(lambda x, k: fs.sum(x) * k)
    for batch_size in (1, 7):
        with pytest.raises(ValueError, match="nothing to train"):
            fs.fit(program, X4, Y3, optimizer=optimizer(), compile=compile, batch_size=batch_size, progress=False)


def test_a_loss_that_is_no_function():
    for method in (fs.fit, fs.evaluate):
        work = lambda loss, method=method: method(linear(), X4, Y3, loss=loss)
        with pytest.raises(ValueError, match=r"loss: expected a function or one of 'cross_entropy', .*'cosine'"):
            work("cosine")
        with pytest.raises(TypeError, match="loss: expected a function or one of"):
            work(3)
