"""Modules: names, modes, state, files; Sequential, LayerNorm, Embedding; activations and initial weights by name."""

from __future__ import annotations

import copy
import json
import math
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import nn
from fastscalar.nn.activations import ACTIVATIONS
from fastscalar.nn.init import INITIALIZERS, initial_weights


def test_what_notebooks_show_of_nets_and_runs():
    net = fs.MLP(3, [4, 2], seed=0)
    shown = net._repr_html_()
    assert shown.startswith("<code>MLP(3, [4, 2])</code><table>")
    assert "<td>linears.0.w</td><td>(3, 4)</td>" in shown
    assert "<td>parameters</td><td></td><td>26</td>" in shown
    epochs = [fs.nn.Epoch(1, 0.5, 0.25, 2.0, 30000.0, 0.75, 0.25, "accuracy")]
    run = fs.History(epochs, "early <stopping>")
    assert run._repr_html_() == (
        "<table><tr><th>epoch</th><th>loss</th><th>validation</th><th>accuracy</th><th>seconds</th><th>samples/s</th></tr>"
        "<tr><td>1</td><td>0.5000</td><td>0.7500</td><td>25.00 %</td><td>2.00</td><td>30,000</td></tr></table>"
        "<p>stopped: early &lt;stopping&gt;</p>"
    )
    assert repr(run).splitlines() == [
        "epoch      loss validation  accuracy   seconds  samples/s",
        "    1    0.5000     0.7500   25.00 %      2.00     30,000",
        "stopped: early <stopping>",
    ]
    assert fs.History()._repr_html_() == "<pre>no epoch yet</pre>"


class Gated(fs.Module):
    """Numbers of every kind, below lists and dictionaries, and a layer under two names."""

    def __init__(self, width: int, *, heads: tuple[int, ...] = (2, 3), names: dict[str, int] | None = None) -> None:
        self.first = fs.Linear(width, width, seed=1)
        self.same = self.first
        self.heads = [fs.Linear(width, n, seed=n) for n in heads]
        self.tables = {name: fs.to_tensor([0.5] * n) for name, n in (names or {"a": width}).items()}
        self.gate = fs.Tensor(0.25)

    def forward(self, x: Any) -> Any:
        x = self.same(x).tanh() * next(iter(self.tables.values()))
        return [t * self.gate for head in self.heads for t in head(x)]


NETS: dict[str, Any] = {
    "linear": lambda: fs.Linear(4, 2, seed=0),
    "mlp": lambda: fs.MLP(4, [3, 2], seed=0),
    "gelu": lambda: fs.MLP(4, [3, 2], activation="gelu", seed=0),
    "sequential": lambda: nn.Sequential(
        fs.Linear(4, 3, seed=0), "tanh", nn.LayerNorm(3),
        fs.MLP(3, [5, 2], activation=ACTIVATIONS["elu"], init="glorot", seed=random.Random(2)), "identity",
    ),
    "shared": lambda: (lambda layer: nn.Sequential(layer, "relu", layer))(fs.Linear(4, 4, seed=3)),
    "gated": lambda: Gated(4, heads=(2,), names={"table of x": 4, "unused": 2}),
}  # fmt: skip
CLASSES = [Gated]
X = np.random.default_rng(0).normal(size=(6, 4))


def outputs(net: Any, x: Any) -> list[float]:
    return [float(t) for t in net(x)]


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_names_are_of_all_parameters_once_in_their_order(make: Any) -> None:
    net = make()
    named = list(net.named_parameters())
    flat: list[Any] = []
    todo = [net.parameters()]
    while todo:
        p = todo.pop(0)
        todo[:0] = p if isinstance(p, list) else []
        flat += [] if isinstance(p, list) else [p]
    assert [p for _, p in named] == flat or [id(p) for _, p in named] == [id(p) for p in flat]
    assert len({name for name, _ in named}) == len(named)


