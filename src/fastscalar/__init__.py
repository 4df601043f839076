"""Scalar automatic differentiation at C-tape speed.

A `Tensor` is one number that remembers how it was computed; `backward()` leaves the derivative of a result with
respect to every number behind it.  The graph lives on a tape in the extension module `_core`; everything else is thin
Python.  `fastscalar.reference` has the same names in pure Python, a few pages, and gives the same numbers.

What may assume what (imports point one way, each part knows those to its right):

    cli -> training -> derivatives, nn, optim, datasets -> _array, _graph -> _core -> _scalar.pxd (formulas), _kernels.c
    training -> trainers -> evaluation -> samples -> programs -> _rewrite -> _replay (on _lanes.c) -> _program -> _array

>>> import fastscalar as fs
>>> a, b = fs.Tensor(2), fs.Tensor(3)
>>> x = a * b
>>> z = x + x
>>> z.backward()
>>> a.grad, b.grad, x.grad, z.grad
(6.0, 4.0, 2.0, 1.0)
"""

from fastscalar import article, datasets, debug, math, reference
from fastscalar._array import TensorArray, cross_entropy, mse_loss, squared_loss, to_tensor
from fastscalar._core import Tensor, no_grad, tape_info
from fastscalar.custom import custom_op
from fastscalar.derivatives import (
    GradientLossWarning,
    grad,
    hessian,
    hvp,
    jacobian,
    jvp,
    value_and_grad,
    vjp,
)
from fastscalar.differences import GradCheck, gradcheck
from fastscalar.evaluation import evaluate, predict
from fastscalar.functions import (
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
    where,
)
from fastscalar.nn import MLP, Linear, Module, load, relu
from fastscalar.optim import SGD, Adam, sgd
from fastscalar.programs import CompileWarning, Program, compile
from fastscalar.training import History, fit
from fastscalar.version import __version__

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "CompileWarning",
    "GradCheck",
    "GradientLossWarning",
    "History",
    "Linear",
    "Module",
    "Program",
    "Tensor",
    "TensorArray",
    "__version__",
    "argmax",
    "argmin",
    "article",
    "clip",
    "compile",
    "cross_entropy",
    "custom_op",
    "datasets",
    "debug",
    "dot",
    "elu",
    "evaluate",
    "fit",
    "gelu",
    "grad",
    "gradcheck",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "leaky_relu",
    "load",
    "log_softmax",
    "logsumexp",
    "math",
    "maximum",
    "mean",
    "minimum",
    "mse_loss",
    "no_grad",
    "norm",
    "predict",
    "prod",
    "reference",
    "relu",
    "sgd",
    "sigmoid",
    "sign",
    "silu",
    "softmax",
    "softplus",
    "squared_loss",
    "tape_info",
    "to_tensor",
    "value_and_grad",
    "vjp",
    "where",
]
