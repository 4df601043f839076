# cython: language_level=3, wraparound=False, cdivision=True
# What a node was computed from: as Tensors, and given as Tensors.

from fastscalar._core cimport tape, Tensor, handle_of, lock_nodes, row, unlock_nodes
from fastscalar.engine.array_ops cimport free_array_op, new_array_op, node_of, publish
from fastscalar.engine.memory cimport allocate, out_of_memory
from fastscalar.engine.tape cimport (INDEX, RUN, STRIDED, A_AFFINE, A_BEST, A_CUMSUM, A_CUSTOM, A_DOT, A_MAP1, A_MAP2,
                                     A_PICK, A_PROD, A_SUM, ARRAY_OP, Operand, ArrayOp)


cdef inline int list_operand(Operand *o, Py_ssize_t first, Py_ssize_t step, Py_ssize_t count, list out) except -1:
    cdef Py_ssize_t k
    if o.kind == RUN or o.kind == INDEX or o.kind == STRIDED:
        for k in range(count):
            out.append(handle_of(node_of(o, first + k * step)))
    return 0


cdef inline list parent_tensors(int i):
    """Tensors of the nodes that node i refers to; collection is locked out by the caller."""
    cdef list out = []
    cdef ArrayOp *q
    cdef Py_ssize_t k
    if tape.record[i].op != ARRAY_OP:
        if tape.record[i].op > ARRAY_OP:
            out.append(handle_of(tape.record[i].a))
            if row(tape.record[i].op).arity == 2:
                out.append(handle_of(tape.record[i].b))
        return out
    q = tape.array_ops[tape.record[i].a]
    k = tape.record[i].b
    if q.op == A_AFFINE:
        list_operand(&q.x, (k // q.cols) * q.inner, 1, q.inner, out)
        list_operand(&q.y, k % q.cols, q.cols, q.inner, out)
        list_operand(&q.z, k % q.cols, 1, 1, out)
    elif q.op == A_MAP1 or q.op == A_MAP2:
        list_operand(&q.x, k, 1, 1, out)
        list_operand(&q.y, k, 1, 1, out)
    elif q.op == A_SUM or q.op == A_DOT or q.op == A_PROD or q.op == A_BEST:
        list_operand(&q.x, k * q.inner, 1, q.inner, out)
        list_operand(&q.y, k * q.inner, 1, q.inner, out)
    elif q.op == A_PICK:
        list_operand(&q.x, k, 1, 1, out)
    elif q.op == A_CUMSUM:
        list_operand(&q.x, k // q.inner * q.inner, 1, k % q.inner + 1, out)
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
