# The formulas of the scalar operations: f_* is the value, d_* the derivative by an operand.
#
# Inline, nogil, without Python objects and without errors: they follow IEEE 754, and the engine decides what is an
# error by looking at the result.  `a`, `b` are the operands' values, `v` the node's own.  The twin has the same
# formulas in the same order of operations (`reference._DERIVATIVES`), so that both give the same bits.

cimport cython
from libc.math cimport NAN, exp, log, pow


# --- values ---


cdef inline double f_add(double a, double b) noexcept nogil:
    return a + b


cdef inline double f_sub(double a, double b) noexcept nogil:
    return a - b


cdef inline double f_mul(double a, double b) noexcept nogil:
    return a * b


@cython.cdivision(True)
cdef inline double f_div(double a, double b) noexcept nogil:
    return a / b


cdef inline double f_pow(double a, double b) noexcept nogil:
    return pow(a, b)


cdef inline double f_neg(double a) noexcept nogil:
    return -a


cdef inline double f_relu(double a) noexcept nogil:
    return 0.0 if a <= 0.0 else a          # NaN stays NaN


cdef inline double f_exp(double a) noexcept nogil:
    return exp(a)


cdef inline double f_log(double a) noexcept nogil:
    return log(a)


# --- derivatives of unary operations: d_*(a, v) ---


cdef inline double d_neg(double a, double v) noexcept nogil:
    return -1.0


cdef inline double d_relu(double a, double v) noexcept nogil:
    return 0.0 if a <= 0.0 else 1.0        # the kink: relu'(0) = 0


cdef inline double d_exp(double a, double v) noexcept nogil:
    return v


@cython.cdivision(True)
cdef inline double d_log(double a, double v) noexcept nogil:
    return 1.0 / a


# --- derivatives of binary operations by the left and by the right operand: d_*_a(a, b, v), d_*_b(a, b, v) ---


cdef inline double d_add_a(double a, double b, double v) noexcept nogil:
    return 1.0


cdef inline double d_add_b(double a, double b, double v) noexcept nogil:
    return 1.0


cdef inline double d_sub_a(double a, double b, double v) noexcept nogil:
    return 1.0


cdef inline double d_sub_b(double a, double b, double v) noexcept nogil:
    return -1.0


cdef inline double d_mul_a(double a, double b, double v) noexcept nogil:
    return b


cdef inline double d_mul_b(double a, double b, double v) noexcept nogil:
    return a


@cython.cdivision(True)
cdef inline double d_div_a(double a, double b, double v) noexcept nogil:
    return 1.0 / b


@cython.cdivision(True)
cdef inline double d_div_b(double a, double b, double v) noexcept nogil:
    return -(v / b)


cdef inline double d_pow_a(double a, double b, double v) noexcept nogil:
    return 0.0 if b == 0.0 else b * pow(a, b - 1.0)


cdef inline double d_pow_b(double a, double b, double v) noexcept nogil:
    if a > 0.0:
        return v * log(a)
    return 0.0 if a == 0.0 and b >= 0.0 else NAN
