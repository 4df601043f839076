"""Derivatives of Python functions: grad, jacobian, hessian, products with them (`differences` checks them).

A function is called once with Tensors in place of its numbers; what it computes is recorded, and backward passes over
the record give the derivatives, exact to rounding.  Higher orders come from recording the backward pass itself: RECIPES
has the derivative of each operation once more as an expression in Tensors.  `Tensor.backward(create_graph=True)` is
this pass for a graph that is already there.

What goes in and what comes out
1. Inputs are numbers, ndarrays, Tensors, TensorArrays, and lists, tuples and dictionaries of these in any nesting.  The
   function gets a Tensor for a number, an ndarray of Tensors (dtype object) for an ndarray, a TensorArray for a
   TensorArray; derivatives come back in the shape of the input: floats for numbers, ndarrays of floats for ndarrays.
2. Of Tensors and TensorArrays they are Tensors and TensorArrays that can be differentiated again, and so is everything
   inside a function that is being differentiated: derivatives nest, whatever the inner function captures.
3. Nothing is left behind: `.grad` of Tensors that the function captures stays as it was.  `no_grad` around a
   derivative only means that its result is not recorded.
4. A number that does not depend on an input has the derivative 0.0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import copysign, isinf
from numbers import Real
from typing import Any

import numpy as np

from fastscalar import _core
from fastscalar._core import Tensor
from fastscalar._paths import PACKAGE
from fastscalar._warnings import warn_of_loss
from fastscalar.engine import _inspect
from fastscalar.engine._array import TensorArray, elementwise, logsumexp
from fastscalar.engine.views import ArrayView

__all__ = [
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "value_and_grad",
    "vjp",
]


# --- recipes --------------------------------------------------------------------------------------
#
# One function for each operand of each row of the operation table: the derivative by it, of the operands and the result
# `v`, as a Tensor or, where it is constant around the point, a float.  Its value is that of the table's derivative; a
# test holds them to each other.  Evaluated under `_core._ieee`: 1 / 0 is inf here, as it is in the table.

_LN2, _LN10 = 0.69314718055994530942, 2.30258509299404568402
_TWO_OVER_SQRT_PI, _ONE_OVER_SQRT_2PI = 1.12837916709551257390, 0.39894228040143267794
_DEGREES = 180.0 / 3.141592653589793
_RADIANS = 3.141592653589793 / 180.0

Recipe = Callable[..., Any]


def _power_by_base(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if b._op == "const":  # a number stays a number: x**3 -> 3 * x**2, and not an exponent 3 - 1 with its own gradient
        n = b.data
        return n * a ** (n - 1.0) if n != 0.0 else 0.0
    slope = b * a ** (b - 1.0)
    return slope if b.data != 0.0 or slope.data == 0.0 else 0.0


def _power_by_exponent(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if a.data > 0.0:
        return v * a.log()
    return 0.0 if a.data == 0.0 and b.data >= 0.0 else float("nan")


def _silu_slope(a: Tensor, v: Tensor) -> Any:
    s = a.sigmoid()
    return s if abs(a.data) > 1e3 else s * (1.0 + a * (-a).sigmoid())


def _gelu_slope(a: Tensor, v: Tensor) -> Any:
    return a.ndtr() if abs(a.data) > 1e3 else a.ndtr() + a * (_ONE_OVER_SQRT_2PI * (-0.5 * a * a).exp())


def _asinh_slope(a: Tensor, v: Tensor) -> Any:
    return 1.0 / (a * a + 1.0).sqrt() if abs(a.data) < 1e150 else 1.0 / abs(a)


def _atan2_slope(a: Tensor, b: Tensor) -> Any:
    """b / (a * a + b * b) without its overflow."""
    if a.data == 0.0 and b.data == 0.0:
        return 0.0
    if abs(a.data) > abs(b.data):
        r = b / a
        return r / (1.0 + r * r) / a
    r = a / b
    return 1.0 / (1.0 + r * r) / b


def _hypot_by_left(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if isinf(v.data):
        return copysign(1.0, a.data) if isinf(a.data) else 0.0
    return a / v if v.data else 0.0


def _hypot_by_right(a: Tensor, b: Tensor, v: Tensor) -> Any:
    if isinf(v.data):
        return copysign(1.0, b.data) if isinf(b.data) and not isinf(a.data) else 0.0
    return b / v if v.data else 0.0


def _minus_quotient(a: Tensor, b: Tensor, v: Tensor) -> Any:
    """-n of v = a - n * b: constant between the jumps."""
    return -(a / b - v / b + 0.5).floor()


def _chosen(first: bool) -> float:
    return 1.0 if first else 0.0


def _is_nan(a: Tensor) -> bool:
    return a.data != a.data


def _zero(*_: Tensor) -> float:
    return 0.0


RECIPES: dict[str, tuple[Recipe, ...]] = {
    "+": (lambda a, b, v: 1.0, lambda a, b, v: 1.0),
    "-": (lambda a, b, v: 1.0, lambda a, b, v: -1.0),
    "*": (lambda a, b, v: b, lambda a, b, v: a),
    "/": (lambda a, b, v: 1.0 / b, lambda a, b, v: -(v / b)),
    "**": (_power_by_base, _power_by_exponent),
    "%": (lambda a, b, v: 1.0, _minus_quotient),
    "//": (_zero, _zero),
    "neg": (lambda a, v: -1.0,),
    "relu": (lambda a, v: _chosen(not a.data <= 0.0),),
    "exp": (lambda a, v: v,),
    "log": (lambda a, v: 1.0 / a,),
    "exp2": (lambda a, v: v * _LN2,),
    "expm1": (lambda a, v: v + 1.0,),
    "log2": (lambda a, v: 1.0 / (a * _LN2),),
    "log10": (lambda a, v: 1.0 / (a * _LN10),),
    "log1p": (lambda a, v: 1.0 / (1.0 + a),),
    "sqrt": (lambda a, v: 0.5 / v,),
    "cbrt": (lambda a, v: 1.0 / (3.0 * v * v),),
    "sin": (lambda a, v: a.cos(),),
    "cos": (lambda a, v: -a.sin(),),
    "tan": (lambda a, v: 1.0 + v * v,),
    "asin": (lambda a, v: 1.0 / ((1.0 - a) * (1.0 + a)).sqrt(),),
    "acos": (lambda a, v: -1.0 / ((1.0 - a) * (1.0 + a)).sqrt(),),
    "atan": (lambda a, v: 1.0 / (1.0 + a * a),),
    "sinh": (lambda a, v: a.cosh(),),
    "cosh": (lambda a, v: a.sinh(),),
    "tanh": (lambda a, v: (1.0 - v) * (1.0 + v),),
    "asinh": (_asinh_slope,),
    "acosh": (lambda a, v: 1.0 / ((a - 1.0).sqrt() * (a + 1.0).sqrt()),),
    "atanh": (lambda a, v: 1.0 / ((1.0 - a) * (1.0 + a)),),
    "erf": (lambda a, v: _TWO_OVER_SQRT_PI * (-a * a).exp(),),
    "erfc": (lambda a, v: -(_TWO_OVER_SQRT_PI * (-a * a).exp()),),
    "ndtr": (lambda a, v: _ONE_OVER_SQRT_2PI * (-0.5 * a * a).exp(),),
    "lgamma": (lambda a, v: a.digamma(),),
    "gamma": (lambda a, v: v * a.digamma(),),
    "digamma": (lambda a, v: a.polygamma(1.0),),
    "polygamma": (lambda a, b, v: a.polygamma(b.data + 1.0), _zero),
    "abs": (lambda a, v: a.sign().data if a.data != 0.0 else 0.0,),
    "sign": (_zero,),
    "floor": (_zero,),
    "ceil": (_zero,),
    "trunc": (_zero,),
    "degrees": (lambda a, v: _DEGREES,),
    "radians": (lambda a, v: _RADIANS,),
    # sigmoid(x) * sigmoid(-x): keeps both tails, and has no kink that a formula in |x| would have in the next order
    "sigmoid": (lambda a, v: v * (-a).sigmoid(),),
    "softplus": (lambda a, v: a.sigmoid(),),
    "silu": (_silu_slope,),
    "gelu": (_gelu_slope,),
    "minimum": (
        lambda a, b, v: _chosen(a.data <= b.data or _is_nan(a)),
        lambda a, b, v: _chosen(not (a.data <= b.data or _is_nan(a))),
    ),
    "maximum": (
        lambda a, b, v: _chosen(a.data >= b.data or _is_nan(a)),
        lambda a, b, v: _chosen(not (a.data >= b.data or _is_nan(a))),
    ),
    "atan2": (lambda a, b, v: _atan2_slope(a, b), lambda a, b, v: -_atan2_slope(b, a)),
    "hypot": (_hypot_by_left, _hypot_by_right),
    "copysign": (lambda a, b, v: float(np.copysign(1.0, a.data) * np.copysign(1.0, b.data)), _zero),
    "fmod": (lambda a, b, v: 1.0, _minus_quotient),
    "remainder": (lambda a, b, v: 1.0, _minus_quotient),
    "leaky_relu": (
        lambda a, b, v: 1.0 if a.data > 0.0 or _is_nan(a) else b,
        lambda a, b, v: 0.0 if a.data > 0.0 else a,
    ),
    "elu": (
        lambda a, b, v: 1.0 if a.data > 0.0 or _is_nan(a) else b * a.exp(),
        lambda a, b, v: 0.0 if a.data > 0.0 else a.expm1(),
    ),
    "send": (lambda a, b, v: b, lambda a, b, v: a),
}


# --- recorded sweeps ------------------------------------------------------------------------------


class _Sweep:
    """The local derivatives of the nodes of one graph.  `active`: the nodes that a derivative is wanted by."""

    def __init__(self, active: Iterable[Tensor]) -> None:
        self.active = set(active)
        self.softmaxes: dict[tuple[int, ...], tuple[list[Any], list[Any]]] = {}

    def slopes(self, node: Tensor) -> Iterator[tuple[Tensor, Any]]:
        """(operand, derivative of node by it) for each active operand: a Tensor, or a float where it is constant."""
        name, operands, numbers = _inspect._instruction(node)
        for operand, slope in self._wide(name, node, operands, numbers):
            if isinstance(operand, Tensor) and operand in self.active:
                yield operand, slope() if callable(slope) else slope

    def _wide(self, name: str, node: Tensor, operands: list[Any], numbers: tuple[int, ...]) -> Iterator[Any]:
        # a slope that has to be computed is a callable, so that only what is wanted is recorded
        half = len(operands) // 2
        if name in RECIPES:
            for operand, recipe in zip(operands, RECIPES[name], strict=True):
                yield operand, lambda recipe=recipe: recipe(*operands, node)
        elif name == "linear":
            for x, w in zip(operands[:half], operands[half:-1], strict=True):
                yield x, w
                yield w, x
            yield operands[-1], 1.0
        elif name == "sum":
            for x in operands:
                yield x, 1.0
        elif name == "dot":
            for x, y in zip(operands[:half], operands[half:], strict=True):
                yield x, y
                yield y, x
        elif name == "logsumexp":
            yield from zip(operands, self._softmax(operands), strict=True)
        elif name == "softmax":
            for j, (x, p) in enumerate(zip(operands, self._softmax(operands), strict=True)):
                yield x, lambda j=j, p=p: node * ((1.0 if j == numbers[0] else 0.0) - p)
        elif name in ("squared_loss", "mse_loss"):
            scale = 1.0 / (numbers[0] or 1) if name == "squared_loss" else 2.0 / half
            for x, y in zip(operands[:half], operands[half:], strict=True):
                yield x, lambda x=x, y=y: x - y if scale == 1.0 else scale * (x - y)
                yield y, lambda x=x, y=y: y - x if scale == 1.0 else scale * (y - x)
        elif name == "cross_entropy":
            rows, cols, *labels = numbers
            for row, label in enumerate(labels):
                logits = operands[row * cols : (row + 1) * cols]
                for j, (x, p) in enumerate(zip(logits, self._softmax(logits), strict=True)):
                    yield x, lambda j=j, p=p, label=label: (p - (1.0 if j == label else 0.0)) / (rows or 1)
        elif name == "custom":
            yield from zip(operands, _custom_slopes(node, operands), strict=True)
        elif operands:
            raise NotImplementedError(f"no derivative of {name!r} that can itself be differentiated")

    def _softmax(self, xs: list[Any]) -> list[Any]:
        key = tuple(map(id, xs))
        if key not in self.softmaxes:
            total = logsumexp(xs)
            if isinf(total.data):  # shares that do not change: those at +inf have equal ones
                top = [float(_plain(x) == total.data > 0.0) for x in xs]
                shares: list[Any] = [t / (sum(top) or 1.0) for t in top]
            else:
                shares = [(x - total).exp() for x in xs]
            self.softmaxes[key] = xs, shares  # xs: so that no id is used again
        return self.softmaxes[key][1]


def _custom_slopes(node: Tensor, operands: list[Tensor]) -> list[Any]:
    """The derivatives of a user's own operation, computed from Tensors so that they are recorded."""
    derivatives = getattr(node._backward, "derivatives", None)
    what = f"the user's own operation {node._op!r}"
    if derivatives is None:
        raise NotImplementedError(
            f"{what}: its _backward gives numbers, which cannot be differentiated again; use fastscalar.custom_op"
        )
    _core._require_operands_unchanged(node)
    lost: list[Tensor] = []
    with _Watch(operands, lost.append):
        slopes = derivatives(*operands)
    if lost:
        raise NotImplementedError(
            f"{what}: its derivatives turn Tensors into plain numbers, so they cannot be differentiated again; "
            "write them with fastscalar.math"
        )
    return list(slopes) if isinstance(slopes, (list, tuple)) else [slopes]


