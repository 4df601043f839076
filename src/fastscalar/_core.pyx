# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""The engine: a tape of scalar nodes, its collection, Tensor and its operators, and the backward pass.

The boundary: this module knows numbers, nodes and runs of nodes.  Its parts are the .pxd files of `engine/`, inline in
it; `engine/__init__.py` says which.  How runs are made is in `_array_ops`, TensorArray in `_array`; layers, optimisers,
data sets and files are Python above that.  Below are arithmetic on plain arrays (`engine/kernels/`) and formulas.

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
from cpython.buffer cimport PyObject_CheckBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_Check
from cpython.object cimport Py_EQ, Py_GE, Py_GT, Py_LE, Py_LT, Py_NE, PyObject, PyObject_GenericSetAttr
from cpython.pythread cimport PyThread_get_thread_ident
from libc.math cimport NAN
from libc.string cimport memcmp

from fastscalar.engine.memory cimport grow, open_tape, resize, set_limit
from fastscalar.engine.array_ops cimport read_gradient, write_gradient
from fastscalar.engine.marks cimport clear_run, contribute, forget_sweeps, previous, reach, tidy_sweep, mark_reached
from fastscalar.engine.writes cimport changed_operand, raise_changed, require_unchanged, wrote
from fastscalar.engine.array_backward cimport array_op_backward, array_op_step
from fastscalar.engine.attributes cimport (add_attributes, drop_flagged, drop_recorded, flag_recorded,
                                           place_attributes, recorded_gradient, release_pending, set_step)
from fastscalar.engine.checked cimport require
from fastscalar.engine.collect cimport YOUNG_BYTES, collect, collect_old, promote
from fastscalar.engine.errors cimport fail
from fastscalar.engine.formulas cimport *
from fastscalar.engine.names cimport name_of
from fastscalar.engine.numbers cimport NO_NUMBER, as_number, compare_numbers, nearest_double, not_a_number, own_array
from fastscalar.engine.operations cimport fill_table
from fastscalar.engine.parents cimport emit_custom, parents
from fastscalar.engine.shifts cimport note_foreign_read, note_shift
from fastscalar.engine.threads cimport end_thread, forget_thread, fs_here, this_thread

import math
import numbers
import operator
import os
import time
import warnings

import numpy as np

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        void *tp_descr_set
    PyObject *_PyType_Lookup(PyTypeObject *, object)

cdef extern from *:
    """
    #if defined(__GNUC__)   /* zero or not finite: one comparison and one jump; which it is the rare path finds out */
    #define FS_IS_SPECIAL(x) (!__builtin_islessgreater((x) + (x), (x)))
    #else
    #define FS_IS_SPECIAL(x) (!((x) + (x) < (x) || (x) + (x) > (x)))
    #endif
    """
    bint is_special "FS_IS_SPECIAL"(double) noexcept nogil

cdef Tape tape
cdef const fs_kernels *kernels         # the set of kernels in use


# --- the safepoint --------------------------------------------------------------------------------

cdef int safepoint(Py_ssize_t need) except -1:
    """Room for `need` more nodes.  Collects if that is due: indices and pointers from before are void."""
    cdef bint collected = False
    cdef int here = 0
    cdef Py_ssize_t i
    if tape.source != NULL:
        here = observer.here()                        # first: it runs Python
    if tape.stress:
        stress()
    elif tape.n + need > tape.young + NURSERY or tape.young_bytes > <size_t>YOUNG_BYTES:
        if not tape.locked:
            collect()
            if need > NURSERY // 2:
                promote()                        # nothing that can die lies between this run and the old part
    while tape.n + need + SLACK > tape.capacity:       # a loop: what a collection released may have emitted nodes
        try:
            grow(need)
        except MemoryError:
            if tape.locked or collected:
                raise
            collected = True                     # the dead among the old may be all that it takes
            collect_old()
            release_pending()
    if tape.source != NULL:
        for i in range(tape.n, tape.n + need):         # what the caller is about to emit
            tape.source[i] = here
    set_limit()
    return note_shift() if programs else 0


