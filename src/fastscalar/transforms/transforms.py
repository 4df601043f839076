"""Derivatives of Python functions: grad, jacobian, hessian and products with them (`gradcheck` checks them).

A function is called once with Tensors in place of its numbers; what it computes is recorded, and backward passes over
the record give the derivatives, exact to rounding.  Higher orders come from recording the backward pass itself: `rules`
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

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from fastscalar import _core
from fastscalar._core import Tensor
from fastscalar.engine import _inspect, _modes
from fastscalar.engine._modes import is_recording
from fastscalar.transforms.inputs import Leaf, Run, as_arguments, elements_like, leaves_of, map_structure
from fastscalar.transforms.recorded import dot, plain, push

__all__ = [
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "value_and_grad",
    "vjp",
]


OF_ONE = "second derivatives are of one number: of one of the results, or of their sum"


def _weighted(elements: Sequence[Any], weights: Sequence[Any]) -> Any:
    """Sum of weight * element over the elements that are Tensors: recorded, also inside no_grad."""
    total: Any = 0.0
    with _modes.record():
        for e, w in zip(elements, weights, strict=True):
            if isinstance(e, Tensor):
                total = total + e * w
    return total


def _named(function: Callable[..., Any], name: str, f: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = f"{name}({getattr(f, '__name__', 'function')})"
    return function


def value_and_grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., tuple[Any, Any]]:
    """The function that gives (f(...), gradient) in one pass.

    f, argnums, structure of the gradient and errors: as in `grad`.

    Examples
    --------
    >>> import fastscalar as fs
    >>> fs.value_and_grad(lambda x: x ** 3)(2.0)
    (8.0, 12.0)
    """

    return _named(_both(f, argnums, "grad"), "value_and_grad", f)


def _both(f: Callable[..., Any], argnums: int | Sequence[int], what: str, *instead: str) -> Callable[..., Any]:
    """`value_and_grad`; what its errors begin with, and what they say to do instead."""

    def value_and_gradient(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        run = Run(f, args, kwargs, argnums, what)
        root = run.scalar(*instead)
        gradients = run.give(run.gradients(root, run.recorded))
        value = run.give([root])[0] if run.recorded else plain(root)
        return value, run.like_inputs(gradients)

    return value_and_gradient


def grad(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function that gives the gradient of f.

    Parameters
    ----------
    f : callable
        Its result is a single number.  It gets Tensors in place of the numbers that it is differentiated by, and
        ndarrays of Tensors for ndarrays.
    argnums : int or tuple of int
        The position of the argument to differentiate by; of several, the gradient is a tuple.  An argument is a number,
        an array, a Tensor, or lists, tuples and dictionaries of these.  Keyword arguments are passed on.

    Returns
    -------
    callable
        Takes the arguments of f; gives the gradient in the structure and shapes of the arguments.  By plain numbers:
        floats and ndarrays of floats.  By Tensors, and inside another function that is being differentiated: Tensors,
        so that `grad(grad(f))` is the second derivative.

    Raises
    ------
    TypeError
        In a call: if the result is not a single number, or an argument cannot be differentiated by.
    ValueError
        In a call: for argnums out of range.

    Warns
    -----
    GradientLossWarning
        Names the line where a Tensor became a plain number.

    Examples
    --------
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

    Cost: one call of f and a backward pass for each number in the result.

    Parameters
    ----------
    f, argnums
        As in `grad`, but the result may be numbers, arrays, and lists, tuples and dictionaries of these.

    Returns
    -------
    callable
        Of an array of shape s by an array of shape t: an array of shape s + t; a number counts as shape ().  The
        structure of the results, and in each place of it the structure of the inputs.

    Raises
    ------
    TypeError, ValueError
        As in `grad`.

    Examples
    --------
    >>> import numpy as np, fastscalar as fs
    >>> fs.jacobian(lambda x: x ** 2)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    return jacobian_by(f, argnums, lambda run, elements: [run.gradients(e, run.recorded) for e in elements])


def jacobian_by(
    f: Callable[..., Any], argnums: Any, rows_of: Callable[[Run, list[Any]], list[list[Any]]]
) -> Callable[..., Any]:
    """`jacobian`, where `rows_of` says the derivatives of each number in the result by each of the run's inputs."""

    def all_derivatives(*args: Any, **kwargs: Any) -> Any:
        run = Run(f, args, kwargs, argnums, "jacobian")
        elements = [e for leaf in leaves_of(run.result, "the result", "jacobian") for e in leaf.elements]
        derivatives = iter(rows_of(run, elements))

        def of_result(x: Any, where: str) -> Any:
            out = Leaf(x, where, "jacobian")
            rows = [run.give(next(derivatives)) for _ in out.elements]
            columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(run.tensors)

            def of_input(leaf: Leaf, part: Sequence[Any]) -> Any:
                values = [v for row in zip(*part, strict=True) for v in row]
                return leaf.build(values, out.shape or (), out.is_tensor_array)

            return run.assemble(of_input, columns)

        return map_structure(of_result, run.result, "the result")

    return _named(all_derivatives, "jacobian", f)


