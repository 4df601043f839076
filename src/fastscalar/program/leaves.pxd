# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# Captured leaves into the block of a replay, and values and gradients from it.  Inline parts of `_replay`.
#
# A plan places weights where its kernels want them, mostly as the transposed of how they lie on the tape: stretch by
# stretch, a few for a whole net.  Number by number, with the question to whom each belongs, it took 110 instructions
# for a gradient; now 4.

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcmp, memcpy, memset

from fastscalar._core cimport *
from fastscalar.engine.array_ops cimport enter_row, materialise, zero_leaf
from fastscalar.engine.memory cimport allocate, out_of_memory
from fastscalar.program._replay cimport *


cdef inline void extend(Stretch *s, Py_ssize_t *n, int node, int address, int count, int array, bint trained) noexcept:
    """More leaves that lie side by side on the tape and in the block: to the last stretch, or one of their own."""
    cdef Stretch *last = &s[n[0] - 1]
    if n[0] and last.array == array and last.trained == trained and node == last.node + last.count:
        if count == 1 and last.count == 1:
            last.step, last.count = address - last.address, 2
            return
        if (count == 1 or last.step == 1) and address == last.address + last.count * last.step:
            last.count += count
            return
    last = &s[n[0]]
    last.node, last.address, last.count, last.step, last.repeats, last.shift = node, address, count, 1, 1, 0
    last.array, last.trained, last.whole = array, trained, False
    n[0] += 1


cdef inline void fold(Stretch *s, Py_ssize_t *count) noexcept:
    """Equal stretches at equal distances become one."""
    cdef Py_ssize_t k, n = 0
    cdef Stretch *last
    for k in range(count[0]):
        last = &s[n - 1]
        if n and last.count == s[k].count and last.step == s[k].step and last.array == s[k].array and (
                last.trained == s[k].trained and s[k].node == last.node + last.repeats * last.count) and (
                last.repeats == 1 or s[k].address == last.address + last.repeats * last.shift):
            if last.repeats == 1:
                last.shift = s[k].address - last.address
            last.repeats += 1
        else:
            s[n] = s[k]
            n += 1
    count[0] = n


cdef inline int find_stretches(Replay r, const long long[::1] first) except -1:
    cdef unsigned char[::1] trained = r.plan.trained
    cdef Py_ssize_t k, n = 0, room = 0, begin, end
    cdef int i, j, node, array, captured
    cdef bint learns
    cdef Segment *s
    cdef Stretch *found
    for k in range(r.n_segments):
        room += r.segments[k].count
    found = <Stretch *>allocate(max(room, 1) * sizeof(Stretch))
    if found == NULL:
        out_of_memory("a program", room)
    k = 0
    while k < r.n_segments:               # capture by capture
        begin, captured, learns = n, 0, True
        node = <int>first[r.segments[k].capture]
        array = tape.record[node].a if tape.record[node].op == ARRAY_OP else -1
        end = k
        while end < r.n_segments and r.segments[end].capture == r.segments[k].capture:
            s = &r.segments[end]
            i = 0
            while i < s.count:
                j = i + 1
                while j < s.count and trained[s.address + j] == trained[s.address + i]:
                    j += 1
                extend(found, &n, node + s.offset + i, s.address + i, j - i, array,
                       trained[s.address + i] != 0)
                learns = learns and trained[s.address + i]
                i = j
            captured += s.count
            end += 1
        if array >= 0:
            found[begin].whole = learns and captured == tape.array_ops[array].count
        k = end
    fold(found, &n)
    PyMem_RawFree(r.stretches)
    r.stretches, r.n_stretches = found, n
    return 0


cdef inline bint wild_weights(Replay r) noexcept nogil:
    """Whether numbers of matrices of products are so large that the order of additions matters."""
    cdef const Matrix *m
    cdef Py_ssize_t k
    for k in range(r.plan.body.n_matrices):
        m = &r.plan.body.matrices[k]
        if r.looked_at[k] and r.kernels.beyond(r.uniform + m.base * r.size, <Py_ssize_t>m.rows * m.ld):
            return True
    return False


cdef inline bint is_transposed(const Stretch *s) noexcept nogil:
    """Whether a stretch is a matrix whose rows on the tape are columns of the block."""
    return s.step > 1 and s.repeats > 1 and s.shift == 1


