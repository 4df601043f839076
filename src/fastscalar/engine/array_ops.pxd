# cython: language_level=3, wraparound=False, cdivision=True
# Array operations: the table of instructions that own a run of nodes, their operands, the gradients of array leaves.
#
# What they compute is in `_array_ops`, their backward steps in `array_backward.pxd`.

from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcpy, memset

from fastscalar._core cimport kernels, tape
from fastscalar.engine.memory cimport allocate, allocate_zeroed, enlarge, out_of_memory
from fastscalar.engine.tape cimport (CONSTANT, INDEX, RUN, SLACK, SPARSE, STRIDED, A_BEST, A_LEAF, ARRAY_OP, Layout,
                                     Operand, Record, ArrayOp)

cdef extern from "strided.h":
    void fs_fill_run(void *records, const void *first, Py_ssize_t n) noexcept nogil


# --- the table ------------------------------------------------------------------------------------

cdef inline ArrayOp *new_array_op(int op, int count) except NULL:
    """A slot for an instruction that is not on the tape yet: `publish` puts it there, `free_array_op` gives it back."""
    cdef ArrayOp *q
    cdef int capacity
    if tape.n_free == 0:
        if tape.n_array_ops == tape.array_op_capacity:
            capacity = max(64, 2 * tape.array_op_capacity)
            enlarge(<void **>&tape.array_ops, capacity, sizeof(ArrayOp *), "the table of array operations")
            enlarge(<void **>&tape.free_slots, capacity, sizeof(int), "the table of array operations")
            tape.array_op_capacity = capacity
        q = <ArrayOp *>allocate_zeroed(1, sizeof(ArrayOp))
        if q == NULL:
            out_of_memory("an array operation", 1)
        q.slot = tape.n_array_ops
        tape.array_ops[q.slot] = q
        tape.n_array_ops += 1
    else:
        tape.n_free -= 1
        q = tape.array_ops[tape.free_slots[tape.n_free]]
    q.op = op
    q.count = count
    q.factored = -1
    return q


cdef inline void free_operand(Operand *o) noexcept nogil:
    PyMem_RawFree(o.index)
    PyMem_RawFree(o.value)
    PyMem_RawFree(o.row)
    PyMem_RawFree(o.layout)


cdef inline void free_array_op(ArrayOp *q) noexcept nogil:
    cdef int slot = q.slot
    free_operand(&q.x)
    free_operand(&q.y)
    free_operand(&q.z)
    PyMem_RawFree(q.labels)
    PyMem_RawFree(q.geometry)
    PyMem_RawFree(q.saved)
    PyMem_RawFree(q.touched)
    PyMem_RawFree(q.touched_rows)
    PyMem_RawFree(q.f_row)
    PyMem_RawFree(q.f_x)
    PyMem_RawFree(q.f_g)
    memset(q, 0, sizeof(ArrayOp))
    q.slot = slot
    tape.free_slots[tape.n_free] = slot
    tape.n_free += 1


cdef inline size_t operand_bytes(Operand *o) noexcept nogil:
    cdef size_t layout = sizeof(Layout) if o.layout != NULL else 0
    if o.kind == INDEX:
        return o.count * sizeof(int) + layout
    if o.kind == CONSTANT:
        return o.count * sizeof(double) + layout
    if o.kind == SPARSE:
        return o.count * (sizeof(int) + sizeof(double))
    return layout


cdef inline void publish(ArrayOp *q) noexcept nogil:
    """Put an instruction on the tape whose values already stand in value[n:n + count]."""
    cdef Py_ssize_t written
    cdef Record r
    memset(&r, 0, sizeof(Record))              # the padding too: whole records are written at once
    q.start = <int>tape.n
    r.op = ARRAY_OP
    r.a = q.slot
    fs_fill_run(tape.record + tape.n, &r, q.count)
    if tape.n < tape.fresh:
        written = min(<Py_ssize_t>q.count, tape.fresh - tape.n)
        memset(tape.grad + tape.n, 0, written * sizeof(double))
        memset(tape.handle + tape.n, 0, written * sizeof(void *))
    tape.n += q.count
    if tape.fresh < tape.n + SLACK:              # a scalar operation that follows without a safepoint writes there
        tape.fresh = tape.n + SLACK
    q.bytes = operand_bytes(&q.x) + operand_bytes(&q.y) + operand_bytes(&q.z)
    if q.saved != NULL:
        q.bytes += q.x.count * sizeof(double)
    if q.labels != NULL:
        q.bytes += (q.count if q.op == A_BEST else q.rows) * sizeof(int)
    tape.young_bytes += q.bytes


