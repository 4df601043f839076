# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""What goes into a replay and comes out, prepared: sparse rows, which leaves are trained, gradients that are kept.

The boundary: knows the leaves on the tape and the data of rows, no plans.
"""

from libc.string cimport memcpy

from fastscalar.engine._array cimport *
from fastscalar._core cimport *
from fastscalar.engine.memory cimport data_of
from fastscalar.program._kernels cimport fs_batch
from fastscalar.program._replay cimport GUARD_FAILED, batch_kernels

import numpy as np

from fastscalar.engine._step import offsets_of, storage_of


def trained_elements(list captures, list parameters):
    """By capture, which of its elements are among the parameters: an array of uint8."""
    cdef dict parts = {}
    cdef Py_ssize_t count
    for p in parameters:
        parts.setdefault(storage_of(p), []).append(p)
    out = []
    for capture in captures:
        listed = parts.get(storage_of(capture), ())
        count = 1 if type(capture) is Tensor else tape.array_ops[(<TensorArray>capture).slot].count
        chosen = np.zeros(count, np.uint8)
        for p in listed:
            if type(p) is TensorArray and is_contiguous(p) and element_count(p) == count:
                chosen[:] = 1
            else:
                chosen[0 if count == 1 else offsets_of(p)] = 1
        out.append(chosen)
    return out


def state_places(list captures, list parameters):
    """By capture, where in the flat arrays of an optimiser each of its elements is, as int64; -1: it has none."""
    cdef dict parts = {}
    cdef Py_ssize_t count, at = 0
    for p in parameters:
        parts.setdefault(storage_of(p), []).append((at, p))
        at += 1 if type(p) is Tensor else element_count(p)
    out = []
    for capture in captures:
        count = 1 if type(capture) is Tensor else tape.array_ops[(<TensorArray>capture).slot].count
        place = np.full(count, -1, np.int64)
        for at, p in parts.get(storage_of(capture), ()):
            offsets = np.zeros(1, np.int64) if count == 1 else offsets_of(p)
            place[offsets] = at + np.arange(len(offsets))
        out.append(place)
    return out


cdef class KeptGradients:
    """Context after which leaves have the gradients that they had when they were added: always, or only if an error
    leaves it.  Compiled, so that no interrupt comes between the first and the last."""
    cdef dict before
    cdef bint always

    def __init__(self, bint always):
        self.before, self.always = {}, always

    def add(self, leaves):
        for p in leaves:
            key = storage_of(p)
            if key not in self.before:
                self.before[key] = (p, p.grad if type(p) is Tensor else np.array(p.grad))

    def __enter__(self):
        return self

    def __exit__(self, kind=None, *error):
        if self.always or kind is not None:
            for p, gradient in self.before.values():
                p.grad = gradient


def parted(rows, status, found, values):
    """Some rows that a recording was tried with, by its status of each: those that fit it, the others, and by these the
    first guard that says so, -1 if it is something else.

    found: what the replay said of each, whose values are put in `values`, by row of the data, for those that fit."""
    cdef const long long[::1] some = rows
    cdef const unsigned char[::1] marks = status
    cdef const double[:, ::1] said = found
    cdef double[:, ::1] out = values
    cdef Py_ssize_t l, n_fit = 0, n_left = 0, n = some.shape[0], width = said.shape[1]
    left, fitting, guards = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    cdef long long[::1] those_left = left, those_fitting = fitting, guard = guards
    for l in range(n):
        if not marks[l]:
            those_fitting[n_fit] = some[l]
            n_fit += 1
            if width:
                memcpy(&out[some[l], 0], &said[l, 0], width * sizeof(double))
        else:
            those_left[n_left] = some[l]
            guard[n_left] = <long long>said[l, 0] if marks[l] & GUARD_FAILED and width else -1
            n_left += 1
    return fitting[:n_fit], left[:n_left], guards[:n_left]


def sparse_rows(data, bint float64, double limit, int parts):
    """The non-zero entries of the rows of an array, or None if more than `limit` of its numbers are.

    (begin, column, value, border): columns are cut at `border` into parts, each with as many entries or nearly so;
    begin[r * parts + t]: where part t of row r begins in column and value."""
    cdef const double[:, ::1] x = data
    cdef Py_ssize_t n = x.shape[0], width = x.shape[1], r, at = 0, room
    cdef const fs_batch *kernels = batch_kernels(float64)
    some = np.linspace(0, n - 1, min(n, 64)).astype(np.int64)
    share = np.count_nonzero(np.asarray(data).take(some, 0)) / max(1, len(some) * width)
    if share > limit or width > 1 << 20:
        return None
    size = 8 if float64 else 4
    begin = np.zeros(n + 1, np.intp)
    room = int(share * 1.1 * n * width) + width + 64
    column = np.empty(room, np.int32)
    value = np.empty(room, np.float64 if float64 else np.float32)
    cdef Py_ssize_t[::1] b = begin
    cdef int *c = <int *>data_of(column)
    cdef char *v = <char *>data_of(value)
    cdef int element = size
    r = 0
    while r < n:
        with nogil:
            while r < n and at + width + 32 <= room:
                at += kernels.compress(c + at, v + at * element, &x[r, 0], <int>width)
                r += 1
                b[r] = at
        if r < n:
            room = 2 * room
            column, value = np.resize(column, room), np.resize(value, room)
            c = <int *>data_of(column)
            v = <char *>data_of(value)
    if not at:
        column[0] = 0                            # there is something to point at
    column, value = column[:max(at, 1)], value[:max(at, 1)]
    border = np.array([0] * parts + [width], np.int32)
    if parts > 1:
        sample = np.sort(column[::max(1, at // 65536)])
        border[1:parts] = sample.take(len(sample) * np.arange(1, parts) // parts)
        begin = parts_of_rows(begin, column, border[:parts])
    return begin, column, value, border


cdef object parts_of_rows(begin, column, border):
    """Where the columns of each row pass each border; the first border is 0."""
    cdef const Py_ssize_t[::1] begins = begin
    cdef const int[::1] c = column, borders = border
    cdef Py_ssize_t n = begins.shape[0] - 1, parts = borders.shape[0], r, t, low, high, middle
    out = np.empty(n * parts + 1, np.intp)
    cdef Py_ssize_t[::1] at = out
    with nogil:
        for r in range(n):
            low = begins[r]
            for t in range(parts):
                high = begins[r + 1]
                while low < high:
                    middle = (low + high) // 2
                    if c[middle] < borders[t]:
                        low = middle + 1
                    else:
                        high = middle
                at[r * parts + t] = low
        at[n * parts] = begins[n]
    return out
