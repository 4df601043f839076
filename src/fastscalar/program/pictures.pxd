# cython: language_level=3, wraparound=False, cdivision=True
# Which nodes an image has whose patches an array operation reads.  An inline part of `_trace`.

from fastscalar._core cimport *
from fastscalar.program._graph cimport *


cdef inline int find_image(Graph g, ArrayOp *q, Py_ssize_t first, const int[::1] place, int[::1] image,
                           const int *number) except -1:
    """The nodes of an image, of which the operands from `first` on are what its patches read; others belong to none."""
    cdef Py_ssize_t k, pixels = image.shape[0]
    cdef int p
    for k in range(pixels):
        image[k] = -1
    for k in range(place.shape[0]):
        if place[k] >= 0:
            image[place[k]] = number[q.x.index[first + k]] - 1
    for k in range(1, pixels):                   # what no patch reaches: so that all lie side by side, if there is one
        p = image[k - 1] + 1
        if image[k] < 0 and 0 < p < g.n and g.op_[p] == g.op_[p - 1] and g.a_[p] == g.a_[p - 1]:
            image[k] = p
    for k in range(pixels):
        if image[k] < 0:
            image[k] = g.constant(0.0)
    return 0
