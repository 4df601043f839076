# cython: language_level=3, wraparound=False, cdivision=True
# What a node was computed from: as Tensors, and given as Tensors.

from fastscalar._core cimport tape, Tensor, handle_of, lock_nodes, unlock_nodes
from fastscalar.engine.array_ops cimport free_array_op, new_array_op, publish
from fastscalar.engine.memory cimport allocate, out_of_memory
from fastscalar.engine.passed cimport operand, operand_count
from fastscalar.engine.tape cimport INDEX, A_CUSTOM, ArrayOp


cdef inline list parent_tensors(int i):
    """Tensors of the nodes that node i refers to; collection is locked out by the caller."""
    cdef list out = []
    cdef Py_ssize_t k
    cdef int p
    for k in range(operand_count(i)):
        p = operand(i, k, NULL)
        if p:
            out.append(handle_of(p))
    return out


cdef inline list parents(Tensor t):
    lock_nodes()                               # making a list may run Python's collector, and that anything
    try:
        return parent_tensors(t.index)
    finally:
        unlock_nodes()


cdef inline int emit_custom(Tensor t, double v, list given) except -1:
    """The node of a user's own operation: after the safepoint, nothing here runs Python."""
    cdef Py_ssize_t k
    cdef ArrayOp *q = new_array_op(A_CUSTOM, 1)
    q.x.index = <int *>allocate(len(given) * sizeof(int))
    if q.x.index == NULL:
        free_array_op(q)
        out_of_memory("Tensor(data, parents)", len(given))
    q.x.kind = INDEX
    q.x.count = <int>len(given)
    for k in range(q.x.count):
        q.x.index[k] = (<Tensor>given[k]).index
    tape.value[tape.n] = v
    publish(q)
    t.index = q.start
    tape.handle[q.start] = <void *>t
    q.handles = 1
    return 0
