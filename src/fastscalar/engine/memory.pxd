# cython: language_level=3, wraparound=False, cdivision=True
# Memory: every request of the engine, and the columns of the tape.
#
# `tape.requests_left` lets a request be refused: tests show with it that a refused allocation is a MemoryError which
# leaves everything as it was.

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from libc.math cimport NAN
from libc.string cimport memcpy, memset

from fastscalar._core cimport programs, tape
from fastscalar.engine.tape cimport NURSERY, SLACK, Record, Tape

cdef enum:
    PAGE = 4096


cdef inline void *data_of(array) except? NULL:
    """The numbers of an array, which is held elsewhere and lies in one stretch.  NumPy's own `.ctypes` makes a
    SystemError of a MemoryError."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    PyBuffer_Release(&view)
    return view.buf


cdef inline bint refused() noexcept nogil:
    if tape.requests_left < 0:
        return False
    tape.requests_left -= 1
    return tape.requests_left < 0


cdef inline void *allocate(size_t size) noexcept nogil:
    return NULL if refused() else PyMem_RawMalloc(size)


cdef inline void *allocate_zeroed(size_t count, size_t size) noexcept nogil:
    return NULL if refused() else PyMem_RawCalloc(count, size)


cdef inline void *reallocate(void *block, size_t size) noexcept nogil:
    return NULL if refused() else PyMem_RawRealloc(block, size)


cdef inline int out_of_memory(what, size_t count) except -1:
    raise MemoryError(f"{what}: no memory for {count:,}")


cdef inline bint could_enlarge(void **block, size_t count, size_t size) noexcept nogil:
    """Give a block room for `count` entries of so many bytes.  False, and nothing has changed, if that is refused."""
    cdef void *larger = reallocate(block[0], count * size)
    if larger == NULL:
        return False
    block[0] = larger
    return True


cdef inline int enlarge(void **block, size_t count, size_t size, what) except -1:
    """The same; MemoryError if it is refused."""
    if not could_enlarge(block, count, size):
        out_of_memory(what, count)
    return 0


# --- columns --------------------------------------------------------------------------------------

cdef inline bint any_byte(const char *p, size_t size) noexcept nogil:
    """Whether a byte is not zero."""
    cdef size_t i
    cdef unsigned long long word
    for i in range(size // 8):
        memcpy(&word, p + 8 * i, 8)
        if word:
            return True
    for i in range(size // 8 * 8, size):
        if p[i]:
            return True
    return False


cdef inline void copy_written(char *to, const char *source, size_t size) noexcept nogil:
    """Copy into zeroed memory without touching pages of the target that would stay zero."""
    cdef size_t at = 0, step
    while at < size:
        step = min(<size_t>PAGE, size - at)
        if any_byte(source + at, step):
            memcpy(to + at, source + at, step)
        at += step


cdef inline int resize_zeroed(void **column, size_t count, size_t new_count, size_t size) except -1:
    """Give a column that is zero beyond `count` new room, which is zero too.  On failure nothing has changed."""
    cdef void *block = allocate_zeroed(new_count, size)
    if block == NULL:
        out_of_memory("the tape", new_count)
    if column[0] != NULL:
        copy_written(<char *>block, <char *>column[0], count * size)
        if tape.stress:
            memset(column[0], 0xFB, count * size)
        PyMem_RawFree(column[0])
    column[0] = block
    return 0


cdef inline int resize_plain(void **column, size_t count, size_t new_count, size_t size) except -1:
    cdef void *block
    if tape.stress:                                 # a new place every time, and the old one poisoned
        block = allocate(new_count * size)
        if block != NULL and column[0] != NULL:
            memcpy(block, column[0], count * size)
            memset(column[0], 0xFB, count * size)
            PyMem_RawFree(column[0])
    else:
        block = reallocate(column[0], new_count * size)
    if block == NULL:
        out_of_memory("the tape", new_count)
    column[0] = block
    return 0


cdef inline int resize(Py_ssize_t capacity) except -1:
    """Room for `capacity` nodes in every column.  A column that got its room keeps it when a later one is refused."""
    cdef size_t used = tape.n
    if capacity < tape.capacity:
        tape.capacity = capacity
    resize_plain(<void **>&tape.value, used, capacity, sizeof(double))
    resize_plain(<void **>&tape.record, used, capacity, sizeof(Record))
    resize_zeroed(<void **>&tape.grad, used, capacity, sizeof(double))
    resize_zeroed(<void **>&tape.handle, used, capacity, sizeof(void *))
    tape.fresh = used
    if tape.source != NULL:
        resize_zeroed(<void **>&tape.source, used, capacity, sizeof(int))
    resize_zeroed(<void **>&tape.mark, used, capacity, 1)
    resize_zeroed(<void **>&tape.mark64, (used >> 6) + 1, (capacity >> 6) + 1, 1)
    resize_zeroed(<void **>&tape.mark4k, (used >> 12) + 1, (capacity >> 12) + 1, 1)
    resize_zeroed(<void **>&tape.mark256k, (used >> 18) + 1, (capacity >> 18) + 1, 1)
    tape.capacity = capacity
    return 0


cdef inline int grow(Py_ssize_t need) except -1:
    if tape.n + need + SLACK > tape.max_nodes:
        raise MemoryError(
            f"the tape holds at most {tape.max_nodes:,} nodes: {tape.n:,} are alive, {need:,} more asked for")
    return resize(min(max(2 * tape.capacity, tape.n + need + SLACK), tape.max_nodes))


cdef inline void set_limit() noexcept nogil:
    if tape.stress or tape.no_grad_threads or tape.anomaly_blocks or programs:
        tape.limit = 0
    elif tape.locked:
        tape.limit = tape.capacity - SLACK
    else:
        tape.limit = min(tape.young + NURSERY, tape.capacity - SLACK)
    tape.fresh = max(tape.fresh, max(tape.limit, tape.n) + SLACK)    # scalar operations write there without saying so


cdef inline int open_tape() except -1:
    """The tape as it is at import: one node that is none."""
    memset(&tape, 0, sizeof(Tape))
    tape.max_nodes = 0x7fffffff
    tape.first_listed = tape.requests_left = -1
    resize(2 * NURSERY)
    tape.value[0] = NAN
    tape.grad[0] = 0.0
    memset(tape.record, 0, sizeof(Record))
    tape.n = tape.young = 1
    return 0