cdef int stress() except -1:
    """Collect, move all columns, and leave a dead node, so that next time every younger index changes."""
    if not tape.locked:
        collect_old()
        release_pending()
    resize(max(tape.capacity, tape.n + 1024))
    emit(LEAF, 0, 0, NAN, NULL)
    return 0


# --- making nodes ---------------------------------------------------------------------------------

cdef inline int emit(int op, int a, int b, double v, void *handle) noexcept nogil:
    """The next node.  The caller has room for it and cannot fail any more."""
    cdef int i = <int>tape.n
    require(i < tape.capacity and (op <= ARRAY_OP or (0 <= a < i and 0 <= b < i)))
    tape.value[i] = v
    tape.grad[i] = 0.0
    tape.handle[i] = handle
    tape.record[i].op = <unsigned char>op
    tape.record[i].a = a
    tape.record[i].b = b
    tape.n = i + 1
    return i


cdef Tensor result(int op, int a, int b, double v):
    """The private door: a new node and its Tensor, nothing checked."""
    cdef Tensor t = Tensor.__new__(Tensor)
    t.index = emit(op, a, b, v, <void *>t)
    return t


cdef Tensor handle_of(int i):
    """The Tensor of a node: the same object as long as it is held."""
    cdef Tensor t
    cdef void *h = tape.handle[i]
    if h != NULL:
        return <Tensor>h
    t = Tensor.__new__(Tensor)
    t.index = i
    tape.handle[i] = <void *>t
    if tape.record[i].op == ARRAY_OP:
        tape.array_ops[tape.record[i].a].handles += 1
    return t


# --- what belongs to a thread ---------------------------------------------------------------------
#
# See `engine/threads.pxd`.

cdef list states = []            # every ThreadState
cdef int lenient_threads = 0     # threads in _ieee
cdef int tracing = 0             # functions that are being traced: a Tensor that becomes a plain number is reported
cdef int programs = 0            # recordings under way; the one look that all other code has to pay for


cdef class ThreadState:
    """What one thread is in."""


@cython.no_gc
cdef class ThreadEnd:
    """Dies with the thread, in whose dictionary it is."""
    def __dealloc__(self):
        end_thread(self.state)


cdef int lock_nodes() except -1:
    """No collection until `unlock_nodes`: indices are held while Python may run."""
    cdef ThreadState state = this_thread()
    state.locked += 1
    tape.locked += 1
    return 0


cdef ThreadState own_state():
    """The state of this thread, for other modules."""
    return this_thread()


cdef void unlock_nodes() noexcept:
    (<ThreadState>fs_here).locked -= 1
    tape.locked -= 1
    set_limit()


def _begin_in_child():
    """After fork: of all threads there is only this one."""
    cdef ThreadState state
    if tape.sweeping and tape.owner != PyThread_get_thread_ident():
        tidy_sweep()
        tape.sweeping = False
    for state in list(states):
        if <void *>state != fs_here:
            forget_thread(state)


cdef class _Block:
    """A context that counts for the thread that enters it, and can be left only there."""

    cdef object enter(self, ThreadState state):
        raise NotImplementedError

    cdef int leave(self, ThreadState state, object what) except -1:
        raise NotImplementedError

    def __enter__(self):
        cdef ThreadState state = this_thread()
        cdef list one = [state, None, self.entered]
        one[1] = self.enter(state)
        self.entered = one
        return self

    def __exit__(self, kind=None, error=None, trace=None):
        cdef ThreadState state = this_thread(), other
        cdef list one = self.entered, later = None
        if one is None:
            raise RuntimeError(f"{type(self).__name__}: left without having been entered")
        while one is not None and one[0] is not state:
            later, one = one, one[2]
        if one is not None:
            if later is None:
                self.entered = one[2]
            else:
                later[2] = one[2]
            self.leave(state, one[1])
            return
        other, what, self.entered = self.entered
        if other.over:
            if kind is GeneratorExit:            # an abandoned generator is closed
                return
        else:
            self.leave(other, what)
        raise RuntimeError(
            f"{type(self).__name__}: left in another thread than the one that entered it (as by a generator that goes "
            "on elsewhere); it has ended there and changes nothing here")


