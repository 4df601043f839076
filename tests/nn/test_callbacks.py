"""What looks on while fit runs: early stopping, callbacks by epoch and by samples, and what is left of a run."""

import io
import json
import math
import pickle
import sys
import warnings

import numpy as np
import pytest

import fastscalar as fs
from fastscalar.nn import Epoch, Samples, progress
from fastscalar.nn.history import History

WAYS = [{}, {"batch_size": 6}, {"compile": False}, {"compile": False, "batch_size": 6}]
ways = pytest.mark.parametrize("given", WAYS, ids=str)
makes = pytest.mark.parametrize("make", [fs.SGD, lambda: fs.SGD(momentum=0.9), fs.Adam], ids=["SGD", "mom", "Adam"])


def problem(n=40, seed=0):
    draw = np.random.default_rng(seed)
    X = draw.normal(size=(n, 3))
    return X, (X[:, 0] > 0).astype(int)


def fit(net, X, y, **keywords):
    return fs.fit(net, X, y, **{"progress": False, "epochs": 5, **keywords})


def values(net):
    return np.concatenate([p.numpy().ravel() for linear in net.linears for p in (linear.w, linear.b)])


class Keeps:
    """The weights after every epoch."""

    def __init__(self, net):
        self.net, self.seen = net, []

    def on_epoch(self, epoch):
        self.seen.append(values(self.net))


# --- early stopping ---------------------------------------------------------------------------------------------------


@ways
@makes
@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping_gives_the_best_weights_back(given, make, restore):
    X, y = problem()
    net, optimizer = fs.MLP(3, [5, 2], seed=0), make()
    kept, stop = Keeps(net), fs.EarlyStopping(patience=2, restore_best=restore)
    # labels that contradict those it learns: from some epoch on the validation loss rises
    history = fit(net, X, y, optimizer=optimizer, validation_data=(X, 1 - y), epochs=40, callbacks=[kept, stop],
                  schedule=None, **given)  # fmt: skip
    losses = history.validation_loss
    assert stop.best == int(np.argmin(losses)) + 1
    assert len(losses) == stop.best + 2
    assert stop.value == min(losses)
    assert history.stopped == f"validation_loss has not improved since epoch {stop.best}"
    assert values(net).tolist() == kept.seen[stop.best - 1 if restore else -1].tolist()


def test_a_run_that_ends_before_patience_does_gives_the_best_weights_too():
    X, y = problem()
    net = fs.MLP(3, [5, 2], seed=0)
    kept, stop = Keeps(net), fs.EarlyStopping(patience=30)
    history = fit(net, X, y, validation_data=(X, 1 - y), callbacks=[stop, kept], schedule=None)
    assert history.stopped is None
    assert len(history.epochs) == 5
    assert values(net).tolist() == kept.seen[stop.best - 1].tolist() != kept.seen[-1].tolist()


@pytest.mark.parametrize("monitor", ["loss", "validation_loss", "validation_metric", "accuracy"])
def test_what_is_monitored_rises_or_falls(monitor):
    stop = fs.EarlyStopping(patience=1, monitor=monitor)
    rises = monitor in ("validation_metric", "accuracy")
    net = fs.Linear(1, 1, seed=0)

    class Course:
        optimizer = fs.SGD(net.parameters())

    stop.on_begin(Course)
    for k, value in enumerate([0.5, 0.6, 0.7] if rises else [0.7, 0.6, 0.5], 1):
        stop.on_epoch(Epoch(k, value, value, 1.0, 1.0, value, value, "accuracy"))
    assert (stop.best, stop.value) == (3, 0.7 if rises else 0.5)
    with pytest.raises(fs.StopTraining, match="since epoch 3"):
        stop.on_epoch(Epoch(4, 0.55 if not rises else 0.65, 0.65, 1.0, 1.0, 0.55, 0.65, "accuracy"))


