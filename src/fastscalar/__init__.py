"""Scalar automatic differentiation at C-tape speed.

A `Tensor` is one number that remembers how it was computed; `backward()` leaves the derivative of a result with
respect to every number behind it.  The graph lives on a tape in the extension module `_core`; everything else is thin
Python.  `fastscalar.reference` has the same names in pure Python, a few pages, and gives the same numbers.

What may assume what (imports point one way, each room knows those to its right; a test holds it):

    cli -> play -> nn -> program -> transforms -> engine -> _core

>>> import fastscalar as fs
>>> a, b = fs.Tensor(2), fs.Tensor(3)
>>> x = a * b
>>> z = x + x
>>> z.backward()
>>> a.grad, b.grad, x.grad, z.grad
(6.0, 4.0, 2.0, 1.0)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastscalar import (
    _interpreter,  # noqa: F401 - first: it refuses a subinterpreter
    _table,
    article,
    datasets,
    debug,
    math,
    nn,
    optim,
    random,
    reference,
    schedules,
)
from fastscalar import arrays as _arrays  # noqa: F401 - what NumPy knows of arrays, for TensorArrays
from fastscalar._core import Tensor, no_grad, tape_info
from fastscalar._imports import importing
from fastscalar._table import *  # noqa: F403
from fastscalar._warnings import CompileWarning, GradientLossWarning
from fastscalar.custom import custom_op
from fastscalar.engine._array import TensorArray
from fastscalar.engine._array_ops import mse_loss, squared_loss, to_tensor
from fastscalar.functions import (
    argmax,
    argmin,
    clip,
    dot,
    elu,
    leaky_relu,
    log_softmax,
    logsumexp,
    mean,
    norm,
    prod,
    softmax,
    where,
)
from fastscalar.functions import (
    max as max,  # these three are not in __all__: `import *` must not hide the built-in ones
)
from fastscalar.functions import min as min
from fastscalar.functions import sum as sum
from fastscalar.nn.callbacks import EarlyStopping, StopTraining
from fastscalar.nn.evaluation import evaluate, predict, predict_proba
from fastscalar.nn.history import History
from fastscalar.nn.layers import MLP, Linear, load, relu
from fastscalar.nn.losses import binary_cross_entropy, cross_entropy, huber_loss
from fastscalar.nn.module import Module
from fastscalar.nn.optimizers import SGD, Adam, AdamW, RMSprop, sgd
from fastscalar.nn.training import fit
from fastscalar.program.api import Program, compile, load_program
from fastscalar.program.loops import loop, while_loop
from fastscalar.program.recorded import UnrecordedPath
from fastscalar.roots import implicit
from fastscalar.transforms import GradCheck, grad, gradcheck, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from fastscalar.version import __version__

if TYPE_CHECKING:
    from fastscalar import plot as plot
    from fastscalar import testing as testing
    from fastscalar.play.page import play as play


def __getattr__(name: str) -> Any:
    """What most programs never use is imported when it is."""
    if name in ("play", "plot", "testing"):
        with importing():
            return import_module(f"fastscalar.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "AdamW",
    "CompileWarning",
    "EarlyStopping",
    "GradCheck",
    "GradientLossWarning",
    "History",
    "Linear",
    "Module",
    "Program",
    "RMSprop",
    "StopTraining",
    "Tensor",
    "TensorArray",
    "UnrecordedPath",
    "__version__",
    "argmax",
    "argmin",
    "article",
    "binary_cross_entropy",
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
    "grad",
    "gradcheck",
    "hessian",
    "huber_loss",
    "hvp",
    "implicit",
    "jacobian",
    "jvp",
    "leaky_relu",
    "load",
    "load_program",
    "log_softmax",
    "logsumexp",
    "loop",
    "math",
    "mean",
    "mse_loss",
    "nn",
    "no_grad",
    "norm",
    "optim",
    "predict",
    "predict_proba",
    "prod",
    "random",
    "reference",
    "relu",
    "schedules",
    "sgd",
    "softmax",
    "squared_loss",
    "tape_info",
    "to_tensor",
    "value_and_grad",
    "vjp",
    "where",
    "while_loop",
]
__all__ += _table.__all__
