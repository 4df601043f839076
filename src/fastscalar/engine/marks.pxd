# cython: language_level=3, wraparound=False, cdivision=True
# The marks of a backward pass: what it reaches, and the way from one reached node to the next.
#
# One sweep from the root down, in reverse creation order.  A node that is reached for the first time gets its mark and
# gradient 0.0 at that moment; all its contributions come from younger nodes, so when the sweep arrives its gradient is
# complete.  (Why not two passes: docs/design/0003.)  Structure decides what is reached, never the value of a gradient.
# ZERO SENDS ZERO: a gradient that is exactly 0.0 or -0.0 contributes nothing, whatever the slope, so that 0 * inf makes
# no NaN of what `where`, `relu` or `maximum` did not choose; its operands are reached and reset all the same.  Nor does
# anything pass a slope that is zero (docs/design/0010).  A leaf has nothing to pass on: instead of a mark it gets the
# number of the sweep, and is not visited (dot products of distinct leaves: 1.35x faster, two builds in turn).
#
#        older                                   younger
#   ... p ....... q ....... [i] ........ root        invariant at node i: everything younger has been processed and has
#       ^         ^          |                       no mark; everything marked is older and reached from the root;
#       +---------+----------+ contributions         the summary bytes of every marked node are set
#
# The next marked node is found by looking one node down, else 8 at a time, else through summaries of 64, 4,096 and
# 262,144 nodes: what lies on the tape between two reached nodes costs nothing.
#
# An array operation is processed once, at its youngest marked output.  `whole`: all its outputs were reached at once
# (by another array operation); else each reached element has its mark, and its step is done one by one, unless all
# are marked: MLP 784-256-10 of which one output is used, 6,000 to 100 us.

from libc.string cimport memcpy, memset

from fastscalar._core cimport tape
from fastscalar.engine.array_ops cimport enter_row, materialise, node_of, reset_leaf
from fastscalar.engine.checked cimport require
from fastscalar.engine.tape cimport CONST, INDEX, RUN, STRIDED, A_LEAF, ARRAY_OP, Layout, Operand, Record, ArrayOp


cdef inline void mark_summaries(int p) noexcept nogil:
    tape.mark64[p >> 6] = 1
    tape.mark4k[p >> 12] = 1
    tape.mark256k[p >> 18] = 1


cdef inline void mark_node(int p) noexcept nogil:
    require(0 < p < tape.n)
    tape.mark[p] = 1
    if not tape.mark64[p >> 6]:
        mark_summaries(p)


