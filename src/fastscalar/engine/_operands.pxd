# What may stand for numbers or Tensors, made an operand.  Private, not an API.

from fastscalar._core cimport LAYOUT_DIMS, Operand
from fastscalar.engine._array cimport MAX_DIMS, TensorArray


cdef class Source:
    cdef TensorArray array      # one of: an array,
    cdef list tensors           # Tensors in row-major order,
    cdef double *number         # numbers in row-major order (owned),
    cdef int *column            # with `row`: only the non-zero ones (owned)
    cdef int *row
    cdef int ndim
    cdef Py_ssize_t[MAX_DIMS] shape
    cdef Py_ssize_t count
    cdef bint laid              # by `lay_out`: the instruction reads it in other than its own order
    cdef int loops
    cdef Py_ssize_t[LAYOUT_DIMS] loop
    cdef Py_ssize_t[LAYOUT_DIMS] stride


cdef int check_terms(Py_ssize_t count, str what) except -1
cdef Source source(object x, str what)
cdef Source sparse_source(object x, str what)
cdef int flatten(object x, Source s, int level, str what) except -1
cdef int resolve(Source s, Operand *o, str what) except -1
cdef void own_strides(Source s, Py_ssize_t *stride) noexcept
cdef int broadcast(Source x, Source y, Py_ssize_t *shape, Py_ssize_t *xs, Py_ssize_t *ys, str what) except -1
cdef void lay_out(Source x, Source y, int ndim, int kept, const Py_ssize_t *shape, const Py_ssize_t *xs,
                  const Py_ssize_t *ys) noexcept
cdef object array_like(x)
cdef bint same_shape(Source s, Source t) noexcept
cdef tuple shape_of(Source s)
