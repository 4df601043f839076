# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False, auto_pickle=False
"""Hooks for the tests of the engine: what no user needs, and what may be wrong to call while something is computed."""

from fastscalar._core cimport *
from fastscalar.engine.array_ops cimport elements_of, node_of_exact
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
    tape.requests_left = requests


def requests_left():
    """Of those that `fail_after` lets pass; -1 when the one has failed, or none was to."""
    return tape.requests_left


def set_max_nodes(Py_ssize_t nodes):
    """Lower the limit of 2**31 - 1 nodes, for tests; the old limit."""
    cdef Py_ssize_t before = tape.max_nodes
    tape.max_nodes = nodes
    return before


def set_moment(int number):
    """Number the next write after this one, for tests; the old number."""
    cdef int before = tape.moment
    tape.moment = number
    return before


def set_stress(bint on):
    """Stress mode on or off (FASTSCALAR_STRESS=1 at import does the same)."""
    tape.stress = on
    set_limit()


def check():
    """Walk the tape and raise AssertionError if an invariant of the data sheet does not hold."""
    cdef Py_ssize_t i = 1, k, live = 0
    cdef ArrayOp *q
    cdef Tensor t
    assert tape.record[0].op == LEAF and tape.handle[0] == NULL
    assert tape.n <= tape.capacity and tape.young <= tape.n
    assert tape.limit + SLACK <= tape.capacity
    assert not tape.sweeping
    assert (tape.limit == 0) == bool(
            tape.stress or tape.no_grad_threads or tape.anomaly_blocks), "scalar operations take the wrong path"
    assert (tape.source != NULL) == (tape.anomaly_blocks > 0)
    check_threads()
    while i < tape.n:
        assert tape.mark[i] == 0
        if tape.handle[i] != NULL:
            t = <Tensor>tape.handle[i]
            assert t.index == i, (t.index, i)
        if tape.record[i].op == ARRAY_OP:
            q = tape.array_ops[tape.record[i].a]
            assert q.op != A_FREE and q.start == i, (q.op, q.start, i)
            check_array_op(q)
            i += q.count
        else:
            assert tape.record[i].op < n_codes
            if tape.record[i].op > ARRAY_OP:
                assert 0 <= tape.record[i].a < i and 0 <= tape.record[i].b < i
            else:
                assert 0 <= tape.record[i].a <= tape.moment and 0 <= tape.record[i].b <= tape.number
            i += 1
    for k in range(tape.n_writes):
        assert 0 < tape.writes[k].at <= tape.n and 0 < tape.writes[k].number <= tape.moment
        assert k == 0 or tape.writes[k - 1].at < tape.writes[k].at and tape.writes[k - 1].number < tape.writes[k].number
    assert tape.written == (tape.writes[tape.n_writes - 1].at if tape.n_writes else 0)
    for k in range(tape.capacity >> 6):
        assert tape.mark64[k] == 0
    for k in range(tape.capacity >> 12):
        assert tape.mark4k[k] == 0
    for k in range(tape.capacity >> 18):
        assert tape.mark256k[k] == 0
    for k in range(tape.fresh, min(tape.capacity, tape.fresh + 100000)):
        assert tape.grad[k] == 0.0 and tape.handle[k] == NULL
    for k in range(tape.n_array_ops):
        q = tape.array_ops[k]
        live += q.op != A_FREE
        assert not q.alive and not q.whole and not q.listed and q.partial == 0
    assert live == tape.n_array_ops - tape.n_free


cdef int check_threads() except -1:
    cdef ThreadState state
    cdef int silent = 0, lenient = 0, anomaly_blocks = 0, locked = 0, recorders = 0, watches = 0
    for state in states:
        silent += state.no_grad_blocks > 0
        lenient += state.lenient > 0
        anomaly_blocks += state.anomaly_blocks
        locked += state.locked
        recorders += state.recorder is not None
        watches += <int>len(state.watches)
    assert (silent, lenient, anomaly_blocks, locked) == (
        tape.no_grad_threads, lenient_threads, tape.anomaly_blocks, tape.locked), "blocks of threads"
    assert (recorders, watches) == (programs, tracing), "recordings of threads"
    return 0


cdef check_array_op(ArrayOp *q):
    cdef Py_ssize_t k, row
    cdef int handles = 0
    for k in range(q.count):
        assert tape.record[q.start + k].op == ARRAY_OP
        assert tape.record[q.start + k].a == q.slot and tape.record[q.start + k].b == k
        assert tape.mark[q.start + k] == 0
        if tape.handle[q.start + k] != NULL:
            handles += 1
            assert (<Tensor>tape.handle[q.start + k]).index == q.start + k
    assert handles == q.handles, (handles, q.handles)
    for o in (check_operand(&q.x, q.start), check_operand(&q.y, q.start), check_operand(&q.z, q.start)):
        assert o
    if q.op == A_LEAF:
        assert q.rows * q.cols == q.count
        assert q.factored < 0 or q.n_touched == 0
        for row in range(q.rows):
            for k in range(row * q.cols, (row + 1) * q.cols):
                assert q.touched[row] or tape.grad[q.start + k] == 0.0, "a row that is not touched has a gradient"


cdef bint check_operand(Operand *o, int before) except -1:
    cdef Py_ssize_t k
    if o.kind == RUN:
        return 0 < o.start and o.start + o.count <= before
    if o.kind == STRIDED:
        return all([0 < node_of_exact(o, k) < before for k in range(elements_of(o))])
    if o.kind == INDEX:
        for k in range(o.count):
            if not 0 < o.index[k] < before:
                return False
    return True
