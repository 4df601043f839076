# What makes items of array operations.  Private, not an API.

from fastscalar.engine.tape cimport ArrayOp
from fastscalar.program._graph cimport Graph


cdef bint add_items(Graph g, ArrayOp *q, int *number, dict callees) except -1
cdef long long count_operations(Py_ssize_t i, Py_ssize_t end) except -1
