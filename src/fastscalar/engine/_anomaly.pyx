# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""What `debug.detect_anomaly` looks at: backward steps that make a gradient NaN, or meet a slope that is none.

The engine tells an Observer where it records and which steps it does; a block that is open costs every operation the
way through the safepoint, and every backward step two calls.
"""

from libc.math cimport isinf, isnan

from fastscalar._core cimport *
from fastscalar.engine.array_ops cimport elements_of, node_of, read_gradient, value_of
from fastscalar.engine.observers cimport start_anomaly, stop_anomaly
from fastscalar.engine.writes cimport has_nodes


cdef class Callbacks(Observer):
    """What a block was given, see `_Notes`."""
    cdef object where, explain, zero, forget

    cdef int here(self) except -1:
        return self.where()

    cdef int before_step(self, int i) except -1:
        return check_zeros(i, self.zero)

    cdef int after_step(self, int i) except -1:
        return check_step(i, self.explain)

    cdef int closed(self) except -1:
        self.forget()
        return 0


cdef class _Notes(_Block):
    """A block in which every safepoint notes `here()`, a small positive integer, for the nodes that come next, and a
    backward step that makes a gradient NaN raises `explain(its node, the operand)`.  Where a gradient of zero meets a
    slope that is infinite or NaN, or an infinite one a slope of zero, `zero(the node, the slope)` is called.  Blocks
    nest; when none is open any more, `forget()` is.

    Scalar operations take the slow path meanwhile, through the safepoint.
    """
    cdef Callbacks callbacks

    def __init__(self, here, explain, zero, forget):
        self.callbacks = Callbacks.__new__(Callbacks)
        self.callbacks.where, self.callbacks.explain = here, explain
        self.callbacks.zero, self.callbacks.forget = zero, forget

    cdef object enter(self, ThreadState state):
        start_anomaly(state, self.callbacks)

    cdef int leave(self, ThreadState state, object what) except -1:
        stop_anomaly(state, 1)
        return 0


def detects_anomalies():
    """Whether operations are noted at the moment: a program would not note its own."""
    return tape.anomaly_blocks > 0


cdef inline bint nan_gradient(int p) noexcept nogil:
    """Whether this sweep reached node p, not a number in an expression, and its gradient is NaN."""
    if p == 0 or not isnan(tape.grad[p]) or tape.record[p].op == CONST:
        return False
    if tape.record[p].op < ARRAY_OP:
        return tape.record[p].b == tape.number
    return tape.mark[p] or (tape.record[p].op == ARRAY_OP and tape.array_ops[tape.record[p].a].whole)


cdef int first_nan_gradient(Operand *o) noexcept nogil:
    cdef int k
    if has_nodes(o):
        read_gradient(node_of(o, 0))
        for k in range(elements_of(o)):
            if nan_gradient(node_of(o, k)):
                return node_of(o, k)
    return 0


cdef double element_partial(ArrayOp *q, int k) noexcept nogil:
    """A slope of output k that is infinite or NaN; 0.0: there is none that counts."""
    cdef double s = 0.0, x
    cdef Py_ssize_t j
    if q.op == A_MAP1 or q.op == A_MAP2:
        return worst_partial(q.code, value_of(&q.x, k), value_of(&q.y, k) if q.op == A_MAP2 else 0.0,
                             tape.value[q.start + k], has_nodes(&q.x), has_nodes(&q.y))
    for j in range(q.inner if q.op == A_AFFINE or q.op == A_DOT else 0):
        if has_nodes(&q.x):
            x = value_of(&q.y, j * q.cols + k % q.cols if q.op == A_AFFINE else k * q.inner + j)
            s = x if x - x != 0.0 else s
        if has_nodes(&q.y) and has_nodes(&q.x):
            x = value_of(&q.x, (k // q.cols if q.op == A_AFFINE else k) * q.inner + j)
            s = x if x - x != 0.0 else s
    return s


cdef double worst_partial(int code, double x, double y, double v, bint left, bint right) noexcept nogil:
    cdef double s = 0.0
    if row(code).arity == 1:
        s = row(code).d(x, v)
        return s if s - s != 0.0 else 0.0
    if left:
        s = row(code).da(x, y, v)
    if right and s - s == 0.0:
        s = row(code).db(x, y, v)
    return s if s - s != 0.0 else 0.0


cdef bint is_flat_at(int op, int a, int b, int i) noexcept nogil:
    """Whether a slope of scalar node i is zero by its numbers, not since the operation has chosen something else."""
    cdef double x = tape.value[a], y = tape.value[b], v = tape.value[i]
    if op in (RELU, ABS, SIGN, FLOOR, CEIL, TRUNC, MINIMUM, MAXIMUM, FLOORDIV, COPYSIGN):
        return False
    if row(op).arity == 1:
        return row(op).d(x, v) == 0.0
    return (tape.record[a].op != CONST and row(op).da(x, y, v) == 0.0) or (
        tape.record[b].op != CONST and row(op).db(x, y, v) == 0.0)


cdef int check_zeros(int i, zero) except -1:
    """Before the backward step of node i: report where a gradient of zero meets a slope that is infinite or NaN, and
    an infinite one a slope of zero."""
    cdef int op = tape.record[i].op, a, b, k, first, last
    cdef bint whole
    cdef double s = 0.0
    cdef ArrayOp *q
    if op < ARRAY_OP:
        return 0
    if op != ARRAY_OP:
        a, b = tape.record[i].a, tape.record[i].b
        if tape.grad[i] == 0.0:
            s = worst_partial(op, tape.value[a], tape.value[b], tape.value[i], tape.record[a].op != CONST,
                              tape.record[b].op != CONST)
        if s != 0.0 or (isinf(tape.grad[i]) and is_flat_at(op, a, b, i)):
            zero(handle_of(i), s)
        return 0
    q = tape.array_ops[tape.record[i].a]
    whole = q.whole or q.partial == q.count or q.count == 1
    first = 0 if whole else tape.record[i].b
    last = q.count if whole else first + 1
    for k in range(first, last):
        if tape.grad[q.start + k] == 0.0:
            s = element_partial(q, k)
            if s != 0.0:
                zero(handle_of(q.start + k), s)
                return 0
    return 0


cdef int check_step(int i, explain) except -1:
    """After the backward step of node i: raise if it made the gradient of an operand NaN."""
    cdef int p
    cdef ArrayOp *q
    if tape.record[i].op != ARRAY_OP:
        p = tape.record[i].a
        if not nan_gradient(p):
            p = tape.record[i].b
            if not nan_gradient(p):
                return 0
    else:
        q = tape.array_ops[tape.record[i].a]
        p = first_nan_gradient(&q.x) or first_nan_gradient(&q.y) or first_nan_gradient(&q.z)
        if p == 0:
            return 0
    raise explain(handle_of(i), handle_of(p))
