# What stands for numbers and comparisons in a recording.  Private, not an API.

from fastscalar._core cimport Recorder, Tensor, TracedNumber


cdef class TracedInt(TracedNumber):
    cdef readonly object value      # of the row that is recorded
    cdef readonly int argument      # its place among the inputs of the recording; -1: it was computed
    cdef readonly bint is_truth     # of an array of bools: True or False, for which 1 or 0 stands


cdef class TracedBool:
    cdef Recorder recording         # None, like `left`, only in one that `_trace` did not make
    cdef int op                     # comparison, as CPython numbers them
    cdef Tensor left
    cdef Tensor right               # None: it was compared with the number, which has no node before one is needed
    cdef double number
    cdef bint outcome
    cdef bint of_array              # of a comparison of arrays, whose elements are NumPy's bool


cdef int out_of_range(TracedInt k, Py_ssize_t low, Py_ssize_t high) except -1
