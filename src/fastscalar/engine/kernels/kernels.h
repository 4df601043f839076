/* The kernels of arrays: arithmetic on plain arrays of doubles.  They know nothing of the tape and of Python.
 *
 * One object file for each target (`kernels_*.c` set the compiler's target and include `kernels.c`); the engine takes
 * one table of pointers at import.  Every set gives the same bits: additions happen in the order that is written here,
 * multiply and add are never contracted (-ffp-contract=off), and a reduction has eight partial sums on every CPU.
 *
 * In the three kernels of gradients a factor g[i] that is zero contributes nothing, whatever the other factor is.
 *
 * A sparse vector is `nnz` pairs (row[k], x[k]), rows ascending: the entries that are not exactly zero.
 */
#ifndef FASTSCALAR_KERNELS_H
#define FASTSCALAR_KERNELS_H

#include <stddef.h>

#include "rules.h"

/* out[i] = f(x[i * sx]), and of two operands; see each.c. */
typedef void (*fs_each)(double *out, const double *x, ptrdiff_t sx, ptrdiff_t n);
typedef void (*fs_each_pair)(double *out, const double *x, ptrdiff_t sx, const double *y, ptrdiff_t sy, ptrdiff_t n);

typedef struct {
    const char *name;
    /* The entries of x[0], x[stride], ... that are not zero; row and value have room for n; how many there are. */
    int (*compress)(int *row, double *value, const double *x, ptrdiff_t stride, int n);
    /* out[i] = 0.0 + b[i], then out[i] += x[k] * w[row[k]][i] for k = 0, 1, ...   w has n columns. */
    void (*affine)(double *out, const double *b, const double *w, int n, const int *row, const double *x, int nnz);
    /* a[row[k]][i] += x[k] * g[i] */
    void (*add_outer)(double *a, const int *row, const double *x, int nnz, const double *g, int n);
    /* w[row[k]][i] -= lr * (0.0 + x[k] * g[i]): the SGD step of a gradient that is still factored */
    void (*step_outer)(double *w, double lr, const int *row, const double *x, int nnz, const double *g, int n);
    /* dx[j] += sum over i of w[j][i] * g[i], for j < m */
    void (*add_input_gradient)(double *dx, const double *w, const double *g, int m, int n);
    void (*add)(double *y, const double *x, ptrdiff_t n);                        /* y[i] += x[i] */
    void (*step)(double *w, double lr, const double *g, ptrdiff_t n);            /* w[i] -= lr * g[i] */
    void (*relu)(double *y, const double *x, ptrdiff_t n);                       /* y[i] = x[i] <= 0 ? 0 : x[i] */
    void (*add_relu_gradient)(double *dx, const double *x, const double *g,
                              ptrdiff_t n); /* dx[i] += g[i] * (x[i] <= 0 ? 0 : 1) */
    /* One step of an optimiser, see rules.h, of m rows side by side, n numbers each: the gradient of row j is x[j] * g.
     * x = NULL: 1. */
    void (*rule_double)(const fs_rule *rule, double *w, const double *g, double *s, double *t, ptrdiff_t n,
                        const double *x, ptrdiff_t m);
    void (*rule_float)(const fs_rule *rule, float *w, const float *g, float *s, float *t, ptrdiff_t n, const float *x,
                       ptrdiff_t m);
    double (*squares_double)(const double *x, ptrdiff_t n);                      /* the sum of x[i]^2 */
    double (*squares_float)(const float *x, ptrdiff_t n);
    fs_each (*each)(const char *operation);           /* an operation of one operand by its name; NULL: has none */
    fs_each_pair (*each_pair)(const char *operation); /* of two */
} fs_kernels;

extern const fs_kernels fs_kernels_baseline;
#if defined(__GNUC__) && defined(__x86_64__)
#define FS_X86_SETS 1
extern const fs_kernels fs_kernels_avx2;
extern const fs_kernels fs_kernels_avx512;
#endif

/* The set of this name if this CPU can run it, else NULL; a NULL name asks for the best. */
const fs_kernels *fs_kernels_select(const char *name);

#endif