def test_a_difference_that_is_too_small_is_none():
    stop = fs.EarlyStopping(patience=1, monitor="loss", min_delta=0.1, restore_best=False)

    class Course:
        optimizer = None

    stop.on_begin(Course)
    stop.on_epoch(Epoch(1, 1.0, None, 1.0, 1.0))
    with pytest.raises(fs.StopTraining):
        stop.on_epoch(Epoch(2, 0.95, None, 1.0, 1.0))


def test_early_stopping_serves_one_run_after_the_other():
    X, y = problem()
    stop, found = fs.EarlyStopping(patience=2), []
    for _ in range(2):
        net = fs.MLP(3, [5, 2], seed=0)
        history = fit(net, X, y, validation_data=(X, 1 - y), epochs=40, callbacks=[stop], schedule=None)
        found.append((history.validation_loss, values(net).tolist(), stop.best))
    assert found[0] == found[1]


def test_early_stopping_without_validation_data_says_so():
    X, y = problem()
    with pytest.raises(ValueError, match="give fit validation_data"):
        fit(fs.MLP(3, [5, 2], seed=0), X, y, callbacks=[fs.EarlyStopping()])


@pytest.mark.parametrize("keywords", [{"patience": 0}, {"patience": True}, {"monitor": "val"}, {"min_delta": -1.0}])
def test_its_arguments_are_checked(keywords):
    with pytest.raises(ValueError, match="EarlyStopping"):
        fs.EarlyStopping(**keywords)


# --- callbacks --------------------------------------------------------------------------------------------------------


class All:
    every = 10

    def __init__(self):
        self.seen = []

    def on_begin(self, course):
        self.seen.append(("begin", course.epochs))

    def on_samples(self, samples):
        self.seen.append(("samples", samples.epoch, samples.samples))

    def on_epoch(self, epoch):
        self.seen.append(("epoch", epoch.epoch))

    def on_end(self, history):
        self.seen.append(("end", len(history.epochs), history.stopped))


@ways
def test_they_are_called_in_order(given):
    X, y = problem(35)
    looks, epochs, last = All(), [], []
    fit(fs.MLP(3, [5, 2], seed=0), X, y, epochs=2, callbacks=[looks, epochs.append], on_epoch=last.append, **given)
    due = [12, 24, 30] if given.get("batch_size") else [10, 20, 30]
    one = lambda k: [*(("samples", k, n) for n in due), ("epoch", k)]
    assert looks.seen == [("begin", 2), *one(1), *one(2), ("end", 2, None)]
    assert [e.epoch for e in epochs] == [e.epoch for e in last] == [1, 2]


@ways
@pytest.mark.parametrize("every", [1, 7, 40, 1000])
def test_looking_on_changes_no_bit(given, every):
    X, y = problem()
    nets = [fs.MLP(3, [5, 2], seed=0) for _ in range(2)]
    looks = All()
    looks.every = every
    one = fit(nets[0], X, y, optimizer=fs.Adam(), **given)
    two = fit(nets[1], X, y, optimizer=fs.Adam(), callbacks=[looks], **given)
    assert values(nets[0]).tolist() == values(nets[1]).tolist()
    assert one.loss == two.loss


def test_what_is_seen_of_an_epoch_is_the_mean_of_its_losses_so_far():
    X, y = problem()
    seen = []

    class Looks:
        every = 4

        def on_samples(self, samples):
            seen.append(samples)

    net = fs.MLP(3, [5, 2], seed=0)
    by_hand, losses = fs.MLP(3, [5, 2], seed=0), []
    fit(net, X, y, epochs=1, callbacks=[Looks()], shuffle=False, schedule=None)
    for x, k in zip(X, y, strict=True):
        loss = fs.cross_entropy(by_hand(x), k)
        loss.backward()
        losses.append(loss.data)
        fs.sgd(by_hand.parameters(), 0.02)
    assert seen == [Samples(1, n, pytest.approx(np.mean(losses[:n]))) for n in range(4, 41, 4)]