# --- no_grad --------------------------------------------------------------------------------------

cdef bint recording():
    return tape.no_grad_threads == 0 or fs_here == NULL or (<ThreadState>fs_here).no_grad_blocks == 0


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
        elif state.no_grad_blocks:
            state.no_grad_blocks += 1
        else:
            state.no_grad_blocks = 1
            tape.no_grad_threads += 1
            set_limit()
        return state.recorder

    cdef int leave(self, ThreadState state, object what) except -1:
        if what is not None:
            if what is state.recorder:           # else that recording has ended
                state.recorder.resume_gradients()
        elif state.no_grad_blocks == 0:
            state.suspended -= 1
        else:
            state.no_grad_blocks -= 1
            tape.no_grad_threads -= state.no_grad_blocks == 0
            set_limit()
        return 0


# --- operations -----------------------------------------------------------------------------------

cdef Row[MOST_CODES] TABLE
cdef int n_codes = NAMED_CODES


cdef list OP_NAMES = [None] * MOST_CODES
cdef tuple ARRAY_NAMES = ("free", "", "linear", "map", "map", "sum", "dot", "logsumexp", "softmax", "squared_loss",
                          "mse_loss", "cross_entropy", "custom", "gather", "where", "best", "pick", "prod", "cumsum")
cdef tuple BEST_NAMES = ("max", "min", "argmax", "argmin")


cdef Row *row(int code) noexcept nogil:
    return &TABLE[code]


cdef str op_name(int code):
    name = OP_NAMES[code]
    if name is None:
        name = OP_NAMES[code] = TABLE[code].name.decode()
    return name


cdef bint lenient():
    return lenient_threads > 0 and fs_here != NULL and (<ThreadState>fs_here).lenient > 0


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
REAL = (np.floating, np.integer, np.bool_, numbers.Real)     # the abstract class last: it takes longest
NUMBER = (numbers.Number, np.bool_)
COMPLEX, INTEGER, FLOATING, LONG_DOUBLE = (numbers.Complex,), (np.integer,), (np.floating,), (np.longdouble,)
ARRAY = (np.ndarray,)
OPERATORS = {ADD: operator.add, SUB: operator.sub, MUL: operator.mul, DIV: operator.truediv, POW: operator.pow,
             MOD: operator.mod, FLOORDIV: operator.floordiv}
COMPARISONS = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)


cdef object numpy_of(object x):
    """What says that it is an array (of pandas, torch), or lends memory (memoryview), as one of NumPy; else itself."""
    if hasattr(type(x), "__array__") or (PyObject_CheckBuffer(x) and type(x) is not bytes):
        return np.asarray(x)
    return np.from_dlpack(x) if hasattr(type(x), "__dlpack__") else x


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
    if tape.n >= tape.limit:
        safepoint(SLACK)
    if left_is_node:
        bound(left)
        a = (<Tensor>left).index
        x = tape.value[a]
    if right_is_node:
        bound(right)
        b = (<Tensor>right).index
        y = tape.value[b]
    v = evaluate(code, x, y, a, b)
    if tape.no_grad_threads and not recording():
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
    if type(left) is Tensor and type(right) is Tensor and tape.n < tape.limit:
        a = (<Tensor>left).index
        b = (<Tensor>right).index
        if a == 0 or b == 0:
            unbound()
        v = evaluate(code, tape.value[a], tape.value[b], a, b)
        return result(code, a, b, v)
    return binary_slow(code, left, right)


