# The data sheet of TensorArray.  Private, not an API.

cdef enum:
    MAX_DIMS = 8


cdef class TensorArray:
    cdef int slot           # the wide instruction that it lies in, whose `arrays` counts it; -1: none
    cdef int ndim
    cdef Py_ssize_t offset  # of its first element in the run
    cdef Py_ssize_t[MAX_DIMS] shape_
    cdef Py_ssize_t[MAX_DIMS] strides_    # in nodes
