"""What the package warns of, and at which line: the user's.

The boundary: knows nothing of the package but its folder and what forks wait for; programs, transforms and nets warn
through it.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from fastscalar._imports import writing
from fastscalar._paths import PACKAGE


class CompileWarning(UserWarning):
    """A program, or a part of its rows, runs eagerly; the message says why and what to write instead.

    >>> import fastscalar as fs, warnings
    >>> def triple(x):                               # an operation by hand, as in the article
    ...     out = fs.Tensor(3.0 * x.data, (x,))
    ...     def step():
    ...         x.grad += 3.0 * out.grad
    ...     out._backward = step
    ...     return out
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     fs.compile(triple)(2.0)
    6.0
    >>> caught[0].category.__name__
    'CompileWarning'
    """


class GradientLossWarning(UserWarning):
    """Inside a function that is being differentiated a Tensor became a plain number, and its gradient is gone.

    The usual cause is `math.exp(x)` of Python's own module where `fastscalar.math.exp(x)` was meant.  A value that is
    only looked at (printed, compared with a tolerance) is read as `x.data`, which does not warn.
    """


LOG = logging.getLogger("fastscalar")  # epochs, downloads, what falls back; silent until it is given a handler
LOG.addHandler(logging.NullHandler())


def warn(message: str, category: type[Warning] = CompileWarning) -> None:
    """A warning at the line of the user's that led to it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    with writing():
        LOG.warning(message)
    warnings.warn(message, category, stacklevel=level)


def warn_of_loss(file: str, line: int, module: str | None, names: dict[str, Any]) -> None:
    """Warn, at a line of the user's, of a number that lost its gradient there."""
    warnings.warn_explicit(
        f"{file}:{line}: a Tensor that is being differentiated became a plain number here, and its gradient is gone; "
        "use fastscalar.math instead of math, arrays of dtype=object for Tensors, or .data if only the value is wanted",
        GradientLossWarning,
        file,
        line,
        module=module or "?",  # None would drop the warning
        registry=names.setdefault("__warningregistry__", {}),
    )
