# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# Weights of narrow layers lie turned, a row for each output, while such a layer is trained by single dense rows.
# Inline parts of `_replay`.
#
# 784 x 10 floats with rows of 16 are more than the first-level cache has, 50 KB, and half of each vector is padding:
# product and update take 0.60 us.  Turned they are 31 KB, and take 0.30.

from fastscalar.program._kernels cimport *
from fastscalar.program._replay cimport *
from fastscalar.program.plan cimport *

cdef enum:
    NARROW = 16             # outputs


cdef inline bint can_turn(Replay r, const Product *p) noexcept nogil:
    """Whether nothing but the product and its update reads the weights, in a run of single dense rows."""
    cdef const Input *x = &r.input[max(0, p.whole_input)]
    return (p.whole_input >= 0 and x.own != NULL and x.begin == NULL and not x.dense and not p.exact
            and r.fused[p.matrix] and not r.by_rows and r.decay == 0.0
            and 1 < r.plan.body.matrices[p.matrix].cols <= NARROW)


cdef inline Py_ssize_t turned_ld(const Matrix *m) noexcept nogil:
    """Not a multiple of a page, which would put rows into the same places of a cache."""
    return (m.rows + PAD - 1) // PAD * PAD + PAD


cdef inline void turn(Replay r, int matrix, bint back, real tag) noexcept nogil:
    cdef const Matrix *m = &r.plan.body.matrices[matrix]
    cdef real *w = <real *>r.uniform + m.base
    cdef real *turned = <real *>r.turned[matrix]
    if back:
        r.kernels.transpose(w, m.ld, turned, turned_ld(m), m.cols, m.rows, False)
    else:
        r.kernels.transpose(turned, turned_ld(m), w, m.ld, m.rows, m.cols, False)


cdef inline void turn_back(Replay r, real tag) noexcept nogil:
    """The end of a run."""
    cdef Py_ssize_t k
    for k in range(r.plan.n_matrices):
        if r.turned[k] != NULL:
            turn(r, <int>k, True, tag)
            r.turned[k] = NULL
