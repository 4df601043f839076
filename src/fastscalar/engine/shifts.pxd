# cython: language_level=3, wraparound=False, cdivision=True
# Which thread made which nodes, while a program is recorded: a recording takes in nothing that others do meanwhile.

from fastscalar._core cimport foreign_reads, tape
from fastscalar.engine.memory cimport enlarge
from fastscalar.engine.tape cimport Shift

cdef extern from "Python.h":
    const void *PyThreadState_Get()


cdef inline int note_shift() except -1:
    """What is emitted now is this thread's: a recording takes nothing in that others do meanwhile."""
    cdef const void *here = PyThreadState_Get()
    cdef int room
    if tape.n_shifts and tape.shifts[tape.n_shifts - 1].thread == here:
        return 0
    if tape.n_shifts == tape.shift_room:
        room = 2 * tape.shift_room + 16
        enlarge(<void **>&tape.shifts, room, sizeof(Shift), "the tape")
        tape.shift_room = room
    tape.shifts[tape.n_shifts].thread, tape.shifts[tape.n_shifts].first = here, <int>tape.n
    tape.n_shifts += 1
    return 0


cdef inline int note_foreign_read(int node) except -1:
    """A thread that records nothing reads a number while others do: it may be theirs, and a decision of theirs."""
    cdef int k = tape.n_shifts - 1
    while k >= 0 and tape.shifts[k].first > node:
        k -= 1
    if k >= 0 and tape.shifts[k].thread != PyThreadState_Get():
        foreign_reads.append(node)
    return 0
