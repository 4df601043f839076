# cython: language_level=3, wraparound=False, cdivision=True
# Places of the gradients of slots.  Inline parts of `_lower`.

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memset

from fastscalar.program._lower cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.ints cimport *
from fastscalar.program.plan cimport *


ctypedef struct Places:          # while they are given out
    int *adjoint                 # by slot
    const int *first             # by slot: the first one that is computed with it,
    const int *count             # and by that: how many are
    Ints[32] spare               # by the logarithm of their size: places that are free again
    Ints births                  # (at, count)
    int top


cdef inline int begin_gradient(Places *m, int slot) except -1:
    """Gradients of slots that are computed together lie together."""
    cdef int first = m.first[slot], n = m.count[first], size = 0, at, k
    if m.adjoint[slot] >= 0:
        return 0
    while 1 << size < n:
        size += 1
    if m.spare[size].n:
        m.spare[size].n -= 1
        at = m.spare[size].at[m.spare[size].n]
    else:
        at = m.top
        m.top += 1 << size
    for k in range(n):
        m.adjoint[first + k] = at + k
    push(&m.births, at)
    push(&m.births, n)
    return 0


cdef inline int begin_operand(Places *m, const Ref *r, int n) except -1:
    cdef int k
    if r.kind == R_SLOTS and r.mask:
        for k in range(n):
            begin_gradient(m, r.index[k] if r.index != NULL else r.start + k * r.step)
    return 0


cdef inline int begin_one_by_one(Places *m, const Ref *r, int n) except -1:
    cdef int k
    if r.kind == R_SLOTS and r.mask:
        for k in range(n):
            if r.index[k] >= 0:
                begin_gradient(m, r.index[k])
    return 0


cdef inline int begin_operands(Places *m, Plan p, const Instr *q) except -1:
    """What an instruction adds gradients to."""
    cdef const Term *t
    cdef int k
    if q.kind == I_ELEMENTS:
        begin_operand(m, &q.a, q.n)
        begin_operand(m, &q.b, q.n)
    elif q.kind == I_SUM:
        for k in range(p.sums[q.extra].first, p.sums[q.extra + q.n - 1].stop):
            t = &p.terms[k]
            if t.p_kind == R_SLOTS and t.p_mask:
                begin_gradient(m, t.p)
            if t.q_kind == R_SLOTS and t.q_mask:
                begin_gradient(m, t.q)
    elif q.kind == I_PACK:
        begin_one_by_one(m, &q.a, q.n)
    elif q.kind == I_BEST:
        begin_one_by_one(m, &q.a, p.items[q.extra].count)
    elif q.kind == I_WHERE:
        begin_operand(m, &p.items[q.extra].c, 1)
        begin_operand(m, &p.items[q.extra].d, 1)
    return 0


cdef inline int end_gradient(Places *m, const Instr *q) except -1:
    """An instruction is done, going backwards: the gradients of its outputs make room."""
    cdef int size = 0
    if m.adjoint[q.out] >= 0:
        while 1 << size < q.n:
            size += 1
        push(&m.spare[size], m.adjoint[q.out])
    return 0


cdef inline bint side_by_side(const Ref *r, int n, const int *adjoint) noexcept:
    cdef int k
    if r.kind != R_SLOTS or r.index != NULL or r.step != 1:
        return n == 1
    for k in range(n):
        if adjoint[r.start + k] != adjoint[r.start] + k:
            return False
    return True


cdef inline int place_gradients(Plan p) except -1:
    """A gradient is there from the last instruction that reads the slot back to the one that computes it.

    Those that take turns in one place stay in the nearest cache, and there is room for twice the rows: the ODE of the
    benchmarks with 7,700 operations, 128 rows, 1.1 ns an operation and row, 1.6 with a place for each; with 1,900
    operations 1.02 and 1.08."""
    cdef Places m
    cdef Py_ssize_t k
    cdef Instr *q
    cdef int[::1] adjoint = np.full(p.n_slots + 1, -1, np.int32), first = np.zeros(p.n_slots + 1, np.int32)
    cdef int[::1] count = np.zeros(p.n_slots + 1, np.int32), birth_of = np.zeros(p.n_per_row + 2, np.int32)
    cdef int j
    memset(&m, 0, sizeof(Places))
    m.adjoint, m.first, m.count = &adjoint[0], &first[0], &count[0]
    for k in range(p.n_per_row):
        q = &p.per_row[k]
        if q.run < 0:
            count[q.out] = q.n
            for j in range(q.n):
                first[q.out + j] = q.out
    try:
        for k in range(len(p.results)):
            if p.results[k, 0] == R_SLOTS:
                begin_gradient(&m, p.results[k, 1])
        birth_of[p.n_per_row] = <int>m.births.n
        for k in range(p.n_per_row - 1, -1, -1):
            q = &p.per_row[k]
            begin_operands(&m, p, q)
            birth_of[k] = <int>m.births.n
            if q.run < 0 and not (q.kind == I_UNPACK and q.a.run in p.input_run):        # those leave at the end
                end_gradient(&m, q)
        births = ints_array(&m.births).reshape(-1, 2)
    finally:
        PyMem_RawFree(m.births.at)
        for j in range(32):
            PyMem_RawFree(m.spare[j].at)
    for k in range(p.n_per_row):
        q = &p.per_row[k]
        q.a.together, q.b.together = side_by_side(&q.a, q.n, m.adjoint), side_by_side(&q.b, q.n, m.adjoint)
    # they were listed from the last instruction to the first
    p.births = np.ascontiguousarray(np.concatenate([births[::-1], np.zeros((1, 2), np.int32)]))
    ends = birth_of.base[:p.n_per_row + 1] // 2
    p.birth_of = np.full(len(ends) + 1, len(births), np.int32)
    p.birth_of[:len(ends)] -= ends
    p.adjoint, p.n_adjoints = adjoint.base, m.top
    return 0
