"""Optimisers: each is its formula over a hundred steps, whatever its parameters lie in; state, clipping, arguments."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest

import fastscalar as fs
from fastscalar import _core
from fastscalar.engine._step import flatten_parameters

STEPS = 100


# --- the formulas, written again in NumPy: (w, g, what is kept, step, lr, constants) -> w -----------------------------


def sgd(w, g, kept, n, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    g = g + weight_decay * w
    if momentum:
        kept["s"] = momentum * kept["s"] + g if n > 1 else g
        g = g + momentum * kept["s"] if nesterov else kept["s"]
    return w - lr * g


def adam(w, g, kept, n, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False):
    if decoupled:
        w = w - lr * weight_decay * w
    else:
        g = g + weight_decay * w
    kept["s"] = betas[0] * kept.get("s", 0.0) + (1 - betas[0]) * g
    kept["t"] = betas[1] * kept.get("t", 0.0) + (1 - betas[1]) * g**2
    mean, square = kept["s"] / (1 - betas[0] ** n), kept["t"] / (1 - betas[1] ** n)
    return w - lr * mean / (np.sqrt(square) + eps)


def adamw(*args, weight_decay=0.01, **constants):
    return adam(*args, weight_decay=weight_decay, decoupled=True, **constants)


def rmsprop(w, g, kept, n, lr, alpha=0.99, eps=1e-8, momentum=0.0, weight_decay=0.0):
    g = g + weight_decay * w
    kept["t"] = alpha * kept.get("t", 0.0) + (1 - alpha) * g**2
    kept["s"] = momentum * kept.get("s", 0.0) + g / (np.sqrt(kept["t"]) + eps)
    return w - lr * kept["s"]


VARIANTS = [
    (fs.SGD, sgd, 0.02, {}),
    (fs.SGD, sgd, 0.02, {"momentum": 0.9}),
    (fs.SGD, sgd, 0.02, {"momentum": 0.8, "nesterov": True}),
    (fs.SGD, sgd, 0.02, {"weight_decay": 0.1}),
    (fs.SGD, sgd, 0.02, {"momentum": 0.5, "nesterov": True, "weight_decay": 0.3}),
    (fs.Adam, adam, 0.01, {}),
    (fs.Adam, adam, 0.05, {"betas": (0.5, 0.25), "eps": 1e-3}),
    (fs.Adam, adam, 0.05, {"betas": (0.0, 0.9)}),
    (fs.Adam, adam, 0.01, {"weight_decay": 0.2}),
    (fs.AdamW, adamw, 0.01, {}),
    (fs.AdamW, adamw, 0.01, {"weight_decay": 0.5, "betas": (0.8, 0.99)}),
    (fs.AdamW, adam, 0.01, {"weight_decay": 0.0}),
    (fs.RMSprop, rmsprop, 0.01, {}),
    (fs.RMSprop, rmsprop, 0.01, {"alpha": 0.9, "eps": 1e-3}),
    (fs.RMSprop, rmsprop, 0.003, {"momentum": 0.9}),
    (fs.RMSprop, rmsprop, 0.01, {"momentum": 0.5, "weight_decay": 0.2}),
]
variants = pytest.mark.parametrize(
    ("make", "formula", "lr", "constants"), VARIANTS, ids=lambda v: getattr(v, "__name__", str(v))
)


def clipped(g, clip_norm=None, clip_value=None):
    if clip_norm is not None:
        g = g * min(1.0, clip_norm / (math.sqrt(float(np.sum(g**2))) + 1e-6))
    return g if clip_value is None else np.clip(g, -clip_value, clip_value)


def an_array(start):
    w = fs.to_tensor(start.reshape(3, 4))
    return [w], [w]


def single_tensors(start):
    w = [fs.Tensor(v) for v in start]
    return w, [w]


def tensors_made_apart(start):
    w = []
    for v in start:
        w.append(fs.Tensor(v))
        w[-1].friend = fs.Tensor(0.0)
    return w, [w[::-1]]


def slices_and_elements(start):
    w = fs.to_tensor(np.concatenate([start, [7.0, 7.0]]).reshape(2, 7))
    return [w[0], w[1, :5]], [w[0, 0], {"columns": w[:, 1:3], "more": [w[0, 3:], w[1, 0], w[1, 3:5]]}]


def all_sorts(start):
    a, b, c = fs.to_tensor(start[:6].reshape(3, 2)), fs.Tensor(start[6]), fs.to_tensor(start[7:])
    return [a, b, c], {"c": c, "rest": [b, (a,)]}


PLACES = [an_array, single_tensors, tensors_made_apart, slices_and_elements, all_sorts]


def flat(parts, what="data"):
    return np.concatenate([np.ravel(np.asarray(getattr(p, what))) for p in parts])


def set_gradients(parts, g):
    at = 0
    for p in parts:
        n = np.size(np.asarray(p.data))
        p.grad = g[at] if isinstance(p, fs.Tensor) else g[at : at + n].reshape(p.shape)
        at += n


@variants
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("clip", [{}, {"clip_norm": 1.0}, {"clip_value": 0.3}, {"clip_norm": 2.0, "clip_value": 0.5}])
def test_a_hundred_steps_are_the_formula(make, formula, lr, constants, place, clip):
    draw = np.random.default_rng(0)
    start = draw.normal(size=12)
    parts, listed = place(start)
    optimizer = make(listed, lr=lr, **constants, **clip)
    w, kept = start, {}
    for n in range(1, STEPS + 1):
        g = draw.normal(size=12) * draw.integers(0, 2, size=12) + 0.1 * w
        set_gradients(parts, g)
        optimizer.step()
        w = formula(w, clipped(g, **clip), kept, n, lr, **constants)
        assert flat(parts, "grad").tolist() == g.tolist()
        np.testing.assert_allclose(flat(parts), w, rtol=1e-12, atol=1e-12)


@variants
def test_every_set_of_kernels_gives_the_same_bits(make, formula, lr, constants):
    results, before = [], fs.tape_info()["kernels"]
    draw = np.random.default_rng(0)
    start, gradients = draw.normal(size=37), draw.normal(size=(20, 37))
    try:
        for name in _core.kernel_sets():
            _core._select_kernels(name)
            w = fs.to_tensor(start)
            optimizer = make([w], lr=lr, clip_norm=4.0, **constants)
            for g in gradients:
                w.grad = g
                optimizer.step()
            results.append(w.tolist())
    finally:
        _core._select_kernels(before)
    assert all(r == results[0] for r in results)


def test_what_is_no_parameter_is_left_alone():
    w = fs.to_tensor(np.arange(14.0).reshape(2, 7))
    w.grad = np.ones((2, 7))
    fs.Adam([w[:, 1:3], w[1, 5]], lr=0.1).step()
    moved = w.numpy() != np.arange(14.0).reshape(2, 7)
    assert np.argwhere(moved).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2], [1, 5]]


def test_an_optimiser_of_nothing_steps():
    for make in (fs.SGD, fs.Adam, fs.AdamW, fs.RMSprop):
        make([], lr=0.1).step()


def test_a_parameter_that_is_infinite_stays_so_and_harms_no_other():
    for make in (fs.SGD, fs.Adam, fs.AdamW, fs.RMSprop):
        w = fs.to_tensor([math.inf, 1.0])
        w.grad = [0.0, 1.0]
        make([w], lr=0.1).step()
        assert w.data[0] == math.inf
        assert w.data[1] < 1.0


def test_rows_that_no_gradient_reached_move_by_what_is_known_of_them():
    for make, _, lr, constants in VARIANTS:
        w = fs.to_tensor([[1.0, 1.0], [2.0, 2.0]])
        optimizer = make([w], lr=lr, **constants)
        for row in (0, 1):
            before = w.numpy()
            optimizer.zero_grad()
            (w[row] * w[row]).sum().backward()
            optimizer.step()
        keeps = constants.get("momentum") or constants.get("weight_decay") or (
            make in (fs.Adam, fs.AdamW) and constants.get("betas", (1,))[0] and constants.get("weight_decay") != 0.0)
        moved = (w.numpy()[0] != before[0]).all()
        assert moved == bool(keeps or (make is fs.AdamW)), (make, constants)


# --- state ------------------------------------------------------------------------------------------------------------


def run(optimizer, w, rows, seed=0):
    draw = np.random.default_rng(seed)
    targets = draw.normal(size=(STEPS, 5))
    for t in targets[rows]:
        optimizer.zero_grad()
        fs.squared_loss(w * w, t).backward()
        optimizer.step()


def saved_in_a_file(optimizer, make, w, tmp_path):
    np.savez(tmp_path / "state.npz", **optimizer.state_dict())
    new = make(w)
    with np.load(tmp_path / "state.npz") as state:
        new.load_state_dict(state)
    return w, new


WAYS = {
    "state_dict": lambda o, make, w, _: (w, (n := make(w), n.load_state_dict(o.state_dict()))[0]),
    "npz": saved_in_a_file,
    "pickle": lambda o, make, w, _: pickle.loads(pickle.dumps((w, o))),
    "deepcopy": lambda o, make, w, _: copy.deepcopy((w, o)),
}


@variants
@pytest.mark.parametrize("way", WAYS)
def test_a_state_that_is_saved_goes_on_to_the_bit(make, formula, lr, constants, way, tmp_path):
    start = np.random.default_rng(1).normal(size=5)
    whole, parts = fs.to_tensor(start), fs.to_tensor(start)
    build = lambda w: make([w], lr=lr, **constants)
    optimizer, other = build(whole), build(parts)
    run(optimizer, whole, slice(0, 60))
    run(other, parts, slice(0, 37))
    parts, other = WAYS[way](other, lambda w: make([w], lr=9.0, **constants), parts, tmp_path)
    assert other.lr == lr
    run(other, parts, slice(37, 60))
    assert parts.tolist() == whole.tolist()


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    w = fs.to_tensor([1.0, 2.0])
    optimizer = fs.Adam([w], lr=0.1)
    (w * w).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    for wrong, words in [
        ({**state, "mean": np.zeros(3)}, "mean"),
        ({**state, "square": np.zeros((2, 1))}, "square"),
        ({key: state[key] for key in ("steps", "lr", "mean")}, "square"),
        ({**state, "more": 1}, "more"),
        ({**state, "lr": math.nan}, "learning rate"),
        ({**state, "steps": -1}, "steps"),
        (fs.SGD([w], momentum=0.9).state_dict(), "momentum"),
    ]:
        with pytest.raises(ValueError, match=words):
            optimizer.load_state_dict(wrong)
        now = optimizer.state_dict()
        assert now.keys() == state.keys()
        assert all(np.array_equal(now[key], state[key]) for key in state)


def test_a_state_is_a_copy():
    w = fs.to_tensor([1.0])
    optimizer = fs.SGD([w], lr=0.1, momentum=0.9)
    state = optimizer.state_dict()
    (w * w).sum().backward()
    optimizer.step()
    assert state["momentum"].tolist() == [0.0]


def test_a_momentum_that_is_given_later_begins_with_nothing():
    w = fs.Tensor(1.0)
    optimizer = fs.SGD([w], lr=0.5)
    w.grad = 1.0
    optimizer.step()
    optimizer.momentum = 0.5
    optimizer.step()
    optimizer.step()
    assert w.data == 1.0 - 0.5 - 0.5 - 0.75


# --- clipping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("most", [0.01, 1.0, 3.0, 1e3])
def test_clipping_by_norm_and_by_value(place, most):
    g = np.random.default_rng(0).normal(size=12)
    parts, listed = place(np.zeros(12))
    set_gradients(parts, g)
    assert math.isclose(fs.optim.clip_grad_norm(listed, most), np.linalg.norm(g), rel_tol=1e-14)
    np.testing.assert_allclose(flat(parts, "grad"), clipped(g, clip_norm=most), rtol=1e-14)
    set_gradients(parts, g)
    fs.optim.clip_grad_value(listed, most)
    assert flat(parts, "grad").tolist() == np.clip(g, -most, most).tolist()


def test_clipping_leaves_rows_without_a_gradient_untouched():
    w = fs.to_tensor(np.ones((4, 2)))
    (w[1] * w[1]).sum().backward()
    w.data[1] = [math.inf, 1.0]
    fs.optim.clip_grad_norm([w], 1.0)
    assert np.asarray(w.grad)[[0, 2, 3]].tolist() == [[0.0, 0.0]] * 3
    fs.SGD([w], lr=1.0).step()
    assert w.numpy()[[0, 2, 3]].tolist() == [[1.0, 1.0]] * 3


def test_gradients_that_are_not_finite_are_not_hidden_by_clipping():
    for value in (math.nan, math.inf):
        a, b = fs.Tensor(1.0), fs.Tensor(1.0)
        a.grad, b.grad = value, 1.0
        norm = fs.optim.clip_grad_norm([a, b], 1.0)
        assert not math.isfinite(norm)
        assert not math.isfinite(a.grad) or not math.isfinite(b.grad)


@pytest.mark.parametrize("clip", [fs.optim.clip_grad_norm, fs.optim.clip_grad_value])
@pytest.mark.parametrize("most", [0, -1.0, math.nan, math.inf, "1", True])
def test_a_bound_is_a_number_above_zero(clip, most):
    with pytest.raises(ValueError, match="above 0"):
        clip([fs.Tensor(1.0)], most)


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        *itertools.product([fs.SGD, fs.Adam, fs.AdamW, fs.RMSprop], [
            {"weight_decay": -0.1}, {"weight_decay": math.nan}, {"clip_norm": 0.0}, {"clip_value": -1}, {"lr": 0.0},
        ]),
        (fs.SGD, {"momentum": 1.0}), (fs.SGD, {"momentum": -0.1}), (fs.SGD, {"nesterov": True}),
        (fs.RMSprop, {"alpha": 1.0}), (fs.RMSprop, {"eps": 0.0}), (fs.RMSprop, {"momentum": 2}),
        (fs.Adam, {"betas": (0.9, 1.0)}), (fs.AdamW, {"betas": 0.9}), (fs.Adam, {"eps": -1e-8}),
    ],
    ids=str,
)  # fmt: skip
def test_an_argument_that_is_none_names_the_optimiser(make, arguments):
    with pytest.raises(ValueError, match=make.__name__):
        make(**arguments)


def test_an_optimiser_shows_what_it_was_given():
    assert repr(fs.SGD(lr=0.1)) == "SGD(lr=0.1)"
    assert repr(fs.SGD(momentum=0.9, nesterov=True)) == "SGD(lr=0.02, momentum=0.9, nesterov=True)"
    assert repr(fs.Adam(clip_norm=1.0)) == "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, clip_norm=1.0)"
    assert repr(fs.AdamW()) == "AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)"
    assert repr(fs.RMSprop(weight_decay=0.1)) == "RMSprop(lr=0.01, alpha=0.99, eps=1e-08, weight_decay=0.1)"


@pytest.mark.parametrize("make", [fs.SGD, fs.Adam, fs.AdamW, fs.RMSprop])
def test_fit_takes_them_all(make):
    draw = np.random.default_rng(0)
    X = draw.normal(size=(60, 3))
    net = fs.MLP(3, [8, 2], seed=0)
    before = [p.numpy() for p in flatten_parameters(net.parameters(), [])]
    history = fs.fit(net, X, (X[:, 0] > 0).astype(int), optimizer=make(lr=0.02, weight_decay=0.01), progress=False)
    assert history.loss[-1] < history.loss[0]
    assert all((p.numpy() != b).any() for p, b in zip(flatten_parameters(net.parameters(), []), before, strict=True))