def _send(g: Tensor, slope: Any) -> Tensor:
    """A gradient times a slope, where zero sends zero.

    A numerical zero keeps its edge: the next derivative by g is the slope, by the slope g.  With a finite slope the
    product says all that, and is what a reader of the graph expects to see.
    """
    number = slope if isinstance(slope, float) else slope.data
    if number - number != 0.0:
        return g.send(slope)
    if isinstance(slope, float):
        if slope == 1.0:
            return g
        if slope == -1.0:
            return -g
    return g * slope


def _pull(nodes: Sequence[Tensor], seeds: dict[Tensor, Tensor], wanted: set[Tensor] | None) -> dict[Tensor, Tensor]:
    """A recorded backward sweep over `nodes`, in reverse creation order; gradients of the wanted ones, None: of all."""
    sweep = _Sweep(nodes)
    gradients = dict(seeds)
    with _core._record(), _core._ieee():
        for node in nodes:
            if node not in gradients:
                continue
            g = gradients[node] if wanted is None or node in wanted else gradients.pop(node)
            finite = g.data - g.data == 0.0
            for operand, slope in sweep.slopes(node):
                if finite and isinstance(slope, float) and slope == 0.0:
                    continue
                part = _send(g, slope)
                gradients[operand] = gradients[operand] + part if operand in gradients else part
    return gradients


