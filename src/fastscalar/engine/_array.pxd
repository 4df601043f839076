# The data sheet of TensorArray.  Private, not an API.

from libc.math cimport exp, isinf, isnan, log

from fastscalar._core cimport Wide
from fastscalar.engine._traced cimport TracedBool, TracedInt

cdef enum:
    MAX_DIMS = 8


cdef class TensorArray:
    cdef int slot           # the wide instruction that it lies in, whose `arrays` counts it; -1: none
    cdef int ndim
    cdef Py_ssize_t offset  # of its first element in the run
    cdef Py_ssize_t[MAX_DIMS] shape_
    cdef Py_ssize_t[MAX_DIMS] strides_    # in nodes


cdef TensorArray array_of(Wide *q)
cdef bint is_contiguous(TensorArray a) noexcept
cdef Py_ssize_t element_count(TensorArray a) noexcept
cdef void compute_wide(Wide *q, double *out) noexcept nogil


cdef inline double softmax_in_place(double *p, Py_ssize_t n) noexcept nogil:
    """The softmax of p, in its place; log(sum(exp(p))).  The largest is taken off first: exp() could overflow.

    Of infinities what it tends to: those at +inf share the whole; if all are -inf nothing has a share.  NaN stays."""
    cdef Py_ssize_t k
    cdef double shift = p[0], total = 0.0
    for k in range(1, n):
        if p[k] > shift:
            shift = p[k]
    for k in range(n):
        if isinf(shift):
            p[k] = p[k] if isnan(p[k]) else 1.0 if p[k] == shift and shift > 0.0 else 0.0
        else:
            p[k] = exp(p[k] - shift)
        total = total + p[k]
    if isinf(shift) and total == 0.0:
        return shift
    for k in range(n):
        p[k] = p[k] / total
    return log(total) + shift
