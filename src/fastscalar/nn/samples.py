"""The samples that fit, evaluate and predict are given: arrays, and errors that say what is wrong with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastscalar._settings import real_number, shown
from fastscalar._warnings import warn
from fastscalar.nn.module import Module
from fastscalar.nn.parameters import array_of

SCALE = "images need scaling to 0..1 first: X / 255; pixels as they are: X.astype(float)"
PIXELS = 49  # columns, at least, of what is taken for images
MEANT = 5e-7  # a learning rate up to this is one for pixels as they are: 1e-8 and 1e-7 in the article


def table_of(X: Any, y: np.ndarray | None = None, lr: float = 1.0, net: Any = None) -> np.ndarray:
    """X as floats of shape (n, in_features), n at least 1; ValueError says what is wrong with it.

    net: if it is a Module that takes other rows, they may have any shape; whole numbers if it looks things up."""
    X = numbers_of(X, "X", None if y is None else y.shape[:1])
    any_shape = isinstance(net, Module) and not net.takes_tables
    if any_shape and any(module.takes_indices for module in net.modules()) and X.dtype.kind in "iu" and X.ndim:
        if not len(X):
            raise ValueError("X is empty")
        return X
    if X.ndim != 2 and not (any_shape and X.ndim > 2):
        raise ValueError(f"X: expected an array of shape (n, in_features), got {X.shape}; X.reshape(len(X), -1)?")
    if X.dtype.kind in "iub":
        kind = f"X: got an array of {X.dtype}"
        if looks_like_images(X):
            raise ValueError(f"{kind}; {SCALE}")
        raise ValueError(f"{kind}; expected floats: X.astype(float)")
    if not len(X):
        raise ValueError("X is empty")
    if lr > MEANT and looks_like_images(X):
        warn("X looks like images of 0..255; nets learn from numbers around 0..1: X / 255", UserWarning)
    return X


def samples_of(X: Any, y: Any, lr: float = 1.0, net: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """X as such a table, and as many labels or targets; a net that learns at the rate lr will see them."""
    y = labels_of(y)
    X = table_of(X, y, lr, net)
    if y.shape[:1] != X.shape[:1]:
        raise ValueError(f"X has {len(X)} rows but y has shape {y.shape}")
    return X, y


def rows_of(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The same for a program, whose rows may have any shape."""
    y = labels_of(y)
    X = numbers_of(X, "X", y.shape[:1])
    if X.ndim == 0 or y.shape[:1] != X.shape[:1]:
        raise ValueError(f"X of shape {X.shape} and y of shape {y.shape}: expected as many rows in both")
    if X.ndim > 1 and X.dtype == np.uint8:       # other whole numbers may be indices
        raise ValueError(f"X: got an array of {X.dtype}; {SCALE}")
    if not len(X):
        raise ValueError("X is empty")
    return X, y


def weights_of(sample_weight: Any, class_weight: Any, y: np.ndarray) -> np.ndarray | None:
    """What the loss of each sample is multiplied by, float64; None if nothing was asked for."""
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(len(y))
    if sample_weight is not None:
        weights = numbers_of(sample_weight, "sample_weight", None).astype(float)
        if weights.shape != (len(y),):
            raise ValueError(f"sample_weight: expected {len(y)} numbers, one a sample, got shape {weights.shape}")
    if class_weight is not None:
        weights = weights * _of_classes(class_weight, y)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        wrong = int(np.argmin(np.isfinite(weights) & (weights >= 0)))
        raise ValueError(f"sample_weight: expected numbers from 0 on, got {weights[wrong]} for row {wrong}")
    if not weights.any():
        raise ValueError("sample_weight: all weights are 0, nothing to train")
    return weights


def _of_classes(class_weight: Any, y: np.ndarray) -> np.ndarray:
    if y.ndim != 1 or not (y == np.trunc(y)).all():
        raise ValueError(f"class_weight: expected whole numbers of shape (n,) as labels, got {y.dtype} of {y.shape}")
    labels, place, counts = np.unique(y, return_inverse=True, return_counts=True)
    if isinstance(class_weight, str) and class_weight == "balanced":
        return np.asarray((len(y) / (len(labels) * counts))[place])
    one = isinstance(class_weight, (str, np.generic)) or not hasattr(class_weight, "__getitem__")
    if one or (isinstance(class_weight, np.ndarray) and class_weight.ndim != 1):
        raise ValueError(f'class_weight: expected numbers by label, or "balanced", got {shown(class_weight)}')
    by_place = isinstance(class_weight, (Sequence, np.ndarray))
    weights = []
    for label in map(int, labels):
        try:
            if by_place and label < 0:           # a list's last is not of label -1
                raise IndexError(label)
            weight = class_weight[label]
        except (KeyError, IndexError):
            raise ValueError(f"class_weight: none for the label {label}") from None
        weights.append(real_number(f"class_weight: of label {label}", weight, "from 0 on"))
    return np.array(weights)[place]


def numbers_of(X: Any, name: str, rows: tuple[int, ...] | None) -> np.ndarray:
    """An array of real numbers.  rows: how many are expected, (n,), to tell a list of columns from one of rows."""
    array = array_of(X, name)
    if array.ndim == 2 and rows == array.shape[1:] and rows != array.shape[:1] and isinstance(X, (list, tuple)):
        raise ValueError(
            f"{name} is a list of {len(X)} columns of {rows[0]} numbers; "
            f"np.column_stack({name}) makes the table that has them as columns"
        )
    if array.dtype.kind == "O" and array.ndim == 2:
        for k, column in enumerate(array.T):
            wrong = next((v for v in column if isinstance(v, (str, bytes)) or v is None), "")
            if wrong != "":
                raise ValueError(f"{name}: expected floats; column {k} has {type(wrong).__name__}: {short(wrong)}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name}: expected an array of floats, got {array.dtype}")
    return array


def labels_of(y: Any) -> np.ndarray:
    array = array_of(y, "y")
    texts = [v for v in array.ravel()[:1000].tolist() if isinstance(v, (str, bytes))]
    if texts:
        raise ValueError(
            f"y: the labels are strings ({short(texts[0])}, ...); number them: "
            "classes, y = np.unique(y, return_inverse=True)"
        )
    if array.dtype.kind not in "fiub":
        raise ValueError(f"y: expected whole numbers as labels, or floats as targets, got an array of {array.dtype}")
    return array


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:36] + " ..."


def looks_like_images(X: np.ndarray) -> bool:
    """Pixels of 0..255: by their type, or by their number and what the first rows hold."""
    if X.dtype == np.uint8:
        return True
    some = X[:256]
    if X.dtype.kind == "b" or math.prod(X.shape[1:]) < PIXELS or not some.size:
        return False
    return bool(some.min() >= 0 and 128 < some.max() <= 255)


def what_is_not_finite(arrays: dict[str, np.ndarray], rows: Any = None) -> str | None:
    """Where the first NaN or infinity is; rows: only among these."""
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            continue
        some = np.arange(len(array)) if rows is None else np.sort(np.asarray(rows))
        wrong = np.argwhere(~np.isfinite(array[some]))
        if len(wrong):
            row, *inside = wrong[0].tolist()
            value = array[some[row]][tuple(inside)]
            place = "" if not inside else f", column {inside[0]}" if len(inside) == 1 else f", at {tuple(inside)}"
            return f"{name} has {'NaN' if np.isnan(value) else value} at row {some[row]}{place}"
    return None