def _push(nodes: Sequence[Tensor], tangents: dict[Tensor, Any]) -> None:
    """A forward sweep from old to young; adds the tangent of every node that depends on one with a tangent.

    A tangent of zero sends zero.  And what comes first here comes last in a backward pass: an infinite tangent that
    meets a slope of zero is there a gradient of zero that meets an infinite slope, so it sends zero too.
    """
    sweep = _Sweep(nodes)
    with _core._ieee():
        for node in reversed(nodes):
            if node in tangents:
                continue
            for operand, slope in sweep.slopes(node):
                tangent = tangents[operand]
                if isinstance(slope, float) and slope == 0.0:
                    part = Tensor(0.0)
                elif isinstance(slope, Tensor) and slope.data == 0.0:
                    part = _send(slope, tangent)
                else:
                    part = _send(tangent, slope)
                tangents[node] = tangents[node] + part if node in tangents else part


def _record_backward(root: Tensor, accumulate: bool) -> None:
    """Tensor.backward(create_graph=True).

    First the recorded sweep, which can fail and has written nothing until then; then the engine's own, which leaves the
    numbers, those of constants too; then each gradient goes to its node.
    """
    nodes = [node for node in _inspect._reached(root) if node._op != "const" or node._parents]
    before = {node: node.grad for node in nodes if accumulate and not node._parents}
    gradients = _pull(nodes, {root: Tensor(1.0)}, None)
    root.backward(accumulate=accumulate)
    with _core._record():
        for node in nodes:
            gradient = gradients[node] if node in gradients else Tensor(0.0)
            _core._set_recorded(node, before[node] + gradient if node in before else gradient)


