/* The bodies of the kernels of compiled programs for numbers of type R, see batch.c. */

#include "vectors_body.c"

/* PICK: of the elements of two vectors those that the function f of batch.c says; STEPS: by doubling. */
#undef PICK
#undef STEPS
#if VW == 16
#define PICK(f, a, b, h) SHUFFLE(a, b, LIST16(f, 0, h))
#define STEPS STEP(1) STEP(2) STEP(4) STEP(8)
#elif VW == 8
#define PICK(f, a, b, h) SHUFFLE(a, b, LIST8(f, 0, h))
#define STEPS STEP(1) STEP(2) STEP(4)
#elif VW == 4
#define PICK(f, a, b, h) SHUFFLE(a, b, LIST4(f, 0, h))
#define STEPS STEP(1) STEP(2)
#elif VW == 2
#define PICK(f, a, b, h) SHUFFLE(a, b, LIST2(f, 0, h))
#define STEPS STEP(1)
#else
#define STEPS
#endif

/* Element i is the sum of s[i], i < VW; s is used up. */
INLINE vec OF(horizontal_add)(vec *s)
{
#define STEP(h)                                                                                                        \
    UNROLL for (int i = 0; i < VW; i += 2 * h) s[i] = PICK(FIRST, s[i], s[i + h], h) + PICK(SECOND, s[i], s[i + h], h);
    STEPS
#undef STEP
    return s[0];
}

/* s as a square matrix, transposed. */
INLINE void OF(transpose_square)(vec *s)
{
    (void)s; /* of one element: nothing to do */
#define STEP(h)                                                                                                        \
    UNROLL for (int i = 0; i < VW; i++) if (!(i & h))                                                                  \
    {                                                                                                                  \
        vec p = s[i], q = s[i + h];                                                                                    \
        s[i] = PICK(FIRST, p, q, h);                                                                                   \
        s[i + h] = PICK(SECOND, p, q, h);                                                                              \
    }
    STEPS
#undef STEP
}

/* The sum, or the greatest, of the elements of v, in each element. */
INLINE vec OF(sum_everywhere)(vec v)
{
#define STEP(h) v += PICK(PARTNER, v, v, h);
    STEPS
#undef STEP
    return v;
}

INLINE vec OF(greatest_everywhere)(vec v)
{
#define STEP(h)                                                                                                        \
    {                                                                                                                  \
        const vec p = PICK(PARTNER, v, v, h);                                                                          \
        v = SELECT(v > p, v, p);                                                                                       \
    }
    STEPS
#undef STEP
    return v;
}

INLINE R OF(first_of)(vec v)
{
#ifdef __GNUC__
    return v[0];
#else
    return v;
#endif
}

INLINE R OF(total)(vec v)
{
    return OF(first_of)(OF(sum_everywhere)(v));
}

#include "exp_body.c"
#include "batch_dense.c"
#include "batch_images.c"
#if WIDE && FS_OWN_FUNCTIONS
#include "functions_body.c"
#endif

/* --- rows of the data set --- */

#ifdef __GNUC__ /* the rows after those of a square, whose lines lie apart */
#define FETCH_ROWS(data)                                                                                               \
    UNROLL for (int v = 0; v < VW; v++) if (l + VW + v < n_rows) __builtin_prefetch(data + rows[l + VW + v] * width + j)
#else
#define FETCH_ROWS(data)
#endif

/* A vector of numbers that lie somewhere as doubles; they are stored likewise. */
INLINE vec OF(from_doubles)(const double *p)
{
#if WIDE
    return LOAD(p);
#else
    R t[VW];
    UNROLL for (int v = 0; v < VW; v++) t[v] = (R)p[v];
    return LOAD(t);
#endif
}

INLINE void OF(to_doubles)(double *p, vec x)
{
#if WIDE
    STORE(p, x);
#else
    R t[VW];
    STORE(t, x);
    UNROLL for (int v = 0; v < VW; v++) p[v] = t[v];
#endif
}

static void OF(load_rows)(void *x, ptrdiff_t ldx, const double *const *row, int m, int n_rows)
{
    for (int l = 0; l < n_rows; l++) {
        R *to = (R *)x + l * ldx;
        const double *from = row[l];
        EACH(j, m) to[j] = (R)from[j];
    }
}

/* `square` for each VW rows from l on and as many columns from j on, which overlap at the ends, or `single` for each
 * number if there are not so many. */
#define SQUARES(square, single)                                                                                        \
    if (n_rows < VW || n < VW) {                                                                                       \
        for (int l = 0; l < n_rows; l++)                                                                               \
            for (int j = 0; j < n; j++)                                                                                \
                single;                                                                                                \
    }                                                                                                                  \
    else                                                                                                               \
        for (int at = 0; at < n_rows; at += VW) {                                                                      \
            const int l = at + VW <= n_rows ? at : n_rows - VW;                                                        \
            for (int from = 0; from < n; from += VW) {                                                                 \
                const int j = from + VW <= n ? from : n - VW;                                                          \
                vec s[VW];                                                                                             \
                square                                                                                                 \
            }                                                                                                          \
        }

static void OF(load_columns)(void *x_, ptrdiff_t ldx, const double *data, ptrdiff_t width, const long long *rows,
                             int n_rows, const int *place, int n)
{
    R *x = x_;
    SQUARES(
        {
            UNROLL for (int v = 0; v < VW; v++) s[v] = OF(from_doubles)(data + rows[l + v] * width + j);
            FETCH_ROWS(data);
            OF(transpose_square)(s);
            UNROLL for (int v = 0; v < VW; v++) if (place[j + v] >= 0) STORE(x + place[j + v] * ldx + l, s[v]);
        },
        if (place[j] >= 0) x[place[j] * ldx + l] = (R)data[rows[l] * width + j])
}

static int OF(store_columns)(double *data, ptrdiff_t width, const long long *rows, int n_rows, const int *place, int n,
                             const void *g_, ptrdiff_t ldg)
{
    const R *g = g_;
    vec sum = ZERO; /* 0 or NaN */
    R rest = 0;
    SQUARES(
        {
            UNROLL for (int v = 0; v < VW; v++)
            {
                s[v] = place[j + v] < 0 ? ZERO : ZERO + LOAD(g + place[j + v] * ldg + l);
                sum += 0 * s[v];
            }
            OF(transpose_square)(s);
            UNROLL for (int v = 0; v < VW; v++) OF(to_doubles)(data + rows[l + v] * width + j, s[v]);
        },
        {
            const R t = place[j] < 0 ? 0 : 0 + g[place[j] * ldg + l];
            rest += 0 * t;
            data[rows[l] * width + j] = t;
        })
    rest += OF(total)(sum);
    return rest == rest;
}
#undef SQUARES
#undef FETCH_ROWS

