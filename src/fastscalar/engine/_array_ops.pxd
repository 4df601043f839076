# Array operations for other modules.  Private, not an API.

from libc.math cimport exp, isinf, isnan, log

from fastscalar._core cimport Tensor, ArrayOp
from fastscalar.engine._array cimport TensorArray
from fastscalar.engine._operands cimport Source
from fastscalar.engine._traced cimport TracedInt

cdef TensorArray map1(int code, TensorArray x)
cdef object map2(int code, object left, object right)
cdef object gather(candidates, TracedInt index, Py_ssize_t at)
cdef TensorArray leaf_array(Source s, str what)
cdef TensorArray emit_affine(Source sx, Source sw, Source sb, str what)
cdef ArrayOp *begin(int op, Py_ssize_t count, Source x, Source y, Source z, str what) except NULL
cdef TensorArray end_array(ArrayOp *q, TensorArray array, int ndim, const Py_ssize_t *shape)
cdef Tensor end_scalar(ArrayOp *q, Tensor t)
cdef void compute_array_op(ArrayOp *q, double *out) noexcept nogil
cpdef Tensor total(x)
cdef TensorArray affine_rows(ArrayOp *q, TensorArray array, int ndim, const Py_ssize_t *shape, str what)


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
