# cython: language_level=3, wraparound=False, cdivision=True
# Blocks of detect_anomaly: who looks at every step, and where the nodes were recorded.

from cpython.mem cimport PyMem_RawFree

from fastscalar._core cimport Observer, ThreadState, observer, tape
from fastscalar.engine.memory cimport allocate_zeroed, out_of_memory, set_limit


cdef inline int start_anomaly(ThreadState state, Observer o) except -1:
    """A thread enters a block: from now on safepoints note where they are, and `o` sees the backward steps."""
    global observer
    cdef void *block
    if tape.anomaly_blocks == 0:
        block = allocate_zeroed(tape.capacity, sizeof(int))
        if block == NULL:
            out_of_memory("detect_anomaly", tape.capacity)
        tape.source = <int *>block
    tape.anomaly_blocks += 1
    state.anomaly_blocks += 1
    observer = o                                 # no-cython-lint
    set_limit()
    return 0


cdef inline void stop_anomaly(ThreadState state, int blocks) noexcept:
    """A thread leaves so many blocks."""
    global observer
    if blocks == 0:
        return
    state.anomaly_blocks -= blocks
    tape.anomaly_blocks -= blocks
    if tape.anomaly_blocks == 0:
        PyMem_RawFree(tape.source)
        tape.source = NULL
        last, observer = observer, None          # no-cython-lint
        (<Observer>last).closed()
    set_limit()
