# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# Where the rows of runs lie.  Inline parts of `_replay`.

from fastscalar.program._replay cimport *
from fastscalar.program.plan cimport *


cdef inline real *rows_of(Replay r, char *block, int run, int row, real tag) noexcept nogil:
    return <real *>block + r.plan.body.runs[run].base * r.batch + <Py_ssize_t>row * r.plan.body.runs[run].ld


cdef inline Py_ssize_t columns_of_runs(const Body *p) noexcept nogil:
    """Of all runs one after the other, padding included."""
    return p.runs[p.n_runs - 1].base + p.runs[p.n_runs - 1].ld if p.n_runs else 0
