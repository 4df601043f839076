"""Functions in, functions out: `grad`, `jacobian`, `hessian` and their relatives, and the check by differences.

`transforms` has what users call, `inputs` the structures that go in and come out, `recorded` the sweeps that can be
differentiated again, `rules` the derivative of each operation, `sparsity` which entries of a Jacobian are zero,
`watch` the warning about Tensors that became plain numbers, `gradcheck` the check.  Nothing here knows programs or
nets.
"""

from fastscalar._core import _register
from fastscalar.engine._modes import hearing
from fastscalar.transforms.gradcheck import GradCheck, gradcheck
from fastscalar.transforms.recorded import record_backward
from fastscalar.transforms.transforms import grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp
from fastscalar.transforms.watch import became_a_number

__all__ = ["GradCheck", "grad", "gradcheck", "hessian", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]

_register(hearing(became_a_number), record_backward)  # the engine calls what it cannot import
