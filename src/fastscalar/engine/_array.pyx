# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""TensorArray: a handle of a run of nodes with a shape.

Its operators are array operations, whose results are TensorArrays: `_array_ops` knows this module, and puts in what an
array does.
"""

cimport cython
from cpython.buffer cimport Py_buffer, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport PyObject, PyObject_RichCompare
from cpython.slice cimport PySlice_AdjustIndices, PySlice_Unpack
from libc.string cimport memcmp, memset

from fastscalar._core cimport *
from fastscalar.engine.array_ops cimport materialise
from fastscalar.engine.writes cimport wrote
from fastscalar.engine._traced cimport TracedInt, out_of_range

import numpy as np

from fastscalar._core import NO_FREEZING
from fastscalar.engine._functions import operations
from fastscalar.engine.views import ArrayView

cdef extern from "<fenv.h>" nogil:
    int FE_ALL_EXCEPT, FE_INVALID, FE_OVERFLOW
    int feclearexcept(int)
    int fetestexcept(int)

cdef extern from "strided.h":
    void fs_compare(unsigned char *out, const double *x, const double *y, Py_ssize_t sy, Py_ssize_t n, int op) noexcept
    bint fs_has_nan(const double *x, Py_ssize_t n) noexcept

cdef extern from "Python.h":
    object PySeqIter_New(object)
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
    void PyType_Modified(PyTypeObject *)

cdef class Operators:
    """The base of `_array_ops.ArrayOperators`."""

    def __init__(self, to_tensor):
        self.to_tensor = to_tensor

    cdef object map1(self, int code, TensorArray x):
        raise NotImplementedError

    cdef object map2(self, int code, object left, object right):
        raise NotImplementedError

    cdef object at(self, TensorArray candidates, TracedInt index, Py_ssize_t at):
        raise NotImplementedError

    cdef object leaves(self, object values):
        raise NotImplementedError


cdef Operators operators = None
python = None                # what arrays do that is written in Python: `fastscalar.arrays.methods`
cdef tuple NO_INDICES = (bool, np.bool_, np.ndarray)
cdef object empty = np.empty, of_bools = np.dtype(bool)


cdef enum:                   # of `rows`, below the codes of the operation table
    SQUARE = -1
    COMPARISON = -7          # .. -2, in Python's order
    TEST = -11               # .. -8, in the order of fs_compare
    FMIN = -12
    FMAX = -13

cdef dict rows = {}          # by ufunc: the row of the operation table that it is, or what else


cdef bint is_simple(x) except -1:
    return type(x) is TensorArray or type(x) is float or type(x) is int or type(x) is Tensor or (
        type(x) is np.ndarray and x.dtype.kind in "fiu")


def install(those, dict methods, dict ufuncs):
    """From now on arrays have these methods; `those`: what operators and indices call; `ufuncs`: which row of the
    operation table each is that is one."""
    global python, rows
    python = those
    rows = ufuncs
    (<dict>(<PyTypeObject *>TensorArray).tp_dict).update(methods)
    PyType_Modified(<PyTypeObject *>TensorArray)


def register(Operators those not None):
    """From now on arrays do what these do."""
    global operators
    operators = those


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
            tape.array_ops[self.slot].arrays -= 1
            (<TensorArray>self.next).before = self.before
            (<TensorArray>self.before).next = self.next

    def __repr__(self):
        if 0 < self.size <= SHORT:
            return as_tensors(self.tolist())
        return f"TensorArray(shape={self.shape}, data={np.array2string(self.numpy(), threshold=20, prefix='    ')})"

    # --- shape, elements ---

    @property
    def shape(self):
        """The lengths of its dimensions, a tuple of ints; () of none."""
        return tuple([self.shape_[d] for d in range(self.ndim)])

    @property
    def ndim(self):
        """The number of dimensions."""
        return self.ndim

    @property
    def size(self):
        """The number of elements."""
        return element_count(self)

    def __len__(self):
        return self.shape_[0]

    def __getitem__(self, key):
        cdef Py_ssize_t offset = self.offset, i, start, stop, step, at = 0
        cdef TracedInt traced = None
        cdef Py_ssize_t[MAX_DIMS] shape
        cdef Py_ssize_t[MAX_DIMS] strides
        cdef int d = 0, ndim = 0, wanted = 0
        cdef bint all_of_them = False
        cdef tuple keys
        if type(key) is int and self.ndim == 1:          # what loops ask for
            i = PyNumber_AsSsize_t(key, IndexError)
            if i < 0:
                i += self.shape_[0]
            if 0 <= i < self.shape_[0]:
                return handle_of(<int>(tape.array_ops[self.slot].start + self.offset + i * self.strides_[0]))
        keys = key if isinstance(key, tuple) else (key,)
        for k in keys:
            wanted += k is not None and k is not Ellipsis
            all_of_them |= k is Ellipsis
            if not (isinstance(k, slice) or k is None or k is Ellipsis or type(k) is int or (
                    type(k) is TracedInt and not (<TracedInt>k).is_truth) or (
                    hasattr(type(k), "__index__") and not isinstance(k, NO_INDICES) and not getattr(k, "ndim", 0))):
                return python.take(self, key)
        if wanted > self.ndim:
            raise IndexError(f"TensorArray of shape {self.shape}: too many indices, {wanted}")
        if len(keys) - wanted + self.ndim > MAX_DIMS:
            return python.take(self, key)
        if not all_of_them:
            keys += (Ellipsis,)
        for k in keys:
            if k is None:
                shape[ndim], strides[ndim] = 1, 0
                ndim += 1
                continue
            if k is Ellipsis:
                for _i in range(self.ndim - wanted):
                    shape[ndim], strides[ndim] = self.shape_[d], self.strides_[d]
                    ndim += 1
                    d += 1
                wanted = self.ndim               # a second one is none
                continue
            if isinstance(k, slice):
                PySlice_Unpack(k, &start, &stop, &step)
                shape[ndim] = PySlice_AdjustIndices(self.shape_[d], &start, &stop, step)
                strides[ndim] = self.strides_[d] * step
                offset += start * self.strides_[d] if shape[ndim] else 0
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
                i = PyNumber_AsSsize_t(k, IndexError)
                if i < 0:
                    i += self.shape_[d]
                if not 0 <= i < self.shape_[d]:
                    raise IndexError(f"TensorArray of shape {self.shape}: index {k} is out of range")
                offset += i * self.strides_[d]
            d += 1
        if traced is not None:
            return operators.at(view_of(self, offset, ndim, shape, strides), traced, at)
        if ndim == 0:
            return handle_of(<int>(tape.array_ops[self.slot].start + offset))
        return view_of(self, offset, ndim, shape, strides)

    def __iter__(self):
        return PySeqIter_New(self)

    def __setitem__(self, key, value):
        """Replace elements of an array that was computed, in all its views; what was computed from it before stays."""
        if self.fixed:
            raise TypeError("elements of a TensorArray that was made of numbers (a parameter, an argument) cannot be "
                            "replaced: replace those of a copy, a = a.copy(); to change a number write "
                            "array.data[i] = number")
        python.assign(self, key, value)

    def _positions(self, key=Ellipsis):
        """Where in its run the elements that a key selects lie: an array of whole numbers, or one of them."""
        cdef int d
        shape = self.shape
        out = self.offset + np.zeros((), np.int64)
        if self.ndim == 0:
            return out[key]
        for d in range(self.ndim):
            steps = (np.arange(shape[d]) * self.strides_[d]).reshape((-1,) + (1,) * (self.ndim - 1 - d))
            out = out + np.broadcast_to(steps, shape)[key]
        return out

    def _apart(self):
        """Another handle of the same elements, which may be replaced in it: here they stay."""
        cdef TensorArray other = array_of(tape.array_ops[self.slot])
        cdef TensorArray view = view_of(other, self.offset, self.ndim, self.shape_, self.strides_)
        view.fixed = False
        return view

    def _is_fixed(self):
        """Whether its elements cannot be replaced."""
        return self.fixed

    def _run(self):
        """All of what it lies in: a handle of one dimension."""
        return array_of(tape.array_ops[self.slot])

    def _follow(self, TensorArray other not None):
        """From now on this and its views have the nodes of another run, of the same length."""
        cdef TensorArray a = self
        while True:
            tape.array_ops[a.slot].arrays -= 1
            a.slot = other.slot
            tape.array_ops[a.slot].arrays += 1
            a = <TensorArray>a.next
            if a is self:
                return

    def _become(self, TensorArray other not None):
        """Have the elements of another array of the same shape; False, and nothing is done, if it has views, or is
        one."""
        cdef int d
        if self.next != <void *>self or self.fixed:
            return False
        tape.array_ops[self.slot].arrays -= 1
        self.slot, self.offset = other.slot, other.offset
        for d in range(self.ndim):
            self.strides_[d] = other.strides_[d]
        tape.array_ops[self.slot].arrays += 1
        return True

    def _view(self, tuple axes, tuple shape=None):
        """Its dimensions in another order, -1: a new one of length 1 (of `shape`: broadcast to that length)."""
        cdef Py_ssize_t[MAX_DIMS] lengths
        cdef Py_ssize_t[MAX_DIMS] strides
        cdef int d, k
        if len(axes) > MAX_DIMS:
            raise ValueError(f"at most {MAX_DIMS} dimensions, got {len(axes)}")
        for k, d in enumerate(axes):
            lengths[k] = self.shape_[d] if d >= 0 else 1
            strides[k] = self.strides_[d] if d >= 0 else 0
            if shape is not None and shape[k] != lengths[k]:
                lengths[k], strides[k] = shape[k], 0
        return view_of(self, self.offset, <int>len(axes), lengths, strides)

    def _diagonal(self, int first, int second, Py_ssize_t k):
        """The k-th diagonal of two of its dimensions, as the last one; a view."""
        cdef Py_ssize_t[MAX_DIMS] lengths
        cdef Py_ssize_t[MAX_DIMS] strides
        cdef Py_ssize_t rows = self.shape_[first], cols = self.shape_[second], offset = self.offset
        cdef int d, n = 0
        for d in range(self.ndim):
            if d != first and d != second:
                lengths[n], strides[n] = self.shape_[d], self.strides_[d]
                n += 1
        if k >= 0:
            cols -= k
        else:
            rows += k
        lengths[n] = max(<Py_ssize_t>0, min(rows, cols))
        if lengths[n]:
            offset += k * self.strides_[second] if k >= 0 else -k * self.strides_[first]
        strides[n] = self.strides_[first] + self.strides_[second]
        return view_of(self, offset, n + 1, lengths, strides)

    def _reshaped(self, tuple shape):
        """A view of another shape of the same size, or None if its elements do not lie like that."""
        cdef Py_ssize_t[MAX_DIMS] lengths
        cdef Py_ssize_t[MAX_DIMS] strides
        cdef Py_ssize_t[MAX_DIMS] old
        cdef Py_ssize_t[MAX_DIMS] old_strides
        cdef Py_ssize_t a, b
        cdef int d, k, n = 0, at = 0, end, first, ndim = <int>len(shape)
        if ndim > MAX_DIMS:
            raise ValueError(f"at most {MAX_DIMS} dimensions, got {ndim}")
        for d in range(ndim):
            lengths[d] = shape[d]
            strides[d] = 0
        for d in range(self.ndim):
            if self.shape_[d] != 1:
                old[n], old_strides[n] = self.shape_[d], self.strides_[d]
                n += 1
        d = 0
        while at < n:                            # groups of dimensions that have as many elements, before and after
            while d < ndim and lengths[d] == 1:
                d += 1
            first, end = d, at + 1
            a, b = old[at], lengths[d]
            while a != b:
                if a < b:
                    a *= old[end]
                    end += 1
                else:
                    d += 1
                    b *= lengths[d]
            for k in range(at, end - 1):
                if old_strides[k] != old_strides[k + 1] * old[k + 1]:
                    return None
            b = old_strides[end - 1]
            for k in range(d, first - 1, -1):
                strides[k] = b
                b *= lengths[k]
            d += 1
            at = end
        return view_of(self, self.offset, ndim, lengths, strides)

    def _nothing(self, tuple shape):
        """An array without elements."""
        cdef Py_ssize_t[MAX_DIMS] lengths
        cdef Py_ssize_t[MAX_DIMS] strides
        cdef int d
        memset(strides, 0, sizeof(strides))
        for d in range(<int>len(shape)):
            lengths[d] = shape[d]
        return view_of(self, self.offset, <int>len(shape), lengths, strides)

    # --- operators: left or right is a TensorArray ---

    def __add__(left, right):
        return operators.map2(ADD, left, right)

    def __sub__(left, right):
        return operators.map2(SUB, left, right)

    def __mul__(left, right):
        return operators.map2(MUL, left, right)

    def __truediv__(left, right):
        return operators.map2(DIV, left, right)

    def __pow__(left, right, modulus):
        if modulus is not None:
            raise TypeError("pow() of TensorArrays takes no modulus")
        return operators.map2(POW, left, right)

    def __mod__(left, right):
        return operators.map2(MOD, left, right)

    def __floordiv__(left, right):
        return operators.map2(FLOORDIV, left, right)

    def __matmul__(left, right):
        return python.matmul(left, right)

    def __iadd__(self, other):
        return python.in_place(self, self + other)

    def __isub__(self, other):
        return python.in_place(self, self - other)

    def __imul__(self, other):
        return python.in_place(self, self * other)

    def __itruediv__(self, other):
        return python.in_place(self, self / other)

    def __ipow__(self, other):
        return python.in_place(self, self ** other)

    def __divmod__(left, right):
        quotient = operators.map2(FLOORDIV, left, right)
        return quotient if quotient is NotImplemented else (quotient, operators.map2(MOD, left, right))

    def __bool__(self):
        if self.size != 1:
            raise ValueError(f"the truth value of a TensorArray of shape {self.shape} is ambiguous: any() or all()")
        return bool(python.only(self))

    def __float__(self):
        return float(python.only(self))

    def __int__(self):
        return int(python.only(self))

    def __contains__(self, value):
        return python.contains(self, value)

    def __neg__(self):
        return operators.map1(NEG, self)

    def __abs__(self):
        return operators.map1(ABS, self)

    def __pos__(self):
        return self

    def __array_ufunc__(self, ufunc, str method, *inputs, **options):
        """NumPy's element-wise functions: `np.exp(x)`, `ndarray + x`."""
        code = rows.get(ufunc)
        if code is not None and method == "__call__" and not options:
            if code < SQUARE:
                found = NotImplemented if programs and recording_here() is not None else told(code, inputs)
                return python.ufunc(ufunc, method, inputs, options) if found is NotImplemented else found
            if len(inputs) == 1:
                return operators.map1(code, inputs[0]) if code >= 0 else operators.map2(MUL, self, self)
            if len(inputs) == 2 and is_simple(inputs[0]) and is_simple(inputs[1]):
                return operators.map2(code, inputs[0], inputs[1])
        return python.ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function, types, tuple args, dict options):
        """NumPy's other functions: `np.sum(x)`, `np.stack([x, y])`."""
        return python.function(function, args, options)

    # --- comparisons, as of NumPy's arrays ---

    def __richcmp__(self, other, int op):
        """Element by element, by value: an ndarray of bool, in the recording of a program one of comparisons."""
        if programs and recording_here() is not None:
            return python.compare(COMPARISONS[op], self, other)
        if type(other) is float and is_contiguous(self):
            return outcomes(self, None, other, op)
        if type(other) is TensorArray and lie_alike(self, other):
            return outcomes(self, other, 0.0, op)
        if type(other) is Tensor:
            other = other.data
        elif type(other) is TensorArray:
            other = (<TensorArray>other)._read("data")
        elif type(other) is not float and type(other) is not int:
            other = python.numbers(other)
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
        if tracing:
            for t in self.flat:
                float(t)                         # says that the gradient is lost
        return self._read("data", "tolist()").tolist()

    def detach(self):
        """New leaves with these values."""
        if programs and recording_here() is not None:
            recording_here().stop_gradients()
            try:
                return operators.map2(MUL, self, 1.0)
            finally:
                recording_here().resume_gradients()
        return operators.leaves(self._read("data"))

    def _read(self, str field, str how=".data"):
        """A copy of one field as an ndarray."""
        cdef bint gradients = field == "grad"
        if programs and gradients:
            refuse("reading .grad")
        elif programs and recording_here() is not None:
            for x in self if self.ndim == 1 else flatten_array(self):
                read_number(x, how)
        out = np.empty(self.shape)
        cdef Py_buffer view
        PyObject_GetBuffer(out, &view, PyBUF_STRIDES)
        if gradients:
            materialise(tape.array_ops[self.slot])
        copy_out(self, tape.grad if gradients else tape.value, <double *>view.buf)
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
                wrote(tape.array_ops[self.slot].start)
        except BaseException:
            PyBuffer_Release(&view)
            raise
        copy_in(self, gradients, <double *>view.buf)
        PyBuffer_Release(&view)

    def _subtract(self, value, double times):
        """`.data -= times * value` in place, of a plain array of this shape: 0 it is not one; 1 done, of IEEE 754's
        exceptions 2 more for an overflow, 4 for an invalid operation."""
        cdef Py_buffer view
        cdef int told
        if type(value) is not np.ndarray or value.dtype != np.float64 or value.shape != self.shape or (
                not value.flags.c_contiguous or not is_contiguous(self) or programs):
            return 0
        forbid("writing .data")
        PyObject_GetBuffer(value, &view, PyBUF_STRIDES)
        try:
            wrote(tape.array_ops[self.slot].start)
            feclearexcept(FE_ALL_EXCEPT)
            kernels.step(tape.value + tape.array_ops[self.slot].start + self.offset, times, <double *>view.buf,
                         element_count(self))
            told = fetestexcept(FE_OVERFLOW | FE_INVALID)
        finally:
            PyBuffer_Release(&view)
        return 1 + 2 * ((told & FE_OVERFLOW) != 0) + 4 * ((told & FE_INVALID) != 0)

    def __reduce__(self):
        if tape.array_ops[self.slot].op != A_LEAF:
            raise TypeError("only an array of leaves can be copied or pickled: use detach() for a computed one")
        gradient = self._read("grad")
        if not gradient.any():
            return operators.to_tensor, (self._read("data"),)
        return operators.to_tensor, (self._read("data"),), gradient

    def __setstate__(self, gradient):
        self._write("grad", gradient)