def hessian(f: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Callable[..., Any]:
    """The function that gives all second derivatives of f.

    Cost: a recorded backward pass, and a backward pass for each number in the input.

    Parameters
    ----------
    f, argnums
        As in `grad`.

    Returns
    -------
    callable
        By an array of shape s: an array of shape s + s.  By several arguments or a nested structure: the structure of
        the input, and in each place of it the structure once more.

    Raises
    ------
    TypeError, ValueError
        As in `grad`.

    Examples
    --------
    >>> import numpy as np, fastscalar as fs
    >>> fs.hessian(lambda x: x[0] ** 2 * x[1])(np.array([3.0, 5.0]))
    array([[10.,  6.],
           [ 6.,  0.]])
    """
    return hessian_by(f, argnums, "hessian")


def hessian_by(f: Callable[..., Any], argnums: int | Sequence[int], what: str) -> Callable[..., Any]:
    """`hessian`; what its errors begin with."""
    both = _both(f, argnums, what, OF_ONE)
    return _named(jacobian(lambda *args, **kwargs: both(*args, **kwargs)[1], argnums), "hessian", f)


def jvp(f: Callable[..., Any], primals: Any, tangents: Any) -> tuple[Any, Any]:
    """f and its derivative along a direction (forward mode): one call of f and one forward pass.

    A tangent that comes out infinite or NaN is computed once more, by a backward pass, so that forward mode has a
    number wherever `grad` has one.

    Parameters
    ----------
    f : callable
        Its result may have any structure of numbers and arrays.
    primals : tuple, or anything else as the only argument
        The arguments: numbers, arrays, Tensors, and lists, tuples and dictionaries of these.
    tangents
        The direction: the same structure and shapes.

    Returns
    -------
    value, tangent
        f(*primals), and the derivative in the same structure.

    Raises
    ------
    TypeError
        If an argument, a tangent or the result holds anything but real numbers, Tensors and arrays of them.
    ValueError
        If `tangents` has other shapes than `primals`.

    Examples
    --------
    >>> import fastscalar as fs
    >>> fs.jvp(lambda x, y: x * y, (2.0, 3.0), (1.0, 10.0))
    (6.0, 23.0)
    """
    primals = as_arguments(primals)
    run = Run(f, primals, {}, tuple(range(len(primals))), "jvp")
    directions = _directions(tangents, primals, "jvp")
    with _modes.record() if run.recorded else _core.no_grad():
        along = [d * 1.0 if isinstance(d, Tensor) else Tensor(d) for d in directions]
        found = dict(zip(run.tensors, along, strict=True))
        # In `t - t` the two paths cancel only where adjoints are added up: before they meet t's slope, infinite or NaN.
        ends: dict[Tensor, Any] = {}
        for root in (e for leaf in leaves_of(run.result, "the result", "jvp") for e in leaf.elements):
            if isinstance(root, Tensor) and root not in found:
                push(_inspect._reached(root, run.tensors), found)
                if root in found and not is_recording() and not isfinite(plain(found[root])):
                    ends[root] = dot(run.gradients(root, run.recorded), along)
        found |= ends

        def tangent(x: Any, where: str) -> Any:
            leaf = Leaf(x, where, "jvp")
            values = [found[e] + 0.0 if isinstance(e, Tensor) and e in found else Tensor(0.0) for e in leaf.elements]
            return leaf.build(run.give(values) if run.recorded else [plain(v) for v in values])

        return run.value(), map_structure(tangent, run.result, "the result")


def _directions(tangents: Any, primals: tuple[Any, ...], what: str) -> list[Any]:
    """The numbers of a direction, in the order of those of the arguments."""
    given = as_arguments(tangents)
    if len(given) != len(primals):
        raise ValueError(f"{what}: tangents: expected one for each of {len(primals)} arguments, got {len(given)}")
    if len(given) == 1 and given is not tangents:
        return elements_like(tangents, primals[0], "tangents", what)
    return elements_like(given, primals, "tangents", what)


def vjp(f: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """f and the function that takes adjoints of its results back to its arguments (reverse mode).

    Parameters
    ----------
    f : callable
        Its result may have any structure of numbers and arrays.
    *primals
        The arguments: numbers, arrays, Tensors, and lists, tuples and dictionaries of these.

    Returns
    -------
    value, back
        f(*primals), and a function of weights with the structure and shapes of the result.  It gives the gradient of
        the weighted sum of the results: a tuple with one entry for each argument.  Each call is one backward pass.

    Raises
    ------
    TypeError, ValueError
        As in `jvp`; `back` too, for weights of other shapes than the result.

    Examples
    --------
    >>> import numpy as np, fastscalar as fs
    >>> value, back = fs.vjp(lambda x: x ** 2, np.array([1.0, 2.0]))
    >>> back(np.array([1.0, 10.0]))
    (array([ 2., 40.]),)
    """
    run = Run(f, primals, {}, tuple(range(len(primals))), "vjp")
    leaves = leaves_of(run.result, "the result", "vjp")
    elements = [e for leaf in leaves for e in leaf.elements]

    def back(weights: Any) -> tuple[Any, ...]:
        root = _weighted(elements, elements_like(weights, run.result, "the weights", "vjp"))
        return run.like_inputs(run.give(run.gradients(root, run.recorded)))

    return run.value(), back


def hvp(f: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    """The Hessian of f times a vector, without the Hessian: a recorded backward pass and a plain one.

    Parameters
    ----------
    f : callable
        Its result is a single number.
    primals : tuple, or anything else as the only argument
        The arguments, as in `grad`.
    tangents
        The vector: the same structure and shapes.

    Returns
    -------
    The product, in the structure and shapes of `primals`: a tuple if that is one.

    Raises
    ------
    TypeError, ValueError
        As in `grad` and `jvp`.

    Examples
    --------
    >>> import numpy as np, fastscalar as fs
    >>> fs.hvp(lambda x: x[0] ** 2 * x[1], np.array([3.0, 5.0]), np.array([1.0, 0.0]))
    array([10.,  6.])
    """
    arguments = as_arguments(primals)
    run = Run(f, arguments, {}, tuple(range(len(arguments))), "hvp")
    directions = _directions(tangents, arguments, "hvp")
    along = _weighted(run.gradients(run.scalar(OF_ONE), True), directions)
    result = run.like_inputs(run.give(run.gradients(along, run.recorded)))
    return result if type(primals) is tuple else result[0]
