# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Objects become operands: numbers, Tensors, nested lists of them and arrays, converted before the safepoint.

The safepoint rule of `_core` holds: nothing here keeps an index.
"""

cimport cython
from cpython.buffer cimport Py_buffer, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from libc.string cimport memcpy

from fastscalar._core cimport *
from fastscalar.engine.memory cimport allocate, could_enlarge, out_of_memory
from fastscalar.engine.numbers cimport as_number
from fastscalar.engine.array_ops cimport reserve_work
from fastscalar.engine._array cimport MAX_DIMS, TensorArray, is_contiguous, list_nodes
from fastscalar.engine._traced cimport TracedInt

import numpy as np

from fastscalar.engine.views import ArrayView

# Not where they are asked for: of the entries of a tuple written there Cython ignores that one raised (an interrupt).
cdef tuple SEQUENCES = (list, tuple, TensorArray, np.ndarray)
cdef tuple NOT_LISTS = (str, bytes, dict, set, np.ndarray)
cdef tuple NOT_ARRAY_LIKE = (np.ndarray, str, bytes)


# A Source is an operand before the safepoint: converted, and holding on to the objects that it came from.  After the
# safepoint `resolve` turns it into indices; it allocates, but runs no Python.

@cython.final
@cython.no_gc
@cython.freelist(8)
cdef class Source:
    """An operand before the safepoint; `resolve` makes one of indices of it."""

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
    check_terms(s.count, what)
    return 0


cdef int check_terms(Py_ssize_t count, str what) except -1:
    """MemoryError for more than instructions count to: views may have any number of elements."""
    if count > 0x7fffffff:
        raise MemoryError(f"{what}: takes at most {0x7fffffff:,} elements at once, got {count:,}")
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
    # A copy, and then its length: making it may run a destructor and so change the list, as a __float__ may later.  No
    # tuple: CPython 3.11 asks for its memory, which may run the collector, when it has taken the length of the list.
    x = list(x) if isinstance(x, (list, tuple)) else []
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
            if tape.n >= tape.limit:
                safepoint(SLACK)
            s.tensors.append(result(CONST, 0, 0, v))
        elif isinstance(x, (list, tuple, TensorArray)):
            raise ValueError(f"{what}: the nested lists are ragged")
        else:
            raise TypeError(f"{what}: expected real numbers or Tensors, got {type(x).__name__}")
        return 0
    if isinstance(x, np.ndarray):
        x = x.tolist()
    x = list(x) if isinstance(x, (list, tuple, TensorArray)) else []     # see `fill`
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
    cdef int d
    if type(x) is TensorArray:
        s.array = x
        s.ndim = s.array.ndim
        s.count = 1
        for d in range(s.ndim):
            s.shape[d] = s.array.shape_[d]
            s.count *= s.shape[d]
        if s.count == 0:
            set_shape(s, s.array.shape, what)    # says so
        check_terms(s.count, what)
        return s
    if type(x) is Tensor:
        bound(x)
        s.tensors = [x]
        s.count = 1
        return s
    if type(x) is TracedInt:
        return source((<TracedInt>x).tensor, what)
    if type(x) is not float and isinstance(x, ArrayView):
        x = np.asarray(x)
    if type(x) is not np.ndarray and as_number(x, &v):
        s.number = <double *>allocate(sizeof(double))
        if s.number == NULL:
            out_of_memory(what, 1)
        s.number[0] = v
        s.count = 1
        return s
    if type(x) is not np.ndarray and type(x) is not list and hasattr(type(x), "as_numbers"):
        return source(x.as_numbers(), what)
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


# --- the order in which an instruction reads its operands -----------------------------------------

cdef void own_strides(Source s, Py_ssize_t *stride) noexcept:
    """From one element to the next along each of its dimensions, as they are stored."""
    cdef Py_ssize_t n = 1
    cdef int d
    for d in range(s.ndim - 1, -1, -1):
        stride[d] = s.array.strides_[d] if s.array is not None else n
        n *= s.shape[d]


cdef int broadcast(Source x, Source y, Py_ssize_t *shape, Py_ssize_t *xs, Py_ssize_t *ys, str what) except -1:
    """How many dimensions both have together, their lengths, and the strides of each along them, 0: it is broadcast.

    As NumPy does it; ValueError if the shapes do not go together."""
    cdef Py_ssize_t[LAYOUT_DIMS] of_x
    cdef Py_ssize_t[LAYOUT_DIMS] of_y
    cdef int ndim = max(x.ndim, y.ndim), d, i, j
    cdef Py_ssize_t a, b
    own_strides(x, of_x)
    own_strides(y, of_y)
    for d in range(ndim):
        i, j = d - ndim + x.ndim, d - ndim + y.ndim
        a = x.shape[i] if i >= 0 else 1
        b = y.shape[j] if j >= 0 else 1
        if a != b and a != 1 and b != 1:
            raise ValueError(f"{what}: shapes {shape_of(x)} and {shape_of(y)} do not go together: counted from the "
                             "last dimension, each has to be the same in both, or 1")
        shape[d] = max(a, b)
        xs[d] = of_x[i] if i >= 0 and a != 1 else 0
        ys[d] = of_y[j] if j >= 0 and b != 1 else 0
    return ndim


cdef void lay_out(Source x, Source y, int ndim, int kept, const Py_ssize_t *shape, const Py_ssize_t *xs,
                  const Py_ssize_t *ys) noexcept:
    """Say in which order an instruction reads its operands (y None: one): loops over these dimensions, of which the
    first `kept` are those of the output.  Loops that are one are made one; nothing is said if they read what is stored,
    element by element."""
    cdef int d, n = 0
    cdef bint of_output = False                  # whether the last loop is one
    for d in range(ndim):
        if shape[d] == 1:
            continue
        if n > 0 and of_output == (d < kept) and x.stride[n - 1] == xs[d] * shape[d] and (
                y is None or y.stride[n - 1] == ys[d] * shape[d]):
            x.loop[n - 1] *= shape[d]
        else:
            x.loop[n] = shape[d]
            n += 1
            of_output = d < kept
        x.stride[n - 1] = xs[d]
        if y is not None:
            y.loop[n - 1] = x.loop[n - 1]
            y.stride[n - 1] = ys[d]
    x.loops = n
    x.laid = x.count > 1 and n > 0
    if y is not None:
        y.loops = n
        y.laid = y.count > 1 and n > 0
    if n <= 1 and (x.count == 1 or is_whole(x)) and (y is None or y.count == 1 or is_whole(y)):
        x.laid = False
        if y is not None:
            y.laid = False


cdef bint is_whole(Source s) noexcept:
    """Whether one loop reads its elements as they are stored."""
    return s.loops == 0 or (s.stride[0] == 1 and s.loop[0] == s.count)


cdef void fill_layout(Layout *l, Source s) noexcept:
    cdef Py_ssize_t expected = 1
    cdef int d, e, found = 0
    l.ndim = s.loops
    l.first = l.span = 0
    for d in range(s.loops):
        l.shape[d] = s.loop[d]
        l.stride[d] = s.stride[d]
        if s.stride[d] < 0:
            l.first += <int>(s.stride[d] * (s.loop[d] - 1))
        found += s.stride[d] != 0
    while found:                                 # the loop whose steps are as long as all before it reach
        for e in range(s.loops):
            if s.stride[e] == expected or s.stride[e] == -expected:
                break
        else:
            return
        expected *= s.loop[e]
        found -= 1
    l.span = <int>expected


cdef object array_like(x):
    """`numpy_of`, and sooner of what is none or is NumPy's own."""
    return x if type(x) is list or isinstance(x, NOT_ARRAY_LIKE) else numpy_of(x)


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
            n = kernels.compress(tape.work_int, tape.work, <double *>base, stride, <int>cols)
            room = max(n, <Py_ssize_t>1)
            column = <int *>allocate(room * sizeof(int))
            value = <double *>allocate(room * sizeof(double))
            if column == NULL or value == NULL:
                break
            memcpy(column, tape.work_int, n * sizeof(int))
            memcpy(value, tape.work, n * sizeof(double))
        else:
            if n + cols > room:                  # `compress` may write all columns before it knows better
                room = max(2 * room, n + cols)
                if not could_enlarge(<void **>&column, room, sizeof(int)) or not could_enlarge(
                        <void **>&value, room, sizeof(double)):
                    break
            n += kernels.compress(column + n, value + n, <double *>(base + r * row_stride), stride, <int>cols)
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
    if s.laid:
        o.layout = <Layout *>allocate(sizeof(Layout))
        if o.layout == NULL:
            out_of_memory(what, 1)
        fill_layout(o.layout, s)
    if s.array is not None:
        array = s.array
        if s.laid:
            o.kind = STRIDED
            o.start = <int>(tape.array_ops[array.slot].start + array.offset)
            return 0
        if is_contiguous(array):
            o.kind = RUN
            o.start = <int>(tape.array_ops[array.slot].start + array.offset)
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