cdef object told(int code, tuple inputs):
    """A comparison, a test or fmin and fmax where that is one instruction; NotImplemented of other operands."""
    x = inputs[0]
    if type(x) is not TensorArray:
        return NotImplemented
    if COMPARISON <= code:
        return PyObject_RichCompare(x, inputs[1], code - COMPARISON)
    if TEST <= code:
        return outcomes(x, None, 0.0, code - TEST + 6) if is_contiguous(x) else NotImplemented
    y = inputs[1]
    if type(y) is not TensorArray and type(y) is not float:
        return NotImplemented
    found = operators.map2(MINIMUM if code == FMIN else MAXIMUM, x, y)
    return NotImplemented if has_nan(found) else found       # only where an operand is NaN: one look instead of two


cdef bint has_nan(TensorArray a):
    """Whether an element is NaN, or they do not lie together."""
    return not is_contiguous(a) or fs_has_nan(tape.value + tape.array_ops[a.slot].start + a.offset, element_count(a))


cdef inline bint lie_alike(TensorArray a, TensorArray b) noexcept:
    """Whether they have one shape, and the elements of each lie together."""
    return is_contiguous(a) and is_contiguous(b) and a.ndim == b.ndim and (
        not memcmp(a.shape_, b.shape_, a.ndim * sizeof(Py_ssize_t)))


