# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""The function of a program called for rows, in loops that cost what a user's own would: for programs that have fallen
back.

The boundary: knows functions of numbers and arrays with one number as result; which rows they are called for `called`
knows, and what else becomes of these.
"""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBuffer_Release, PyObject_GetBuffer
from cpython.float cimport PyFloat_Check
from cpython.object cimport PyObject

from fastscalar._core cimport *
from fastscalar.engine._random cimport Stream, streams
from fastscalar.engine._array cimport TensorArray
from fastscalar.engine.array_ops cimport zero_leaf

import numpy as np

from fastscalar.engine._array_ops import own_array, total
from fastscalar.engine._modes import record
from fastscalar.engine._random import default_seed
from fastscalar.engine._step import storage_of
from fastscalar.program._trace import leaves_before

cdef extern from "Python.h":
    object PyObject_Vectorcall(object function, PyObject **arguments, size_t n, PyObject *names)
    PyObject **PySequence_Fast_ITEMS(object some)

cdef extern from *:
    """
    #if defined(_MSC_VER)
    static __declspec(thread) int fs_inside = 0;
    #else
    static __thread int fs_inside = 0;
    #endif
    """
    int fs_inside                # how many functions of programs this thread runs for a row

cdef enum:
    AT_ONCE = 128                # rows whose gradients are found in one sweep

cdef object FLOAT64 = np.dtype(np.float64), INT64 = np.dtype(np.int64), ARRAY_TYPE = np.ndarray, empty = np.empty


def is_inside():
    """Whether this thread runs the function of a program for a row, or records it."""
    return fs_inside > 0 or recording_here() is not None


def go_inside(int steps):
    """So many functions more, or less, are run for a row."""
    global fs_inside
    fs_inside += steps


cdef inline void *data_of(array) except? NULL:
    """The numbers of an array, which is held elsewhere and lies in one stretch."""
    cdef Py_buffer view
    PyObject_GetBuffer(array, &view, PyBUF_C_CONTIGUOUS)
    PyBuffer_Release(&view)
    return view.buf


cdef int enter(array, Py_ssize_t first, list nodes, const double *column) except -1:
    """What a column of the tape has for some nodes, into an array of float64 from an element on."""
    cdef Py_ssize_t k
    cdef double *out
    if len(nodes) == 1:                          # faster than to ask for the memory
        array[first] = column[(<Tensor>nodes[0]).index]
        return 0
    out = <double *>data_of(array)
    for k in range(len(nodes)):
        out[first + k] = column[(<Tensor>nodes[k]).index]
    return 0


cdef inline Tensor leaf_of(double v):
    if tape.n >= tape.limit:
        safepoint(SLACK)
    return result(LEAF, 0, 0, v)


cdef class RowCalls:
    """An iterator over the results of a function for some rows, Tensors, in the order of the rows.

    columns: lists, and iterators.  numbers: which are lists of floats, that become leaves.  convert: makes a Tensor of
    what is none.  While the function runs `at` is the place of its row among these, and random numbers are the row's;
    between two rows nothing is left open."""

    cdef readonly Py_ssize_t at
    cdef readonly bint calling       # in the function, which may have raised there
    cdef readonly list given         # what it was called with
    cdef object function, convert
    cdef list columns
    cdef tuple numbers
    cdef const long long *rows       # NULL: 0, 1, ...
    cdef Py_ssize_t n
    cdef object held                 # where they stand
    cdef Stream stream
    cdef long long offset

    def __init__(self, function, columns, tuple numbers not None, rows, Stream stream not None, long long offset,
                 convert):
        self.function, self.convert, self.numbers = function, convert, numbers
        self.columns, self.held, self.at = list(columns), np.ascontiguousarray(rows, np.int64), -1
        self.rows, self.n = <const long long *>data_of(self.held), len(self.held)
        self.stream, self.offset = stream, offset

    cdef inline long long row(self, Py_ssize_t k) noexcept:
        return k if self.rows == NULL else self.rows[k]

    def __iter__(self):
        return self

    def __next__(self):
        if self.at + 1 >= self.n:
            raise StopIteration
        return self.following()

    cdef Tensor following(self):
        """The result for the next row."""
        global fs_inside
        cdef Py_ssize_t k
        cdef list given = []
        cdef list stack = streams()
        self.at += 1
        for k in range(len(self.columns)):
            if self.numbers[k]:
                given.append(leaf_of((<list>self.columns[k])[self.at]))
            elif type(self.columns[k]) is list:
                given.append((<list>self.columns[k])[self.at])
            else:
                given.append(next(self.columns[k]))
        self.given = given
        self.calling = True
        self.stream.row = self.offset + self.row(self.at)
        if self.stream.counts:                   # most functions draw nothing
            self.stream.counts = {}
        if self.stream.begun:
            self.stream.begun = {}
        self.stream.scope = 0
        stack.append(self.stream)
        fs_inside += 1
        try:
            value = PyObject_Vectorcall(self.function, PySequence_Fast_ITEMS(given), len(given), NULL)
            if type(value) is not Tensor:
                value = self.convert(value)
        finally:
            fs_inside -= 1
            stack.pop()
        self.calling = False
        return <Tensor>value

    def into(self, values):
        """The values of all rows, at their numbers in an array of float64."""
        cdef Py_ssize_t k
        cdef double *value
        if self.n == 1:                          # faster than to ask for the memory
            values[self.row(0)] = tape.value[self.following().index]
            return
        value = <double *>data_of(values)
        for k in range(self.n):
            value[self.row(k)] = tape.value[self.following().index]

    def results(self, list arguments not None, Py_ssize_t most):
        """The next results, so many or as there are; what the function was called with for them is added to a list."""
        cdef list found = []
        while len(found) < most and self.at + 1 < self.n:
            found.append(self.following())
            arguments.append(self.given)
        return found


cdef class LossesInTurn(RowCalls):
    """The same; beside the number of the row and its result, whether it has read leaves that are not among the known
    ones, which they then are.  known: by `storage_of`; None: that is not asked."""

    cdef dict known

    def __next__(self):
        cdef Tensor marker, loss
        cdef bint is_news = False
        if self.at + 1 >= self.n:
            raise StopIteration
        if self.known is None:
            loss = self.following()
        else:
            marker = leaf_of(0.0)
            loss = self.following()
            for leaf in leaves_before(marker, loss, self.known):
                self.known[storage_of(leaf)] = leaf
                is_news = True
        return self.row(self.at), loss, is_news

    def asking(self, known):
        self.known = known
        return self


cdef class Kept:
    """The gradients of leaves, as they were."""

    cdef list of_leaves

    def __init__(self, leaves):
        cdef ArrayOp *q
        self.of_leaves = []
        for p in leaves:
            gradient = p.grad
            if type(p) is TensorArray:
                q = tape.array_ops[(<TensorArray>p).slot]
                gradient = np.array(gradient) if q.n_touched or q.factored > 0 else None
            self.of_leaves.append((p, gradient))

    cdef int restore(self) except -1:
        for p, gradient in self.of_leaves:
            if gradient is None:
                zero_leaf(tape.array_ops[(<TensorArray>p).slot])
            else:
                p.grad = gradient
        return 0


cdef class PlainWay:
    """Calls with arguments of these kinds, ("number",), ("whole",) and ("array", shape), go to the function at once.

    rows: for how many, at most.  What this is not for gets None, and goes the long way, with the same result.
    at: [-1]; the row whose function raises, if one does."""

    cdef readonly object cache
    cdef object function, convert
    cdef tuple kinds, numbers        # numbers: which are single ones that have a gradient
    cdef double most
    cdef RowCalls spare              # that is not in use

    def __init__(self, function, tuple kinds not None, cache, double rows, convert):
        self.function, self.kinds, self.cache, self.most, self.convert = function, kinds, cache, rows, convert
        self.numbers = tuple([kind[0] == "number" for kind in kinds])

    def call(self, tuple arguments not None):
        """A float, for a single row; not asked inside of another one's function."""
        global fs_inside
        cdef Py_ssize_t k, n = len(self.kinds)
        cdef list given = []
        if len(arguments) != n or self.most < 1:
            return None
        for k in range(n):
            x = arguments[k]
            kind = <tuple>self.kinds[k]
            if PyFloat_Check(x) and kind[0] == "number":
                given.append(leaf_of(x))
            elif type(x) is int and kind[0] == "whole" and -(1 << 62) < x < 1 << 62:
                given.append(x)
            elif kind[0] == "array" and is_row(x, kind[1]):
                given.append(own_array(x)._apart())
            else:
                return None
        fs_inside += 1
        try:
            found = PyObject_Vectorcall(self.function, PySequence_Fast_ITEMS(given), n, NULL)
        finally:
            fs_inside -= 1
        return tape.value[(<Tensor>(found if type(found) is Tensor else self.convert(found))).index]

    cdef RowCalls calls(self, tuple arguments):
        """Of as many rows as there are; None: these are not for this."""
        cdef Py_ssize_t n = -1, k
        cdef list columns = []
        cdef RowCalls calls
        if len(arguments) != len(self.kinds) or not arguments or recording_here() is not None:
            return None
        for k in range(len(arguments)):
            x, kind = arguments[k], <tuple>self.kinds[k]
            if type(x) is not ARRAY_TYPE:
                return None
            if self.numbers[k] or kind[0] == "whole":
                if x.dtype is not (FLOAT64 if self.numbers[k] else INT64) or x.ndim != 1:
                    return None
                columns.append(x.tolist())
            elif x.dtype is not FLOAT64 or x.shape[1:] != kind[1]:
                return None
            else:
                columns.append(iter_rows(x.copy()))
            if n not in (-1, len(x)):
                return None
            n = len(x)
        if not 1 <= n <= self.most:
            return None
        calls, self.spare = self.spare, None     # another call may be in the function
        if calls is None:
            calls = RowCalls.__new__(RowCalls)
            calls.function, calls.convert = self.function, self.convert
            calls.stream = Stream.__new__(Stream)
            calls.stream.counts, calls.stream.begun = {}, {}
        calls.columns, calls.numbers, calls.n = columns, self.numbers, n
        calls.at, calls.calling, calls.stream.seed = -1, False, default_seed()
        return calls

    cdef int end(self, RowCalls calls, list at) except -1:
        if calls.calling:
            at[0] = calls.at
        else:
            calls.columns, calls.given, self.spare = None, None, calls
        return 0

    def map(self, tuple arguments not None, list at not None):
        """The values, (n,)."""
        cdef RowCalls calls = self.calls(arguments)
        if calls is None:
            return None
        values = empty(calls.n)
        try:
            calls.into(values)
        finally:
            self.end(calls, at)
        return values

    def gradients(self, tuple arguments not None, list at not None, tuple argnums not None):
        """The values, (n,), and the derivatives by some arguments; captured leaves keep their gradients."""
        cdef RowCalls calls
        cdef Py_ssize_t first = 0, k, i
        cdef list results, given
        cdef int number
        cdef Tensor root
        cdef Kept kept
        for number in argnums:
            if not 0 <= number < len(self.kinds) or self.kinds[number][0] == "whole":
                return None
        calls = self.calls(arguments)
        if calls is None:
            return None
        values, slopes = empty(calls.n), [empty(arguments[number].shape) for number in argnums]
        try:
            while first < calls.n:
                given = []
                root, leaves, results = self.forward(calls, given, AT_ONCE)
                kept = Kept(leaves)
                try:
                    root.backward()
                    for k in range(len(argnums)):
                        number = argnums[k]
                        if self.numbers[number]:
                            enter(slopes[k], first, [(<list>some)[number] for some in given], tape.grad)
                            continue
                        for i in range(len(given)):
                            slopes[k][first + i] = (<list>given[i])[number].grad
                finally:
                    kept.restore()
                enter(values, first, results, tape.value)
                first += len(results)
        finally:
            self.end(calls, at)
        return values, slopes

    def backward(self, tuple arguments not None, list at not None, bint accumulate):
        """The values, (n,); leaves the sum of the gradients in the captured leaves, or nothing has changed."""
        cdef RowCalls calls = self.calls(arguments)
        cdef Tensor root
        cdef list results, given = []
        cdef Kept kept
        if calls is None:
            return None
        values = empty(calls.n)
        try:
            root, leaves, results = self.forward(calls, given, calls.n)
        finally:
            self.end(calls, at)
        enter(values, 0, results, tape.value)
        kept = Kept(leaves)
        try:
            if not accumulate:
                for p in leaves:
                    if type(p) is TensorArray:
                        zero_leaf(tape.array_ops[(<TensorArray>p).slot])
                    else:
                        p.grad = 0.0
            root.backward(accumulate=True)
        except BaseException:
            kept.restore()
            raise
        return values

    cdef tuple forward(self, RowCalls calls, list given, Py_ssize_t most):
        """What is to be differentiated, the captured leaves that it reads, and the results that it adds up."""
        cdef Tensor marker = leaf_of(0.0), root
        cdef list results
        context = record() if tape.no_grad_threads else None     # as replays do, also in a block of no_grad
        if context is not None:
            context.__enter__()
        try:
            results = calls.results(given, most)
            root = <Tensor>results[0] if len(results) == 1 else total(results)
            return root, leaves_before(marker, root), results
        finally:
            if context is not None:
                context.__exit__()


def iter_rows(values):
    """The rows of an array as what the function is given."""
    for row in values:
        yield own_array(row)._apart()


cdef bint is_row(x, tuple shape) except -1:
    """Whether it is an array of floats of a shape, or a list of them."""
    if type(x) is ARRAY_TYPE:
        return x.dtype is FLOAT64 and x.shape == shape
    if type(x) is not list or len(shape) != 1 or len(<list>x) != shape[0]:
        return False
    for number in <list>x:
        if type(number) is not float:
            return False
    return True
