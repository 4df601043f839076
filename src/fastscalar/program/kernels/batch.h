/* The kernels of compiled programs: arithmetic over rows (samples) on plain arrays.  They know nothing of programs, of
 * the tape and of Python.
 *
 * One table for each set (baseline, AVX2, AVX-512) and for each type of number; R is double or float, `void *` points
 * to R unless its name says otherwise.  Unlike the eager kernels (kernels.h) these may reassociate and contract: sums
 * are within 1e-12 (double) or 1e-5 (float) of the sum of the absolute terms, and the order is fixed for one set: the
 * same call gives the same bits every time.  exp, tanh and sigmoid are within 3 ulp of their type, the other functions
 * within 4, and of floats, which go by way of doubles, within 1.
 *
 * Matrices are row-major with a leading dimension (`ld...`, in elements).  Of a matrix of weights w (inputs x outputs),
 * of outputs and of output gradients the width n is a multiple of `width` (64 bytes), rows begin at multiples of 64
 * bytes, and what is beyond the real width is zero.  Of x and dx neither is promised.  Row l is that of x, out and g.
 * Any number of rows, none included.
 *
 * A matrix of one column is a vector and has no padding; it has kernels of its own.
 *
 * A sparse row is `count` pairs (column, value), columns ascending, value of type R: the entries that are not zero.
 */
#ifndef FASTSCALAR_BATCH_H
#define FASTSCALAR_BATCH_H

#include <stddef.h>

#include "vectors.h" /* FS_OWN_FUNCTIONS */

/* Elementwise operations that have a vector loop, with their names in the engine's table.  Value and derivatives as the
 * formulas f_*, d_* there.  OWN: what needs vectors of the compiler's (FS_OWN_FUNCTIONS). */
#define FS_BINARY(X)                                                                                                   \
    X(ADD, "+") X(SUB, "-") X(MUL, "*") X(DIV, "/") X(MINIMUM, "minimum") X(MAXIMUM, "maximum")
#define FS_OWN_BINARY(X)                                                                                               \
    X(POW, "**") X(ATAN2, "atan2") X(HYPOT, "hypot")
#define FS_UNARY(X)                                                                                                    \
    X(NEG, "neg") X(RELU, "relu") X(ABS, "abs") X(SQRT, "sqrt") X(EXP, "exp") X(LOG, "log") X(TANH, "tanh")            \
    X(SIGMOID, "sigmoid") X(SQUARE, "square")
#define FS_OWN_UNARY(X)                                                                                                \
    X(EXP2, "exp2") X(EXPM1, "expm1") X(LOG2, "log2") X(LOG10, "log10") X(LOG1P, "log1p") X(CBRT, "cbrt")              \
    X(SIN, "sin") X(COS, "cos") X(TAN, "tan") X(ASIN, "asin") X(ACOS, "acos") X(ATAN, "atan") X(SINH, "sinh")          \
    X(COSH, "cosh") X(ASINH, "asinh") X(ACOSH, "acosh") X(ATANH, "atanh") X(ERF, "erf") X(ERFC, "erfc")                \
    X(NDTR, "ndtr") X(SOFTPLUS, "softplus") X(SILU, "silu") X(GELU, "gelu")
#define FS_EACH(X) FS_BINARY(X) FS_OWN_BINARY(X) FS_UNARY(X) FS_OWN_UNARY(X)

#define FS_CODE(code, name) FS_##code,
enum { FS_EACH(FS_CODE) FS_N_OPERATIONS };
#undef FS_CODE

/* The name of an operation, NULL: this build has no kernel of it. */
static inline const char *fs_operation_name(int op)
{
#define FS_NAME(code, name) name,
#define FS_OWN_NAME(code, name) FS_OWN_FUNCTIONS ? name : NULL,
    static const char *const names[] = {
        FS_BINARY(FS_NAME) FS_OWN_BINARY(FS_OWN_NAME) FS_UNARY(FS_NAME) FS_OWN_UNARY(FS_OWN_NAME)};
#undef FS_NAME
#undef FS_OWN_NAME
    return names[op];
}
#undef FS_BINARY
#undef FS_OWN_BINARY
#undef FS_UNARY
#undef FS_OWN_UNARY
#undef FS_EACH

/* Elementwise operations of a program, resolved: `forward_steps` and `backward_steps` run one after the other until one
 * that is FS_STEP_LEAVE.  Slot s of n rows lies at base + s * n, a uniform number or a port at base + s. */
