# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# Where the rows of runs lie.  Inline parts of `_replay`.

from fastscalar.program._replay cimport *


cdef inline real *rows_of(Replay r, char *block, int run, int row, real tag) noexcept nogil:
    return <real *>block + r.plan.body.runs[run].base * r.batch + <Py_ssize_t>row * r.plan.body.runs[run].ld
