# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False, auto_pickle=False
"""Hooks for the tests of the engine: what no user needs, and what may be wrong to call while something is computed."""

from fastscalar._core cimport *
from fastscalar.engine.memory cimport set_limit


def value_and_slopes(int code, double a, double b=0.0):
    """One row of the table at a point, for tests."""
    cdef double v
    if row(code).arity == 1:
        v = row(code).f(a)
        return v, row(code).d(a, v)
    v = row(code).f2(a, b)
    return v, row(code).da(a, b, v), row(code).db(a, b, v)


def collect():
    """A full collection now, for tests: users never need one."""
    collect_all()


def fail_after(long long requests):
    """Let the engine's memory request number `requests` + 1 from now on fail, and no other; -1: none."""
    T.requests_left = requests


def requests_left():
    """Of those that `fail_after` lets pass; -1 when the one has failed, or none was to."""
    return T.requests_left


def set_max_nodes(Py_ssize_t nodes):
    """Lower the limit of 2**31 - 1 nodes, for tests; the old limit."""
    cdef Py_ssize_t before = T.max_nodes
    T.max_nodes = nodes
    return before


def set_moment(int number):
    """Number the next write after this one, for tests; the old number."""
    cdef int before = T.moment
    T.moment = number
    return before


def set_stress(bint on):
    """Stress mode on or off (FASTSCALAR_STRESS=1 at import does the same)."""
    T.stress = on
    set_limit()


def check():
    """Walk the tape and raise AssertionError if an invariant of the data sheet does not hold."""
    cdef Py_ssize_t i = 1, k, live = 0
    cdef Wide *q
    cdef Tensor t
    assert T.record[0].op == LEAF and T.handle[0] == NULL
    assert T.n <= T.capacity and T.young <= T.n
    assert T.limit + SLACK <= T.capacity
    assert not T.sweeping
    assert (T.limit == 0) == bool(T.stress or T.quiet or T.noting), "scalar operations take the wrong path"
    assert (T.note != NULL) == (T.noting > 0)
    check_threads()
    while i < T.n:
        assert T.mark[i] == 0
        if T.handle[i] != NULL:
            t = <Tensor>T.handle[i]
            assert t.index == i, (t.index, i)
        if T.record[i].op == WIDE:
            q = T.wide[T.record[i].a]
            assert q.op != W_FREE and q.start == i, (q.op, q.start, i)
            check_wide(q)
            i += q.count
        else:
            assert T.record[i].op < N_CODES
            if T.record[i].op > WIDE:
                assert 0 <= T.record[i].a < i and 0 <= T.record[i].b < i
            else:
                assert 0 <= T.record[i].a <= T.moment and 0 <= T.record[i].b <= T.number
            i += 1
    for k in range(T.n_writes):
        assert 0 < T.writes[k].at <= T.n and 0 < T.writes[k].number <= T.moment
        assert k == 0 or T.writes[k - 1].at < T.writes[k].at and T.writes[k - 1].number < T.writes[k].number
    assert T.written == (T.writes[T.n_writes - 1].at if T.n_writes else 0)
    for k in range(T.capacity >> 6):
        assert T.mark64[k] == 0
    for k in range(T.capacity >> 12):
        assert T.mark4k[k] == 0
    for k in range(T.capacity >> 18):
        assert T.mark256k[k] == 0
    for k in range(T.fresh, min(T.capacity, T.fresh + 100000)):
        assert T.grad[k] == 0.0 and T.handle[k] == NULL
    for k in range(T.n_wide):
        q = T.wide[k]
        live += q.op != W_FREE
        assert not q.alive and not q.whole and not q.listed and q.partial == 0
    assert live == T.n_wide - T.n_free


cdef int check_threads() except -1:
    cdef ThreadState state
    cdef int quiet = 0, lenient = 0, noting = 0, locked = 0, recorders = 0, watches = 0
    for state in states:
        quiet += state.quiet > 0
        lenient += state.lenient > 0
        noting += state.noting
        locked += state.locked
        recorders += state.recorder is not None
        watches += <int>len(state.watches)
    assert (quiet, lenient, noting, locked) == (T.quiet, lenient_threads, T.noting, T.locked), "blocks of threads"
    assert (recorders, watches) == (programs, tracing), "recordings of threads"
    return 0


cdef check_wide(Wide *q):
    cdef Py_ssize_t k, row
    cdef int handles = 0
    for k in range(q.count):
        assert T.record[q.start + k].op == WIDE
        assert T.record[q.start + k].a == q.slot and T.record[q.start + k].b == k
        assert T.mark[q.start + k] == 0
        if T.handle[q.start + k] != NULL:
            handles += 1
            assert (<Tensor>T.handle[q.start + k]).index == q.start + k
    assert handles == q.handles, (handles, q.handles)
    for o in (check_operand(&q.x, q.start), check_operand(&q.y, q.start), check_operand(&q.z, q.start)):
        assert o
    if q.op == W_LEAF:
        assert q.rows * q.cols == q.count
        assert q.factored < 0 or q.n_touched == 0
        for row in range(q.rows):
            for k in range(row * q.cols, (row + 1) * q.cols):
                assert q.touched[row] or T.grad[q.start + k] == 0.0, "a row that is not touched has a gradient"


cdef bint check_operand(Operand *o, int before) except -1:
    cdef Py_ssize_t k
    if o.kind == RUN:
        return 0 < o.start and o.start + o.count <= before
    if o.kind == INDEX:
        for k in range(o.count):
            if not 0 < o.index[k] < before:
                return False
    return True