cdef object outcomes(TensorArray a, TensorArray other, double number, int op):
    """a compared with another array of its shape, or with one number, both as they are stored: an ndarray of bool; or a
    test of its elements, see fs_compare."""
    cdef Py_ssize_t n = element_count(a)
    cdef const double *x = tape.value + tape.array_ops[a.slot].start + a.offset
    cdef const double *y = &number
    cdef Py_ssize_t step = 0
    cdef Py_buffer view
    out = empty(a.shape, of_bools)               # runs no code of users: x stays where it is
    PyObject_GetBuffer(out, &view, PyBUF_STRIDES)
    if other is not None:
        y, step = tape.value + tape.array_ops[other.slot].start + other.offset, 1
    fs_compare(<unsigned char *>view.buf, x, y, step, n, op)
    PyBuffer_Release(&view)
    return out


cdef list flatten_array(TensorArray a):
    cdef list out = []
    for row in a:
        out.extend(flatten_array(row) if a.ndim > 2 else row)
    return out


cdef TensorArray array_of(ArrayOp *q):
    """A handle of all of an instruction's run, of one dimension."""
    cdef TensorArray array = TensorArray.__new__(TensorArray)
    cdef Py_ssize_t count = q.count
    hold(q, array, 1, &count)
    array.fixed = q.op == A_LEAF
    return array


