# cython: language_level=3, wraparound=False, cdivision=True
# The formulas of the scalar operations: f_* is the value, d_* the derivative by an operand.
#
# Inline, nogil, without Python objects and without errors: they follow IEEE 754, and the engine decides what is an
# error by looking at the result.  `a`, `b` are the operands' values, `v` the node's own.  The twin has the same
# formulas in the same order of operations (`reference._DERIVATIVES`), so that both give the same bits; lgamma and gamma
# aside, for which Python has code of its own.

from libc.math cimport (INFINITY, M_PI, NAN, acos, acosh, asin, asinh, atan, atan2, atanh, cbrt, ceil, copysign, cos,
                        cosh, erf, erfc, exp, exp2, expm1, fabs, floor, fma, fmod, frexp, isinf, ldexp, lgamma, log,
                        log1p, log2, log10, pow, remainder, rint, sin, sinh, sqrt, tan, tanh, tgamma, trunc)

cdef extern from *:
    """
    #define FS_SQRT_HALF 0.70710678118654752440
    #define FS_LN2 0.69314718055994530942
    #define FS_LN10 2.30258509299404568402
    #define FS_TWO_OVER_SQRT_PI 1.12837916709551257390
    #define FS_ONE_OVER_SQRT_2PI 0.39894228040143267794
    """
    const double SQRT_HALF "FS_SQRT_HALF"
    const double LN2 "FS_LN2"
    const double LN10 "FS_LN10"
    const double TWO_OVER_SQRT_PI "FS_TWO_OVER_SQRT_PI"
    const double ONE_OVER_SQRT_2PI "FS_ONE_OVER_SQRT_2PI"


# --- values ---


cdef inline double f_add(double a, double b) noexcept nogil:
    return a + b


cdef inline double f_sub(double a, double b) noexcept nogil:
    return a - b


cdef inline double f_mul(double a, double b) noexcept nogil:
    return a * b


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


cdef inline double f_exp2(double a) noexcept nogil:
    return exp2(a)


cdef inline double f_expm1(double a) noexcept nogil:
    return expm1(a)


cdef inline double f_log2(double a) noexcept nogil:
    return log2(a)


cdef inline double f_log10(double a) noexcept nogil:
    return log10(a)


cdef inline double f_log1p(double a) noexcept nogil:
    return log1p(a)


cdef inline double f_sqrt(double a) noexcept nogil:
    return sqrt(a)


cdef inline double f_cbrt(double a) noexcept nogil:
    return cbrt(a)


cdef inline double f_sin(double a) noexcept nogil:
    return sin(a)


cdef inline double f_cos(double a) noexcept nogil:
    return cos(a)


cdef inline double f_tan(double a) noexcept nogil:
    return tan(a)


cdef inline double f_asin(double a) noexcept nogil:
    return asin(a)


cdef inline double f_acos(double a) noexcept nogil:
    return acos(a)


cdef inline double f_atan(double a) noexcept nogil:
    return atan(a)


cdef inline double f_sinh(double a) noexcept nogil:
    return sinh(a)


cdef inline double f_cosh(double a) noexcept nogil:
    return cosh(a)


cdef inline double f_tanh(double a) noexcept nogil:
    return tanh(a)


cdef inline double f_asinh(double a) noexcept nogil:
    return asinh(a)


cdef inline double f_acosh(double a) noexcept nogil:
    return acosh(a)


cdef inline double f_atanh(double a) noexcept nogil:
    return atanh(a)


cdef inline double f_erf(double a) noexcept nogil:
    return erf(a)


cdef inline double f_erfc(double a) noexcept nogil:
    return erfc(a)


cdef inline double f_lgamma(double a) noexcept nogil:
    return lgamma(a)


cdef inline double f_gamma(double a) noexcept nogil:
    cdef double product = 1.0, k = 2.0
    if not 1.0 <= a <= 23.0 or a != floor(a):
        return tgamma(a)
    while k < a:                                 # factorials that a float holds exactly are exact
        product = product * k
        k = k + 1.0
    return product


cdef inline double f_floor(double a) noexcept nogil:
    return floor(a)


