/* Rows of array operations: n elements of each operand, so many doubles apart (0: one element goes with all).
 *
 * `out` and the gradients that are added to lie in other nodes than what is read, so the compiler may take several
 * elements at once where they are consecutive.  Zero sends zero: a gradient that is zero contributes nothing, and
 * nothing passes a slope that is zero (`f_send` in formulas.pxd). */

#ifndef FS_STRIDED_H
#define FS_STRIDED_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#if defined(_MSC_VER)
#define FS_RESTRICT __restrict
#else
#define FS_RESTRICT restrict
#endif

#define FS_EACH(statement)                                                                                             \
    for (ptrdiff_t i = 0; i < n; i++)                                                                                  \
        statement;

#define FS_BINARY(name, op)                                                                                            \
    static void name(double *FS_RESTRICT out, const double *x, ptrdiff_t sx, const double *y, ptrdiff_t sy,            \
                     ptrdiff_t n)                                                                                      \
    {                                                                                                                  \
        if (sx == 1 && sy == 1)                                                                                        \
            FS_EACH(out[i] = x[i] op y[i])                                                                             \
        else if (sx == 1 && sy == 0) {                                                                                 \
            const double t = y[0];                                                                                     \
            FS_EACH(out[i] = x[i] op t)                                                                                \
        } else if (sx == 0 && sy == 1) {                                                                               \
            const double t = x[0];                                                                                     \
            FS_EACH(out[i] = t op y[i])                                                                                \
        } else                                                                                                         \
            FS_EACH(out[i] = x[i * sx] op y[i * sy])                                                                   \
    }

FS_BINARY(fs_add_rows, +)
FS_BINARY(fs_subtract_rows, -)
FS_BINARY(fs_multiply_rows, *)
FS_BINARY(fs_divide_rows, /)

/* out[i] = x[i] op y[i] (sy 1) or y[0] (sy 0); op as Python counts them: < <= == != > >=; from 6 on tests of x[i]: is it
 * NaN, finite, infinite, with a sign? */
#define FS_OUTCOMES(op)                                                                                                \
    if (sy)                                                                                                            \
        FS_EACH(out[i] = x[i] op y[i])                                                                                 \
    else                                                                                                               \
        FS_EACH(out[i] = x[i] op t)                                                                                    \
    break;
static inline void fs_compare(unsigned char *FS_RESTRICT out, const double *x, const double *y, ptrdiff_t sy,
                              ptrdiff_t n, int op)
{
    const double t = n ? y[0] : 0.0;
    switch (op) {
    case 0: FS_OUTCOMES(<)
    case 1: FS_OUTCOMES(<=)
    case 2: FS_OUTCOMES(==)
    case 3: FS_OUTCOMES(!=)
    case 4: FS_OUTCOMES(>)
    case 5: FS_OUTCOMES(>=)
    case 6: FS_EACH(out[i] = x[i] != x[i]) break;
    case 7: FS_EACH(out[i] = x[i] - x[i] == 0.0) break;
    case 8: FS_EACH(out[i] = (x[i] - x[i] != 0.0) & (x[i] == x[i])) break;
    case 9: FS_EACH(out[i] = signbit(x[i]) != 0) break;
    }
}

static inline int fs_has_nan(const double *x, ptrdiff_t n)
{
    int found = 0;
    FS_EACH(found |= x[i] != x[i])
    return found;
}

/* n records of 12 bytes, the last 4 of which count from 0, are like `first`: of the nodes of a run. */
static void fs_fill_run(void *records, const void *first, ptrdiff_t n)
{
    int four[12], *to = records; /* four of them, then the next four, ... */
    ptrdiff_t k = 0;
    for (int i = 0; i < 4; i++) {
        memcpy(four + 3 * i, first, 8);
        four[3 * i + 2] = i;
    }
#ifdef __GNUC__
    typedef int ints __attribute__((vector_size(16), aligned(4), may_alias));
    ints a = *(ints *)four, b = *(ints *)(four + 4), c = *(ints *)(four + 8);
    for (; k + 4 <= n; k += 4) {
        *(ints *)(to + 3 * k) = a, *(ints *)(to + 3 * k + 4) = b, *(ints *)(to + 3 * k + 8) = c;
        a += (ints){0, 0, 4, 0}, b += (ints){0, 4, 0, 0}, c += (ints){4, 0, 0, 4};
    }
#endif
    for (; k < n; k++) {
        memcpy(to + 3 * k, first, 8);
        to[3 * k + 2] = (int)k;
    }
}

/* out[i] += x[i] */
static void fs_accumulate(double *FS_RESTRICT out, ptrdiff_t so, const double *x, ptrdiff_t sx, ptrdiff_t n)
{
    if (so == 1 && sx == 1)
        FS_EACH(out[i] += x[i])
    else if (so == 1 && sx == 0) {
        const double t = x[0];
        FS_EACH(out[i] += t)
    } else
        FS_EACH(out[i * so] += x[i * sx])
}

/* out[i] += x[i] * y[i] */
static void fs_accumulate_product(double *FS_RESTRICT out, const double *x, ptrdiff_t sx, const double *y, ptrdiff_t sy,
                                  ptrdiff_t n)
{
    if (sx == 0 && sy == 1) {
        const double t = x[0];
        FS_EACH(out[i] += t * y[i])
    } else if (sx == 1 && sy == 1)
        FS_EACH(out[i] += x[i] * y[i])
    else
        FS_EACH(out[i] += x[i * sx] * y[i * sy])
}

/* out[l] += the sum over i of x[l][i] * y[l][i], for l < m <= 8, term by term: eight sums at once wait for each other
 * no more than one does.  y NULL: of x[l][i]. */
static void fs_dot_rows(double *FS_RESTRICT out, int m, const double *x, ptrdiff_t xl, ptrdiff_t xi, const double *y,
                        ptrdiff_t yl, ptrdiff_t yi, ptrdiff_t n)
{
    double s[8];
    if (m == 8) {
        for (int l = 0; l < 8; l++)
            s[l] = out[l];
        for (ptrdiff_t i = 0; i < n; i++)
            for (int l = 0; l < 8; l++)
                s[l] += y == NULL ? x[l * xl + i * xi] : x[l * xl + i * xi] * y[l * yl + i * yi];
        for (int l = 0; l < 8; l++)
            out[l] = s[l];
        return;
    }
    for (int l = 0; l < m; l++) {
        double t = out[l];
        FS_EACH(t += y == NULL ? x[l * xl + i * xi] : x[l * xl + i * xi] * y[l * yl + i * yi])
        out[l] = t;
    }
}

/* to[i] += g[i] * partial[i] */
static void fs_pass_product(double *FS_RESTRICT to, ptrdiff_t st, const double *g, ptrdiff_t sg, const double *partial,
                            ptrdiff_t ss, ptrdiff_t n)
{
    double bad = 0.0;
    if (st == 1 && sg == 0 && ss == 1) {
        const double t = g[0];
        if (t == 0.0)
            return;
        FS_EACH(bad += partial[i] - partial[i])
        if (bad == 0.0 && t - t == 0.0) { /* all finite: no product is the NaN of 0 times inf */
            FS_EACH(to[i] += t * partial[i])
            return;
        }
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        const double a = g[i * sg], b = partial[i * ss];
        if (a != 0.0 && b != 0.0)
            to[i * st] += a * b;
    }
}

#undef FS_EACH
#undef FS_BINARY

#endif
