# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""The function of a program called for rows, in loops that cost what a user's own would: for programs that have fallen
back.

The boundary: knows functions of numbers and arrays with one number as result; which rows they are called for `called`
knows, and what else becomes of these.
"""

from cpython.float cimport PyFloat_Check
from cpython.mem cimport PyMem_RawFree
from cpython.object cimport PyObject
from libc.string cimport memcpy

from fastscalar._core cimport *
from fastscalar.engine._random cimport Stream, streams
from fastscalar.engine._array cimport TensorArray, element_count
from fastscalar.engine._modes cimport Watching, begin_row, end_row
from fastscalar.engine._inspect cimport backward_or_nothing, find_gradients
from fastscalar.engine.memory cimport allocate, data_of, out_of_memory

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

cpdef enum:
    AS_IT_IS = 0
    A_NUMBER = 1
    AN_ARRAY = 2

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

    columns: lists, and iterators.  kinds: which are lists of floats, that become leaves, and which are arrays of rows,
    of which the function gets a handle of its own.  convert: makes a Tensor of what is none.  While the function runs
    `at` is the place of its row among these, and random numbers are the row's; between two rows nothing is left open.
    """

    cdef readonly Py_ssize_t at
    cdef readonly bint calling       # in the function, which may have raised there
    cdef readonly list given         # the leaves of the row
    cdef object function, convert
    cdef list columns
    cdef tuple kinds
    cdef bint has_arrays
    cdef const long long *rows       # NULL: 0, 1, ...
    cdef Py_ssize_t n
    cdef object held                 # where they stand
    cdef Stream stream
    cdef long long offset

    def __init__(self, function, columns, tuple kinds not None, rows, Stream stream not None, long long offset,
                 convert):
        self.function, self.convert, self.kinds = function, convert, kinds
        self.columns, self.held, self.at = list(columns), np.ascontiguousarray(rows, np.int64), -1
        self.rows, self.n = <const long long *>data_of(self.held), len(self.held)
        self.stream, self.offset, self.has_arrays = stream, offset, AN_ARRAY in kinds

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
        cdef list given = [], passed = given
        cdef list stack = streams()
        cdef bint watched = False
        self.at += 1
        for k in range(len(self.columns)):
            if <int>self.kinds[k] == A_NUMBER:
                given.append(leaf_of((<list>self.columns[k])[self.at]))
            elif type(self.columns[k]) is list:
                given.append((<list>self.columns[k])[self.at])
            else:
                given.append(next(self.columns[k]))
        self.given = given
        if self.has_arrays:
            passed = [x._apart() if kind == AN_ARRAY else x for kind, x in zip(self.kinds, given)]
        self.calling = True
        self.stream.row = self.offset + self.row(self.at)
        if self.stream.counts:                   # most functions draw nothing
            self.stream.counts = {}
        if self.stream.begun:
            self.stream.begun = {}
        self.stream.scope = 0
        if tracing:
            watched = begin_row(given)
        stack.append(self.stream)
        fs_inside += 1
        try:
            value = PyObject_Vectorcall(self.function, PySequence_Fast_ITEMS(passed), len(passed), NULL)
            if type(value) is not Tensor:
                value = self.convert(value)
        finally:
            fs_inside -= 1
            stack.pop()
            if watched:
                end_row()
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