typedef struct {
    short code;            /* FS_STEP_... */
    signed char mode;      /* FS_VECTORS ...; of FS_STEP_SUM 1: 0.0 is added too, 2: some terms are numbers; of others
                            * the sign: 1, -1 */
    unsigned char base[5]; /* of each place: 0 values of slots, 1 uniform numbers, 2 gradients of slots, 3 ports; if
                            * there is one row: 4 runs, 5 their gradients */
    int op;                /* FS_ADD ...; of FS_STEP_SUM how many terms follow; of others whether there is a factor */
    int count;             /* slots side by side; of a term, if there is one row, products one after the other */
    int at[5];             /* forwards: result, operands; a term: what is added and its factor; backwards: what is sent
                            * to, the gradient, and what the slope reads: of FS_SEND_... the other operand and the
                            * result, of FS_STEP_UNARY operand and result, of FS_STEP_OTHER both operands and result */
} fs_step;

enum {
    FS_STEP_LEAVE,
    FS_STEP_BINARY, /* + 3 * operation up to FS_MAXIMUM + mode */
    FS_STEP_NEG = FS_STEP_BINARY + 3 * FS_MAXIMUM + 3,
    FS_STEP_SQUARE,
    FS_STEP_SUM,
    FS_STEP_COPY,
    FS_STEP_UNARY, /* by `unary`, `unary_backward` */
    FS_STEP_OTHER, /* by `binary`, `binary_backward` to the left operand */
    FS_STEP_OTHER_RIGHT,
    FS_STEP_TOTAL, /* to one number: the sum of the gradients, times a factor */
    FS_STEP_DOT,
    FS_STEP_ZERO,
    FS_TERM, /* what follows FS_STEP_SUM */
    FS_TERM_LESS,
    FS_TERM_SCALED,
    FS_TERM_PRODUCT,
    FS_TERM_LESS_PRODUCT,
    FS_TERM_NUMBER,
    FS_STEP_SEND /* + 2 * FS_SEND_... + 1 if it stores and does not add */
};

/* What is sent: the gradient itself, times the other operand, which may be one number, ... */
enum {
    FS_SEND_PLUS,
    FS_SEND_MINUS,
    FS_SEND_TIMES,
    FS_SEND_LESS_TIMES,
    FS_SEND_SCALED,
    FS_SEND_LESS_SCALED,
    FS_SEND_OVER,
    FS_SEND_OVER_ONE,
    FS_SEND_OVER_RIGHT,
    FS_SEND_OF_SQUARE,
    FS_SEND_COPIED,    /* 0 + the gradient */
    FS_SEND_ALL_TO_ONE /* one row: the gradients, times as many numbers, from the last to the first */
};

/* Memory that is read soon, to the second level of the cache. */
static inline void fs_fetch(const void *p, size_t bytes)
{
#ifdef __GNUC__
    for (size_t at = 0; at < bytes; at += 64)
        __builtin_prefetch((const char *)p + at, 0, 2);
#else
    (void)p, (void)bytes;
#endif
}

/* Which operands of a binary operation are one number for all n elements. */
enum { FS_VECTORS, FS_A_IS_ONE, FS_B_IS_ONE };