@ways
@pytest.mark.parametrize("when", ["on_begin", "on_samples", "on_epoch"])
def test_a_callback_may_end_a_run(given, when):
    X, y = problem()
    looks = All()

    class Enough:
        every = 20

    def enough(self, what):
        if when == "on_begin" or what.epoch == 2:
            raise fs.StopTraining("it is late")

    setattr(Enough, when, enough)
    net = fs.MLP(3, [5, 2], seed=0)
    kept = Keeps(net)
    before = values(net)
    history = fit(net, X, y, callbacks=[Enough(), kept, looks], **given)
    whole = {"on_begin": 0, "on_samples": 1, "on_epoch": 2}[when]
    assert history.stopped == "it is late"
    assert len(history.epochs) == len(kept.seen) == whole
    assert looks.seen[-1] == ("end", whole, "it is late")
    if given.get("compile", True) or when != "on_samples":
        assert values(net).tolist() == (kept.seen[-1] if whole else before).tolist()


@pytest.mark.parametrize(
    ("callbacks", "error", "words"),
    [
        (3, TypeError, "expected a list"),
        ([3], TypeError, "on_epoch"),
        ([type("None_", (), {"on_samples": print})()], ValueError, "every"),
        ([type("Half", (), {"on_samples": print, "every": 0.5})()], ValueError, "every"),
    ],
)
def test_what_is_no_callback_says_so(callbacks, error, words):
    X, y = problem()
    with pytest.raises(error, match=words):
        fit(fs.MLP(3, [5, 2], seed=0), X, y, callbacks=callbacks)


# --- the history ------------------------------------------------------------------------------------------------------


@ways
@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError("out of ink"), FloatingPointError])
def test_the_history_of_a_run_that_is_stopped_is_not_lost(given, kind):
    X, y = problem()
    mine, ends = History(), []

    class Stops:
        def on_epoch(self, epoch):
            if epoch.epoch == 3:
                raise kind

        def on_end(self, history):
            ends.append(len(history.epochs))

    with pytest.raises(kind if isinstance(kind, type) else type(kind)) as caught:
        fit(fs.MLP(3, [5, 2], seed=0), X, y, callbacks=[Stops()], history=mine, **given)
    assert [e.epoch for e in mine.epochs] == [1, 2, 3]
    assert caught.value.history is mine
    assert ends == [3]
    assert mine.stopped.startswith(getattr(kind, "__name__", "RuntimeError: out of ink"))


def test_a_history_that_is_given_is_added_to():
    X, y = problem()
    net, history = fs.MLP(3, [5, 2], seed=0), History()
    assert fit(net, X, y, epochs=2, history=history) is history
    fit(net, X, y, epochs=4, first_epoch=3, history=history)
    assert [e.epoch for e in history.epochs] == [1, 2, 3, 4]
    with pytest.raises(TypeError, match="History"):
        fit(net, X, y, history=[])


def test_a_history_prints_as_a_table():
    X, y = problem()
    history = fit(fs.MLP(3, [5, 2], seed=0), X, y, epochs=2, validation_data=(X, y))
    lines = str(history).splitlines()
    assert lines[0].split() == ["epoch", "loss", "validation", "accuracy", "seconds", "samples/s"]
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split()[:3] == ["1", f"{history.loss[0]:.4f}", f"{history.validation_loss[0]:.4f}"]
    assert repr(fit(fs.MLP(3, [5, 2], seed=0), X, y, epochs=1)).split()[:4] == ["epoch", "loss", "seconds", "samples/s"]
    assert repr(History()) == "no epoch yet"
    assert json.loads(json.dumps(history.as_dict()))["epochs"][1]["epoch"] == 2
    assert pickle.loads(pickle.dumps(history)) == history