cdef inline void leaves_in(Replay r, real *block, const Stretch *s, const double *value, real tag) noexcept nogil:
    cdef int k, i
    cdef real *to
    cdef const double *source
    if real is double and is_transposed(s):
        r.kernels.transpose(block + s.address, s.step, value + s.node, s.count, s.repeats, s.count, False)
        return
    for k in range(s.repeats):
        to, source = block + s.address + <Py_ssize_t>k * s.shift, value + s.node + <Py_ssize_t>k * s.count
        if s.step == 1 and real is double:
            memcpy(to, source, s.count * sizeof(double))
        elif s.step == 1:
            for i in range(s.count):
                to[i] = <real>source[i]
        else:
            for i in range(s.count):
                to[<Py_ssize_t>i * s.step] = <real>source[i]


cdef inline void leaves_out(const real *block, const Stretch *s, double *value, real tag) noexcept nogil:
    cdef int k, i
    cdef const real *source
    cdef double *to
    for k in range(s.repeats):
        source, to = block + s.address + <Py_ssize_t>k * s.shift, value + s.node + <Py_ssize_t>k * s.count
        if s.step == 1 and real is double:
            memcpy(to, source, s.count * sizeof(double))
        else:
            for i in range(s.count):
                to[i] = source[<Py_ssize_t>i * s.step]


cdef inline void put_part(const real *source, Py_ssize_t step, double *to, int n, bint accumulate,
                          real tag) noexcept nogil:
    """Gradients.  0.0 is added, so that no -0.0 remains: sums that begin with nothing have none."""
    cdef int i
    if accumulate and step == 1:
        for i in range(n):
            to[i] += source[i]
    elif accumulate:
        for i in range(n):
            to[i] += source[i * step]
    elif step == 1:
        for i in range(n):
            to[i] = 0.0 + source[i]
    else:
        for i in range(n):
            to[i] = 0.0 + source[i * step]


cdef inline bint any_sent(const real *source, Py_ssize_t step, int n, real tag) noexcept nogil:
    """Whether there is a number that is not zero, or -0.0 among numbers side by side, which are compared as bytes: most
    of a sparse gradient is zero."""
    cdef int i
    if step == 1 and n:
        return source[0] != 0 or memcmp(source, source + 1, (n - 1) * sizeof(real)) != 0
    for i in range(n):
        if source[i * step] != 0:                # NaN is
            return True
    return False


cdef inline void gradients_out(Replay r, const real *block, const Stretch *s, bint accumulate,
                               real tag) noexcept nogil:
    """The gradients of a stretch.  Rows of an array that nothing was sent to are not entered: they stay zero."""
    cdef ArrayOp *q = tape.array_ops[s.array] if s.array >= 0 else NULL
    cdef int k, at, n, row
    cdef const real *source
    cdef double *to
    if q != NULL:
        materialise(q)
        if s.whole and not accumulate:
            zero_leaf(q)
        if real is double and is_transposed(s) and (s.whole or accumulate):
            to, n = tape.grad + s.node, s.repeats * s.count
            r.kernels.transpose(to, s.count, block + s.address, s.step, s.count, s.repeats, True)
            at = 0
            while at < n:
                row = (s.node + at - q.start) // q.cols
                k = min(q.cols - (s.node + at - q.start) % q.cols, n - at)
                if not q.touched[row] and any_sent(to + at, 1, k, tag):
                    enter_row(q, row)
                at += k
            return
    for k in range(s.repeats):
        source, to = block + s.address + <Py_ssize_t>k * s.shift, tape.grad + s.node + <Py_ssize_t>k * s.count
        if q == NULL:
            put_part(source, s.step, to, s.count, accumulate, tag)
            continue
        at = 0
        while at < s.count:
            n = s.node + k * s.count + at - q.start
            row = n // q.cols
            n = min(q.cols - n % q.cols, s.count - at)
            if q.touched[row] or any_sent(source + <Py_ssize_t>at * s.step, s.step, n, tag):
                enter_row(q, row)
                put_part(source + <Py_ssize_t>at * s.step, s.step, to + at, n, accumulate, tag)
            at += n


cdef inline void zero_gradients(const Stretch *s) noexcept nogil:
    cdef ArrayOp *q
    cdef int k, row
    if s.array < 0:
        memset(tape.grad + s.node, 0, <size_t>s.repeats * s.count * sizeof(double))
        return
    q = tape.array_ops[s.array]
    materialise(q)
    if s.whole:
        zero_leaf(q)
        return
    for k in range(s.node, s.node + s.repeats * s.count):
        row = (k - q.start) // q.cols
        if q.touched[row]:
            tape.grad[k] = 0.0