#if FS_VECTOR == 64
/* GCC 12 may spill what came from a mask as one byte, and then count the bits of the four that lie there. */
INLINE unsigned OF(bits_of)(unsigned mask)
{
    __asm__("" : "+r"(mask)); /* in a general register: is spilled whole */
    return mask;
}
#endif

static int OF(compress)(int *column, void *value, const double *x, int m)
{
    R *y = value;
    int j = 0, k = 0;
#if FS_VECTOR == 64
    __m512i at = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; j + 16 <= m; j += 16) { /* to registers, then whole vectors: a compressing store is slow on some CPUs */
        const __m512d v = _mm512_loadu_pd(x + j), u = _mm512_loadu_pd(x + j + 8);
        const unsigned low = OF(bits_of)(_mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_NEQ_UQ)); /* NaN counts */
        const unsigned high = OF(bits_of)(_mm512_cmp_pd_mask(u, _mm512_setzero_pd(), _CMP_NEQ_UQ));
        const unsigned some = low | high << 8;
#if WIDE
        _mm512_storeu_pd(y + k, _mm512_maskz_compress_pd((__mmask8)low, v));
        _mm512_storeu_pd(y + k + __builtin_popcount(low), _mm512_maskz_compress_pd((__mmask8)high, u));
#else
        const __m512 t = _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(v)), _mm512_cvtpd_ps(u), 1);
        _mm512_storeu_ps(y + k, _mm512_maskz_compress_ps((__mmask16)some, t));
#endif
        _mm512_storeu_si512(column + k, _mm512_maskz_compress_epi32((__mmask16)some, at));
        at = _mm512_add_epi32(at, _mm512_set1_epi32(16));
        k += __builtin_popcount(some);
    }
#endif
    for (; j < m; j++) { /* without a branch: which pixels are zero cannot be predicted */
        column[k] = j;
        y[k] = (R)x[j];
        k += x[j] != 0.0;
    }
    return k;
}

/* --- products of sparse rows --- */

/* s[0..nv) = sum over k of value[k] * base[index[k]][0..nv * VW); index NULL: of base[k].  `at_once` entries at once
 * where nv sums alone do not hide the latency of one. */
INLINE void OF(weighted_rows)(vec *s, const R *base, ptrdiff_t ld, const int *index, const R *value, int count,
                              const int nv, const int at_once)
{
    vec p[16];
    int k = 0;
    UNROLL for (int v = 0; v < at_once * nv; v++) p[v] = ZERO;
    for (; k + at_once <= count; k += at_once, base += index ? 0 : at_once * ld)
        UNROLL for (int u = 0; u < at_once; u++) {
            const R *row = base + (index ? index[k + u] : u) * ld;
            const R t = value[k + u];
            UNROLL for (int v = 0; v < nv; v++) p[u * nv + v] += t * LOAD(row + v * VW);
        }
    if (at_once > 1)
        for (; k < count; k++, base += index ? 0 : ld) {
            const R *row = base + (index ? index[k] * ld : 0);
            const R t = value[k];
            UNROLL for (int v = 0; v < nv; v++) p[v] += t * LOAD(row + v * VW);
        }
    UNROLL for (int h = at_once / 2; h; h /= 2)
        UNROLL for (int v = 0; v < h * nv; v++) p[v] += p[v + h * nv];
    UNROLL for (int v = 0; v < nv; v++) s[v] = p[v];
}

/* Output columns in passes of `most` vectors, the rest in narrower ones. */
#define BY_WIDTH(step, most)                                                                                           \
    {                                                                                                                  \
        int i = 0;                                                                                                     \
        if (GATHER == 16 && (most) == 16)                                                                              \
            for (; i + 16 * VW <= n; i += 16 * VW)                                                                     \
     step(16, 1);                                                                                           \
        for (; i + 8 * VW <= n; i += 8 * VW)                                                                           \
            step(8, 1);                                                                                                \
        for (; i + 4 * VW <= n; i += 4 * VW)                                                                           \
            step(4, 2);                                                                                                \
        for (; i + 2 * VW <= n; i += 2 * VW)                                                                           \
            step(2, 4);                                                                                                \
        for (; i + VW <= n; i += VW)                                                                                   \
            step(1, 8);                                                                                                \
     }

/* out[0..n) = b + sum over k of x[k] * w[k][0..n) in the order of `product`; index: k is what it says, ascending. */
static void OF(affine_in_order)(R *out, const R *b, const R *w, ptrdiff_t ldw, int n, const int *index, const R *x,
                                int count)
{
    for (int from = 0, block = 0; from < count || !from; block++) {
        int stop = from + DEPTH < count ? from + DEPTH : count;
        if (index) {
            const int bound = block * DEPTH + DEPTH;
            if (from < count && index[from] >= bound)
                continue;
            if (count && index[stop - 1] >= bound)
                for (stop = from; index[stop] < bound; stop++)
                    ;
        }
#define STEP(nv, at_once)                                                                                              \
    {                                                                                                                  \
        vec s[nv];                                                                                                     \
        OF(weighted_rows)(s, w + i + (index ? 0 : from * ldw), ldw, index ? index + from : NULL, x + from,             \
                          stop - from, nv, 1);                                                                         \
        UNROLL for (int v = 0; v < nv; v++)                                                                            \
        {                                                                                                              \
            R *p = out + i + v * VW;                                                                                   \
            STORE(p, from ? LOAD(p) + s[v] : b ? LOAD(b + i + v * VW) + s[v] : s[v]);                                  \
        }                                                                                                              \
    }
        BY_WIDTH(STEP, 16)
#undef STEP
        if (stop == count)
            break;
        from = stop;
    }
}

static void OF(sparse_affine)(void *out_, ptrdiff_t ldo, const void *b_, const void *w_, ptrdiff_t ldw, int n,
                              int n_rows, const int *const *column, const void *const *value, const int *count,
                              int in_order)
{
    R *out = out_;
    const R *b = b_, *w = w_;
    if (in_order) {
        for (int l = 0; l < n_rows; l++)
            OF(affine_in_order)(out + l * ldo, b, w, ldw, n, column[l], value[l], count[l]);
        return;
    }
#define STEP(nv, at_once)                                                                                              \
    for (int l = 0; l < n_rows; l++) {                                                                                 \
        vec s[nv];                                                                                                     \
        OF(weighted_rows)(s, w + i, ldw, column[l], value[l], count[l], nv, at_once);                                  \
        UNROLL for (int v = 0; v < nv; v++)                                                                            \
            STORE(out + l * ldo + i + v * VW, b ? LOAD(b + i + v * VW) + s[v] : s[v]);                                 \
    }
    BY_WIDTH(STEP, 16)
#undef STEP
}

