# What the graph of a program is made of.  Private, not an API.

from libc.math cimport floor
cdef enum:
    G_CONSTANT = 1          # operations of a Graph beside those of the table
    G_PARAMETER = -1
    G_INPUT = -2
    G_ITEM = -3
    G_COPY = -4
    G_BLOCK = -5
    G_RANDOM = -6
    IEEE = 0x100            # added to an operation of the table: it does not raise
    GUARD_SAME = 6          # guards beside the six comparisons
    GUARD_TRUNC = 7
    GUARD_FLOOR = 8
    GUARD_CEIL = 9
    GUARD_RAISES = 10       # the operation `value` of the operands raises: 256 * kind_of_error + its code

ctypedef struct RecordedGuard:   # a guard: what Python decided, or read, and where; GUARD for NumPy
    double value            # the outcome of a comparison; the number that was read, as far as it was; the operation
    int op                  # of CPython's comparisons, or GUARD_SAME to GUARD_RAISES
    int left                # node
    int right               # node; -1: none
    int code                # the place: a number in `codes`, -1: no code's,
    int instruction         # and the instruction there

ctypedef struct WhereItem:          # a `where`: left `comparison` right decides between a and b, all of them nodes
    int item
    int output
    int comparison
    int left
    int right
    int a
    int b


cdef class Graph:
    cdef public object op, a, b, value, stopped
    cdef public object per_row   # by node, whether it depends on an input; until loops were looked for
    cdef list entries            # the items; None: still among the wheres
    cdef WhereItem *wheres         # owned
    cdef Py_ssize_t n_wheres, where_room
    cdef public list captures, inputs
    cdef public list draws       # at random, as they are told to a recording: kind, count, p, site, scope, occurrence
    cdef public object guards    # an array of GUARD, its nodes those of the graph
    cdef public list codes       # that they refer to
    cdef public dict lists       # guard that a whole number was read as -> nodes that it was an index of
    cdef public dict shared      # argument that all rows share -> the capture that stands for it
    cdef dict tables             # while it is made: nodes of the arrays that were gathered from,
    cdef dict blocks             # and of each block, by its first node on the tape, its node (before: its columns)
    cdef public bint uncertain   # how many numbers are drawn depends on the row
    cdef public bint exact       # its results feed decisions
    cdef public object results   # its nodes, in the order of a flattened nest
    cdef public int operations   # scalar operations that the function did, those of arrays counted by their scalar work
    cdef int *op_
    cdef int *a_
    cdef int *b_
    cdef double *value_
    cdef unsigned char *per_row_    # depends on an input
    cdef Py_ssize_t n, room

    cdef void release(self) noexcept
    cdef int grow(self, Py_ssize_t room) except -1
    cdef int add(self, int op, int a, int b, double value, bint per_row) except -1
    cdef int constant(self, double value) except -1
    cdef int apply(self, int op, int a, int b) except -1
    cdef int add_where(self, int comparison, int left, int right, int a, int b, double value) except -1
    cdef int output(self, int item, int k, double value) except -1
    cdef int close(self) except -1


cdef object taken(void **data, Py_ssize_t n, dtype)
cdef void *room_for(void **table, Py_ssize_t *room, Py_ssize_t n, size_t size) except NULL
cdef bint never_raises(int code) noexcept nogil
cdef inline int kind_of_error(double x, double v) noexcept nogil:
    """Errors of one operation that may be of several types (of trunc: of NaN and of infinity) are of several kinds."""
    return 1 if v != v else 3 if x == 0.0 else 2 if x <= 1.0 and x == floor(x) else 0