cdef inline Py_ssize_t last_set(const unsigned char *byte, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    """The last index in low..high - 1 whose byte is not zero, else -1."""
    cdef unsigned long long word
    while high - 8 >= low:
        memcpy(&word, byte + high - 8, 8)
        if word:
            break
        high -= 8
    while high > low:
        high -= 1
        if byte[high]:
            return high
    return -1


cdef inline int previous(int i) noexcept nogil:
    """The next marked node below i, 0 if there is none; clears the summaries of the groups that it leaves."""
    cdef Py_ssize_t g = i >> 6, h = i >> 12, k = i >> 18, p
    p = last_set(tape.mark, g << 6, i)
    if p >= 0:
        return <int>p
    tape.mark64[g] = 0
    p = last_set(tape.mark64, h << 6, g)
    if p < 0:
        tape.mark4k[h] = 0
        p = last_set(tape.mark4k, k << 6, h)
        if p < 0:
            tape.mark256k[k] = 0
            p = last_set(tape.mark256k, 0, k)
            if p < 0:
                return 0
            p = last_set(tape.mark4k, p << 6, (p + 1) << 6)
        p = last_set(tape.mark64, p << 6, (p + 1) << 6)
    return <int>last_set(tape.mark, p << 6, (p + 1) << 6)


cdef inline int clear_run(ArrayOp *q, int i) noexcept nogil:
    """Clear the marks of a run and the summaries that lie wholly in it; its first node."""
    cdef int k
    memset(tape.mark + q.start, 0, i - q.start + 1)
    for k in range((q.start >> 6) + 1, (i >> 6) + 1):
        tape.mark64[k] = 0
    for k in range((q.start >> 12) + 1, (i >> 12) + 1):
        tape.mark4k[k] = 0
    for k in range((q.start >> 18) + 1, (i >> 18) + 1):
        tape.mark256k[k] = 0
    return q.start


cdef inline void list_array_op(ArrayOp *q) noexcept nogil:
    if not q.listed:
        q.listed = True
        q.next_listed = tape.first_listed
        tape.first_listed = q.slot


cdef inline void first_touch(int p) noexcept nogil:
    """Node p is reached for the first time in this sweep, or touched by a single step outside one.  Where its gradient
    stays, it is added to: -0.0, which nobody but a user can have set, becomes 0.0 whatever is added."""
    cdef ArrayOp *q
    cdef bint leaf = False
    if tape.record[p].op <= CONST:
        if not tape.sweeping:
            tape.grad[p] += 0.0
        elif tape.record[p].b != tape.number:
            tape.record[p].b = tape.number
            tape.grad[p] = tape.grad[p] + 0.0 if tape.accumulate else 0.0
        return
    if tape.record[p].op == ARRAY_OP:
        q = tape.array_ops[tape.record[p].a]
        leaf = q.op == A_LEAF
        if leaf:
            materialise(q)
            enter_row(q, tape.record[p].b // q.cols)
        if not tape.sweeping:
            tape.grad[p] += 0.0
        if q.whole or not tape.sweeping:
            return
        q.partial += 1
        list_array_op(q)
    elif not tape.sweeping:
        tape.grad[p] += 0.0
        return
    mark_node(p)
    tape.grad[p] = tape.grad[p] + 0.0 if leaf and tape.accumulate else 0.0


cdef inline void mark_reached(int p) noexcept nogil:
    if not tape.mark[p]:
        first_touch(p)


cdef inline void mark_run_reached(int start, int count, bint enter) noexcept nogil:
    """Touch consecutive nodes of one instruction.  `enter`: the caller writes every row of an array of leaves."""
    cdef ArrayOp *q = tape.array_ops[tape.record[start].a]
    cdef int offset = tape.record[start].b, k, row
    cdef bint leaf = q.op == A_LEAF
    if tape.sweeping and not q.whole and count != q.count:
        mark_part_reached(q, start, count)
        return
    if leaf and (q.whole or tape.accumulate or not tape.sweeping):
        materialise(q)
    if tape.sweeping and not q.whole:
        if leaf and not tape.accumulate:
            if q.partial == 0:
                reset_leaf(q)
            else:
                for k in range(q.n_touched):
                    row = q.start + q.touched_rows[k] * q.cols
                    reset_unmarked(row, row + q.cols)
        elif not leaf:
            reset_unmarked(start, start + count)
            mark_node(start + count - 1)         # where the sweep will find it
        q.whole = True
        list_array_op(q)
    if leaf and enter:
        for row in range(offset // q.cols, (offset + count - 1) // q.cols + 1):
            enter_row(q, row)


cdef inline void mark_part_reached(ArrayOp *q, int start, int count) noexcept nogil:
    """Touch some consecutive nodes of a run, as `first_touch` does one by one: a row of a data set of leaves."""
    cdef int k, row
    cdef bint reset = not (q.op == A_LEAF and tape.accumulate)
    if q.op == A_LEAF:
        materialise(q)
        for row in range((start - q.start) // q.cols, (start - q.start + count - 1) // q.cols + 1):
            enter_row(q, row)
    list_array_op(q)
    for k in range(start, start + count):
        if not tape.mark[k]:
            q.partial += 1
            mark_node(k)
            tape.grad[k] = 0.0 if reset else tape.grad[k] + 0.0


cdef inline void reset_unmarked(int start, int stop) noexcept nogil:
    cdef int k
    for k in range(start, stop):
        if not tape.mark[k]:
            tape.grad[k] = 0.0


cdef inline void mark_operand_reached(Operand *o) noexcept nogil:
    cdef int k
    if o.kind == RUN:
        mark_run_reached(o.start, o.count, True)
    elif o.kind == STRIDED:
        mark_strided_reached(o.start, o.layout)
    elif o.kind == INDEX:
        for k in range(o.count):
            mark_reached(o.index[k])


cdef inline void mark_strided_reached(int start, const Layout *l) noexcept nogil:
    """Each node once, however often it is broadcast."""
    cdef Py_ssize_t[16] at
    cdef Py_ssize_t p = start
    cdef int d
    if l.span:
        mark_run_reached(start + l.first, l.span, True)
        return
    memset(at, 0, sizeof(at))
    while True:
        mark_reached(<int>p)
        d = l.ndim - 1
        while d >= 0:
            if l.stride[d]:
                at[d] += 1
                p += l.stride[d]
                if at[d] < l.shape[d]:
                    break
                p -= l.stride[d] * l.shape[d]
                at[d] = 0
            d -= 1
        if d < 0:
            return


cdef inline void add_to(Operand *o, Py_ssize_t k, double g) noexcept nogil:
    """Add to the gradient of an element that was touched; numbers have none."""
    cdef int p = node_of(o, k)
    if p:
        tape.grad[p] += g


cdef inline void contribute(int p, double g) noexcept nogil:
    require(0 < p < tape.n)
    mark_reached(p)
    tape.grad[p] += g


cdef inline void reach(int p, double g, unsigned char *mark, unsigned char *mark64, double *grad,
                       Record *record, int number, bint plain) noexcept nogil:
    """`contribute` for the common case: a scalar node, gradients not accumulated."""
    require(0 < p < tape.n)
    if mark[p]:
        grad[p] += g
    elif plain and record[p].op > ARRAY_OP:
        mark[p] = 1
        if not mark64[p >> 6]:
            mark_summaries(p)
        grad[p] = 0.0 + g
    elif plain and record[p].op < ARRAY_OP and record[p].b != number:
        record[p].b = number
        grad[p] = 0.0 + g
    else:
        contribute(p, g)


cdef inline void forget_sweeps() noexcept nogil:
    """After two thousand million sweeps: no leaf was reached by any."""
    cdef Py_ssize_t i
    for i in range(tape.n):
        if tape.record[i].op <= CONST:
            tape.record[i].b = 0
    tape.number = 1


cdef inline void tidy_sweep() noexcept nogil:
    cdef ArrayOp *q
    cdef int i = tape.at
    while i > 0:
        tape.mark[i] = 0
        i = previous(i)
    while tape.first_listed >= 0:
        q = tape.array_ops[tape.first_listed]
        tape.first_listed = q.next_listed
        q.listed = q.whole = False
        q.partial = q.done = 0