static void OF(dense_affine)(void *out_, ptrdiff_t ldo, const void *b_, const void *w_, ptrdiff_t ldw, int n,
                             int n_rows, const void *x_, ptrdiff_t ldx, int m, int in_order)
{
    R *out = out_;
    const R *b = b_, *w = w_, *x = x_;
    if (n_rows > (n < 4 * VW ? 3 : 1)) {
        OF(product)(out, ldo, x, ldx, 1, w, ldw, n_rows, n, m, (OF(finish)){1, b, 1});
        return;
    }
    if (in_order) {
        for (int l = 0; l < n_rows; l++)
            OF(affine_in_order)(out + l * ldo, b, w, ldw, n, NULL, x + l * ldx, m);
        return;
    }
#define STEP(nv, at_once)                                                                                              \
    for (int l = 0; l < n_rows; l++) {                                                                                 \
        vec s[nv];                                                                                                     \
        OF(weighted_rows)(s, w + i, ldw, NULL, x + l * ldx, m, nv, at_once);                                           \
        UNROLL for (int v = 0; v < nv; v++)                                                                            \
            STORE(out + l * ldo + i + v * VW, b ? LOAD(b + i + v * VW) + s[v] : s[v]);                                 \
    }
    BY_WIDTH(STEP, 16)
#undef STEP
}

static void OF(sparse_transpose)(int *start, int *row_of, void *entry_, int first, int stop, int n_rows,
                                 const int *const *column, const void *const *value, const int *count)
{
    R *entry = entry_;
    memset(start + first, 0, (size_t)(stop - first + 1) * sizeof *start);
    for (int l = 0; l < n_rows; l++)
        for (int k = 0; k < count[l]; k++)
            start[column[l][k] + 1]++;
    for (int j = first, sum = 0; j < stop; j++) { /* start[j + 1]: where column j begins; it moves to its end below */
        int c = start[j + 1];
        start[j + 1] = sum;
        sum += c;
    }
    for (int l = 0; l < n_rows; l++) {
        const int *c = column[l];
        const R *x = value[l];
        for (int k = 0; k < count[l]; k++) {
            int at = start[c[k] + 1]++;
            row_of[at] = l;
            entry[at] = x[k];
        }
    }
}

static void OF(sparse_update)(void *w_, ptrdiff_t ldw, double scale, int n, const int *start, const int *row_of,
                              const void *entry_, int first, int stop, const void *g_, ptrdiff_t ldg)
{
    R *w = w_;
    const R *entry = entry_, *g = g_;
    const R rate = (R)scale;
    R panel[CACHE];
    int n_rows = 0;
    for (int j = first; j < stop; j++) /* the last row of a column is its greatest */
        if (start[j + 1] > start[j] && row_of[start[j + 1] - 1] >= n_rows)
            n_rows = row_of[start[j + 1] - 1] + 1;
#define STEP(nv, at_once)                                                                                              \
    {                                                                                                                  \
        const R *y = g + i;                                                                                            \
        ptrdiff_t ld = ldg;                                                                                            \
        if (n_rows <= CACHE / (nv * VW)) {                                                                             \
            ld = nv * VW;                                                                                              \
            for (int l = 0; l < n_rows; l++)                                                                           \
                UNROLL for (int v = 0; v < nv; v++) STORE(panel + l * ld + v * VW, LOAD(y + l * ldg + v * VW));        \
            y = panel;                                                                                                 \
        }                                                                                                              \
        for (int j = first; j < stop; j++) {                                                                           \
            const int k = start[j], count = start[j + 1] - k;                                                          \
            if (count == 0)                                                                                            \
                continue;                                                                                              \
            vec s[nv];                                                                                                 \
            OF(weighted_rows)(s, y, ld, row_of + k, entry + k, count, nv, at_once);                                    \
            R *row = w + j * ldw + i;                                                                                  \
            UNROLL for (int v = 0; v < nv; v++) STORE(row + v * VW, LOAD(row + v * VW) + rate * s[v]);                 \
        }                                                                                                              \
    }
    BY_WIDTH(STEP, n_rows <= CACHE / (8 * VW) ? 8 : 16)
#undef STEP
}

static void OF(sparse_update_one)(void *w_, ptrdiff_t ldw, double scale, int n, const int *column, const void *value,
                                  int count, const void *g_)
{
    R *w = w_;
    const R *x = value, *g = g_;
    const R rate = (R)scale;
#define STEP(nv, at_once)                                                                                              \
    {                                                                                                                  \
        vec y[nv];                                                                                                     \
        UNROLL for (int v = 0; v < nv; v++) y[v] = LOAD(g + i + v * VW);                                               \
        for (int k = 0; k < count; k++) {                                                                              \
            R *row = w + column[k] * ldw + i;                                                                          \
            const R t = rate * x[k];                                                                                   \
            UNROLL for (int v = 0; v < nv; v++) STORE(row + v * VW, LOAD(row + v * VW) + t * y[v]);                    \
        }                                                                                                              \
    }
    BY_WIDTH(STEP, 16)
#undef STEP
}

static double OF(sparse_dot)(const int *column, const void *value, int count, const void *w_)
{
    const R *w = w_, *x = value;
    R s[4] = {0};
    int k = 0;
    for (; k + 4 <= count; k += 4)
        UNROLL for (int v = 0; v < 4; v++) s[v] += x[k + v] * w[column[k + v]];
    for (; k < count; k++)
        s[0] += x[k] * w[column[k]];
    return (double)((s[0] + s[1]) + (s[2] + s[3]));
}

static void OF(sparse_add)(void *w_, double scale, const int *column, const void *value, int count)
{
    R *w = w_;
    const R *x = value, t = (R)scale;
    for (int k = 0; k < count; k++) /* one by one: vectors of scattered numbers are slower */
        w[column[k]] += t * x[k];
}

/* w[j] = keep * w[j] + rate * sum over the rows l of x[l][j] * g[l], for so few rows that g stays in the L1 cache: the rows of w
 * one after the other as they lie in memory. */
static void OF(update_rows)(R *w, ptrdiff_t ldw, R keep, R rate, int n, int n_rows, const R *x, ptrdiff_t ldx, int m,
                            const R *g, ptrdiff_t ldg)
{
    if (n_rows == 1 && keep == 1) { /* of one row g stays in registers */
#define STEP(nv, at_once)                                                                                              \
    {                                                                                                                  \
        vec y[nv];                                                                                                     \
        UNROLL for (int v = 0; v < nv; v++) y[v] = LOAD(g + i + v * VW);                                               \
        R *row = w + i;                                                                                                \
        for (int j = 0; j < m; j++, row += ldw) {                                                                      \
            const R t = rate * x[j];                                                                                   \
            UNROLL for (int v = 0; v < nv; v++) STORE(row + v * VW, LOAD(row + v * VW) + t * y[v]);                    \
        }                                                                                                              \
    }
        BY_WIDTH(STEP, 16)
#undef STEP
        return;
    }
#define STEP(nv, at_once)                                                                                              \
    for (int j = 0; j < m; j++) {                                                                                      \
        R *row = w + j * ldw + i;                                                                                      \
        vec s[nv];                                                                                                     \
        UNROLL for (int v = 0; v < nv; v++) s[v] = keep * LOAD(row + v * VW);                                          \
        for (int l = 0; l < n_rows; l++) {                                                                             \
            const R t = rate * x[l * ldx + j];                                                                         \
            UNROLL for (int v = 0; v < nv; v++) s[v] += t * LOAD(g + l * ldg + i + v * VW);                            \
        }                                                                                                              \
        UNROLL for (int v = 0; v < nv; v++) STORE(row + v * VW, s[v]);                                                 \
    }
    BY_WIDTH(STEP, 16)
#undef STEP
}