cdef inline int make_leaf(ArrayOp *q, int rows) except -1:
    """The part of an instruction that only arrays of leaves have.  The caller frees `q` if this fails."""
    q.op = A_LEAF
    q.rows = rows
    q.cols = q.count // rows
    q.touched = <unsigned char *>allocate_zeroed(rows, 1)
    q.touched_rows = <int *>allocate(rows * sizeof(int))
    if q.touched == NULL or q.touched_rows == NULL:
        out_of_memory("an array of leaves", rows)
    return 0


# --- operands -------------------------------------------------------------------------------------

cdef inline Py_ssize_t laid_at(const Layout *layout, Py_ssize_t k) noexcept nogil:
    """Which stored element the k-th one is."""
    cdef Py_ssize_t at = 0
    cdef int d
    for d in range(layout.ndim - 1, -1, -1):
        at += (k % layout.shape[d]) * layout.stride[d]
        k //= layout.shape[d]
    return at


cdef inline double value_of(Operand *o, Py_ssize_t k) noexcept nogil:
    """The number that an instruction reads at k; one element goes with every element of the other operand."""
    if o.layout != NULL:
        k = laid_at(o.layout, k)
    elif o.count == 1:
        k = 0
    if o.kind == RUN or o.kind == STRIDED:
        return tape.value[o.start + k]
    return tape.value[o.index[k]] if o.kind == INDEX else o.value[k]


cdef inline int node_of(Operand *o, Py_ssize_t k) noexcept nogil:
    """Its node; 0 for a number."""
    if o.layout != NULL:
        k = laid_at(o.layout, k)
    elif o.count == 1:
        k = 0
    return <int>(o.start + k) if o.kind == RUN or o.kind == STRIDED else o.index[k] if o.kind == INDEX else 0


cdef inline Py_ssize_t elements_of(const Operand *o) noexcept nogil:
    """How many an operand has as the instruction counts them."""
    cdef Py_ssize_t count = 1
    cdef int d
    if o.layout == NULL:
        return o.count
    for d in range(o.layout.ndim):
        count *= o.layout.shape[d]
    return count


cdef inline ArrayOp *whole_leaf(Operand *o, Py_ssize_t cols) noexcept nogil:
    """The array of leaves that an operand is all of, row for row; else NULL."""
    cdef ArrayOp *q
    if o.kind != RUN or tape.record[o.start].op != ARRAY_OP:
        return NULL
    q = tape.array_ops[tape.record[o.start].a]
    return q if q.op == A_LEAF and q.count == o.count and q.cols == cols else NULL


cdef inline const double *operand_values(Operand *o, double *room) noexcept nogil:
    """The numbers of an operand, consecutive: in place, or gathered into `room`."""
    cdef Py_ssize_t k
    if o.kind == RUN:
        return tape.value + o.start
    if o.kind == CONSTANT:
        return o.value
    for k in range(o.count):
        room[k] = tape.value[o.index[k]]
    return room


cdef inline int dense_input(ArrayOp *q, int r, int **row, double **value) noexcept nogil:
    """As `affine_input`, with the inputs that are zero."""
    cdef int k
    row[0] = tape.work_int
    value[0] = tape.work + q.inner
    for k in range(q.inner):
        tape.work_int[k] = k
        value[0][k] = value_of(&q.x, <Py_ssize_t>r * q.inner + k)
    return q.inner


cdef inline int affine_input(ArrayOp *q, int r, int **row, double **value) noexcept nogil:
    """The non-zero inputs of sample r, with the values that they have now; how many."""
    cdef int k
    cdef const double *x
    if q.x.kind == SPARSE:
        row[0] = q.x.index + q.x.row[r]
        value[0] = q.x.value + q.x.row[r]
        return q.x.row[r + 1] - q.x.row[r]
    if q.x.kind == RUN:
        x = tape.value + q.x.start + <Py_ssize_t>r * q.inner
    elif q.x.kind == CONSTANT:
        x = q.x.value + <Py_ssize_t>r * q.inner
    else:
        for k in range(q.inner):
            tape.work[k] = tape.value[q.x.index[<Py_ssize_t>r * q.inner + k]]
        x = tape.work
    row[0] = tape.work_int
    value[0] = tape.work + q.inner
    return kernels.compress(tape.work_int, tape.work + q.inner, x, 1, q.inner)


# --- operands row by row --------------------------------------------------------------------------
#
# Operands that are laid out have the same dimensions; one element beside them stands still.

ctypedef struct Rows:           # rows of two operands: the last dimension of their layouts, or all elements
    const Layout *l             # one of their layouts; NULL: neither has one
    int outer                   # dimensions before the last
    Py_ssize_t n                # elements of a row
    Py_ssize_t sx               # from one to the next
    Py_ssize_t sy
    Py_ssize_t x                # the first of this row, as `value_of` counts what is stored
    Py_ssize_t y
    Py_ssize_t[16] at


