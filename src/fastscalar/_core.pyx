# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False, auto_pickle=False
"""The engine: a tape of scalar nodes, its collection, Tensor and its operators, and the backward pass.

The boundary: this module knows numbers, nodes and runs of nodes.  How runs are made, and TensorArray, is in `_array`;
layers, optimisers, data sets and files are Python above that.  Below are arithmetic on plain arrays
(`engine/kernels/`) and the formulas (`engine/formulas.pxd`).

Contract
1. One tape, protected by the GIL; every function here is called with it and none releases it.
2. A node is younger than its operands, so creation order is a topological order: nothing recurses or sorts.
3. `Tensor` and `TensorArray` are handles.  A node stays as long as a live handle, or a live handle of something
   computed from it, can reach it; collection slides the living down and rewrites the handles.
4. THE SAFEPOINT RULE.  Convert operands and exhaust iterables first; then call `safepoint`, which may collect, grow the
   columns and run destructors; then read indices and pointers.  From there to their last use nothing may run Python:
   no __float__, no generator, no allocation that Python's collector tracks, no DECREF of a user's object.  `Tensor` and
   `TensorArray` are @no_gc, so that making one is allowed.  Nothing may fail after the node is published.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.long cimport PyLong_AsDouble, PyLong_AsLongLongAndOverflow, PyLong_Check
from cpython.mem cimport PyMem_RawFree
from cpython.object cimport Py_EQ, Py_GE, Py_GT, Py_LE, Py_LT, Py_NE, PyObject, PyObject_GenericSetAttr
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport INFINITY, NAN, isinf, isnan
from libc.string cimport memcmp, memcpy, memset

from fastscalar.engine.attributes cimport (drop_flagged, drop_recorded, flag_recorded, pin, recorded_gradient,
                                           release_dead)
from fastscalar.engine.collect cimport YOUNG_BYTES, collect, collect_old, promote
from fastscalar.engine.formulas cimport *
from fastscalar.engine.writes cimport changed_in, changed_operand, has_nodes, raise_changed

import math
import numbers
import operator
import os
import threading
import time
import warnings

import numpy as np

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
        Py_ssize_t tp_dictoffset
        void *tp_descr_set
    PyObject *_PyType_Lookup(PyTypeObject *, object)
    void PyType_Modified(PyTypeObject *)
    PyObject *PyThreadState_GetDict()

cdef extern from *:
    """
    #if defined(__GNUC__)   /* one comparison and one jump; what is zero and what is NaN the rare path finds out */
    #define FS_IS_ZERO_OR_NAN(x) (!__builtin_islessgreater((x), 0.0))
    #else
    #define FS_IS_ZERO_OR_NAN(x) (!((x) < 0.0 || (x) > 0.0))
    #endif
    """
    bint is_zero_or_nan "FS_IS_ZERO_OR_NAN"(double) noexcept nogil

cdef Tape T
cdef const fs_kernels *K         # the set of kernels in use

# Scratch memory of the kernels.  Whoever emits an instruction reserves what its backward step needs: it never shrinks,
# so that nothing can fail in the middle of a backward pass.

cdef double *work = NULL
cdef int *work_int = NULL
cdef size_t work_size = 0, work_int_size = 0


cdef int reserve_work(size_t doubles, size_t ints, str what) except -1:
    global work, work_int, work_size, work_int_size
    cdef void *block
    if doubles > work_size:
        block = reallocate(work, doubles * sizeof(double))
        if block == NULL:
            out_of_memory(what, doubles)
        work = <double *>block
        work_size = doubles
    if ints > work_int_size:
        block = reallocate(work_int, ints * sizeof(int))
        if block == NULL:
            out_of_memory(what, ints)
        work_int = <int *>block
        work_int_size = ints
    return 0


# --- the safepoint --------------------------------------------------------------------------------

cdef int safepoint(Py_ssize_t need) except -1:
    """Room for `need` more nodes.  Collects if that is due: indices and pointers from before are void."""
    cdef bint collected = False
    cdef int here = 0
    cdef Py_ssize_t i
    if T.note != NULL:
        here = locate()                          # first: it runs Python
    if T.stress:
        stress()
    elif T.n + need > T.young + NURSERY or T.young_bytes > <size_t>YOUNG_BYTES:
        if not T.locked:
            collect()
            if need > NURSERY // 2:
                promote()                        # nothing that can die lies between this run and the old part
    while T.n + need + SLACK > T.capacity:       # a loop: what a collection released may have emitted nodes
        try:
            grow(need)
        except MemoryError:
            if T.locked or collected:
                raise
            collected = True                     # the dead among the old may be all that it takes
            collect_old()
            release_dead()
    if T.note != NULL:
        for i in range(T.n, T.n + need):         # what the caller is about to emit
            T.note[i] = here
    set_limit()
    return 0


cdef int stress() except -1:
    """Collect, move all columns, and leave a dead node, so that next time every younger index changes."""
    if not T.locked:
        collect_old()
        release_dead()
    resize(max(T.capacity, T.n + 1024))
    emit(LEAF, 0, 0, NAN, NULL)
    return 0


# --- making nodes ---------------------------------------------------------------------------------

cdef inline int emit(int op, int a, int b, double v, void *handle) noexcept nogil:
    """The next node.  The caller has room for it and cannot fail any more."""
    cdef int i = <int>T.n
    T.value[i] = v
    T.grad[i] = 0.0
    T.handle[i] = handle
    T.record[i].op = <unsigned char>op
    T.record[i].a = a
    T.record[i].b = b
    T.n = i + 1
    return i


cdef Tensor result(int op, int a, int b, double v):
    """The private door: a new node and its Tensor, nothing checked."""
    cdef Tensor t = Tensor.__new__(Tensor)
    t.index = emit(op, a, b, v, <void *>t)
    return t


cdef Tensor handle_of(int i):
    """The Tensor of a node: the same object as long as somebody holds it."""
    cdef Tensor t
    cdef void *h = T.handle[i]
    if h != NULL:
        return <Tensor>h
    t = Tensor.__new__(Tensor)
    t.index = i
    T.handle[i] = <void *>t
    if T.record[i].op == WIDE:
        T.wide[T.record[i].a].handles += 1
    return t


# --- what belongs to a thread ---------------------------------------------------------------------
#
# The blocks that a thread is in (no_grad, detect_anomaly, ...), the program that it records, its locks on collection.
# They end with the thread, also if it dies inside a block (a generator that nobody goes on with), and in a child
# process after fork, which has only the thread that forked.  The counts, on the tape and here, say whether to look.

cdef extern from *:
    """
    #if defined(_MSC_VER)
    static __declspec(thread) void *fs_here = NULL;
    #else
    static __thread void *fs_here = NULL;
    #endif
    """
    void *fs_here                # the ThreadState of this thread; NULL: it has not been in anything yet

cdef list states = []            # every ThreadState
cdef int lenient_threads = 0     # threads in _ieee
cdef int tracing = 0             # functions that are being traced: a Tensor that becomes a plain number is reported
cdef int programs = 0            # recordings under way; the one look that everybody else has to pay for


cdef class ThreadState:
    cdef int quiet               # no_grad blocks that count at the moment,
    cdef int suspended           # and those outside a block of _record
    cdef int lenient             # _ieee blocks
    cdef int noting              # detect_anomaly blocks
    cdef int locked              # its part of T.locked
    cdef list watches            # what is traced, the innermost last
    cdef Recorder recorder       # of the program that it records
    cdef bint over               # the thread has ended


@cython.no_gc
cdef class ThreadEnd:
    """Dies with the thread, in whose dictionary it is."""
    cdef ThreadState state

    def __dealloc__(self):
        global fs_here
        if fs_here == <void *>self.state:
            fs_here = NULL
        forget_thread(self.state)


cdef ThreadState this_thread():
    """The state of this thread."""
    global fs_here
    cdef ThreadState state
    cdef ThreadEnd end
    cdef PyObject *own
    if fs_here != NULL:
        return <ThreadState>fs_here
    end = ThreadEnd.__new__(ThreadEnd)
    state = end.state = ThreadState.__new__(ThreadState)
    state.watches = []
    own = PyThreadState_GetDict()
    if own != NULL:
        (<dict>own)[ThreadEnd] = end
    else:
        Py_INCREF(end)                           # the interpreter is going down
    states.append(state)
    fs_here = <void *>state
    return state


cdef void forget_thread(ThreadState state) noexcept:
    """The thread is not there any more: what it was in does not count."""
    global lenient_threads, tracing, programs
    if state.over:
        return
    state.over = True
    states.remove(state)
    T.quiet -= state.quiet > 0
    lenient_threads -= state.lenient > 0
    tracing -= <int>len(state.watches)
    programs -= state.recorder is not None
    T.locked -= state.locked
    state.quiet = state.suspended = state.lenient = state.locked = 0
    stop_noting(state, state.noting)
    set_limit()
    state.watches = []
    state.recorder = None


cdef int lock_nodes() except -1:
    """No collection until `unlock_nodes`: indices are held while Python may run."""
    cdef ThreadState state = this_thread()
    state.locked += 1
    T.locked += 1
    return 0


cdef void unlock_nodes() noexcept:
    (<ThreadState>fs_here).locked -= 1
    T.locked -= 1
    set_limit()


cdef int forks = 0               # from the process that imported this to the one that we are in


cdef class Lock:
    """A re-entrant lock that a child process after fork finds open if it was held by a thread that is not there.

    Compiled, so that no interrupt comes between taking the lock and the block that gives it back."""
    cdef object lock
    cdef int forks

    def __cinit__(self):
        self.lock, self.forks = threading.RLock(), forks

    def __enter__(self):
        if self.forks != forks:
            self.forks = forks
            if self.lock.acquire(False):         # nobody had it, or the thread that forked
                self.lock.release()
            else:
                self.lock = threading.RLock()
        self.lock.acquire()

    def __exit__(self, *error):
        self.lock.release()


def _begin_in_child():
    """After fork: of all threads there is only this one."""
    global forks
    cdef ThreadState state
    forks += 1
    if T.sweeping and T.owner != PyThread_get_thread_ident():
        tidy_sweep()
        T.sweeping = False
    for state in list(states):
        if <void *>state != fs_here:
            forget_thread(state)


cdef class _Block:
    """A context that counts for the thread that enters it, and can be left only there."""
    cdef list entered            # for each time that it was and has not been left: the thread, and what `enter` said

    cdef object enter(self, ThreadState state):
        raise NotImplementedError

    cdef int leave(self, ThreadState state, object what) except -1:
        raise NotImplementedError

    def __enter__(self):
        cdef ThreadState state = this_thread()
        if self.entered is None:
            self.entered = []
        self.entered.append((state, self.enter(state)))
        return self

    def __exit__(self, kind=None, *error):
        cdef ThreadState state = this_thread(), other
        cdef Py_ssize_t k
        if not self.entered:
            raise RuntimeError(f"{type(self).__name__}: left without having been entered")
        for k in range(len(self.entered) - 1, -1, -1):
            if self.entered[k][0] is state:
                self.leave(state, self.entered.pop(k)[1])
                return
        other, what = self.entered.pop()
        if other.over:
            if kind is GeneratorExit:            # somebody tidies up what nobody goes on with
                return
        else:
            self.leave(other, what)
        raise RuntimeError(
            f"{type(self).__name__}: left in another thread than the one that entered it (as by a generator that goes "
            "on elsewhere); it has ended there and changes nothing here")


# --- no_grad --------------------------------------------------------------------------------------

cdef bint recording():
    return T.quiet == 0 or fs_here == NULL or (<ThreadState>fs_here).quiet == 0


cdef class no_grad(_Block):
    """Context in which operations are not recorded: their results are leaves.  Counts for this thread only.

    RuntimeError if another thread leaves it, as with a generator that goes on elsewhere.

    >>> import fastscalar as fs
    >>> w = fs.Tensor(3.0)
    >>> with fs.no_grad():
    ...     y = w * w
    >>> y._parents
    ()
    """

    cdef object enter(self, ThreadState state):
        if state.recorder is not None:           # a program computes everything for every row; gradients stop here
            state.recorder.stop_gradients()
        elif state.quiet:
            state.quiet += 1
        else:
            state.quiet = 1
            T.quiet += 1
            set_limit()
        return state.recorder

    cdef int leave(self, ThreadState state, object what) except -1:
        if what is not None:
            if what is state.recorder:           # else that recording has ended
                state.recorder.resume_gradients()
        elif state.quiet == 0:
            state.suspended -= 1
        else:
            state.quiet -= 1
            T.quiet -= state.quiet == 0
            set_limit()
        return 0


class _record:
    """Context in which the operations of this thread are recorded, also inside `no_grad`; `outside` is what it was."""

    def __enter__(self):
        cdef ThreadState state = this_thread()
        self.depth = state.quiet
        self.outside = state.quiet == 0
        T.quiet -= state.quiet > 0
        state.suspended += state.quiet
        state.quiet = 0
        set_limit()
        return self

    def __exit__(self, *exc):
        cdef ThreadState state = this_thread()
        cdef int depth = min(<int>self.depth, state.suspended)   # less if a block outside has been left inside
        if depth:
            T.quiet += state.quiet == 0
            state.quiet += depth
            state.suspended -= depth
            set_limit()


# --- the operation table --------------------------------------------------------------------------
#
# One row registers an operation: its name, what it does, its derivatives.  Methods, arrays, tests and drawing read it.
# `infinity` says what an infinite result of a finite operand is: as in Python's `math` a pole (ValueError), too large
# (OverflowError) or no error.  NaN of operands that are not NaN is a ValueError.  The last entries say what the
# derivatives read of the operands and the result, `(a, v)` or `(a, b, v)` in their formulas.

cdef Row[N_CODES] TABLE


cdef void leaf_row(int code, const char *name) noexcept:
    TABLE[code].name = name


cdef void unary_row(int code, const char *name, Unary f, Slope1 d, int infinity, bint method, int reads) noexcept:
    TABLE[code].name = name
    TABLE[code].reads_a = reads
    TABLE[code].arity = 1
    TABLE[code].f = f
    TABLE[code].d = d
    TABLE[code].infinity = infinity
    TABLE[code].method = method


cdef void binary_row(int code, const char *name, Binary f, Slope2 da, Slope2 db, bint divides, bint method,
                     int reads_a, int reads_b) noexcept:
    TABLE[code].name = name
    TABLE[code].reads_a = reads_a
    TABLE[code].reads_b = reads_b
    TABLE[code].arity = 2
    TABLE[code].f2 = f
    TABLE[code].da = da
    TABLE[code].db = db
    TABLE[code].divides = divides
    TABLE[code].method = method


leaf_row(LEAF, b"")
leaf_row(CONST, b"const")
leaf_row(WIDE, b"wide")
binary_row(ADD, b"+", f_add, d_add_a, d_add_b, False, False,
           READS_NOTHING, READS_NOTHING)
binary_row(SUB, b"-", f_sub, d_sub_a, d_sub_b, False, False,
           READS_NOTHING, READS_NOTHING)
binary_row(MUL, b"*", f_mul, d_mul_a, d_mul_b, False, False,
           READS_B, READS_A)
binary_row(DIV, b"/", f_div, d_div_a, d_div_b, True, False,
           READS_B, READS_B | READS_V)
binary_row(POW, b"**", f_pow, d_pow_a, d_pow_b, False, False,
           READS_A | READS_B, READS_A | READS_B | READS_V)
unary_row(NEG, b"neg", f_neg, d_neg, NO_ERROR, False, READS_NOTHING)
unary_row(RELU, b"relu", f_relu, d_relu, NO_ERROR, True, READS_A)
unary_row(EXP, b"exp", f_exp, d_exp, TOO_LARGE, True, READS_V)
unary_row(LOG, b"log", f_log, d_log, POLE, True, READS_A)
unary_row(EXP2, b"exp2", f_exp2, d_exp2, TOO_LARGE, True, READS_V)
unary_row(EXPM1, b"expm1", f_expm1, d_expm1, TOO_LARGE, True, READS_V)
unary_row(LOG2, b"log2", f_log2, d_log2, POLE, True, READS_A)
unary_row(LOG10, b"log10", f_log10, d_log10, POLE, True, READS_A)
unary_row(LOG1P, b"log1p", f_log1p, d_log1p, POLE, True, READS_A)
unary_row(SQRT, b"sqrt", f_sqrt, d_sqrt, NO_ERROR, True, READS_V)
unary_row(CBRT, b"cbrt", f_cbrt, d_cbrt, NO_ERROR, True, READS_V)
unary_row(SIN, b"sin", f_sin, d_sin, NO_ERROR, True, READS_A)
unary_row(COS, b"cos", f_cos, d_cos, NO_ERROR, True, READS_A)
unary_row(TAN, b"tan", f_tan, d_tan, NO_ERROR, True, READS_V)
unary_row(ASIN, b"asin", f_asin, d_asin, NO_ERROR, True, READS_A)
unary_row(ACOS, b"acos", f_acos, d_acos, NO_ERROR, True, READS_A)
unary_row(ATAN, b"atan", f_atan, d_atan, NO_ERROR, True, READS_A)
unary_row(SINH, b"sinh", f_sinh, d_sinh, TOO_LARGE, True, READS_A)
unary_row(COSH, b"cosh", f_cosh, d_cosh, TOO_LARGE, True, READS_A)
unary_row(TANH, b"tanh", f_tanh, d_tanh, NO_ERROR, True, READS_V)
unary_row(ASINH, b"asinh", f_asinh, d_asinh, NO_ERROR, True, READS_A)
unary_row(ACOSH, b"acosh", f_acosh, d_acosh, NO_ERROR, True, READS_A)
unary_row(ATANH, b"atanh", f_atanh, d_atanh, POLE, True, READS_A)
unary_row(ERF, b"erf", f_erf, d_erf, NO_ERROR, True, READS_A)
unary_row(ERFC, b"erfc", f_erfc, d_erfc, NO_ERROR, True, READS_A)
unary_row(NDTR, b"ndtr", f_ndtr, d_ndtr, NO_ERROR, True, READS_A)
unary_row(LGAMMA, b"lgamma", f_lgamma, d_lgamma, POLE, True, READS_A)
unary_row(DIGAMMA, b"digamma", f_digamma, d_digamma, POLE, True, READS_A)
unary_row(ABS, b"abs", f_abs, d_abs, NO_ERROR, True, READS_A)
unary_row(SIGN, b"sign", f_sign, d_sign, NO_ERROR, True, READS_NOTHING)
unary_row(FLOOR, b"floor", f_floor, d_floor, NO_ERROR, True, READS_NOTHING)
unary_row(CEIL, b"ceil", f_ceil, d_ceil, NO_ERROR, True, READS_NOTHING)
unary_row(TRUNC, b"trunc", f_trunc, d_trunc, NO_ERROR, True, READS_NOTHING)
unary_row(DEGREES, b"degrees", f_degrees, d_degrees, NO_ERROR, True, READS_NOTHING)
unary_row(RADIANS, b"radians", f_radians, d_radians, NO_ERROR, True, READS_NOTHING)
unary_row(SIGMOID, b"sigmoid", f_sigmoid, d_sigmoid, NO_ERROR, True, READS_A)
unary_row(SOFTPLUS, b"softplus", f_softplus, d_softplus, NO_ERROR, True, READS_A)
unary_row(SILU, b"silu", f_silu, d_silu, NO_ERROR, True, READS_A)
unary_row(GELU, b"gelu", f_gelu, d_gelu, NO_ERROR, True, READS_A)
binary_row(MINIMUM, b"minimum", f_minimum, d_minimum_a, d_minimum_b, False, True,
           READS_A | READS_B, READS_A | READS_B)
binary_row(MAXIMUM, b"maximum", f_maximum, d_maximum_a, d_maximum_b, False, True,
           READS_A | READS_B, READS_A | READS_B)
binary_row(ATAN2, b"atan2", f_atan2, d_atan2_a, d_atan2_b, False, True,
           READS_A | READS_B, READS_A | READS_B)
binary_row(HYPOT, b"hypot", f_hypot, d_hypot_a, d_hypot_b, False, True,
           READS_A | READS_V, READS_B | READS_V)
binary_row(COPYSIGN, b"copysign", f_copysign, d_copysign_a, d_copysign_b, False, True,
           READS_A | READS_B, READS_NOTHING)
binary_row(FMOD, b"fmod", f_fmod, d_fmod_a, d_fmod_b, False, True,
           READS_NOTHING, READS_A | READS_B | READS_V)
binary_row(MOD, b"%", f_mod, d_mod_a, d_mod_b, True, False,
           READS_NOTHING, READS_A | READS_B | READS_V)
binary_row(FLOORDIV, b"//", f_floordiv, d_floordiv_a, d_floordiv_b, True, False,
           READS_NOTHING, READS_NOTHING)
binary_row(LEAKY_RELU, b"leaky_relu", f_leaky_relu, d_leaky_relu_a, d_leaky_relu_b, False, True,
           READS_A | READS_B, READS_A)
binary_row(ELU, b"elu", f_elu, d_elu_a, d_elu_b, False, True,
           READS_A | READS_B, READS_A)
binary_row(POLYGAMMA, b"polygamma", f_polygamma, d_polygamma_a, d_polygamma_b, False, True,
           READS_A | READS_B, READS_NOTHING)
binary_row(SEND, b"send", f_send, d_send_a, d_send_b, False, True,
           READS_B, READS_A)
binary_row(REMAINDER, b"remainder", f_remainder, d_remainder_a, d_remainder_b, False, True,
           READS_NOTHING, READS_A | READS_B | READS_V)
unary_row(GAMMA, b"gamma", f_gamma, d_gamma, POLE, True, READS_A | READS_V)

cdef tuple WIDE_NAMES = ("free", "", "linear", "map", "map", "sum", "dot", "logsumexp", "softmax", "squared_loss",
                         "mse_loss", "cross_entropy", "custom", "gather", "where", "best")
cdef tuple BEST_NAMES = ("max", "min", "argmax", "argmin")


cdef Row *row(int code) noexcept nogil:
    return &TABLE[code]


cdef str op_name(int code):
    return TABLE[code].name.decode()


cdef str best_name(int code):
    return BEST_NAMES[code]


cdef bint lenient():
    return lenient_threads > 0 and fs_here != NULL and (<ThreadState>fs_here).lenient > 0


class _ieee:
    """Context in which the operations of this thread follow IEEE 754 where they would raise: 1 / 0 is inf.

    Derivatives never raise, so neither may their recipes.
    """

    def __enter__(self):
        global lenient_threads
        cdef ThreadState state = this_thread()
        lenient_threads += state.lenient == 0
        state.lenient += 1

    def __exit__(self, *exc):
        global lenient_threads
        cdef ThreadState state = this_thread()
        state.lenient -= 1
        lenient_threads -= state.lenient == 0


cdef bint is_error(int code, double a, double b, double v) noexcept nogil:
    """Whether an operation with this result, which is not finite, raises.  Unary ones have no b."""
    if code == FLOOR or code == CEIL or code == TRUNC:
        return True
    if TABLE[code].arity == 1:
        return (isnan(v) and not isnan(a)) or (
            isinf(v) and not isinf(a) and not isnan(a) and TABLE[code].infinity != NO_ERROR)
    if TABLE[code].divides:
        return b == 0.0
    if code == POW:
        return (a == 0.0 and b < 0.0 and not isinf(b)) or (isnan(v) and not isnan(a) and not isnan(b)) or (
            isinf(v) and not isinf(a) and not isinf(b))
    if code == FMOD or code == REMAINDER or code == POLYGAMMA:
        return (isnan(v) and not isnan(a) and not isnan(b)) or (code == POLYGAMMA and isinf(v) and not isinf(a))
    return False


cdef int fail(int code, double a, double b, double v, int left, int right) except -1:
    """The result is not finite: raise what Python raises, or nothing.  left, right: the operands' nodes, 0: none."""
    cdef Recorder recording
    if not is_error(code, a, b, v) or lenient():
        return 0
    if programs:
        recording = recording_here()
        if recording is not None:
            recording.raised(code, left, right, a, b)
            try:
                raise_error(code, a, b, v)
            except (ValueError, ArithmeticError) as error:       # what it says depends on the operands
                error.args = (recording.message(error.args[0], left, right),)
                raise
    raise_error(code, a, b, v)


