# cython: language_level=3, wraparound=False, cdivision=True
# What operations raise: as Python's operators of floats, and its `math`.

from libc.math cimport floor, isinf, isnan

from fastscalar._core cimport Recorder, lenient, op_name, programs, recording_here, row
from fastscalar.engine.tape cimport (CEIL, FLOOR, FMOD, NO_ERROR, POLE, POLYGAMMA, POW, REMAINDER, TRUNC)


cdef inline bint is_error(int code, double a, double b, double v) noexcept nogil:
    """Whether an operation with this result, which is not finite, raises.  Unary ones have no b."""
    if code == FLOOR or code == CEIL or code == TRUNC:
        return True
    if row(code).arity == 1:
        return (isnan(v) and not isnan(a)) or (
            isinf(v) and not isinf(a) and not isnan(a) and row(code).infinity != NO_ERROR)
    if row(code).divides:
        return b == 0.0
    if code == POW:
        return (a == 0.0 and b < 0.0 and not isinf(b)) or (isnan(v) and not isnan(a) and not isnan(b)) or (
            isinf(v) and not isinf(a) and not isinf(b))
    if code == FMOD or code == REMAINDER or code == POLYGAMMA:
        return (isnan(v) and not isnan(a) and not isnan(b)) or (code == POLYGAMMA and isinf(v) and not isinf(a))
    return False


cdef inline int fail(int code, double a, double b, double v, int left, int right) except -1:
    """The result is not finite: raise what Python raises, or nothing.  left, right: the operands' nodes, 0: none."""
    cdef Recorder recording
    if not is_error(code, a, b, v) or lenient():
        return 0
    if programs:
        recording = recording_here()
        if recording is not None:
            recording.raised(code, left, right, a, b)
            try:
                raise_error(code, a, b, v)
            except (ValueError, ArithmeticError) as error:       # what it says depends on the operands
                error.args = (recording.message(error.args[0], left, right),)
                raise
    raise_error(code, a, b, v)


cdef inline int raise_error(int code, double a, double b, double v) except -1:
    if row(code).arity == 1:
        raise_unary(code, a, v)
    elif row(code).divides:
        raise ZeroDivisionError(f"{a!r} {op_name(code)} {b!r}: division by zero")
    else:
        raise_binary(code, a, b, v)
    raise AssertionError(f"{op_name(code)}({a!r}, {b!r}) is no error")


cdef inline int raise_unary(int code, double a, double v) except -1:
    """Raise what Python's `math` raises, or nothing."""
    if code == FLOOR or code == CEIL or code == TRUNC:           # of floats they are whole numbers, which have neither
        if isnan(v):
            raise ValueError(f"{op_name(code)}({a!r}): cannot convert float NaN to integer")
        raise OverflowError(f"{op_name(code)}({a!r}): cannot convert float infinity to integer")
    if isnan(v) and not isnan(a):
        raise ValueError(f"{op_name(code)}({a!r}): outside the function's domain")
    if isinf(v) and not isinf(a) and not isnan(a):
        # lgamma(-1) is a pole; lgamma(1e306) and gamma(1e-310) are overflows
        if row(code).infinity == POLE and a <= 1.0 and a == floor(a):
            raise ValueError(f"{op_name(code)}({a!r}): outside the function's domain")
        if row(code).infinity != NO_ERROR:
            raise OverflowError(f"{op_name(code)}({a!r}): the result is too large for a float")
    return 0


cdef inline int raise_binary(int code, double a, double b, double v) except -1:
    """Raise what Python raises, or nothing."""
    if code == POW:
        raise_power(a, b, v)
    elif code in (FMOD, REMAINDER, POLYGAMMA) and isnan(v) and not isnan(a) and not isnan(b):
        raise ValueError(f"{op_name(code)}({a!r}, {b!r}): outside the function's domain")
    elif code == POLYGAMMA and isinf(v) and not isinf(a):
        if a <= 0.0 and a == floor(a):
            raise ValueError(f"{op_name(code)}({a!r}, {b!r}): a pole")
        raise OverflowError(f"{op_name(code)}({a!r}, {b!r}): the result is too large for a float")
    return 0


cdef inline int raise_power(double a, double b, double v) except -1:
    """Raise what Python's `**` of floats raises, or nothing."""
    if a == 0.0 and b < 0.0 and not isinf(b):    # 0.0 ** -inf is inf in Python too
        raise ZeroDivisionError(f"{a!r} ** {b!r}: zero to a negative power")
    if isnan(v) and not isnan(a) and not isnan(b):
        raise ValueError(f"{a!r} ** {b!r}: the result is complex (a negative base needs an integer exponent)")
    if isinf(v) and not isinf(a) and not isinf(b):
        raise OverflowError(f"{a!r} ** {b!r}: the result is too large for a float")
    return 0
