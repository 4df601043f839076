# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False, auto_pickle=False
"""Arrays of nodes: how wide instructions are made, TensorArray, and the SGD step.

The boundary: `_core` keeps the tape, collects, and runs the backward step of every instruction; it does not know this
module.  Here objects become operands, forward values are computed, and a TensorArray is a handle of what results.
The safepoint rule of `_core` holds: convert first, then `safepoint`, then indices and pointers until `publish`.
"""

cimport cython
from cpython.buffer cimport Py_buffer, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport Py_GE, Py_LT, PyObject
from cpython.slice cimport PySlice_AdjustIndices, PySlice_Unpack
from libc.string cimport memcpy, memset

from fastscalar._core cimport *
from fastscalar.engine.memory cimport allocate, allocate_zeroed, out_of_memory, reallocate
from fastscalar.engine.array_ops cimport (affine_input, free_operand, free_wide, make_leaf, materialise, new_wide,
                                          operand_values, publish, reserve_work, value_of, whole_leaf, write_gradient,
                                          zero_leaf)
from fastscalar.engine.writes cimport moment_of_write, wrote

import numbers
import operator

import numpy as np

from fastscalar._core import NO_FREEZING, operations
from fastscalar.engine.views import ArrayView

cdef extern from "Python.h":
    object PySeqIter_New(object)
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
    void PyType_Modified(PyTypeObject *)

# Not where they are asked for: of the entries of a tuple written there Cython ignores that one raised (an interrupt).
cdef tuple REAL_NUMBERS = (numbers.Real, np.bool_)
cdef tuple SEQUENCES = (list, tuple, TensorArray, np.ndarray)
cdef tuple NOT_LISTS = (str, bytes, dict, set, np.ndarray)
cdef tuple NOT_ARRAY_LIKE = (np.ndarray, str, bytes)
cdef tuple OPERANDS = (TensorArray, Tensor, TracedInt, list, tuple, np.ndarray, ArrayView, *REAL_NUMBERS)
cdef tuple COMPARISONS = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)


cdef Tensor one_tensor(x, str what):
    """A Tensor as it is, of a number a constant."""
    cdef Source s
    if type(x) is Tensor:
        bound(x)
        return x
    s = Source.__new__(Source)
    s.tensors = []
    flatten(x, s, 0, what)
    return s.tensors[0]


def select(TracedBool condition not None, a, b):
    """a where the comparison holds, else b, without a decision: two numbers or Tensors, one Tensor."""
    cdef Source s
    cdef int *outcome
    cdef Tensor t
    cdef Wide *q
    if condition.recording is None:
        raise TypeError("where: expected a comparison of a program")
    bound(condition.left)
    right = condition.number if condition.right is None else condition.right
    s = Source.__new__(Source)                   # what `source` makes of the four, without asking what they are
    s.tensors = [condition.left, one_tensor(right, "where"), one_tensor(a, "where"), one_tensor(b, "where")]
    s.count = 4
    outcome = <int *>allocate(sizeof(int))
    if outcome == NULL:
        out_of_memory("where", 1)
    try:
        safepoint(1)
        t = Tensor.__new__(Tensor)
        q = begin(W_SELECT, 1, s, None, None, "where")
    except BaseException:
        PyMem_RawFree(outcome)
        raise
    q.code = condition.op
    q.labels = outcome
    q.rows = 1
    outcome[0] = condition.outcome
    T.value[T.n] = value_of(&q.x, 2 if condition.outcome else 3)
    return end_scalar(q, t)


cdef int out_of_range(TracedInt k, Py_ssize_t low, Py_ssize_t high) except -1:
    """The error may be caught: the program then holds only for rows that are out of range too."""
    cdef Recorder recording = recording_here()
    if recording is not None:
        recording.decided(Py_LT if k.value < low else Py_GE, k.tensor, None, low if k.value < low else high, True)
    return 0


def best_of(xs, int code):
    """max, min, argmax or argmin (a BestCode) of the elements, as an instruction: without a decision.

    The first of equals, or the first NaN.  A Tensor; the places are a whole number that the program computes."""
    cdef Source s = source(xs, best_name(code))
    cdef int *place = <int *>allocate(sizeof(int))
    cdef bint least = code == BEST_MIN or code == BEST_ARGMIN
    cdef Py_ssize_t k, best = 0
    cdef double v, held
    cdef Tensor t
    cdef Wide *q
    if place == NULL:
        out_of_memory(best_name(code), 1)
    try:
        safepoint(1)
        t = Tensor.__new__(Tensor)
        q = begin(W_BEST, 1, s, None, None, best_name(code))
    except BaseException:
        PyMem_RawFree(place)
        raise
    held = value_of(&q.x, 0)
    for k in range(1, s.count):
        v = value_of(&q.x, k)
        if held != held:
            break
        if not (held <= v if least else held >= v):
            held, best = v, k
    q.code = code
    q.labels = place
    q.rows = 1
    place[0] = <int>best
    T.value[T.n] = held if code <= BEST_MIN else <double>best
    end_scalar(q, t)
    return t if code <= BEST_MIN else TracedInt(best, t, -1)


cdef object gather(candidates, TracedInt index, Py_ssize_t at):
    """candidates[index], as an instruction that a replay can do for another index."""
    cdef Source s = source(candidates, "an index")
    cdef Source chooser = source([index.tensor], "an index") if index.argument < 0 else None
    cdef Py_ssize_t count = s.count // s.shape[0], k
    cdef int *where = <int *>allocate(sizeof(int))
    cdef TensorArray array
    cdef Tensor t
    cdef Wide *q
    if where == NULL:
        out_of_memory("an index", 1)
    try:
        safepoint(count)
        t = Tensor.__new__(Tensor)
        array = TensorArray.__new__(TensorArray)
        q = begin(W_GATHER, count, s, chooser, None, "an index")
    except BaseException:
        PyMem_RawFree(where)
        raise
    q.labels = where
    q.rows = 1
    q.argument = index.argument + 1
    where[0] = <int>at
    for k in range(count):
        T.value[T.n + k] = value_of(&q.x, at * count + k)
    if s.ndim == 1:
        return end_scalar(q, t)
    return end_array(q, array, s.ndim - 1, &s.shape[1])


# --- operands of wide instructions ----------------------------------------------------------------
#
# A Source is an operand before the safepoint: converted, and holding on to the objects that it came from.  After the
# safepoint `resolve` turns it into indices; it allocates, but runs no Python.

@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class Source:
    cdef TensorArray array      # one of: an array,
    cdef list tensors           # Tensors in row-major order,
    cdef double *number         # numbers in row-major order (owned),
    cdef int *column            # with `row`: only the non-zero ones (owned)
    cdef int *row
    cdef int ndim
    cdef Py_ssize_t[MAX_DIMS] shape
    cdef Py_ssize_t count

    def __dealloc__(self):
        PyMem_RawFree(self.number)
        PyMem_RawFree(self.column)
        PyMem_RawFree(self.row)


cdef int set_shape(Source s, shape, str what) except -1:
    cdef int d
    if len(shape) > MAX_DIMS:
        raise ValueError(f"{what}: at most {MAX_DIMS} dimensions, got {len(shape)}")
    s.ndim = <int>len(shape)
    s.count = 1
    for d in range(s.ndim):
        s.shape[d] = shape[d]
        s.count *= s.shape[d]
    if s.count == 0:
        raise ValueError(f"{what}: is empty (shape {tuple(shape)})")
    return 0


cdef list nested_shape(object x):
    """The shape of nested lists, read off the first elements."""
    cdef list shape = []
    while isinstance(x, SEQUENCES) and len(shape) <= MAX_DIMS:
        length = len(x)
        shape.append(length)
        if not length:
            break
        x = x[0]
    return shape