# --- numbers that were Tensors --------------------------------------------------------------------


class _Watch(_core._Watch):
    """Context in which a Tensor that depends on `inputs` and becomes a plain number is reported."""

    def __init__(self, inputs: Sequence[Tensor], report: Callable[[Tensor], None] | None = None) -> None:
        self.inputs = list(inputs)
        self.report = report


def _tracing() -> bool:
    return bool(_core._watches())


def _became_a_number(t: Tensor) -> None:
    """Called by Tensor.__float__ and __int__ while anything is traced."""
    watches: list[_Watch] = _core._watches()
    if not watches:
        return  # another thread is tracing
    report = watches[-1].report
    if report is not None:
        if _inspect._depends(t, watches[-1].inputs):
            report(t)
        return
    frame = sys._getframe(1)
    if frame.f_code.co_filename.startswith(PACKAGE):
        return  # our own code knows what it does
    if not _inspect._depends(t, [x for watch in watches for x in watch.inputs]):
        return
    names = frame.f_globals
    warn_of_loss(frame.f_code.co_filename, frame.f_lineno, names.get("__name__"), names)


_core._register(_became_a_number, _record_backward)


# --- inputs and results ---------------------------------------------------------------------------


def _map(function: Callable[[Any, str], Any], x: Any, where: str, inside: tuple[int, ...] = ()) -> Any:
    """Apply a function of (leaf, its name) to nested lists, tuples and dictionaries; ValueError where one holds itself.

    inside: the ids of those that `x` is in.
    """
    if isinstance(x, (dict, list, tuple)):
        if id(x) in inside:
            raise ValueError(f"{where or 'an argument'}: a {type(x).__name__} that contains itself")
        inside = (*inside, id(x))
    if isinstance(x, dict):
        return {key: _map(function, value, f"{where}[{key!r}]", inside) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        items = [_map(function, value, f"{where}[{k}]", inside) for k, value in enumerate(x)]
        if hasattr(type(x), "_fields"):
            return type(x)(*items)
        return tuple(items) if isinstance(x, tuple) else items
    return function(x, where)


def _is_number(x: Any) -> bool:
    return type(x) is float or isinstance(x, (Real, np.bool_))


def _object_array(tensors: Sequence[Any], shape: tuple[int, ...]) -> Any:
    # fromiter: an assignment asks every Tensor whether it is a sequence
    return np.fromiter(tensors, dtype=object, count=len(tensors)).reshape(shape)


def _elements(a: TensorArray) -> list[Tensor]:
    return list(a) if a.ndim == 1 else [t for row in a for t in _elements(row)]


class _Leaf:
    """One number or array among inputs or results: its elements in row-major order, and what it was."""

    def __init__(self, x: Any, where: str, what: str) -> None:
        self.where = where
        self.shape: tuple[int, ...] | None = None  # None: a single number
        self.is_tensor_array = isinstance(x, TensorArray)
        if isinstance(x, ArrayView):
            x = np.asarray(x)
        if isinstance(x, Tensor) or _is_number(x):
            self.elements = [x]
        elif isinstance(x, TensorArray):
            self.shape, self.elements = x.shape, _elements(x)
        elif isinstance(x, np.ndarray) and x.dtype.kind in "fiubO":
            self.shape, self.elements = x.shape, x.ravel().tolist()
            for e in self.elements if x.dtype.kind == "O" else ():
                if not isinstance(e, Tensor) and not _is_number(e):
                    raise TypeError(f"{what}: {where} holds {type(e).__name__}, expected real numbers or Tensors")
        else:
            kind = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
            raise TypeError(f"{what}: {where} is {kind}, expected real numbers, Tensors, arrays, or lists, tuples and "
                            "dictionaries of them")  # fmt: skip

    def has_tensors(self) -> bool:
        return self.is_tensor_array or any(isinstance(e, Tensor) for e in self.elements)

    def build(self, values: Sequence[Any], shape: tuple[int, ...] = (), as_tensor_array: bool = False) -> Any:
        """An object of this leaf's kind with other elements; `shape` comes before its own."""
        if self.shape is None and not shape:
            return values[0]
        shape = shape + (self.shape or ())
        if any(isinstance(v, Tensor) for v in values):
            array = _object_array(values, shape)
            return elementwise("*", array, 1.0) if self.is_tensor_array or as_tensor_array else array
        return np.array(values, dtype=np.float64).reshape(shape)


def _leaves(x: Any, where: str, what: str) -> list[_Leaf]:
    out: list[_Leaf] = []
    _map(lambda e, path: out.append(_Leaf(e, path, what)), x, where)
    return out


class _Run:
    """A call of f with Tensors in place of the numbers in some of its arguments.

    `tensors`: these, in order; they are new nodes, so that nothing else that f uses can be mistaken for an input.
    `recorded`: derivatives come as Tensors, because an input is one or because f is part of another function that is
    being differentiated.
    """

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], argnums: Any, what: str):
        self.what = what
        self.args = list(args)
        self.single = not isinstance(argnums, (tuple, list))
        self.positions = _positions(argnums, len(args), what)
        self.leaves = [leaf for k in self.positions for leaf in _leaves(args[k], f"argument {k}", what)]
        self.recorded = _tracing() or any(leaf.has_tensors() for leaf in self.leaves)
        self.tensors: list[Tensor] = []
        with _core._record() as state:
            self.detached = not state.outside
            fresh = iter(self.leaves)
            traced = list(args)
            for k in self.positions:
                traced[k] = _map(lambda e, _: self._trace(next(fresh)), args[k], "")
            with _Watch(self.tensors):
                self.result = f(*traced, **kwargs)

    def _trace(self, leaf: _Leaf) -> Any:
        # times 1.0: a node of its own with the same value and derivative 1, connected with what it was computed from
        new = [e * 1.0 if isinstance(e, Tensor) else Tensor(e) for e in leaf.elements]
        if leaf.is_tensor_array:
            array = leaf.build(new)
            self.tensors += _elements(array)
            return array
        self.tensors += new
        if leaf.shape is None:
            return new[0]
        return _object_array(new, leaf.shape)

    def scalar(self) -> Tensor | float:
        """The result, which has to be a single number."""
        r = self.result
        if isinstance(r, np.ndarray) and r.shape == ():
            r = r.item()
        if isinstance(r, Tensor) or _is_number(r):
            return r if isinstance(r, Tensor) else float(r)
        shape = f" of shape {r.shape}" if isinstance(r, (np.ndarray, TensorArray)) else ""
        raise TypeError(
            f"{self.what}: the function has to return a single number, got {type(r).__name__}{shape} "
            "(fastscalar.jacobian takes any result)"
        )

    def gradients(self, root: Any, recorded: bool) -> list[Any]:
        """d root / d input for each of `tensors`: floats, or Tensors if it is recorded."""
        if not recorded:
            return _inspect._gradients(root, self.tensors) if isinstance(root, Tensor) else [0.0] * len(self.tensors)
        found: dict[Tensor, Tensor] = {}
        if isinstance(root, Tensor):
            nodes = _inspect._reached(root, self.tensors)
            found = _pull(nodes, {root: Tensor(1.0)} if nodes else {}, set(self.tensors))
        return [found[t] if t in found else Tensor(0.0) for t in self.tensors]

    def give(self, values: Iterable[Any]) -> list[Any]:
        """Values as the caller gets them."""
        return [v.detach() if self.detached and isinstance(v, Tensor) else v for v in values]

    def like_inputs(self, values: Sequence[Any]) -> Any:
        """One value for each of `tensors`, in the structure of the arguments."""
        return self.assemble(lambda leaf, part: leaf.build(part), values)

    def assemble(self, build: Callable[[_Leaf, Sequence[Any]], Any], values: Sequence[Any]) -> Any:
        leaves, at = iter(self.leaves), 0

        def next_leaf(_: Any, __: str) -> Any:
            nonlocal at
            leaf = next(leaves)
            at += len(leaf.elements)
            return build(leaf, values[at - len(leaf.elements) : at])

        found = [_map(next_leaf, self.args[k], "") for k in self.positions]
        return found[0] if self.single else tuple(found)

    def value(self) -> Any:
        """The result as the caller gets it: plain numbers, or Tensors if derivatives are recorded."""

        def convert(x: Any, where: str) -> Any:
            leaf = _Leaf(x, where, self.what)
            if not self.recorded:
                return leaf.build([_plain(e) for e in leaf.elements])
            return leaf.build(self.give(leaf.elements)) if self.detached else x

        return _map(convert, self.result, "the result")


