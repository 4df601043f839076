# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Modes that other rooms put a thread in, besides `no_grad`, and what a recorded backward pass asks of the tape."""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from fastscalar._core cimport *
from fastscalar.engine._array cimport TensorArray
from fastscalar.engine._inspect cimport reaches_leaf
from fastscalar.engine.memory cimport set_limit
from fastscalar.engine.passed cimport is_leaf
from fastscalar.engine.array_ops cimport write_gradient
from fastscalar.engine.writes cimport changed_in, raise_changed
from fastscalar.engine.attributes cimport drop_recorded

cdef extern from "Python.h":
    ctypedef struct PyFrameObject
    ctypedef struct PyCodeObject
    PyFrameObject *PyEval_GetFrame()
    PyCodeObject *PyFrame_GetCode(PyFrameObject *frame)
    int PyFrame_GetLasti(PyFrameObject *frame)


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
    """Context in which this thread traces a function; the base of what `derivatives` makes of it.

    said: of rows that run eagerly, where losses were said: (file, line), and by `key_of` an instruction the code
    object, which is asked first.  What is lost then is a gradient of leaves that are older than the row; between two
    rows nothing is.  None: the context knows what."""

    def __init__(self, said=None):
        self.said = said

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

    cdef bint knows_place(self) except -1:
        """Whether it was said of the instruction that this thread is at."""
        cdef PyFrameObject *frame = PyEval_GetFrame()
        cdef PyCodeObject *code
        if frame == NULL or not self.said:
            return False
        code = PyFrame_GetCode(frame)
        key = key_at(<size_t>code, PyFrame_GetLasti(frame))
        Py_XDECREF(<PyObject *>code)
        return key in self.said


cdef inline object key_at(size_t code, size_t instruction):
    return code ^ instruction << 48


def key_of(code, int instruction):
    """What an instruction is known by; the code object is to be kept, so that no other one gets its address."""
    return key_at(<size_t><PyObject *>code, instruction)


cdef bint begin_row(arguments) except -1:
    """A function is about to be called for a row, with these: whether `end_row` is to be called after it."""
    cdef tuple watching = own_state().watches
    cdef Watching last
    if not watching:
        return False
    last = watching[len(watching) - 1]
    if last.said is None or last.marker is not None:         # the latter: in a row of another program
        return False
    last.marker, last.arguments = result(LEAF, 0, 0, 0.0), arguments
    return True


cdef int end_row() except -1:
    cdef tuple watching = own_state().watches
    cdef Watching last = watching[len(watching) - 1]
    last.marker = last.arguments = None
    return 0


class row_begun:
    """Context of the call of a function for a row, with these leaves."""

    def __init__(self, leaves):
        self.leaves = leaves

    def __enter__(self):
        self.begun = tracing and begin_row(self.leaves)

    def __exit__(self, kind=None, error=None, trace=None):
        if self.begun:
            end_row()


def refuse_replays(str what not None):
    """A recorded function does what no replay can do: it is called for every row."""
    refuse(what)


def is_argument(x):
    """Whether a Tensor or a TensorArray is an argument, or lies in one, of a function that this thread differentiates,
    records, or calls for a row."""
    cdef Recorder recording = recording_here()
    cdef int slot = -1, node
    cdef Watching watch
    if not tracing and recording is None:
        return False
    if type(x) is Tensor:
        bound(x)
        node = (<Tensor>x).index
        if tape.record[node].op == ARRAY_OP:
            slot = tape.record[node].a
    else:
        slot = (<TensorArray?>x).slot
        node = tape.array_ops[slot].start
    if recording is not None and is_leaf(node) and recording.born <= node < recording.first:
        return True
    for watch in own_state().watches:
        inputs = getattr(watch, "inputs", None)              # made one after the other
        if inputs and (<Tensor>inputs[0]).index <= node <= (<Tensor>inputs[len(inputs) - 1]).index:
            return True
        for argument in watch.arguments or ():
            if argument is x or (slot >= 0 and type(argument) is TensorArray and (<TensorArray>argument).slot == slot):
                return True
    return False


cdef object report = None        # called with the Tensor


def hearing(function):
    """What the engine is to call when a Tensor becomes a plain number, so that `function` is called if it matters."""
    global report
    report = function
    return number_read


def number_read(Tensor t not None):
    cdef tuple watching = own_state().watches
    cdef Watching last
    if not watching:
        return                   # another thread is tracing
    last = watching[len(watching) - 1]
    if last.said is not None and (
            last.marker is None or last.knows_place() or not reaches_leaf(t.index, last.marker.index)):
        return
    report(t)


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