cdef int fill(object x, Source s, int level, Py_ssize_t *at, str what) except -1:
    """Write nested lists of numbers to s.number.  1 if there is a Tensor among them."""
    cdef double v = 0.0
    if level == s.ndim:
        if PyFloat_CheckExact(x):
            v = PyFloat_AS_DOUBLE(x)
        elif type(x) is Tensor or type(x) is TensorArray or type(x) is TracedInt:
            return 1
        elif isinstance(x, (list, tuple)):
            raise ValueError(f"{what}: the nested lists are ragged")
        elif not as_number(x, &v):
            raise TypeError(f"{what}: expected real numbers or Tensors, got {type(x).__name__}")
        s.number[at[0]] = v
        at[0] += 1
        return 0
    if type(x) is TensorArray or type(x) is Tensor:
        return 1
    if isinstance(x, np.ndarray):
        x = x.tolist()
    # a copy, and then its length: making it may run a destructor and so change the list, as a __float__ may later
    x = tuple(x) if isinstance(x, (list, tuple)) else ()
    if len(x) != s.shape[level]:
        raise ValueError(f"{what}: the nested lists are ragged")
    for e in x:
        if fill(e, s, level + 1, at, what):
            return 1
    return 0


cdef int flatten(object x, Source s, int level, str what) except -1:
    """Append nested lists of Tensors and numbers to s.tensors; the numbers become constants on the tape."""
    cdef double v = 0.0
    if level == s.ndim:
        if type(x) is Tensor:
            bound(x)
            s.tensors.append(x)
        elif type(x) is TracedInt:
            s.tensors.append((<TracedInt>x).tensor)
        elif as_number(x, &v):
            if T.n >= T.limit:
                safepoint(SLACK)
            s.tensors.append(result(CONST, 0, 0, v))
        elif isinstance(x, (list, tuple, TensorArray)):
            raise ValueError(f"{what}: the nested lists are ragged")
        else:
            raise TypeError(f"{what}: expected real numbers or Tensors, got {type(x).__name__}")
        return 0
    if isinstance(x, np.ndarray):
        x = x.tolist()
    x = tuple(x) if isinstance(x, (list, tuple, TensorArray)) else ()
    if len(x) != s.shape[level]:
        raise ValueError(f"{what}: the nested lists are ragged")
    for e in x:
        flatten(e, s, level + 1, what)
    return 0


cdef Source source(object x, str what):
    """Anything that stands for numbers or Tensors, as an operand."""
    cdef Source s = Source.__new__(Source)
    cdef double v = 0.0
    cdef Py_ssize_t at = 0
    cdef Py_buffer view
    if type(x) is TensorArray:
        s.array = x
        set_shape(s, s.array.shape, what)
        return s
    if type(x) is Tensor:
        bound(x)
        s.tensors = [x]
        s.count = 1
        return s
    if type(x) is TracedInt:
        return source((<TracedInt>x).tensor, what)
    if isinstance(x, ArrayView):
        x = np.asarray(x)
    if as_number(x, &v):
        s.number = <double *>allocate(sizeof(double))
        if s.number == NULL:
            out_of_memory(what, 1)
        s.number[0] = v
        s.count = 1
        return s
    x = array_like(x)
    if isinstance(x, np.ndarray) and x.dtype.kind in "fiub":
        set_shape(s, x.shape, what)
        s.number = <double *>allocate(s.count * sizeof(double))
        if s.number == NULL:
            out_of_memory(what, s.count)
        x = np.ascontiguousarray(x, dtype=np.float64)
        PyObject_GetBuffer(x, &view, PyBUF_STRIDES)
        memcpy(s.number, view.buf, s.count * sizeof(double))
        PyBuffer_Release(&view)
        return s
    if isinstance(x, np.ndarray) and x.dtype.kind == "O":
        x = x.tolist()
    elif not isinstance(x, (list, tuple)):
        if isinstance(x, NOT_LISTS) or not hasattr(type(x), "__iter__"):
            kind = f"an array of {x.dtype}" if isinstance(x, np.ndarray) else type(x).__name__
            raise TypeError(f"{what}: expected numbers, Tensors, a list of them or an array, got {kind}")
        x = list(x)
    set_shape(s, nested_shape(x), what)
    s.number = <double *>allocate(s.count * sizeof(double))
    if s.number == NULL:
        out_of_memory(what, s.count)
    if fill(x, s, 0, &at, what):
        PyMem_RawFree(s.number)
        s.number = NULL
        s.tensors = []
        flatten(x, s, 0, what)
    return s


cdef object array_like(x):
    """What says of itself that it is an array (of pandas, xarray, torch) as one of NumPy; everything else as it is."""
    if type(x) is list or isinstance(x, NOT_ARRAY_LIKE) or not hasattr(type(x), "__array__"):
        return x
    return np.asarray(x)


cdef bint same_shape(Source s, Source t) noexcept:
    cdef int d
    if s.ndim != t.ndim:
        return False
    for d in range(s.ndim):
        if s.shape[d] != t.shape[d]:
            return False
    return True


cdef tuple shape_of(Source s):
    return tuple([s.shape[d] for d in range(s.ndim)])