cdef object apply_binary(int code, object left, object right):
    """`binary`, for other modules."""
    return binary(code, left, right)


cdef object unary(int code, Tensor self):
    cdef int a
    cdef double x, v
    bound(self)
    if tape.n >= tape.limit:
        safepoint(SLACK)
    a = self.index
    x = tape.value[a]
    v = TABLE[code].f(x)
    if v - v != 0.0:
        fail(code, x, 0.0, v, a, 0)
    if tape.no_grad_threads and not recording():
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

    cdef set whole_numbers(self):
        raise NotImplementedError

    cdef int raised(self, int code, int left, int right, double x, double y) except -1:
        raise NotImplementedError

    cdef object message(self, str text, int left, int right):
        raise NotImplementedError

    cdef int detached(self, int copy, int node) except -1:
        raise NotImplementedError

    cdef int drawn(self, int node, object draw) except -1:
        raise NotImplementedError

    cdef int called(self, int node, object callee) except -1:
        raise NotImplementedError

    cdef int stop_gradients(self) except -1:
        raise NotImplementedError

    cdef int resume_gradients(self) except -1:
        raise NotImplementedError

    cdef int begin_ieee(self) except -1:
        raise NotImplementedError

    cdef int end_ieee(self) except -1:
        raise NotImplementedError


cdef Recorder recording_here():
    return (<ThreadState>fs_here).recorder if programs and fs_here != NULL else None


cdef int forbid(str what) except -1:
    if recording_here() is not None:
        raise RuntimeError(f"{what} inside a compiled function: it would be lost in the replays")
    return 0


cdef int refuse(str what) except -1:
    """A function that does this is not replayed, but called for every row."""
    cdef Recorder recording = recording_here()
    if recording is not None:
        recording.refused = what
    return 0


foreign_reads = []


