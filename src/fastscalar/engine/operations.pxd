# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
# cython: nonecheck=False
# The operation table, and the errors of operations.
#
# One row registers an operation: its name, what it does, its derivatives.  Methods, arrays, tests and drawing read it.
# `infinity` says what an infinite result of a finite operand is: as in Python's `math` a pole (ValueError), too large
# (OverflowError) or no error.  NaN of operands that are not NaN is a ValueError.  The last entries say what the
# derivatives read of the operands and the result, `(a, v)` or `(a, b, v)` in their formulas.

from libc.math cimport floor, isinf, isnan

from fastscalar._core cimport op_name, row
from fastscalar.engine.formulas cimport *
from fastscalar.engine.tape cimport *


cdef inline void leaf_row(int code, const char *name) noexcept:
    row(code).name = name


cdef inline void unary_row(int code, const char *name, Unary f, Slope1 d, int infinity, bint method,
                           int reads) noexcept:
    row(code).name = name
    row(code).reads_a = reads
    row(code).arity = 1
    row(code).f = f
    row(code).d = d
    row(code).infinity = infinity
    row(code).method = method


cdef inline void binary_row(int code, const char *name, Binary f, Slope2 da, Slope2 db, bint divides, bint method,
                            int reads_a, int reads_b) noexcept:
    row(code).name = name
    row(code).reads_a = reads_a
    row(code).reads_b = reads_b
    row(code).arity = 2
    row(code).f2 = f
    row(code).da = da
    row(code).db = db
    row(code).divides = divides
    row(code).method = method