static void OF(shrink_rows)(R *w, ptrdiff_t ldw, R keep, int m, int n)
{
    for (int j = 0; j < m; j++)
        for (int i = 0; i < n; i += VW)
            STORE(w + j * ldw + i, keep * LOAD(w + j * ldw + i));
}

static void OF(dense_update)(void *w, ptrdiff_t ldw, double keep, double scale, int n, int n_rows, const void *x,
                             ptrdiff_t ldx, int m, const void *g, ptrdiff_t ldg)
{
    if (n_rows <= (n < 4 * VW ? 1 : 8)) {
        OF(update_rows)(w, ldw, (R)keep, (R)scale, n, n_rows, x, ldx, m, g, ldg);
        return;
    }
    if (keep != 1)
        OF(shrink_rows)(w, ldw, (R)keep, m, n);
    for (int l = 0; l < n_rows; l += UPDATED)
        OF(product)(w, ldw, (const R *)x + l * ldx, 1, ldx, (const R *)g + l * ldg, ldg, m, n,
                    n_rows - l < UPDATED ? n_rows - l : UPDATED, (OF(finish)){0, NULL, (R)scale});
}

/* --- sums --- */

static void OF(add)(void *y_, const void *x_, ptrdiff_t n)
{
    R *y = y_;
    const R *x = x_;
    EACH(i, n) y[i] += x[i];
}

static void OF(add_scaled)(void *y_, double scale, const void *x_, ptrdiff_t n)
{
    R *y = y_;
    const R *x = x_, t = (R)scale;
    EACH(i, n) y[i] += t * x[i];
}

static void OF(add_product)(void *y_, const void *a_, const void *b_, ptrdiff_t n)
{
    R *y = y_;
    const R *a = a_, *b = b_;
    EACH(i, n) y[i] += a[i] * b[i];
}

static void OF(add_number)(void *y_, double x, ptrdiff_t n)
{
    R *y = y_;
    const R t = (R)x;
    EACH(i, n) y[i] += t;
}

/* Of products with y, or of x alone.  Eight sums hide the latency; pieces, so that errors of floats do not pile up. */
INLINE double OF(reduce)(const R *x, const R *y, ptrdiff_t n)
{
    double total = 0.0;
    while (n > 0) {
        const ptrdiff_t stop = n < 4096 ? n : 4096;
        ptrdiff_t i = 0;
        vec s[8];
        R rest = 0;
        UNROLL for (int v = 0; v < 8; v++) s[v] = ZERO;
        for (; i + 8 * VW <= stop; i += 8 * VW)
            UNROLL for (int v = 0; v < 8; v++)
                s[v] += y ? LOAD(x + i + v * VW) * LOAD(y + i + v * VW) : LOAD(x + i + v * VW);
        for (; i + VW <= stop; i += VW)
            s[0] += y ? LOAD(x + i) * LOAD(y + i) : LOAD(x + i);
        for (; i < stop; i++)
            rest += y ? x[i] * y[i] : x[i];
        UNROLL for (int h = 4; h; h /= 2)
            UNROLL for (int v = 0; v < h; v++) s[v] += s[v + h];
        total += (double)(OF(total)(s[0]) + rest);
        x += stop;
        y = y ? y + stop : y;
        n -= stop;
    }
    return total;
}

static double OF(sum)(const void *x, ptrdiff_t n)
{
    return OF(reduce)(x, NULL, n);
}

static double OF(dot)(const void *x, const void *y, ptrdiff_t n)
{
    return OF(reduce)(x, y, n);
}

static void OF(add_rows)(void *y_, const void *x_, ptrdiff_t ldx, int n, int n_rows)
{
    R *y = y_;
    const R *x = x_;
    int i = 0;
    for (; i + 4 * VW <= n; i += 4 * VW) {
        vec s[4];
        UNROLL for (int v = 0; v < 4; v++) s[v] = LOAD(y + i + v * VW);
        for (int l = 0; l < n_rows; l++)
            UNROLL for (int v = 0; v < 4; v++) s[v] += LOAD(x + l * ldx + i + v * VW);
        UNROLL for (int v = 0; v < 4; v++) STORE(y + i + v * VW, s[v]);
    }
    for (; i + VW <= n; i += VW) {
        vec s = LOAD(y + i);
        for (int l = 0; l < n_rows; l++)
            s += LOAD(x + l * ldx + i);
        STORE(y + i, s);
    }
    for (; i < n; i++) {
        R s = y[i];
        for (int l = 0; l < n_rows; l++)
            s += x[l * ldx + i];
        y[i] = s;
    }
}

static int OF(not_finite)(const void *x_, ptrdiff_t n)
{
    const R *x = x_;
    ptrdiff_t i = 0;
    vec s[4];
    UNROLL for (int v = 0; v < 4; v++) s[v] = ZERO;
    for (; i + 4 * VW <= n; i += 4 * VW)
        UNROLL for (int v = 0; v < 4; v++) s[v] += 0 * LOAD(x + i + v * VW); /* 0 or NaN */
    for (; i + VW <= n; i += VW)
        s[0] += 0 * LOAD(x + i);
    R t = OF(total)((s[0] + s[1]) + (s[2] + s[3]));
    for (; i < n; i++)
        t += 0 * x[i];
    return t != t;
}

static int OF(beyond)(const void *x_, ptrdiff_t n)
{
    const R *x = x_;
    const R factor = BEYOND;
    ptrdiff_t i = 0;
    vec s[4];
    UNROLL for (int v = 0; v < 4; v++) s[v] = ZERO;
    for (; i + 4 * VW <= n; i += 4 * VW)
        UNROLL for (int v = 0; v < 4; v++) s[v] += 0 * (factor * LOAD(x + i + v * VW)); /* 0 or NaN */
    for (; i + VW <= n; i += VW)
        s[0] += 0 * (factor * LOAD(x + i));
    R t = OF(total)((s[0] + s[1]) + (s[2] + s[3]));
    for (; i < n; i++)
        t += 0 * (factor * x[i]);
    return t != t;
}