def _plain(x: Any) -> float:
    return x.data if isinstance(x, Tensor) else float(x)


def _positions(argnums: Any, count: int, what: str) -> list[int]:
    given = list(argnums) if isinstance(argnums, (tuple, list)) else [argnums]
    for k in given:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)):
            raise TypeError(f"{what}: argnums is an integer or a tuple of integers, got {argnums!r}")
        if not -count <= k < count:
            raise ValueError(f"{what}: argnums is {argnums!r}, but the function was called with {count} arguments")
    return [int(k) % count for k in given]


def _like(x: Any, leaves: Sequence[_Leaf], where: str, what: str) -> list[Any]:
    """The elements of x, which has to have the same arrays and numbers as `leaves`."""
    found = _leaves(x, where, what)
    if [leaf.shape for leaf in found] != [leaf.shape for leaf in leaves]:
        raise ValueError(
            f"{what}: {where} has the shapes {[leaf.shape or () for leaf in found]}, "
            f"expected {[leaf.shape or () for leaf in leaves]}"
        )
    return [e for leaf in found for e in leaf.elements]


def _as_arguments(x: Any) -> tuple[Any, ...]:
    return x if type(x) is tuple else (x,)


def _weighted(elements: Sequence[Any], weights: Sequence[Any]) -> Any:
    """Sum of weight * element over the elements that are Tensors: recorded, also inside no_grad."""
    total: Any = 0.0
    with _core._record():
        for e, w in zip(elements, weights, strict=True):
            if isinstance(e, Tensor):
                total = total + e * w
    return total


