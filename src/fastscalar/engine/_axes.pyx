# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Array operations along axes, products of arrays, and elements put together anew; each one instruction on the tape.

The boundary: axes and labels come checked from `fastscalar.arrays`, which says what NumPy calls them.  An operand is
read where it lies, in the order of loops that the instruction needs (`_operands.lay_out`), and never copied.
"""

from cpython.buffer cimport Py_buffer, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree

from fastscalar._core cimport *
from fastscalar.engine.memory cimport allocate, out_of_memory
from fastscalar.engine.array_ops cimport free_array_op, node_of
from fastscalar.engine._array cimport MAX_DIMS, TensorArray, element_count, is_contiguous, list_nodes, view_of
from fastscalar.engine._array_ops cimport begin, compute_array_op, emit_affine, end_array, end_scalar, leaf_array
from fastscalar.engine._traced cimport TracedInt
from fastscalar.engine._operands cimport Source, check_terms, lay_out, own_strides, source

import numpy as np

cdef dict REDUCTIONS = {"sum": A_SUM, "prod": A_PROD, "max": A_BEST, "min": A_BEST, "argmax": A_BEST, "argmin": A_BEST}
cdef dict BEST = {"max": BEST_MAX, "min": BEST_MIN, "argmax": BEST_ARGMAX, "argmin": BEST_ARGMIN}


def places(found):
    """What argmax or argmin gave in a recording, as whole numbers that the program computes."""
    if type(found) is Tensor:
        return TracedInt(<long>tape.value[(<Tensor>found).index], found, -1)
    out = np.empty(found.shape, dtype=object)
    out.ravel()[:] = [places(t) for t in found.flat]
    return out


cdef int room_for_labels(ArrayOp *q, str what) except -1:
    """Which of its elements each output is; frees the instruction if there is none."""
    q.labels = <int *>allocate(q.count * sizeof(int))
    if q.labels == NULL:
        free_array_op(q)
        out_of_memory(what, q.count)
    return 0


def along(str what, TensorArray x not None, tuple axes, bint keepdims=False):
    """sum, prod, max, min, argmax or argmin of the elements along some axes, in order; not of nothing.

    A TensorArray of the other axes, with `keepdims` of all of them; a Tensor if there are none."""
    cdef Source s = source(x, what)
    cdef Py_ssize_t[LAYOUT_DIMS] shape
    cdef Py_ssize_t[LAYOUT_DIMS] stride
    cdef Py_ssize_t[MAX_DIMS] out
    cdef Py_ssize_t count = 1, inner = 1
    cdef int d, kept = 0, n = 0, ndim = 0, op = REDUCTIONS[what]
    cdef Tensor t
    cdef TensorArray array
    cdef ArrayOp *q
    for d in range(x.ndim):
        if d in axes:
            inner *= x.shape_[d]
            if keepdims:
                out[ndim] = 1
                ndim += 1
            continue
        shape[kept], stride[kept] = x.shape_[d], x.strides_[d]
        kept += 1
        out[ndim] = x.shape_[d]
        ndim += 1
        count *= x.shape_[d]
    n = kept
    for d in range(x.ndim):
        if d in axes:
            shape[n], stride[n] = x.shape_[d], x.strides_[d]
            n += 1
    lay_out(s, None, n, kept, shape, stride, NULL)
    safepoint(count)
    t = Tensor.__new__(Tensor)
    array = TensorArray.__new__(TensorArray)
    q = begin(op, count, s, None, None, what)
    q.inner = <int>inner
    if op == A_BEST:
        q.code = BEST[what]
        room_for_labels(q, what)
    compute_array_op(q, tape.value + tape.n)
    return end_scalar(q, t) if ndim == 0 else end_array(q, array, ndim, out)


def cumulative_sum(TensorArray x not None, int axis):
    """x[0], x[0] + x[1], ... along an axis; a TensorArray of the shape of x.  Not of nothing."""
    cdef Source s = source(x, "cumsum")
    cdef Py_ssize_t[LAYOUT_DIMS] shape
    cdef Py_ssize_t[LAYOUT_DIMS] stride
    cdef Py_ssize_t[MAX_DIMS] strides
    cdef int d, n = 0, k
    cdef TensorArray array
    cdef ArrayOp *q
    for d in range(x.ndim):
        if d != axis:
            shape[n], stride[n] = x.shape_[d], x.strides_[d]
            n += 1
    shape[n], stride[n] = x.shape_[axis], x.strides_[axis]
    lay_out(s, None, x.ndim, n, shape, stride, NULL)
    safepoint(s.count)
    array = TensorArray.__new__(TensorArray)
    q = begin(A_CUMSUM, s.count, s, None, None, "cumsum")
    q.inner = <int>x.shape_[axis]
    compute_array_op(q, tape.value + tape.n)
    array = end_array(q, array, x.ndim, <Py_ssize_t *>shape)
    for d in range(x.ndim):                      # the axis lies last
        k = n if d == axis else d if d < axis else d - 1
        strides[d] = array.strides_[k]
    return view_of(array, 0, x.ndim, x.shape_, strides)


def contract(x, y, tuple in_x, tuple in_y, tuple out, str what):
    """The sum over all labels that are not in `out` of x[in_x] * y[in_y]: products, and Einstein's sums of two.

    A TensorArray, or a Tensor if `out` has no label; a label twice in one operand is its diagonal.  Terms are added in
    the order of the labels, those of x first.  ValueError if a label has two lengths.  Not of nothing."""
    cdef Source sx = source(x, what), sy = source(y, what)
    cdef dict length = {}
    cdef list order = list(out)
    cdef Py_ssize_t[LAYOUT_DIMS] of_x
    cdef Py_ssize_t[LAYOUT_DIMS] of_y
    cdef Py_ssize_t[LAYOUT_DIMS] shape
    cdef Py_ssize_t[LAYOUT_DIMS] xs
    cdef Py_ssize_t[LAYOUT_DIMS] ys
    cdef Py_ssize_t count = 1, inner = 1
    cdef int d, k, kept = <int>len(out)
    cdef Tensor t
    cdef TensorArray array
    cdef ArrayOp *q
    if sx.ndim != len(in_x) or sy.ndim != len(in_y):
        raise ValueError(f"{what}: expected {len(in_x)} and {len(in_y)} dimensions, got {sx.ndim} and {sy.ndim}")
    for s, labels in ((sx, in_x), (sy, in_y)):
        for d, label in enumerate(labels):
            if length.setdefault(label, (<Source>s).shape[d]) != (<Source>s).shape[d]:
                raise ValueError(f"{what}: shapes {shape_tuple(sx)} and {shape_tuple(sy)} do not go together: "
                                 f"{length[label]} and {(<Source>s).shape[d]} elements of one index")
            if label not in order:
                order.append(label)
    if len(order) > LAYOUT_DIMS or kept > MAX_DIMS:
        raise ValueError(f"{what}: too many dimensions")
    own_strides(sx, of_x)
    own_strides(sy, of_y)
    for k, label in enumerate(order):
        shape[k] = length[label]
        xs[k] = ys[k] = 0
        for d in range(sx.ndim):
            xs[k] += of_x[d] if in_x[d] == label else 0
        for d in range(sy.ndim):
            ys[k] += of_y[d] if in_y[d] == label else 0
        if k < kept:
            count *= shape[k]
        else:
            inner *= shape[k]
    if count > tape.max_nodes:
        raise MemoryError(f"{what}: the result has {count:,} nodes")
    check_terms(inner, what)
    if is_affine(sx, sy, in_x, in_y, out):
        return emit_affine(sx, sy, None, what)
    if inner == 1 and count == 1 or inner > 1:
        lay_out(sx, sy, <int>len(order), kept, shape, xs, ys)
    else:
        lay_out(sx, sy, kept, kept, shape, xs, ys)
    safepoint(count)
    t = Tensor.__new__(Tensor)
    array = TensorArray.__new__(TensorArray)
    if inner == 1:
        q = begin(A_MAP2, count, sx, sy, None, what)
        q.code = MUL
    else:
        q = begin(A_DOT, count, sx, sy, None, what)
        q.inner = <int>inner
    compute_array_op(q, tape.value + tape.n)
    return end_scalar(q, t) if kept == 0 else end_array(q, array, kept, shape)


cdef tuple shape_tuple(Source s):
    return tuple([s.shape[d] for d in range(s.ndim)])


cdef bint is_affine(Source x, Source y, tuple in_x, tuple in_y, tuple out) except -1:
    """Whether this is x @ y with y as the kernels of Linear read their weights."""
    if len(in_y) != 2 or len(in_x) > 2 or not in_x or in_y[0] == in_y[1]:
        return False
    if in_x[len(in_x) - 1] != in_y[0] or out != in_x[:len(in_x) - 1] + in_y[1:] or in_y[1] in in_x:
        return False
    if len(in_x) == 2 and in_x[0] == in_x[1]:
        return False
    return (y.array is None or is_contiguous(y.array)) and (x.array is None or is_contiguous(x.array))


def assemble(list parts not None, order, bint through=False):
    """An array of elements of some arrays: `order` has for each one its place among the elements of all parts.

    parts: what stands for numbers or Tensors, one after the other in row-major order; numbers become nodes.
    order: whole numbers, in the shape of the result; of a single one the element itself is the result.  IndexError for
    one that is no place.
    through: the first part is a copy that is about to be forgotten, its elements stand for those it was made of."""
    cdef Source s
    cdef list sources = []
    cdef Py_ssize_t total = 0, n, k
    cdef Py_ssize_t[MAX_DIMS] shape
    cdef int d, ndim
    cdef Py_buffer view
    cdef TensorArray some = None
    cdef const long long *places
    order = np.asarray(order, dtype=np.int64, order="C")
    if order.ndim > MAX_DIMS:
        raise ValueError(f"at most {MAX_DIMS} dimensions, got {order.ndim}")
    for part in parts:
        if type(part) is TensorArray:
            some = part
            if element_count(part) == 0:
                continue
        elif isinstance(part, np.ndarray) and part.size == 0:
            continue
        s = source(part, "an array")
        if s.number != NULL:
            s = source(leaf_array(s, "an array"), "an array")
        sources.append(s)
        total += s.count
    if order.size == 0:
        return (some if some is not None else leaf_array(source(0.0, "an array"), "an array"))._nothing(order.shape)
    n, ndim = order.size, order.ndim
    for d in range(ndim):
        shape[d] = order.shape[d]
    order = order.ravel()
    PyObject_GetBuffer(order, &view, PyBUF_STRIDES)
    try:
        places = <const long long *>view.buf
        for k in range(n):
            if not 0 <= places[k] < total:
                raise IndexError(f"an array: no element {places[k]} among {total}")
        if ndim == 0:
            return element(sources, places[0])
        return pick(sources, total, places, n, ndim, shape, through)
    finally:
        PyBuffer_Release(&view)


cdef TensorArray end_pick(ArrayOp *q, int *index, Py_ssize_t n, TensorArray array, int ndim, const Py_ssize_t *shape):
    """An A_PICK of n nodes, whose list it takes over."""
    q.x.kind, q.x.count, q.x.index = INDEX, <int>n, index
    q.inner = 1
    compute_array_op(q, tape.value + tape.n)
    return end_array(q, array, ndim, shape)


def where(condition not None, a, b):
    """a where the condition holds, else b: an ndarray of bool, and of its shape an array, or one Tensor or number.

    None if a or b has another shape."""
    cdef Source s
    cdef int *index
    cdef int *other
    cdef Py_ssize_t n = condition.size, k
    cdef Py_ssize_t[MAX_DIMS] shape
    cdef Py_buffer view
    cdef TensorArray array
    cdef ArrayOp *q
    cdef const char *holds
    cdef Source sa = nodes(a), sb = nodes(b)
    for s in (sa, sb):
        if s.count != 1 and shape_tuple(s) != condition.shape or s.count == 1 and s.ndim > condition.ndim:
            return None
    if n == 0 or condition.ndim > MAX_DIMS:
        return None
    for k, length in enumerate(condition.shape):
        shape[k] = length
    condition = np.ascontiguousarray(condition)
    PyObject_GetBuffer(condition, &view, PyBUF_STRIDES)
    holds = <const char *>view.buf
    try:
        safepoint(n)
        array = TensorArray.__new__(TensorArray)
        index, other = <int *>allocate(n * sizeof(int)), <int *>allocate(n * sizeof(int))
        if index == NULL or other == NULL:
            PyMem_RawFree(index)
            PyMem_RawFree(other)
            out_of_memory("where", n)
        try:
            q = begin(A_PICK, n, None, None, None, "where")
        except BaseException:
            PyMem_RawFree(index)
            PyMem_RawFree(other)
            raise
        list_sources(sa, index, n)
        list_sources(sb, other, n)
        for k in range(n):
            index[k] = index[k] if holds[k] else other[k]
        PyMem_RawFree(other)
    finally:
        PyBuffer_Release(&view)
    return end_pick(q, index, n, array, <int>condition.ndim, shape)


cdef Source nodes(x):
    """An operand of nodes: numbers become some."""
    cdef Source s = source(x, "where")
    return s if s.number == NULL else source(leaf_array(s, "where"), "where")


cdef void list_sources(Source s, int *out, Py_ssize_t n) noexcept:
    """The nodes of an operand, of a single one as often as asked for."""
    cdef Py_ssize_t k
    if s.array is not None:
        list_nodes(s.array, out)
    else:
        for k in range(s.count):
            out[k] = (<Tensor>s.tensors[k]).index
    if s.count == 1:
        for k in range(1, n):
            out[k] = out[0]


cdef Tensor element(list sources, Py_ssize_t place):
    cdef Source s
    for s in sources:
        if place < s.count:
            break
        place -= s.count
    if s.array is None:
        return s.tensors[place]
    return s.array[np.unravel_index(place, s.array.shape)]


cdef TensorArray pick(list sources, Py_ssize_t total, const long long *places, Py_ssize_t n, int ndim,
                      const Py_ssize_t *shape, bint through):
    cdef Source s
    cdef Py_ssize_t k = 0, d, start
    cdef int *table
    cdef int *index
    cdef TensorArray array
    cdef ArrayOp *q
    cdef int p
    safepoint(n)
    array = TensorArray.__new__(TensorArray)
    s = sources[0]
    if s.array is not None and len(sources) == 1 and is_contiguous(s.array) and not through:
        total = 0                                # no table is needed: of a data set it would be as long as that
    table = <int *>allocate((total + 1) * sizeof(int))
    index = <int *>allocate(n * sizeof(int))
    q = NULL
    if table != NULL and index != NULL:
        try:
            q = begin(A_PICK, n, None, None, None, "an array")
        except MemoryError:
            pass
    if q == NULL:
        PyMem_RawFree(table)
        PyMem_RawFree(index)
        out_of_memory("an array", total + n)
    start = tape.array_ops[s.array.slot].start + s.array.offset if total == 0 else 0
    for s in sources if total else ():
        if s.array is not None:
            list_nodes(s.array, table + k)
        else:
            for d in range(s.count):
                table[k + d] = (<Tensor>s.tensors[d]).index
        k += s.count
        if through:
            for d in range(k):
                if tape.record[table[d]].op == ARRAY_OP and tape.array_ops[tape.record[table[d]].a].op == A_PICK:
                    p = node_of(&tape.array_ops[tape.record[table[d]].a].x, tape.record[table[d]].b)
                    table[d] = p if p else table[d]
            through = False
    for k in range(n):
        index[k] = table[places[k]] if total else <int>(start + places[k])
    PyMem_RawFree(table)
    return end_pick(q, index, n, array, ndim, shape)