cdef int raise_error(int code, double a, double b, double v) except -1:
    if TABLE[code].arity == 1:
        raise_unary(code, a, v)
    elif TABLE[code].divides:
        raise ZeroDivisionError(f"{a!r} {op_name(code)} {b!r}: division by zero")
    else:
        raise_binary(code, a, b, v)
    raise AssertionError(f"{op_name(code)}({a!r}, {b!r}) is no error")


cdef int raise_unary(int code, double a, double v) except -1:
    """Raise what Python's `math` raises, or nothing."""
    if code == FLOOR or code == CEIL or code == TRUNC:           # of floats they are whole numbers, which have neither
        if isnan(v):
            raise ValueError(f"{op_name(code)}({a!r}): cannot convert float NaN to integer")
        raise OverflowError(f"{op_name(code)}({a!r}): cannot convert float infinity to integer")
    if isnan(v) and not isnan(a):
        raise ValueError(f"{op_name(code)}({a!r}): outside the function's domain")
    if isinf(v) and not isinf(a) and not isnan(a):
        # lgamma(-1) is a pole; lgamma(1e306) and gamma(1e-310) are overflows
        if TABLE[code].infinity == POLE and a <= 1.0 and a == floor(a):
            raise ValueError(f"{op_name(code)}({a!r}): outside the function's domain")
        if TABLE[code].infinity != NO_ERROR:
            raise OverflowError(f"{op_name(code)}({a!r}): the result is too large for a float")
    return 0