cdef inline Py_ssize_t stride_of(const Operand *o, int d) noexcept nogil:
    return o.layout.stride[d] if o.layout != NULL else 1 if o.count > 1 else 0


cdef inline void start_rows(Rows *r, ArrayOp *q, Py_ssize_t n) noexcept nogil:
    memset(r, 0, sizeof(Rows))
    r.l = q.x.layout if q.x.layout != NULL else q.y.layout
    r.outer = r.l.ndim - 1 if r.l != NULL else 0
    r.n = r.l.shape[r.outer] if r.l != NULL else n
    r.sx = stride_of(&q.x, r.outer)
    r.sy = stride_of(&q.y, r.outer)


cdef inline bint next_row(Rows *r, ArrayOp *q) noexcept nogil:
    cdef int d = r.outer - 1
    while d >= 0:
        r.at[d] += 1
        r.x += stride_of(&q.x, d)
        r.y += stride_of(&q.y, d)
        if r.at[d] < r.l.shape[d]:
            return True
        r.x -= stride_of(&q.x, d) * r.l.shape[d]
        r.y -= stride_of(&q.y, d) * r.l.shape[d]
        r.at[d] = 0
        d -= 1
    return False


cdef inline const double *stored_values(const Operand *o) noexcept nogil:
    """The numbers that a layout counts; not of an INDEX."""
    return o.value if o.kind == CONSTANT else tape.value + o.start


cdef inline bint in_rows(const Operand *o) noexcept nogil:
    """Whether its numbers have addresses that can be computed."""
    return o.kind != INDEX and o.kind != SPARSE


# --- gradients of array leaves: touched rows, factored gradients ----------------------------------
#
# A row that is not in `touched` has gradient exactly 0.0 in memory, so that reset and SGD pass over it.  Every writer
# enters its row first.  `factored >= 0`: nothing is touched, and the gradient is f_x (at rows f_row) times f_g; this is
# what one Linear leaves in its weights, so that an SGD step reads and writes each weight once.  Code that wants to see
# such a gradient, or add to it, calls `materialise` first.

cdef inline void enter_row(ArrayOp *q, int row) noexcept nogil:
    if not q.touched[row]:
        q.touched[row] = 1
        q.touched_rows[q.n_touched] = row
        q.n_touched += 1


cdef inline void materialise(ArrayOp *q) noexcept nogil:
    cdef int k, count = q.factored
    if count < 0:
        return
    q.factored = -1
    for k in range(count):
        enter_row(q, q.f_row[k])
    kernels.add_outer(tape.grad + q.start, q.f_row, q.f_x, count, q.f_g, q.cols)


cdef inline void reset_leaf(ArrayOp *q) noexcept nogil:
    """Gradient zero everywhere."""
    cdef int k
    q.factored = -1
    for k in range(q.n_touched):
        q.touched[q.touched_rows[k]] = 0
        memset(tape.grad + q.start + <Py_ssize_t>q.touched_rows[k] * q.cols, 0, q.cols * sizeof(double))
    q.n_touched = 0


cdef inline void zero_leaf(ArrayOp *q) noexcept nogil:
    """The same for users.  A signal handler may ask for it during a sweep, which goes on writing to rows it entered."""
    cdef int k
    if not tape.sweeping:
        reset_leaf(q)
        return
    q.factored = -1
    for k in range(q.n_touched):
        memset(tape.grad + q.start + <Py_ssize_t>q.touched_rows[k] * q.cols, 0, q.cols * sizeof(double))


cdef inline void read_gradient(int i) noexcept nogil:
    if tape.record[i].op == ARRAY_OP:
        materialise(tape.array_ops[tape.record[i].a])


cdef inline void write_gradient(int i) noexcept nogil:
    """Before grad[i] is written outside a backward pass."""
    cdef ArrayOp *q
    if tape.record[i].op == ARRAY_OP:
        q = tape.array_ops[tape.record[i].a]
        if q.op == A_LEAF:
            materialise(q)
            enter_row(q, tape.record[i].b // q.cols)


# --- scratch memory of the kernels ----------------------------------------------------------------
#
# What its backward step needs is reserved when an instruction is emitted: it never shrinks,
# so that nothing can fail in the middle of a backward pass.

cdef inline int reserve_work(size_t doubles, size_t ints, str what) except -1:
    if doubles > tape.work_size:
        enlarge(<void **>&tape.work, doubles, sizeof(double), what)
        tape.work_size = doubles
    if ints > tape.work_int_size:
        enlarge(<void **>&tape.work_int, ints, sizeof(int), what)
        tape.work_int_size = ints
    return 0
