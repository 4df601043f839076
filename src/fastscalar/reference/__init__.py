"""The twin: the article's framework in pure Python, corrected; the specification of the engine.

`fastscalar.reference` has the names and the numbers of `fastscalar` itself, in code that can be read from top to
bottom.  The engine is tested against it: scalar code agrees bit for bit, values and gradients, and so does the
forward pass of layers.  (Two functions aside: Python has a `lgamma` and a `gamma` of its own, which differ from those
of the C library by some units in the last place.)  It is also the baseline that the benchmarks compare with.

`framework` is the file to read first: Tensor, layers, a loss, SGD, in at most 150 lines.  `numbers` is what a Tensor is
beside arithmetic, `operators` and `functions` give it the other operations, `sequences` and `losses` stand beside it.

>>> a, b = Tensor(2), Tensor(3)
>>> x = a * b
>>> z = x + x
>>> z.backward()
>>> a.grad, b.grad, x.grad, z.grad
(6.0, 4.0, 2.0, 1.0)
"""

from fastscalar.reference import functions  # noqa: F401 - puts its table into Tensor
from fastscalar.reference.framework import _DERIVATIVES, MLP, Linear, Tensor, relu, sgd, to_tensor
from fastscalar.reference.layers import initial_weights
from fastscalar.reference.losses import cross_entropy, mse_loss, squared_loss
from fastscalar.reference.operators import no_grad
from fastscalar.reference.sequences import (
    _lift,
    argmax,
    argmin,
    clip,
    dot,
    elu,
    gelu,
    leaky_relu,
    log_softmax,
    logsumexp,
    max,  # noqa: F401 - these three are not in __all__: `import *` must not hide the built-in ones
    maximum,
    mean,
    min,  # noqa: F401
    minimum,
    norm,
    prod,
    sigmoid,
    sign,
    silu,
    softmax,
    softplus,
    sum,  # noqa: F401
    total,
    where,
)


def __getattr__(name):
    """A function of the table that has no name above."""
    if name in _DERIVATIVES and hasattr(Tensor, name):
        return _lift(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "MLP",
    "Linear",
    "Tensor",
    "argmax",
    "argmin",
    "clip",
    "cross_entropy",
    "dot",
    "elu",
    "gelu",
    "initial_weights",
    "leaky_relu",
    "log_softmax",
    "logsumexp",
    "maximum",
    "mean",
    "minimum",
    "mse_loss",
    "no_grad",
    "norm",
    "prod",
    "relu",
    "sgd",
    "sigmoid",
    "sign",
    "silu",
    "softmax",
    "softplus",
    "squared_loss",
    "to_tensor",
    "total",
    "where",
]