cdef int read_number(Tensor t, str how) except -1:
    """The value leaves the graph: from now on the program holds only for rows where it is the same."""
    cdef Recorder recording = recording_here()
    if recording is not None:
        recording.number_read(t.index, how)
    else:
        note_foreign_read(t.index)
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

    def __init__(self, data, _parents=(), _op="", *, label="", _children=(), _prev=()):
        cdef double v = 0.0
        cdef list given = list(_parents or _children or _prev)      # names of micrograd and of its copies
        if self.index:
            raise TypeError("Tensor.__init__ called a second time")
        if programs and type(data) is Tensor and recording_here() is not None:
            v = tape.value[(<Tensor>data).index]
        elif not as_number(data, &v):
            if type(data) is not Tensor and not hasattr(type(data), "__float__"):
                raise TypeError(f"Tensor(data): expected a real number, got {type(data).__name__}")
            v = float(data)
        for p in given:
            if type(p) is not Tensor:
                raise TypeError(f"Tensor(data, parents): expected Tensors as parents, got {type(p).__name__}")
            bound(p)
        if tape.n >= tape.limit:
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
            tape.handle[i] = NULL
            if tape.record[i].op == ARRAY_OP:
                tape.array_ops[tape.record[i].a].handles -= 1

    def __repr__(self):
        return f"Tensor(data={number_of(self, 'repr()')!r})"

    # NumPy's scalars leave operators to us; at once, since `left_operands.h`.  Its arrays do not: they make arrays of
    # Tensors.
    __array_priority__ = -1.0

    # --- number protocol ---

    def __float__(self):
        if tracing:
            on_number(self)
        return number_of(self, "float()")

    def __bool__(self):
        return bool(self != 0.0) if programs else tape.value[self.index] != 0.0

    def __int__(self):
        return int(number_of(self, "int()"))

    def __round__(self, digits=None):
        return round(number_of(self, "round()"), digits)

    def __floor__(self):
        return math.floor(number_of(self, "floor()"))

    def __ceil__(self):
        return math.ceil(number_of(self, "ceil()"))

    def __trunc__(self):
        return math.trunc(number_of(self, "int()"))

    def __format__(self, spec):
        if programs and spec:
            read_number(self, "format()")
        return format(tape.value[self.index], spec) if spec else repr(self)

    def __hash__(self):
        if programs and recording_here() is not None:
            (<object>recording_here()).forget_lists()    # `{x: 1.0}[some[k]]` asks which one was selected
        return <Py_hash_t>(<size_t><void *>self >> 4)

    def __richcmp__(self, other, int op):
        cdef double y = 0.0
        cdef int side = 0
        cdef Recorder recording
        if type(other) is Tensor:
            y = tape.value[(<Tensor>other).index]
        elif PyFloat_Check(other):
            y = PyFloat_AS_DOUBLE(other)
        else:
            side = nearest_double(other, op, &y)
            if side == NO_NUMBER:
                number = own_array(other)
                return NotImplemented if number is other else COMPARISONS[op](self, number)
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
            note_foreign_read(self.index)
            if type(other) is Tensor:
                note_foreign_read((<Tensor>other).index)
        return compare_numbers(op, tape.value[self.index], y)

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
        return number_of(self, ".data")

    @data.setter
    def data(self, value):
        cdef double v = number_for(value, "data")
        bound(self)
        forbid("writing .data")
        if memcmp(&tape.value[self.index], &v, sizeof(double)):
            wrote(self.index)
            tape.value[self.index] = v

    @property
    def grad(self):
        """The gradient that the last `backward` which reached this number left, a Python float; 0.0 before.

        After `backward(create_graph=True)` a Tensor, which can be differentiated in its turn.
        """
        if programs:
            refuse("reading .grad")
        read_gradient(self.index)
        if self.entry and tape.attributes[self.entry - 1].gradient != NULL and not tape.sweeping:
            return recorded_gradient(self)
        return tape.grad[self.index]

    @grad.setter
    def grad(self, value):
        cdef double v = number_for(value, "grad")
        bound(self)
        forbid("writing .grad")
        drop_recorded(self)
        write_gradient(self.index)
        tape.grad[self.index] = v

    def item(self):
        """The value, a Python float."""
        return number_of(self, ".item()")

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
            if tape.n_recorded:
                flag_recorded(accumulate)
            sweep(self, accumulate)
        finally:
            if tape.n_recorded:
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
        if self.entry and tape.attributes[self.entry - 1].step != NULL:
            return <object>tape.attributes[self.entry - 1].step
        return self._step

    @_backward.setter
    def _backward(self, step):
        if tape.record[self.index].op != ARRAY_OP or tape.array_ops[tape.record[self.index].a].op != A_CUSTOM:
            raise AttributeError("only a Tensor made with its parents, Tensor(value, (a, b)), takes a _backward")
        if not callable(step):
            raise TypeError(f"Tensor._backward: expected a callable, got {type(step).__name__}")
        attributes_of(self)
        set_step(self, step)

    def _step(self):
        """The local step of an operation of the engine."""
        cdef int i = self.index
        if tape.sweeping:
            raise RuntimeError("_backward() inside a backward pass")
        require_unchanged(i)
        if tape.record[i].op == ARRAY_OP:
            array_op_step(tape.array_ops[tape.record[i].a], tape.record[i].b)
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
        return attributes_of(self).get("label", "") if self.entry else ""

    @label.setter
    def label(self, value):
        attributes_of(self)["label"] = value

    def __setattr__(self, name, value):
        cdef PyObject *found = _PyType_Lookup(<PyTypeObject *>tape.tensor_type, name)
        if found == NULL:
            bound(self)
            attributes_of(self)[name] = value
        elif (<PyTypeObject *>found.ob_type).tp_descr_set != NULL:
            PyObject_GenericSetAttr(self, name, value)
        else:                                    # the generic way would put a dict of its own where ours belongs
            raise AttributeError(f"'Tensor' object attribute {name!r} is read-only")

    def __delattr__(self, name):
        if self.entry and not hasattr(Tensor, name):
            attributes = <dict>tape.attributes[self.entry - 1].attributes
            if name in attributes:
                del attributes[name]
                return
        raise AttributeError(f"'Tensor' object has no attribute {name!r} that can be deleted")

    def __reduce__(self):
        bound(self)
        if tape.record[self.index].op > CONST and parents(self):
            raise TypeError("only a leaf can be copied or pickled: use detach() for a Tensor that was computed")
        if programs:
            read_number(self, "a copy")
        read_gradient(self.index)
        attributes = dict(attributes_of(self)) if self.entry else {}
        gradient = tape.grad[self.index]
        if gradient == 0.0 and not attributes:
            return Tensor, (tape.value[self.index],)
        return Tensor, (tape.value[self.index],), (gradient, attributes)

    def __setstate__(self, state):
        gradient, attributes = state
        self.grad = gradient
        for name, value in attributes.items():
            setattr(self, name, value)


