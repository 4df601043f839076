# One step of an optimiser, as plain numbers.  Private, not an API.

from fastscalar._core cimport fs_rule


cdef class Rule:
    cdef fs_rule rule       # without what changes from step to step: at_step() sets that
    cdef readonly bint keeps_first      # it keeps `s`
    cdef readonly bint keeps_second     # it keeps `t`
    cdef readonly double clip_norm      # infinity: not clipped

    cdef void at_step(self, double step, double rate) noexcept nogil
    cdef void clip(self, double squares) noexcept nogil
