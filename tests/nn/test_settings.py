"""Every number that a user sets: what is none, or beyond its limits, is one ValueError or TypeError that says which one
it was, what was expected, and what came; whatever holds a number of the right kind is one."""

from __future__ import annotations

import pathlib
import tempfile
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import fastscalar as fs

X = np.array([[0.5, 1.0], [1.0, -0.5], [0.0, 1.0], [2.0, 0.25]])
Y = np.array([0, 1, 0, 1])


IMAGES = np.zeros((1, 4, 4))
PICTURE = np.full((300, 200), 0.9)
PICTURE[40:160, 50:70] = 0.2


def SQUARE(x: Any) -> Any:
    return x * x


def seed(value: Any) -> None:
    try:
        fs.random.seed(value)
    finally:
        fs.random.seed(0)                        # as at first


def stream(row: Any) -> None:
    with fs.random.stream(seed=0, row=row):
        pass


def load(max_bytes: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "idx")
        fs.datasets.save_idx(path, np.zeros(0, np.uint8))
        return fs.datasets.load_idx(path, max_bytes=max_bytes)


def fit(**more: Any) -> Any:
    return fs.fit(fs.MLP(2, [2], seed=0), X, Y, **{"epochs": 1, "progress": False, **more})


class Looking:
    def __init__(self, every: Any) -> None:
        self.every = every

    def on_samples(self, *_: Any) -> None: ...