def test_a_name_says_where_a_parameter_is() -> None:
    assert [name for name, _ in Gated(2).named_parameters()] == [
        "first.w", "first.b", "heads.0.w", "heads.0.b", "heads.1.w", "heads.1.b", "tables.a", "gate",
    ]  # fmt: skip


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_a_state_goes_from_net_to_net(make: Any, tmp_path: Path) -> None:
    net, other = make(), make()
    for _, p in other.named_parameters():
        p.data = 0.0 if isinstance(p, fs.Tensor) else np.zeros(p.shape)
    np.savez(tmp_path / "state.npz", **net.state_dict())
    with np.load(tmp_path / "state.npz") as state:
        other.load_state_dict(state)
    assert outputs(other, X[0]) == outputs(net, X[0])
    state = net.state_dict()
    next(iter(state.values()))[...] = 7.0        # a copy
    assert outputs(net, X[0]) == outputs(other, X[0])


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    net = fs.MLP(4, [3, 2], seed=0)
    before = outputs(net, X[0])
    good = net.state_dict()
    for wrong, said in (
        ({k: v for k, v in good.items() if k != "linears.1.b"}, "missing 'linears.1.b'"),
        ({**good, "more": np.zeros(2)}, "unknown 'more'"),
        ({**good, "linears.1.w": np.zeros((2, 3))}, r"linears.1.w: expected shape \(3, 2\), got \(2, 3\)"),
    ):
        state = {k: v * 0.0 for k, v in wrong.items()}
        with pytest.raises(ValueError, match=said):
            net.load_state_dict(state)
        assert outputs(net, X[0]) == before


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
@pytest.mark.parametrize("again", ["file", "file of a copy", "deepcopy", "pickle"])
def test_a_net_is_rebuilt(make: Any, again: str, tmp_path: Path) -> None:
    net = make()
    fs.sgd([p for _, p in net.named_parameters()], 0.0)
    (fs.sum(list(net(X[1]))) ** 2).backward()
    fs.sgd(net.parameters(), 0.01)
    if again.startswith("file"):
        (copy.deepcopy(net) if "copy" in again else net).save(tmp_path / "net.npz", note=[1, "two"])
        other = fs.load(tmp_path / "net.npz", classes=CLASSES)
        assert other.metadata == {"note": [1, "two"]}
    else:
        other = copy.deepcopy(net) if again == "deepcopy" else pickle.loads(pickle.dumps(net))
    assert type(other) is type(net)
    assert repr(other) == repr(net) or "object at" in repr(net)
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert [outputs(other, x) for x in X] == [outputs(net, x) for x in X]
    if again != "file of a copy":
        other.save(tmp_path / "again.npz")
        assert outputs(fs.load(tmp_path / "again.npz", classes=CLASSES), X[0]) == outputs(net, X[0])


def test_a_class_of_ones_own_is_made_only_if_it_is_named(tmp_path: Path) -> None:
    Gated(3).save(tmp_path / "net.npz")
    with pytest.raises(ValueError, match=r"net.npz.*a Gated, .*classes=\[Gated\]"):
        fs.load(tmp_path / "net.npz")
    assert isinstance(fs.load(tmp_path / "net.npz", classes=[Gated]), Gated)


class OfFunction(fs.Module):
    def __init__(self, f: Any) -> None:
        self.f, self.w = f, fs.Tensor(1.0)

    def forward(self, x: Any) -> Any:
        return self.f(x * self.w)