cdef inline double f_ceil(double a) noexcept nogil:
    return ceil(a)


cdef inline double f_rint(double a) noexcept nogil:
    return rint(a)


cdef inline double f_trunc(double a) noexcept nogil:
    return trunc(a)


cdef inline double f_ndtr(double a) noexcept nogil:
    return 0.5 * erfc(-a * SQRT_HALF)             # the normal distribution function


cdef inline double f_abs(double a) noexcept nogil:
    return fabs(a)


cdef inline double f_sign(double a) noexcept nogil:
    return 1.0 if a > 0.0 else -1.0 if a < 0.0 else a      # +-0 and NaN stay


cdef inline double f_degrees(double a) noexcept nogil:
    return a * (180.0 / M_PI)


cdef inline double f_radians(double a) noexcept nogil:
    return a * (M_PI / 180.0)


cdef inline double f_sigmoid(double a) noexcept nogil:
    cdef double e = exp(-fabs(a))                # never overflows
    return 1.0 / (1.0 + e) if a >= 0.0 else e / (1.0 + e)


cdef inline double f_softplus(double a) noexcept nogil:
    return (0.0 if a <= 0.0 else a) + log1p(exp(-fabs(a)))


cdef inline double f_silu(double a) noexcept nogil:
    return -0.0 if a < -1e3 else a * f_sigmoid(a)      # not -inf * 0


cdef inline double f_gelu(double a) noexcept nogil:
    return -0.0 if a < -1e3 else a * f_ndtr(a)         # exact, not the tanh approximation


cdef inline double f_digamma(double a) noexcept nogil:
    cdef double r = 0.0, x = a, y
    if x <= 0.0 and x == floor(x):
        return NAN if isinf(x) else INFINITY     # a pole; the engine makes it a ValueError
    if x < 0.0:                                  # reflection; tan has period 1 here, so take it where it is exact
        return f_digamma(1.0 - x) - M_PI / tan(M_PI * (x - floor(x + 0.5)))
    while x < 10.0:                              # recurrence up to where the asymptotic series is exact
        r = r - 1.0 / x
        x = x + 1.0
    y = 1.0 / (x * x)
    return r + log(x) - 0.5 / x - y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y * (1.0 / 240 - y * (1.0 / 132 - (
        y * (691.0 / 32760 - y / 12)))))))


cdef inline double zeta_polygamma(double x, double n) noexcept nogil:
    cdef double s = n + 1.0, total = 0.0, t, y     # n! (1 / x**s + 1 / (x + 1)**s + ...), x > 0: Euler and Maclaurin
    cdef int k
    while x < 10.0 + 2.0 * n:
        total = total + pow(x, -s)
        x = x + 1.0
    y = 1.0 / (x * x)
    t = s * (1.0 / 12 - y * (s + 1.0) * (s + 2.0) * (1.0 / 720 - y * (s + 3.0) * (s + 4.0) * (1.0 / 30240 - y * (
        s + 5.0) * (s + 6.0) * (1.0 / 1209600 - y * (s + 7.0) * (s + 8.0) * (1.0 / 47900160 - y * (s + 9.0) * (
            s + 10.0) * (691.0 / 1307674368000.0 - y * (s + 11.0) * (s + 12.0) / 74724249600.0))))))
    total = total + pow(x, -n) * (1.0 / n + (0.5 + t / x) / x)
    for k in range(2, <int>n + 1):
        total = total * k
    return total


cdef inline double f_polygamma(double a, double b) noexcept nogil:
    cdef double r, sign                          # the derivative of order b of digamma at a
    if a != a or b != b:
        return a + b
    if b == 0.0:
        return f_digamma(a)
    if not 0.0 < b <= 100.0 or b != floor(b):
        return NAN
    sign = -1.0 if fmod(b, 2.0) == 0.0 else 1.0
    if a > 0.0:
        return sign * zeta_polygamma(a, b)
    if a == floor(a):
        return NAN if isinf(a) else INFINITY
    r = a - floor(a + 0.5)                       # reflection; what has period 1 is taken where it is exact
    return zeta_polygamma(1.0 - r if r > 0.0 else -r, b) + sign * zeta_polygamma(r if r > 0.0 else 1.0 + r, b) - (
        zeta_polygamma(1.0 - a, b))


