# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False
# What a node was computed from: as Tensors, and given as Tensors.

from fastscalar._core cimport T, Tensor, handle_of, lock_nodes, row, unlock_nodes
from fastscalar.engine.array_ops cimport free_wide, new_wide, node_of_exact, publish
from fastscalar.engine.memory cimport allocate, out_of_memory
from fastscalar.engine.tape cimport INDEX, RUN, W_AFFINE, W_CUSTOM, W_MAP1, W_MAP2, WIDE, Operand, Wide


cdef inline int list_operand(Operand *o, Py_ssize_t first, Py_ssize_t step, Py_ssize_t count, list out) except -1:
    cdef Py_ssize_t k
    if o.kind == RUN or o.kind == INDEX:
        for k in range(count):
            out.append(handle_of(node_of_exact(o, first + k * step)))
    return 0


cdef inline list parent_tensors(int i):
    """Tensors of the nodes that node i refers to; collection is locked out by the caller."""
    cdef list out = []
    cdef Wide *q
    cdef Py_ssize_t k
    if T.record[i].op != WIDE:
        if T.record[i].op > WIDE:
            out.append(handle_of(T.record[i].a))
            if row(T.record[i].op).arity == 2:
                out.append(handle_of(T.record[i].b))
        return out
    q = T.wide[T.record[i].a]
    k = T.record[i].b
    if q.op == W_AFFINE:
        list_operand(&q.x, (k // q.cols) * q.inner, 1, q.inner, out)
        list_operand(&q.y, k % q.cols, q.cols, q.inner, out)
        list_operand(&q.z, k % q.cols, 1, 1, out)
    elif q.op == W_MAP1 or q.op == W_MAP2:
        list_operand(&q.x, k if q.x.count > 1 else 0, 1, 1, out)
        list_operand(&q.y, k if q.y.count > 1 else 0, 1, 1, out)
    else:
        list_operand(&q.x, 0, 1, q.x.count, out)
        list_operand(&q.y, 0, 1, q.y.count, out)
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
    cdef Wide *q = new_wide(W_CUSTOM, 1)
    q.x.index = <int *>allocate(len(given) * sizeof(int))
    if q.x.index == NULL:
        free_wide(q)
        out_of_memory("Tensor(data, parents)", len(given))
    q.x.kind = INDEX
    q.x.count = <int>len(given)
    for k in range(q.x.count):
        q.x.index[k] = (<Tensor>given[k]).index
    T.value[T.n] = v
    publish(q)
    t.index = q.start
    T.handle[q.start] = <void *>t
    q.handles = 1
    return 0