cdef class PlainWay:
    """Calls with arguments of these kinds, ("number",), ("whole",) and ("array", shape), go to the function at once.

    names: of the arguments, by position.  rows: for how many, at most.  explained: the error to raise, of a method's
    name, the arguments, the row whose function raised, and what it raised.
    What this is not for gets None, and goes the long way, with the same result."""

    cdef readonly object cache
    cdef object function, convert, explained
    cdef tuple kinds, ways, names
    cdef bint has_arrays
    cdef double most
    cdef RowCalls spare              # that is not in use

    def __init__(self, function, tuple kinds not None, tuple names not None, cache, double rows, convert, explained):
        self.function, self.kinds, self.names, self.cache, self.most = function, kinds, names, cache, rows
        self.convert, self.explained = convert, explained
        self.ways = tuple([A_NUMBER if kind[0] == "number" else AN_ARRAY if kind[0] == "array" else AS_IT_IS
                           for kind in kinds])
        self.has_arrays = AN_ARRAY in self.ways

    def call(self, tuple arguments not None, dict named not None):
        """A float, for a single row; None inside of another one's function too."""
        global fs_inside
        cdef Py_ssize_t k, n = len(self.kinds), first = len(arguments)
        cdef list given = []
        cdef int way
        if fs_inside > 0 or recording_here() is not None:
            return None
        if first + len(named) != n or self.most < 1 or (first < n and len(self.names) < n):
            return None
        for k in range(n):
            if k < first:
                x = arguments[k]
            elif self.names[k] in named:
                x = named[self.names[k]]
            else:
                return None
            way = self.ways[k]
            if way == A_NUMBER and PyFloat_Check(x):
                given.append(leaf_of(x))
            elif way == AS_IT_IS and type(x) is int and -(1 << 62) < x < 1 << 62:
                given.append(x)
            elif way == AN_ARRAY and is_row(x, (<tuple>self.kinds[k])[1]):
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
        cdef int way
        if len(arguments) != len(self.kinds) or not arguments or recording_here() is not None:
            return None
        for k in range(len(arguments)):
            x, way = arguments[k], self.ways[k]
            if type(x) is not ARRAY_TYPE or x.dtype is not (INT64 if way == AS_IT_IS else FLOAT64):
                return None
            if way != AN_ARRAY:
                if x.ndim != 1:
                    return None
                columns.append(x.tolist())
            elif x.shape[1:] != (<tuple>self.kinds[k])[1]:
                return None
            else:
                columns.append(map(own_array, x.copy()))
            if n not in (-1, len(x)):
                return None
            n = len(x)
        if not 1 <= n <= self.most:
            return None
        calls, self.spare = self.spare, None     # another call may be in the function
        if calls is None:
            calls = RowCalls.__new__(RowCalls)
            calls.function, calls.convert = self.function, self.convert
            calls.kinds, calls.has_arrays = self.ways, self.has_arrays
            calls.stream = Stream.__new__(Stream)
            calls.stream.counts, calls.stream.begun = {}, {}
        calls.columns, calls.n = columns, n
        calls.at, calls.calling, calls.stream.seed = -1, False, default_seed()
        return calls

    cdef object failed(self, RowCalls calls, str method, tuple arguments, error):
        """What is to be raised, where the function has."""
        if calls.calling:
            raise self.explained(method, arguments, calls.at, error) from error
        raise error

    cdef int end(self, RowCalls calls) except -1:
        calls.columns, calls.given, self.spare = None, None, calls
        return 0

    def map(self, tuple arguments not None):
        """The values, (n,)."""
        cdef RowCalls calls = self.calls(arguments)
        if calls is None:
            return None
        values = empty(calls.n)
        try:
            calls.into(values)
        except Exception as error:
            self.failed(calls, "map", arguments, error)
        self.end(calls)
        return values

    def gradients(self, tuple arguments not None, argnums):
        """The values, (n,), and the derivatives by an argument, or by a tuple of them, whose `.grad` stays, as that of
        all leaves."""
        cdef RowCalls calls
        cdef Py_ssize_t first = 0
        cdef list results, given, gradients
        cdef bint single = type(argnums) is int
        cdef tuple numbers = (argnums,) if single else argnums if type(argnums) is tuple else ()
        for number in numbers:
            if type(number) is not int or not 0 <= number < len(self.kinds) or self.ways[number] == AS_IT_IS:
                return None
        calls = self.calls(arguments) if numbers else None
        if calls is None:
            return None
        values, gradients = empty(calls.n), [empty(arguments[number].shape) for number in numbers]
        try:
            while first < calls.n:
                given = []
                results = self.results(calls, given, AT_ONCE)
                enter_gradients(results, given, numbers, gradients, first)
                enter(values, first, results, tape.value)
                first += len(results)
        except Exception as error:
            self.failed(calls, "value_and_grad", arguments, error)
        self.end(calls)
        return values, gradients[0] if single else tuple(gradients)

    def backward(self, tuple arguments not None, bint accumulate):
        """The values, (n,); leaves the sum of the gradients in the captured leaves, or nothing has changed."""
        cdef RowCalls calls = self.calls(arguments) if not tape.n_recorded else None
        cdef list results
        if calls is None:
            return None
        values = empty(calls.n)
        try:
            results = self.results(calls, [], calls.n)
            backward_or_nothing(sum_of(results), accumulate)
        except Exception as error:
            self.failed(calls, "backward", arguments, error)
        enter(values, 0, results, tape.value)
        self.end(calls)
        return values

    cdef list results(self, RowCalls calls, list given, Py_ssize_t most):
        if not tape.no_grad_threads:
            return calls.results(given, most)
        with record():                           # as replays do, also in a block of no_grad
            return calls.results(given, most)


cdef Tensor sum_of(list results):
    if len(results) == 1:
        return <Tensor>results[0]
    if not tape.no_grad_threads:
        return total(results)
    with record():
        return total(results)


cdef int enter_gradients(list results, list given, tuple numbers, list gradients, Py_ssize_t first) except -1:
    """The derivatives of some results by arguments of theirs, into an array of float64 for each from a row on.

    given: the leaves of each result."""
    cdef Tensor root = sum_of(results)
    cdef Py_ssize_t n = 0, rows = len(given), i, k, size
    cdef int *nodes
    cdef int at
    cdef double *found
    cdef double *out
    for k in range(len(numbers)):
        n += rows * size_of((<list>given[0])[numbers[k]])
    found = <double *>allocate(n * (sizeof(double) + sizeof(int)))
    if found == NULL:
        out_of_memory("gradients", n)
    nodes = <int *>(found + n)
    lock_nodes()
    try:
        n = 0
        for k in range(len(numbers)):
            for i in range(rows):
                x = (<list>given[i])[numbers[k]]
                at = tape.array_ops[(<TensorArray>x).slot].start if type(x) is TensorArray else (<Tensor>x).index
                for size in range(size_of(x)):
                    nodes[n] = at + <int>size
                    n += 1
        find_gradients(root, nodes, n, found)
        n = 0
        for k in range(len(numbers)):
            size = size_of((<list>given[0])[numbers[k]])
            if rows * size == 1:                 # faster than to ask for the memory
                gradients[k][first] = found[n]
            else:
                out = <double *>data_of(gradients[k])
                memcpy(out + first * size, found + n, rows * size * sizeof(double))
            n += rows * size
    finally:
        unlock_nodes()
        PyMem_RawFree(found)
    return 0


cdef inline Py_ssize_t size_of(x) noexcept:
    return element_count(<TensorArray>x) if type(x) is TensorArray else 1


def in_a_plain_way(program, str method, tuple arguments not None, more):
    """What the function itself gives for rows, where a program has fallen back for these; None: go the long way.

    more: argnums, or whether gradients accumulate."""
    cdef PlainWay way
    if program._wants_leaves:
        return None
    for way in <tuple>program._plain_ways:
        if method == "map":
            found = way.map(arguments)
        else:
            if way.cache.lost:
                program.warn_of_loss(way.cache)
            with Watching(program._said):
                found = way.gradients(arguments, more) if method == "value_and_grad" else way.backward(arguments, more)
        if found is not None:
            return found
    return None


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
