# cython: language_level=3, wraparound=False, cdivision=True
# Collection.
#
# Mark: from young to old, a node is alive if it has a handle or something alive refers to it.  Place: from old to
# young, everything alive gets its new index and operands are rewritten, while all records are where they were.  Slide.
# A young collection does this from tape.young on: nothing older can refer into the nursery, so no write barrier.
#
# ArrayOp instructions are visited once, whatever their length; `alive` and `new_start` stand in their struct, and a
# reference into a run is translated through the run's record.  So a collection beside 47 million pixels costs nothing.

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memmove, memset

from fastscalar._core cimport tape, Tensor
from fastscalar.engine.array_ops cimport free_array_op
from fastscalar.engine.attributes cimport release_pending
from fastscalar.engine.checked cimport CHECKED, broken_tape, require_whole
from fastscalar.engine.memory cimport could_enlarge, resize, set_limit
from fastscalar.engine.roots cimport (hide_weak_roots, keep, keep_closure, keep_gradients, reserve_weak_roots,
                                      restore_weak_roots)
from fastscalar.engine.tape cimport INDEX, NURSERY, RUN, STRIDED, A_CUSTOM, A_LEAF, ARRAY_OP, Operand, Record, ArrayOp
from fastscalar.engine.writes cimport merge_writes

cdef enum:
    BIG_LEAF = 65536         # a leaf array of this many nodes is not moved for less room than its own size
    YOUNG_BYTES = 4 << 20    # numbers held by young instructions that make a collection due
    OLD_BYTES = 32 << 20     # and by promoted ones, at least, that make a full one due


cdef inline void keep_operand(Operand *o, Py_ssize_t base) noexcept nogil:
    cdef int k
    if o.kind == RUN or o.kind == STRIDED:
        keep(o.start, base)
    elif o.kind == INDEX:
        for k in range(o.count):
            keep(o.index[k], base)


cdef inline Py_ssize_t mark_alive(Py_ssize_t base) noexcept nogil:
    cdef Py_ssize_t i = tape.n - 1, alive = 0
    cdef ArrayOp *q
    while i >= base:
        if tape.record[i].op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            i = q.start
            if q.alive or q.handles or q.arrays:
                q.alive = True
                alive += q.count
                keep_operand(&q.x, base)
                keep_operand(&q.y, base)
                keep_operand(&q.z, base)
                if q.op == A_CUSTOM and q.entry and tape.n_weak_roots:
                    keep_closure(&tape.attributes[q.entry - 1], base)
        elif tape.mark[i] or tape.handle[i] != NULL:
            tape.mark[i] = 1
            alive += 1
            if tape.record[i].op > ARRAY_OP:
                keep(tape.record[i].a, base)
                keep(tape.record[i].b, base)
        i -= 1
    return alive


cdef inline int place(int p, Py_ssize_t base) noexcept nogil:
    if p < base:
        return p
    if tape.record[p].op == ARRAY_OP:
        return tape.array_ops[tape.record[p].a].new_start + tape.record[p].b
    return tape.scratch[p - base]


cdef inline void place_operand(Operand *o, Py_ssize_t base) noexcept nogil:
    cdef int k
    if o.kind == RUN or o.kind == STRIDED:
        o.start = place(o.start, base)
    elif o.kind == INDEX:
        for k in range(o.count):
            o.index[k] = place(o.index[k], base)


cdef inline Py_ssize_t place_alive(Py_ssize_t base) noexcept nogil:
    cdef Py_ssize_t i = base, to = base, due
    cdef int k = tape.n_writes, first               # the next write to place, and where it stands
    cdef ArrayOp *q
    while k > 0 and tape.writes[k - 1].at > base:
        k -= 1
    first = k
    due = tape.writes[k].at if k < tape.n_writes else tape.n
    while i < tape.n:
        while i >= due:
            tape.writes[k].at = <int>to
            k += 1
            due = tape.writes[k].at if k < tape.n_writes else tape.n
        if tape.record[i].op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            if q.alive:
                if q.op == A_LEAF and q.count >= BIG_LEAF and i - to < q.count:
                    to = i                       # moving it costs more than the gap: `slide` fills that with leaves
                q.new_start = <int>to
                place_operand(&q.x, base)
                place_operand(&q.y, base)
                place_operand(&q.z, base)
                to += q.count
            i += q.count
        else:
            if tape.mark[i]:
                tape.scratch[i - base] = <int>to
                if tape.record[i].op > ARRAY_OP:
                    tape.record[i].a = place(tape.record[i].a, base)
                    tape.record[i].b = place(tape.record[i].b, base)
                to += 1
            i += 1
    while k < tape.n_writes:
        tape.writes[k].at = <int>to
        k += 1
    merge_writes(first)
    return to


