# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Modes that other rooms put a thread in, besides `no_grad`, and what a recorded backward pass asks of the tape."""

from cpython.ref cimport Py_INCREF

from fastscalar._core cimport *
from fastscalar.engine.memory cimport set_limit
from fastscalar.engine.array_ops cimport write_gradient
from fastscalar.engine.writes cimport changed_in, raise_changed
from fastscalar.engine.attributes cimport drop_recorded


class record:
    """Context in which the operations of this thread are recorded, also inside `no_grad`; `outside` is what it was."""

    def __enter__(self):
        cdef ThreadState state = own_state()
        self.depth = state.no_grad_blocks
        self.outside = state.no_grad_blocks == 0
        tape.no_grad_threads -= state.no_grad_blocks > 0
        state.suspended += state.no_grad_blocks
        state.no_grad_blocks = 0
        set_limit()
        return self

    def __exit__(self, kind=None, error=None, trace=None):
        cdef ThreadState state = own_state()
        cdef int depth = min(<int>self.depth, state.suspended)   # less if a block outside has been left inside
        if depth:
            tape.no_grad_threads += state.no_grad_blocks == 0
            state.no_grad_blocks += depth
            state.suspended -= depth
            set_limit()


class ieee:
    """Context in which the operations of this thread follow IEEE 754 where they would raise: 1 / 0 is inf.

    Derivatives never raise, so neither may their rules.
    """

    def __enter__(self):
        global lenient_threads
        cdef ThreadState state = own_state()
        lenient_threads += state.lenient == 0
        state.lenient += 1
        if state.recorder is not None:
            state.recorder.begin_ieee()

    def __exit__(self, kind=None, error=None, trace=None):
        global lenient_threads
        cdef ThreadState state = own_state()
        if state.recorder is not None:
            state.recorder.end_ieee()
        state.lenient -= 1
        lenient_threads -= state.lenient == 0


cdef class Watching:
    """Context in which this thread traces a function; the base of what `derivatives` makes of it."""
    cdef tuple before                            # it needs no memory to leave it

    def __enter__(self):
        global tracing
        cdef ThreadState state = own_state()
        self.before = state.watches
        state.watches = (*self.before, self)
        tracing += 1

    def __exit__(self, kind=None, error=None, trace=None):
        global tracing
        own_state().watches = self.before
        tracing -= 1


def watches():
    """What this thread traces, the innermost last."""
    return own_state().watches


def set_recording(Recorder recording):
    """Begin (or, with None, end) the recording of a program in this thread; collection is locked out meanwhile."""
    global programs
    cdef ThreadState state = own_state()
    if recording is None:
        programs -= state.recorder is not None
        state.recorder = None
        unlock_nodes()
    else:
        if state.recorder is not None:
            raise RuntimeError("a compiled function inside the recording of another one")
        lock_nodes()
        state.recorder = recording
        if not programs:
            tape.n_shifts = 0
            foreign_reads.clear()
        programs += 1
        set_limit()                              # from now on the safepoint is told which thread makes which nodes


def swap_recording(Recorder recording):
    """Let another recorder, or none, listen in place of the one that does; what that was."""
    cdef ThreadState state = own_state()
    before, state.recorder = state.recorder, recording
    return before


def current_recording():
    """What listens in this thread, or None."""
    return recording_here()


def is_recording():
    """Whether this thread records a program."""
    return recording_here() is not None


def tell_call(Tensor t not None, callee):
    """Tell a program that is being recorded how it can compute an operation of the user's for many rows: by
    `callee.forward(x, exact)` and `callee.backward(x, y, adjoint, exact)`, x with a column for each operand."""
    cdef Recorder recording = recording_here()
    if recording is not None:
        recording.called(t.index, callee)


def set_recorded(Tensor t not None, Tensor gradient not None):
    """From now on t.grad reads as this Tensor."""
    attributes_of(t)
    drop_recorded(t)
    Py_INCREF(gradient)
    tape.attributes[t.entry - 1].gradient = <void *>gradient
    tape.n_recorded += 1
    write_gradient(t.index)
    tape.grad[t.index] = tape.value[gradient.index]


def require_operands_unchanged(Tensor t not None):
    """The same for a user's own operation whose derivatives are given all operands' values."""
    cdef ArrayOp *q
    cdef int p
    if t.index < tape.written and tape.record[t.index].op == ARRAY_OP:
        q = tape.array_ops[tape.record[t.index].a]
        p = changed_in(&q.x, q.start) if q.op == A_CUSTOM else 0
        if p:
            raise_changed(t.index, p)
