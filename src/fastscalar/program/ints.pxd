# cython: language_level=3, wraparound=False, cdivision=True
# Growing lists of whole numbers, for passes over graphs.  Inline.

from fastscalar.engine.memory cimport enlarge

ctypedef struct Ints:            # a growing list; owned
    int *at
    Py_ssize_t n
    Py_ssize_t room


cdef inline int push(Ints *m, int i) except -1:
    if m.n == m.room:
        enlarge(<void **>&m.at, 2 * m.room + 1024, sizeof(int), "a program")
        m.room = 2 * m.room + 1024
    m.at[m.n] = i
    m.n += 1
    return 0
