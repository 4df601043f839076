# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False, auto_pickle=False, embedsignature=True, embedsignature.format=clinic
"""TensorArray: a handle of a run of nodes with a shape.

Its operators are array operations, whose results are TensorArrays: `_array_ops` knows this module, and puts in what an
array does.
"""

cimport cython
from cpython.buffer cimport Py_buffer, PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from cpython.number cimport PyNumber_AsSsize_t
from cpython.object cimport PyObject
from cpython.slice cimport PySlice_AdjustIndices, PySlice_Unpack

from fastscalar._core cimport *
from fastscalar.engine.array_ops cimport materialise
from fastscalar.engine.writes cimport wrote
from fastscalar.engine._traced cimport TracedInt, out_of_range

import operator

import numpy as np

from fastscalar._core import NO_FREEZING, operations
from fastscalar.engine.views import ArrayView

cdef extern from "Python.h":
    object PySeqIter_New(object)
    ctypedef struct PyTypeObject:
        PyObject *tp_dict
    void PyType_Modified(PyTypeObject *)

cdef tuple COMPARISONS = (operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge)

cdef class Operators:
    """The base of `_array_ops.ArrayOperators`."""

    def __init__(self, to_tensor):
        self.to_tensor = to_tensor

    cdef object map1(self, int code, TensorArray x):
        raise NotImplementedError

    cdef object map2(self, int code, object left, object right):
        raise NotImplementedError

    cdef object sum(self, TensorArray x):
        raise NotImplementedError

    cdef object at(self, TensorArray candidates, TracedInt index, Py_ssize_t at):
        raise NotImplementedError

    cdef object leaves(self, object values):
        raise NotImplementedError


cdef Operators operators = None


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
            return operators.at(view_of(self, offset, ndim, shape, strides), traced, at)
        if ndim == 0:
            return handle_of(<int>(tape.array_ops[self.slot].start + offset))
        return view_of(self, offset, ndim, shape, strides)

    def __iter__(self):
        return PySeqIter_New(self)

    def __setitem__(self, key, value):
        raise TypeError("elements of a TensorArray cannot be replaced; to change a number write array.data[i] = number")

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

    def __neg__(self):
        return operators.map1(NEG, self)

    def __abs__(self):
        return operators.map1(ABS, self)

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
        return operators.sum(self)

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
                return operators.map2(MUL, self, 1.0)
            finally:
                recording_here().resume_gradients()
        return operators.leaves(self._read("data"))

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

    def __reduce__(self):
        if tape.array_ops[self.slot].op != A_LEAF:
            raise TypeError("only an array of leaves can be copied or pickled: use detach() for a computed one")
        gradient = self._read("grad")
        if not gradient.any():
            return operators.to_tensor, (self._read("data"),)
        return operators.to_tensor, (self._read("data"),), gradient

    def __setstate__(self, gradient):
        self._write("grad", gradient)


cdef list flatten_array(TensorArray a):
    cdef list out = []
    for row in a:
        out.extend(flatten_array(row) if a.ndim > 2 else row)
    return out


cdef TensorArray array_of(ArrayOp *q):
    """A handle of all of an instruction's run, of one dimension."""
    cdef TensorArray array = TensorArray.__new__(TensorArray)
    cdef Py_ssize_t count = q.count
    return hold(q, array, 1, &count)


cdef int bad_index(k) except -1:
    raise TypeError(f"TensorArray indices are integers and slices, not {type(k).__name__}")


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
    method.__doc__ = f"Of each element, by IEEE 754 where a Tensor raises: {row(code).doc.decode()}"
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