cdef inline double number_of(Tensor t, str how) except? -1.0:
    """The value, for something that is no Tensor any more."""
    if programs:
        read_number(t, how)
    return tape.value[t.index]


cdef int bound(Tensor t) except -1:
    if t.index == 0:
        unbound()
    return 0


cdef int unbound() except -1:
    raise ValueError("this Tensor was never initialised")


cdef double number_for(object value, str name) except? -1.0:
    cdef double v = 0.0
    if not as_number(value, &v):
        raise TypeError(f"Tensor.{name}: expected a real number, got {type(value).__name__}")
    return v


cdef Tensor new_leaf(int i):
    """A leaf with the value of node `i`."""
    cdef double v = tape.value[i]
    cdef Tensor t
    if i == 0:
        unbound()
    if tape.n >= tape.limit:
        safepoint(SLACK)
    t = result(LEAF, 0, 0, v)
    if programs and recording_here() is not None:
        recording_here().detached(t.index, i)
    return t


cdef int node_of_number(double v) except -1:
    if tape.n >= tape.limit:
        safepoint(SLACK)
    return emit(CONST, 0, 0, v, NULL)


cdef dict attributes_of(Tensor t):
    if not t.entry:
        add_attributes(t)
    return <dict>tape.attributes[t.entry - 1].attributes


NO_FREEZING = ("requires_grad = False: every Tensor takes part in gradients; compute with its detach(), or in a block "
               "of no_grad(), or leave it out of the optimiser's parameters")


# --- the backward pass ----------------------------------------------------------------------------
#
# What a sweep does, and its invariant: `engine/marks.pxd`.

cdef void scalar_step(int i) noexcept nogil:
    """The local step of a scalar node: its gradient times each derivative goes to its operands, left then right."""
    cdef int op = tape.record[i].op, a, b
    cdef double g, v, x, y
    if op <= ARRAY_OP:
        return
    a, b = tape.record[i].a, tape.record[i].b
    g, v, x, y = tape.grad[i], tape.value[i], tape.value[a], tape.value[b]
    if g == 0.0:
        mark_reached(a)
        if TABLE[op].arity == 2:
            mark_reached(b)
    elif op == ADD:
        contribute(a, g)
        contribute(b, g)
    elif op == MUL:
        contribute(a, sent(g, y))
        contribute(b, sent(g, x))
    elif op == SUB:
        contribute(a, g)
        contribute(b, -g)
    elif TABLE[op].arity == 1:
        contribute(a, sent(g, TABLE[op].d(x, v)))
    else:
        contribute(a, sent(g, TABLE[op].da(x, y, v)))
        if op == POW and tape.record[b].op == CONST:
            mark_reached(b)                             # a number as exponent is a constant: its gradient stays 0.0
        else:
            contribute(b, sent(g, TABLE[op].db(x, y, v)))