static void OF(transpose)(void *to_, ptrdiff_t ldto, const void *from_, ptrdiff_t ldfrom, int rows, int columns,
                          int accumulate)
{
    R *to = to_;
    const R *from = from_;
    int i = 0;
    if ((rows == 1 && ldto == 1) || (columns == 1 && ldfrom == 1)) { /* of one row: the same numbers */
        if (accumulate)
            EACH(k, rows * columns) to[k] += from[k];
        else
            EACH(k, rows * columns) to[k] = from[k];
        return;
    }
    for (; i + VW <= rows; i += VW) {
        int j = 0;
        for (; j + VW <= columns; j += VW) {
            vec s[VW];
            UNROLL for (int v = 0; v < VW; v++) s[v] = LOAD(from + (i + v) * ldfrom + j);
            OF(transpose_square)(s);
            R *p = to + j * ldto + i;
            if (accumulate)
                UNROLL for (int v = 0; v < VW; v++) STORE(p + v * ldto, LOAD(p + v * ldto) + s[v]);
            else
                UNROLL for (int v = 0; v < VW; v++) STORE(p + v * ldto, s[v]);
        }
        for (; j < columns; j++)
            for (int v = 0; v < VW; v++) {
                const R t = from[(i + v) * ldfrom + j];
                to[j * ldto + i + v] = accumulate ? to[j * ldto + i + v] + t : t;
            }
    }
    for (; i < rows; i++)
        for (int j = 0; j < columns; j++)
            to[j * ldto + i] = accumulate ? to[j * ldto + i] + from[i * ldfrom + j] : from[i * ldfrom + j];
}

/* --- elementwise --- */

/* Loops with conditions are written with vectors: compilers make branches of some of them. */
#define GET(p) LOAD_SOME(p + i, 0)

/* An operand that is one number is broadcast to a temporary: one loop for an operation instead of three. */
static void OF(broadcast)(R *to, R x, ptrdiff_t n)
{
    EACH(i, n < CHUNK ? n : CHUNK) to[i] = x;
}

#if FS_OWN_FUNCTIONS && !WIDE
INLINE const double *OF(as_doubles)(double *to, const R *from, ptrdiff_t n)
{
    EACH(i, n) to[i] = from[i];
    return to;
}

static void OF(binary_by_doubles)(int op, R *out, const R *a, const R *b, ptrdiff_t n)
{
    double x[CHUNK], y[CHUNK];
    for (ptrdiff_t at = 0; at < n; at += CHUNK) {
        const ptrdiff_t length = n - at < CHUNK ? n - at : CHUNK;
        binary_double(op, FS_VECTORS, x, OF(as_doubles)(x, a + at, length), OF(as_doubles)(y, b + at, length), length);
        EACH(i, length) out[at + i] = (R)x[i];
    }
}

static void OF(partials_by_doubles)(int op, int right, R *to, const R *a, const R *b, const R *v, const R *g,
                                  ptrdiff_t n)
{
    double x[CHUNK], y[CHUNK], z[CHUNK], s[CHUNK], sent[CHUNK];
    for (ptrdiff_t at = 0; at < n; at += CHUNK) {
        const ptrdiff_t length = n - at < CHUNK ? n - at : CHUNK;
        memset(sent, 0, sizeof sent);
        binary_backward_double(op, FS_VECTORS, right ? NULL : sent, right ? sent : NULL,
                               OF(as_doubles)(x, a + at, length), OF(as_doubles)(y, b + at, length),
                               OF(as_doubles)(z, v + at, length), OF(as_doubles)(s, g + at, length), length);
        EACH(i, length) to[at + i] += (R)sent[i];
    }
}
#endif

static void OF(binary)(int op, int mode, void *out_, const void *a_, const void *b_, ptrdiff_t n)
{
    R one[CHUNK];
    const ptrdiff_t step = mode == FS_VECTORS ? n : CHUNK;
    if (mode != FS_VECTORS)
        OF(broadcast)(one, mode == FS_A_IS_ONE ? *(const R *)a_ : *(const R *)b_, n);
    for (ptrdiff_t at = 0; at < n; at += step) {
        const ptrdiff_t length = n - at < step ? n - at : step;
        const R *a = mode == FS_A_IS_ONE ? one : (const R *)a_ + at;
        const R *b = mode == FS_B_IS_ONE ? one : (const R *)b_ + at;
        R *out = (R *)out_ + at;
#define INTO(f) VECTORS(i, length, { const vec x = GET(a), y = GET(b); STORE_SOME(out + i, f); })
        switch (op) {
        case FS_ADD: EACH(i, length) out[i] = a[i] + b[i]; break;
        case FS_SUB: EACH(i, length) out[i] = a[i] - b[i]; break;
        case FS_MUL: EACH(i, length) out[i] = a[i] * b[i]; break;
        case FS_DIV: EACH(i, length) out[i] = a[i] / b[i]; break;
        case FS_MINIMUM: INTO(SELECT((x <= y) | (x != x), x, y)) break; /* NaN stays; the left one if they are equal */
        case FS_MAXIMUM: INTO(SELECT((x >= y) | (x != x), x, y)) break;
#if FS_OWN_FUNCTIONS && WIDE
        case FS_POW: value_POW(out, a, b, length); break;
        case FS_ATAN2: value_ATAN2(out, a, b, length); break;
        case FS_HYPOT: value_HYPOT(out, a, b, length); break;
#elif FS_OWN_FUNCTIONS
        default: OF(binary_by_doubles)(op, out, a, b, length);
#endif
        }
#undef INTO
    }
}

