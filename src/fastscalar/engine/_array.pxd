# cython: language_level=3, wraparound=False, cdivision=True
# The data sheet of TensorArray.  Private, not an API.

from libc.string cimport memcpy, memset

from fastscalar._core cimport A_LEAF, ArrayOp, tape
from fastscalar.engine._traced cimport TracedInt
from fastscalar.engine.array_ops cimport enter_row, materialise, write_gradient

cdef enum:
    MAX_DIMS = 8


cdef class TensorArray:
    cdef int slot           # the array operation that it lies in, whose `arrays` counts it; -1: none
    cdef int ndim
    cdef Py_ssize_t offset  # of its first element in the run
    cdef Py_ssize_t[MAX_DIMS] shape_
    cdef Py_ssize_t[MAX_DIMS] strides_    # in nodes
    cdef bint fixed         # made of numbers by the user: its elements cannot be replaced
    cdef void *next         # a ring of all handles that came from one by views: what is assigned in one, all see
    cdef void *before


cdef class Operators:        # array operations, put in by `_array_ops`
    cdef object to_tensor
    cdef object map1(self, int code, TensorArray x)
    cdef object map2(self, int code, object left, object right)
    cdef object at(self, TensorArray candidates, TracedInt index, Py_ssize_t at)
    cdef object leaves(self, object values)


cdef TensorArray array_of(ArrayOp *q)


# --- where its elements lie -----------------------------------------------------------------------

cdef inline Py_ssize_t element_count(TensorArray a) noexcept:
    cdef Py_ssize_t count = 1
    cdef int d
    for d in range(a.ndim):
        count *= a.shape_[d]
    return count


cdef inline bint is_contiguous(TensorArray a) noexcept:
    cdef Py_ssize_t stride = 1
    cdef int d
    for d in range(a.ndim - 1, -1, -1):
        if a.shape_[d] != 1 and a.strides_[d] != stride:
            return False
        stride *= a.shape_[d]
    return True


cdef inline TensorArray hold(ArrayOp *q, TensorArray array, int ndim, const Py_ssize_t *shape):
    cdef Py_ssize_t stride = 1
    cdef int d
    array.slot = q.slot
    array.offset = 0
    array.next = array.before = <void *>array
    array.ndim = ndim
    for d in range(ndim - 1, -1, -1):
        array.shape_[d] = shape[d]
        array.strides_[d] = stride
        stride *= shape[d]
    q.arrays += 1
    return array


cdef inline TensorArray view_of(TensorArray a, Py_ssize_t offset, int ndim,
                                const Py_ssize_t *shape, const Py_ssize_t *strides):
    cdef TensorArray view = TensorArray.__new__(TensorArray)
    cdef int d
    view.ndim = ndim
    view.offset = offset
    for d in range(ndim):
        view.shape_[d] = shape[d]
        view.strides_[d] = strides[d]
    view.slot = a.slot
    view.fixed = a.fixed
    view.next = a.next
    view.before = <void *>a
    (<TensorArray>a.next).before = <void *>view
    a.next = <void *>view
    tape.array_ops[a.slot].arrays += 1
    return view


ctypedef struct Walk:           # over the elements of an array in row-major order
    Py_ssize_t[MAX_DIMS] at
    Py_ssize_t offset


cdef inline void step_walk(TensorArray a, Walk *w) noexcept:
    cdef int d = a.ndim - 1
    while d >= 0:
        w.at[d] += 1
        w.offset += a.strides_[d]
        if w.at[d] < a.shape_[d]:
            return
        w.offset -= a.strides_[d] * a.shape_[d]
        w.at[d] = 0
        d -= 1


cdef inline void start_walk(TensorArray a, Walk *w) noexcept:
    memset(w, 0, sizeof(Walk))
    w.offset = a.offset


cdef inline void list_nodes(TensorArray a, int *out) noexcept:
    cdef Walk w
    cdef Py_ssize_t k
    cdef int first = tape.array_ops[a.slot].start
    if is_contiguous(a):
        for k in range(element_count(a)):
            out[k] = <int>(first + a.offset + k)
        return
    start_walk(a, &w)
    for k in range(element_count(a)):
        out[k] = <int>(first + w.offset)
        step_walk(a, &w)


cdef inline void copy_out(TensorArray a, const double *column, double *out) noexcept:
    cdef const double *first = column + tape.array_ops[a.slot].start
    cdef Walk w
    cdef Py_ssize_t k
    if is_contiguous(a):
        memcpy(out, first + a.offset, element_count(a) * sizeof(double))
        return
    start_walk(a, &w)
    for k in range(element_count(a)):
        out[k] = first[w.offset]
        step_walk(a, &w)


cdef inline void copy_in(TensorArray a, bint gradients, const double *values) noexcept:
    cdef ArrayOp *q = tape.array_ops[a.slot]
    cdef double *first = (tape.grad if gradients else tape.value) + q.start
    cdef Walk w
    cdef Py_ssize_t k, n = element_count(a)
    if is_contiguous(a) and (not gradients or q.op != A_LEAF or n == q.count):
        if gradients and q.op == A_LEAF:         # all of it
            materialise(q)
            for k in range(q.count // q.cols):
                enter_row(q, <int>k)
        memcpy(first + a.offset, values, n * sizeof(double))
        return
    start_walk(a, &w)
    for k in range(n):
        if gradients:
            write_gradient(<int>(q.start + w.offset))
        first[w.offset] = values[k]
        step_walk(a, &w)