# --- at import ------------------------------------------------------------------------------------

def _array_method(int code):
    if row(code).arity == 2:
        def method(TensorArray self not None, other):
            value = operators.map2(code, self, other)
            if value is NotImplemented:
                raise TypeError(f"{op_name(code)}: expected an array or a real number, got {type(other).__name__}")
            return value
    else:
        def method(TensorArray self not None):
            return operators.map1(code, self)
    method.__name__ = op_name(code)
    method.__qualname__ = f"TensorArray.{method.__name__}"
    method.__doc__ = ("Of each element, within 4 ulp, and by IEEE 754 where a Tensor raises: "
                      f"{row(code).doc.decode()}")
    return method


cdef int install_methods() except -1:
    """The functions of the operation table become methods of arrays too."""
    for code, name, _arity, is_method in operations():
        if is_method:
            (<dict>(<PyTypeObject *>TensorArray).tp_dict)[name] = _array_method(code)
    (<dict>(<PyTypeObject *>TensorArray).tp_dict)["__new__"] = staticmethod(_is_made_elsewhere)
    PyType_Modified(<PyTypeObject *>TensorArray)
    return 0


def _is_made_elsewhere(*_, **__):
    """What Python's `TensorArray.__new__` would make stands for no nodes; the package's own has no need of the name."""
    raise TypeError("use fastscalar.to_tensor to make a TensorArray")


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