@pytest.mark.parametrize("argument", [lambda x: x, math.inf, object(), {1: 2}, [b"x"]], ids=range(5))
def test_what_cannot_be_written_is_said_and_nothing_is_left(argument: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"OfFunction: save: its argument 1 is a .*; expected a number, a string"):
        OfFunction(argument).save(tmp_path / "net.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_net_that_was_changed_by_hand_is_not_saved_as_another(tmp_path: Path) -> None:
    net = Gated(3)
    net.heads.append(fs.Linear(3, 1, seed=0))
    with pytest.raises(ValueError, match="it was changed since"):
        net.save(tmp_path / "net.npz")
    assert list(tmp_path.iterdir()) == []


def mutated(path: Path, change: Any) -> Path:
    """The file with another header."""
    other = path.with_name("other.npz")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            if name != "header.npy":
                new.writestr(name, old.read(name))
        with old.open("header.npy") as member:
            header = json.loads(str(np.lib.format.read_array(member)))
        change(header)
        with new.open("header.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.array(json.dumps(header)))
    return other


CHANGES: dict[str, Any] = {
    "more parameters than there are": lambda h: h["modules"][0].update(positional=[40000, 40000]),
    "a class nobody has": lambda h: h["modules"][0].update({"class": "Os"}),
    "somebody's class": lambda h: h["modules"][0].update({"class": "Sequential", "ours": False}),
    "a module that comes later": lambda h: h["modules"][2].update(positional=[{"module": 2}]),
    "an unknown function": lambda h: h["modules"][2].update(positional=[{"function": "system"}]),
    "an unknown argument": lambda h: h["modules"][0]["named"].update(ini="he"),
    "text for a number": lambda h: h["modules"][0].update(positional=["4", "3"]),
    "nothing": lambda h: h["modules"].clear(),
    "no list": lambda h: h.update(modules={"a": 1}),
    "a list of numbers": lambda h: h.update(modules=[1, 2]),
    "names gone": lambda h: h["parameters"].pop(),
    "another name": lambda h: h["parameters"][0].__setitem__(0, "layers.0.v"),
    "a negative shape": lambda h: h["parameters"][0].__setitem__(1, [-1, 3]),
    "a strange argument": lambda h: h["modules"][2].update(positional=[{"tuple": 3}]),
    "a newer format": lambda h: h.update(format=3),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_wrong_header_is_a_value_error_with_the_file(change: Any, tmp_path: Path) -> None:
    nn.Sequential(fs.Linear(4, 3, seed=0), fs.Linear(3, 2, seed=0)).save(tmp_path / "net.npz")
    with pytest.raises(ValueError, match=r"other.npz: "):
        fs.load(mutated(tmp_path / "net.npz", change))


def test_nets_of_relu_stay_what_older_versions_read(tmp_path: Path) -> None:
    for net, version in ((NETS["mlp"](), 1), (NETS["linear"](), 1), (NETS["gelu"](), 2)):
        net.save(tmp_path / "net.npz")
        assert fs.load(tmp_path / "net.npz").origin["format"] == version


# --- modes ---


class Mode(fs.Module):
    """Notes in which mode it is called."""

    def __init__(self) -> None:
        self.w, self.seen = fs.to_tensor([0.5, 0.5]), []

    def forward(self, x: Any) -> Any:
        self.seen.append(self.training)
        return x * self.w


@pytest.mark.parametrize("compile", [True, False])
@pytest.mark.parametrize("mode", [True, False])
def test_fit_trains_and_evaluate_looks_whatever_the_mode_was(compile: bool, mode: bool) -> None:
    net = nn.Sequential(Mode(), Mode())
    assert net.training
    assert net.train(mode) is net
    data, labels = X[:, :2].copy(), np.array([0, 1] * 3)
    fs.fit(net, data, labels, epochs=1, compile=compile, progress=False)
    assert net[0].seen
    assert all(net[0].seen)
    net[0].seen.clear()
    fs.evaluate(net, data, labels)
    fs.predict(net, data)
    assert net[0].seen
    assert not any(net[0].seen)
    assert [m.training for m in net.modules()] == [mode] * 3
    assert not any(m.training for m in net.eval().modules())


# --- activations, initial weights ---


@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if "softmax" not in name])
@pytest.mark.parametrize("compile", [True, False])
def test_an_activation_by_name_is_the_function_of_each_element(name: str, compile: bool) -> None:
    net = fs.MLP(4, [3, 2], activation=name, seed=0)
    by_hand = {"identity": lambda t: t, "tanh": fs.math.tanh}.get(name) or getattr(fs, name)
    first, last = net.linears

    def loss(x: Any, y: Any) -> Any:
        return fs.squared_loss(last([by_hand(t) for t in first(x)]), [y, 0.0])

    expected = [loss(x, 1.0) for x in X]
    f = fs.compile(lambda x, y: fs.squared_loss(net(x), [y, 0.0]))
    found = f.map(X, np.ones(len(X))) if compile else [fs.squared_loss(net(x), [1.0, 0.0]).data for x in X]
    np.testing.assert_allclose(found, [t.data for t in expected], rtol=1e-12)
    assert (f"activation='{name}'" in repr(net)) == (name != "relu")


def test_an_unknown_activation_names_the_known() -> None:
    with pytest.raises(ValueError, match=r"MLP: activation: expected .*\"gelu\".*got 'relo'"):
        fs.MLP(4, [3, 2], activation="relo")
    with pytest.raises(TypeError, match="Sequential: activation"):
        nn.Sequential(fs.Linear(2, 2), 3)  # type: ignore[arg-type]


VARIANCE = {"he": 2 / 50, "he_uniform": 2 / 50, "glorot": 2 / 150, "glorot_uniform": 2 / 150, "lecun": 1 / 50,
            "normal": 1.0, "zeros": 0.0}  # fmt: skip


@pytest.mark.parametrize("init", VARIANCE)
def test_initial_weights_have_their_variance(init: str) -> None:
    w, b = initial_weights((50, 100), init, random.Random(0))
    assert w.shape == (50, 100)
    assert not b.any()
    assert math.isclose(w.var(), VARIANCE[init], rel_tol=0.06, abs_tol=1e-12)
    assert abs(w.mean()) <= 4 * math.sqrt(VARIANCE[init] / w.size)
    assert np.array_equal(w, initial_weights((50, 100), init, random.Random(0))[0])
    assert set(VARIANCE) | {"article"} == set(INITIALIZERS)


def test_initial_weights_of_ones_own() -> None:
    layer = fs.Linear(3, 2, init=lambda fan_in, fan_out, rng: fan_in + 10 * fan_out)
    assert layer.w.tolist() == [[23.0, 23.0]] * 3
    with pytest.raises(ValueError, match=r"init: expected a function or one of .*'glorot'.*got 'hee'"):
        fs.Linear(3, 2, init="hee")
    with pytest.raises(TypeError, match="init: expected a name or a function"):
        fs.Linear(3, 2, init=3)  # type: ignore[arg-type]


# --- layers ---


def norm_by_hand(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w + b


@pytest.mark.parametrize("kind", ["array", "list", "numbers", "rows", "compiled"])
def test_layer_norm(kind: str) -> None:
    layer = nn.LayerNorm(4)
    layer.w.data, layer.b.data = [1.0, 2.0, -0.5, 0.25], [0.1, 0.2, 0.3, 0.4]
    expected = np.array([norm_by_hand(x, layer.w.numpy(), layer.b.numpy()) for x in X])
    if kind == "compiled":
        found: Any = [fs.compile(lambda x, k=k: layer(x)[k]).map(X) for k in range(4)]
        np.testing.assert_allclose(np.transpose(found), expected, rtol=1e-11)
        return
    given = {
        "array": [fs.to_tensor(x) for x in X],
        "list": [[fs.Tensor(float(e)) for e in x] for x in X],
        "numbers": list(X),
        "rows": [fs.to_tensor(X)],
    }[kind]
    found = [[float(t) for t in row] for x in given for row in (layer(x) if kind == "rows" else [layer(x)])]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert fs.gradcheck(lambda x: fs.sum([t * t * t for t in layer(list(x))]), (list(X[0]),))


def test_an_embedding_is_trained_by_fit_on_whole_numbers() -> None:
    words = np.random.default_rng(1).integers(0, 7, size=(60, 3))
    labels = (words.sum(axis=1) > 9).astype(int)

    class Bag(fs.Module):
        def __init__(self) -> None:
            self.table, self.last = nn.Embedding(7, 5, seed=0), fs.Linear(5, 2, seed=1)

        def forward(self, ks: Any) -> Any:
            a, b, c = self.table(ks)
            return self.last(a + b + c)

    results = []
    for compile in (True, False):
        net = Bag()
        history = fs.fit(net, words, labels, epochs=8, compile=compile, progress=False, validation_data=(words, labels))
        assert history.validation_metric[-1] > 0.8
        results.append(net.state_dict())
    for name, found in results[0].items():
        np.testing.assert_allclose(found, results[1][name], rtol=1e-9, atol=1e-12)
    with pytest.raises(IndexError):
        net.table(7)
    with pytest.raises(TypeError, match="whole numbers"):
        net.table(1.0)


@pytest.mark.parametrize("rate", [{"optimizer": "sgd"}, {"optimizer": "adam"}], ids=str)
def test_a_sequence_of_layers_trains_as_its_parts_do(rate: dict[str, str]) -> None:
    labels = (X[:, 0] > 0).astype(int)
    states = []
    for make in (lambda: fs.MLP(4, [3, 2], activation="tanh", seed=0),
                 lambda: (lambda r: nn.Sequential(fs.Linear(4, 3, seed=r), "tanh", fs.Linear(3, 2, seed=r)))(
                     random.Random(0))):  # fmt: skip
        net = make()
        optimizer = fs.SGD(lr=0.1) if rate["optimizer"] == "sgd" else fs.Adam(lr=0.01)
        fs.fit(net, X, labels, epochs=3, optimizer=optimizer, progress=False)
        states.append(list(net.state_dict().values()))
    assert all(np.array_equal(a, b) for a, b in zip(*states, strict=True))
