# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False
# Collection.
#
# Mark: from young to old, a node is alive if it has a handle or something alive refers to it.  Place: from old to
# young, everything alive gets its new index and operands are rewritten, while all records are where they were.  Slide.
# A young collection does this from T.young on: nothing older can refer into the nursery, so no write barrier.
#
# Wide instructions are visited once, whatever their length; `alive` and `new_start` stand in their struct, and a
# reference into a run is translated through the run's record.  So a collection beside 47 million pixels costs nothing.

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memmove, memset

from fastscalar._core cimport T, Tensor
from fastscalar.engine.array_ops cimport free_wide
from fastscalar.engine.attributes cimport release_dead
from fastscalar.engine.memory cimport reallocate, resize, set_limit
from fastscalar.engine.roots cimport hide, keep, keep_closure, keep_gradients, reserve_hidden, show
from fastscalar.engine.tape cimport INDEX, NURSERY, RUN, W_CUSTOM, W_LEAF, WIDE, Operand, Record, Wide
from fastscalar.engine.writes cimport merge_writes

cdef enum:
    BIG_LEAF = 65536         # a leaf array of this many nodes is not moved for less room than its own size
    YOUNG_BYTES = 4 << 20    # numbers held by young instructions that make a collection due
    OLD_BYTES = 32 << 20     # and by promoted ones, at least, that make a full one due


cdef inline void keep_operand(Operand *o, Py_ssize_t base) noexcept nogil:
    cdef int k
    if o.kind == RUN:
        keep(o.start, base)
    elif o.kind == INDEX:
        for k in range(o.count):
            keep(o.index[k], base)


cdef inline Py_ssize_t mark_alive(Py_ssize_t base) noexcept nogil:
    cdef Py_ssize_t i = T.n - 1, alive = 0
    cdef Wide *q
    while i >= base:
        if T.record[i].op == WIDE:
            q = T.wide[T.record[i].a]
            i = q.start
            if q.alive or q.handles or q.arrays:
                q.alive = True
                alive += q.count
                keep_operand(&q.x, base)
                keep_operand(&q.y, base)
                keep_operand(&q.z, base)
                if q.op == W_CUSTOM and q.pin and T.n_hidden:
                    keep_closure(&T.pins[q.pin - 1], base)
        elif T.mark[i] or T.handle[i] != NULL:
            T.mark[i] = 1
            alive += 1
            if T.record[i].op > WIDE:
                keep(T.record[i].a, base)
                keep(T.record[i].b, base)
        i -= 1
    return alive


cdef inline int place(int p, Py_ssize_t base) noexcept nogil:
    if p < base:
        return p
    if T.record[p].op == WIDE:
        return T.wide[T.record[p].a].new_start + T.record[p].b
    return T.scratch[p - base]


cdef inline void place_operand(Operand *o, Py_ssize_t base) noexcept nogil:
    cdef int k
    if o.kind == RUN:
        o.start = place(o.start, base)
    elif o.kind == INDEX:
        for k in range(o.count):
            o.index[k] = place(o.index[k], base)


cdef inline Py_ssize_t place_alive(Py_ssize_t base) noexcept nogil:
    cdef Py_ssize_t i = base, to = base, due
    cdef int k = T.n_writes, first               # the next write to place, and where it stands
    cdef Wide *q
    while k > 0 and T.writes[k - 1].at > base:
        k -= 1
    first = k
    due = T.writes[k].at if k < T.n_writes else T.n
    while i < T.n:
        while i >= due:
            T.writes[k].at = <int>to
            k += 1
            due = T.writes[k].at if k < T.n_writes else T.n
        if T.record[i].op == WIDE:
            q = T.wide[T.record[i].a]
            if q.alive:
                if q.op == W_LEAF and q.count >= BIG_LEAF and i - to < q.count:
                    to = i                       # moving it costs more than the gap: `slide` fills that with leaves
                q.new_start = <int>to
                place_operand(&q.x, base)
                place_operand(&q.y, base)
                place_operand(&q.z, base)
                to += q.count
            i += q.count
        else:
            if T.mark[i]:
                T.scratch[i - base] = <int>to
                if T.record[i].op > WIDE:
                    T.record[i].a = place(T.record[i].a, base)
                    T.record[i].b = place(T.record[i].b, base)
                to += 1
            i += 1
    while k < T.n_writes:
        T.writes[k].at = <int>to
        k += 1
    merge_writes(first)
    return to


