"""Norms, systems of linear equations, inverses and determinants of TensorArrays.

In plain code larger systems have LAPACK's values, and their derivatives from its inverse: x + inverse @ (db - dA @ x),
in which x and the inverse are numbers, and db and dA @ x are b and A @ x less their own: 0, with derivatives.  That is
ten instructions, whatever the size.  A recorded sweep, whose result is differentiated again, asks for them as Tensors:
`_stand_for`.
In programs, and where a matrix is small, singular or not finite, elimination in array operations: some instructions for
each column.  Which row is a pivot is a decision on values; in a program it is one for each column, and rows with other
pivots are recorded too.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator
from math import inf
from typing import Any, NamedTuple

import numpy as np

from fastscalar._core import Tensor
from fastscalar.arrays import moves
from fastscalar.arrays.convert import array, axes_of, filled, shape_of, unsupported
from fastscalar.arrays.products import dot as dot_product
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import dot
from fastscalar.engine._inspect import _instruction
from fastscalar.engine._modes import is_recording

__all__ = ["cholesky", "det", "inv", "matrix_norm", "matrix_power", "multi_dot", "norm", "slogdet", "solve",
           "vector_norm"]  # fmt: skip


def _square(a: Any, what: str) -> Any:
    a = array(a, what)
    if not isinstance(a, TensorArray) or a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise np.linalg.LinAlgError(f"{what}: expected a square matrix, got shape {getattr(a, 'shape', ())}")
    return a


def _stacked(function: Any, a: Any, *more: Any) -> Any:
    """Of each matrix of a stack."""
    parts = [function(a[k], *(m[k] for m in more)) for k in range(a.shape[0])]
    return moves.move(np.stack, (parts,), {})


LARGE = 10  # from so many rows on by LAPACK; smaller ones have the same bits in plain code and in programs


def _finite(*arrays: Any) -> bool:
    return all(np.isfinite(x).all() for x in arrays)


def _by_lapack(a: Any) -> tuple[Any, Any] | None:
    """The numbers of a matrix and of its inverse; None: eliminate."""
    if a.shape[-1] < LARGE or is_recording():
        return None
    values = a.numpy()
    try:
        inverse = np.linalg.inv(values)
    except np.linalg.LinAlgError:
        return None
    return (values, inverse) if _finite(values, inverse) else None


def _findable(a: Any, *more: Any) -> Any:
    """a; from a product with it `_operands` finds the elements of a and of more arrays in the graph, to which no more
    is passed back.  An attribute that held them would keep them for ever, once their gradients are Tensors."""
    return a + functools.reduce(operator.add, (dot(np.zeros(x.size), x.ravel()) for x in (a, *more)))


def _operands(t: Tensor) -> Iterator[Any]:
    """The elements of the arrays that `_findable` was given which a product was computed from."""
    name, operands, _ = _instruction(t)
    while name != "+":
        name, operands, _ = [found for x in operands if isinstance(x, Tensor) and (found := _instruction(x))[1]][-1]
    parts = operands[-1:]
    for part in parts:
        name, operands, _ = _instruction(part)
        if name == "+":
            parts += operands
        else:
            yield from operands[len(operands) // 2 :]


def _later(f: Callable[..., Any], *numbers: Any) -> Callable[[Tensor], Any]:
    """f of the arrays that a product was computed from; RuntimeError if they have not these numbers any more."""

    def again(product: Tensor) -> Any:
        elements = _operands(product)
        arrays = [array([*itertools.islice(elements, x.size)], f.__name__).reshape(x.shape) for x in numbers]
        if not all(np.array_equal(x.numpy(), known) for x, known in zip(arrays, numbers, strict=True)):
            raise RuntimeError(f"backward of {f.__name__}: .data of an operand was written after the operation was "
                               "computed, so there is no point that the derivative would belong to")  # fmt: skip
        return f(*arrays)

    return again


def _stand_for(product: Any, again: Callable[[Tensor], Any], part: Callable[..., Any]) -> Any:
    """A product with numbers, whose recorded derivatives are not these numbers but what they depend on: of the element
    at some place part(again(first element), *place), computed anew.  The first element knows it for all."""
    first = product if isinstance(product, Tensor) else next(iter(product.flat))
    first._numbers = again, part, shape_of(product)
    return product


def _change(multiply: Callable[[Any], Any], a: Any, values: Any, again: Callable[[Tensor], Any],
            part: Callable[..., Any], *more: Any) -> Any:  # fmt: skip
    """What the product of a matrix and numbers changes by: 0, with the derivatives of the product; see `_stand_for`."""
    a = _findable(a, *more)
    product = multiply(a)
    numbers = product.data if isinstance(product, Tensor) else product.numpy()
    if not _finite(numbers):  # a sum on the way was too large
        product, numbers = multiply(a - values), 0.0
    return _stand_for(product, again, part) - numbers


def _trace_of(weights: Any, a: Any, values: Any, f: Callable[..., Any]) -> Any:
    """The change of the trace of weights @ a, the numbers of f(a): that of a determinant or its logarithm."""
    return _change(lambda a: dot(weights.T.ravel(), a.ravel()), a, values, _later(f, values),
                   lambda weights: weights.T.ravel())  # fmt: skip


def _adjugate(a: Any) -> Any:
    return det(a) * inv(a)


def _pivot(column: Any) -> int:
    """The index of the element with the largest absolute value."""
    sizes = abs(column)
    return int(sizes.argmax())


def _first_pivot(m: Any) -> tuple[Any, int]:
    """The rows of a matrix in an order in which the first element of the first one is its pivot, and where it was."""
    p = _pivot(m[:, 0]) if m.shape[0] > 1 else 0
    return (m[[p, *(i for i in range(m.shape[0]) if i != p)]] if p else m), p


def _eliminate(a: Any, b: Any, what: str) -> Any:
    """x with a @ x = b, b a matrix."""
    n = a.shape[0]
    m = moves.move(np.concatenate, ([a, b],), {"axis": 1})
    rows = []  # of the upper triangle, from its diagonal on, and what belongs to them on the right
    for k in range(n):
        m, _ = _first_pivot(m)
        if m[0, 0] == 0.0:
            raise np.linalg.LinAlgError(f"{what}: singular matrix")
        rows.append((m[0, : n - k], m[0, n - k :]))
        if k < n - 1:
            m = m[1:, 1:] - (m[1:, 0] / m[0, 0])[:, None] * m[0, 1:]
    found: Any = None
    for upper, right in reversed(rows):
        value = right / upper[0] if found is None else (right - upper[1:] @ found) / upper[0]
        found = value[None] if found is None else moves.move(np.concatenate, ([value[None], found],), {})
    return found


def solve(a: Any, b: Any) -> Any:
    """x with a @ x = b.  LinAlgError if a is singular."""
    numbers = isinstance(a, np.ndarray) and a.dtype != object
    a, b = _square(a, "solve"), array(b, "solve")
    if not isinstance(b, TensorArray) or b.shape[-min(b.ndim, 2)] != a.shape[-1]:
        raise ValueError(f"solve: shapes {a.shape} and {getattr(b, 'shape', ())} do not go together")
    if a.ndim > 2 or b.ndim > 2:
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = moves.broadcast_to(a, stack + a.shape[-2:])
        return _stacked(solve, a, moves.broadcast_to(b, stack + b.shape[-min(b.ndim, 2) :]))
    found = _by_lapack(a)
    if found is not None and b.size:
        values, right = found[0], b.numpy()
        x = np.linalg.solve(values, right)
        if _finite(x, right):
            change = b - right
            if numbers:
                return x + found[1] @ change
            change = change - _change(lambda a: a @ x, a, values, _later(solve, values, right),
                                      lambda x, _, *column: x[(slice(None), *column)], b)  # fmt: skip
            return x + _stand_for(found[1] @ change, _later(inv, values), lambda inverse, row, *_: inverse[row])
    if b.ndim == 1:
        return _eliminate(a, b[:, None], "solve")[:, 0]
    return _eliminate(a, b, "solve")


def inv(a: Any) -> Any:
    """The inverse.  LinAlgError if a is singular."""
    a = _square(a, "inv")
    if a.ndim > 2:
        return _stacked(inv, a)
    found = _by_lapack(a)
    if found is not None:
        values, inverse = found
        again = _later(inv, values)
        left = _change(lambda a: inverse @ a, a, values, again, lambda inverse, row, _: inverse[row])
        return inverse - _stand_for(left @ inverse, again, lambda inverse, _, column: inverse[:, column])
    return _eliminate(a, array(np.eye(a.shape[0]), "inv"), "inv")


def det(a: Any) -> Any:
    """The determinant; its derivatives are right for singular matrices too."""
    a = _square(a, "det")
    if a.ndim > 2:
        return _stacked(det, a)
    found = _by_lapack(a)
    if found is not None:
        value = float(np.linalg.det(found[0]))
        if value and _finite(value):
            return value + _trace_of(value * found[1], a, found[0], _adjugate)
    n = a.shape[0]
    if n == 1:
        return a[0, 0]
    if n == 2:
        return a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
    if n == 3:
        parts = [a[0, i] * (a[1, j] * a[2, k] - a[1, k] * a[2, j]) for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1))]
        return parts[0] + parts[1] + parts[2]
    product: Any = 1.0
    for k in range(n - 1):
        column = 0
        p = _pivot(a[:, 0])
        while a[p, column] == 0.0 and column < n - k - 1:  # columns may change places too
            column += 1
            p = _pivot(a[:, column])
        if a[p, column] == 0.0:
            return a[p, column] * product * 0.0  # of rank n - 2 at most: no element has a derivative
        product = product * a[p, column] * (-1.0) ** (p + column)
        others = [i for i in range(n - k) if i != p]
        rest = [j for j in range(n - k) if j != column]
        a = a[others][:, rest] - (a[others, column] / a[p, column])[:, None] * a[p, rest]
    return product * a[0, 0]


class SlogdetResult(NamedTuple):
    """As NumPy's."""

    sign: Any
    logabsdet: Any


