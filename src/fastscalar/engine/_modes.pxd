# What listens when Tensors become plain numbers.  Private, not an API.

from fastscalar._core cimport Tensor


cdef class Watching:
    cdef tuple before            # what was watched around it: it needs no memory to leave it
    cdef readonly dict said
    cdef Tensor marker           # what is older is older than the row; None between two rows
    cdef object arguments        # what the function was called with for the row

    cdef bint knows_place(self) except -1

cdef bint begin_row(arguments) except -1
cdef int end_row() except -1
