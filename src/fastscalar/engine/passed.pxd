# cython: language_level=3, wraparound=False, cdivision=True
# The operands of a node, one by one, and which of them it passes a gradient to.

from cpython.object cimport Py_EQ, Py_GT, Py_LT

from fastscalar._core cimport row, tape
from fastscalar.engine.array_ops cimport node_of, value_of
from fastscalar.engine.marks cimport mark_node
from fastscalar.engine.tape cimport *


cdef inline Py_ssize_t operand_count(int i) noexcept nogil:
    """How many operands a node has."""
    cdef ArrayOp *q
    if tape.record[i].op != ARRAY_OP:
        return 0 if tape.record[i].op <= CONST else row(tape.record[i].op).arity
    q = tape.array_ops[tape.record[i].a]
    if q.op == A_AFFINE:
        return 2 * q.inner + (not q.dense)
    if q.op == A_MAP1 or q.op == A_MAP2:
        return row(q.code).arity
    if q.op == A_SUM or q.op == A_PROD or q.op == A_BEST:
        return q.inner
    if q.op == A_DOT:
        return 2 * q.inner
    if q.op == A_PICK:
        return 1
    if q.op == A_CUMSUM:
        return tape.record[i].b % q.inner + 1
    return 0 if q.op == A_LEAF else q.x.count + q.y.count


cdef inline int operand(int i, Py_ssize_t k, double *value) noexcept nogil:
    """The node of an operand; 0 for a number.  Its value, if that is asked for."""
    cdef ArrayOp *q
    cdef Operand *o
    cdef Py_ssize_t offset = tape.record[i].b, at, line
    cdef int p
    if tape.record[i].op != ARRAY_OP:
        p = tape.record[i].b if k else tape.record[i].a
        if value != NULL:
            value[0] = tape.value[p]
        return p
    q = tape.array_ops[tape.record[i].a]
    if q.op == A_AFFINE:
        if k < q.inner:
            o = &q.x
            at = offset // q.cols * q.inner + k
        elif k < 2 * q.inner:
            o = &q.y
            at = (k - q.inner) * q.cols + offset % q.cols
        else:
            o = &q.z
            at = offset % q.cols
    elif q.op == A_MAP1 or q.op == A_MAP2:
        o = &q.y if k else &q.x
        at = offset
    elif q.op == A_SUM or q.op == A_PROD or q.op == A_BEST or q.op == A_DOT:
        o = &q.x if k < q.inner else &q.y
        at = offset * q.inner + k % q.inner
    elif q.op == A_PICK:
        o = &q.x
        at = offset
    elif q.op == A_CUMSUM:
        o = &q.x
        at = offset // q.inner * q.inner + k
    else:
        o = &q.x if k < q.x.count else &q.y
        at = k if k < q.x.count else k - q.x.count
    if o.kind == SPARSE:
        if value != NULL:
            value[0] = 0.0
            line = offset // q.cols
            for at in range(o.row[line], o.row[line + 1]):
                if o.index[at] == k:
                    value[0] = o.value[at]
        return 0
    if value != NULL:
        value[0] = value_of(o, at)
    return node_of(o, at)


cdef inline Py_ssize_t taken(const ArrayOp *q, int i) noexcept nogil:
    """Which of its operands a node of a gather is."""
    return <Py_ssize_t>q.labels[0] * q.count + tape.record[i].b


cdef inline Py_ssize_t first_passed(int i, bint chosen, Py_ssize_t *stop) noexcept nogil:
    """The first of the operands of node i that it may pass a gradient to, and where they end: none of what only says
    which operand it is, or at which place the best one is.  chosen: nor what is not the one that it is now."""
    cdef Py_ssize_t first = 0
    cdef ArrayOp *q
    stop[0] = operand_count(i)
    if tape.record[i].op != ARRAY_OP:
        return 0
    q = tape.array_ops[tape.record[i].a]
    if q.op == A_BEST and q.code > BEST_MIN:
        return stop[0]
    if q.op == A_WHERE:
        first = 3 if chosen and not q.labels[0] else 2
    elif q.op == A_BEST and chosen:
        first = q.labels[tape.record[i].b]
    elif q.op == A_GATHER:
        stop[0] = q.x.count                      # then comes the index
        if chosen and q.argument == 0:           # of one that is given with a row there is no node to hold it by
            first = taken(q, i)
            stop[0] = first + 1
    if chosen and (q.op == A_WHERE or q.op == A_BEST):
        stop[0] = first + 1
    return first


cdef inline bint may_have_gradient(int p) noexcept nogil:
    return p > 0 and tape.record[p].op != CONST


cdef inline bint is_leaf(int i) noexcept nogil:
    return tape.record[i].op == LEAF or (
        tape.record[i].op == ARRAY_OP and tape.array_ops[tape.record[i].a].op == A_LEAF)


cdef inline void mark_once(int p) noexcept nogil:
    if p > 0 and not tape.mark[p]:
        mark_node(p)


cdef inline int list_choices(int i, list choices) except -1:
    """The comparisons by which a `where`, a `max` or a `min` is what it is, where another operand has a gradient; of an
    element that an index takes the index, which is compared with itself as it is now: -1."""
    cdef ArrayOp *q
    cdef Py_ssize_t k, first
    cdef int other, chosen
    if tape.record[i].op != ARRAY_OP:
        return 0
    q = tape.array_ops[tape.record[i].a]
    if q.op == A_WHERE and may_have_gradient(node_of(&q.x, 3 if q.labels[0] else 2)):
        choices.append((q.code, node_of(&q.x, 0), node_of(&q.x, 1)))
    elif q.op == A_BEST and q.code <= BEST_MIN:
        first = <Py_ssize_t>tape.record[i].b * q.inner
        chosen = node_of(&q.x, first + q.labels[tape.record[i].b])
        for k in range(first, first + q.inner):
            other = node_of(&q.x, k)
            if other != chosen and may_have_gradient(other):
                choices.append((Py_GT if q.code == BEST_MIN else Py_LT, other, chosen))
    elif q.op == A_GATHER and q.argument == 0:
        for k in range(tape.record[i].b, q.x.count, q.count):
            if k != taken(q, i) and may_have_gradient(node_of(&q.x, k)):
                choices.append((Py_EQ, node_of(&q.y, 0), -1))
                break
    return 0


cdef inline bint is_chosen(int i) noexcept nogil:
    """A `where`, an index and a maximum are no operations for the function itself: they give it one of their
    operands."""
    return tape.record[i].op == ARRAY_OP and tape.array_ops[tape.record[i].a].op in (A_WHERE, A_GATHER, A_BEST, A_PICK)
