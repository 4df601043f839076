"""Pictures of data, nets and runs, as matplotlib Figures (`pip install 'fastscalar[plot]'`).

A notebook shows a Figure; `figure.savefig("a.png")` keeps it.  Nothing is shown or kept open otherwise, and matplotlib
is imported when a picture is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastscalar.nn.evaluation import predict_proba
from fastscalar.nn.pictures import curves, new_figure

__all__ = ["confusion", "curves", "images", "mistakes", "most_confident_mistakes", "weights"]

Array = np.ndarray[Any, Any]


def images(X: Any, labels: Any = None, *, names: Sequence[str] | None = None, columns: int = 10) -> Any:
    """Images side by side, with what they show above them: the article's first look at MNIST.

    X: (n, height, width), or rows of n squares.  labels: n numbers or texts; names: what the numbers are called;
    columns: images in a line.
    """
    X = _squares(X)
    if labels is not None and len(labels) != len(X):
        raise ValueError(f"images: {len(X)} images but {len(labels)} labels")
    titles = None if labels is None else [_called(label, names) for label in labels]
    return _grid(X, titles, columns)


def confusion(y: Any, predicted: Any, *, names: Sequence[str] | None = None) -> Any:
    """What was taken for what: a row for each true class, a column for each that it was taken for, in numbers.

    y, predicted: n whole numbers, as labels and as `fs.predict` gives them; names: what they are called.
    """
    counts = counts_of(y, predicted, 0 if names is None else len(names))
    n = len(counts)
    figure = new_figure(figsize=(max(4.0, 0.45 * n + 1.2),) * 2, layout="constrained")
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0.0, vmax=1.0)  # a root: mistakes are few
    for i, j in np.argwhere(counts):
        axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", fontsize=8,
                  color="white" if shares[i, j] > 0.4 else "black")
    ticks = [_called(k, names) for k in range(n)]
    axes.set(xlabel="taken for", ylabel="true", xticks=range(n), yticks=range(n), xticklabels=ticks, yticklabels=ticks)
    if max(map(len, ticks), default=0) > 2:
        axes.tick_params(axis="x", labelrotation=90)
    return figure


def counts_of(y: Any, predicted: Any, classes: int = 0) -> Array:
    """(k, k): how often the class of the row was taken for that of the column.

    >>> counts_of([0, 1, 1], [0, 1, 0])
    array([[1, 0],
           [1, 1]])
    """
    true, found = np.asarray(y), np.asarray(predicted)
    if true.shape != found.shape or true.ndim != 1 or {true.dtype.kind, found.dtype.kind} - set("iub"):
        kinds = f"{true.dtype} of {true.shape} and {found.dtype} of {found.shape}"
        raise ValueError(f"confusion: expected labels and predictions, whole numbers of shape (n,); got {kinds}")
    size = max(classes, 1 + int(max(true.max(initial=0), found.max(initial=0))))
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (true.astype(int), found.astype(int)), 1)
    return counts


def mistakes(net: Any, X: Any, y: Any, *, n: int = 20, names: Sequence[str] | None = None, columns: int = 10) -> Any:
    """The images of which the net was most certain, and wrong: what it said, how certain, and what was right.

    X, y: as for `fs.evaluate`, n: how many images at most; names, columns: as in `images`."""
    rows, found, certain = most_confident_mistakes(predict_proba(net, X), y, n)
    titles = [
        f"{_called(said, names)}, {100 * p:.0f} %\n{_called(np.asarray(y)[row], names)}"
        for row, said, p in zip(rows, found, certain, strict=True)
    ]
    return _grid(_squares(X)[rows], titles, columns)


def most_confident_mistakes(probabilities: Any, y: Any, n: int) -> tuple[Array, Array, Array]:
    """Rows, what was said there, and its probability; the most certain first.

    probabilities: (rows, classes); y: the right classes; n: how many at most.

    >>> most_confident_mistakes([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [1, 1, 1], 5)[0]
    array([0, 2])
    """
    p, y = np.asarray(probabilities), np.asarray(y)
    said, certain = p.argmax(axis=1), p.max(axis=1)
    wrong = np.flatnonzero(said != y)
    rows = wrong[np.argsort(-certain[wrong], kind="stable")][:n]
    return rows, said[rows], certain[rows]


def weights(net: Any, *, n: int = 40, columns: int = 10) -> Any:
    """The weights of the first layer of `net`, as an image for each of its first n outputs, `columns` of them in a
    line: red adds, blue takes away."""
    first = next((p for p in _arrays(net.parameters()) if len(p.shape) == 2), None)
    if first is None or math.isqrt(first.shape[0]) ** 2 != first.shape[0]:
        shape = None if first is None else first.shape
        raise ValueError(f"weights: expected a first layer whose inputs are the pixels of a square; found {shape}")
    return _grid(_squares(first.numpy().T[:n]), None, columns, signed=True)


def _arrays(nested: Any) -> list[Any]:
    if isinstance(nested, (list, tuple)):
        return [p for entry in nested for p in _arrays(entry)]
    return [nested] if hasattr(nested, "shape") and hasattr(nested, "numpy") else []


def _called(label: Any, names: Sequence[str] | None) -> str:
    return str(label) if names is None else names[int(label)]


def _squares(X: Any) -> Array:
    X = np.asarray(X)
    if X.ndim == 2 and math.isqrt(X.shape[1]) ** 2 == X.shape[1]:
        X = X.reshape(len(X), math.isqrt(X.shape[1]), -1)
    if X.ndim != 3:
        raise ValueError(f"expected images of shape (n, height, width), or rows of squares, got {X.shape}")
    return X


def _grid(X: Array, titles: list[str] | None, columns: int, signed: bool = False) -> Any:
    if columns < 1:
        raise ValueError(f"columns: expected a whole number of at least 1, got {columns!r}")
    columns = max(1, min(columns, len(X)))
    rows = max(1, -(-len(X) // columns))
    tall = 1.0 if titles is None else 1.45
    figure = new_figure(figsize=(1.0 * columns, tall * rows), layout="constrained")
    for k, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if k >= len(X):
            continue
        if signed:
            most = float(abs(X[k]).max()) or 1.0
            axes.imshow(X[k], cmap="RdBu_r", vmin=-most, vmax=most)
        else:
            axes.imshow(X[k], cmap="gray_r", vmin=0)
        if titles is not None:
            axes.set_title(titles[k], fontsize=8)
    return figure