cdef int sweep(Tensor root, bint accumulate) except -1:
    """Process everything that the root reaches.  Holds an index, not pointers, while a signal handler may run."""
    cdef bint careful = tape.source != NULL           # detect_anomaly: look at every step
    cdef int budget = 1 if careful else 1 << 20
    cdef int step, changed = 0
    tape.accumulate = accumulate
    tape.at = root.index
    mark_reached(tape.at)
    tape.grad[tape.at] += 1.0
    while tape.at > 0:
        step = tape.at
        if careful and observer is not None:
            observer.before_step(step)
        if step >= tape.written:
            tape.at = sweep_some(step, max(<Py_ssize_t>1, max(tape.written, <Py_ssize_t>step - budget + 1)))
        else:
            tape.at = sweep_older(step, budget, &changed)
            if changed:
                raise_changed(tape.at, changed)
        if tape.custom:
            call_step()
        elif tape.at > 0:
            PyErr_CheckSignals()
        if careful and observer is not None:     # the block may have been left in between
            observer.after_step(step)
    return 0


cdef int sweep_older(int i, int budget, int *changed) noexcept nogil:
    """`sweep_some` where a value may have been written since: stops at a node that would read one."""
    while i > 0 and budget > 0 and not tape.custom:
        changed[0] = changed_operand(i)
        if changed[0]:
            break
        i = sweep_some(i, i)
        budget -= 1
    return i


cdef int call_step() except -1:
    """Call the Python step of the user's own operation that the sweep has come to; its parents are reset."""
    cdef Tensor t = handle_of(tape.custom)
    tape.custom = 0
    if t.entry and tape.attributes[t.entry - 1].step != NULL:
        step = <object>tape.attributes[t.entry - 1].step
        step()
    return 0


cdef int sweep_some(int i, Py_ssize_t low) noexcept nogil:
    """Process reached nodes from i down to `low` (at least 1), or for some milliseconds; the node to go on with, 0 if
    all is done.

    Columns in local variables: a store to a `mark` could alias tape itself, so the compiler would load them again.
    """
    cdef unsigned char *mark = tape.mark
    cdef unsigned char *mark64 = tape.mark64
    cdef double *grad = tape.grad
    cdef const double *value = tape.value
    cdef Record *record = tape.record
    cdef Record r
    cdef double g
    cdef bint plain = not tape.accumulate
    cdef int number = tape.number
    cdef ArrayOp *q
    while i >= low:
        r = record[i]
        mark[i] = 0
        if r.op == MUL:
            g = grad[i]
            if cython.unlikely(is_special(g)):
                scalar_step(i)
            else:
                reach(r.a, g * value[r.b], mark, mark64, grad, record, number, plain)
                reach(r.b, g * value[r.a], mark, mark64, grad, record, number, plain)
        elif r.op == ADD:
            g = grad[i]
            reach(r.a, g, mark, mark64, grad, record, number, plain)
            reach(r.b, g, mark, mark64, grad, record, number, plain)
        elif r.op == ARRAY_OP:
            q = tape.array_ops[r.a]
            if q.op == A_LEAF:
                pass
            elif q.whole or q.partial == q.count or q.count == 1:
                low += array_op_backward(q)
                if q.done:                       # of a large batch: the other rows after a look at signals
                    mark[i] = 1
                    return i
                i = clear_run(q, i)
                if q.op == A_CUSTOM:
                    tape.custom = i
                    return previous(i)
            else:
                array_op_step(q, r.b)
                low += q.inner
        elif r.op > ARRAY_OP:
            scalar_step(i)
        if mark[i - 1] and i & 4095:
            if not i & 63:
                mark64[i >> 6] = 0
            i -= 1
        else:
            i = previous(i)
    return i


cdef int start_sweep() except -1:
    """Enter the backward pass; another thread that is in one (it can be inside a signal handler) is waited for."""
    forbid("a backward pass")
    return start_look()