cdef int raise_binary(int code, double a, double b, double v) except -1:
    """Raise what Python raises, or nothing."""
    if code == POW:
        raise_power(a, b, v)
    elif code in (FMOD, REMAINDER, POLYGAMMA) and isnan(v) and not isnan(a) and not isnan(b):
        raise ValueError(f"{op_name(code)}({a!r}, {b!r}): outside the function's domain")
    elif code == POLYGAMMA and isinf(v) and not isinf(a):
        if a <= 0.0 and a == floor(a):
            raise ValueError(f"{op_name(code)}({a!r}, {b!r}): a pole")
        raise OverflowError(f"{op_name(code)}({a!r}, {b!r}): the result is too large for a float")
    return 0


cdef int raise_power(double a, double b, double v) except -1:
    """Raise what Python's `**` of floats raises, or nothing."""
    if a == 0.0 and b < 0.0 and not isinf(b):    # 0.0 ** -inf is inf in Python too
        raise ZeroDivisionError(f"{a!r} ** {b!r}: zero to a negative power")
    if isnan(v) and not isnan(a) and not isnan(b):
        raise ValueError(f"{a!r} ** {b!r}: the result is complex (a negative base needs an integer exponent)")
    if isinf(v) and not isinf(a) and not isinf(b):
        raise OverflowError(f"{a!r} ** {b!r}: the result is too large for a float")
    return 0


cdef inline double evaluate(int code, double a, double b, int left, int right) except? -1.0:
    """A binary operation as Python's floats do it.  left, right: the operands' nodes, 0: none."""
    cdef double v
    if code == ADD:
        return f_add(a, b)
    if code == SUB:
        return f_sub(a, b)
    if code == MUL:
        return f_mul(a, b)
    v = f_div(a, b) if code == DIV else TABLE[code].f2(a, b)
    if v - v != 0.0:                             # so is everything by 0
        fail(code, a, b, v, left, right)
    return v


# --- numbers --------------------------------------------------------------------------------------

# Not written where they are asked for: of the entries of such a tuple Cython ignores that one raised (an interrupt).
cdef tuple REAL = (np.floating, np.integer, np.bool_, numbers.Real)     # the abstract class last: it takes longest
cdef tuple NUMBER = (numbers.Number, np.bool_)

cdef enum:
    NO_NUMBER = 2                # of nearest_double


cdef int as_number(object x, double *v) except -1:
    """1 and the value if x is a real number (int, float, bool, Fraction, NumPy's scalars ...), else 0."""
    if PyFloat_Check(x):
        v[0] = PyFloat_AS_DOUBLE(x)
        return 1
    if PyLong_Check(x):
        v[0] = PyLong_AsDouble(x)                # OverflowError beyond 1.8e308
        return 1
    if isinstance(x, REAL):
        v[0] = float(x)
        return 1
    return 0


cdef int nearest_double(object x, int op, double *y) except? -2:
    """The double nearest to a number that something is compared with, and on which side of the number it is: 1 above,
    -1 below, 0 it is the number.  NO_NUMBER if `x` is none (or complex and asked for its order).  So comparisons are
    as exact as those of Python's floats: 10**400, 2**53 + 1, Fraction(1, 10) are not rounded."""
    cdef int overflow = 0
    cdef long long whole
    if not PyLong_Check(x) and isinstance(x, np.integer):
        x = operator.index(x)
    if PyLong_Check(x):
        whole = PyLong_AsLongLongAndOverflow(x, &overflow)
        if not overflow and -(1LL << 53) <= whole <= (1LL << 53):
            y[0] = <double>whole
            return 0
    elif isinstance(x, numbers.Complex) and not isinstance(x, REAL):
        if op != Py_EQ and op != Py_NE:
            return NO_NUMBER
        if x.imag != 0.0:
            return 1
        x = x.real
    elif not isinstance(x, NUMBER):
        return NO_NUMBER
    try:
        y[0] = float(x)
    except OverflowError:
        y[0] = INFINITY if x > 0 else -INFINITY
    if isnan(y[0]) or (isinstance(x, np.floating) and not isinstance(x, np.longdouble)):
        return 0
    nearest = y[0]
    try:
        return 1 if nearest > x else -1 if nearest < x else 0
    except TypeError:                            # a class that is registered as a number and is only its float
        return 0


cdef object not_a_number(int code, object left, object right):
    """NotImplemented: Python makes its TypeError of it, and an ndarray of numbers an array of Tensors.

    Of other ndarrays NumPy would speak of concatenation, or of ufuncs.
    """
    for x in (left, right):
        if isinstance(x, np.ndarray) and x.dtype.kind not in "fiubO":
            raise TypeError(f"unsupported operand type(s) for {op_name(code)}: '{type(left).__name__}' and "
                            f"'{type(right).__name__}' of {x.dtype}")
    return NotImplemented


cdef object binary_slow(int code, object left, object right):
    """A binary operation when an operand is a number, a collection is due, or this thread is in no_grad."""
    cdef double x = 0.0, y = 0.0, v
    cdef bint left_is_node = type(left) is Tensor, right_is_node = type(right) is Tensor
    cdef int a = 0, b = 0
    cdef Tensor t
    if not left_is_node and not as_number(left, &x):
        if isinstance(left, TracedNumber):
            return binary(code, (<TracedNumber>left).tensor, right)
        return not_a_number(code, left, right)
    if not right_is_node and not as_number(right, &y):
        if isinstance(right, TracedNumber):
            return binary(code, left, (<TracedNumber>right).tensor)
        return not_a_number(code, left, right)
    if T.n >= T.limit:
        safepoint(SLACK)
    if left_is_node:
        bound(left)
        a = (<Tensor>left).index
        x = T.value[a]
    if right_is_node:
        bound(right)
        b = (<Tensor>right).index
        y = T.value[b]
    v = evaluate(code, x, y, a, b)
    if T.quiet and not recording():
        return result(LEAF, 0, 0, v)
    t = Tensor.__new__(Tensor)
    if not left_is_node:
        a = emit(CONST, 0, 0, x, NULL)
    if not right_is_node:
        b = emit(CONST, 0, 0, y, NULL)
    t.index = emit(code, a, b, v, <void *>t)
    return t


cdef inline object binary(int code, object left, object right):
    cdef int a, b
    cdef double v
    if type(left) is Tensor and type(right) is Tensor and T.n < T.limit:
        a = (<Tensor>left).index
        b = (<Tensor>right).index
        if a == 0 or b == 0:
            unbound()
        v = evaluate(code, T.value[a], T.value[b], a, b)
        return result(code, a, b, v)
    return binary_slow(code, left, right)


cdef object unary(int code, Tensor self):
    cdef int a
    cdef double x, v
    bound(self)
    if T.n >= T.limit:
        safepoint(SLACK)
    a = self.index
    x = T.value[a]
    v = TABLE[code].f(x)
    if v - v != 0.0:
        fail(code, x, 0.0, v, a, 0)
    if T.quiet and not recording():
        return result(LEAF, 0, 0, v)
    return result(code, a, 0, v)


# --- what the modules above register --------------------------------------------------------------

cdef object on_number = None     # to this, called with the Tensor
cdef object record_backward = None   # backward(create_graph=True): called with the root and `accumulate`