NUMBERS: dict[str, tuple[Any, str]] = {
    **{f"{kind.__name__}: {name}": (lambda v, k=kind, n=name: k([fs.Tensor(1.0)], **{n: v}), limits)
       for kind in (fs.SGD, fs.Adam, fs.AdamW, fs.RMSprop)
       for name, limits in (("lr", "above 0"), ("weight_decay", "from 0 on"), ("clip_norm", "above 0"),
                            ("clip_value", "above 0"))},
    "SGD: momentum": (lambda v: fs.SGD(momentum=v), "in [0, 1)"),
    "RMSprop: momentum": (lambda v: fs.RMSprop(momentum=v), "in [0, 1)"),
    "RMSprop: alpha": (lambda v: fs.RMSprop(alpha=v), "in [0, 1)"),
    "RMSprop: eps": (lambda v: fs.RMSprop(eps=v), "above 0"),
    "Adam: betas": (lambda v: fs.Adam(betas=(0.5, v)), "in [0, 1)"),
    "AdamW: betas": (lambda v: fs.AdamW(betas=[v, 0.5]), "in [0, 1)"),
    "Adam: eps": (lambda v: fs.Adam(eps=v), "above 0"),
    "LayerNorm: eps": (lambda v: fs.nn.LayerNorm(2, eps=v), "above 0"),
    "Dropout: p": (fs.nn.Dropout, "in [0, 1)"),
    "EarlyStopping: min_delta": (lambda v: fs.EarlyStopping(min_delta=v), "from 0 on"),
    "clip_grad_norm: max_norm": (lambda v: fs.optim.clip_grad_norm([fs.Tensor(1.0)], v), "above 0"),
    "clip_grad_value: max_value": (lambda v: fs.optim.clip_grad_value([fs.Tensor(1.0)], v), "above 0"),
    "huber_loss: delta": (lambda v: fs.huber_loss(fs.Tensor(1.0), 0.0, delta=v), "above 0"),
    "cross_entropy: label_smoothing": (
        lambda v: fs.cross_entropy([fs.Tensor(1.0)] * 2, 0, label_smoothing=v), "from 0 to 1"
    ),
    "gradcheck: step": (lambda v: fs.gradcheck(SQUARE, 1.0, step=v), "above 0"),
    "gradcheck: rtol": (lambda v: fs.gradcheck(SQUARE, 1.0, rtol=v), "from 0 on"),
    "gradcheck: atol": (lambda v: fs.gradcheck(SQUARE, 1.0, atol=v), "from 0 on"),
    "implicit: tolerance": (lambda v: fs.implicit(SQUARE, tolerance=v), "above 0"),
    "bernoulli: p": (fs.random.bernoulli, "from 0 to 1"),
    "augment: shift": (lambda v: fs.datasets.augment(IMAGES, shift=v), "from 0 on"),
    "augment: rotation": (lambda v: fs.datasets.augment(IMAGES, rotation=v), "from 0 on"),
    "augment: scale": (lambda v: fs.datasets.augment(IMAGES, scale=v), "from 0 on"),
    "sgd: lr": (lambda v: fs.sgd([fs.Tensor(1.0)], v), "any"),
    "class_weight: of label 1": (lambda v: fit(class_weight={0: 1.0, 1: v}), "from 0 on"),
}  # fmt: skip
UNSET = ("clip_norm", "clip_value")              # None leaves them out
COUNTS: dict[str, tuple[Any, int]] = {
    "fit: epochs": (lambda v: fit(epochs=v), 1),
    "fit: batch_size": (lambda v: fit(batch_size=v), 1),
    "fit: first_epoch": (lambda v: fit(epochs=3, first_epoch=v), 1),
    "fit: threads": (lambda v: fit(threads=v, batch_size=4), 1),
    "fit: seed": (lambda v: fit(seed=v), 0),
    "Looking.every": (lambda v: fit(callbacks=[Looking(v)]), 1),
    "Linear: in_features": (lambda v: fs.Linear(v, 2), 1),
    "Linear: out_features": (lambda v: fs.Linear(2, v), 1),
    "Linear: out_features ": (lambda v: fs.MLP(2, [3, v]), 1),
    "LayerNorm: features": (fs.nn.LayerNorm, 1),
    "Embedding: count": (lambda v: fs.nn.Embedding(v, 2), 1),
    "Embedding: features": (lambda v: fs.nn.Embedding(2, v), 1),
    "Conv2d: in_channels": (lambda v: fs.nn.Conv2d(v, 2, 3), 1),
    "Conv2d: out_channels": (lambda v: fs.nn.Conv2d(2, v, 3), 1),
    "Conv2d: kernel_size": (lambda v: fs.nn.Conv2d(2, 2, v), 1),
    "Conv2d: kernel_size ": (lambda v: fs.nn.Conv2d(2, 2, (v, 1)), 1),
    "Conv2d: stride": (lambda v: fs.nn.Conv2d(2, 2, 3, stride=v), 1),
    "Conv2d: padding": (lambda v: fs.nn.Conv2d(2, 2, 3, padding=v), 0),
    "MaxPool2d: kernel_size": (fs.nn.MaxPool2d, 1),
    "MaxPool2d: stride": (lambda v: fs.nn.MaxPool2d(2, stride=v), 1),
    "Reshape: shape": (lambda v: fs.nn.Reshape(2, v), 1),
    "Flatten: of": (fs.nn.Flatten, 1),
    "EarlyStopping: patience": (fs.EarlyStopping, 1),
    "augment: seed": (lambda v: fs.datasets.augment(IMAGES, v), 0),
    "load_idx: max_bytes": (load, 0),
    "n_train": (lambda v: fs.datasets.synthetic_digits(v, 1), 0),
    "n_test": (lambda v: fs.datasets.synthetic_digits(1, v), 0),
    "seed": (lambda v: fs.datasets.synthetic_digits(1, 1, v), 0),
    "cut_out: side": (lambda v: fs.datasets.cut_out(PICTURE, side=v), 1),
    "to_dot: max_nodes": (lambda v: fs.debug.to_dot(fs.Tensor(1.0) * 2, max_nodes=v), 1),
    "draw: max_nodes": (lambda v: fs.debug.draw(fs.Tensor(1.0) * 2, max_nodes=v), 1),
    "argnums": (lambda v: fs.grad(lambda x, y: x * y, argnums=v)(1.0, 2.0), -2),
    "seed ": (seed, 0),
    "row": (stream, 0),
    "threads": (lambda v: fs.compile(SQUARE).map(np.ones(3), threads=v), 1),
    "row_offset": (lambda v: fs.compile(SQUARE).map(np.ones(3), seed=0, row_offset=v), 0),
}
MAY_BE_NONE = ("fit: seed", "MaxPool2d: stride", "augment: seed", "load_idx: max_bytes")
MAY_BE_MORE = ("fit: seed", "augment: seed", "Conv2d: kernel_size", "MaxPool2d: kernel_size")
MAY_BE_TRUE = ("fit: seed", "augment: seed", "seed ", "row", "row_offset")   # as NumPy's
TABLES = (np.zeros((2, 2)), np.array([[1]]))
NO_NUMBERS = (*TABLES, "a", "", b"1", [0.5], (0.5,), {}, object(), 1j, np.array([0.5]), float("nan"), True,
              np.complex64(0.5), print, np.array("a"), np.bool_(True))  # fmt: skip
BELOW = {"any": "b", "above 0": 0, "from 0 on": -1e-9, "in [0, 1)": -0.5, "from 0 to 1": -1e-300}
ABOVE = {"any": "b", "above 0": -float("inf"), "from 0 on": 10**400, "in [0, 1)": 1, "from 0 to 1": 1.5}