cdef inline void fill_table() noexcept:
    leaf_row(LEAF, b"")
    leaf_row(CONST, b"const")
    leaf_row(WIDE, b"wide")
    binary_row(ADD, b"+", f_add, d_add_a, d_add_b, False, False,
               READS_NOTHING, READS_NOTHING)
    binary_row(SUB, b"-", f_sub, d_sub_a, d_sub_b, False, False,
               READS_NOTHING, READS_NOTHING)
    binary_row(MUL, b"*", f_mul, d_mul_a, d_mul_b, False, False,
               READS_B, READS_A)
    binary_row(DIV, b"/", f_div, d_div_a, d_div_b, True, False,
               READS_B, READS_B | READS_V)
    binary_row(POW, b"**", f_pow, d_pow_a, d_pow_b, False, False,
               READS_A | READS_B, READS_A | READS_B | READS_V)
    unary_row(NEG, b"neg", f_neg, d_neg, NO_ERROR, False, READS_NOTHING)
    unary_row(RELU, b"relu", f_relu, d_relu, NO_ERROR, True, READS_A)
    unary_row(EXP, b"exp", f_exp, d_exp, TOO_LARGE, True, READS_V)
    unary_row(LOG, b"log", f_log, d_log, POLE, True, READS_A)
    unary_row(EXP2, b"exp2", f_exp2, d_exp2, TOO_LARGE, True, READS_V)
    unary_row(EXPM1, b"expm1", f_expm1, d_expm1, TOO_LARGE, True, READS_V)
    unary_row(LOG2, b"log2", f_log2, d_log2, POLE, True, READS_A)
    unary_row(LOG10, b"log10", f_log10, d_log10, POLE, True, READS_A)
    unary_row(LOG1P, b"log1p", f_log1p, d_log1p, POLE, True, READS_A)
    unary_row(SQRT, b"sqrt", f_sqrt, d_sqrt, NO_ERROR, True, READS_V)
    unary_row(CBRT, b"cbrt", f_cbrt, d_cbrt, NO_ERROR, True, READS_V)
    unary_row(SIN, b"sin", f_sin, d_sin, NO_ERROR, True, READS_A)
    unary_row(COS, b"cos", f_cos, d_cos, NO_ERROR, True, READS_A)
    unary_row(TAN, b"tan", f_tan, d_tan, NO_ERROR, True, READS_V)
    unary_row(ASIN, b"asin", f_asin, d_asin, NO_ERROR, True, READS_A)
    unary_row(ACOS, b"acos", f_acos, d_acos, NO_ERROR, True, READS_A)
    unary_row(ATAN, b"atan", f_atan, d_atan, NO_ERROR, True, READS_A)
    unary_row(SINH, b"sinh", f_sinh, d_sinh, TOO_LARGE, True, READS_A)
    unary_row(COSH, b"cosh", f_cosh, d_cosh, TOO_LARGE, True, READS_A)
    unary_row(TANH, b"tanh", f_tanh, d_tanh, NO_ERROR, True, READS_V)
    unary_row(ASINH, b"asinh", f_asinh, d_asinh, NO_ERROR, True, READS_A)
    unary_row(ACOSH, b"acosh", f_acosh, d_acosh, NO_ERROR, True, READS_A)
    unary_row(ATANH, b"atanh", f_atanh, d_atanh, POLE, True, READS_A)
    unary_row(ERF, b"erf", f_erf, d_erf, NO_ERROR, True, READS_A)
    unary_row(ERFC, b"erfc", f_erfc, d_erfc, NO_ERROR, True, READS_A)
    unary_row(NDTR, b"ndtr", f_ndtr, d_ndtr, NO_ERROR, True, READS_A)
    unary_row(LGAMMA, b"lgamma", f_lgamma, d_lgamma, POLE, True, READS_A)
    unary_row(DIGAMMA, b"digamma", f_digamma, d_digamma, POLE, True, READS_A)
    unary_row(ABS, b"abs", f_abs, d_abs, NO_ERROR, True, READS_A)
    unary_row(SIGN, b"sign", f_sign, d_sign, NO_ERROR, True, READS_NOTHING)
    unary_row(FLOOR, b"floor", f_floor, d_floor, NO_ERROR, True, READS_NOTHING)
    unary_row(CEIL, b"ceil", f_ceil, d_ceil, NO_ERROR, True, READS_NOTHING)
    unary_row(TRUNC, b"trunc", f_trunc, d_trunc, NO_ERROR, True, READS_NOTHING)
    unary_row(DEGREES, b"degrees", f_degrees, d_degrees, NO_ERROR, True, READS_NOTHING)
    unary_row(RADIANS, b"radians", f_radians, d_radians, NO_ERROR, True, READS_NOTHING)
    unary_row(SIGMOID, b"sigmoid", f_sigmoid, d_sigmoid, NO_ERROR, True, READS_A)
    unary_row(SOFTPLUS, b"softplus", f_softplus, d_softplus, NO_ERROR, True, READS_A)
    unary_row(SILU, b"silu", f_silu, d_silu, NO_ERROR, True, READS_A)
    unary_row(GELU, b"gelu", f_gelu, d_gelu, NO_ERROR, True, READS_A)
    binary_row(MINIMUM, b"minimum", f_minimum, d_minimum_a, d_minimum_b, False, True,
               READS_A | READS_B, READS_A | READS_B)
    binary_row(MAXIMUM, b"maximum", f_maximum, d_maximum_a, d_maximum_b, False, True,
               READS_A | READS_B, READS_A | READS_B)
    binary_row(ATAN2, b"atan2", f_atan2, d_atan2_a, d_atan2_b, False, True,
               READS_A | READS_B, READS_A | READS_B)
    binary_row(HYPOT, b"hypot", f_hypot, d_hypot_a, d_hypot_b, False, True,
               READS_A | READS_V, READS_B | READS_V)
    binary_row(COPYSIGN, b"copysign", f_copysign, d_copysign_a, d_copysign_b, False, True,
               READS_A | READS_B, READS_NOTHING)
    binary_row(FMOD, b"fmod", f_fmod, d_fmod_a, d_fmod_b, False, True,
               READS_NOTHING, READS_A | READS_B | READS_V)
    binary_row(MOD, b"%", f_mod, d_mod_a, d_mod_b, True, False,
               READS_NOTHING, READS_A | READS_B | READS_V)
    binary_row(FLOORDIV, b"//", f_floordiv, d_floordiv_a, d_floordiv_b, True, False,
               READS_NOTHING, READS_NOTHING)
    binary_row(LEAKY_RELU, b"leaky_relu", f_leaky_relu, d_leaky_relu_a, d_leaky_relu_b, False, True,
               READS_A | READS_B, READS_A)
    binary_row(ELU, b"elu", f_elu, d_elu_a, d_elu_b, False, True,
               READS_A | READS_B, READS_A)
    binary_row(POLYGAMMA, b"polygamma", f_polygamma, d_polygamma_a, d_polygamma_b, False, True,
               READS_A | READS_B, READS_NOTHING)
    binary_row(SEND, b"send", f_send, d_send_a, d_send_b, False, True,
               READS_B, READS_A)
    binary_row(REMAINDER, b"remainder", f_remainder, d_remainder_a, d_remainder_b, False, True,
               READS_NOTHING, READS_A | READS_B | READS_V)
    unary_row(GAMMA, b"gamma", f_gamma, d_gamma, POLE, True, READS_A | READS_V)


# --- errors ---------------------------------------------------------------------------------------

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
