# cython: language_level=3, wraparound=False, cdivision=True
# The operation table.
#
# One row registers an operation; methods, functions, arrays, `fastscalar.math`, stubs, rules of higher order, vector
# kernels (by its name, see batch.h), tests, drawings and documents read it.  `tape.pxd` has its fields.  A row says
#   its code: a name that other code refers to, or NEW;
#   its name, formulas, and what it is: OPERATOR, METHOD, OF_MATH (method, and function of `fastscalar.math`) or
#       FUNCTION (method, and function of `fastscalar`);
#   of one operand, what an infinite result of a finite one is, as in Python's `math`: a pole (ValueError), too large
#       (OverflowError) or no error;
#   its domain: where it has a value, as a condition in x and y; empty: everywhere.  Elsewhere NaN is a ValueError;
#   what the derivatives read of the operands and the result;
#   each derivative once more as an expression in Tensors a, b and the result v, for derivatives of higher order
#       (`transforms/rules.py` has the names that are used);
#   its docstring.

from fastscalar._core cimport n_codes, row
from fastscalar.engine.formulas cimport *
from fastscalar.engine.tape cimport *


cdef inline Row *new_row(int code, const char *name, int kind, const char *domain, const char *doc) noexcept:
    """The row of this code, or with NEW that of the next free one."""
    global n_codes
    if code == NEW:
        code = n_codes
        n_codes += 1
    cdef Row *r = row(code)
    r.name, r.kind, r.domain, r.doc = name, kind, domain, doc
    return r


cdef inline void unary_row(int code, const char *name, Unary f, Derivative1 d, int kind, int infinity,
                           const char *domain, int reads, const char *rule, const char *doc) noexcept:
    cdef Row *r = new_row(code, name, kind, domain, doc)
    r.arity, r.f, r.d, r.infinity, r.reads_a, r.rule_a = 1, f, d, infinity, reads, rule
    r.never_raises = infinity == NO_ERROR and domain[0] == 0


cdef inline void binary_row(int code, const char *name, Binary f, Derivative2 da, Derivative2 db, int kind,
                            const char *domain, int reads_a, int reads_b, const char *rule_a, const char *rule_b,
                            const char *doc) noexcept:
    cdef Row *r = new_row(code, name, kind, domain, doc)
    r.arity, r.f2, r.da, r.db, r.reads_a, r.reads_b = 2, f, da, db, reads_a, reads_b
    r.rule_a, r.rule_b = rule_a, rule_b
    r.divides = code == DIV or code == MOD or code == FLOORDIV
    r.never_raises = domain[0] == 0