cdef inline void slide(Py_ssize_t base) noexcept nogil:
    cdef Py_ssize_t i = base, to = base, k, count
    cdef Wide *q
    while i < T.n:
        if T.record[i].op == WIDE:
            q = T.wide[T.record[i].a]
            count = q.count
            if not q.alive:
                free_wide(q)
            else:
                q.alive = False
                while to < q.new_start:
                    memset(&T.record[to], 0, sizeof(Record))
                    T.value[to] = T.grad[to] = 0.0
                    T.handle[to] = NULL
                    to += 1
                if to != i:
                    memmove(T.value + to, T.value + i, count * sizeof(double))
                    memmove(T.grad + to, T.grad + i, count * sizeof(double))
                    memmove(T.record + to, T.record + i, count * sizeof(Record))
                    memmove(T.handle + to, T.handle + i, count * sizeof(void *))
                    q.start = <int>to
                    if q.handles:
                        for k in range(to, to + count):
                            if T.handle[k] != NULL:
                                (<Tensor>T.handle[k]).index = <int>k
                to += count
            i += count
        else:
            if T.mark[i]:
                T.mark[i] = 0
                if to != i:
                    T.value[to] = T.value[i]
                    T.grad[to] = T.grad[i]
                    T.record[to] = T.record[i]
                    T.handle[to] = T.handle[i]
                    if T.handle[to] != NULL:
                        (<Tensor>T.handle[to]).index = <int>to
                to += 1
            i += 1
    T.n = to


cdef inline void slide_notes(Py_ssize_t base) noexcept nogil:
    """As `slide`, before it, for the column that only `detect_anomaly` has."""
    cdef Py_ssize_t i = base
    cdef Wide *q
    while i < T.n:
        if T.record[i].op == WIDE:
            q = T.wide[T.record[i].a]
            if q.alive:
                memmove(T.note + q.new_start, T.note + i, q.count * sizeof(int))
            i += q.count
        else:
            if T.mark[i]:
                T.note[T.scratch[i - base]] = T.note[i]
            i += 1


cdef inline bint compact(Py_ssize_t base) noexcept nogil:
    """Forget what is dead from `base` on.  False, and nothing has changed, if there was no memory for it."""
    cdef Py_ssize_t size = T.n - base, end = T.n, alive, i
    cdef void *block
    if size > T.scratch_size:
        block = reallocate(T.scratch, size * sizeof(int))
        if block == NULL:
            return False
        T.scratch = <int *>block
        T.scratch_size = size
    if not reserve_hidden(base):
        return False
    hide(base)
    alive = mark_alive(base)
    while keep_gradients(base):
        alive = mark_alive(base)
    show(base)
    if alive != size:
        place_alive(base)
        if T.note != NULL:
            slide_notes(base)
        slide(base)
    else:
        i = base
        while i < end:
            if T.record[i].op == WIDE:
                T.wide[T.record[i].a].alive = False
                i += T.wide[T.record[i].a].count
            else:
                T.mark[i] = 0
                i += 1
    return True


cdef inline void promote() noexcept nogil:
    """Everything in the nursery becomes old."""
    T.promoted += T.n - T.young
    T.old_bytes += T.young_bytes
    T.young_bytes = 0
    T.young = T.n
    T.n_young_pins = 0


cdef inline void count_alive(Py_ssize_t base, Py_ssize_t *nodes, size_t *held) noexcept nogil:
    """Nodes that are not in arrays of leaves, and what wide instructions own, from `base` on."""
    cdef Py_ssize_t i = base
    cdef Wide *q
    nodes[0] = 0
    held[0] = 0
    while i < T.n:
        if T.record[i].op == WIDE:
            q = T.wide[T.record[i].a]
            held[0] += q.bytes
            if q.op != W_LEAF:
                nodes[0] += q.count
            i += q.count
        else:
            nodes[0] += 1
            i += 1


cdef inline int collect() except -1:
    """A young collection, and a full one when as much was promoted since the last as that one left alive."""
    cdef Py_ssize_t nodes
    T.collections += 1
    if compact(T.young):
        count_alive(T.young, &nodes, &T.young_bytes)
    if T.n - T.young > NURSERY // 2 or T.young_bytes > <size_t>YOUNG_BYTES // 2:
        promote()
        if (T.promoted > max(T.old_alive, <Py_ssize_t>(4 * NURSERY))
                or T.old_bytes > max(T.old_bytes_alive, <size_t>OLD_BYTES)):
            collect_old()
    release_dead()
    return 0


cdef inline int collect_old() except -1:
    promote()
    T.full_collections += 1
    if compact(1):
        count_alive(1, &T.old_alive, &T.old_bytes_alive)
    T.young = T.n
    T.promoted = 0
    T.old_bytes = 0
    if T.capacity > 4 * T.n + 8 * NURSERY:
        PyMem_RawFree(T.scratch)
        T.scratch = NULL
        T.scratch_size = 0
        try:
            resize(2 * T.n + 4 * NURSERY)
        except MemoryError:
            pass                                 # the larger columns serve as well
    set_limit()                                  # now: what comes next may fail before anybody else does it
    return 0