def slogdet(a: Any) -> SlogdetResult:
    """The sign of the determinant, and the logarithm of its absolute value; -inf of a singular matrix."""
    a = _square(a, "slogdet")
    if a.ndim > 2:
        signs, logarithms = zip(*(slogdet(m) for m in a), strict=True)
        return SlogdetResult(*(moves.move(np.stack, (list(parts),), {}) for parts in (signs, logarithms)))
    found = _by_lapack(a)
    if found is not None:
        known = np.linalg.slogdet(found[0])
        return SlogdetResult(Tensor(known[0]), float(known[1]) + _trace_of(found[1], a, found[0], inv))
    sign, total = Tensor(1.0), Tensor(0.0)
    for _ in range(a.shape[0]):
        a, p = _first_pivot(a)
        if a[0, 0] == 0.0:
            return SlogdetResult(Tensor(0.0), Tensor(-inf))
        sign, total = sign * a[0, 0].sign() * (-1.0) ** p, total + abs(a[0, 0]).log()
        if a.shape[0] > 1:
            a = a[1:, 1:] - (a[1:, 0] / a[0, 0])[:, None] * a[0, 1:]
    return SlogdetResult(sign, total)


def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The lower triangular L with L @ L.T = a, of which the lower triangle is read; with `upper` its transpose.

    LinAlgError if a is not positive definite."""
    a = _square(a, "cholesky")
    if a.ndim > 2:
        return _stacked(lambda m: cholesky(m, upper=upper), a)
    if upper:
        return cholesky(a.T).T
    n, columns = a.shape[0], []
    for k in range(n):
        if not a[0, 0] > 0.0:
            raise np.linalg.LinAlgError("cholesky: the matrix is not positive definite")
        column = a[:, 0] / a[0, 0].sqrt()
        columns.append(moves.pad(column, (k, 0)))
        if k < n - 1:
            a = a[1:, 1:] - column[1:, None] * column[None, 1:]
    return moves.move(np.stack, (columns,), {"axis": 1})


def matrix_power(a: Any, n: int) -> Any:
    """a @ a @ ..., n times; of a negative n the inverse."""
    a, n = _square(a, "matrix_power"), operator.index(n)
    if n == 0:
        return array(np.broadcast_to(np.eye(a.shape[-1]), a.shape), "matrix_power")
    if n < 0:
        a, n = inv(a), -n
    result = None
    while n:
        if n & 1:
            result = a if result is None else result @ a
        a, n = a @ a if n > 1 else a, n >> 1
    return result


def multi_dot(arrays: Any, *, out: Any = None) -> Any:
    """The product of several matrices, from left to right; the first may be a row, the last a column."""
    unsupported("multi_dot", {"out": out})
    if len(arrays) < 2:
        raise ValueError(f"multi_dot: expected at least two arrays, got {len(arrays)}")
    shapes = [*map(shape_of, arrays)]
    if any(len(s) != 2 and (len(s) != 1 or 0 < k < len(arrays) - 1) for k, s in enumerate(shapes)):
        raise np.linalg.LinAlgError(f"multi_dot: expected matrices, vectors at the ends, got shapes {shapes}")
    return functools.reduce(dot_product, arrays)


# --- norms ----------------------------------------------------------------------------------------


def _euclidean(x: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """sqrt of the sum of squares, without overflow or underflow on the way; at the origin its derivatives are 0."""
    largest = abs(x).max(axes, keepdims=True)
    scale = largest.numpy() if not is_recording() else None
    if scale is not None and (((scale > 1e-140) & (scale < 1e150)) | (scale == 0.0)).all():
        square = (x * x).sum(axes, keepdims=keepdims)
        return _root(square)
    high, low = largest > 2.0**500, largest < 2.0**-500
    factor = moves.where(high, 2.0**-600, moves.where(low, 2.0**600, 1.0))
    scaled = x * factor
    root = _root((scaled * scaled).sum(axes, keepdims=True)) / factor
    return root if keepdims else root.reshape([n for d, n in enumerate(root.shape) if d not in axes])


def _root(square: Any) -> Any:
    """The square root, whose slope at 0 counts as 0."""
    zero = square == 0.0
    if isinstance(square, Tensor):
        return moves.where(zero, square * 0.0, moves.where(zero, 1.0, square).sqrt()) if is_recording() else (
            square.sqrt() if not zero else square * 0.0)  # fmt: skip
    if not is_recording() and not zero.any():
        return square.sqrt()
    return moves.where(zero, square * 0.0, moves.where(zero, 1.0, square).sqrt())


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """A norm of vectors (along one axis) or of matrices (along two); without `ord` of all elements."""
    x = array(x, "norm")
    if isinstance(x, Tensor):
        return abs(x)
    if not x.size:
        return x.sum(axis, keepdims=keepdims)
    if axis is None and ord is not None and x.ndim > 2:
        raise ValueError("norm: of more than two dimensions the axes have to be said")
    axes = axes_of(axis, x.ndim, "norm")
    if axis is not None and len(axes) not in (1, 2):
        raise ValueError(f"norm: expected one or two axes, got {axis!r}")
    if ord is None or (ord == "fro" and len(axes) == 2) or (ord == 2 and len(axes) == 1):
        return _euclidean(x, axes, keepdims)
    if len(axes) == 1:
        return _vector_norm(x, ord, axes[0], keepdims)
    if ord not in (1, -1, inf, -inf):
        kind = TypeError if ord in (2, -2, "nuc") else ValueError
        raise kind(f"norm: of matrices 1, -1, inf, -inf and 'fro' are there for a TensorArray, got {ord!r}")
    added, kept = axes if abs(ord) == 1 else axes[::-1]
    sums = abs(x).sum(added, keepdims=True)
    found = sums.max(kept, keepdims=True) if ord > 0 else sums.min(kept, keepdims=True)
    return found if keepdims else _without(found, axes)


def _without(x: Any, axes: tuple[int, ...]) -> Any:
    return x[tuple(0 if d in axes else slice(None) for d in range(x.ndim))]


def _vector_norm(x: Any, ord: Any, axis: int, keepdims: bool) -> Any:
    size = abs(x)
    if ord == inf:
        return size.max(axis, keepdims=keepdims)
    if ord == -inf:
        return size.min(axis, keepdims=keepdims)
    if ord == 1:
        return size.sum(axis, keepdims=keepdims)
    if ord == 0:
        held = moves.where(x != 0.0, 1.0, 0.0)
        return held.sum(axis, keepdims=keepdims)
    if isinstance(ord, str):
        raise ValueError(f"norm: {ord!r} is a norm of matrices")
    return (size ** float(ord)).sum(axis, keepdims=keepdims) ** (1.0 / ord)


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """A norm of vectors: of all elements, or along axes."""
    x = array(x, "vector_norm")
    if ord == 2:
        return _euclidean(x, axes_of(axis, x.ndim, "vector_norm"), keepdims)
    if isinstance(x, Tensor):
        return abs(x)
    axes = axes_of(axis, x.ndim, "vector_norm")
    if len(axes) == 1:
        return _vector_norm(x, ord, axes[0], keepdims)
    kept = [d for d in range(x.ndim) if d not in axes]
    found = _vector_norm(x.transpose([*kept, *axes]).reshape([*(x.shape[d] for d in kept), -1]), ord, -1, False)
    if not keepdims:
        return found
    return found[tuple(None if d in axes else slice(None) for d in range(x.ndim))] if kept else filled(
        (1,) * x.ndim, found)  # fmt: skip


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """A norm of the matrices of the last two axes."""
    return norm(x, ord, (-2, -1), keepdims)