cdef inline void fill_table() noexcept:
    row(LEAF).name, row(CONST).name, row(ARRAY_OP).name = b"", b"const", b"wide"
    binary_row(ADD, b"+", f_add, d_add_a, d_add_b, OPERATOR,
               b"", READS_NOTHING, READS_NOTHING,
               b"1.0", b"1.0",
               b"The sum.")
    binary_row(SUB, b"-", f_sub, d_sub_a, d_sub_b, OPERATOR,
               b"", READS_NOTHING, READS_NOTHING,
               b"1.0", b"-1.0",
               b"The difference.")
    binary_row(MUL, b"*", f_mul, d_mul_a, d_mul_b, OPERATOR,
               b"", READS_B, READS_A,
               b"b", b"a",
               b"The product.")
    binary_row(DIV, b"/", f_div, d_div_a, d_div_b, OPERATOR,
               b"y != 0", READS_B, READS_B | READS_V,
               b"1.0 / b", b"-(v / b)",
               b"The quotient; ZeroDivisionError by zero.")
    binary_row(POW, b"**", f_pow, d_pow_a, d_pow_b, OPERATOR,
               b"x > 0 or (y == floor(y) and (x != 0 or y >= 0))", READS_A | READS_B, READS_A | READS_B | READS_V,
               b"power_by_base(a, b, v)", b"power_by_exponent(a, b, v)",
               b"The power.")
    unary_row(NEG, b"neg", f_neg, d_neg, OPERATOR, NO_ERROR, b"",
              READS_NOTHING, b"-1.0",
              b"The negative.")
    unary_row(RELU, b"relu", f_relu, d_relu, METHOD, NO_ERROR, b"",
              READS_A, b"where(a <= 0.0, 0.0, 1.0)",
              b"x where x > 0, else 0; the derivative at 0 is 0.")
    unary_row(EXP, b"exp", f_exp, d_exp, METHOD, TOO_LARGE, b"",
              READS_V, b"v",
              b"e to the power of x; OverflowError above 709.78.")
    unary_row(LOG, b"log", f_log, d_log, METHOD, POLE, b"x > 0",
              READS_A, b"1.0 / a",
              b"The natural logarithm; ValueError unless x > 0.")
    unary_row(NEW, b"exp2", f_exp2, d_exp2, METHOD, TOO_LARGE, b"",
              READS_V, b"v * LN2",
              b"2 to the power of x; OverflowError from 1024 on.")
    unary_row(NEW, b"expm1", f_expm1, d_expm1, METHOD, TOO_LARGE, b"",
              READS_V, b"v + 1.0",
              b"exp(x) - 1, exact near 0; OverflowError above 709.78.")
    unary_row(NEW, b"log2", f_log2, d_log2, METHOD, POLE, b"x > 0",
              READS_A, b"1.0 / (a * LN2)",
              b"The logarithm to base 2; ValueError unless x > 0.")
    unary_row(NEW, b"log10", f_log10, d_log10, METHOD, POLE, b"x > 0",
              READS_A, b"1.0 / (a * LN10)",
              b"The logarithm to base 10; ValueError unless x > 0.")
    unary_row(NEW, b"log1p", f_log1p, d_log1p, METHOD, POLE, b"x > -1",
              READS_A, b"1.0 / (1.0 + a)",
              b"log(1 + x), exact near 0; ValueError unless x > -1.")
    unary_row(SQRT, b"sqrt", f_sqrt, d_sqrt, METHOD, NO_ERROR, b"x >= 0",
              READS_V, b"0.5 / v",
              b"The square root; ValueError below 0; the derivative at 0 is inf.")
    unary_row(NEW, b"cbrt", f_cbrt, d_cbrt, METHOD, NO_ERROR, b"",
              READS_V, b"1.0 / (3.0 * v * v)",
              b"The cube root; the derivative at 0 is inf.")
    unary_row(SIN, b"sin", f_sin, d_sin, METHOD, NO_ERROR, b"isfinite(x)",
              READS_A, b"a.cos()",
              b"The sine of x radians.")
    unary_row(COS, b"cos", f_cos, d_cos, METHOD, NO_ERROR, b"isfinite(x)",
              READS_A, b"-a.sin()",
              b"The cosine of x radians.")
    unary_row(NEW, b"tan", f_tan, d_tan, METHOD, NO_ERROR, b"isfinite(x)",
              READS_V, b"1.0 + v * v",
              b"The tangent of x radians.")
    unary_row(NEW, b"asin", f_asin, d_asin, METHOD, NO_ERROR, b"-1 <= x <= 1",
              READS_A, b"1.0 / ((1.0 - a) * (1.0 + a)).sqrt()",
              b"The arc sine in radians; ValueError outside -1..1.")
    unary_row(NEW, b"acos", f_acos, d_acos, METHOD, NO_ERROR, b"-1 <= x <= 1",
              READS_A, b"-1.0 / ((1.0 - a) * (1.0 + a)).sqrt()",
              b"The arc cosine in radians; ValueError outside -1..1.")
    unary_row(NEW, b"atan", f_atan, d_atan, METHOD, NO_ERROR, b"",
              READS_A, b"1.0 / (1.0 + a * a)",
              b"The arc tangent in radians.")
    unary_row(NEW, b"sinh", f_sinh, d_sinh, METHOD, TOO_LARGE, b"",
              READS_A, b"a.cosh()",
              b"The hyperbolic sine; OverflowError above 710.47.")
    unary_row(COSH, b"cosh", f_cosh, d_cosh, METHOD, TOO_LARGE, b"",
              READS_A, b"a.sinh()",
              b"The hyperbolic cosine; OverflowError above 710.47.")
    unary_row(TANH, b"tanh", f_tanh, d_tanh, METHOD, NO_ERROR, b"",
              READS_V, b"(1.0 - v) * (1.0 + v)",
              b"The hyperbolic tangent.")
    unary_row(NEW, b"asinh", f_asinh, d_asinh, METHOD, NO_ERROR, b"",
              READS_A, b"where(abs(a) < 1e150, lambda: 1.0 / (a * a + 1.0).sqrt(), lambda: 1.0 / abs(a))",
              b"The inverse hyperbolic sine.")
    unary_row(NEW, b"acosh", f_acosh, d_acosh, METHOD, NO_ERROR, b"x >= 1",
              READS_A, b"1.0 / ((a - 1.0).sqrt() * (a + 1.0).sqrt())",
              b"The inverse hyperbolic cosine; ValueError below 1.")
    unary_row(NEW, b"atanh", f_atanh, d_atanh, METHOD, POLE, b"-1 < x < 1",
              READS_A, b"1.0 / ((1.0 - a) * (1.0 + a))",
              b"The inverse hyperbolic tangent; ValueError unless -1 < x < 1.")
    unary_row(NEW, b"erf", f_erf, d_erf, METHOD, NO_ERROR, b"",
              READS_A, b"TWO_OVER_SQRT_PI * (-a * a).exp()",
              b"The error function.")
    unary_row(NEW, b"erfc", f_erfc, d_erfc, METHOD, NO_ERROR, b"",
              READS_A, b"-(TWO_OVER_SQRT_PI * (-a * a).exp())",
              b"1 - erf(x), exact for large x.")
    unary_row(NEW, b"ndtr", f_ndtr, d_ndtr, OF_MATH, NO_ERROR, b"",
              READS_A, b"ONE_OVER_SQRT_2PI * (-0.5 * a * a).exp()",
              b"The distribution function of the standard normal distribution; its lower tail is exact.")
    unary_row(NEW, b"lgamma", f_lgamma, d_lgamma, METHOD, POLE, b"x > 0 or x != floor(x) or isinf(x)",
              READS_A, b"a.digamma()",
              b"The logarithm of the absolute value of the gamma function; ValueError at 0, -1, -2, ...")
    unary_row(NEW, b"digamma", f_digamma, d_digamma, OF_MATH, POLE, b"x > 0 or x != floor(x)",
              READS_A, b"a.polygamma(1.0)",
              b"The derivative of lgamma; ValueError at 0, -1, -2, ...")
    unary_row(ABS, b"abs", f_abs, d_abs, METHOD, NO_ERROR, b"",
              READS_A, b"where(a != 0.0, lambda: sign(a), 0.0)",
              b"The absolute value; the derivative at 0 is 0.")
    unary_row(SIGN, b"sign", f_sign, d_step, FUNCTION, NO_ERROR, b"",
              READS_NOTHING, b"0.0",
              b"1.0, -1.0, or x itself if it is zero or NaN; the derivative is 0.")
    unary_row(FLOOR, b"floor", f_floor, d_step, METHOD, NO_ERROR, b"isfinite(x)",
              READS_NOTHING, b"0.0",
              b"The largest whole number that is not above x, a Tensor; the derivative is 0.")
    unary_row(NEW, b"rint", f_rint, d_step, METHOD, NO_ERROR, b"",
              READS_NOTHING, b"0.0",
              b"The nearest whole number, of two the even one, a Tensor; the derivative is 0.")
    unary_row(CEIL, b"ceil", f_ceil, d_step, METHOD, NO_ERROR, b"isfinite(x)",
              READS_NOTHING, b"0.0",
              b"The smallest whole number that is not below x, a Tensor; the derivative is 0.")
    unary_row(TRUNC, b"trunc", f_trunc, d_step, METHOD, NO_ERROR, b"isfinite(x)",
              READS_NOTHING, b"0.0",
              b"x without its fraction, a Tensor; the derivative is 0.")
    unary_row(NEW, b"degrees", f_degrees, d_degrees, METHOD, NO_ERROR, b"",
              READS_NOTHING, b"180.0 / PI",
              b"x radians in degrees.")
    unary_row(NEW, b"radians", f_radians, d_radians, METHOD, NO_ERROR, b"",
              READS_NOTHING, b"PI / 180.0",
              b"x degrees in radians.")
    unary_row(SIGMOID, b"sigmoid", f_sigmoid, d_sigmoid, FUNCTION, NO_ERROR, b"",
              READS_A, b"v * (-a).sigmoid()",
              b"1 / (1 + exp(-x)); neither end overflows or loses its tail.")
    unary_row(SOFTPLUS, b"softplus", f_softplus, d_softplus, FUNCTION, NO_ERROR, b"",
              READS_A, b"a.sigmoid()",
              b"log(1 + exp(x)); does not overflow.")
    unary_row(NEW, b"silu", f_silu, d_silu, FUNCTION, NO_ERROR, b"",
              READS_A, b"where(abs(a) > 1e3, a.sigmoid, lambda: a.sigmoid() * (1.0 + a * (-a).sigmoid()))",
              b"x * sigmoid(x) (Elfwing et al. 2018, arXiv:1702.03118).")
    unary_row(NEW, b"gelu", f_gelu, d_gelu, FUNCTION, NO_ERROR, b"",
              READS_A, b"where(abs(a) > 1e3, a.ndtr, "
              b"lambda: a.ndtr() + a * (ONE_OVER_SQRT_2PI * (-0.5 * a * a).exp()))",
              b"x * ndtr(x), exact (Hendrycks and Gimpel 2016, arXiv:1606.08415).")
    binary_row(MINIMUM, b"minimum", f_minimum, d_minimum_a, d_minimum_b, FUNCTION,
               b"", READS_A | READS_B, READS_A | READS_B,
               b"unless_nan(a, a <= b, 1.0)",
               b"unless_nan(a, a <= b, 0.0)",
               b"The smaller of two; NaN if one is.  If they are equal the left one gets the derivative.")
    binary_row(MAXIMUM, b"maximum", f_maximum, d_maximum_a, d_maximum_b, FUNCTION,
               b"", READS_A | READS_B, READS_A | READS_B,
               b"unless_nan(a, a >= b, 1.0)",
               b"unless_nan(a, a >= b, 0.0)",
               b"The larger of two; NaN if one is.  If they are equal the left one gets the derivative.")
    binary_row(NEW, b"atan2", f_atan2, d_atan2_a, d_atan2_b, METHOD,
               b"", READS_A | READS_B, READS_A | READS_B,
               b"atan2_partial(a, b, 1.0)", b"atan2_partial(b, a, -1.0)",
               b"The angle of the point (other, self) in radians, -pi..pi.")
    binary_row(HYPOT, b"hypot", f_hypot, d_hypot_a, d_hypot_b, METHOD,
               b"", READS_A | READS_V, READS_B | READS_V,
               b"hypot_by_left(a, b, v)", b"hypot_by_right(a, b, v)",
               b"sqrt(self**2 + other**2) without overflow on the way; all derivatives at the origin are 0.")
    binary_row(COPYSIGN, b"copysign", f_copysign, d_copysign_a, d_steps, METHOD,
               b"", READS_A | READS_B, READS_NOTHING,
               b"sign_bit(a) * sign_bit(b)", b"0.0",
               b"The absolute value of self with the sign of other.")
    binary_row(FMOD, b"fmod", f_fmod, d_mod_a, d_mod_b, METHOD,
               b"isfinite(x) and y != 0", READS_NOTHING, READS_A | READS_B | READS_V,
               b"1.0", b"minus_quotient(a, b, v)",
               b"The remainder with the sign of self; ValueError if other is 0 or self infinite.")
    binary_row(MOD, b"%", f_mod, d_mod_a, d_mod_b, OPERATOR,
               b"y != 0", READS_NOTHING, READS_A | READS_B | READS_V,
               b"1.0", b"minus_quotient(a, b, v)",
               b"The remainder with the sign of the right operand.")
    binary_row(FLOORDIV, b"//", f_floordiv, d_steps, d_steps, OPERATOR,
               b"y != 0", READS_NOTHING, READS_NOTHING,
               b"0.0", b"0.0",
               b"The quotient, rounded down.")
    binary_row(NEW, b"leaky_relu", f_leaky_relu, d_leaky_relu_a, d_leaky_relu_b, METHOD,
               b"", READS_A | READS_B, READS_A,
               b"unless_nan(a, a > 0.0, 1.0, b)", b"where(a > 0.0, 0.0, a)",
               b"x where x > 0, else other * x; the derivative at 0 is other.")
    binary_row(NEW, b"elu", f_elu, d_elu_a, d_elu_b, METHOD,
               b"", READS_A | READS_B, READS_A,
               b"unless_nan(a, a > 0.0, 1.0, lambda: b * a.exp())", b"where(a > 0.0, 0.0, a.expm1)",
               b"x where x > 0, else other * (exp(x) - 1), the derivative at 0 is other (arXiv:1511.07289).")
    binary_row(POLYGAMMA, b"polygamma", f_polygamma, d_polygamma_a, d_polygamma_b, METHOD,
               b"(x > 0 or x != floor(x)) and 0 <= y <= 100 and y == floor(y)", READS_A | READS_B, READS_NOTHING,
               b"a.polygamma(number(b) + 1.0)", b"0.0",
               b"The derivative of digamma of order other, a whole number; ValueError at the poles.")
    binary_row(SEND, b"send", f_send, d_send_a, d_send_b, METHOD,
               b"", READS_B, READS_A,
               b"b", b"a",
               b"self * other, and 0.0 where self is zero, whatever other is: a gradient on its way.")
    binary_row(REMAINDER, b"remainder", f_remainder, d_mod_a, d_mod_b, METHOD,
               b"isfinite(x) and y != 0", READS_NOTHING, READS_A | READS_B | READS_V,
               b"1.0", b"minus_quotient(a, b, v)",
               b"The IEEE 754 remainder: self minus the multiple of other that is nearest; ValueError if other is 0.")
    unary_row(NEW, b"gamma", f_gamma, d_gamma, METHOD, POLE, b"x > 0 or x != floor(x)",
              READS_A | READS_V, b"v * a.digamma()",
              b"The gamma function; ValueError at 0, -1, -2, ..., OverflowError above 171.62.")
