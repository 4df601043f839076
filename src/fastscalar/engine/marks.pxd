# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False
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
# A wide instruction is processed once, at its youngest marked output.  `whole`: all its outputs were reached at once
# (by another wide instruction); else each reached element has its mark, and its step is done one by one, unless all
# are marked: MLP 784-256-10 of which one output is used, 6,000 to 100 us.

from libc.string cimport memcpy, memset

from fastscalar._core cimport T
from fastscalar.engine.array_ops cimport enter_row, materialise, node_of, reset_leaf
from fastscalar.engine.tape cimport CONST, INDEX, RUN, W_LEAF, WIDE, Operand, Record, Wide


cdef inline void mark_summaries(int p) noexcept nogil:
    T.mark64[p >> 6] = 1
    T.mark4k[p >> 12] = 1
    T.mark256k[p >> 18] = 1


cdef inline void mark_node(int p) noexcept nogil:
    T.mark[p] = 1
    if not T.mark64[p >> 6]:
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
    p = last_set(T.mark, g << 6, i)
    if p >= 0:
        return <int>p
    T.mark64[g] = 0
    p = last_set(T.mark64, h << 6, g)
    if p < 0:
        T.mark4k[h] = 0
        p = last_set(T.mark4k, k << 6, h)
        if p < 0:
            T.mark256k[k] = 0
            p = last_set(T.mark256k, 0, k)
            if p < 0:
                return 0
            p = last_set(T.mark4k, p << 6, (p + 1) << 6)
        p = last_set(T.mark64, p << 6, (p + 1) << 6)
    return <int>last_set(T.mark, p << 6, (p + 1) << 6)


cdef inline int clear_run(Wide *q, int i) noexcept nogil:
    """Clear the marks of a run and the summaries that lie wholly in it; its first node."""
    cdef int k
    memset(T.mark + q.start, 0, i - q.start + 1)
    for k in range((q.start >> 6) + 1, (i >> 6) + 1):
        T.mark64[k] = 0
    for k in range((q.start >> 12) + 1, (i >> 12) + 1):
        T.mark4k[k] = 0
    for k in range((q.start >> 18) + 1, (i >> 18) + 1):
        T.mark256k[k] = 0
    return q.start


cdef inline void list_wide(Wide *q) noexcept nogil:
    if not q.listed:
        q.listed = True
        q.next_listed = T.first_listed
        T.first_listed = q.slot


cdef inline void first_touch(int p) noexcept nogil:
    """Node p is reached for the first time in this sweep, or touched by a single step outside one."""
    cdef Wide *q
    cdef bint leaf = False
    if T.record[p].op <= CONST:
        if T.sweeping and T.record[p].b != T.number:
            T.record[p].b = T.number
            if not T.accumulate:
                T.grad[p] = 0.0
        return
    if T.record[p].op == WIDE:
        q = T.wide[T.record[p].a]
        leaf = q.op == W_LEAF
        if leaf:
            materialise(q)
            enter_row(q, T.record[p].b // q.cols)
        if q.whole or not T.sweeping:
            return
        q.partial += 1
        list_wide(q)
    elif not T.sweeping:
        return
    mark_node(p)
    if not (leaf and T.accumulate):
        T.grad[p] = 0.0


cdef inline void touch(int p) noexcept nogil:
    if not T.mark[p]:
        first_touch(p)


cdef inline void touch_run(int start, int count, bint enter) noexcept nogil:
    """Touch consecutive nodes of one instruction.  `enter`: the caller writes every row of an array of leaves."""
    cdef Wide *q = T.wide[T.record[start].a]
    cdef int offset = T.record[start].b, k, row
    cdef bint leaf = q.op == W_LEAF
    if T.sweeping and not q.whole and count != q.count:
        touch_part(q, start, count)
        return
    if leaf and (q.whole or T.accumulate or not T.sweeping):
        materialise(q)
    if T.sweeping and not q.whole:
        if leaf and not T.accumulate:
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
        list_wide(q)
    if leaf and enter:
        for row in range(offset // q.cols, (offset + count - 1) // q.cols + 1):
            enter_row(q, row)


cdef inline void touch_part(Wide *q, int start, int count) noexcept nogil:
    """Touch some consecutive nodes of a run, as `first_touch` does one by one: a row of a data set of leaves."""
    cdef int k, row
    cdef bint reset = not (q.op == W_LEAF and T.accumulate)
    if q.op == W_LEAF:
        materialise(q)
        for row in range((start - q.start) // q.cols, (start - q.start + count - 1) // q.cols + 1):
            enter_row(q, row)
    list_wide(q)
    for k in range(start, start + count):
        if not T.mark[k]:
            q.partial += 1
            mark_node(k)
            if reset:
                T.grad[k] = 0.0


cdef inline void reset_unmarked(int start, int stop) noexcept nogil:
    cdef int k
    for k in range(start, stop):
        if not T.mark[k]:
            T.grad[k] = 0.0


cdef inline void touch_operand(Operand *o) noexcept nogil:
    cdef int k
    if o.kind == RUN:
        touch_run(o.start, o.count, True)
    elif o.kind == INDEX:
        for k in range(o.count):
            touch(o.index[k])


cdef inline void add_to(Operand *o, Py_ssize_t k, double g) noexcept nogil:
    """Add to the gradient of an element that was touched; numbers have none."""
    cdef int p = node_of(o, k)
    if p:
        T.grad[p] += g


cdef inline void contribute(int p, double g) noexcept nogil:
    touch(p)
    T.grad[p] += g


cdef inline void reach(int p, double g, unsigned char *mark, unsigned char *mark64, double *grad,
                       Record *record, int number, bint plain) noexcept nogil:
    """`contribute` for the common case: a scalar node, gradients not accumulated."""
    if mark[p]:
        grad[p] += g
    elif plain and record[p].op > WIDE:
        mark[p] = 1
        if not mark64[p >> 6]:
            mark_summaries(p)
        grad[p] = 0.0 + g
    elif plain and record[p].op < WIDE and record[p].b != number:
        record[p].b = number
        grad[p] = 0.0 + g
    else:
        contribute(p, g)


cdef inline void forget_sweeps() noexcept nogil:
    """After two thousand million sweeps: no leaf was reached by any."""
    cdef Py_ssize_t i
    for i in range(T.n):
        if T.record[i].op <= CONST:
            T.record[i].b = 0
    T.number = 1


cdef inline void tidy_sweep() noexcept nogil:
    cdef Wide *q
    cdef int i = T.at
    while i > 0:
        T.mark[i] = 0
        i = previous(i)
    while T.first_listed >= 0:
        q = T.wide[T.first_listed]
        T.first_listed = q.next_listed
        q.listed = q.whole = False
        q.partial = q.done = 0