typedef struct {
    const char *name;
    int width; /* R in 64 bytes: 8 or 16 */

    /* --- rows of the data set --- */
    /* x[l][0..m) = (R)row[l][0..m) */
    void (*load_rows)(void *x, ptrdiff_t ldx, const double *const *row, int m, int n_rows);
    /* Turned: x[place[j]][l] = (R)row[l][j] for j < n, of row l = data + rows[l] * width; place -1: not column j. */
    void (*load_columns)(void *x, ptrdiff_t ldx, const double *data, ptrdiff_t width, const long long *rows, int n_rows,
                         const int *place, int n);
    /* And back: row[l][j] = 0 + g[place[j]][l], place -1: 0.  Whether all of them are finite. */
    int (*store_columns)(double *data, ptrdiff_t width, const long long *rows, int n_rows, const int *place, int n,
                          const void *g, ptrdiff_t ldg);
    /* The entries of x[0..m) that are not zero (NaN is not): column and value have room for m + width; how many. */
    int (*compress)(int *column, void *value, const double *x, int m);

    /* --- matrix products --- */
    /* in_order: a row's bits depend on nothing but the row, not on how many there are, nor on whether it is given by
     * its entries.  Else one to three rows are added up in several sums at once, which is faster. */
    /* out[l][0..n) = b[0..n) + sum over k of value[l][k] * w[column[l][k]][0..n).  b NULL: zero. */
    void (*sparse_affine)(void *out, ptrdiff_t ldo, const void *b, const void *w, ptrdiff_t ldw, int n, int n_rows,
                          const int *const *column, const void *const *value, const int *count, int in_order);
    /* out[l][0..n) = b[0..n) + sum over j < m of x[l][j] * w[j][0..n) */
    void (*dense_affine)(void *out, ptrdiff_t ldo, const void *b, const void *w, ptrdiff_t ldw, int n, int n_rows,
                         const void *x, ptrdiff_t ldx, int m, int in_order);
    /* The sparse rows of all rows, whose columns are first <= j < stop, column by column: entries start[j] <= k <
     * start[j + 1] are those of column j, row_of[k] (ascending) and entry[k] the row and the number of each.  start has
     * room for stop + 1, row_of and entry for all entries. */
    void (*sparse_transpose)(int *start, int *row_of, void *entry, int first, int stop, int n_rows,
                             const int *const *column, const void *const *value, const int *count);
    /* w[j][0..n) += scale * sum over the rows l of x[l][j] * g[l][0..n), for first <= j < stop, x as
     * `sparse_transpose` left it.  Rows of w without an entry are not touched.  Fastest with 16 to 64 rows at once. */
    void (*sparse_update)(void *w, ptrdiff_t ldw, double scale, int n, const int *start, const int *row_of,
                          const void *entry, int first, int stop, const void *g, ptrdiff_t ldg);
    /* The same of one row, without `sparse_transpose`: w[column[k]][0..n) += scale * value[k] * g[0..n) */
    void (*sparse_update_one)(void *w, ptrdiff_t ldw, double scale, int n, const int *column, const void *value,
                              int count, const void *g);
    /* w[j][0..n) = keep * itself + scale * sum over l of x[l][j] * g[l][0..n), for 0 <= j < m */
    void (*dense_update)(void *w, ptrdiff_t ldw, double keep, double scale, int n, int n_rows, const void *x,
                         ptrdiff_t ldx, int m, const void *g, ptrdiff_t ldg);
    /* Of one row, and of a matrix that lies turned, a row for each of n outputs, with zeros beyond m up to `width`:
     * out[i] = b[i] + sum over j < m of x[j] * w[i][j], and w[i][j] += scale * x[j] * g[i] */
    void (*narrow_affine)(void *out, const void *b, const void *w, ptrdiff_t ldw, int n, const void *x, int m);
    void (*narrow_update)(void *w, ptrdiff_t ldw, double scale, int n, const void *x, int m, const void *g);
    /* dx[l][j] += sum over i < n of g[l][i] * w[j][i], for 0 <= j < m. */
    void (*input_gradient)(void *dx, ptrdiff_t lddx, const void *w, ptrdiff_t ldw, int n, int m, int n_rows,
                           const void *g, ptrdiff_t ldg, int in_order);

    /* --- one column --- */
    /* sum over k of value[k] * w[column[k]] */
    double (*sparse_dot)(const int *column, const void *value, int count, const void *w);
    /* w[column[k]] += scale * value[k] */
    void (*sparse_add)(void *w, double scale, const int *column, const void *value, int count);

    /* --- elementwise --- */
    void (*binary)(int op, int mode, void *out, const void *a, const void *b, ptrdiff_t n);
    /* da[i] += g[i] * d out / d a, db likewise; either may be NULL; of an operand that is one number: da[0] += the sum.
     * da and db may be the same array, and a and b.  v: the outputs. */
    void (*binary_backward)(int op, int mode, void *da, void *db, const void *a, const void *b, const void *v,
                            const void *g, ptrdiff_t n);
    void (*unary)(int op, void *out, const void *a, ptrdiff_t n);
    void (*unary_backward)(int op, void *da, const void *a, const void *v, const void *g, ptrdiff_t n);
    /* out[i] = a[i] ? b[i] holds ? c[i] : d[i], for a comparison of Python's; which operands are one number for all n
     * elements: bit 0 of `ones` for a, 1 for b, 2 for c, 3 for d. */
    void (*where)(int comparison, int ones, void *out, const void *a, const void *b, const void *c, const void *d,
                  ptrdiff_t n);
    /* to[i] += g[i] where the comparison comes out as `outcome`.  Bit 0 of `ones`: a, 1: b is one number; 2: to[0] +=
     * the sum. */
    void (*where_backward)(int comparison, int ones, int outcome, void *to, const void *a, const void *b,
                           const void *g, ptrdiff_t n);
    /* first[i] = k where it is negative and the comparison does not come out as `outcome`; bit 0 of `ones`: a, 1: b is
     * one number. */
    void (*first_failure)(int comparison, int ones, int outcome, void *first, const void *a, const void *b, double k,
                          ptrdiff_t n);
    /* Where x[i] is better than best[i], which it is not if they are equal or best[i] is NaN: best[i] = x[i] and
     * place[i] = k.  Better: greater, or `least` smaller; NaN.  one: x is one number. */
    void (*better)(int least, int one, void *best, void *place, const void *x, double k, ptrdiff_t n);
    /* best[l], place[l]: the first of the greatest, or least, numbers among z[l][0..n), or the first NaN. */
    void (*best)(int least, void *best, void *place, const void *z, ptrdiff_t ldz, int n, int n_rows);
    /* Whether a number among x[0..n) is infinite or NaN. */
    int (*not_finite)(const void *x, ptrdiff_t n);
    /* Whether one is NaN, or so large that sums of products of such numbers may be infinite: double 1.8e150. */
    int (*beyond)(const void *x, ptrdiff_t n);

    /* --- one after the other --- */
    /* From step `at` on; the number of the step that says FS_STEP_LEAVE. */
    int (*forward_steps)(const fs_step *steps, int at, void *const *bases, ptrdiff_t n_rows);
    int (*backward_steps)(const fs_step *steps, int at, void *const *bases, ptrdiff_t n_rows);

    /* --- sums --- */
    void (*add)(void *y, const void *x, ptrdiff_t n);                          /* y[i] += x[i] */
    void (*add_scaled)(void *y, double scale, const void *x, ptrdiff_t n);     /* y[i] += scale * x[i] */
    void (*add_product)(void *y, const void *a, const void *b, ptrdiff_t n);   /* y[i] += a[i] * b[i] */
    void (*add_number)(void *y, double x, ptrdiff_t n);                        /* y[i] += x */
    double (*sum)(const void *x, ptrdiff_t n);
    double (*dot)(const void *x, const void *y, ptrdiff_t n);
    /* y[0..n) += sum over l < n_rows of x[l][0..n): rows in ascending order */
    void (*add_rows)(void *y, const void *x, ptrdiff_t ldx, int n, int n_rows);
    /* to[j * ldto + i] = from[i * ldfrom + j] for i < rows, j < columns; `accumulate`: += */
    void (*transpose)(void *to, ptrdiff_t ldto, const void *from, ptrdiff_t ldfrom, int rows, int columns,
                      int accumulate);

    /* --- losses, by rows --- */
    /* p[l][0..n) = softmax(z[l][0..n)), lse[l] = log(sum(exp(z[l]))); does not overflow.  Those at
     * +inf share 1; if all are -inf, p is 0 and lse -inf.  Any n; p may be z. */
    void (*softmax)(void *p, ptrdiff_t ldp, void *lse, const void *z, ptrdiff_t ldz, int n, int n_rows);

    /* --- images: see batch_images.c --- */
    void (*patches)(void *out, const void *image, ptrdiff_t line, int kernel_h, int span, int n_y, ptrdiff_t down,
                    int n_x, ptrdiff_t across);
    void (*add_patches)(void *image, const void *patches, ptrdiff_t line, int kernel_h, int span, int n_y,
                        ptrdiff_t down, int n_x, ptrdiff_t across);
    void (*max_pool)(void *out, void *place, const void *image, ptrdiff_t line, int channels, int kernel_h,
                     int kernel_w, int stride, int n_y, int n_x);
    void (*add_pool)(void *image, const void *place, const void *g, ptrdiff_t line, int channels, int kernel_w,
                     int stride, int n_y, int n_x);
} fs_batch;

/* The table of this set ("baseline", "avx2", "avx512") for doubles (is_double) or floats (0), if this CPU can run it,
 * else NULL; a NULL name asks for the best. */
const fs_batch *fs_batch_select(const char *name, int is_double);

#endif