def _register(number, backward):
    """`derivatives` puts in what it does in place of this module, which imports nothing from above."""
    global on_number, record_backward
    on_number = number
    record_backward = backward


cdef class _Watch:
    """Context in which this thread traces a function; the base of what `derivatives` makes of it."""

    def __enter__(self):
        global tracing
        this_thread().watches.append(self)
        tracing += 1

    def __exit__(self, *exc):
        global tracing
        this_thread().watches.pop()
        tracing -= 1


def _watches():
    """What this thread traces, the innermost last."""
    return this_thread().watches


# --- the recording of programs --------------------------------------------------------------------
#
# `fastscalar.compile` calls a function once and takes its graph.  What the graph does not show is told to the recording
# of the thread: decisions on values, copies that cut the graph, blocks of no_grad, and what a program must not do.


cdef class TracedNumber:
    """The base of `_traced.TracedInt`: operations take it as they take the number itself."""


cdef class Recorder:
    """The base of `_trace.Recording`."""

    cdef object compare(self, int op, Tensor left, Tensor right, double number):
        raise NotImplementedError

    cdef int decided(self, int op, Tensor left, Tensor right, double number, bint outcome) except -1:
        raise NotImplementedError

    cdef int number_read(self, int node, str how) except -1:
        raise NotImplementedError

    cdef int raised(self, int code, int left, int right, double x, double y) except -1:
        raise NotImplementedError

    cdef object message(self, str text, int left, int right):
        raise NotImplementedError

    cdef int detached(self, int copy, int node) except -1:
        raise NotImplementedError

    cdef int stop_gradients(self) except -1:
        raise NotImplementedError

    cdef int resume_gradients(self) except -1:
        raise NotImplementedError


cdef Recorder recording_here():
    if not programs or fs_here == NULL:
        return None
    return (<ThreadState>fs_here).recorder


def _set_recording(Recorder recording):
    """Begin (or, with None, end) the recording of a program in this thread; collection is locked out meanwhile."""
    global programs
    cdef ThreadState state = this_thread()
    if recording is None:
        programs -= state.recorder is not None
        state.recorder = None
        unlock_nodes()
    else:
        if state.recorder is not None:
            raise RuntimeError("a compiled function inside the recording of another one")
        lock_nodes()
        state.recorder = recording
        programs += 1


def _recording():
    """Whether this thread records a program."""
    return recording_here() is not None


cdef int forbid(str what) except -1:
    if recording_here() is not None:
        raise RuntimeError(f"{what} inside a compiled function: it would be lost in the replays")
    return 0


cdef int read_number(Tensor t, str how) except -1:
    """The value leaves the graph: from now on the program holds only for rows where it is the same."""
    cdef Recorder recording = recording_here()
    if recording is not None:
        recording.number_read(t.index, how)
    return 0


# --- Tensor ---------------------------------------------------------------------------------------
#
# 32 bytes: a node's index and, if the user set attributes on it, where they are.  No `cdef dict __dict__` (Cython would
# make one for every object: 30 -> 45 ns an operation), but CPython is told where the dict of those that have one is: a
# `__getattr__` instead made every method call allocate a bound method (t.exp(): 126 -> 71 ns without).  Attributes
# live in a table of the tape, and so does the Tensor that carries them: it comes back as the same object while its node
# lives.

@cython.final
@cython.no_gc
@cython.freelist(4096)
@cython.c_api_binop_methods(True)
cdef class Tensor:
    """One float64 number that remembers how it was computed.

    Arithmetic with other Tensors and with real numbers (int, float, bool, Fraction, NumPy scalars) records a graph;
    `backward()` leaves the derivative of its result with respect to every number it was made of in their `.grad`.

    Errors are Python's own: operators raise what `float` raises, functions what `math` raises, and operands of any
    other type are a TypeError.

    >>> from fastscalar import Tensor
    >>> a, b = Tensor(2), Tensor(3)
    >>> x = a * b
    >>> z = x + x
    >>> z.backward()
    >>> a.grad, b.grad, x.grad, z.grad
    (6.0, 4.0, 2.0, 1.0)
    """

    def __init__(self, data, _parents=(), _op="", *, label=""):
        cdef double v = 0.0
        cdef list given = list(_parents)
        if self.index:
            raise TypeError("Tensor.__init__ called a second time")
        if programs and type(data) is Tensor and recording_here() is not None:
            v = T.value[(<Tensor>data).index]
        elif not as_number(data, &v):
            if type(data) is not Tensor and not hasattr(type(data), "__float__"):
                raise TypeError(f"Tensor(data): expected a real number, got {type(data).__name__}")
            v = float(data)
        for p in given:
            if type(p) is not Tensor:
                raise TypeError(f"Tensor(data, parents): expected Tensors as parents, got {type(p).__name__}")
            bound(p)
        if T.n >= T.limit:
            safepoint(SLACK)
        if self.index:                           # by a __float__ or a destructor, just now
            raise TypeError("Tensor.__init__ called a second time")
        if given and recording():
            emit_custom(self, v, given)
        else:
            self.index = emit(LEAF, 0, 0, v, <void *>self)
        if programs and type(data) is Tensor and recording_here() is not None:
            recording_here().detached(self.index, (<Tensor>data).index)
        if _op:
            attributes_of(self)["_op"] = _op
        if label:
            attributes_of(self)["label"] = label

    def __dealloc__(self):
        cdef int i = self.index
        if i:
            T.handle[i] = NULL
            if T.record[i].op == WIDE:
                T.wide[T.record[i].a].handles -= 1

    def __repr__(self):
        if programs:
            read_number(self, "repr()")
        return f"Tensor(data={T.value[self.index]!r})"

    # NumPy's scalars leave operators to us (np.float64(2) * t took 2.7 us, and 0.18 so); its arrays do not, and make
    # arrays of Tensors
    __array_priority__ = -1.0

    # --- number protocol ---

    def __float__(self):
        if tracing:
            on_number(self)
        if programs:
            read_number(self, "float()")
        return T.value[self.index]

    def __bool__(self):
        if programs and recording_here() is not None:
            return bool(self != 0.0)
        return T.value[self.index] != 0.0

    def __int__(self):
        if programs:
            read_number(self, "int()")
        return int(T.value[self.index])

    def __round__(self, digits=None):
        if programs:
            read_number(self, "round()")
        return round(T.value[self.index], digits)

    def __floor__(self):
        if programs:
            read_number(self, "floor()")
        return math.floor(T.value[self.index])

    def __ceil__(self):
        if programs:
            read_number(self, "ceil()")
        return math.ceil(T.value[self.index])

    def __trunc__(self):
        if programs:
            read_number(self, "int()")
        return math.trunc(T.value[self.index])

    def __format__(self, spec):
        if programs and spec:
            read_number(self, "format()")
        return format(T.value[self.index], spec) if spec else repr(self)

    def __hash__(self):
        return <Py_hash_t>(<size_t><void *>self >> 4)

    def __richcmp__(self, other, int op):
        cdef double x, y = 0.0
        cdef int side = 0
        cdef Recorder recording
        if type(other) is Tensor:
            y = T.value[(<Tensor>other).index]
        elif PyFloat_Check(other):
            y = PyFloat_AS_DOUBLE(other)
        else:
            side = nearest_double(other, op, &y)
            if side == NO_NUMBER:
                return NotImplemented
            if side and (op == Py_EQ or op == Py_NE):
                return op == Py_NE               # no double is equal to it
            if side > 0:                         # y is the next double above it
                op = Py_LT if op == Py_LT or op == Py_LE else Py_GE
            elif side < 0:
                op = Py_LE if op == Py_LT or op == Py_LE else Py_GT
        if programs:
            recording = recording_here()
            if recording is not None:
                return recording.compare(op, self, <Tensor>other if type(other) is Tensor else None, y)
        x = T.value[self.index]
        if op == Py_LT:
            return x < y
        if op == Py_LE:
            return x <= y
        if op == Py_GT:
            return x > y
        if op == Py_GE:
            return x >= y
        return (x == y) if op == Py_EQ else (x != y)

    # --- operators: left or right is a Tensor ---

    def __add__(left, right):
        return binary(ADD, left, right)

    def __sub__(left, right):
        return binary(SUB, left, right)

    def __mul__(left, right):
        return binary(MUL, left, right)

    def __truediv__(left, right):
        return binary(DIV, left, right)

    def __pow__(left, right, modulus):
        if modulus is not None:
            raise TypeError("pow() of Tensors takes no modulus")
        return binary(POW, left, right)

    def __mod__(left, right):
        return binary(MOD, left, right)

    def __floordiv__(left, right):
        return binary(FLOORDIV, left, right)

    def __divmod__(left, right):
        quotient = binary(FLOORDIV, left, right)
        return quotient if quotient is NotImplemented else (quotient, binary(MOD, left, right))

    def __neg__(self):
        return unary(NEG, self)

    def __pos__(self):
        return self

    def __abs__(self):
        return unary(ABS, self)

    # --- value and gradient ---

    @property
    def data(self):
        """The value, a Python float.  Assigning changes it in place; results computed from it stay as they are.

        `backward()` through one of these that has to read it is a RuntimeError: it would be the derivative at no point.
        """
        if programs:
            read_number(self, ".data")
        return T.value[self.index]

    @data.setter
    def data(self, value):
        cdef double v = number_for(value, "data")
        bound(self)
        forbid("writing .data")
        if memcmp(&T.value[self.index], &v, sizeof(double)):
            wrote(self.index)
            T.value[self.index] = v

    @property
    def grad(self):
        """The gradient that the last `backward` which reached this number left, a Python float; 0.0 before.

        After `backward(create_graph=True)` a Tensor, which can be differentiated in its turn.
        """
        read_gradient(self.index)
        if self.pin and T.pins[self.pin - 1].gradient != NULL and not T.sweeping:
            return recorded_gradient(self)
        return T.grad[self.index]

    @grad.setter
    def grad(self, value):
        cdef double v = number_for(value, "grad")
        bound(self)
        forbid("writing .grad")
        drop_recorded(self)
        write_gradient(self.index)
        T.grad[self.index] = v

    def item(self):
        """The value, a Python float."""
        if programs:
            read_number(self, ".item()")
        return T.value[self.index]

    def detach(self):
        """A new leaf with this value."""
        return new_leaf(self.index)

    def conjugate(self):
        """This Tensor, as `float` has it; NumPy's `var` and `std` ask for it."""
        return self

    # --- graph ---

    @property
    def _parents(self):
        """The Tensors that this one was computed from; () for a leaf."""
        return tuple(parents(self))

    @property
    def _op(self):
        """The operation that made it; "" for a leaf, "const" for a number in an expression."""
        return name_of(self.index)

    def backward(self, *, bint accumulate=False, bint create_graph=False):
        """Leave d self / d node in `.grad` of every node that self was computed from, for the values they have now.

        Gradients of those nodes are reset first, so calling it twice gives the same; nodes that self does not depend
        on keep theirs.  With `accumulate=True` those of the leaves are added to instead.  Cost: what it reaches.

        With `create_graph=True` the pass is recorded: `.grad` of every node that it reaches, constants in expressions
        aside, then reads as a Tensor, from which derivatives of the next order can be computed.  It stays one until a
        pass without, or an assignment, leaves another number there.

        >>> from fastscalar import Tensor
        >>> x = Tensor(2.0)
        >>> (x ** 3).backward(create_graph=True)
        >>> slope = x.grad
        >>> slope
        Tensor(data=12.0)
        >>> slope.backward()
        >>> x.grad
        12.0

        Raises RuntimeError inside another backward pass, or where an operation would read a value whose `.data` was
        written after it; KeyboardInterrupt if it was interrupted.  After the last two gradients are unspecified.
        """
        bound(self)
        if create_graph:
            record_backward(self, accumulate)
            return
        start_sweep()
        try:
            if T.n_recorded:
                flag_recorded(accumulate)
            sweep(self, accumulate)
        finally:
            if T.n_recorded:
                drop_flagged(accumulate)
            end_sweep()

    @property
    def _prev(self):
        """The same as `_parents`, the name that micrograd has for it."""
        return self._parents

    @property
    def _backward(self):
        """The local step of this node, to be called: gradient times derivative is added to each parent's `.grad`.

        Of a Tensor that was made with parents, `out = Tensor(value, (a, b))`, it can be set: to a callable without
        arguments that adds to `a.grad` and `b.grad`.  During a backward pass it may write to its parents only.
        """
        if self.pin and T.pins[self.pin - 1].step != NULL:
            return <object>T.pins[self.pin - 1].step
        return self._step

    @_backward.setter
    def _backward(self, step):
        cdef void *before
        if T.record[self.index].op != WIDE or T.wide[T.record[self.index].a].op != W_CUSTOM:
            raise AttributeError("only a Tensor made with its parents, Tensor(value, (a, b)), takes a _backward")
        if not callable(step):
            raise TypeError(f"Tensor._backward: expected a callable, got {type(step).__name__}")
        attributes_of(self)
        before = T.pins[self.pin - 1].step
        Py_INCREF(step)
        T.pins[self.pin - 1].step = <void *>step
        if before == NULL:
            T.n_steps += 1
        else:
            Py_DECREF(<object>before)

    def _step(self):
        """The local step of an operation of the engine."""
        cdef int i = self.index
        if T.sweeping:
            raise RuntimeError("_backward() inside a backward pass")
        require_unchanged(i)
        if T.record[i].op == WIDE:
            wide_step(T.wide[T.record[i].a], T.record[i].b)
        else:
            scalar_step(i)

    # --- attributes that users set ---

    @property
    def requires_grad(self):
        """True: every Tensor takes part in gradients."""
        return True

    @requires_grad.setter
    def requires_grad(self, value):
        if not value:
            raise AttributeError(NO_FREEZING)

    @property
    def label(self):
        """A name for drawings, "" if none was given."""
        return attributes_of(self).get("label", "") if self.pin else ""

    @label.setter
    def label(self, value):
        attributes_of(self)["label"] = value

    def __setattr__(self, name, value):
        cdef PyObject *found = _PyType_Lookup(<PyTypeObject *>T.tensor_type, name)
        if found == NULL:
            bound(self)
            attributes_of(self)[name] = value
        elif (<PyTypeObject *>found.ob_type).tp_descr_set != NULL:
            PyObject_GenericSetAttr(self, name, value)
        else:                                    # the generic way would put a dict of its own where ours belongs
            raise AttributeError(f"'Tensor' object attribute {name!r} is read-only")

    def __delattr__(self, name):
        if self.pin and not hasattr(Tensor, name):
            attributes = <dict>T.pins[self.pin - 1].attributes
            if name in attributes:
                del attributes[name]
                return
        raise AttributeError(f"'Tensor' object has no attribute {name!r} that can be deleted")

    def __reduce__(self):
        bound(self)
        if T.record[self.index].op > CONST and parents(self):
            raise TypeError("only a leaf can be copied or pickled: use detach() for a Tensor that was computed")
        read_gradient(self.index)
        attributes = dict(attributes_of(self)) if self.pin else {}
        gradient = T.grad[self.index]
        if gradient == 0.0 and not attributes:
            return Tensor, (T.value[self.index],)
        return Tensor, (T.value[self.index],), (gradient, attributes)

    def __setstate__(self, state):
        gradient, attributes = state
        self.grad = gradient
        for name, value in attributes.items():
            setattr(self, name, value)


