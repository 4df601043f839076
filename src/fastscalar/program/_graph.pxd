# What the graph of a program is made of.  Private, not an API.

from cpython.object cimport PyObject

from fastscalar._core cimport Operand, Recorder, Tensor

cdef enum:
    G_CONSTANT = 1          # operations of a Graph beside those of the table
    G_PARAMETER = -1
    G_INPUT = -2
    G_ITEM = -3
    G_COPY = -4
    G_BLOCK = -5
    IEEE = 0x100            # added to an operation of the table: it does not raise
    GUARD_SAME = 6          # guards beside the six comparisons
    GUARD_TRUNC = 7
    GUARD_FLOOR = 8
    GUARD_CEIL = 9
    GUARD_RAISES = 10       # the operation `value` of the operands raises

ctypedef struct Decision:   # a guard: what Python decided, or read, and where; DECISION for NumPy
    double value            # the outcome of a comparison; the number that was read, as far as it was; the operation
    int op                  # of CPython's comparisons, or GUARD_SAME to GUARD_RAISES
    int left                # node
    int right               # node; -1: none
    int code                # the place: a number in `codes`, -1: nobody's code,
    int instruction         # and the instruction there

cdef enum:
    KNOWN = 64


cdef class Recording(Recorder):
    cdef public list inputs         # (kind, handle): "array" a TensorArray, "number" a Tensor, "whole" a TracedInt
    cdef Decision *decisions        # owned
    cdef Py_ssize_t n, room
    cdef readonly list codes        # code objects that decide, none of them ours
    cdef dict code_numbers          # address of a code object -> (the object, its number in `codes`, -1: ours)
    cdef PyObject *known[KNOWN]     # some of them, by address: whose loop it is, and the few that it calls
    cdef int known_number[KNOWN]
    cdef dict copies                # node of a leaf -> node that it has the value of
    cdef readonly list stopped      # [first, stop) of nodes made in blocks of no_grad
    cdef int depth
    cdef int first                  # nodes that are older were there before
    cdef bint closed
    cdef object context
    cdef readonly list lost         # places where a number with a gradient became one without
    cdef set asked                  # those that were looked at

    cdef bint is_stopped(self, int i) except -1
    cdef bint has_gradient(self, int node) except -1
    cdef int note(self, int op, int left, int right, double value) except -1
    cdef int find_place(self, Decision *d) except -1
    cdef int code_number(self, PyObject *code) except -2
    cdef object guards(self)


cdef void *room_for(void **table, Py_ssize_t *room, Py_ssize_t n, size_t size) except NULL
cdef bint never_raises(int code) noexcept nogil
cdef bint compare_numbers(int op, double x, double y) noexcept nogil
cdef double truncated(int op, double v)
cdef void see(int p) noexcept nogil
cdef void see_operand(Operand *o) noexcept nogil