def refuses(make: Any, name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        make(value)
    words = str(caught.value)
    assert name.strip() in words, words
    assert "expected" in words or "called with" in words, words
    assert "\n" not in words, words
    assert len(words) < 500, words


@pytest.mark.parametrize("name", NUMBERS)
def test_a_setting_that_is_no_number_or_beyond_its_limits_is_named(name: str) -> None:
    make, limits = NUMBERS[name]
    none = () if name.endswith(UNSET) else (None,)
    wrong = [v for v in NO_NUMBERS if limits != "any" or not isinstance(v, float)]   # NaN is a number
    for value in (*wrong, *none, BELOW[limits], ABOVE[limits]):
        refuses(make, name, value)


@pytest.mark.parametrize("name", NUMBERS)
def test_whatever_holds_a_real_number_is_a_setting(name: str) -> None:
    make, _ = NUMBERS[name]
    for value in (0.5, np.float32(0.5), np.float64(0.5), Fraction(1, 2), np.array(0.5)):
        make(value)


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_that_is_no_whole_number_or_too_small_is_named(name: str) -> None:
    make, least = COUNTS[name]
    values: list[Any] = [*NO_NUMBERS, None, 0.5, least - 1, -(10**400)]
    if name in MAY_BE_NONE:
        values = [v for v in values if v is not None]
    if name in MAY_BE_MORE:
        values = [v for v in values if not isinstance(v, (list, tuple, np.ndarray))]
    if name in MAY_BE_TRUE:
        values = [v for v in values if not isinstance(v, (bool, np.bool_))]
    for value in values:
        refuses(make, name.removeprefix("fit: ") if name == "fit: seed" else name, value)


@pytest.mark.parametrize("name", ["Conv2d: kernel_size", "Conv2d: stride", "Conv2d: padding", "MaxPool2d: kernel_size",
                                  "MaxPool2d: stride", "LayerNorm: features", "cut_out: side"])  # fmt: skip
def test_a_count_beyond_what_the_engine_counts_is_named(name: str) -> None:
    make, _ = COUNTS[name]
    for value in (2**31, 2**63, 2**70):
        refuses(make, name, value)


@pytest.mark.parametrize("name", COUNTS)
def test_whatever_holds_a_whole_number_is_a_count(name: str) -> None:
    make, _ = COUNTS[name]
    for value in (1, np.int8(1), np.uint64(1), np.array(1)):
        make(value)


def test_a_batch_larger_than_any_data_has_all_of_it() -> None:
    whole = fit(batch_size=4).epochs[-1].loss
    for size in (5, 2**31 - 1, 2**31, 2**70):
        for compile in (True, False):
            assert fit(batch_size=size, compile=compile).epochs[-1].loss == pytest.approx(whole, rel=1e-14)


@pytest.mark.parametrize("given", ["heavy", 2, 2.0, np.int64(3), np.array(2.0), np.ones((2, 2)), object()])
def test_weights_of_classes_that_are_none_are_named(given: Any) -> None:
    with pytest.raises(ValueError, match="class_weight: expected numbers by label"):
        fit(class_weight=given)


@pytest.mark.parametrize("given", [[1.0], np.array([1.0]), {0: 1.0}, (2.0,)])
def test_a_label_without_a_weight_is_named(given: Any) -> None:
    with pytest.raises(ValueError, match="class_weight: none for the label 1"):
        fit(class_weight=given)


@pytest.mark.parametrize("given", [[1.0, 2.0], np.array([1.0, 2.0])])
def test_the_last_of_a_list_is_not_the_weight_of_label_minus_one(given: Any) -> None:
    with pytest.raises(ValueError, match="class_weight: none for the label -1"):
        fs.fit(fs.MLP(2, [1], seed=0), X, np.array([1, -1, 1, -1]), loss="mse", class_weight=given, progress=False)


def test_a_checkpoint_knows_seeds_that_are_whole_numbers(tmp_path: pathlib.Path) -> None:
    for wrong in ([1, 2], np.random.SeedSequence(3), np.random.default_rng(3), "a", -1):
        with pytest.raises(ValueError, match="fit: seed: expected a whole number from 0 on with a checkpoint"):
            fit(seed=wrong, checkpoint=tmp_path / "run.npz")
    for right in (0, np.uint8(3), np.array(3), None):
        fit(seed=right, checkpoint=tmp_path / f"{right}.npz")
        assert fit(seed=right, checkpoint=tmp_path / f"{right}.npz").epochs


def test_what_is_no_function_or_no_path_is_said_before_an_epoch() -> None:
    for name, wrong, words in (("on_epoch", 3, "fit: on_epoch: expected a function"),
                               ("checkpoint", 3, "fit: checkpoint: expected the path"),
                               ("checkpoint", [], "fit: checkpoint: expected the path"),
                               ("augment", 3, "fit: augment: expected a function")):  # fmt: skip
        seen: list[Any] = []
        with pytest.raises(TypeError, match=words):
            fit(**{"callbacks": [seen.append], name: wrong})
        assert not seen, name


@pytest.mark.parametrize("make", [lambda s: fs.MLP(2, [2], seed=s), lambda s: fs.nn.Embedding(2, 2, seed=s),
                                  lambda s: fs.nn.Conv2d(1, 1, 1, seed=s)])  # fmt: skip
def test_a_seed_of_weights_that_is_none_is_named(make: Any) -> None:
    for wrong in ([1], {}, 1j, object()):
        with pytest.raises(TypeError, match="seed: expected a whole number"):
            make(wrong)


def test_a_number_with_more_digits_than_python_writes_is_a_wrong_one_as_well() -> None:
    with pytest.raises(ValueError, match="fit: epochs: expected a whole number of at least 1, got something"):
        fit(epochs=-(10**5000))

# --- arrays ---

NO_ARRAYS: dict[str, Any] = {
    "complex": np.ones(3) * 1j,
    "a list with complex": [1j, 2, 3],
    "texts": np.array(["1", "2", "3"]),
    "with None": [None, 1, 2],
    "objects": np.array([None, 1, 2], object),
    "dates": np.array(["2020", "2021", "2022"], "M8[Y]"),
    "Decimals": np.array([Decimal(1)] * 3),
    "bytes": np.array([b"1"] * 3),
}
A = fs.to_tensor([1.0, 2.0, 3.0])
NET = fs.MLP(3, [2], seed=0)
TABLE = np.ones((3, 3))
TAKERS: dict[str, Any] = {
    "map": fs.compile(SQUARE).map,
    "value_and_grad": fs.compile(SQUARE).value_and_grad,
    "a program's row": lambda x: fs.compile(lambda v: v[0] * v[1])(np.asarray(x)[:2]),
    "a program's dictionary": lambda x: fs.compile(lambda d: d["a"] * 2).map({"a": x}),
    "to_tensor": fs.to_tensor,
    "+": lambda x: A + x,
    "np.add": lambda x: np.add(A, x),
    "np.dot": lambda x: np.dot(A, x),
    "np.where": lambda x: np.where([True, False, True], A, x),
    "np.concatenate": lambda x: np.concatenate([A, np.asarray(x)]),
    "np.interp": lambda x: np.interp(A, [0.0, 1.0, 2.0], x),
    "np.interp by": lambda x: np.interp(A, x, [0.0, 1.0, 2.0]),
    ".data": lambda x: setattr(A.copy(), "data", x),
    ".grad": lambda x: setattr(A.copy(), "grad", x),
    "grad": lambda x: fs.grad(lambda v: np.sum(v * v))(np.asarray(x)),
    "evaluate": lambda x: fs.evaluate(NET, TABLE, x),
    "predict": lambda x: fs.predict(NET, np.asarray(x)[None]),
    "a net": NET,
    "mse_loss": lambda x: fs.mse_loss(A, x),
    "sample_weight": lambda x: fs.fit(NET, TABLE, Y[:3], sample_weight=x, epochs=1, progress=False),
    "targets": lambda x: fs.fit(fs.MLP(3, [1], seed=0), TABLE, x, loss="mse", epochs=1, progress=False),
    "load_state_dict": lambda x: fs.nn.LayerNorm(3).load_state_dict({"w": x, "b": np.zeros(3)}),
    "EarlyStopping": lambda x: stopping().load_state_dict({"best": 1, "value": 0.5, "optimizer": None, "weights": x}),
    "an optimiser's state": lambda x: MOVING.load_state_dict({**MOVING.state_dict(), "momentum": x}),
}  # fmt: skip


def stopping() -> Any:
    """One inside a run of three parameters."""
    found = fs.EarlyStopping(monitor="loss")
    found._optimizer = MOVING
    return found


MOVING = fs.SGD([fs.to_tensor([1.0, 2.0, 3.0])], momentum=0.5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", NO_ARRAYS.values(), ids=NO_ARRAYS)
@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_what_is_no_array_of_real_numbers_is_taken_by_nothing(take: Any, given: Any) -> None:
    """NumPy drops imaginary parts with a warning, reads texts, and makes NaN of None."""
    with pytest.raises((TypeError, ValueError)):
        take(given)


@pytest.mark.parametrize("state", [None, [1], 3, "a"])
@pytest.mark.parametrize("take", [NET.load_state_dict, MOVING.load_state_dict], ids=["a net", "an optimiser"])
def test_what_is_no_state_is_said(take: Any, state: Any) -> None:
    with pytest.raises(TypeError, match="load_state_dict: expected a dictionary"):
        take(state)


def test_a_state_may_be_of_tensors() -> None:
    layer = fs.nn.LayerNorm(3)
    layer.load_state_dict({"w": A, "b": [fs.Tensor(1.0), 2.0, 3]})
    np.testing.assert_array_equal(layer.w.numpy(), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(layer.b.numpy(), [1.0, 2.0, 3.0])
