# What makes items of array operations.  Private, not an API.

from fastscalar.engine.tape cimport ArrayOp
from fastscalar.program._graph cimport Graph


cdef bint add_items(Graph g, ArrayOp *q, int *number, dict callees) except -1
