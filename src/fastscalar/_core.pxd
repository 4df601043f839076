# The data sheet of `_core`: its classes, its globals, and what other modules may use.  Private, not an API.
#
# The structs are in `engine/tape.pxd`.  Parts of `_core` that are `cdef inline` functions stand in the other .pxd files
# of `engine/`: compiled into the module that cimports them, so that a call costs what it did in one file.  They cimport
# from here, and this file nothing from them.

from fastscalar.engine.tape cimport *


cdef class Tensor:          # 32 bytes
    cdef int index          # its node; 0: none
    cdef int entry            # its place in the table of attributes + 1; 0: none
    cdef void *attributes   # the dict there, for CPython's own look-up (tp_dictoffset); NULL: none


cdef class TracedNumber:    # in a recording: a number of the row that is no Tensor, see `_traced.TracedInt`
    cdef readonly Tensor tensor     # the same as a leaf


cdef class Recorder:        # what a recorded function did that the tape does not show is told to it; see `_trace`
    cdef str refused        # what it did that no replay can do
    cdef public bint plain_floats   # what is computed of whole numbers alone is to be a float, as in the plain call
    # the outcome of a comparison, or what stands for it; with a number where there is no Tensor on the right
    cdef object compare(self, int op, Tensor left, Tensor right, double number)
    cdef int decided(self, int op, Tensor left, Tensor right, double number, bint outcome) except -1
    cdef int number_read(self, int node, str how) except -1
    cdef set whole_numbers(self)                    # nodes of those of the row
    cdef int raised(self, int code, int left, int right, double x, double y) except -1   # node 0: that number
    cdef object message(self, str text, int left, int right)     # of the error: who reads it reads these nodes
    cdef int detached(self, int copy, int node) except -1
    cdef int drawn(self, int node, object draw) except -1        # at random: a leaf, or the first of an array of leaves
    cdef int called(self, int node, object callee) except -1     # an operation of the user's that can be called again
    cdef int stop_gradients(self) except -1
    cdef int resume_gradients(self) except -1
    cdef int begin_ieee(self) except -1
    cdef int end_ieee(self) except -1


cdef class ThreadState:
    cdef int no_grad_blocks      # that count at the moment,
    cdef int suspended           # and those outside a block of _record
    cdef int lenient             # _ieee blocks
    cdef int anomaly_blocks      # of detect_anomaly
    cdef int locked              # its part of tape.locked
    cdef tuple watches           # what is traced, the innermost last
    cdef Recorder recorder       # of the program that it records
    cdef bint over               # the thread has ended


cdef class ThreadEnd:           # dies with the thread, in whose dictionary it is
    cdef ThreadState state


cdef class _Block:              # a context that counts for the thread that enters it
    cdef list entered           # [the thread, what `enter` said, the same for the time before]: no memory to leave it
    cdef object enter(self, ThreadState state)
    cdef int leave(self, ThreadState state, object what) except -1


cdef class Observer:            # in `detect_anomaly`
    cdef int here(self) except -1                   # a number for the place where the next nodes are recorded
    cdef int before_step(self, int i) except -1     # the backward step of node i
    cdef int after_step(self, int i) except -1
    cdef int closed(self) except -1                 # no block is open any more


# --- for the modules above ------------------------------------------------------------------------

cdef Tape tape
cdef const fs_kernels *kernels
cdef int n_codes            # the operation table ends before it
cdef int programs           # recordings of programs under way
cdef list foreign_reads     # nodes that other threads than their own read meanwhile
cdef int lenient_threads    # threads in _ieee
cdef int tracing            # functions that are being traced
cdef list states            # every ThreadState
cdef Observer observer      # what the innermost block of detect_anomaly opened last put in
cdef tuple REAL             # kinds of numbers, for isinstance
cdef tuple NUMBER
cdef tuple COMPLEX
cdef tuple INTEGER
cdef tuple FLOATING
cdef tuple LONG_DOUBLE
cdef tuple ARRAY
cdef dict OPERATORS         # by code: Python's function of an operator
cdef tuple ARRAY_NAMES      # by code: what an array operation is called
cdef tuple BEST_NAMES       # by code: which smallest or largest
cdef tuple COMPARISONS      # by Python's number of a comparison


cdef int safepoint(Py_ssize_t need) except -1
cdef int collect_all() except -1
cdef ThreadState own_state()
cdef int lock_nodes() except -1
cdef void unlock_nodes() noexcept
cdef bint recording()
cdef Tensor result(int op, int a, int b, double v)
cdef Tensor handle_of(int i)
cdef int bound(Tensor t) except -1
cdef dict attributes_of(Tensor t)

cdef Recorder recording_here()
cdef int forbid(str what) except -1
cdef int refuse(str what) except -1
cdef int read_number(Tensor t, str how) except -1
cdef int node_of_number(double v) except -1

cdef Row *row(int code) noexcept nogil
cdef object numpy_of(object x)
cdef object apply_binary(int code, object left, object right)
cdef object unary(int code, Tensor self)
cdef str op_name(int code)
cdef bint lenient()

cdef int start_sweep() except -1
cdef int start_look() except -1
cdef int sweep(Tensor root, bint accumulate) except -1
cdef void end_sweep() noexcept