def _function(int code, otherwise):
    """A function for one row of the operation table; operands that are not Tensors and numbers go to `otherwise`."""
    if TABLE[code].arity == 2:
        def function(x, y, /):
            if type(x) is Tensor or type(y) is Tensor or (
                    programs and (isinstance(x, TracedNumber) or isinstance(y, TracedNumber))):
                value = binary(code, x, y)
                if value is not NotImplemented:
                    return value
            return otherwise(x, y)
    else:
        def function(x, /):
            if type(x) is Tensor:
                return unary(code, <Tensor>x)
            if programs and isinstance(x, TracedNumber) and code not in (FLOOR, CEIL, TRUNC):    # these are x itself
                return unary(code, (<TracedNumber>x).tensor)
            return otherwise(x)
    function.__name__ = function.__qualname__ = op_name(code)
    return function


cdef int bound(Tensor t) except -1:
    if t.index == 0:
        unbound()
    return 0


cdef int unbound() except -1:
    raise ValueError("this Tensor was never initialised")


def _set_recorded(Tensor t not None, Tensor gradient not None):
    """From now on t.grad reads as this Tensor."""
    attributes_of(t)
    drop_recorded(t)
    Py_INCREF(gradient)
    T.pins[t.pin - 1].gradient = <void *>gradient
    T.n_recorded += 1
    write_gradient(t.index)
    T.grad[t.index] = T.value[gradient.index]


cdef double number_for(object value, str name) except? -1.0:
    cdef double v = 0.0
    if not as_number(value, &v):
        raise TypeError(f"Tensor.{name}: expected a real number, got {type(value).__name__}")
    return v


cdef Tensor new_leaf(int i):
    """A leaf with the value of node `i`."""
    cdef double v = T.value[i]
    cdef Tensor t
    if i == 0:
        unbound()
    if T.n >= T.limit:
        safepoint(SLACK)
    t = result(LEAF, 0, 0, v)
    if programs and recording_here() is not None:
        recording_here().detached(t.index, i)
    return t


cdef int node_of_number(double v) except -1:
    if T.n >= T.limit:
        safepoint(SLACK)
    return emit(CONST, 0, 0, v, NULL)


cdef int emit_custom(Tensor t, double v, list given) except -1:
    """The node of a user's own operation: after the safepoint, nothing here runs Python."""
    cdef Py_ssize_t k
    cdef Wide *q = new_wide(W_CUSTOM, 1)
    q.x.index = <int *>allocate(len(given) * sizeof(int))
    if q.x.index == NULL:
        free_wide(q)
        out_of_memory("Tensor(data, parents)", len(given))
    q.x.kind = INDEX
    q.x.count = <int>len(given)
    for k in range(q.x.count):
        q.x.index[k] = (<Tensor>given[k]).index
    T.value[T.n] = v
    publish(q)
    t.index = q.start
    T.handle[q.start] = <void *>t
    q.handles = 1
    return 0


cdef dict attributes_of(Tensor t):
    if not t.pin:
        pin(t)
    return <dict>T.pins[t.pin - 1].attributes


NO_FREEZING = ("requires_grad = False: every Tensor takes part in gradients; compute with its detach(), or in a block "
               "of no_grad(), or leave it out of the optimiser's parameters")


def _method(int code):
    """A method of Tensor for one row of the operation table."""
    if TABLE[code].arity == 2:
        def method(Tensor self not None, other):
            value = binary(code, self, other)
            if value is NotImplemented:
                raise TypeError(f"{op_name(code)}: expected a Tensor or a real number, got {type(other).__name__}")
            return value
    else:
        def method(Tensor self not None):
            return unary(code, self)
    method.__name__ = op_name(code)
    method.__qualname__ = f"Tensor.{method.__name__}"
    return method


# --- backward -------------------------------------------------------------------------------------
#
# One sweep from the root down, in reverse creation order.  A node that is reached for the first time gets its mark and
# gradient 0.0 at that moment; all its contributions come from younger nodes, so when the sweep arrives its gradient is
# complete.  (Why not two passes: docs/design/0003.)  Structure decides what is reached, never the value of a gradient.
# ZERO SENDS ZERO: a gradient that is exactly 0.0 or -0.0 contributes nothing, whatever the slope, so that 0 * inf makes
# no NaN of what `where`, `relu` or `maximum` did not choose; its operands are reached and reset all the same
# (docs/design/0010).  A leaf has nothing to pass on: instead of a mark it gets the number of the sweep, and is not
# visited (dot products of distinct leaves: 1.35x faster, two builds in turn).
#
#        older                                   younger
#   ... p ....... q ....... [i] ........ root        invariant at node i: everything younger has been processed and has
#       ^         ^          |                       no mark; everything marked is older and reached from the root;
#       +---------+----------+ contributions         the summary bytes of every marked node are set
#
# The next marked node is found by looking one node down, else 8 at a time, else through summaries of 64, 4,096 and
# 262,144 nodes: what lies on the tape between two reached nodes costs nothing.
#
# A wide instruction is processed once, at its youngest marked output.  `whole`: all its outputs were reached at once
# (by another wide instruction); else each reached element has its mark, and its step is done one by one, unless all
# are marked: MLP 784-256-10 of which one output is used, 6,000 to 100 us.

cdef void mark_node(int p) noexcept nogil:
    T.mark[p] = 1
    if not T.mark64[p >> 6]:
        mark_summaries(p)


cdef void mark_summaries(int p) noexcept nogil:
    T.mark64[p >> 6] = 1
    T.mark4k[p >> 12] = 1
    T.mark256k[p >> 18] = 1


cdef inline Py_ssize_t last_set(const unsigned char *byte, Py_ssize_t low, Py_ssize_t high) noexcept nogil:
    """The last index in low..high - 1 whose byte is not zero, else -1."""
    cdef unsigned long long word
    while high - 8 >= low:
        memcpy(&word, byte + high - 8, 8)
        if word:
            break
        high -= 8
    while high > low:
        high -= 1
        if byte[high]:
            return high
    return -1


cdef int previous(int i) noexcept nogil:
    """The next marked node below i, 0 if there is none; clears the summaries of the groups that it leaves."""
    cdef Py_ssize_t g = i >> 6, h = i >> 12, k = i >> 18, p
    p = last_set(T.mark, g << 6, i)
    if p >= 0:
        return <int>p
    T.mark64[g] = 0
    p = last_set(T.mark64, h << 6, g)
    if p < 0:
        T.mark4k[h] = 0
        p = last_set(T.mark4k, k << 6, h)
        if p < 0:
            T.mark256k[k] = 0
            p = last_set(T.mark256k, 0, k)
            if p < 0:
                return 0
            p = last_set(T.mark4k, p << 6, (p + 1) << 6)
        p = last_set(T.mark64, p << 6, (p + 1) << 6)
    return <int>last_set(T.mark, p << 6, (p + 1) << 6)