static void OF(binary_backward)(int op, int mode, void *da, void *db, const void *a_, const void *b_, const void *v_,
                                const void *g_, ptrdiff_t n)
{
    R one[CHUNK], sums[CHUNK];
    const ptrdiff_t step = mode == FS_VECTORS ? n : CHUNK;
    if (mode != FS_VECTORS)
        OF(broadcast)(one, mode == FS_A_IS_ONE ? *(const R *)a_ : *(const R *)b_, n);
    for (int right = 0; right < 2; right++) { /* not both in one loop: da may be db */
        R *d = right ? db : da;
        const int to_one = mode == (right ? FS_B_IS_ONE : FS_A_IS_ONE);
        double total = 0.0;
        if (d == NULL)
            continue;
        if (to_one && op <= FS_MUL) {
            const R t = (R)(op == FS_MUL ? OF(dot)(g_, right ? a_ : b_, n) : OF(sum)(g_, n));
            d[0] += op == FS_SUB && right ? -t : t;
            continue;
        }
        for (ptrdiff_t at = 0; at < n; at += step) {
            const ptrdiff_t length = n - at < step ? n - at : step;
            const R *a = mode == FS_A_IS_ONE ? one : (const R *)a_ + at;
            const R *b = mode == FS_B_IS_ONE ? one : (const R *)b_ + at;
            const R *v = (const R *)v_ + at, *g = (const R *)g_ + at;
            R *to = to_one ? sums : d + at;
            if (to_one)
                memset(sums, 0, (size_t)length * sizeof(R));
#define INTO(f) VECTORS(i, length, { const vec x = GET(a), y = GET(b); STORE_SOME(to + i, GET(to) + GET(g) * (f)); })
            switch (2 * op + right) {
            case 2 * FS_ADD:
            case 2 * FS_ADD + 1:
            case 2 * FS_SUB: EACH(i, length) to[i] += g[i]; break;
            case 2 * FS_SUB + 1: EACH(i, length) to[i] -= g[i]; break;
            case 2 * FS_MUL: EACH(i, length) to[i] += g[i] * b[i]; break;
            case 2 * FS_MUL + 1: EACH(i, length) to[i] += g[i] * a[i]; break;
            case 2 * FS_DIV: EACH(i, length) to[i] += g[i] * (1 / b[i]); break;
            case 2 * FS_DIV + 1: EACH(i, length) to[i] -= g[i] * (v[i] / b[i]); break;
            case 2 * FS_MINIMUM: INTO(SELECT((x <= y) | (x != x), ONE, ZERO)) break;
            case 2 * FS_MINIMUM + 1: INTO(SELECT((x <= y) | (x != x), ZERO, ONE)) break;
            case 2 * FS_MAXIMUM: INTO(SELECT((x >= y) | (x != x), ONE, ZERO)) break;
            case 2 * FS_MAXIMUM + 1: INTO(SELECT((x >= y) | (x != x), ZERO, ONE)) break;
#if FS_OWN_FUNCTIONS && WIDE
            case 2 * FS_POW:
            case 2 * FS_POW + 1: partial_POW(right, to, a, b, v, g, length); break;
            case 2 * FS_ATAN2:
            case 2 * FS_ATAN2 + 1: partial_ATAN2(right, to, a, b, v, g, length); break;
            case 2 * FS_HYPOT:
            case 2 * FS_HYPOT + 1: partial_HYPOT(right, to, a, b, v, g, length); break;
#elif FS_OWN_FUNCTIONS
            default: OF(partials_by_doubles)(op, right, to, a, b, v, g, length);
#endif
            }
#undef INTO
            if (to_one)
                total += OF(sum)(sums, length);
        }
        if (to_one)
            d[0] += (R)total;
    }
}

#if FS_OWN_FUNCTIONS
#if WIDE
#define UNARY_FUNCTION(name, value, slope)                                                                             \
    case FS_##name: value_##name(out, a, n); break;
#define UNARY_FUNCTIONS FUNCTIONS(UNARY_FUNCTION)
#define UNARY_PARTIAL(name, value, slope)                                                                              \
    case FS_##name: partial_##name(to, a, v, g, n); break;
#define UNARY_PARTIALS FUNCTIONS(UNARY_PARTIAL)
#else
static void OF(unary_by_doubles)(int op, R *out, const R *a, ptrdiff_t n)
{
    double x[CHUNK];
    for (ptrdiff_t at = 0; at < n; at += CHUNK) {
        const ptrdiff_t length = n - at < CHUNK ? n - at : CHUNK;
        unary_double(op, x, OF(as_doubles)(x, a + at, length), length);
        EACH(i, length) out[at + i] = (R)x[i];
    }
}

static void OF(partial_by_doubles)(int op, R *to, const R *a, const R *v, const R *g, ptrdiff_t n)
{
    double x[CHUNK], y[CHUNK], s[CHUNK], sent[CHUNK];
    for (ptrdiff_t at = 0; at < n; at += CHUNK) {
        const ptrdiff_t length = n - at < CHUNK ? n - at : CHUNK;
        memset(sent, 0, sizeof sent);
        unary_backward_double(op, sent, OF(as_doubles)(x, a + at, length), OF(as_doubles)(y, v + at, length),
                              OF(as_doubles)(s, g + at, length), length);
        EACH(i, length) to[at + i] += (R)sent[i];
    }
}
#define UNARY_FUNCTIONS                                                                                                \
    default: OF(unary_by_doubles)(op, out, a, n); break;
#define UNARY_PARTIALS                                                                                                 \
    default: OF(partial_by_doubles)(op, to, a, v, g, n); break;
#endif
#else
#define UNARY_FUNCTIONS                                                                                                \
    case FS_LOG: EACH(i, n) out[i] = MATH(log)(a[i]); break;
#define UNARY_PARTIALS                                                                                                 \
    case FS_LOG: EACH(i, n) to[i] += g[i] * (1 / a[i]); break;
#endif

static void OF(unary)(int op, void *out_, const void *a_, ptrdiff_t n)
{
    R *out = out_;
    const R *a = a_;
    switch (op) {
    case FS_NEG: EACH(i, n) out[i] = -a[i]; break;
    case FS_RELU: VECTORS(i, n, STORE_SOME(out + i, SELECT(GET(a) <= 0, ZERO, GET(a)))) break; /* NaN stays */
    case FS_ABS: EACH(i, n) out[i] = MATH(fabs)(a[i]); break;
    case FS_SQRT: EACH(i, n) out[i] = MATH(sqrt)(a[i]); break;
    case FS_EXP: VECTORS(i, n, STORE_SOME(out + i, OF(exp)(GET(a)))) break;
    case FS_TANH: VECTORS(i, n, STORE_SOME(out + i, OF(tanh)(GET(a)))) break;
    case FS_SIGMOID: VECTORS(i, n, STORE_SOME(out + i, OF(sigmoid)(GET(a)))) break;
    case FS_SQUARE: EACH(i, n) out[i] = a[i] * a[i]; break;
        UNARY_FUNCTIONS
    }
}

static void OF(unary_backward)(int op, void *da, const void *a_, const void *v_, const void *g_, ptrdiff_t n)
{
    R *to = da;
    const R *a = a_, *v = v_, *g = g_;
    switch (op) {
    case FS_NEG: EACH(i, n) to[i] -= g[i]; break;
    case FS_RELU: VECTORS(i, n, STORE_SOME(to + i, GET(to) + GET(g) * SELECT(GET(a) <= 0, ZERO, ONE))) break;
    case FS_ABS:
        VECTORS(i, n, {
            const vec x = GET(a), d = SELECT(x > 0, ONE, SELECT(x < 0, -ONE, x * 0)); /* 0 at 0; NaN stays */
            STORE_SOME(to + i, GET(to) + GET(g) * d);
        })
        break;
    case FS_SQRT: EACH(i, n) to[i] += g[i] * ((R)0.5 / v[i]); break;
    case FS_EXP: EACH(i, n) to[i] += g[i] * v[i]; break;
    case FS_TANH: EACH(i, n) to[i] += g[i] * ((1 - v[i]) * (1 + v[i])); break;
    case FS_SIGMOID: /* not v * (1 - v), which loses the tail */
        VECTORS(i, n, {
            const vec e = OF(exp)(-OF(magnitude)(GET(a)));
            STORE_SOME(to + i, GET(to) + GET(g) * (e / ((1 + e) * (1 + e))));
        })
        break;
    case FS_SQUARE: EACH(i, n) to[i] += g[i] * (2 * a[i]); break;
        UNARY_PARTIALS
    }
}
#undef UNARY_FUNCTION
#undef UNARY_FUNCTIONS
#undef UNARY_PARTIAL
#undef UNARY_PARTIALS

