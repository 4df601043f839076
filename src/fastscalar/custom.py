"""An operation of the user's own, in its tidy form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from fastscalar._core import Tensor
from fastscalar.engine._modes import require_operands_unchanged

Derivatives = Callable[..., Sequence[float] | float]


@overload
def custom_op(
    value: Callable[..., float], derivatives: Derivatives, *, name: str | None = None
) -> Callable[..., Tensor]: ...
@overload
def custom_op(
    *, derivatives: Derivatives, name: str | None = None
) -> Callable[[Callable[..., float]], Callable[..., Tensor]]: ...
def custom_op(
    value: Callable[..., float] | None = None,
    derivatives: Derivatives | None = None,
    *,
    name: str | None = None,
) -> Callable[..., Tensor] | Callable[[Callable[..., float]], Callable[..., Tensor]]:
    """A function of Tensors and numbers from a function of floats and its derivatives; without `value` a decorator.

    value: of as many floats as the operation has operands, gives a float.
    derivatives: of the same floats, gives the derivative by each of them, in order (a single number if there is one
    operand).  It is called in the backward pass; not if the result's gradient is zero, which contributes nothing.
    name: what `_op` says; the name of `value` if left out.

    The result records one node.  TypeError for operands that are neither Tensors nor numbers, ValueError if
    `derivatives` gives a wrong number of them.

    >>> import fastscalar as fs
    >>> area = fs.custom_op(lambda r: 3.0 * r * r, lambda r: 6.0 * r, name="area")
    >>> r = fs.Tensor(2.0)
    >>> a = area(r)
    >>> a.backward()
    >>> a, r.grad
    (Tensor(data=12.0), 12.0)
    >>> @fs.custom_op(derivatives=lambda a, b: (b, a))
    ... def times(a, b):
    ...     return a * b
    >>> times(r, 4)
    Tensor(data=8.0)
    """
    if derivatives is None:
        raise TypeError("custom_op: expected the derivatives, a function of the operands' values")
    if value is None:
        return lambda value: _operation(value, derivatives, name)
    return _operation(value, derivatives, name)


def _operation(value: Callable[..., float], derivatives: Derivatives, name: str | None) -> Callable[..., Tensor]:
    op = name if name is not None else getattr(value, "__name__", "custom")

    def operation(*operands: Tensor | float) -> Tensor:
        made_of = tuple(x if isinstance(x, Tensor) else Tensor(x) for x in operands)
        out = Tensor(value(*[x.data for x in made_of]), made_of, op)

        def step() -> None:
            require_operands_unchanged(out)
            if out.grad == 0.0:  # zero sends zero, whatever the derivatives are
                return
            nodes = out._parents  # not captured: a closure that holds only `out` keeps no other node
            found = derivatives(*[x.data for x in nodes])
            slopes = found if isinstance(found, Sequence) else [found]
            if len(slopes) != len(nodes):
                raise ValueError(f"{op}: {len(nodes)} operands but {len(slopes)} derivatives")
            for x, slope in zip(nodes, slopes, strict=True):
                if slope != 0.0:  # nothing passes it, also where the gradient is infinite
                    x.grad += out.grad * slope

        if out._parents:  # under no_grad it is a leaf
            step.derivatives = derivatives  # type: ignore[attr-defined]  # for a backward pass that is recorded
            out._backward = step
        return out

    operation.__name__ = operation.__qualname__ = op
    operation.__doc__ = value.__doc__
    return operation