cdef inline double f_minimum(double a, double b) noexcept nogil:
    return a if a <= b or a != a else b          # NaN stays; the left one if they are equal


cdef inline double f_maximum(double a, double b) noexcept nogil:
    return a if a >= b or a != a else b


cdef inline double f_atan2(double a, double b) noexcept nogil:
    return atan2(a, b)


cdef inline double f_hypot(double a, double b) noexcept nogil:
    # As Python has it, correctly rounded but for one case in millions; the C library's is not.  Scaled by a power of
    # two, and the square root corrected by half of what its square is off: fma gives the squares exactly.
    cdef double x, y, h, p, q, r, off
    cdef int e = 0
    if isinf(a) or isinf(b):
        return INFINITY                          # also beside NaN
    x, y = fabs(a), fabs(b)
    if x < y:
        x, y = y, x
    if not y > 0.0:
        return x + y                             # a zero; or NaN
    x = frexp(x, &e)
    y = ldexp(y, -e)
    h = sqrt(x * x + y * y)
    p, q, r = x * x, y * y, h * h
    off = ((p - r) + q) + (fma(x, x, -p) + (fma(y, y, -q) - fma(h, h, -r)))
    return ldexp(h + off / (2.0 * h), e)


cdef inline double f_copysign(double a, double b) noexcept nogil:
    return copysign(a, b)


cdef inline double f_fmod(double a, double b) noexcept nogil:
    return fmod(a, b)


cdef inline double f_remainder(double a, double b) noexcept nogil:
    return remainder(a, b)                       # a - n * b, n the whole number nearest to a / b


cdef inline double f_mod(double a, double b) noexcept nogil:
    cdef double r = fmod(a, b)                   # of the sign of b, as Python's % of floats
    if r:
        return r + b if (b < 0.0) != (r < 0.0) else r
    return copysign(0.0, b)


cdef inline double f_floordiv(double a, double b) noexcept nogil:
    cdef double r = fmod(a, b), q = (a - r) / b, w  # Python's // of floats
    if b == 0.0:
        return a / b                             # of arrays, as NumPy's
    if r and (b < 0.0) != (r < 0.0):
        q = q - 1.0
    if q == 0.0:
        return copysign(0.0, a / b)
    w = floor(q)
    return w + 1.0 if q - w > 0.5 else w


cdef inline double f_send(double a, double b) noexcept nogil:
    return 0.0 if a == 0.0 or b == 0.0 else a * b            # a gradient times a slope: a zero on the way is all


cdef inline double sent(double g, double slope) noexcept nogil:
    """The same, for the common case: what comes out NaN is looked at again."""
    cdef double product = g * slope
    return product if product == product else f_send(g, slope)


cdef inline double f_leaky_relu(double a, double b) noexcept nogil:
    return a if a > 0.0 or a != a else b * a     # b: the slope on the left


cdef inline double f_elu(double a, double b) noexcept nogil:
    return a if a > 0.0 or a != a else b * expm1(a)


# --- derivatives of unary operations: d_*(a, v) ---


cdef inline double d_neg(double a, double v) noexcept nogil:
    return -1.0


cdef inline double d_relu(double a, double v) noexcept nogil:
    return 0.0 if a <= 0.0 else 1.0        # the kink: relu'(0) = 0


cdef inline double d_exp(double a, double v) noexcept nogil:
    return v


cdef inline double d_log(double a, double v) noexcept nogil:
    return 1.0 / a


cdef inline double d_exp2(double a, double v) noexcept nogil:
    return v * LN2


cdef inline double d_expm1(double a, double v) noexcept nogil:
    return v + 1.0


cdef inline double d_log2(double a, double v) noexcept nogil:
    return 1.0 / (a * LN2)


cdef inline double d_log10(double a, double v) noexcept nogil:
    return 1.0 / (a * LN10)


cdef inline double d_log1p(double a, double v) noexcept nogil:
    return 1.0 / (1.0 + a)