#include "batch_steps.c"

#define COMPARISONS(INTO)                                                                                              \
    switch (comparison) { /* Py_LT and so on */                                                                        \
    case 0: INTO(<) break;                                                                                             \
    case 1: INTO(<=) break;                                                                                            \
    case 2: INTO(==) break;                                                                                            \
    case 3: INTO(!=) break;                                                                                            \
    case 4: INTO(>) break;                                                                                             \
    case 5: INTO(>=) break;                                                                                            \
                         }

/* Those operands that are one number, by their bits. */
static void OF(broadcast_ones)(int ones, R (*one)[CHUNK], const R *const *from, ptrdiff_t n)
{
    for (int k = 0; ones >> k; k++)
        if (ones >> k & 1)
            OF(broadcast)(one[k], *from[k], n);
}
#define PART(k) (ones >> (k) & 1 ? one[k] : from[k] + at)

static void OF(where)(int comparison, int ones, void *out_, const void *a_, const void *b_, const void *c_,
                      const void *d_, ptrdiff_t n)
{
    R one[4][CHUNK];
    const R *from[4] = {a_, b_, c_, d_};
    OF(broadcast_ones)(ones & 15, one, from, n);
    for (ptrdiff_t at = 0; at < n; at += CHUNK) {
        const ptrdiff_t length = n - at < CHUNK ? n - at : CHUNK;
        const R *a = PART(0), *b = PART(1), *c = PART(2), *d = PART(3);
        R *out = (R *)out_ + at;
#define INTO(is) VECTORS(i, length, STORE_SOME(out + i, SELECT(GET(a) is GET(b), GET(c), GET(d))))
        COMPARISONS(INTO)
#undef INTO
    }
}

static void OF(where_backward)(int comparison, int ones, int outcome, void *to_, const void *a_, const void *b_,
                               const void *g_, ptrdiff_t n)
{
    R one[2][CHUNK], sums[CHUNK];
    const R *from[2] = {a_, b_};
    double total = 0.0;
    OF(broadcast_ones)(ones & 3, one, from, n);
    for (ptrdiff_t at = 0; at < n; at += CHUNK) {
        const ptrdiff_t length = n - at < CHUNK ? n - at : CHUNK;
        const R *a = PART(0), *b = PART(1);
        const R *g = (const R *)g_ + at;
        R *to = ones & 4 ? sums : (R *)to_ + at;
        if (ones & 4)
            memset(sums, 0, (size_t)length * sizeof(R));
#define INTO(is)                                                                                                       \
    VECTORS(i, length, {                                                                                               \
        const vec held = SELECT(GET(a) is GET(b), GET(g), ZERO), other = SELECT(GET(a) is GET(b), ZERO, GET(g));       \
        STORE_SOME(to + i, GET(to) + (outcome ? held : other));                                                        \
    })
        COMPARISONS(INTO)
#undef INTO
        if (ones & 4)
            total += OF(sum)(sums, length);
    }
    if (ones & 4)
        *(R *)to_ += (R)total;
}

static void OF(first_failure)(int comparison, int ones, int outcome, void *first_, const void *a_, const void *b_,
                              double k_, ptrdiff_t n)
{
    R one[2][CHUNK];
    const R *from[2] = {a_, b_};
    const vec k = ZERO + (R)k_, wanted = outcome ? ONE : ZERO;
    OF(broadcast_ones)(ones & 3, one, from, n);
    for (ptrdiff_t at = 0; at < n; at += CHUNK) {
        const ptrdiff_t length = n - at < CHUNK ? n - at : CHUNK;
        const R *a = PART(0), *b = PART(1);
        R *first = (R *)first_ + at;
#define INTO(is)                                                                                                       \
    VECTORS(i, length, {                                                                                               \
        const vec before = GET(first), holds = SELECT(GET(a) is GET(b), ONE, ZERO);                                    \
        STORE_SOME(first + i, SELECT((before < 0) & (holds != wanted), k, before));                                    \
    })
        COMPARISONS(INTO)
#undef INTO
    }
}
#undef COMPARISONS
#undef PART

static void OF(better)(int least, int one, void *best_, void *place_, const void *x_, double k_, ptrdiff_t n)
{
    R same[CHUNK], *best = best_, *place = place_;
    const R *x = x_, k = (R)k_;
    if (one)
        OF(broadcast)(same, *x, n);
    for (ptrdiff_t at = 0; at < n; at += CHUNK, best += CHUNK, place += CHUNK, x += one ? 0 : CHUNK) {
        const ptrdiff_t length = n - at < CHUNK ? n - at : CHUNK;
        const R *from = one ? same : x;
#define INTO(is)                                                                                                       \
    VECTORS(i, length, {                                                                                               \
        const vec held = GET(best), y = GET(from);                                                                     \
        STORE_SOME(place + i, SELECT((held is y) | (held != held), GET(place), ZERO + k));                             \
        STORE_SOME(best + i, SELECT((held is y) | (held != held), held, y));                                           \
    })
        if (least) {
            INTO(<=)
        } else {
            INTO(>=)
        }
#undef INTO
    }
}

static void OF(best)(int least, void *best_, void *place_, const void *z_, ptrdiff_t ldz, int n, int n_rows)
{
    R *best = best_, *place = place_;
    for (int l = 0; l < n_rows; l++) {
        const R *z = (const R *)z_ + l * ldz;
        vec top = ZERO - (R)INFINITY, nan = ZERO;
        if (least)
            VECTORS(i, n, {
                const vec x = -LOAD_SOME(z + i, (R)INFINITY);
                top = SELECT(x > top, x, top);
                nan = SELECT(x != x, x, nan);
            })
        else
            VECTORS(i, n, {
                const vec x = LOAD_SOME(z + i, -(R)INFINITY);
                top = SELECT(x > top, x, top);
                nan = SELECT(x != x, x, nan);
            })
        const R is = OF(first_of)(OF(greatest_everywhere)(top)), greatest = least ? -is : is, any = OF(total)(nan);
        int k = 0;
        if (any != any)
            while (z[k] == z[k])
                k++;
        else
            while (z[k] != greatest)
                k++;
        best[l] = z[k];
        place[l] = (R)k;
    }
}

