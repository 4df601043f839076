# cython: language_level=3, wraparound=False, cdivision=True
# cython: auto_pickle=False
"""Calls of a program with one row, the short way: a replay that stays bound to room of its own for the arguments.

The boundary: knows replays; which recording it is for, and whether this is a moment for it, `replayed` and `api` know.
A call that it is not for (other types, another shape, a row that decides otherwise or may raise, another thread within)
gets None, and goes the long way, with the same result.
"""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree
from libc.string cimport memcpy

from fastscalar.engine.memory cimport allocate, data_of, out_of_memory
from fastscalar.program._kernels cimport fs_batch
from fastscalar.program._replay cimport Replay, batch_kernels
from fastscalar.program.plan cimport *

import numpy as np

cdef enum:
    MOST_AXES = 4

ctypedef struct Room:       # for the numbers of an argument
    void *data              # double, or int64
    bint real
    int n_axes
    Py_ssize_t[4] shape
    Py_ssize_t size


cdef class OneRow:
    """For arguments of these kinds: ("number",), ("array", shape), ("whole",) and ("wholes", shape)."""

    cdef Replay replay
    cdef Room *rooms                 # by argument
    cdef list held                   # the arrays that these are
    cdef object values
    cdef long long row
    cdef bint busy
    cdef const fs_batch *kernels     # as they were: a program goes by those in use

    def __cinit__(self, Replay replay not None, kinds):
        cdef Room *r
        cdef int at = 0, k
        self.replay, self.held, self.row = replay, [], 0
        self.kernels = batch_kernels(True)
        self.values = np.empty((1, replay.plan.body.n_results))
        self.rooms = <Room *>allocate((len(kinds) + 1) * sizeof(Room))
        if self.rooms == NULL:
            out_of_memory("a program", len(kinds))
        for i, kind in enumerate(kinds):
            r = &self.rooms[<int>i]
            shape = kind[1] if len(kind) > 1 else ()
            r.real, r.n_axes = kind[0] in ("number", "array"), len(shape)
            room = np.zeros(shape, np.float64 if r.real else np.int64)
            r.data, r.size = data_of(room), room.size
            for k in range(r.n_axes):
                r.shape[k] = shape[k]
            self.held.append(room)
            if kind[0] == "array":
                replay.bind(at, room.reshape(1, -1))
                at += 1
                continue
            flat = room.reshape(-1)
            for k in range(<int>r.size):
                replay.bind(at, flat[k:k + 1])
                at += 1

    def __dealloc__(self):
        PyMem_RawFree(self.rooms)

    def value(self, tuple arguments):
        """The results for one row, (results,); None: go the long way."""
        return self.run(arguments, 0, False)

    def backward(self, tuple arguments, bint accumulate):
        """The results for arrays of one row each, (1, results), the gradients left in the captured leaves; None: go
        the long way."""
        found = self.run(arguments, PARAMETERS, True)
        if found is not None:
            self.replay.commit_gradients(accumulate)
        return found

    cdef object run(self, tuple arguments, int mode, bint many):
        cdef Py_ssize_t k
        cdef double[:, ::1] out = self.values
        if self.busy or len(arguments) != len(self.held) or self.kernels != batch_kernels(True):
            return None
        self.busy = True                         # another thread may come in while this one has let go of the lock
        try:
            for k in range(len(arguments)):
                if not take(arguments[k], &self.rooms[k], many):
                    return None
            self.replay.load()
            if self.replay.go_few(mode, &self.row, 1, &out[0, 0]):
                return None
            return self.values.copy() if many else self.values[0].copy()
        finally:
            self.busy = False


def has_room(kinds):
    """Whether OneRow knows such arguments."""
    return all(kind[0] in ("number", "whole", "array", "wholes") and len(kind[1] if len(kind) > 1 else ()) <= MOST_AXES
               for kind in kinds)


cdef bint take(argument, Room *r, bint many) except -1:
    """Copy an argument into its room, if it is what the recording was made for."""
    cdef Py_buffer view
    cdef bint fits
    cdef int k, first = many                     # of many rows the first axis is that of rows
    if type(argument) is np.ndarray:
        try:
            PyObject_GetBuffer(argument, &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        except (ValueError, BufferError):        # strides, or a type that buffers have not
            return False
        fits = view.ndim == r.n_axes + first and view.format[1] == 0 and (
            view.format[0] == c"d" if r.real else view.format[0] in (c"l", c"q")) and view.len == 8 * r.size
        for k in range(r.n_axes):
            fits = fits and view.shape[k + first] == r.shape[k]
        if fits:
            memcpy(r.data, view.buf, view.len)
        PyBuffer_Release(&view)
        return fits
    if many or r.n_axes > 1:
        return False
    if type(argument) is float and r.real and r.n_axes == 0:
        (<double *>r.data)[0] = argument
        return True
    if type(argument) is int and not r.real and r.n_axes == 0 and -(1 << 62) < argument < 1 << 62:
        (<long long *>r.data)[0] = argument
        return True
    return type(argument) is list and r.real and take_list(argument, r)


cdef bint take_list(list numbers, Room *r) except -1:
    cdef Py_ssize_t k
    if len(numbers) != r.size or r.n_axes != 1:
        return False
    for k in range(r.size):
        if type(numbers[k]) is not float:
            return False
        (<double *>r.data)[k] = numbers[k]
    return True
