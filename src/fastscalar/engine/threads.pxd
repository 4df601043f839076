# cython: language_level=3, wraparound=False, cdivision=True
# What belongs to a thread.
#
# The blocks that a thread is in (no_grad, detect_anomaly, ...), the program that it records, its locks on collection.
# They end with the thread, also if it dies inside a block (an abandoned generator), and in a child
# process after fork, which has only the thread that forked.  The counts, on the tape and here, say whether to look.
#
# Only `_core` may cimport this: each module that did would have a variable `fs_here` of its own.

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from fastscalar._core cimport tape, ThreadEnd, ThreadState, lenient_threads, programs, states, tracing
from fastscalar.engine.memory cimport set_limit
from fastscalar.engine.observers cimport stop_anomaly

cdef extern from "Python.h":
    PyObject *PyThreadState_GetDict()

cdef extern from *:
    """
    #if defined(_MSC_VER)
    static __declspec(thread) void *fs_here = NULL;
    #else
    static __thread void *fs_here = NULL;
    #endif
    """
    void *fs_here                # the ThreadState of this thread; NULL: it has not been in anything yet


cdef inline ThreadState this_thread():
    """The state of this thread."""
    global fs_here
    cdef ThreadState state
    cdef ThreadEnd end
    cdef PyObject *own
    if fs_here != NULL:
        return <ThreadState>fs_here
    end = ThreadEnd.__new__(ThreadEnd)
    state = end.state = ThreadState.__new__(ThreadState)
    state.watches = ()
    own = PyThreadState_GetDict()
    if own != NULL:
        (<dict>own)[ThreadEnd] = end
    else:
        Py_INCREF(end)                           # the interpreter is going down
    states.append(state)
    fs_here = <void *>state
    return state


cdef inline void forget_thread(ThreadState state) noexcept:
    """The thread is not there any more: what it was in does not count."""
    global lenient_threads, tracing, programs
    if state.over:
        return
    state.over = True
    states.remove(state)
    tape.no_grad_threads -= state.no_grad_blocks > 0
    lenient_threads -= state.lenient > 0
    tracing -= <int>len(state.watches)
    programs -= state.recorder is not None
    tape.locked -= state.locked
    state.no_grad_blocks = state.suspended = state.lenient = state.locked = 0
    stop_anomaly(state, state.anomaly_blocks)
    set_limit()
    state.watches = ()
    state.recorder = None


cdef inline void end_thread(ThreadState state) noexcept:
    """This thread ends, or the process."""
    global fs_here
    if fs_here == <void *>state:
        fs_here = NULL
    forget_thread(state)
