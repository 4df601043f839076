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
                           int reads, const char *doc) noexcept:
    row(code).name = name
    row(code).doc = doc
    row(code).reads_a = reads
    row(code).arity = 1
    row(code).f = f
    row(code).d = d
    row(code).infinity = infinity
    row(code).method = method


cdef inline void binary_row(int code, const char *name, Binary f, Slope2 da, Slope2 db, bint divides, bint method,
                            int reads_a, int reads_b, const char *doc) noexcept:
    row(code).name = name
    row(code).doc = doc
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
    leaf_row(ARRAY_OP, b"wide")
    binary_row(ADD, b"+", f_add, d_add_a, d_add_b, False, False,
               READS_NOTHING, READS_NOTHING,
               b"The sum.")
    binary_row(SUB, b"-", f_sub, d_sub_a, d_sub_b, False, False,
               READS_NOTHING, READS_NOTHING,
               b"The difference.")
    binary_row(MUL, b"*", f_mul, d_mul_a, d_mul_b, False, False,
               READS_B, READS_A,
               b"The product.")
    binary_row(DIV, b"/", f_div, d_div_a, d_div_b, True, False,
               READS_B, READS_B | READS_V,
               b"The quotient; ZeroDivisionError by zero.")
    binary_row(POW, b"**", f_pow, d_pow_a, d_pow_b, False, False,
               READS_A | READS_B, READS_A | READS_B | READS_V,
               b"The power.")
    unary_row(NEG, b"neg", f_neg, d_neg, NO_ERROR, False, READS_NOTHING,
              b"The negative.")
    unary_row(RELU, b"relu", f_relu, d_relu, NO_ERROR, True, READS_A,
              b"x where x > 0, else 0; the derivative at 0 is 0.")
    unary_row(EXP, b"exp", f_exp, d_exp, TOO_LARGE, True, READS_V,
              b"e to the power of x; OverflowError above 709.78.")
    unary_row(LOG, b"log", f_log, d_log, POLE, True, READS_A,
              b"The natural logarithm; ValueError unless x > 0.")
    unary_row(EXP2, b"exp2", f_exp2, d_exp2, TOO_LARGE, True, READS_V,
              b"2 to the power of x; OverflowError from 1024 on.")
    unary_row(EXPM1, b"expm1", f_expm1, d_expm1, TOO_LARGE, True, READS_V,
              b"exp(x) - 1, exact near 0; OverflowError above 709.78.")
    unary_row(LOG2, b"log2", f_log2, d_log2, POLE, True, READS_A,
              b"The logarithm to base 2; ValueError unless x > 0.")
    unary_row(LOG10, b"log10", f_log10, d_log10, POLE, True, READS_A,
              b"The logarithm to base 10; ValueError unless x > 0.")
    unary_row(LOG1P, b"log1p", f_log1p, d_log1p, POLE, True, READS_A,
              b"log(1 + x), exact near 0; ValueError unless x > -1.")
    unary_row(SQRT, b"sqrt", f_sqrt, d_sqrt, NO_ERROR, True, READS_V,
              b"The square root; ValueError below 0; the derivative at 0 is inf.")
    unary_row(CBRT, b"cbrt", f_cbrt, d_cbrt, NO_ERROR, True, READS_V,
              b"The cube root; the derivative at 0 is inf.")
    unary_row(SIN, b"sin", f_sin, d_sin, NO_ERROR, True, READS_A,
              b"The sine of x radians.")
    unary_row(COS, b"cos", f_cos, d_cos, NO_ERROR, True, READS_A,
              b"The cosine of x radians.")
    unary_row(TAN, b"tan", f_tan, d_tan, NO_ERROR, True, READS_V,
              b"The tangent of x radians.")
    unary_row(ASIN, b"asin", f_asin, d_asin, NO_ERROR, True, READS_A,
              b"The arc sine in radians; ValueError outside -1..1.")
    unary_row(ACOS, b"acos", f_acos, d_acos, NO_ERROR, True, READS_A,
              b"The arc cosine in radians; ValueError outside -1..1.")
    unary_row(ATAN, b"atan", f_atan, d_atan, NO_ERROR, True, READS_A,
              b"The arc tangent in radians.")
    unary_row(SINH, b"sinh", f_sinh, d_sinh, TOO_LARGE, True, READS_A,
              b"The hyperbolic sine; OverflowError above 710.47.")
    unary_row(COSH, b"cosh", f_cosh, d_cosh, TOO_LARGE, True, READS_A,
              b"The hyperbolic cosine; OverflowError above 710.47.")
    unary_row(TANH, b"tanh", f_tanh, d_tanh, NO_ERROR, True, READS_V,
              b"The hyperbolic tangent.")
    unary_row(ASINH, b"asinh", f_asinh, d_asinh, NO_ERROR, True, READS_A,
              b"The inverse hyperbolic sine.")
    unary_row(ACOSH, b"acosh", f_acosh, d_acosh, NO_ERROR, True, READS_A,
              b"The inverse hyperbolic cosine; ValueError below 1.")
    unary_row(ATANH, b"atanh", f_atanh, d_atanh, POLE, True, READS_A,
              b"The inverse hyperbolic tangent; ValueError unless -1 < x < 1.")
    unary_row(ERF, b"erf", f_erf, d_erf, NO_ERROR, True, READS_A,
              b"The error function.")
    unary_row(ERFC, b"erfc", f_erfc, d_erfc, NO_ERROR, True, READS_A,
              b"1 - erf(x), exact for large x.")
    unary_row(NDTR, b"ndtr", f_ndtr, d_ndtr, NO_ERROR, True, READS_A,
              b"The distribution function of the standard normal distribution; its lower tail is exact.")
    unary_row(LGAMMA, b"lgamma", f_lgamma, d_lgamma, POLE, True, READS_A,
              b"The logarithm of the absolute value of the gamma function; ValueError at 0, -1, -2, ...")
    unary_row(DIGAMMA, b"digamma", f_digamma, d_digamma, POLE, True, READS_A,
              b"The derivative of lgamma; ValueError at 0, -1, -2, ...")
    unary_row(ABS, b"abs", f_abs, d_abs, NO_ERROR, True, READS_A,
              b"The absolute value; the derivative at 0 is 0.")
    unary_row(SIGN, b"sign", f_sign, d_sign, NO_ERROR, True, READS_NOTHING,
              b"1.0, -1.0, or x itself if it is zero or NaN; the derivative is 0.")
    unary_row(FLOOR, b"floor", f_floor, d_floor, NO_ERROR, True, READS_NOTHING,
              b"The largest whole number that is not above x, a Tensor; the derivative is 0.")
    unary_row(CEIL, b"ceil", f_ceil, d_ceil, NO_ERROR, True, READS_NOTHING,
              b"The smallest whole number that is not below x, a Tensor; the derivative is 0.")
    unary_row(TRUNC, b"trunc", f_trunc, d_trunc, NO_ERROR, True, READS_NOTHING,
              b"x without its fraction, a Tensor; the derivative is 0.")
    unary_row(DEGREES, b"degrees", f_degrees, d_degrees, NO_ERROR, True, READS_NOTHING,
              b"x radians in degrees.")
    unary_row(RADIANS, b"radians", f_radians, d_radians, NO_ERROR, True, READS_NOTHING,
              b"x degrees in radians.")
    unary_row(SIGMOID, b"sigmoid", f_sigmoid, d_sigmoid, NO_ERROR, True, READS_A,
              b"1 / (1 + exp(-x)); neither end overflows or loses its tail.")
    unary_row(SOFTPLUS, b"softplus", f_softplus, d_softplus, NO_ERROR, True, READS_A,
              b"log(1 + exp(x)); does not overflow.")
    unary_row(SILU, b"silu", f_silu, d_silu, NO_ERROR, True, READS_A,
              b"x * sigmoid(x) (Elfwing et al. 2018, arXiv:1702.03118).")
    unary_row(GELU, b"gelu", f_gelu, d_gelu, NO_ERROR, True, READS_A,
              b"x * ndtr(x), exact (Hendrycks and Gimpel 2016, arXiv:1606.08415).")
    binary_row(MINIMUM, b"minimum", f_minimum, d_minimum_a, d_minimum_b, False, True,
               READS_A | READS_B, READS_A | READS_B,
               b"The smaller of two; NaN if one is.  If they are equal the left one gets the derivative.")
    binary_row(MAXIMUM, b"maximum", f_maximum, d_maximum_a, d_maximum_b, False, True,
               READS_A | READS_B, READS_A | READS_B,
               b"The larger of two; NaN if one is.  If they are equal the left one gets the derivative.")
    binary_row(ATAN2, b"atan2", f_atan2, d_atan2_a, d_atan2_b, False, True,
               READS_A | READS_B, READS_A | READS_B,
               b"The angle of the point (other, self) in radians, -pi..pi.")
    binary_row(HYPOT, b"hypot", f_hypot, d_hypot_a, d_hypot_b, False, True,
               READS_A | READS_V, READS_B | READS_V,
               b"sqrt(self**2 + other**2) without overflow on the way; all derivatives at the origin are 0.")
    binary_row(COPYSIGN, b"copysign", f_copysign, d_copysign_a, d_copysign_b, False, True,
               READS_A | READS_B, READS_NOTHING,
               b"The absolute value of self with the sign of other.")
    binary_row(FMOD, b"fmod", f_fmod, d_fmod_a, d_fmod_b, False, True,
               READS_NOTHING, READS_A | READS_B | READS_V,
               b"The remainder with the sign of self; ValueError if other is 0 or self infinite.")
    binary_row(MOD, b"%", f_mod, d_mod_a, d_mod_b, True, False,
               READS_NOTHING, READS_A | READS_B | READS_V,
               b"The remainder with the sign of the right operand.")
    binary_row(FLOORDIV, b"//", f_floordiv, d_floordiv_a, d_floordiv_b, True, False,
               READS_NOTHING, READS_NOTHING,
               b"The quotient, rounded down.")
    binary_row(LEAKY_RELU, b"leaky_relu", f_leaky_relu, d_leaky_relu_a, d_leaky_relu_b, False, True,
               READS_A | READS_B, READS_A,
               b"x where x > 0, else other * x; the derivative at 0 is other.")
    binary_row(ELU, b"elu", f_elu, d_elu_a, d_elu_b, False, True,
               READS_A | READS_B, READS_A,
               b"x where x > 0, else other * (exp(x) - 1), the derivative at 0 is other (arXiv:1511.07289).")
    binary_row(POLYGAMMA, b"polygamma", f_polygamma, d_polygamma_a, d_polygamma_b, False, True,
               READS_A | READS_B, READS_NOTHING,
               b"The derivative of digamma of order other, a whole number; ValueError at the poles.")
    binary_row(SEND, b"send", f_send, d_send_a, d_send_b, False, True,
               READS_B, READS_A,
               b"self * other, and 0.0 where self is zero, whatever other is: a gradient on its way.")
    binary_row(REMAINDER, b"remainder", f_remainder, d_remainder_a, d_remainder_b, False, True,
               READS_NOTHING, READS_A | READS_B | READS_V,
               b"The IEEE 754 remainder: self minus the multiple of other that is nearest; ValueError if other is 0.")
    unary_row(GAMMA, b"gamma", f_gamma, d_gamma, POLE, True, READS_A | READS_V,
              b"The gamma function; ValueError at 0, -1, -2, ..., OverflowError above 171.62.")


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
