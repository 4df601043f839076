# One step of an optimiser, as plain numbers.  Private, not an API.

from libc.math cimport isfinite, pow as cpow, sqrt

from fastscalar._core cimport fs_rule


cdef class Rule:
    cdef fs_rule rule       # without what changes from step to step: at_step() sets that
    cdef readonly bint keeps_first      # it keeps `s`
    cdef readonly bint keeps_second     # it keeps `t`
    cdef readonly double clip_norm      # infinity: not clipped


cdef inline void at_step(fs_rule *rule, double step, double rate, double scale) noexcept nogil:
    """For the step-th step, from 1, at this rate; gradients are multiplied by the scale."""
    rule.rate, rule.scale = rate, scale
    rule.correction1 = 1.0 - cpow(rule.beta1, step)
    rule.correction2 = sqrt(1.0 - cpow(rule.beta2, step))


cdef inline void shorten(fs_rule *rule, double most, double squares) noexcept nogil:
    """Gradients of this sum of squares are to be `most` long at most, as PyTorch's clip_grad_norm_ does it."""
    cdef double factor = most / (sqrt(squares) * rule.scale + 1e-6)
    if not factor >= 1.0:                        # NaN too: it is not to be hidden
        rule.scale = rule.scale * factor