def _named(function: Callable[..., Any], name: str, f: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = f"{name}({getattr(f, '__name__', 'function')})"
    return function


# --- what users call ------------------------------------------------------------------------------


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Any, Any]]:
    """A function that gives (f(...), gradient) in one pass; see `grad`.

    >>> import fastscalar as fs
    >>> fs.value_and_grad(lambda x: x ** 3)(2.0)
    (8.0, 12.0)
    """

    def value_and_gradient(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        run = _Run(f, args, kwargs, argnums, "grad")
        root = run.scalar()
        gradients = run.give(run.gradients(root, run.recorded))
        value = run.give([root])[0] if run.recorded else _plain(root)
        return value, run.like_inputs(gradients)

    return _named(value_and_gradient, "value_and_grad", f)


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function that gives the gradient of f, a function whose result is a single number.

    argnums: the position of the argument to differentiate by, or a tuple of positions (the result is then a tuple).
    Keyword arguments are passed on.

    An argument is a number, an array, a Tensor, or lists, tuples and dictionaries of these; the gradient has the same
    structure and shapes.  f gets Tensors in their place, and ndarrays of Tensors for ndarrays.  Derivatives by plain
    numbers are floats and ndarrays of floats; by Tensors, and inside another function that is being differentiated,
    they are Tensors, so that `grad(grad(f))` is the second derivative.

    TypeError if the result is not a single number or an argument cannot be differentiated by; ValueError for argnums
    out of range.  A GradientLossWarning names the line where a Tensor became a plain number.

    >>> import fastscalar as fs
    >>> fs.grad(lambda x: x ** 3)(2.0)
    12.0
    >>> fs.grad(fs.grad(lambda x: x ** 3))(2.0)
    12.0
    >>> fs.grad(lambda p: p["a"] * p["b"][0])({"a": 2.0, "b": [3.0]})
    {'a': 3.0, 'b': [2.0]}
    """
    both = value_and_grad(f, argnums)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return _named(gradient, "grad", f)


def jacobian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function that gives all derivatives of all results of f.

    Of an array of shape s by an array of shape t: an array of shape s + t; a number counts as shape ().  Results in
    lists, tuples and dictionaries give the same structure of these, inputs likewise inside it.  Cost: one call of f and
    a backward pass for each number in the result.

    >>> import numpy as np, fastscalar as fs
    >>> fs.jacobian(lambda x: x ** 2)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    def all_derivatives(*args: Any, **kwargs: Any) -> Any:
        run = _Run(f, args, kwargs, argnums, "jacobian")

        def of_result(x: Any, where: str) -> Any:
            out = _Leaf(x, where, "jacobian")
            rows = [run.give(run.gradients(e, run.recorded)) for e in out.elements]
            columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(run.tensors)

            def of_input(leaf: _Leaf, part: Sequence[Any]) -> Any:
                values = [v for row in zip(*part, strict=True) for v in row]
                return leaf.build(values, out.shape or (), out.is_tensor_array)

            return run.assemble(of_input, columns)

        return _map(of_result, run.result, "the result")

    return _named(all_derivatives, "jacobian", f)


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function that gives all second derivatives of f, a function whose result is a single number.

    By an array of shape s: an array of shape s + s.  By several arguments or a nested structure: the structure of the
    input, and in each place of it the structure once more.  Cost: a recorded backward pass, and a backward pass for
    each number in the input.

    >>> import numpy as np, fastscalar as fs
    >>> fs.hessian(lambda x: x[0] ** 2 * x[1])(np.array([3.0, 5.0]))
    array([[10.,  6.],
           [ 6.,  0.]])
    """
    return _named(jacobian(grad(f, argnums), argnums), "hessian", f)


def jvp(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    """(f(*primals), derivative of f along `tangents`): one call of f and one forward pass.

    primals: a tuple of the arguments; anything else is the only argument.  tangents: the same structure and shapes.

    >>> import fastscalar as fs
    >>> fs.jvp(lambda x, y: x * y, (2.0, 3.0), (1.0, 10.0))
    (6.0, 23.0)
    """
    primals = _as_arguments(primals)
    run = _Run(f, primals, {}, tuple(range(len(primals))), "jvp")
    directions = _like(list(_as_arguments(tangents)), run.leaves, "tangents", "jvp")
    with _core._record() if run.recorded else _core.no_grad():
        along = [d * 1.0 if isinstance(d, Tensor) else Tensor(d) for d in directions]
        found = dict(zip(run.tensors, along, strict=True))
        roots = [e for leaf in _leaves(run.result, "the result", "jvp") for e in leaf.elements if isinstance(e, Tensor)]
        for root in roots:
            if root not in found:
                _push(_inspect._reached(root, run.tensors), found)

        def tangent(x: Any, where: str) -> Any:
            leaf = _Leaf(x, where, "jvp")
            values = [found[e] if isinstance(e, Tensor) and e in found else Tensor(0.0) for e in leaf.elements]
            return leaf.build(run.give(values) if run.recorded else [_plain(v) for v in values])

        return run.value(), _map(tangent, run.result, "the result")


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(f(*primals), function): the function takes weights for the results and gives the gradient of their weighted sum.

    The weights have the structure and shapes of the result; the gradient is a tuple with one entry for each argument.
    It can be called many times, one backward pass each.

    >>> import numpy as np, fastscalar as fs
    >>> value, back = fs.vjp(lambda x: x ** 2, np.array([1.0, 2.0]))
    >>> back(np.array([1.0, 10.0]))
    (array([ 2., 40.]),)
    """
    run = _Run(f, primals, {}, tuple(range(len(primals))), "vjp")
    leaves = _leaves(run.result, "the result", "vjp")
    elements = [e for leaf in leaves for e in leaf.elements]

    def back(weights: Any) -> tuple[Any, ...]:
        root = _weighted(elements, _like(weights, leaves, "the weights", "vjp"))
        return run.like_inputs(run.give(run.gradients(root, run.recorded)))

    return run.value(), back


def hvp(f: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The Hessian of f times `tangents`, without the Hessian: a recorded backward pass and a plain one.

    primals: a tuple of the arguments; anything else is the only argument.  tangents: the same structure and shapes.
    The result has them too: a tuple if primals is one.

    >>> import numpy as np, fastscalar as fs
    >>> fs.hvp(lambda x: x[0] ** 2 * x[1], np.array([3.0, 5.0]), np.array([1.0, 0.0]))
    array([10.,  6.])
    """
    arguments = _as_arguments(primals)
    run = _Run(f, arguments, {}, tuple(range(len(arguments))), "hvp")
    directions = _like(list(_as_arguments(tangents)), run.leaves, "tangents", "hvp")
    along = _weighted(run.gradients(run.scalar(), True), directions)
    result = run.like_inputs(run.give(run.gradients(along, run.recorded)))
    return result if type(primals) is tuple else result[0]