cdef inline void slide(Py_ssize_t base) noexcept nogil:
    cdef Py_ssize_t i = base, to = base, k, count
    cdef ArrayOp *q
    while i < tape.n:
        if tape.record[i].op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            count = q.count
            if not q.alive:
                free_array_op(q)
            else:
                q.alive = False
                while to < q.new_start:
                    memset(&tape.record[to], 0, sizeof(Record))
                    tape.value[to] = tape.grad[to] = 0.0
                    tape.handle[to] = NULL
                    to += 1
                if to != i:
                    memmove(tape.value + to, tape.value + i, count * sizeof(double))
                    memmove(tape.grad + to, tape.grad + i, count * sizeof(double))
                    memmove(tape.record + to, tape.record + i, count * sizeof(Record))
                    memmove(tape.handle + to, tape.handle + i, count * sizeof(void *))
                    q.start = <int>to
                    if q.handles:
                        for k in range(to, to + count):
                            if tape.handle[k] != NULL:
                                (<Tensor>tape.handle[k]).index = <int>k
                to += count
            i += count
        else:
            if tape.mark[i]:
                tape.mark[i] = 0
                if to != i:
                    tape.value[to] = tape.value[i]
                    tape.grad[to] = tape.grad[i]
                    tape.record[to] = tape.record[i]
                    tape.handle[to] = tape.handle[i]
                    if tape.handle[to] != NULL:
                        (<Tensor>tape.handle[to]).index = <int>to
                to += 1
            i += 1
    tape.n = to


cdef inline void slide_sources(Py_ssize_t base) noexcept nogil:
    """As `slide`, before it, for the column that only `detect_anomaly` has."""
    cdef Py_ssize_t i = base
    cdef ArrayOp *q
    while i < tape.n:
        if tape.record[i].op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            if q.alive:
                memmove(tape.source + q.new_start, tape.source + i, q.count * sizeof(int))
            i += q.count
        else:
            if tape.mark[i]:
                tape.source[tape.scratch[i - base]] = tape.source[i]
            i += 1


cdef inline bint compact(Py_ssize_t base) noexcept nogil:
    """Forget what is dead from `base` on.  False, and nothing has changed, if there was no memory for it."""
    cdef Py_ssize_t size = tape.n - base, end = tape.n, alive, i
    if size > tape.scratch_size:
        if not could_enlarge(<void **>&tape.scratch, size, sizeof(int)):
            return False
        tape.scratch_size = size
    if not reserve_weak_roots(base):
        return False
    hide_weak_roots(base)
    alive = mark_alive(base)
    while keep_gradients(base):
        alive = mark_alive(base)
    restore_weak_roots(base)
    if alive != size:
        place_alive(base)
        if tape.source != NULL:
            slide_sources(base)
        slide(base)
    else:
        i = base
        while i < end:
            if tape.record[i].op == ARRAY_OP:
                tape.array_ops[tape.record[i].a].alive = False
                i += tape.array_ops[tape.record[i].a].count
            else:
                tape.mark[i] = 0
                i += 1
    return True


cdef inline void promote() noexcept nogil:
    """Everything in the nursery becomes old."""
    tape.promoted += tape.n - tape.young
    tape.old_bytes += tape.young_bytes
    tape.young_bytes = 0
    tape.young = tape.n
    tape.n_young_attributes = 0


cdef inline void count_alive(Py_ssize_t base, Py_ssize_t *nodes, size_t *held) noexcept nogil:
    """Nodes that are not in arrays of leaves, and what array operations own, from `base` on."""
    cdef Py_ssize_t i = base
    cdef ArrayOp *q
    nodes[0] = 0
    held[0] = 0
    while i < tape.n:
        if tape.record[i].op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            held[0] += q.bytes
            if q.op != A_LEAF:
                nodes[0] += q.count
            i += q.count
        else:
            nodes[0] += 1
            i += 1


cdef inline int collect() except -1:
    """A young collection, and a full one when as much was promoted since the last as that one left alive."""
    cdef Py_ssize_t nodes
    tape.collections += 1
    if compact(tape.young):
        count_alive(tape.young, &nodes, &tape.young_bytes)
    if tape.n - tape.young > NURSERY // 2 or tape.young_bytes > <size_t>YOUNG_BYTES // 2:
        promote()
        if (tape.promoted > max(tape.old_alive, <Py_ssize_t>(4 * NURSERY))
                or tape.old_bytes > max(tape.old_bytes_alive, <size_t>OLD_BYTES)):
            collect_old()
    if CHECKED:
        require_whole(broken_tape())
    release_pending()
    return 0


cdef inline int collect_old() except -1:
    promote()
    tape.full_collections += 1
    if compact(1):
        count_alive(1, &tape.old_alive, &tape.old_bytes_alive)
    tape.young = tape.n
    tape.promoted = 0
    tape.old_bytes = 0
    if CHECKED:
        require_whole(broken_tape())
    if tape.capacity > 4 * tape.n + 8 * NURSERY:
        PyMem_RawFree(tape.scratch)
        tape.scratch = NULL
        tape.scratch_size = 0
        try:
            resize(2 * tape.n + 4 * NURSERY)
        except MemoryError:
            pass                                 # the larger columns serve as well
    set_limit()                                  # now: what comes next may fail before it is done elsewhere
    return 0
