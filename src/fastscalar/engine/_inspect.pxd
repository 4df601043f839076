# Sweeps that leave no trace, for other modules.

from fastscalar._core cimport Tensor

cdef bint reaches_leaf(int node, int before) except -1
cdef int find_gradients(Tensor root, const int *nodes, Py_ssize_t n, double *found) except -1
cdef int backward_or_nothing(Tensor root, bint accumulate) except -1