cdef inline double d_sqrt(double a, double v) noexcept nogil:
    return 0.5 / v


cdef inline double d_cbrt(double a, double v) noexcept nogil:
    return 1.0 / (3.0 * v * v)


cdef inline double d_sin(double a, double v) noexcept nogil:
    return cos(a)


cdef inline double d_cos(double a, double v) noexcept nogil:
    return -sin(a)


cdef inline double d_tan(double a, double v) noexcept nogil:
    return 1.0 + v * v


cdef inline double d_asin(double a, double v) noexcept nogil:
    return 1.0 / sqrt((1.0 - a) * (1.0 + a))


cdef inline double d_acos(double a, double v) noexcept nogil:
    return -1.0 / sqrt((1.0 - a) * (1.0 + a))


cdef inline double d_atan(double a, double v) noexcept nogil:
    return 1.0 / (1.0 + a * a)


cdef inline double d_sinh(double a, double v) noexcept nogil:
    return cosh(a)


cdef inline double d_cosh(double a, double v) noexcept nogil:
    return sinh(a)


cdef inline double d_tanh(double a, double v) noexcept nogil:
    return (1.0 - v) * (1.0 + v)


cdef inline double d_asinh(double a, double v) noexcept nogil:
    return 1.0 / sqrt(a * a + 1.0) if fabs(a) < 1e150 else 1.0 / fabs(a)


cdef inline double d_acosh(double a, double v) noexcept nogil:
    return 1.0 / (sqrt(a - 1.0) * sqrt(a + 1.0))


cdef inline double d_atanh(double a, double v) noexcept nogil:
    return 1.0 / ((1.0 - a) * (1.0 + a))


cdef inline double d_erf(double a, double v) noexcept nogil:
    return TWO_OVER_SQRT_PI * exp(-a * a)


cdef inline double d_erfc(double a, double v) noexcept nogil:
    return -(TWO_OVER_SQRT_PI * exp(-a * a))


cdef inline double d_ndtr(double a, double v) noexcept nogil:
    return ONE_OVER_SQRT_2PI * exp(-0.5 * a * a)


cdef inline double d_lgamma(double a, double v) noexcept nogil:
    return f_digamma(a)


cdef inline double d_digamma(double a, double v) noexcept nogil:
    cdef double r = 0.0, x = a, y                # the trigamma function
    if x <= 0.0:
        if x == floor(x):
            return NAN if isinf(x) else INFINITY
        y = M_PI / sin(M_PI * (x - floor(x + 0.5)))
        return y * y - d_digamma(1.0 - x, 0.0)
    while x < 10.0:
        r = r + 1.0 / (x * x)
        x = x + 1.0
    y = 1.0 / (x * x)
    return r + 1.0 / x + 0.5 * y + y / x * (1.0 / 6 - y * (1.0 / 30 - y * (1.0 / 42 - y * (1.0 / 30 - y * (5.0 / 66 - (
        y * (691.0 / 2730 - y * 7.0 / 6)))))))


cdef inline double d_gamma(double a, double v) noexcept nogil:
    return v * f_digamma(a)


cdef inline double d_abs(double a, double v) noexcept nogil:
    return 1.0 if a > 0.0 else -1.0 if a < 0.0 else a * 0.0    # the kink: 0 at 0; NaN stays


cdef inline double d_step(double a, double v) noexcept nogil:
    return 0.0


cdef inline double d_degrees(double a, double v) noexcept nogil:
    return 180.0 / M_PI


cdef inline double d_radians(double a, double v) noexcept nogil:
    return M_PI / 180.0


cdef inline double d_sigmoid(double a, double v) noexcept nogil:
    cdef double e = exp(-fabs(a))                # v * (1 - v) would lose the tail
    return e / ((1.0 + e) * (1.0 + e))


cdef inline double d_softplus(double a, double v) noexcept nogil:
    return f_sigmoid(a)


cdef inline double d_silu(double a, double v) noexcept nogil:
    cdef double s = f_sigmoid(a)
    return s if fabs(a) > 1e3 else s * (1.0 + a * (1.0 - s))