cdef int start_look() except -1:
    """The same for a sweep that only looks, which a recording may do too."""
    while tape.sweeping:
        if tape.owner == PyThread_get_thread_ident():
            raise RuntimeError("backward() inside a backward pass")
        time.sleep(0.0005)
    tape.sweeping = True
    tape.owner = PyThread_get_thread_ident()
    tape.first_listed = -1
    tape.at = <int>tape.n - 1                  # what is marked before the sweep begins is cleared too
    tape.custom = 0
    tape.number += 1
    if tape.number == 0x7fffffff:
        forget_sweeps()
    lock_nodes()
    return 0


cdef void end_sweep() noexcept:
    """Leave it; after an interruption also clear what is still marked."""
    tidy_sweep()
    tape.sweeping = False
    unlock_nodes()


# --- detect_anomaly: where operations are recorded, which backward step makes a NaN ----------------

cdef Observer observer = None    # what the innermost block opened last put in


cdef class Observer:
    """The base of `_anomaly.Callbacks`."""

    cdef int here(self) except -1:
        raise NotImplementedError

    cdef int before_step(self, int i) except -1:
        raise NotImplementedError

    cdef int after_step(self, int i) except -1:
        raise NotImplementedError

    cdef int closed(self) except -1:
        raise NotImplementedError


# --- the tape itself ------------------------------------------------------------------------------

cdef int collect_all() except -1:
    """A full collection now."""
    if not tape.locked:
        collect_old()
        release_pending()
        set_limit()
    return 0


def tape_info():
    """What is on the tape: nodes, bytes, collections, the kernel set, as a dictionary.

    >>> import fastscalar as fs
    >>> fs.tape_info()["bytes_per_node"] < 40
    True
    """
    return {
        "nodes": tape.n - 1,
        "capacity": tape.capacity,
        "bytes_per_node": 2 * sizeof(double) + sizeof(void *) + sizeof(Record) + 1 + 1.0 / 64,
        "wide_instructions": tape.n_array_ops - tape.n_free,
        "wide_bytes": sum([tape.array_ops[k].bytes for k in range(tape.n_array_ops) if tape.array_ops[k].op != A_FREE]),
        "collections": tape.collections,
        "full_collections": tape.full_collections,
        "pinned": tape.n_attributes - tape.n_free_attributes,
        "writes": tape.n_writes,
        "kernels": kernels.name.decode(),
        "stress": bool(tape.stress),
    }


def _select_kernels(name):
    """Use this set of kernels: "baseline", "avx2", "avx512", or None for the best that this CPU has."""
    global kernels
    cdef bytes encoded = b"" if name is None else name.encode()
    cdef const char *wanted = encoded
    cdef const fs_kernels *k = fs_kernels_select(NULL if name is None else wanted)
    if k == NULL:
        raise ValueError(f'kernels: expected "baseline", "avx2" or "avx512", and one that this CPU has; got {name!r}')
    kernels = k
    for code in range(ADD, n_codes):
        TABLE[code].each = k.each(TABLE[code].name) if TABLE[code].arity == 1 else NULL
        TABLE[code].each_pair = k.each_pair(TABLE[code].name) if TABLE[code].arity == 2 else NULL


def kernel_sets():
    """Names of the kernel sets that this CPU can run."""
    return [name for name in ("baseline", "avx2", "avx512") if fs_kernels_select(name.encode()) != NULL]


# --- at import ------------------------------------------------------------------------------------

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_in_child)
fill_table()
open_tape()
place_attributes()
tape.stress = os.environ.get("FASTSCALAR_STRESS", "") not in ("", "0")
set_limit()
try:
    _select_kernels(os.environ.get("FASTSCALAR_KERNELS") or None)
except ValueError as error:                      # a wrong name must not stop programs that import us
    _select_kernels(None)
    warnings.warn(f"FASTSCALAR_KERNELS: {error}; using {kernels.name.decode()!r}", RuntimeWarning)