cdef Source sparse_source(object x, str what):
    """The input of a Linear: of numbers only the non-zero ones.  ValueError for arrays of whole numbers."""
    cdef Source s
    cdef Py_buffer view
    cdef Py_ssize_t rows, cols, stride
    if type(x) is TensorArray:
        return source(x, what)
    if isinstance(x, np.ndarray):
        if x.dtype.kind in "iub":
            raise ValueError(f"{what}: got an array of {x.dtype}; images need scaling to 0..1 first: X / 255; "
                             "other numbers, or pixels as they are: X.astype(float)")
        if x.ndim in (1, 2) and x.size and x.dtype.kind == "f":
            if x.dtype != np.float64 or not x.dtype.isnative or x.strides[x.ndim - 1] % 8 or not x.flags.aligned:
                x = x.astype(np.float64)
            s = Source.__new__(Source)
            PyObject_GetBuffer(x, &view, PyBUF_STRIDES)
            s.ndim = view.ndim
            rows = view.shape[0] if view.ndim == 2 else 1
            cols = view.shape[view.ndim - 1]
            s.shape[0] = view.shape[0]
            s.shape[1] = cols
            stride = view.strides[0] if view.ndim == 2 else 0
            try:
                compress_rows(s, <char *>view.buf, stride, view.strides[view.ndim - 1] // 8, rows, cols, what)
            finally:
                PyBuffer_Release(&view)
            return s
    s = source(x, what)
    if s.number != NULL and s.ndim in (1, 2):
        rows = s.shape[0] if s.ndim == 2 else 1
        cols = s.shape[s.ndim - 1]
        compress_rows(s, <char *>s.number, cols * 8, 1, rows, cols, what)
    return s


cdef int compress_rows(Source s, char *base, Py_ssize_t row_stride, Py_ssize_t stride, Py_ssize_t rows,
                       Py_ssize_t cols, str what) except -1:
    """Fill s with the non-zero entries of `rows` rows; s.number, if it is the source, is replaced."""
    cdef Py_ssize_t r, n = 0, room = 0
    cdef int *column = NULL
    cdef double *value = NULL
    cdef int *row
    cdef void *block
    cdef Py_ssize_t portion = max(<Py_ssize_t>1, PORTION // 16 // max(cols, <Py_ssize_t>1))
    reserve_work(cols, cols, what)
    row = <int *>allocate((rows + 1) * sizeof(int))
    if row == NULL or rows * cols > 0x7fffffff:
        PyMem_RawFree(row)
        out_of_memory(what, rows * cols)
    for r in range(rows):
        row[r] = <int>n
        if r % portion == portion - 1:
            try:
                PyErr_CheckSignals()
            except BaseException:
                PyMem_RawFree(column)
                PyMem_RawFree(value)
                PyMem_RawFree(row)
                raise
        if rows == 1:
            n = K.compress(T.work_int, T.work, <double *>base, stride, <int>cols)
            room = max(n, <Py_ssize_t>1)
            column = <int *>allocate(room * sizeof(int))
            value = <double *>allocate(room * sizeof(double))
            if column == NULL or value == NULL:
                break
            memcpy(column, T.work_int, n * sizeof(int))
            memcpy(value, T.work, n * sizeof(double))
        else:
            if n + cols > room:                  # `compress` may write all columns before it knows better
                room = max(2 * room, n + cols)
                block = reallocate(column, room * sizeof(int))
                if block != NULL:
                    column = <int *>block
                    block = reallocate(value, room * sizeof(double))
                if block == NULL:
                    break
                value = <double *>block
            n += K.compress(column + n, value + n, <double *>(base + r * row_stride), stride, <int>cols)
    else:
        row[rows] = <int>n
        if rows > 1 and room > n:                # giving back is best effort
            block = PyMem_RawRealloc(column, max(n, <Py_ssize_t>1) * sizeof(int))
            column = <int *>block if block != NULL else column
            block = PyMem_RawRealloc(value, max(n, <Py_ssize_t>1) * sizeof(double))
            value = <double *>block if block != NULL else value
        PyMem_RawFree(s.number)
        s.number = value
        s.column = column
        s.row = row
        s.count = n
        return 0
    PyMem_RawFree(column)
    PyMem_RawFree(value)
    PyMem_RawFree(row)
    out_of_memory(what, rows * cols)


cdef int resolve(Source s, Operand *o, str what) except -1:
    """After the safepoint: the operand in indices.  Takes the numbers out of the Source."""
    cdef Py_ssize_t k
    cdef TensorArray array
    o.count = <int>s.count
    if s.array is not None:
        array = s.array
        if is_contiguous(array):
            o.kind = RUN
            o.start = <int>(T.wide[array.slot].start + array.offset)
            return 0
    elif s.tensors is None:
        o.kind = SPARSE if s.row != NULL else CONSTANT
        o.value, o.index, o.row = s.number, s.column, s.row
        s.number = NULL
        s.column = s.row = NULL
        return 0
    o.index = <int *>allocate(max(s.count, <Py_ssize_t>1) * sizeof(int))
    if o.index == NULL:
        out_of_memory(what, s.count)
    o.kind = INDEX
    if s.array is not None:
        list_nodes(s.array, o.index)
    else:
        for k in range(s.count):
            o.index[k] = (<Tensor>s.tensors[k]).index
    return 0


# --- values of wide instructions ------------------------------------------------------------------

cdef void compute_wide(Wide *q, double *out) noexcept nogil:
    """What an instruction computes, from the operands' values as they are now."""
    cdef Py_ssize_t k
    cdef double total = 0.0
    if q.op == W_AFFINE:
        affine_forward(q, 0, q.rows, out)
    elif q.op == W_MAP1 and q.code == RELU and q.x.kind == RUN:
        K.relu(out, T.value + q.x.start, q.count)
    elif q.op == W_MAP1:
        for k in range(q.count):
            out[k] = row(q.code).f(value_of(&q.x, k))
    elif q.op == W_MAP2:
        for k in range(q.count):
            out[k] = row(q.code).f2(value_of(&q.x, k), value_of(&q.y, k))
    elif q.op == W_SUM:
        for k in range(q.x.count):
            total = total + value_of(&q.x, k)
        out[0] = total
    elif q.op == W_DOT:
        for k in range(q.x.count):
            total = total + value_of(&q.x, k) * value_of(&q.y, k)
        out[0] = total
    elif q.op == W_LOGSUMEXP:
        out[0] = softmax_forward(q, 0, q.x.count)
    elif q.op == W_SOFTMAX:
        softmax_forward(q, 0, q.count)
        memcpy(out, q.saved, q.count * sizeof(double))
    elif q.op == W_SQUARED or q.op == W_MSE:
        for k in range(max(q.rows, 1)):
            total = total + squared_forward(q, k)
        if q.op == W_MSE:
            out[0] = total / q.x.count
        else:
            out[0] = 0.5 * total / q.rows if q.rows else 0.5 * total
    elif q.op == W_XENT:
        for k in range(max(q.rows, 1)):
            total = total + xent_forward(q, k)
        out[0] = total / q.rows if q.rows else total


cdef double squared_forward(Wide *q, Py_ssize_t r) noexcept nogil:
    """The sum of one row's squared differences, which are saved."""
    cdef Py_ssize_t k
    cdef double total = 0.0, d
    for k in range(r * q.cols, (r + 1) * q.cols):
        d = q.saved[k] = value_of(&q.x, k) - value_of(&q.y, k)
        total = total + d * d
    return total


# --- emitting wide instructions -------------------------------------------------------------------
#
# begin: after the safepoint, everything that can fail.  Then the values are computed into value[n:n + count].
# end: publish, and drop the operands if this thread does not record.

cdef Wide *begin(int op, Py_ssize_t count, Source x, Source y, Source z, str what) except NULL:
    cdef Wide *q = new_wide(op, <int>count)
    try:
        if x is not None:
            resolve(x, &q.x, what)
        if y is not None:
            resolve(y, &q.y, what)
        if z is not None:
            resolve(z, &q.z, what)
        if T.quiet and not recording():
            make_leaf(q, 1)
            q.op = op
    except BaseException:
        free_wide(q)
        raise
    return q


cdef void end(Wide *q) noexcept:
    forget(q)
    publish(q)


cdef void forget(Wide *q) noexcept:
    """Under no_grad, when its values are there, an instruction becomes an array of leaves."""
    if q.touched != NULL:                        # `begin` saw to that
        free_operand(&q.x)
        free_operand(&q.y)
        free_operand(&q.z)
        memset(&q.x, 0, 3 * sizeof(Operand))
        PyMem_RawFree(q.labels)
        PyMem_RawFree(q.saved)
        q.labels = NULL
        q.saved = NULL
        q.op = W_LEAF
        q.rows = 1
        q.cols = q.count


cdef TensorArray end_array(Wide *q, TensorArray array, int ndim, const Py_ssize_t *shape):
    end(q)
    return hold(q, array, ndim, shape)


cdef TensorArray hold(Wide *q, TensorArray array, int ndim, const Py_ssize_t *shape):
    cdef Py_ssize_t stride = 1
    cdef int d
    array.slot = q.slot
    array.offset = 0
    array.ndim = ndim
    for d in range(ndim - 1, -1, -1):
        array.shape_[d] = shape[d]
        array.strides_[d] = stride
        stride *= shape[d]
    q.arrays += 1
    return array


cdef Tensor end_scalar(Wide *q, Tensor t):
    end(q)
    t.index = q.start
    T.handle[q.start] = <void *>t
    q.handles = 1
    return t


cdef int save(Wide *q, str what) except -1:
    """Room for what the backward step of a loss needs of its forward step; frees the instruction if there is none."""
    q.saved = <double *>allocate(q.x.count * sizeof(double))
    if q.saved == NULL:
        free_wide(q)
        out_of_memory(what, 1)
    return 0


cdef TensorArray map1(int code, TensorArray x):
    """A unary row of the table for every element; follows IEEE 754."""
    cdef Source s
    cdef TensorArray array
    cdef Wide *q
    if element_count(x) == 0:
        return x
    s = source(x, op_name(code))
    safepoint(s.count)
    array = TensorArray.__new__(TensorArray)
    q = begin(W_MAP1, s.count, s, None, None, op_name(code))
    q.code = code
    compute_wide(q, T.value + T.n)
    return end_array(q, array, s.ndim, s.shape)


def elementwise(str name, left, right):
    """A binary row of the operation table by its name, for sequences and arrays of one shape and single numbers."""
    for code, row_name, arity, _ in operations():
        if row_name == name and arity == 2:
            return map2(code, left, right)
    raise ValueError(f"elementwise: no binary operation {name!r}")


cdef object map2(int code, object left, object right):
    """A binary row of the table, element by element; an operand of no dimensions goes with every element."""
    cdef Source x, y
    cdef TensorArray array
    cdef Wide *q
    cdef Source shape
    for other in (left, right):
        if not isinstance(other, OPERANDS):
            return NotImplemented
    for other in (left, right):
        if type(other) is TensorArray and element_count(other) == 0:
            return of_nothing(code, left, right)
    x = source(left, op_name(code))
    y = source(right, op_name(code))
    shape = y if x.ndim == 0 else x
    if x.ndim and y.ndim and not same_shape(x, y):
        raise ValueError(f"{op_name(code)}: shapes {shape_of(x)} and {shape_of(y)} differ (there is no broadcasting)")
    safepoint(shape.count)
    array = TensorArray.__new__(TensorArray)
    q = begin(W_MAP2, shape.count, x, y, None, op_name(code))
    q.code = code
    compute_wide(q, T.value + T.n)
    return end_array(q, array, shape.ndim, shape.shape)


cdef object of_nothing(int code, left, right):
    """An operation on an array without elements: that array again."""
    shapes = [x.shape if type(x) is TensorArray else np.shape(x) for x in (left, right) if type(x) is not Tensor]
    shapes = [shape for shape in shapes if shape != ()]
    if len(shapes) == 2 and shapes[0] != shapes[1]:
        raise ValueError(f"{op_name(code)}: shapes {shapes[0]} and {shapes[1]} differ (there is no broadcasting)")
    return left if type(left) is TensorArray else right


def total(x):
    """The sum of all elements of a sequence or an array, added in order from 0.0, a Tensor."""
    cdef Source s
    cdef Tensor t
    cdef Wide *q
    if type(x) is TensorArray and element_count(x) == 0:
        return Tensor(0.0)
    s = source(x, "sum")
    safepoint(1)
    t = Tensor.__new__(Tensor)
    q = begin(W_SUM, 1, s, None, None, "sum")
    compute_wide(q, T.value + T.n)
    return end_scalar(q, t)


def dot(x, y):
    """x[0] * y[0] + x[1] * y[1] + ..., added in this order from 0.0, a Tensor.

    x and y hold numbers or Tensors, at least one Tensor or array among them.  ValueError if the lengths differ.

    >>> import fastscalar as fs
    >>> fs.dot(fs.to_tensor([1.0, 2.0]), [3.0, 4.0])
    Tensor(data=11.0)
    """
    cdef Source sx = source(x, "dot"), sy = source(y, "dot")
    cdef Tensor t
    cdef Wide *q
    if sx.ndim != 1 or sy.ndim != 1 or sx.count != sy.count:
        raise ValueError(f"dot: expected two sequences of the same length, got {describe(sx)} and {describe(sy)}")
    safepoint(1)
    t = Tensor.__new__(Tensor)
    q = begin(W_DOT, 1, sx, sy, None, "dot")
    compute_wide(q, T.value + T.n)
    return end_scalar(q, t)


def logsumexp(x):
    """log(exp(x[0]) + exp(x[1]) + ...), a Tensor; does not overflow.

    inf if one of them is, with the derivative 1 shared by those that are; -inf if all are, with the derivatives 0.

    >>> import fastscalar as fs
    >>> fs.logsumexp(fs.to_tensor([1000.0, 1000.0]))
    Tensor(data=1000.6931471805599)
    """
    cdef Source s = source(x, "logsumexp")
    cdef Tensor t
    cdef Wide *q
    safepoint(1)
    t = Tensor.__new__(Tensor)
    q = begin(W_LOGSUMEXP, 1, s, None, None, "logsumexp")
    save(q, "logsumexp")
    compute_wide(q, T.value + T.n)
    return end_scalar(q, t)


def softmax(x):
    """exp(x[i]) / (exp(x[0]) + exp(x[1]) + ...), a TensorArray of the shape of x; does not overflow.

    Those that are inf share 1 equally; if all are -inf, each is 0.

    >>> import fastscalar as fs
    >>> fs.softmax(fs.to_tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    cdef Source s = source(x, "softmax")
    cdef TensorArray array
    cdef Wide *q
    if s.ndim != 1:
        raise ValueError(f"softmax: expected one dimension, got shape {shape_of(s)}")
    safepoint(s.count)
    array = TensorArray.__new__(TensorArray)
    q = begin(W_SOFTMAX, s.count, s, None, None, "softmax")
    save(q, "softmax")
    compute_wide(q, T.value + T.n)
    return end_array(q, array, 1, s.shape)


def affine(x, w, b):
    """x @ w + b for x of shape (in,) or (n, in), w (in, out), b (out,): a TensorArray of shape (out,) or (n, out).

    Output i starts at 0.0 + b[i]; x[j] * w[j][i] is added input by input.  Entries of x that are exactly zero are
    skipped: with an infinite or NaN weight, 0 * it counts as 0.  Numbers and NumPy arrays of floats are constants;
    Tensors get gradients.

    Raises ValueError if lengths do not fit or x is an array of whole numbers (X / 255, or X.astype(float)).
    """
    cdef Source sx = sparse_source(x, "Linear"), sw = source(w, "Linear: weights"), sb = source(b, "Linear: bias")
    cdef Py_ssize_t rows, inner, cols
    cdef TensorArray array
    cdef Wide *q
    cdef Wide *leaf
    if sw.ndim != 2 or sb.ndim != 1 or sb.shape[0] != sw.shape[1]:
        raise ValueError(f"Linear: weights of shape {shape_of(sw)} and bias of shape {shape_of(sb)} do not go together")
    inner, cols = sw.shape[0], sw.shape[1]
    if sx.ndim not in (1, 2) or sx.shape[sx.ndim - 1] != inner:
        raise ValueError(f"Linear({inner}, {cols}): expected {inner} inputs, got shape {shape_of(sx)}")
    rows = sx.shape[0] if sx.ndim == 2 else 1
    if rows * cols > 0x7fffffff:
        raise MemoryError(f"Linear({inner}, {cols}): {rows} samples at once need {rows * cols:,} nodes")
    safepoint(rows * cols)
    array = TensorArray.__new__(TensorArray)
    q = begin(W_AFFINE, rows * cols, sx, sw, sb, "Linear")
    try:
        reserve_work(3 * inner + cols + inner * cols * (q.y.kind != RUN), inner, "Linear")
        leaf = whole_leaf(&q.y, cols)
        if leaf != NULL and leaf.f_row == NULL and q.touched == NULL:
            leaf.f_row = <int *>allocate(inner * sizeof(int))
            leaf.f_x = <double *>allocate(inner * sizeof(double))
            leaf.f_g = <double *>allocate(cols * sizeof(double))
            if leaf.f_row == NULL or leaf.f_x == NULL or leaf.f_g == NULL:
                PyMem_RawFree(leaf.f_row)
                PyMem_RawFree(leaf.f_x)
                PyMem_RawFree(leaf.f_g)
                leaf.f_row = NULL
                leaf.f_x = leaf.f_g = NULL
                out_of_memory("Linear", inner + cols)
    except BaseException:
        free_wide(q)
        raise
    q.rows, q.cols, q.inner = <int>rows, <int>cols, <int>inner
    if sx.ndim == 1:
        affine_forward(q, 0, 1, T.value + T.n)
        return end_array(q, array, 1, &sw.shape[1])
    sx.shape[1] = cols
    if rows <= PORTION // (inner * cols):
        affine_forward(q, 0, <int>rows, T.value + T.n)
        return end_array(q, array, 2, sx.shape)
    publish(q)
    hold(q, array, 2, sx.shape)
    large_affine_forward(q)
    return array


cdef int large_affine_forward(Wide *q) except -1:
    """Some seconds of work, which Ctrl-C can stop: the instruction is published, so that a handler may use the tape."""
    cdef int r = 0, portion = <int>max(<Py_ssize_t>1, PORTION // (q.inner * <Py_ssize_t>q.cols))
    lock_nodes()
    try:
        while r < q.rows:
            PyErr_CheckSignals()
            affine_forward(q, r, min(q.rows, r + portion), T.value + q.start)
            r += portion
    finally:
        unlock_nodes()
    if q.touched != NULL:
        forget(q)
        T.young_bytes -= q.bytes
        q.bytes = 0
    return 0


cdef void affine_forward(Wide *q, int first, int stop, double *out) noexcept nogil:
    """Rows first..stop - 1 of a Linear whose outputs begin at `out`."""
    cdef const double *w = operand_values(&q.y, T.work + 3 * q.inner + q.cols)
    cdef const double *b = operand_values(&q.z, T.work + 3 * q.inner)
    cdef int r, nnz
    cdef int *row
    cdef double *x
    for r in range(first, stop):
        nnz = affine_input(q, r, &row, &x)
        K.affine(out + <Py_ssize_t>r * q.cols, b, w, q.cols, row, x, nnz)


def squared_loss(y_hat, y):
    """Half the sum of (y_hat[i] - y[i])**2, a Tensor; its gradient by y_hat is y_hat - y.

    Of two dimensions the mean over the rows of that.  y holds numbers or Tensors; a y of shape (n,) goes with a y_hat
    of shape (n, 1).  `mse_loss` is the mean of the squares, without the half.
    Raises ValueError if the lengths differ.

    >>> import fastscalar as fs
    >>> fs.squared_loss(fs.to_tensor([1.0, 2.0]), [0.0, 4.0])
    Tensor(data=2.5)
    """
    return of_differences(W_SQUARED, y_hat, y, "squared_loss")


def mse_loss(y_hat, y):
    """The mean of (y_hat[i] - y[i])**2, a Tensor: the mean squared error, over all outputs and rows.

    y holds numbers or Tensors; a y of shape (n,) goes with a y_hat of shape (n, 1).
    Raises ValueError if the lengths differ.

    >>> import fastscalar as fs
    >>> fs.mse_loss(fs.to_tensor([1.0, 2.0]), [0.0, 4.0])
    Tensor(data=2.5)
    """
    return of_differences(W_MSE, y_hat, y, "mse_loss")


cdef Tensor of_differences(int op, object y_hat, object y, str what):
    cdef Source sx = source(y_hat, what), sy = source(y, what)
    cdef Py_ssize_t rows, cols
    cdef Tensor t
    cdef Wide *q
    if sx.ndim > 2 or sx.count != sy.count or not (
            same_shape(sx, sy) or sx.ndim + sy.ndim == 1 or (sx.ndim == 2 and sx.shape[1] == 1 and sy.ndim == 1)):
        advice = which_are_meant(sx, sy, what)
        raise ValueError(f"{what}: {describe(sx)} predictions but {describe(sy)} targets{advice}")
    rows = sx.shape[0] if sx.ndim == 2 else 1
    cols = sx.count // rows
    safepoint(1)
    t = Tensor.__new__(Tensor)
    q = begin(op, 1, sx, sy, None, what)
    save(q, what)
    q.rows = <int>rows if sx.ndim == 2 else 0
    q.cols = <int>cols
    compute_wide(q, T.value + T.n)
    return end_scalar(q, t)


cdef str which_are_meant(Source sx, Source sy, str what):
    """What to write instead, where only the first predictions have a target."""
    cdef Py_ssize_t n = 0
    if sx.ndim == 1 and sy.ndim < 2:
        n = sy.count
    elif sx.ndim == 2 and 0 < sy.ndim < 3 and sx.shape[0] == sy.shape[0]:
        n = sy.shape[1] if sy.ndim == 2 else 1
    if not 0 < n < sx.shape[sx.ndim - 1]:
        return ""
    return f"; if only the first {'is' if n == 1 else 'ones are'} meant: {what}(y_hat[{':, ' * (sx.ndim == 2)}:{n}], y)"


cdef str describe(Source s):
    return "1" if s.ndim == 0 else str(s.shape[0]) if s.ndim == 1 else f"{shape_of(s)}"


cdef object as_index(x):
    """Labels of several rows at once: in a program they are decisions."""
    if programs and type(x) is Tensor:
        read_number(x, "a label")
    return operator.index(x) if type(x) is TracedInt else x


cdef int label_number(object label, Py_ssize_t classes) except -1:
    cdef double v = 0.0
    if type(label) is TracedInt:
        v = (<TracedInt>label).value
    elif type(label) is Tensor:
        v = T.value[(<Tensor>label).index]
    elif not as_number(label, &v):
        raise TypeError(f"cross_entropy: expected a label (a whole number), got {type(label).__name__}")
    if not 0.0 <= v < classes or v != <int>v:
        if type(label) is TracedInt:
            out_of_range(label, 0, classes)
        raise ValueError(f"cross_entropy: expected a label in 0..{classes - 1}, got {label!r}")
    return <int>v


def cross_entropy(logits, label):
    """-log(softmax(logits)[label]), a Tensor; for logits of shape (n, C) and labels (n,) the mean over the rows.

    Labels are whole numbers from 0 to C - 1, or Tensors of such; they get no gradient.  Follows IEEE 754.
    Raises ValueError for a label out of range or a number of labels that does not fit.

    >>> import fastscalar as fs
    >>> fs.cross_entropy(fs.to_tensor([0.0, 0.0]), 1)
    Tensor(data=0.6931471805599453)
    """
    cdef Source s = source(logits, "cross_entropy")
    cdef Py_ssize_t rows = 1, classes, r
    cdef int one = 0, argument = 0
    cdef int *labels
    cdef Tensor t
    cdef Wide *q
    if s.ndim not in (1, 2):
        raise ValueError(f"cross_entropy: expected logits of shape (C,) or (n, C), got {shape_of(s)}")
    classes = s.shape[s.ndim - 1]
    if s.ndim == 2:
        rows = s.shape[0]
        label = label.tolist() if isinstance(label, np.ndarray) else list(label)
        if len(label) != rows:
            raise ValueError(f"cross_entropy: {rows} rows of logits but {len(label)} labels")
    else:
        if isinstance(label, TensorArray) and len(label) == 1:
            label = label[0]
        one = label_number(label, classes)
        if type(label) is TracedInt and (<TracedInt>label).argument < 0:     # computed, and no decision either
            return logsumexp(logits) - gather(logits, label, one)
        if type(label) is TracedInt:
            argument = (<TracedInt>label).argument + 1
        elif programs and type(label) is Tensor:
            read_number(label, "a label")
    labels = <int *>allocate(rows * sizeof(int))
    if labels == NULL:
        out_of_memory("cross_entropy", rows)
    try:
        for r in range(rows):
            labels[r] = label_number(as_index(label[r]), classes) if s.ndim == 2 else one
        safepoint(1)
        t = Tensor.__new__(Tensor)
        q = begin(W_XENT, 1, s, None, None, "cross_entropy")
        save(q, "cross_entropy")
    except BaseException:
        PyMem_RawFree(labels)
        raise
    q.labels = labels
    q.argument = argument
    q.rows = <int>rows if s.ndim == 2 else 0
    q.cols = <int>classes
    compute_wide(q, T.value + T.n)
    return end_scalar(q, t)


cdef double xent_forward(Wide *q, Py_ssize_t r) noexcept nogil:
    """The loss of one row; the softmax of its logits is saved."""
    cdef Py_ssize_t first = r * q.cols
    return softmax_forward(q, first, q.cols) - value_of(&q.x, first + q.labels[r])


cdef double softmax_forward(Wide *q, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """log(sum(exp(x))) of a row of x; its softmax is saved."""
    cdef Py_ssize_t k
    cdef double *p = q.saved + first
    for k in range(count):
        p[k] = value_of(&q.x, first + k)
    return softmax_in_place(p, count)


cdef TensorArray leaf_array(Source s, str what):
    """A new array of leaves with the numbers of a Source."""
    cdef TensorArray array
    cdef Wide *q
    cdef Py_ssize_t rows = s.shape[0] if s.ndim > 1 else 1
    if s.count > T.max_nodes:
        raise MemoryError(f"the tape holds at most {T.max_nodes:,} nodes: {s.count:,} asked for")
    safepoint(s.count)
    array = TensorArray.__new__(TensorArray)
    q = new_wide(W_LEAF, <int>s.count)
    try:
        make_leaf(q, <int>rows)
    except BaseException:
        free_wide(q)
        raise
    memcpy(T.value + T.n, s.number, s.count * sizeof(double))
    return end_leaf(q, array, s)


cdef TensorArray end_leaf(Wide *q, TensorArray array, Source s):
    cdef unsigned char *touched = q.touched
    cdef TensorArray a
    q.touched = NULL                             # `end` would take it for a result under no_grad
    a = end_array(q, array, s.ndim, s.shape)
    q.touched = touched
    return a


def to_tensor(data):
    """Numbers become leaves: a number a Tensor, nested lists or an array a TensorArray of the same shape.

    Anything that has `__array__`, such as a DataFrame, is an array.  Tensors stay what they are; a list with Tensors in
    it stays a list.
    Raises ValueError for ragged or empty lists, TypeError for anything that is not a number.

    >>> import fastscalar as fs
    >>> fs.to_tensor([[1, 2, 3], [4, 5, 6]]).shape
    (2, 3)
    >>> fs.to_tensor(2)
    Tensor(data=2.0)
    """
    cdef Source s
    cdef double v = 0.0
    if isinstance(data, (Tensor, TensorArray)):
        return data
    if as_number(data, &v) or (isinstance(data, np.ndarray) and data.ndim == 0):
        return Tensor(data if not isinstance(data, np.ndarray) else data.item())
    if type(data) is TracedInt:
        return (<TracedInt>data).tensor
    if hasattr(type(data), "__next__"):
        data = list(data)                        # read twice if there are Tensors in it
    data = array_like(data)
    if isinstance(data, np.ndarray) and data.ndim == 0:
        return Tensor(data.item())
    s = source(data, "to_tensor")
    if s.number != NULL:
        return leaf_array(s, "to_tensor")
    if programs and not any_tensor(data):        # whole numbers of a program
        return map2(MUL, data, 1.0)
    return [to_tensor(x) for x in data]


cdef bint any_tensor(x) except -1:
    """In nested lists that `source` has taken: they are not deep, and not recursive."""
    if isinstance(x, (list, tuple)):
        for e in x:
            if any_tensor(e):
                return True
        return False
    return isinstance(x, (Tensor, TensorArray))


# --- TensorArray ----------------------------------------------------------------------------------

cdef enum:
    SHORT = 10              # elements of an array that prints as the list of Tensors that it reads like


cdef str as_tensors(object values):
    if type(values) is list:
        return "[" + ", ".join([as_tensors(v) for v in <list>values]) + "]"
    return f"Tensor(data={values!r})"


@cython.final
@cython.no_gc
@cython.freelist(256)
@cython.c_api_binop_methods(True)
cdef class TensorArray:
    """A run of nodes with a shape: a weight matrix, a layer's output.  Reads like a nested list of Tensors.

    `a[j]` is a row (a view of the same nodes) or, in one dimension, a Tensor.  Element-wise `+ - * /`, negation, `**`
    and the functions of the operation table take an equal shape or a single number or Tensor; they follow IEEE 754.
    Made by `to_tensor`, by layers and by arithmetic.  Up to ten elements print as the list of Tensors that they read
    like, more as shape and data.

    >>> import fastscalar as fs
    >>> a = fs.to_tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> a[0], fs.to_tensor([0.0] * 784)
    ([Tensor(data=1.0), Tensor(data=2.0)], TensorArray(shape=(784,), data=[0. 0. 0. ... 0. 0. 0.]))
    >>> s = (a * a).sum()
    >>> s.backward()
    >>> a.grad
    array([[2., 4.],
           [6., 8.]])
    >>> a[1][0]
    Tensor(data=3.0)
    """

    def __cinit__(self):
        self.slot = -1

    def __init__(self):
        raise TypeError("use fastscalar.to_tensor to make a TensorArray")

    def __dealloc__(self):
        if self.slot >= 0:
            T.wide[self.slot].arrays -= 1

    def __repr__(self):
        if 0 < self.size <= SHORT:
            return as_tensors(self.tolist())
        return f"TensorArray(shape={self.shape}, data={np.array2string(self.numpy(), threshold=20, prefix='    ')})"

    # --- shape, elements ---

    @property
    def shape(self):
        return tuple([self.shape_[d] for d in range(self.ndim)])

    @property
    def ndim(self):
        return self.ndim

    @property
    def size(self):
        return element_count(self)

    def __len__(self):
        return self.shape_[0]

    def __getitem__(self, key):
        cdef Py_ssize_t offset = self.offset, i, start, stop, step, at = 0
        cdef TracedInt traced = None
        cdef Py_ssize_t[MAX_DIMS] shape
        cdef Py_ssize_t[MAX_DIMS] strides
        cdef int d = 0, ndim = 0
        cdef tuple keys = key if isinstance(key, tuple) else (key,)
        if len(keys) > self.ndim:
            raise IndexError(f"TensorArray of shape {self.shape}: too many indices, {len(keys)}")
        for k in keys:
            if isinstance(k, slice):
                PySlice_Unpack(k, &start, &stop, &step)
                shape[ndim] = PySlice_AdjustIndices(self.shape_[d], &start, &stop, step)
                strides[ndim] = self.strides_[d] * step
                offset += start * self.strides_[d]
                ndim += 1
            elif type(k) is TracedInt and traced is None and programs and recording_here() is not None:
                traced = k
                at = traced.value
                if at < 0:
                    at += self.shape_[d]
                if not 0 <= at < self.shape_[d]:
                    out_of_range(traced, -self.shape_[d], self.shape_[d])
                    raise IndexError(f"TensorArray of shape {self.shape}: index {k.value} is out of range")
                for i in range(ndim, 0, -1):     # its dimension comes first among the candidates
                    shape[i] = shape[i - 1]
                    strides[i] = strides[i - 1]
                shape[0] = self.shape_[d]
                strides[0] = self.strides_[d]
                ndim += 1
            else:
                i = PyNumber_AsSsize_t(k, IndexError) if hasattr(type(k), "__index__") else bad_index(k)
                if i < 0:
                    i += self.shape_[d]
                if not 0 <= i < self.shape_[d]:
                    raise IndexError(f"TensorArray of shape {self.shape}: index {k} is out of range")
                offset += i * self.strides_[d]
            d += 1
        while d < self.ndim:
            shape[ndim] = self.shape_[d]
            strides[ndim] = self.strides_[d]
            d += 1
            ndim += 1
        if traced is not None:
            return gather(view_of(self, offset, ndim, shape, strides), traced, at)
        if ndim == 0:
            return handle_of(<int>(T.wide[self.slot].start + offset))
        return view_of(self, offset, ndim, shape, strides)

    def __iter__(self):
        return PySeqIter_New(self)

    def __setitem__(self, key, value):
        raise TypeError("elements of a TensorArray cannot be replaced; to change a number write array.data[i] = number")

    # --- operators: left or right is a TensorArray ---

    def __add__(left, right):
        return map2(ADD, left, right)

    def __sub__(left, right):
        return map2(SUB, left, right)

    def __mul__(left, right):
        return map2(MUL, left, right)

    def __truediv__(left, right):
        return map2(DIV, left, right)

    def __pow__(left, right, modulus):
        if modulus is not None:
            raise TypeError("pow() of TensorArrays takes no modulus")
        return map2(POW, left, right)

    def __mod__(left, right):
        return map2(MOD, left, right)

    def __floordiv__(left, right):
        return map2(FLOORDIV, left, right)

    def __neg__(self):
        return map1(NEG, self)

    def __abs__(self):
        return map1(ABS, self)

    def __pos__(self):
        return self

    __array_ufunc__ = None       # so that ndarray + TensorArray comes to us; a TensorArray is not an operand of ufuncs

    def sum(self, axis=None, dtype=None, out=None, **options):
        """The sum of all elements, added in order, a Tensor; 0.0 of nothing.

        The arguments are those that `np.sum` gives; anything but their defaults is a TypeError.
        """
        if axis is not None or dtype is not None or out is not None or options:
            raise TypeError("TensorArray.sum adds all elements and takes no axis, dtype, out or keepdims; of each row: "
                            "[fs.sum(row) for row in array]")
        return total(self)

    # --- comparisons, as of NumPy's arrays ---

    def __richcmp__(self, other, int op):
        """Element by element, by value: an ndarray of bool."""
        if type(other) is Tensor:
            other = other.data
        elif type(other) is TensorArray:
            other = (<TensorArray>other)._read("data")
        elif isinstance(other, ArrayView):
            other = np.asarray(other)
        return COMPARISONS[op](self._read("data"), other)

    def __hash__(self):
        return <Py_hash_t>(<size_t><void *>self >> 4)        # by identity, as that of a Tensor

    @property
    def requires_grad(self):
        """True: every array takes part in gradients."""
        return True

    @requires_grad.setter
    def requires_grad(self, value):
        if not value:
            raise AttributeError(NO_FREEZING)

    # --- values and gradients ---

    @property
    def data(self):
        """The values: a live view that behaves like a NumPy array.  Assigning writes all of them."""
        return ArrayView(self, "data")

    @data.setter
    def data(self, value):
        self._write("data", value)

    @property
    def grad(self):
        """The gradients: a live view, as `data`."""
        return ArrayView(self, "grad")

    @grad.setter
    def grad(self, value):
        self._write("grad", value)

    def numpy(self):
        """A copy of the values, a float64 array of the same shape."""
        return self._read("data")

    def tolist(self):
        """A copy of the values as nested lists of floats."""
        return self._read("data", "tolist()").tolist()

    def detach(self):
        """New leaves with these values."""
        if programs and recording_here() is not None:
            recording_here().stop_gradients()
            try:
                return map2(MUL, self, 1.0)
            finally:
                recording_here().resume_gradients()
        return leaf_array(source(self._read("data"), "detach"), "detach")

    def _read(self, str field, str how=".data"):
        """A copy of one field as an ndarray."""
        cdef bint gradients = field == "grad"
        if programs and not gradients and recording_here() is not None:
            for x in self if self.ndim == 1 else flatten_array(self):
                read_number(x, how)
        out = np.empty(self.shape)
        cdef Py_buffer view
        PyObject_GetBuffer(out, &view, PyBUF_STRIDES)
        if gradients:
            materialise(T.wide[self.slot])
        copy_out(self, T.grad if gradients else T.value, <double *>view.buf)
        PyBuffer_Release(&view)
        return out

    def _write(self, str field, value):
        """Set one field from anything that broadcasts to the shape."""
        forbid(f"writing .{field}")
        cdef bint gradients = field == "grad"
        cdef Py_buffer view
        if isinstance(value, ArrayView) and value._array is self and value._field == field:
            return
        if isinstance(value, (Tensor, TensorArray)):
            raise TypeError(f"TensorArray.{field}: expected numbers, got {type(value).__name__} (use its .data)")
        value = np.asarray(value)
        if value.dtype.kind not in "fiub":
            raise TypeError(f"TensorArray.{field}: expected real numbers, got an array of {value.dtype}")
        if value.shape != self.shape:
            try:
                value = np.broadcast_to(value, self.shape)
            except ValueError:
                raise ValueError(
                    f"TensorArray.{field}: a value of shape {value.shape} does not fit in {self.shape}") from None
        value = np.ascontiguousarray(value, dtype=np.float64)
        PyObject_GetBuffer(value, &view, PyBUF_STRIDES)
        try:
            if not gradients:
                wrote(T.wide[self.slot].start)
        except BaseException:
            PyBuffer_Release(&view)
            raise
        copy_in(self, gradients, <double *>view.buf)
        PyBuffer_Release(&view)

    def __reduce__(self):
        if T.wide[self.slot].op != W_LEAF:
            raise TypeError("only an array of leaves can be copied or pickled: use detach() for a computed one")
        gradient = self._read("grad")
        if not gradient.any():
            return to_tensor, (self._read("data"),)
        return to_tensor, (self._read("data"),), gradient

    def __setstate__(self, gradient):
        self._write("grad", gradient)


cdef list flatten_array(TensorArray a):
    cdef list out = []
    for row in a:
        out.extend(flatten_array(row) if a.ndim > 2 else row)
    return out


cdef TensorArray array_of(Wide *q):
    """A handle of all of an instruction's run, of one dimension."""
    cdef TensorArray array = TensorArray.__new__(TensorArray)
    cdef Py_ssize_t count = q.count
    return hold(q, array, 1, &count)


cdef int bad_index(k) except -1:
    raise TypeError(f"TensorArray indices are integers and slices, not {type(k).__name__}")


cdef Py_ssize_t element_count(TensorArray a) noexcept:
    cdef Py_ssize_t count = 1
    cdef int d
    for d in range(a.ndim):
        count *= a.shape_[d]
    return count


cdef bint is_contiguous(TensorArray a) noexcept:
    cdef Py_ssize_t stride = 1
    cdef int d
    for d in range(a.ndim - 1, -1, -1):
        if a.shape_[d] != 1 and a.strides_[d] != stride:
            return False
        stride *= a.shape_[d]
    return True


cdef TensorArray view_of(TensorArray a, Py_ssize_t offset, int ndim,
                         const Py_ssize_t *shape, const Py_ssize_t *strides):
    cdef TensorArray view = TensorArray.__new__(TensorArray)
    cdef int d
    view.ndim = ndim
    view.offset = offset
    for d in range(ndim):
        view.shape_[d] = shape[d]
        view.strides_[d] = strides[d]
    view.slot = a.slot
    T.wide[a.slot].arrays += 1
    return view


ctypedef struct Walk:           # over the elements of an array in row-major order
    Py_ssize_t[MAX_DIMS] at
    Py_ssize_t offset


cdef inline void step_walk(TensorArray a, Walk *w) noexcept:
    cdef int d = a.ndim - 1
    while d >= 0:
        w.at[d] += 1
        w.offset += a.strides_[d]
        if w.at[d] < a.shape_[d]:
            return
        w.offset -= a.strides_[d] * a.shape_[d]
        w.at[d] = 0
        d -= 1


cdef void start_walk(TensorArray a, Walk *w) noexcept:
    memset(w, 0, sizeof(Walk))
    w.offset = a.offset


cdef void list_nodes(TensorArray a, int *out) noexcept:
    cdef Walk w
    cdef Py_ssize_t k
    start_walk(a, &w)
    for k in range(element_count(a)):
        out[k] = <int>(T.wide[a.slot].start + w.offset)
        step_walk(a, &w)


cdef void copy_out(TensorArray a, const double *column, double *out) noexcept:
    cdef const double *first = column + T.wide[a.slot].start
    cdef Walk w
    cdef Py_ssize_t k
    if is_contiguous(a):
        memcpy(out, first + a.offset, element_count(a) * sizeof(double))
        return
    start_walk(a, &w)
    for k in range(element_count(a)):
        out[k] = first[w.offset]
        step_walk(a, &w)


cdef void copy_in(TensorArray a, bint gradients, const double *values) noexcept:
    cdef Wide *q = T.wide[a.slot]
    cdef double *first = (T.grad if gradients else T.value) + q.start
    cdef Walk w
    cdef Py_ssize_t k
    start_walk(a, &w)
    for k in range(element_count(a)):
        if gradients:
            write_gradient(<int>(q.start + w.offset))
        first[w.offset] = values[k]
        step_walk(a, &w)


# --- SGD ------------------------------------------------------------------------------------------

def sgd_step(parameters, double lr, bint step=True, bint reset=True):
    """data -= lr * grad (if `step`), then grad = 0.0 (if `reset`), for every Tensor in nested lists.

    Accepts Tensors, TensorArrays, and lists, tuples and dictionaries of these in any nesting; anything else is a
    TypeError, raised before anything has changed.
    """
    cdef list flat = []
    cdef Wide *q
    cdef int moment, i, op
    cdef bint writes = step and lr != 0.0
    forbid("a step of an optimiser")
    flatten_parameters(parameters, flat)
    moment = moment_of_write() if writes else 0
    for p in flat:
        if type(p) is TensorArray:
            q = T.wide[(<TensorArray>p).slot]
            if writes and (q.op != W_LEAF or q.n_touched or q.factored > 0):     # else every gradient is 0
                q.written = moment
            step_array(p, lr, step, reset)
            continue
        i = (<Tensor>p).index
        op = T.record[i].op
        if op == WIDE:
            q = T.wide[T.record[i].a]
            materialise(q)
            if writes and T.grad[i] != 0.0:
                q.written = moment
        elif writes and T.grad[i] != 0.0:
            if op < WIDE:
                T.record[i].a = moment
            else:                                # a computed number
                wrote(i)
                i = (<Tensor>p).index
                moment = moment_of_write()
        if step:
            T.value[i] -= lr * T.grad[i]
        if reset:
            T.grad[i] = 0.0                      # zero needs no entry in the touched rows


def flatten_parameters(parameters, list out):
    """Append the Tensors and TensorArrays of nested lists, tuples and dictionaries to `out`, in order; no recursion.

    What holds others is gone through once, wherever it is listed; ValueError for what holds itself."""
    cdef list todo = [parameters]
    cdef set seen = set()
    cdef bint again = False
    cdef object place
    while todo:
        p = todo.pop()
        if type(p) is Tensor:
            bound(p)
            out.append(p)
            continue
        if type(p) is TensorArray:
            out.append(p)
            continue
        if type(p) is not list and not isinstance(p, (list, tuple, dict)):
            raise TypeError(f"parameters: expected Tensors, TensorArrays and lists of them, got {type(p).__name__}")
        place = <size_t><void *>p                # as id(), without a call
        if place in seen:
            again = True
            continue
        seen.add(place)
        todo.extend(reversed(p.values() if isinstance(p, dict) else p))
    if again:
        refuse_cycles(parameters)
    return out


cdef int refuse_cycles(parameters) except -1:
    """ValueError if one of nested lists, tuples and dictionaries contains itself."""
    cdef list levels = [iter((parameters,))]     # of the containers that we are in, what is still to come
    cdef list path = [0]                         # and their ids
    cdef set seen = set()
    while levels:
        for p in levels[len(levels) - 1]:
            if not isinstance(p, (list, tuple, dict)):
                continue
            if id(p) in path:
                raise ValueError(f"parameters: a {type(p).__name__} that contains itself")
            if id(p) not in seen:
                seen.add(id(p))
                levels.append(iter(p.values() if isinstance(p, dict) else p))
                path.append(id(p))
                break
        else:
            levels.pop()
            path.pop()
    return 0


def distinct_parameters(parameters):
    """The Tensors and TensorArrays of nested lists in order, and no number twice.

    Left out is what was listed before, as itself or within an array; of an array that is listed in part and whole,
    the parts; of parts that overlap, what an earlier one has."""
    cdef list flat = flatten_parameters(parameters, []), out = []
    cdef dict together = {}                      # by array, what is listed of it
    if all_apart(flat):
        return flat
    for p in flat:
        together.setdefault(storage_of(p), []).append(p)
    for listed in together.values():
        out += listed if len(listed) == 1 else distinct_parts(listed)
    return out


def all_apart(list flat):
    """Whether no two of these Tensors and TensorArrays are, or lie in, the same leaf or array; elements of an array
    beside each other are apart too."""
    cdef Py_ssize_t n = len(flat), i, k
    cdef Wide *q
    cdef (Wide *)[8] few
    cdef int node
    cdef bint apart = True
    cdef unsigned char *seen                     # by node: listed; by slot, behind them: 1 elements of it, 2 an array
    if n <= 8:
        for i in range(n):
            few[i] = wide_of(flat[i])
            for k in range(i):
                if few[k] == few[i]:             # the same array, or none: one Tensor has one handle
                    if flat[k] is flat[i] or type(flat[k]) is TensorArray or type(flat[i]) is TensorArray:
                        return False
        return True
    seen = <unsigned char *>allocate_zeroed(T.n + T.n_wide, 1)
    if seen == NULL:
        raise MemoryError
    try:
        for p in flat:
            q = wide_of(p)
            if type(p) is Tensor:
                node = (<Tensor>p).index
                apart = not seen[node] and (q == NULL or seen[T.n + q.slot] < 2)
                seen[node] = 1
                if q != NULL:
                    seen[T.n + q.slot] |= 1
            else:
                apart = not seen[T.n + q.slot]
                seen[T.n + q.slot] = 2
            if not apart:
                break
    finally:
        PyMem_RawFree(seen)
    return apart


cdef list distinct_parts(list listed):
    """The same for what lies in one array, or is one Tensor."""
    cdef Wide *q = wide_of(listed[0])
    cdef list out = []
    cdef int k
    if q == NULL:
        return listed[:1]
    for p in listed:
        if type(p) is TensorArray and element_count(p) == q.count and is_contiguous(p):
            return [p]
    room = np.zeros(q.count, bool)
    cdef unsigned char[::1] taken = room.view(np.uint8)
    for p in listed:
        if type(p) is Tensor:
            k = T.record[(<Tensor>p).index].b
            if not taken[k]:
                out.append(p)
                taken[k] = True
            continue
        offsets = offsets_of(p)
        new = offsets[~room[offsets]]
        room[offsets] = True
        if len(new) == len(offsets):
            out.append(p)
        elif len(new):
            new.sort()
            for run in np.split(new, np.flatnonzero(np.diff(new) > 1) + 1):
                out.append(array_of(q)[run[0]:run[-1] + 1])
    return out


cdef Wide *wide_of(p) except? NULL:
    """The instruction that a Tensor or TensorArray lies in; NULL for a Tensor of its own."""
    if type(p) is TensorArray:
        return T.wide[(<TensorArray>p).slot]
    bound(p)
    return T.wide[T.record[(<Tensor>p).index].a] if T.record[(<Tensor>p).index].op == WIDE else NULL


def is_leaf(p):
    """Whether nothing computed it."""
    cdef Wide *q = wide_of(p)
    return q.op == W_LEAF if q != NULL else T.record[(<Tensor>p).index].op <= CONST


def offsets_of(p):
    """Where in its array the elements of a view lie, or the one that a Tensor is; in order, of one dimension."""
    cdef TensorArray a
    if type(p) is Tensor:
        return np.array([T.record[(<Tensor>p).index].b])
    a = p
    out = np.array(a.offset)
    for d in range(a.ndim):
        out = np.add.outer(out, np.arange(a.shape_[d]) * a.strides_[d])
    return out.ravel()


def storage_of(p):
    """The same for two handles of the same leaf, or of parts of the same array, as long as one of them is held.

    A collection moves nodes.  What it leaves alone is the one handle that a node has, and the slot of an array."""
    cdef Wide *q = wide_of(p)
    return <size_t><void *>p if q == NULL else -1 - q.slot


def place_of(p):
    """What tells a parameter from all others while it is held, whatever handle it has: array and elements in it."""
    cdef TensorArray a
    if type(p) is Tensor:
        return storage_of(p), 0 if wide_of(p) == NULL else T.record[(<Tensor>p).index].b, 1
    a = p
    if is_contiguous(a):
        return -1 - a.slot, a.offset, element_count(a)
    return -1 - a.slot, a.offset, a.shape, tuple([a.strides_[d] for d in range(a.ndim)])


cdef void step_array(TensorArray a, double lr, bint step, bint reset) noexcept:
    cdef Wide *q = T.wide[a.slot]
    cdef double *w = T.value + q.start
    cdef double *g = T.grad + q.start
    cdef Py_ssize_t k, at
    cdef Walk walk
    if q.op == W_LEAF and is_contiguous(a) and element_count(a) == q.count:
        if not step:
            pass
        elif q.factored >= 0:
            K.step_outer(w, lr, q.f_row, q.f_x, q.factored, q.f_g, q.cols)
        else:
            for k in range(q.n_touched):
                at = <Py_ssize_t>q.touched_rows[k] * q.cols
                K.step(w + at, lr, g + at, q.cols)
        if reset:
            zero_leaf(q)
        return
    materialise(q)
    start_walk(a, &walk)
    for _k in range(element_count(a)):
        if step:
            w[walk.offset] -= lr * g[walk.offset]
        if reset:
            g[walk.offset] = 0.0                 # zero needs no entry in the touched rows
        step_walk(a, &walk)


# --- at import ------------------------------------------------------------------------------------

def _array_method(int code):
    if row(code).arity == 2:
        def method(TensorArray self not None, other):
            value = map2(code, self, other)
            if value is NotImplemented:
                raise TypeError(f"{op_name(code)}: expected an array or a real number, got {type(other).__name__}")
            return value
    else:
        def method(TensorArray self not None):
            return map1(code, self)
    method.__name__ = op_name(code)
    method.__qualname__ = f"TensorArray.{method.__name__}"
    return method


cdef int install_methods() except -1:
    """The functions of the operation table become methods of arrays too."""
    for code, name, _arity, is_method in operations():
        if is_method:
            (<dict>(<PyTypeObject *>TensorArray).tp_dict)[name] = _array_method(code)
    PyType_Modified(<PyTypeObject *>TensorArray)
    return 0


install_methods()


cdef extern from "left_operands.h":
    int fs_leave_to(int i, PyTypeObject *type, PyTypeObject *right)


cdef int install_left_operands() except -1:
    """NumPy's real scalars leave operators to Tensors at once: np.float64(2) * t in the time of 2.0 * t, six times as
    long without.  An __array_ufunc__ = None would be half as fast as this, and take np.exp(t) and array * t away."""
    kinds = np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"
    for k, kind in enumerate(dict.fromkeys(np.dtype(code).type for code in kinds)):
        fs_leave_to(<int>k, <PyTypeObject *>kind, <PyTypeObject *>Tensor)
    return 0


install_left_operands()
