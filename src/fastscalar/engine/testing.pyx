# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Hooks for the tests of the engine: what no user needs, and what may be wrong to call while something is computed."""

from fastscalar._core cimport *
from fastscalar.engine.checked cimport CHECKED, broken_tape
from fastscalar.engine.memory cimport set_limit


def value_and_partials(int code, double a, double b=0.0):
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
    cdef const char *what = broken_tape()
    assert what == NULL, what.decode()
    assert not tape.sweeping
    assert (tape.limit == 0) == bool(tape.stress or tape.no_grad_threads or tape.anomaly_blocks or programs), (
        "scalar operations take the wrong path")
    assert (tape.source != NULL) == (tape.anomaly_blocks > 0)
    check_threads()


def checked_build():
    """Whether this was built with FASTSCALAR_CHECKED=1."""
    return bool(CHECKED)


def living():
    """What the engine holds, by kind, after a full collection: a test compares it with what was there before."""
    cdef Py_ssize_t i, handles = 0, n = -1
    while n != tape.n:                # what attributes and steps of the dead held is let go after a collection
        n = tape.n
        collect_all()
    for i in range(tape.n):
        handles += tape.handle[i] != NULL
    return {
        "nodes": tape.n - 1,
        "Tensors": handles,
        "array operations": tape.n_array_ops - tape.n_free,
        "attributes": tape.n_attributes - tape.n_free_attributes,
        "locks": tape.locked,
        "recordings": programs,
        "traces": tracing,
        "threads": len(states),
    }


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