@pytest.mark.parametrize("validation", [True, False])
def test_a_history_plots(validation):
    pytest.importorskip("matplotlib")
    X, y = problem()
    given = {"validation_data": (X, y)} if validation else {}
    history = fit(fs.MLP(3, [5, 2], seed=0), X, y, **given)
    figure = history.plot()
    assert [len(axis.get_lines()) for axis in figure.axes] == ([2, 1] if validation else [1])
    assert figure.axes[0].get_lines()[0].get_ydata().tolist() == history.loss
    file = io.BytesIO()
    figure.savefig(file, format="rgba", dpi=50)
    pixels = np.frombuffer(file.getvalue(), np.uint8)
    assert len(np.unique(pixels)) > 20
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_what_was_not_measured_is_not_in_the_picture():
    """A loss of validation data: a run of the command line has the metric of the test data alone."""
    pytest.importorskip("matplotlib")
    history = History([Epoch(k, 1.0 / k, None, 1.0, 1.0, math.nan, 0.9, "test accuracy") for k in (1, 2)])
    figure = history.plot()
    assert [len(axis.get_lines()) for axis in figure.axes] == [1, 1]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["training"]
    assert figure.axes[1].get_ylabel() == "test accuracy"


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "fastscalar.nn.pictures", raising=False)
    with pytest.raises(ImportError, match=r"fastscalar\[plot\]"):
        History().plot()


def test_a_notebook_shows_the_bar_the_table_and_the_curves():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    pytest.importorskip("matplotlib")
    cells = [
        "import numpy as np, fastscalar as fs\n"
        "X = np.random.default_rng(0).normal(size=(400, 3)); y = (X[:, 0] > 0).astype(int)\n"
        "history = fs.fit(fs.MLP(3, [8, 2], seed=0), X, y, epochs=2, validation_data=(X, y))",
        "history",
        "history.plot()",
    ]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    bar, table, picture = (cell.outputs for cell in notebook.cells)
    assert "epoch 1/2" in str(bar)
    assert "samples/s" in table[0].data["text/plain"].splitlines()[0]
    assert "image/png" in picture[0].data


# --- bars -------------------------------------------------------------------------------------------------------------


class Stream(io.StringIO):
    def __init__(self, tty):
        super().__init__()
        self.tty = tty

    def isatty(self):
        return self.tty


@pytest.mark.parametrize("tty", [True, False])
def test_a_bar_is_shown_where_somebody_sees_it(tty, monkeypatch):
    X, y = problem()
    stream = Stream(tty)
    monkeypatch.setattr(sys, "stderr", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(fs.MLP(3, [5, 2], seed=0), X, y, epochs=2, progress=True)
    shown = stream.getvalue()
    assert ("epoch 1/2" in shown) == bool(shown) == tty


def test_a_notebook_is_known_by_its_kernel(monkeypatch):
    assert not progress.in_notebook()
    shell = type("Shell", (), {"kernel": object()})()
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(lambda: shell)}))
    assert progress.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(lambda: None)}))
    assert not progress.in_notebook()


# --- what callbacks change --------------------------------------------------------------------------------------------


class Annealed(fs.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.factor = fs.Linear(4, 3, seed=0), fs.Linear(4, 3, seed=1), 1.0

    def forward(self, x):
        return self.first(x) * self.factor


def _factor(net, optimizer):
    net.factor *= 0.5


def _module(net, optimizer):
    net.first = net.second


def _array(net, optimizer):
    net.first.w = fs.to_tensor(net.first.w.numpy() * 0.5)


def _numbers(net, optimizer):
    net.first.w.data *= 0.9


def _rate(net, optimizer):
    optimizer.lr *= 0.5


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("change", "frozen"), [(_factor, True), (_module, True), (_array, True), (_numbers, False), (_rate, False)]
)
def test_what_a_callback_changes_in_the_net_counts(change, frozen, batch_size):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 4)), np.arange(20) % 3
    trained = []
    for compiled in (True, False):
        net, optimizer = Annealed(), fs.SGD(lr=0.1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fs.fit(net, X, y, optimizer=optimizer, epochs=4, batch_size=batch_size, seed=0, compile=compiled,
                   progress=False, callbacks=[lambda epoch, n=net, o=optimizer: change(n, o)])  # fmt: skip
        said = [w for w in caught if issubclass(w.category, fs.CompileWarning)]
        assert len(said) == (compiled and frozen)
        trained.append(np.concatenate([p.numpy().ravel() for m in (net.first, net.second) for p in (m.w, m.b)]))
    np.testing.assert_allclose(*trained, rtol=1e-9, atol=1e-12)