/* --- losses --- */

#define IS_INFINITE(x) __builtin_expect((x) == (R)INFINITY || (x) == -(R)INFINITY, 0)

/* p = softmax(z) where the greatest of z is infinite: those at +inf share the whole; if all are -inf none has a share.
 * NaN stays.  p may be z. */
static __attribute__((noinline, cold)) void OF(softmax_of_infinities)(R *p, const R *z, int n, R top, R *total)
{
    R sum = 0;
    for (int i = 0; i < n; i++)
        sum += z[i] != z[i] ? z[i] : top > 0 && z[i] == top ? 1 : 0;
    for (int i = 0; i < n; i++)
        p[i] = sum == 0 ? 0 : z[i] != z[i] ? z[i] : top > 0 && z[i] == top ? 1 / sum : 0 / sum;
    *total = sum;
}

/* p = softmax(z); the greatest of z and the sum of the exponentials of what is left of each. */
INLINE void OF(softmax_row)(R *p, const R *z, int n, R *greatest, R *total)
{
    const vec none = ZERO - (R)INFINITY; /* beyond the row: exp(-inf) is 0 */
    vec top, sum;
    if (n <= 2 * VW) { /* few classes: all in registers */
        const int left = n < VW ? n : VW, right = n - left;
        const vec x = OF(load_some)(z, left, -(R)INFINITY);
        const vec y = right ? OF(load_some)(z + VW, right, -(R)INFINITY) : none;
        top = OF(greatest_everywhere)(SELECT(y > x, y, x));
        if (IS_INFINITE(OF(first_of)(top))) {
            OF(softmax_of_infinities)(p, z, n, *greatest = OF(first_of)(top), total);
            return;
        }
        const vec e = OF(exp)(x - top), f = right ? OF(exp)(y - top) : ZERO;
        sum = OF(sum_everywhere)(e + f);
        OF(store_some)(p, left, e / sum);
        if (right)
            OF(store_some)(p + VW, right, f / sum);
    } else {
        top = none;
        sum = ZERO;
        VECTORS(i, n, {
            const vec t = LOAD_SOME(z + i, -(R)INFINITY);
            top = SELECT(t > top, t, top);
        })
        top = OF(greatest_everywhere)(top);
        if (IS_INFINITE(OF(first_of)(top))) {
            OF(softmax_of_infinities)(p, z, n, *greatest = OF(first_of)(top), total);
            return;
        }
        VECTORS(i, n, {
            const vec e = OF(exp)(LOAD_SOME(z + i, -(R)INFINITY) - top);
            STORE_SOME(p + i, e);
            sum += e;
        })
        sum = OF(sum_everywhere)(sum);
        VECTORS(i, n, STORE_SOME(p + i, LOAD_SOME(p + i, 0) / sum))
    }
    *greatest = OF(first_of)(top);
    *total = OF(first_of)(sum);
}

/* The same of VW rows at once, of n <= VW numbers each, with the bits of one by one; 0: not done, some are infinite. */
INLINE int OF(softmax_rows)(R *p, ptrdiff_t ldp, const R *z, ptrdiff_t ldz, int n, R *greatest, R *total)
{
    vec s[VW], sum[VW];
    UNROLL for (int l = 0; l < VW; l++) s[l] = OF(load_some)(z + l * ldz, n, -(R)INFINITY);
    OF(transpose_square)(s);
    vec top = s[0];
    for (int k = 1; k < n; k++) top = SELECT(s[k] > top, s[k], top);
    for (int l = 0; l < VW; l++)
        if (!(0 * ((const R *)&top)[l] == 0))
            return 0;
    for (int k = 0; k < VW; k++) sum[k] = s[k] = k < n ? OF(exp)(s[k] - top) : ZERO;
#define STEP(h) UNROLL for (int k = 0; k < VW; k += 2 * h) sum[k] += sum[k + h]; /* as `sum_everywhere` does */
    STEPS
#undef STEP
    for (int k = 0; k < n; k++) s[k] = s[k] / sum[0];
    OF(transpose_square)(s);
    UNROLL for (int l = 0; l < VW; l++) OF(store_some)(p + l * ldp, n, s[l]);
    STORE(greatest, top);
    STORE(total, sum[0]);
    return 1;
}

static void OF(softmax)(void *p_, ptrdiff_t ldp, void *lse_, const void *z_, ptrdiff_t ldz, int n, int n_rows)
{
    R *p = p_, *lse = lse_, total[CHUNK];
    const R *z = z_;
    for (int from = 0; from < n_rows; from += CHUNK) {
        const int stop = n_rows - from < CHUNK ? n_rows : from + CHUNK;
        int l = from;
        for (; n <= VW && l + VW <= stop; l += VW)
            if (!OF(softmax_rows)(p + l * ldp, ldp, z + l * ldz, ldz, n, lse + l, total + l - from))
                break;
        for (; l < stop; l++)
            OF(softmax_row)(p + l * ldp, z + l * ldz, n, lse + l, total + l - from);
        for (l = from; l < stop; l++) /* apart: a call would cost the rows their registers */
            lse[l] += MATH(log)(total[l - from]);
    }
}

#if WIDE
const fs_batch FS_JOIN(FS_JOIN(fs_batch_, FS_SET), _double) = {
#else
const fs_batch FS_JOIN(FS_JOIN(fs_batch_, FS_SET), _float) = {
#endif
    FS_SET_NAME,
    64 / (int)sizeof(R),
    OF(load_rows),
    OF(load_columns),
    OF(store_columns),
    OF(compress),
    OF(sparse_affine),
    OF(dense_affine),
    OF(sparse_transpose),
    OF(sparse_update),
    OF(sparse_update_one),
    OF(dense_update),
    OF(narrow_affine),
    OF(narrow_update),
    OF(input_gradient),
    OF(sparse_dot),
    OF(sparse_add),
    OF(binary),
    OF(binary_backward),
    OF(unary),
    OF(unary_backward),
    OF(where),
    OF(where_backward),
    OF(first_failure),
    OF(better),
    OF(best),
    OF(not_finite),
    OF(beyond),
    OF(forward_steps),
    OF(backward_steps),
    OF(add),
    OF(add_scaled),
    OF(add_product),
    OF(add_number),
    OF(sum),
    OF(dot),
    OF(add_rows),
    OF(transpose),
    OF(softmax),
    OF(patches),
    OF(add_patches),
    OF(max_pool),
    OF(add_pool),
};

#undef vec
#undef ivec
#undef LOAD
#undef STORE
#undef IS_INFINITE
#undef ZERO
#undef ONE
#undef GET
#undef BY_WIDTH
#undef VECTORS
#undef LOAD_SOME
#undef STORE_SOME
