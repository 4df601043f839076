"""Products of two arrays: each one instruction, whatever its axes."""

from __future__ import annotations

import string
from typing import Any

import numpy as np

from fastscalar._core import Tensor
from fastscalar.arrays.convert import array, as_ndarray, axes_of, binary, filled, is_array_like, shape_of, unsupported
from fastscalar.engine._array import TensorArray
from fastscalar.engine._axes import contract


def _operand(x: Any, what: str) -> Any:
    """An array or a number as `contract` takes it: arrays of numbers stay constants."""
    if isinstance(x, (TensorArray, Tensor)):
        return x
    if isinstance(x, (list, tuple)) or is_array_like(x):
        x = np.asarray(as_ndarray(x))
        if x.dtype.kind not in "fiubO":
            raise TypeError(f"{what}: expected real numbers or Tensors, got an array of {x.dtype}")
    return x


def _product(x: Any, y: Any, in_x: tuple[int, ...], in_y: tuple[int, ...], out: tuple[int, ...], what: str) -> Any:
    shape_x, shape_y = shape_of(x), shape_of(y)
    length = {**dict(zip(in_x, shape_x, strict=True)), **dict(zip(in_y, shape_y, strict=True))}
    if all(length.values()):
        return contract(x, y, in_x, in_y, out, what)
    for label, n in [*zip(in_x, shape_x, strict=True), *zip(in_y, shape_y, strict=True)]:
        if length[label] != n:
            raise ValueError(f"{what}: shapes {shape_x} and {shape_y} do not go together")
    shape = tuple(length[label] for label in out)
    return filled(shape, 0.0) if shape else Tensor(0.0)


def matmul(x: Any, y: Any, what: str = "@") -> Any:
    """x @ y: over the last axis of x and the last but one of y; axes before these are broadcast."""
    for operand in (x, y):
        if not isinstance(operand, (TensorArray, Tensor, list, tuple)) and not is_array_like(operand):
            return NotImplemented
    x, y = _operand(x, what), _operand(y, what)
    shape_x, shape_y = shape_of(x), shape_of(y)
    if not shape_x or not shape_y:
        raise ValueError(f"{what}: expected arrays, got shapes {shape_x} and {shape_y}; with a number it is *")
    batch = max(len(shape_x), len(shape_y), 2) - 2
    key_x, in_x = _batch(shape_x, shape_y, batch)
    key_y, in_y = _batch(shape_y, shape_x, batch)
    first, inner, last = 100, 101, 102
    in_x += (first, inner)[2 - min(len(shape_x), 2) :]
    in_y += (inner, last)[: min(len(shape_y), 2)]
    out = tuple(range(batch)) + (first,) * (len(shape_x) > 1) + (last,) * (len(shape_y) > 1)
    return _product(x[key_x] if key_x else x, y[key_y] if key_y else y, in_x, in_y, out, what)


def _batch(shape: tuple[int, ...], other: tuple[int, ...], batch: int) -> tuple[Any, tuple[int, ...]]:
    """What to index an operand with, so that it has no broadcast axes of length 1, and the labels of the others."""
    key: list[Any] = []
    labels: list[int] = []
    for d, n in enumerate(shape[:-2]):
        label = batch - len(shape) + 2 + d
        across = label - (batch - len(other) + 2)
        broadcast = n == 1 and 0 <= across and other[across] != 1
        key.append(0 if broadcast else slice(None))
        labels += [] if broadcast else [label]
    return (tuple(key) if 0 in key else None), tuple(labels)


def dot(x: Any, y: Any, out: Any = None) -> Any:
    """The sum over the last axis of x and the last but one of y (the only one of a vector); with a number, times it."""
    if out is not None:
        raise TypeError("dot: takes no out= for a TensorArray")
    x, y = _operand(x, "dot"), _operand(y, "dot")
    a, b = len(shape_of(x)), len(shape_of(y))
    if not a or not b:
        return x * y if isinstance(x, Tensor) and isinstance(y, Tensor) else binary("*", x, y)
    in_x, in_y = tuple(range(a)), tuple(range(a, a + b))
    summed = in_y[max(b - 2, 0)]
    in_y = tuple(in_x[-1] if label == summed else label for label in in_y)
    return _product(x, y, in_x, in_y, in_x[:-1] + tuple(label for label in in_y if label != in_x[-1]), "dot")


def vdot(x: Any, y: Any) -> Any:
    return dot(array(x, "vdot").ravel(), array(y, "vdot").ravel())


def inner(x: Any, y: Any) -> Any:
    """The sum over the last axes of both."""
    x, y = _operand(x, "inner"), _operand(y, "inner")
    a, b = len(shape_of(x)), len(shape_of(y))
    if not a or not b:
        return binary("*", x, y)
    in_x = tuple(range(a))
    in_y = (*range(a, a + b - 1), a - 1)
    return _product(x, y, in_x, in_y, in_x[:-1] + in_y[:-1], "inner")


def outer(x: Any, y: Any, out: Any = None) -> Any:
    """x[i] * y[j] of all elements."""
    x, y = array(x, "outer"), array(y, "outer")
    x = x.ravel() if isinstance(x, TensorArray) else filled((1,), x)
    y = y.ravel() if isinstance(y, TensorArray) else filled((1,), y)
    return binary("*", x[:, None], y[None, :])


