"""What NumPy knows of arrays, for TensorArrays: methods, functions that are called as `np.sum(x)`, linear algebra.

The boundary: `engine` has the instructions (maps, sums along axes, products of two, elements put together anew) and
views; here is what they are called in NumPy, with its axes, shapes and errors.  Nothing here touches the tape.

    convert     what stands for an array, as one
    methods     methods of a TensorArray, its indices and assignments
    masks       comparisons while a program is recorded, which are decided for each row
    ufuncs      element-wise functions (`__array_ufunc__`)
    functions   all other functions of NumPy (`__array_function__`): reductions, products, statistics
    statistics  means, differences, covariances, polynomials, interpolation
    moves       those that only put elements elsewhere: joined, repeated, rolled, padded, sorted
    linalg      norms, systems of linear equations, inverses, determinants
    scalars     what is asked of a single Tensor
    copies      what Python's `copy` makes of both
"""

from __future__ import annotations

from fastscalar.arrays import copies, functions, masks, methods, scalars, ufuncs  # noqa: F401 - they register
from fastscalar.arrays.methods import METHODS
from fastscalar.engine import _array, _functions

_array.install(methods, {**METHODS, **copies.METHODS}, ufuncs.CODES)
_functions.add_methods({**scalars.METHODS, **copies.METHODS})
