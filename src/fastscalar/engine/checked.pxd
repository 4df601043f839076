# cython: language_level=3, wraparound=False, cdivision=True
# What a checked build (FASTSCALAR_CHECKED=1) looks at.  Elsewhere CHECKED is 0 and the compiler drops what asks for it.
#
# What must hold is said where it must; what does not ends the process with its text, place, and Python's own traceback
# (faulthandler), for after a write to a wrong place nothing that is computed means anything.

from fastscalar._core cimport tape
from fastscalar.engine.array_ops cimport elements_of, node_of
from fastscalar.engine.tape cimport (INDEX, LEAF, RUN, SLACK, STRIDED, A_FREE, A_LEAF, ARRAY_OP, Operand, ArrayOp)

cdef extern from "checked.h":
    const bint CHECKED "FS_CHECKED"
    const Py_ssize_t MARGIN "FS_MARGIN"      # bytes around each block of a replay that nothing may write to
    void require "FS_REQUIRE"(bint condition) noexcept nogil
    void require_whole "FS_REQUIRE_WHOLE"(const char *broken) noexcept nogil  # NULL, or what does not hold
    void seal_margin "fs_seal_margin"(void *block) noexcept nogil
    bint margin_is_whole "fs_margin_is_whole"(const void *block) noexcept nogil


cdef inline const char *broken_operand(Operand *o, Py_ssize_t before) noexcept nogil:
    cdef Py_ssize_t k
    if o.kind == RUN and not (0 < o.start and o.start + o.count <= before):
        return b"a run that is read is not older than what reads it"
    if o.kind == STRIDED:
        for k in range(elements_of(o)):
            if not 0 < node_of(o, k) < before:
                return b"an element that is read is not older than what reads it"
    if o.kind == INDEX:
        for k in range(o.count):
            if not 0 < o.index[k] < before:
                return b"a node that is read is not older than what reads it"
    return NULL


cdef inline const char *broken_array_op(ArrayOp *q) noexcept nogil:
    cdef Py_ssize_t k, row
    cdef int handles = 0
    cdef const char *what
    for k in range(q.count):
        if tape.record[q.start + k].op != ARRAY_OP or tape.record[q.start + k].a != q.slot or (
                tape.record[q.start + k].b != k):
            return b"a node of a run does not say so"
        if tape.mark[q.start + k]:
            return b"a mark was left on a run"
        handles += tape.handle[q.start + k] != NULL
    if handles != q.handles:
        return b"handles of a run"
    for o in range(3):
        what = broken_operand(&q.x if o == 0 else &q.y if o == 1 else &q.z, q.start)
        if what != NULL:
            return what
    if q.op == A_LEAF:
        if q.rows * q.cols != q.count:
            return b"rows and columns of an array of leaves"
        if q.factored >= 0 and q.n_touched:
            return b"an outer product beside rows that are touched"
        for row in range(q.rows):
            if not q.touched[row]:
                for k in range(row * q.cols, (row + 1) * q.cols):
                    if tape.grad[q.start + k] != 0.0:
                        return b"a row that is not touched has a gradient"
    return NULL


cdef inline const char *broken_tape() noexcept nogil:
    """Walk the tape: the first invariant of its data sheet that does not hold, or NULL.  Runs no Python.  Outside of a
    sweep and of a collection."""
    cdef Py_ssize_t i = 1, k, live = 0
    cdef ArrayOp *q
    cdef const char *what
    if tape.record[0].op != LEAF or tape.handle[0] != NULL:
        return b"node 0"
    if tape.n > tape.capacity or tape.young > tape.n or tape.limit + SLACK > tape.capacity:
        return b"room of the tape"
    while i < tape.n:
        if tape.record[i].op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            if q.op == A_FREE or q.start != i:
                return b"an array operation that is not where its nodes are"
            what = broken_array_op(q)
            if what != NULL:
                return what
            i += q.count
            continue
        if tape.mark[i]:
            return b"a mark was left"
        if tape.record[i].op > ARRAY_OP:
            if not (0 <= tape.record[i].a < i and 0 <= tape.record[i].b < i):
                return b"an operand is not older than its node"
        elif not (0 <= tape.record[i].a <= tape.moment and 0 <= tape.record[i].b <= tape.number):
            return b"a leaf of a moment or a sweep to come"
        i += 1
    if i != tape.n:
        return b"a run ends beyond the tape"
    for k in range(tape.n_writes):
        if not (0 < tape.writes[k].at <= tape.n and 0 < tape.writes[k].number <= tape.moment):
            return b"a write of a moment to come"
        if k and not (tape.writes[k - 1].at < tape.writes[k].at and tape.writes[k - 1].number < tape.writes[k].number):
            return b"writes out of order"
    if tape.written != (tape.writes[tape.n_writes - 1].at if tape.n_writes else 0):
        return b"the last write"
    for k in range(tape.capacity >> 6):
        if tape.mark64[k]:
            return b"a summary of 64 marks was left"
    for k in range(tape.capacity >> 12):
        if tape.mark4k[k]:
            return b"a summary of 4,096 marks was left"
    for k in range(tape.capacity >> 18):
        if tape.mark256k[k]:
            return b"a summary of 262,144 marks was left"
    for k in range(tape.fresh, min(tape.capacity, tape.fresh + 100000)):
        if tape.grad[k] != 0.0 or tape.handle[k] != NULL:
            return b"what was never written is not zero"
    for k in range(tape.n_array_ops):
        q = tape.array_ops[k]
        live += q.op != A_FREE
        if q.alive or q.whole or q.listed or q.partial:
            return b"an array operation that a sweep or a collection has left half done"
    if live != tape.n_array_ops - tape.n_free:
        return b"slots of array operations"
    return NULL
