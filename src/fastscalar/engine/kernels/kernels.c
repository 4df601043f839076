/* The bodies of the kernels of arrays, see kernels.h.  FS_SET names the set that this object file holds.
 *
 * Output columns are taken 32 at a time and kept in registers while all inputs go by, so `w` is read once and `out`
 * written once.  Tried and lost (784 x 256, 19 % of the inputs not zero, AVX-512): out[] in memory, input by input,
 * 1.5x the time (8.7 against 5.6 us, samples in turn).
 */
#include <float.h>
#include <math.h>
#include <stdint.h>

#include "kernels.h"

#ifndef FS_SET
#define FS_SET baseline
#define FS_SET_NAME "baseline"
#define FS_VECTOR 16
#define FS_HAS_SELECT 1
#endif

#define FS_JOIN2(a, b) a##b
#define FS_JOIN(a, b) FS_JOIN2(a, b)

#define LANES 8
#if defined(__GNUC__)
typedef double lanes __attribute__((vector_size(64), aligned(8), may_alias));
#define LOAD(p) (*(const lanes *)(p))
#define STORE(p, v) (*(lanes *)(p) = (v))
#endif

static int compress(int *row, double *value, const double *x, ptrdiff_t stride, int n)
{
    int k = 0;
    for (int j = 0; j < n; j++) { /* without a branch: which pixels are zero cannot be predicted */
        double v = x[j * stride];
        row[k] = j;
        value[k] = v;
        k += v != 0.0; /* NaN counts */
    }
    return k;
}

static void affine(double *out, const double *b, const double *w, int n, const int *row, const double *x, int nnz)
{
    int i = 0;
#if defined(__GNUC__)
    const lanes zero = {0.0};
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        lanes s0 = zero + LOAD(b + i), s1 = zero + LOAD(b + i + 8);
        lanes s2 = zero + LOAD(b + i + 16), s3 = zero + LOAD(b + i + 24);
        for (int k = 0; k < nnz; k++) {
            const double *r = w + (ptrdiff_t)row[k] * n + i;
            const double t = x[k];
            s0 += t * LOAD(r);
            s1 += t * LOAD(r + 8);
            s2 += t * LOAD(r + 16);
            s3 += t * LOAD(r + 24);
        }
        STORE(out + i, s0);
        STORE(out + i + 8, s1);
        STORE(out + i + 16, s2);
        STORE(out + i + 24, s3);
    }
    for (; i + LANES <= n; i += LANES) {
        lanes s = zero + LOAD(b + i);
        for (int k = 0; k < nnz; k++)
            s += x[k] * LOAD(w + (ptrdiff_t)row[k] * n + i);
        STORE(out + i, s);
    }
#endif
    for (; i < n; i++) {
        double s = 0.0 + b[i];
        for (int k = 0; k < nnz; k++)
            s += x[k] * w[(ptrdiff_t)row[k] * n + i];
        out[i] = s;
    }
}

/* Zero sends zero: a gradient g[i] that is zero contributes nothing, and nothing passes a factor that is zero.  With
 * finite factors that is so anyway; only where one (or, in a sum, the result) is infinite or NaN a masked loop runs. */
static double send(double g, double t)
{
    return g == 0.0 || t == 0.0 ? 0.0 : t * g;
}

static int all_finite(const double *x, int n)
{
    double p[LANES] = {0.0};
    int i = 0;
#if defined(__GNUC__)
    lanes s = {0.0};
    for (; i + LANES <= n; i += LANES) {
        const lanes v = LOAD(x + i);
        s += v - v; /* NaN of what is not finite */
    }
    STORE(p, s);
#endif
    for (; i < n; i++)
        p[i % LANES] += x[i] - x[i];
    return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7])) == 0.0;
}