cdef inline double d_gelu(double a, double v) noexcept nogil:
    return f_ndtr(a) + (0.0 if fabs(a) > 1e3 else a * (ONE_OVER_SQRT_2PI * exp(-0.5 * a * a)))


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


cdef inline double d_div_a(double a, double b, double v) noexcept nogil:
    return 1.0 / b


cdef inline double d_div_b(double a, double b, double v) noexcept nogil:
    return -(v / b)


cdef inline double d_pow_a(double a, double b, double v) noexcept nogil:
    return 0.0 if b == 0.0 else b * pow(a, b - 1.0)


cdef inline double d_pow_b(double a, double b, double v) noexcept nogil:
    if a > 0.0:
        return v * log(a)
    return 0.0 if a == 0.0 and b >= 0.0 else NAN


cdef inline double d_minimum_a(double a, double b, double v) noexcept nogil:
    return 1.0 if a <= b or a != a else 0.0


cdef inline double d_minimum_b(double a, double b, double v) noexcept nogil:
    return 0.0 if a <= b or a != a else 1.0


cdef inline double d_maximum_a(double a, double b, double v) noexcept nogil:
    return 1.0 if a >= b or a != a else 0.0


cdef inline double d_maximum_b(double a, double b, double v) noexcept nogil:
    return 0.0 if a >= b or a != a else 1.0


cdef inline double d_atan2_a(double a, double b, double v) noexcept nogil:
    cdef double r                                # b / (a * a + b * b) without its overflow
    if a == 0.0 and b == 0.0:
        return 0.0
    if fabs(a) > fabs(b):
        r = b / a
        return r / (1.0 + r * r) / a
    r = a / b
    return 1.0 / (1.0 + r * r) / b


cdef inline double d_atan2_b(double a, double b, double v) noexcept nogil:
    return -d_atan2_a(b, a, v)


cdef inline double d_hypot_a(double a, double b, double v) noexcept nogil:
    if isinf(v):                                 # the first operand that is infinite outweighs the other
        return copysign(1.0, a) if isinf(a) else 0.0
    return a / v if v else 0.0                   # the kink: 0 at the origin


cdef inline double d_hypot_b(double a, double b, double v) noexcept nogil:
    if isinf(v):
        return copysign(1.0, b) if isinf(b) and not isinf(a) else 0.0
    return b / v if v else 0.0


cdef inline double d_copysign_a(double a, double b, double v) noexcept nogil:
    return copysign(1.0, a) * copysign(1.0, b)


# v is a - n * b for a whole n, which a / b alone would miss by one beside a multiple of b
cdef inline double whole_quotient(double a, double b, double v) noexcept nogil:
    return floor(a / b - v / b + 0.5)


cdef inline double d_mod_a(double a, double b, double v) noexcept nogil:
    return 1.0


cdef inline double d_mod_b(double a, double b, double v) noexcept nogil:
    return -whole_quotient(a, b, v)


cdef inline double d_steps(double a, double b, double v) noexcept nogil:
    return 0.0


cdef inline double d_leaky_relu_a(double a, double b, double v) noexcept nogil:
    return 1.0 if a > 0.0 or a != a else b       # the kink: the slope at 0


cdef inline double d_leaky_relu_b(double a, double b, double v) noexcept nogil:
    return 0.0 if a > 0.0 else a


cdef inline double d_elu_a(double a, double b, double v) noexcept nogil:
    return 1.0 if a > 0.0 or a != a else b * exp(a)


cdef inline double d_elu_b(double a, double b, double v) noexcept nogil:
    return 0.0 if a > 0.0 else expm1(a)


cdef inline double d_send_a(double a, double b, double v) noexcept nogil:
    return b


cdef inline double d_send_b(double a, double b, double v) noexcept nogil:
    return a


cdef inline double d_polygamma_a(double a, double b, double v) noexcept nogil:
    return f_polygamma(a, b + 1.0)


cdef inline double d_polygamma_b(double a, double b, double v) noexcept nogil:
    return 0.0                                   # the order is a whole number: there is nothing to differentiate