def tensordot(x: Any, y: Any, axes: Any = 2) -> Any:
    """The sum over some axes of both."""
    x, y = _operand(x, "tensordot"), _operand(y, "tensordot")
    a, b = len(shape_of(x)), len(shape_of(y))
    if isinstance(axes, (tuple, list)):
        of_x, of_y = axes_of(axes[0], a, "tensordot"), axes_of(axes[1], b, "tensordot")
    else:
        of_x, of_y = tuple(range(a - axes, a)), tuple(range(axes))
    if len(of_x) != len(of_y):
        raise ValueError(f"tensordot: {len(of_x)} axes of one and {len(of_y)} of the other")
    in_x = tuple(range(a))
    in_y = tuple(of_x[of_y.index(d)] if d in of_y else a + d for d in range(b))
    out = tuple(d for d in in_x if d not in of_x) + tuple(label for label in in_y if label >= a)
    return _product(x, y, in_x, in_y, out, "tensordot")


def kron(x: Any, y: Any) -> Any:
    """The Kronecker product; of two with fewer dimensions has axes of length 1 before its own."""
    x, y = array(x, "kron"), array(y, "kron")
    n = max(len(shape_of(x)), len(shape_of(y)))
    if not n:
        return x * y
    x, y = (filled((1,) * n, t) if isinstance(t, Tensor) else t.reshape((1,) * (n - t.ndim) + t.shape) for t in (x, y))
    wide = _product(x, y, tuple(range(n)), tuple(range(n, 2 * n)), tuple(k + n * j for k in range(n) for j in range(2)),
                    "kron")  # fmt: skip
    return wide.reshape([a * b for a, b in zip(x.shape, y.shape, strict=True)])


def _without_ellipsis(text: str, arrays: list[Any]) -> tuple[str, list[Any]]:
    """Subscripts with a letter for each axis, and the arrays without those of length 1 that are broadcast."""
    terms, arrow, result = text.partition("->")
    inputs = terms.split(",")
    named = [term.replace("...", "") for term in inputs]
    counts = [len(shape_of(x)) - len(name) if "..." in term else 0
              for term, name, x in zip(inputs, named, arrays, strict=False)]  # fmt: skip
    if len(inputs) != len(arrays) or min(counts) < 0:
        raise ValueError(f"einsum: {text!r} does not fit arrays of shapes {[shape_of(x) for x in arrays]}")
    most = max(counts)
    letters = [c for c in string.ascii_letters if c not in text][:most]
    lengths = np.broadcast_shapes(*(
        shape_of(x)[term.index("...") : term.index("...") + n]
        for term, n, x in zip(inputs, counts, arrays, strict=True) if "..." in term
    ))  # fmt: skip
    for k, (term, n, x) in enumerate(zip(inputs, counts, arrays, strict=True)):
        if "..." not in term:
            continue
        at, own, kept = term.index("..."), letters[most - n :], []
        key: list[Any] = [slice(None)] * at
        for d, letter in enumerate(own):
            alone = shape_of(x)[at + d] == 1 and lengths[most - n + d] != 1
            key.append(0 if alone else slice(None))
            kept += [] if alone else [letter]
        inputs[k] = term.replace("...", "".join(kept))
        arrays[k] = x[tuple(key)] if 0 in key else x
    if arrow:
        result = result.replace("...", "".join(letters))
    else:
        result = "".join(letters) + "".join(sorted(c for c in set("".join(named)) if "".join(named).count(c) == 1))
    return ",".join(inputs) + "->" + result, arrays


def einsum(subscripts: Any, *operands: Any, **options: Any) -> Any:
    """Einstein's sum of one or two arrays, `einsum("ij,jk->ik", x, y)`; of more from left to right."""
    unsupported("einsum", {name: value for name, value in options.items() if name != "optimize"})
    if not isinstance(subscripts, str):
        raise TypeError('einsum: expected a string such as "ij,jk->ik" before the arrays')
    text = subscripts.replace(" ", "")
    arrays = [_operand(x, "einsum") for x in operands]
    if "..." in text:
        text, arrays = _without_ellipsis(text, arrays)
    terms, arrow, result = text.partition("->")
    inputs = terms.split(",")
    if not arrow:
        result = "".join(sorted(c for c in set(terms) - {","} if terms.count(c) == 1))
    if len(inputs) != len(arrays):
        raise ValueError(f"einsum: {len(inputs)} terms in {subscripts!r}, but {len(arrays)} arrays")
    for term, x in zip(inputs, arrays, strict=True):
        if len(term) != len(shape_of(x)):
            raise ValueError(f"einsum: {term!r} for an array of shape {shape_of(x)}")
    if any(c not in string.ascii_letters for c in terms.replace(",", "") + result) or len(set(result)) != len(result):
        raise ValueError(f"einsum: subscripts are letters, each once in the result, got {subscripts!r}")
    if not set(result) <= set(terms):
        raise ValueError(f"einsum: the result has indices that no array has in {subscripts!r}")
    found, term = arrays[0], inputs[0]
    if len(arrays) == 1:
        return _product(found, 1.0, tuple(map(ord, term)), (), tuple(map(ord, result)), "einsum")
    for k in range(1, len(arrays)):
        later = set(result).union(*inputs[k + 1 :])
        out = result if k == len(arrays) - 1 else "".join(sorted(later & set(term + inputs[k])))
        found = _product(found, arrays[k], tuple(map(ord, term)), tuple(map(ord, inputs[k])), tuple(map(ord, out)),
                         "einsum")  # fmt: skip
        term = out
    return found