static void add_outer(double *a, const int *row, const double *x, int nnz, const double *restrict g, int n)
{
    const int finite = all_finite(x, nnz);
    for (int k = 0; k < nnz; k++) {
        double *restrict r = a + (ptrdiff_t)row[k] * n;
        const double t = x[k];
        if (!finite)
            for (int i = 0; i < n; i++)
                r[i] += send(g[i], t);
        else
            for (int i = 0; i < n; i++)
                r[i] += t * g[i];
    }
}

static void step_outer(double *w, double lr, const int *row, const double *x, int nnz, const double *restrict g, int n)
{
    const int finite = all_finite(x, nnz);
    for (int k = 0; k < nnz; k++) {
        double *restrict r = w + (ptrdiff_t)row[k] * n;
        const double t = x[k];
        if (!finite)
            for (int i = 0; i < n; i++)
                r[i] -= lr * (0.0 + send(g[i], t));
        else
            for (int i = 0; i < n; i++)
                r[i] -= lr * (0.0 + t * g[i]);
    }
}

static double masked_input_gradient(const double *r, const double *g, int n)
{
    double p[LANES] = {0.0};
    for (int i = 0; i < n; i++)
        p[i % LANES] += send(g[i], r[i]);
    return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
}

static void add_input_gradient(double *dx, const double *w, const double *g, int m, int n)
{
    for (int j = 0; j < m; j++) {
        const double *r = w + (ptrdiff_t)j * n;
        double p[LANES] = {0.0}, sum;
        int i = 0;
#if defined(__GNUC__)
        lanes s = {0.0};
        for (; i + LANES <= n; i += LANES)
            s += LOAD(r + i) * LOAD(g + i);
        STORE(p, s);
#else
        for (; i + LANES <= n; i += LANES)
            for (int l = 0; l < LANES; l++)
                p[l] += r[i + l] * g[i + l];
#endif
        for (int l = 0; i < n; i++, l++)
            p[l] += r[i] * g[i];
        sum = ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
        dx[j] += sum - sum == 0.0 ? sum : masked_input_gradient(r, g, n);
    }
}

static void add(double *restrict y, const double *restrict x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void step(double *restrict w, double lr, const double *restrict g, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        w[i] -= lr * g[i];
}

static void relu(double *restrict y, const double *restrict x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        y[i] = x[i] <= 0.0 ? 0.0 : x[i];
}

static void add_relu_gradient(double *restrict dx, const double *restrict x, const double *restrict g, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        dx[i] += x[i] <= 0.0 ? 0.0 : g[i]; /* also of what is infinite or NaN */
}

#define FS_REAL double
#define FS_TYPE double
#define FS_SQRT sqrt
#define FS_ABS fabs
#define FS_LEAST DBL_MIN
#include "rules_body.c"
#undef FS_REAL
#undef FS_TYPE
#undef FS_SQRT
#undef FS_ABS
#undef FS_LEAST
#define FS_REAL float
#define FS_TYPE float
#define FS_SQRT sqrtf
#define FS_ABS fabsf
#define FS_LEAST FLT_MIN
#include "rules_body.c"

#undef LOAD
#undef STORE
#include "each.c"

const fs_kernels FS_JOIN(fs_kernels_, FS_SET) = {
    FS_SET_NAME, compress,    affine,     add_outer,      step_outer,    add_input_gradient, add, step, relu,
    add_relu_gradient,        rule_double, rule_float,     squares_double, squares_float,
    each,        each_pair,
};

#ifdef FS_HAS_SELECT
#include <string.h>

const fs_kernels *fs_kernels_select(const char *name)
{
#ifdef FS_X86_SETS
    __builtin_cpu_init();
    int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl");
    if (avx512 && (name == NULL || strcmp(name, "avx512") == 0))
        return &fs_kernels_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (name == NULL || strcmp(name, "avx2") == 0))
        return &fs_kernels_avx2;
#endif
    return name == NULL || strcmp(name, "baseline") == 0 ? &fs_kernels_baseline : NULL;
}
#endif