cdef void list_wide(Wide *q) noexcept nogil:
    if not q.listed:
        q.listed = True
        q.next_listed = T.first_listed
        T.first_listed = q.slot


cdef void first_touch(int p) noexcept nogil:
    """Node p is reached for the first time in this sweep, or touched by a single step outside one."""
    cdef Wide *q
    cdef bint leaf = False
    if T.record[p].op <= CONST:
        if T.sweeping and T.record[p].b != T.number:
            T.record[p].b = T.number
            if not T.accumulate:
                T.grad[p] = 0.0
        return
    if T.record[p].op == WIDE:
        q = T.wide[T.record[p].a]
        leaf = q.op == W_LEAF
        if leaf:
            materialise(q)
            enter_row(q, T.record[p].b // q.cols)
        if q.whole or not T.sweeping:
            return
        q.partial += 1
        list_wide(q)
    elif not T.sweeping:
        return
    mark_node(p)
    if not (leaf and T.accumulate):
        T.grad[p] = 0.0


cdef inline void touch(int p) noexcept nogil:
    if not T.mark[p]:
        first_touch(p)


cdef void touch_run(int start, int count, bint enter) noexcept nogil:
    """Touch consecutive nodes of one instruction.  `enter`: the caller writes every row of an array of leaves."""
    cdef Wide *q = T.wide[T.record[start].a]
    cdef int offset = T.record[start].b, k, row
    cdef bint leaf = q.op == W_LEAF
    if T.sweeping and not q.whole and count != q.count:
        touch_part(q, start, count)
        return
    if leaf and (q.whole or T.accumulate or not T.sweeping):
        materialise(q)
    if T.sweeping and not q.whole:
        if leaf and not T.accumulate:
            if q.partial == 0:
                reset_leaf(q)
            else:
                for k in range(q.n_touched):
                    row = q.start + q.touched_rows[k] * q.cols
                    reset_unmarked(row, row + q.cols)
        elif not leaf:
            reset_unmarked(start, start + count)
            mark_node(start + count - 1)         # where the sweep will find it
        q.whole = True
        list_wide(q)
    if leaf and enter:
        for row in range(offset // q.cols, (offset + count - 1) // q.cols + 1):
            enter_row(q, row)


cdef void touch_part(Wide *q, int start, int count) noexcept nogil:
    """Touch some consecutive nodes of a run, as `first_touch` does one by one: a row of a data set of leaves."""
    cdef int k, row
    cdef bint reset = not (q.op == W_LEAF and T.accumulate)
    if q.op == W_LEAF:
        materialise(q)
        for row in range((start - q.start) // q.cols, (start - q.start + count - 1) // q.cols + 1):
            enter_row(q, row)
    list_wide(q)
    for k in range(start, start + count):
        if not T.mark[k]:
            q.partial += 1
            mark_node(k)
            if reset:
                T.grad[k] = 0.0


cdef void reset_unmarked(int start, int stop) noexcept nogil:
    cdef int k
    for k in range(start, stop):
        if not T.mark[k]:
            T.grad[k] = 0.0


cdef void touch_operand(Operand *o) noexcept nogil:
    cdef int k
    if o.kind == RUN:
        touch_run(o.start, o.count, True)
    elif o.kind == INDEX:
        for k in range(o.count):
            touch(o.index[k])


cdef inline void add_to(Operand *o, Py_ssize_t k, double g) noexcept nogil:
    """Add to the gradient of an element that was touched; numbers have none."""
    cdef int p = node_of(o, k)
    if p:
        T.grad[p] += g


cdef inline void contribute(int p, double g) noexcept nogil:
    touch(p)
    T.grad[p] += g


cdef void scalar_step(int i) noexcept nogil:
    """The local step of a scalar node: its gradient times each derivative goes to its operands, left then right."""
    cdef int op = T.record[i].op, a, b
    cdef double g, v, x, y
    if op <= WIDE:
        return
    a, b = T.record[i].a, T.record[i].b
    g, v, x, y = T.grad[i], T.value[i], T.value[a], T.value[b]
    if g == 0.0:
        touch(a)
        if TABLE[op].arity == 2:
            touch(b)
    elif op == ADD:
        contribute(a, g)
        contribute(b, g)
    elif op == MUL:
        contribute(a, g * y)
        contribute(b, g * x)
    elif op == SUB:
        contribute(a, g)
        contribute(b, -g)
    elif TABLE[op].arity == 1:
        contribute(a, g * TABLE[op].d(x, v))
    else:
        contribute(a, g * TABLE[op].da(x, y, v))
        if op == POW and T.record[b].op == CONST:
            touch(b)                             # a number as exponent is a constant: its gradient stays 0.0
        else:
            contribute(b, g * TABLE[op].db(x, y, v))


cdef int sweep(Tensor root, bint accumulate) except -1:
    """Process everything that the root reaches.  Holds an index, not pointers, while a signal handler may run."""
    cdef bint careful = T.note != NULL           # detect_anomaly: look at every step
    cdef int budget = 1 if careful else 1 << 20
    cdef int step, changed = 0
    T.accumulate = accumulate
    T.at = root.index
    touch(T.at)
    T.grad[T.at] += 1.0
    while T.at > 0:
        step = T.at
        if careful:
            check_zeros(step)
        if step >= T.written:
            T.at = sweep_some(step, max(<Py_ssize_t>1, max(T.written, <Py_ssize_t>step - budget + 1)))
        else:
            T.at = sweep_older(step, budget, &changed)
            if changed:
                raise_changed(T.at, changed)
        if T.custom:
            call_step()
        elif T.at > 0:
            PyErr_CheckSignals()
        if careful:
            check_step(step)
    return 0


cdef int sweep_older(int i, int budget, int *changed) noexcept nogil:
    """`sweep_some` where a value may have been written since: stops at a node that would read one."""
    while i > 0 and budget > 0 and not T.custom:
        changed[0] = changed_operand(i)
        if changed[0]:
            break
        i = sweep_some(i, i)
        budget -= 1
    return i


cdef int call_step() except -1:
    """Call the Python step of the user's own operation that the sweep has come to; its parents are reset."""
    cdef Tensor t = handle_of(T.custom)
    T.custom = 0
    if t.pin and T.pins[t.pin - 1].step != NULL:
        step = <object>T.pins[t.pin - 1].step
        step()
    return 0


cdef inline void reach(int p, double g, unsigned char *mark, unsigned char *mark64, double *grad,
                       Record *record, int number, bint plain) noexcept nogil:
    """`contribute` for the common case: a scalar node, gradients not accumulated."""
    if mark[p]:
        grad[p] += g
    elif plain and record[p].op > WIDE:
        mark[p] = 1
        if not mark64[p >> 6]:
            mark_summaries(p)
        grad[p] = 0.0 + g
    elif plain and record[p].op < WIDE and record[p].b != number:
        record[p].b = number
        grad[p] = 0.0 + g
    else:
        contribute(p, g)


cdef int sweep_some(int i, Py_ssize_t low) noexcept nogil:
    """Process reached nodes from i down to `low` (at least 1), or for some milliseconds; the node to go on with, 0 if
    all is done.

    Columns in local variables: a store to a `mark` could alias T itself, so the compiler would load them again.
    """
    cdef unsigned char *mark = T.mark
    cdef unsigned char *mark64 = T.mark64
    cdef double *grad = T.grad
    cdef const double *value = T.value
    cdef Record *record = T.record
    cdef Record r
    cdef double g
    cdef bint plain = not T.accumulate
    cdef int number = T.number
    cdef Wide *q
    while i >= low:
        r = record[i]
        mark[i] = 0
        if r.op == MUL:
            g = grad[i]
            if cython.unlikely(is_zero_or_nan(g)):
                scalar_step(i)
            else:
                reach(r.a, g * value[r.b], mark, mark64, grad, record, number, plain)
                reach(r.b, g * value[r.a], mark, mark64, grad, record, number, plain)
        elif r.op == ADD:
            g = grad[i]
            reach(r.a, g, mark, mark64, grad, record, number, plain)
            reach(r.b, g, mark, mark64, grad, record, number, plain)
        elif r.op == WIDE:
            q = T.wide[r.a]
            if q.op == W_LEAF:
                pass
            elif q.whole or q.partial == q.count or q.count == 1:
                low += wide_backward(q)
                if q.done:                       # of a large batch: the other rows after a look at signals
                    mark[i] = 1
                    return i
                i = leave(q, i)
                if q.op == W_CUSTOM:
                    T.custom = i
                    return previous(i)
            else:
                wide_step(q, r.b)
                low += q.inner
        elif r.op > WIDE:
            scalar_step(i)
        if mark[i - 1] and i & 4095:
            if not i & 63:
                mark64[i >> 6] = 0
            i -= 1
        else:
            i = previous(i)
    return i


cdef int leave(Wide *q, int i) noexcept nogil:
    """Clear the marks of a run and the summaries that lie wholly in it; its first node."""
    cdef int k
    memset(T.mark + q.start, 0, i - q.start + 1)
    for k in range((q.start >> 6) + 1, (i >> 6) + 1):
        T.mark64[k] = 0
    for k in range((q.start >> 12) + 1, (i >> 12) + 1):
        T.mark4k[k] = 0
    for k in range((q.start >> 18) + 1, (i >> 18) + 1):
        T.mark256k[k] = 0
    return q.start


cdef int start_sweep() except -1:
    """Enter the backward pass; another thread that is in one (it can be inside a signal handler) is waited for."""
    forbid("a backward pass")
    return start_look()


cdef int start_look() except -1:
    """The same for a sweep that only looks, which a recording may do too."""
    while T.sweeping:
        if T.owner == PyThread_get_thread_ident():
            raise RuntimeError("backward() inside a backward pass")
        time.sleep(0.0005)
    T.sweeping = True
    T.owner = PyThread_get_thread_ident()
    T.first_listed = -1
    T.at = 0
    T.custom = 0
    T.number += 1
    if T.number == 0x7fffffff:
        forget_sweeps()
    lock_nodes()
    return 0


cdef void forget_sweeps() noexcept nogil:
    """After two thousand million sweeps: no leaf was reached by any."""
    cdef Py_ssize_t i
    for i in range(T.n):
        if T.record[i].op <= CONST:
            T.record[i].b = 0
    T.number = 1


cdef void end_sweep() noexcept:
    """Leave it; after an interruption also clear what is still marked."""
    tidy_sweep()
    T.sweeping = False
    unlock_nodes()


cdef void tidy_sweep() noexcept nogil:
    cdef Wide *q
    cdef int i = T.at
    while i > 0:
        T.mark[i] = 0
        i = previous(i)
    while T.first_listed >= 0:
        q = T.wide[T.first_listed]
        T.first_listed = q.next_listed
        q.listed = q.whole = False
        q.partial = q.done = 0


# --- backward of wide instructions ----------------------------------------------------------------

cdef long wide_backward(Wide *q) noexcept nogil:
    """All outputs of an instruction, or the next rows of a large Linear (see `done`); an estimate of the work."""
    cdef int k, first, stop
    if q.op == W_AFFINE:
        first = q.done
        stop = min(q.rows, first + max(1, PORTION // (q.inner * <Py_ssize_t>q.cols)))
        affine_backward(q, first, stop)
        q.done = stop if stop < q.rows else 0
        return <long>(stop - first) * q.cols * q.inner // 16
    touch_operand(&q.x)
    touch_operand(&q.y)
    if q.op == W_CUSTOM:
        pass                                     # `sweep` calls the step
    elif q.op == W_SOFTMAX:
        softmax_backward(q)
    elif q.op == W_MAP1 and q.code == RELU and q.x.kind == RUN:
        K.add_relu_gradient(T.grad + q.x.start, T.value + q.x.start, T.grad + q.start, q.count)
    else:
        for k in range(q.count - 1, -1, -1):
            element_backward(q, k)
    return q.count


cdef void wide_step(Wide *q, int k) noexcept nogil:
    """The local step of one output, with its operands touched element by element."""
    cdef int j
    if q.op == W_AFFINE:
        affine_step(q, k)
    elif q.op == W_MAP1 or q.op == W_MAP2:
        j = node_of(&q.x, k)
        if j:
            touch(j)
        j = node_of(&q.y, k)
        if j:
            touch(j)
        element_backward(q, k)
    elif q.op != W_LEAF and q.op != W_CUSTOM:
        touch_operand(&q.x)
        touch_operand(&q.y)
        element_backward(q, k)


cdef void element_backward(Wide *q, int k) noexcept nogil:
    """One output of any instruction but W_AFFINE; its operands are touched."""
    cdef double g = T.grad[q.start + k], x, y, v
    cdef Py_ssize_t r, j
    if g == 0.0:
        return
    if q.op == W_MAP1:
        x = value_of(&q.x, k)
        add_to(&q.x, k, g * TABLE[q.code].d(x, T.value[q.start + k]))
    elif q.op == W_MAP2:
        x = value_of(&q.x, k)
        y = value_of(&q.y, k)
        v = T.value[q.start + k]
        add_to(&q.x, k, g * TABLE[q.code].da(x, y, v))
        if node_of(&q.y, k):
            add_to(&q.y, k, g * TABLE[q.code].db(x, y, v))
    elif q.op == W_SUM:
        for j in range(q.x.count):
            add_to(&q.x, j, g)
    elif q.op == W_DOT:
        for j in range(q.x.count):
            x = value_of(&q.x, j)
            y = value_of(&q.y, j)
            add_to(&q.x, j, g * y)
            add_to(&q.y, j, g * x)
    elif q.op == W_LOGSUMEXP:
        for j in range(q.x.count):
            add_to(&q.x, j, g * q.saved[j])
    elif q.op == W_SOFTMAX:
        for j in range(q.x.count):
            add_to(&q.x, j, g * q.saved[k] * ((1.0 if j == k else 0.0) - q.saved[j]))
    elif q.op == W_GATHER:
        add_to(&q.x, <Py_ssize_t>q.labels[0] * q.count + k, g)
    elif q.op == W_SELECT:
        add_to(&q.x, 2 if q.labels[0] else 3, g)
    elif q.op == W_BEST:
        if q.code <= BEST_MIN:
            add_to(&q.x, q.labels[0], g)
    elif q.op == W_SQUARED or q.op == W_MSE:
        if q.op == W_MSE:
            g = g * 2.0 / q.x.count
        elif q.rows:
            g = g / q.rows
        for j in range(q.x.count):
            x = g * q.saved[j]
            add_to(&q.x, j, x)
            add_to(&q.y, j, -x)
    elif q.op == W_XENT:
        if q.rows:
            g = g / q.rows
        for r in range(max(q.rows, 1)):
            for j in range(r * q.cols, (r + 1) * q.cols):
                add_to(&q.x, j, g * (q.saved[j] - (1.0 if j - r * q.cols == q.labels[r] else 0.0)))


cdef void softmax_backward(Wide *q) noexcept nogil:
    """All outputs at once: linear in their number; one by one it is quadratic."""
    cdef const double *g = T.grad + q.start
    cdef double total = 0.0
    cdef bint all_zero = True
    cdef Py_ssize_t j
    for j in range(q.count):
        if g[j] != 0.0:
            total = total + g[j] * q.saved[j]
            all_zero = False
    if all_zero:
        return
    if total - total != 0.0:                     # inf - inf is nothing that one output after the other would give
        for j in range(q.count - 1, -1, -1):
            element_backward(q, <int>j)
        return
    for j in range(q.count):
        add_to(&q.x, j, q.saved[j] * (g[j] - total))


cdef void affine_backward(Wide *q, Py_ssize_t first, Py_ssize_t stop) noexcept nogil:
    """All outputs of some rows of a Linear: bias, weights, inputs, which the first of them touches."""
    cdef const double *g = T.grad + q.start
    cdef Py_ssize_t r, j, i, n = q.cols
    cdef Wide *leaf = whole_leaf(&q.y, n)
    cdef const double *w
    cdef int *row
    cdef double *x
    cdef double *dx
    cdef int nnz, k

    if first == 0:
        touch_operand(&q.z)
    for r in range(first, stop):
        if q.z.kind == RUN:
            K.add(T.grad + q.z.start, g + r * n, n)
        elif q.z.kind == INDEX:
            for i in range(n):
                T.grad[q.z.index[i]] += g[r * n + i]

    if leaf != NULL and q.rows == 1 and leaf.f_row != NULL and not leaf.whole and leaf.partial == 0 and (
            not T.accumulate or (leaf.n_touched == 0 and leaf.factored < 0)):
        reset_leaf(leaf)
        leaf.whole = True
        list_wide(leaf)
        leaf.factored = affine_input(q, 0, &row, &x)
        memcpy(leaf.f_row, row, leaf.factored * sizeof(int))
        memcpy(leaf.f_x, x, leaf.factored * sizeof(double))
        memcpy(leaf.f_g, g, n * sizeof(double))
    elif q.y.kind == RUN:
        if first == 0:
            touch_run(q.y.start, q.y.count, leaf == NULL)
        for r in range(first, stop):
            nnz = affine_input(q, <int>r, &row, &x)
            if leaf != NULL:
                for k in range(nnz):
                    enter_row(leaf, row[k])
            K.add_outer(T.grad + q.y.start, row, x, nnz, g + r * n, q.cols)
    elif q.y.kind == INDEX:
        if first == 0:
            touch_operand(&q.y)
        for r in range(first, stop):
            nnz = affine_input(q, <int>r, &row, &x)
            for k in range(nnz):
                for i in range(n):
                    T.grad[q.y.index[row[k] * n + i]] += f_send(g[r * n + i], x[k])

    if q.x.kind == RUN or q.x.kind == INDEX:
        if first == 0:
            touch_operand(&q.x)
        w = operand_values(&q.y, work + 3 * q.inner + n)
        for r in range(first, stop):
            if q.x.kind == RUN:
                K.add_input_gradient(T.grad + q.x.start + r * q.inner, w, g + r * n, q.inner, q.cols)
            else:
                dx = work + 2 * q.inner
                memset(dx, 0, q.inner * sizeof(double))
                K.add_input_gradient(dx, w, g + r * n, q.inner, q.cols)
                for j in range(q.inner):
                    T.grad[q.x.index[r * q.inner + j]] += dx[j]


cdef void affine_step(Wide *q, int k) noexcept nogil:
    """One output of a Linear: what it reaches is one column of the weights, its bias, and the inputs of its row."""
    cdef Py_ssize_t r = k // q.cols, i = k % q.cols, j
    cdef double g = T.grad[q.start + k], x
    cdef int *row
    cdef double *value
    cdef int p, nnz, at = 0
    p = node_of_exact(&q.z, i)
    if p:
        contribute(p, g)
    nnz = affine_input(q, <int>r, &row, &value)
    for j in range(q.inner):
        x = 0.0
        if at < nnz and row[at] == j:
            x = value[at]
            at += 1
        p = node_of_exact(&q.y, j * q.cols + i)
        if p:
            touch(p)
            if x != 0.0:
                T.grad[p] += f_send(g, x)
        if q.x.kind != SPARSE:
            p = node_of_exact(&q.x, r * q.inner + j)
            contribute(p, f_send(g, value_of_exact(&q.y, j * q.cols + i)))


# --- parents --------------------------------------------------------------------------------------

cdef int list_operand(Operand *o, Py_ssize_t first, Py_ssize_t step, Py_ssize_t count, list out) except -1:
    cdef Py_ssize_t k
    if o.kind == RUN or o.kind == INDEX:
        for k in range(count):
            out.append(handle_of(node_of_exact(o, first + k * step)))
    return 0


cdef list parent_tensors(int i):
    """Tensors of the nodes that node i refers to; collection is locked out by the caller."""
    cdef list out = []
    cdef Wide *q
    cdef Py_ssize_t k
    if T.record[i].op != WIDE:
        if T.record[i].op > WIDE:
            out.append(handle_of(T.record[i].a))
            if TABLE[T.record[i].op].arity == 2:
                out.append(handle_of(T.record[i].b))
        return out
    q = T.wide[T.record[i].a]
    k = T.record[i].b
    if q.op == W_AFFINE:
        list_operand(&q.x, (k // q.cols) * q.inner, 1, q.inner, out)
        list_operand(&q.y, k % q.cols, q.cols, q.inner, out)
        list_operand(&q.z, k % q.cols, 1, 1, out)
    elif q.op == W_MAP1 or q.op == W_MAP2:
        list_operand(&q.x, k if q.x.count > 1 else 0, 1, 1, out)
        list_operand(&q.y, k if q.y.count > 1 else 0, 1, 1, out)
    else:
        list_operand(&q.x, 0, 1, q.x.count, out)
        list_operand(&q.y, 0, 1, q.y.count, out)
    return out


cdef str name_of(int i):
    """The operation that made node i, as `_op` has it."""
    cdef Wide *q
    if T.record[i].op != WIDE:
        return op_name(T.record[i].op)
    q = T.wide[T.record[i].a]
    if q.op == W_CUSTOM:
        return (<dict>T.pins[q.pin - 1].attributes).get("_op", "") if q.pin else ""
    if q.op == W_BEST:
        return best_name(q.code)
    return op_name(q.code) if q.op == W_MAP1 or q.op == W_MAP2 else WIDE_NAMES[q.op]


cdef list parents(Tensor t):
    lock_nodes()                               # making a list may run Python's collector, and that anything
    try:
        return parent_tensors(t.index)
    finally:
        unlock_nodes()


def _require_operands_unchanged(Tensor t not None):
    """The same for a user's own operation whose derivatives are given all operands' values."""
    cdef Wide *q
    cdef int p
    if t.index < T.written and T.record[t.index].op == WIDE:
        q = T.wide[T.record[t.index].a]
        p = changed_in(&q.x, q.start) if q.op == W_CUSTOM else 0
        if p:
            raise_changed(t.index, p)


# --- noting: where operations are recorded, which backward step makes a NaN ------------------------

cdef object here_callback = None, explain_callback = None, zero_callback = None, forget_callback = None


cdef int locate() except -1:
    return here_callback() if here_callback is not None else 0


cdef class _Notes(_Block):
    """A block in which every safepoint notes `here()`, a small positive integer, for the nodes that come next, and a
    backward step that makes a gradient NaN raises `explain(its node, the operand)`.  Where a gradient of zero meets a
    slope that is infinite or NaN, `zero(the node, the slope)` is called.  Blocks nest; when none is open any more,
    `forget()` is.

    Scalar operations take the slow path meanwhile, through the safepoint.
    """
    cdef object here, explain, zero, forget

    def __init__(self, here, explain, zero, forget):
        self.here, self.explain, self.zero, self.forget = here, explain, zero, forget

    cdef object enter(self, ThreadState state):
        global here_callback, explain_callback, zero_callback, forget_callback
        cdef void *block
        if T.noting == 0:
            block = allocate_zeroed(T.capacity, sizeof(int))
            if block == NULL:
                out_of_memory("detect_anomaly", T.capacity)
            T.note = <int *>block
        T.noting += 1
        state.noting += 1
        here_callback, explain_callback = self.here, self.explain
        zero_callback, forget_callback = self.zero, self.forget
        set_limit()

    cdef int leave(self, ThreadState state, object what) except -1:
        stop_noting(state, 1)
        set_limit()
        return 0


cdef void stop_noting(ThreadState state, int blocks) noexcept:
    """A thread leaves so many blocks."""
    global here_callback, explain_callback, zero_callback, forget_callback
    if blocks == 0:
        return
    state.noting -= blocks
    T.noting -= blocks
    if T.noting == 0:
        PyMem_RawFree(T.note)
        T.note = NULL
        forget = forget_callback
        here_callback = explain_callback = zero_callback = forget_callback = None
        forget()


def _noting():
    """Whether operations are noted at the moment: a program would not note its own."""
    return T.noting > 0


cdef inline bint nan_gradient(int p) noexcept nogil:
    """Whether this sweep reached node p, not a number in an expression, and its gradient is NaN."""
    if p == 0 or not isnan(T.grad[p]) or T.record[p].op == CONST:
        return False
    if T.record[p].op < WIDE:
        return T.record[p].b == T.number
    return T.mark[p] or (T.record[p].op == WIDE and T.wide[T.record[p].a].whole)


cdef int first_nan_gradient(Operand *o) noexcept nogil:
    cdef int k
    if o.kind == RUN or o.kind == INDEX:
        read_gradient(node_of_exact(o, 0))
        for k in range(o.count):
            if nan_gradient(node_of_exact(o, k)):
                return node_of_exact(o, k)
    return 0


cdef double element_slope(Wide *q, int k) noexcept nogil:
    """A slope of output k that is infinite or NaN; 0.0: there is none that counts."""
    cdef double s = 0.0, x
    cdef Py_ssize_t j
    if q.op == W_MAP1 or q.op == W_MAP2:
        return worst_slope(q.code, value_of(&q.x, k), value_of(&q.y, k) if q.op == W_MAP2 else 0.0,
                           T.value[q.start + k], has_nodes(&q.x), has_nodes(&q.y))
    for j in range(q.inner if q.op == W_AFFINE else q.x.count if q.op == W_DOT else 0):
        if has_nodes(&q.x):
            x = value_of_exact(&q.y, j * q.cols + k % q.cols) if q.op == W_AFFINE else value_of(&q.y, j)
            s = x if x - x != 0.0 else s
        if has_nodes(&q.y) and has_nodes(&q.x):
            x = value_of_exact(&q.x, k // q.cols * q.inner + j) if q.op == W_AFFINE else value_of(&q.x, j)
            s = x if x - x != 0.0 else s
    return s


cdef double worst_slope(int code, double x, double y, double v, bint left, bint right) noexcept nogil:
    cdef double s = 0.0
    if TABLE[code].arity == 1:
        s = TABLE[code].d(x, v)
        return s if s - s != 0.0 else 0.0
    if left:
        s = TABLE[code].da(x, y, v)
    if right and s - s == 0.0:
        s = TABLE[code].db(x, y, v)
    return s if s - s != 0.0 else 0.0


cdef int check_zeros(int i) except -1:
    """Before the backward step of node i: report where a gradient of zero meets a slope that is infinite or NaN."""
    cdef int op = T.record[i].op, a, b, k, first, last
    cdef bint whole
    cdef double s = 0.0
    cdef Wide *q
    if zero_callback is None or op < WIDE:
        return 0
    if op != WIDE:
        a, b = T.record[i].a, T.record[i].b
        if T.grad[i] == 0.0:
            s = worst_slope(op, T.value[a], T.value[b], T.value[i], T.record[a].op != CONST, T.record[b].op != CONST)
        if s != 0.0:
            zero_callback(handle_of(i), s)
        return 0
    q = T.wide[T.record[i].a]
    whole = q.whole or q.partial == q.count or q.count == 1
    first = 0 if whole else T.record[i].b
    last = q.count if whole else first + 1
    for k in range(first, last):
        if T.grad[q.start + k] == 0.0:
            s = element_slope(q, k)
            if s != 0.0:
                zero_callback(handle_of(q.start + k), s)
                return 0
    return 0


cdef int check_step(int i) except -1:
    """After the backward step of node i: raise if it made the gradient of an operand NaN."""
    cdef int p
    cdef Wide *q
    if T.record[i].op != WIDE:
        p = T.record[i].a
        if not nan_gradient(p):
            p = T.record[i].b
            if not nan_gradient(p):
                return 0
    else:
        q = T.wide[T.record[i].a]
        p = first_nan_gradient(&q.x) or first_nan_gradient(&q.y) or first_nan_gradient(&q.z)
        if p == 0:
            return 0
    if explain_callback is not None:
        raise explain_callback(handle_of(i), handle_of(p))
    return 0


# --- the tape itself, and hooks for tests ---------------------------------------------------------

def tape_info():
    """What is on the tape: nodes, bytes, collections, the kernel set, as a dictionary.

    >>> import fastscalar as fs
    >>> fs.tape_info()["bytes_per_node"] < 40
    True
    """
    return {
        "nodes": T.n - 1,
        "capacity": T.capacity,
        "bytes_per_node": 2 * sizeof(double) + sizeof(void *) + sizeof(Record) + 1 + 1.0 / 64,
        "wide_instructions": T.n_wide - T.n_free,
        "wide_bytes": sum([T.wide[k].bytes for k in range(T.n_wide) if T.wide[k].op != W_FREE]),
        "collections": T.collections,
        "full_collections": T.full_collections,
        "pinned": T.n_pins - T.n_free_pins,
        "writes": T.n_writes,
        "kernels": K.name.decode(),
        "stress": bool(T.stress),
    }


def operations():
    """The operation table: (code, name, arity, is a method) of each row."""
    cdef int code
    rows = []
    for code in range(<int>ADD, <int>N_CODES):
        rows.append((code, op_name(code), TABLE[code].arity, bool(TABLE[code].method)))
    return rows


def _value_and_slopes(int code, double a, double b=0.0):
    """One row of the table at a point, for tests."""
    cdef double v
    if TABLE[code].arity == 1:
        v = TABLE[code].f(a)
        return v, TABLE[code].d(a, v)
    v = TABLE[code].f2(a, b)
    return v, TABLE[code].da(a, b, v), TABLE[code].db(a, b, v)


def _collect():
    """A full collection now, for tests: users never need one."""
    if not T.locked:
        collect_old()
        release_dead()
        set_limit()


def _fail_after(long long requests):
    """Let the engine's memory request number `requests` + 1 from now on fail, and no other; -1: none."""
    T.requests_left = requests


def _requests_left():
    """Of those that `_fail_after` lets pass; -1 when the one has failed, or none was to."""
    return T.requests_left


def _set_max_nodes(Py_ssize_t nodes):
    """Lower the limit of 2**31 - 1 nodes, for tests; the old limit."""
    cdef Py_ssize_t before = T.max_nodes
    T.max_nodes = nodes
    return before


def _set_moment(int number):
    """Number the next write after this one, for tests; the old number."""
    cdef int before = T.moment
    T.moment = number
    return before


def _set_stress(bint on):
    """Stress mode on or off (FASTSCALAR_STRESS=1 at import does the same)."""
    T.stress = on
    set_limit()


def _select_kernels(name):
    """Use this set of kernels: "baseline", "avx2", "avx512", or None for the best that this CPU has."""
    global K
    cdef bytes encoded = b"" if name is None else name.encode()
    cdef const char *wanted = encoded
    cdef const fs_kernels *k = fs_kernels_select(NULL if name is None else wanted)
    if k == NULL:
        raise ValueError(f'kernels: expected "baseline", "avx2" or "avx512", and one that this CPU has; got {name!r}')
    K = k


def kernel_sets():
    """Names of the kernel sets that this CPU can run."""
    return [name for name in ("baseline", "avx2", "avx512") if fs_kernels_select(name.encode()) != NULL]


def _check():
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


# --- at import ------------------------------------------------------------------------------------

cdef int open_tape() except -1:
    memset(&T, 0, sizeof(Tape))
    T.tensor_type = <void *>Tensor
    T.max_nodes = 0x7fffffff
    T.first_listed = T.requests_left = -1
    resize(2 * NURSERY)
    T.value[0] = NAN
    T.grad[0] = 0.0
    memset(T.record, 0, sizeof(Record))
    T.n = T.young = 1
    T.stress = os.environ.get("FASTSCALAR_STRESS", "") not in ("", "0")
    set_limit()
    return 0


cdef int install_methods() except -1:
    """The functions of the operation table become methods."""
    for code, name, _arity, is_method in operations():
        if is_method:
            (<dict>(<PyTypeObject *>Tensor).tp_dict)[name] = _method(code)
    for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh"):   # as NumPy's object loops call them
        (<dict>(<PyTypeObject *>Tensor).tp_dict)["arc" + name] = getattr(Tensor, "a" + name)
    (<dict>(<PyTypeObject *>Tensor).tp_dict)["arctan2"] = getattr(Tensor, "atan2")
    PyType_Modified(<PyTypeObject *>Tensor)
    return 0


cdef int place_attributes() except -1:
    cdef Tensor t = Tensor.__new__(Tensor)
    (<PyTypeObject *>T.tensor_type).tp_dictoffset = <char *>&t.attributes - <char *><void *>t
    PyType_Modified(<PyTypeObject *>T.tensor_type)
    return 0


cdef int first_kernels() except -1:
    """The set that FASTSCALAR_KERNELS names, else the best; a wrong name must not stop programs that import us."""
    try:
        _select_kernels(os.environ.get("FASTSCALAR_KERNELS") or None)
    except ValueError as error:
        _select_kernels(None)
        warnings.warn(f"FASTSCALAR_KERNELS: {error}; using {K.name.decode()!r}", RuntimeWarning)
    return 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
open_tape()
place_attributes()
first_kernels()
install_methods()
