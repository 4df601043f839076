# cython: language_level=3, wraparound=False, cdivision=True
# cython: nonecheck=False
# Instructions that call Python: once for all rows of a chunk.  Inline parts of `_replay`.

from fastscalar.program._replay cimport *
from fastscalar.program.plan cimport *


cdef inline real *columns_of(Replay r, char *block, int run, int row, real tag) noexcept nogil:
    return <real *>block + r.plan.body.runs[run].base * r.batch + <Py_ssize_t>row * r.plan.body.runs[run].ld


cdef inline object numbers_of(Replay r, char *block, int run, int first, int n, int first_row, int n_rows,
                              real tag):
    """n columns of a run, as an array of doubles with a row for each row of a chunk."""
    import numpy as np
    cdef double[:, ::1] view = np.empty((n_rows, n))
    cdef const real *v
    cdef int l, k
    for l in range(n_rows):
        v = columns_of(r, block, run, first_row + l, tag) + first
        for k in range(n):
            view[l, k] = v[k]
    return view.base


cdef inline object rows_of_a_chunk(Replay r, int first_row, int n_rows):
    """What a loop has to know of the rows: whether all is done in the order of the function, whose numbers are drawn,
    and where it says what there is to say about each."""
    import numpy as np
    status = np.asarray(<unsigned char[:n_rows]>(r.status + first_row))
    rows = np.array(<const long long[:n_rows]>(r.rows + r.first + first_row))
    if r.row_numbers != NULL:
        rows = np.asarray([r.row_numbers[<long long>row] for row in rows], dtype=np.int64)
    else:
        rows += r.row_offset
    return r.plan.plain, status, rows, (r.stream_seed, r.epoch, r.antithetic, r.counts)


cdef inline int call_rows(Replay r, const Instr *q, int first_row, int n_rows, bint back, real tag) except -1:
    """The callee of an instruction for some rows; back: what its outputs' adjoints are for its operands."""
    cdef const Item *it = &r.plan.body.items[q.extra]
    cdef const double[:, :] found
    cdef real *v
    cdef int l, k
    callee = r.plan.callees[it.label]
    loop = getattr(callee, "of_rows", None)
    if loop is not None:
        callee = r.begun_loops.pop((q.extra, first_row), None)
        if callee is None or not back:
            callee = loop(rows_of_a_chunk(r, first_row, n_rows))
            if not back and r.mode & (PARAMETERS | ARGUMENTS):       # its states are kept until the way back
                callee.keeps = True
                r.begun_loops[q.extra, first_row] = callee
    x = numbers_of(r, r.run_value, it.x, q.a.start, q.b.start, first_row, n_rows, tag)
    if back:
        y = numbers_of(r, r.run_value, q.run, 0, q.n, first_row, n_rows, tag)
        adjoint = numbers_of(r, r.run_adjoint, q.run, 0, q.n, first_row, n_rows, tag)
        found = callee.backward(x, y, adjoint, it.exact)
        for l in range(n_rows):
            v = columns_of(r, r.run_adjoint, it.x, first_row + l, tag) + q.a.start
            for k in range(q.b.start):
                v[k] += <real>found[l, k]
        return 0
    found = callee.forward(x, it.exact)
    for l in range(n_rows):
        v = columns_of(r, r.run_value, q.run, first_row + l, tag)
        for k in range(q.n):
            v[k] = <real>found[l, k]
    return 0


cdef inline void call(Replay r, const Instr *q, int first_row, int n_rows, bint back, real tag) noexcept nogil:
    """What it raises is some row's, which is to be found by calling the function for each."""
    cdef int l
    with gil:
        try:
            call_rows(r, q, first_row, n_rows, back, tag)
        except BaseException as error:
            if not isinstance(error, Exception):
                r.interrupt = error
            for l in range(first_row, first_row + n_rows):
                r.status[l] |= MAY_RAISE
