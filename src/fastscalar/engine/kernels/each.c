/* The kernels of element-wise operations on arrays, included by kernels.c: by name of the operation table, n elements
 * from operands so many doubles apart (0: one element goes with all).
 *
 * What IEEE 754 rounds correctly has the bits of the formulas f_*; so have minimum, maximum, floor and the like.  The
 * functions of functions_body.c are within 4 ulp, and the same on every set: nothing contracts here.
 */
#include <string.h>

#include "strided.h"
#include "vectors.h"

enum { AT_ONCE = 128 }; /* elements of a temporary */

/* n elements that lie side by side: in place, or gathered. */
static const double *together(double *room, const double *x, ptrdiff_t sx, ptrdiff_t n)
{
    if (sx == 1)
        return x;
    for (ptrdiff_t i = 0; i < n; i++)
        room[i] = x[i * sx];
    return room;
}

#define EACH_UNARY(name, ...)                                                                                          \
    static void each_##name(double *restrict out, const double *from, ptrdiff_t sx, ptrdiff_t n)                       \
    {                                                                                                                  \
        double room[AT_ONCE];                                                                                          \
        const ptrdiff_t step = sx == 1 ? n : AT_ONCE;                                                                  \
        for (ptrdiff_t at = 0; at < n; at += step) {                                                                   \
            const ptrdiff_t length = n - at < step ? n - at : step;                                                    \
            const double *restrict x = together(room, from + at * sx, sx, length);                                     \
            double *restrict to = out + at;                                                                            \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    }
#define EACH_BINARY(name, ...)                                                                                         \
    static void each_##name(double *restrict out, const double *left, ptrdiff_t sx, const double *right, ptrdiff_t sy, \
                            ptrdiff_t n)                                                                               \
    {                                                                                                                  \
        double rooms[2][AT_ONCE];                                                                                      \
        const ptrdiff_t step = sx == 1 && sy == 1 ? n : AT_ONCE;                                                       \
        for (ptrdiff_t at = 0; at < n; at += step) {                                                                   \
            const ptrdiff_t length = n - at < step ? n - at : step;                                                    \
            const double *restrict x = together(rooms[0], left + at * sx, sx, length);                                 \
            const double *restrict y = together(rooms[1], right + at * sy, sy, length);                                \
            double *restrict to = out + at;                                                                            \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    }
#define AS(formula)                                                                                                    \
    for (ptrdiff_t i = 0; i < length; i++)                                                                             \
        to[i] = formula

/* --- with the bits of the formulas --- */

#define TURN 3.14159265358979323846
#define EXACT_UNARY(DO)                                                                                                \
    DO(neg, AS(-x[i]))                                                                                                 \
    DO(abs, AS(fabs(x[i])))                                                                                            \
    DO(sqrt, AS(sqrt(x[i])))                                                                                           \
    DO(relu, AS(x[i] <= 0.0 ? 0.0 : x[i]))                                                                             \
    DO(floor, AS(floor(x[i])))                                                                                         \
    DO(ceil, AS(ceil(x[i])))                                                                                           \
    DO(trunc, AS(trunc(x[i])))                                                                                         \
    DO(rint, AS(rint(x[i])))                                                                                         \
    DO(sign, AS(x[i] > 0.0 ? 1.0 : x[i] < 0.0 ? -1.0 : x[i]))                                                          \
    DO(degrees, AS(x[i] * (180.0 / TURN)))                                                                             \
    DO(radians, AS(x[i] * (TURN / 180.0)))
#define EXACT_BINARY(DO)                                                                                               \
    DO(minimum, AS(((x[i] <= y[i]) | (x[i] != x[i])) ? x[i] : y[i]))                                                     \
    DO(maximum, AS(((x[i] >= y[i]) | (x[i] != x[i])) ? x[i] : y[i]))                                                     \
    DO(copysign, AS(copysign(x[i], y[i])))
EXACT_UNARY(EACH_UNARY)
EXACT_BINARY(EACH_BINARY)

/* --- by series --- */

#if FS_OWN_FUNCTIONS
#define R double
#define RI int64_t
#define WIDE 1
#define OF(name) name##_double
#define VW (FS_VECTOR / 8)
#include "vectors_body.c"

#include "exp_body.c"

#include "functions_body.c"

#define GET(p) LOAD_SOME(p + i, 0)
EACH_UNARY(exp, VECTORS(i, length, STORE_SOME(to + i, closer_exp_double(GET(x)))))
EACH_UNARY(tanh, VECTORS(i, length, STORE_SOME(to + i, tanh_double(GET(x)))))
EACH_UNARY(sigmoid, VECTORS(i, length, STORE_SOME(to + i, sigmoid_double(GET(x)))))
#define OWN_UNARY(DO)                                                                                                  \
    DO(log, LOG) DO(exp2, EXP2) DO(expm1, EXPM1) DO(log2, LOG2) DO(log10, LOG10) DO(log1p, LOG1P) DO(cbrt, CBRT)       \
    DO(sin, SIN) DO(cos, COS) DO(tan, TAN) DO(asin, ASIN) DO(acos, ACOS) DO(atan, ATAN) DO(sinh, SINH) DO(cosh, COSH)  \
    DO(asinh, ASINH) DO(acosh, ACOSH) DO(atanh, ATANH) DO(erf, ERF) DO(erfc, ERFC) DO(ndtr, NDTR)                      \
    DO(softplus, SOFTPLUS) DO(silu, SILU) DO(gelu, GELU)
#define OWN_BINARY(DO) DO(atan2, ATAN2) DO(hypot, HYPOT)
#define BY_SERIES(name, code) EACH_UNARY(name, value_##code(to, x, length))
OWN_UNARY(BY_SERIES)
#undef BY_SERIES
#define BY_SERIES(name, code) EACH_BINARY(name, value_##code(to, x, y, length))
OWN_BINARY(BY_SERIES)
#undef BY_SERIES
EACH_BINARY(any_pow, value_POW(to, x, y, length))
#else
static void each_any_pow(double *restrict out, const double *x, ptrdiff_t sx, const double *y, ptrdiff_t sy, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        out[i] = pow(x[i * sx], y[i * sy]);
}
#endif

/* Small whole powers are products, as in programs (of the second power they have the bits of pow). */
static void each_pow(double *restrict out, const double *x, ptrdiff_t sx, const double *y, ptrdiff_t sy, ptrdiff_t n)
{
    double room[AT_ONCE];
    const double power = sy == 0 ? y[0] : 0.0;
    if (power != 2.0 && power != 3.0 && power != 4.0) {
        each_any_pow(out, x, sx, y, sy, n);
        return;
    }
    for (ptrdiff_t at = 0; at < n; at += AT_ONCE) {
        const ptrdiff_t length = n - at < AT_ONCE ? n - at : AT_ONCE;
        const double *restrict t = together(room, x + at * sx, sx, length);
        double *restrict to = out + at;
        if (power == 2.0)
            AS(t[i] * t[i]);
        else if (power == 3.0)
            AS(t[i] * t[i] * t[i]);
        else
            AS((t[i] * t[i]) * (t[i] * t[i]));
    }
}

/* --- by name --- */

#define BY_NAME(name, ...)                                                                                             \
    if (strcmp(wanted, #name) == 0)                                                                                    \
        return each_##name;

static fs_each each(const char *wanted)
{
    EXACT_UNARY(BY_NAME)
#if FS_OWN_FUNCTIONS
    BY_NAME(exp)
    BY_NAME(tanh)
    BY_NAME(sigmoid)
    OWN_UNARY(BY_NAME)
#endif
    return NULL;
}

static fs_each_pair each_pair(const char *wanted)
{
    static const char *const names[] = {"+", "-", "*", "/", "**"};
    static const fs_each_pair those[] = {fs_add_rows, fs_subtract_rows, fs_multiply_rows, fs_divide_rows, each_pow};
    for (int k = 0; k < 5; k++)
        if (strcmp(wanted, names[k]) == 0)
            return those[k];
    EXACT_BINARY(BY_NAME)
#if FS_OWN_FUNCTIONS
    OWN_BINARY(BY_NAME)
#endif
    return NULL;
}
