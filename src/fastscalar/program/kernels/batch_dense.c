/* The products of dense matrices for numbers of type R, see batch.c. */

/* How a tile is stored: c = bias + sums, or c += scale * sums. */
typedef struct {
    int set;
    const R *bias; /* NULL: zero */
    R scale;
} OF(finish);

/* c[r][0..nv * VW) of sum over k of a[r * ar + k * ak] * b[k][0..nv * VW), r < rows. */
INLINE void OF(tile)(R *c, ptrdiff_t ldc, const R *a, ptrdiff_t ar, ptrdiff_t ak, const R *b, ptrdiff_t ldb, int depth,
                     OF(finish) f, const int rows, const int nv)
{
    vec s[ROWS * PANEL], y[PANEL];
    UNROLL for (int i = 0; i < rows * nv; i++) s[i] = ZERO;
    for (int k = 0; k < depth; k++) {
        UNROLL for (int v = 0; v < nv; v++) y[v] = LOAD(b + v * VW);
        UNROLL for (int r = 0; r < rows; r++) {
            const R t = a[r * ar];
            UNROLL for (int v = 0; v < nv; v++) s[r * nv + v] += t * y[v];
        }
        a += ak;
        b += ldb;
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < nv; v++) {
            R *p = c + r * ldc + v * VW;
            const vec t = s[r * nv + v];
            STORE(p, !f.set ? LOAD(p) + f.scale * t : f.bias ? LOAD(f.bias + v * VW) + t : t);
        }
}

#define REST(some, nv)                                                                                                 \
    case some:                                                                                                         \
        if (some < ROWS)                                                                                               \
            OF(tile)(c + r * ldc, ldc, a + r * ar, ar, ak, b, ldb, depth, f, some < ROWS ? some : 1, nv);              \
        break;
#define TILES(nv)                                                                                                      \
    static void OF(tiles##nv)(R * c, ptrdiff_t ldc, const R *a, ptrdiff_t ar, ptrdiff_t ak, const R *b, ptrdiff_t ldb, \
                             int rows, int depth, OF(finish) f)                                                        \
    {                                                                                                                  \
        int r = 0;                                                                                                     \
        for (; r + ROWS <= rows; r += ROWS)                                                                            \
            OF(tile)(c + r * ldc, ldc, a + r * ar, ar, ak, b, ldb, depth, f, ROWS, nv);                                \
        switch (rows - r) {                                                                                            \
            REST(5, nv)                                                                                                \
            REST(4, nv)                                                                                                \
            REST(3, nv)                                                                                                \
            REST(2, nv)                                                                                                \
            REST(1, nv)                                                                                                \
        }                                                                                                              \
     }
TILES(1)
TILES(2)
#if PANEL > 2
TILES(3)
TILES(4)
#endif
#undef TILES
#undef REST

static void OF(tiles)(R *c, ptrdiff_t ldc, const R *a, ptrdiff_t ar, ptrdiff_t ak, const R *b, ptrdiff_t ldb, int rows,
                      int nv, int depth, OF(finish) f)
{
    switch (nv) {
    case 1: OF(tiles1)(c, ldc, a, ar, ak, b, ldb, rows, depth, f); break;
    case 2: OF(tiles2)(c, ldc, a, ar, ak, b, ldb, rows, depth, f); break;
#if PANEL > 2
    case 3: OF(tiles3)(c, ldc, a, ar, ak, b, ldb, rows, depth, f); break;
    case 4: OF(tiles4)(c, ldc, a, ar, ak, b, ldb, rows, depth, f); break;
#endif
    }
}

/* c[r][0..n) of sum over k < depth of a[r * ar + k * ak] * b[k][0..n): panels of b, DEPTH rows of it at a time. */
static void OF(product)(R *c, ptrdiff_t ldc, const R *a, ptrdiff_t ar, ptrdiff_t ak, const R *b, ptrdiff_t ldb,
                        int rows, int n, int depth, OF(finish) f)
{
    for (int i = 0; i < n; i += PANEL * VW) {
        const int nv = n - i < PANEL * VW ? (n - i) / VW : PANEL;
        OF(finish) g = f;
        g.bias = f.bias ? f.bias + i : NULL;
        int k = 0;
        do { /* at least once: a product of depth 0 is the bias */
            const int some = depth - k < DEPTH ? depth - k : DEPTH;
            OF(tiles)(c + i, ldc, a + k * ak, ar, ak, b + k * ldb + i, ldb, rows, nv, some, g);
            g.set = 0;
            k += some;
        } while (k < depth);
    }
}

/* VW sums of products at once, their vectors added up to one: for few rows transposing w does not pay. */
static void OF(dots)(R *dx, const R *w, ptrdiff_t ldw, int n, int m, const R *g)
{
    int j = 0;
    for (; j < m; j += VW) {
        const int some = m - j < VW ? m - j : VW;
        vec s[VW];
        const R *row[VW];
        UNROLL for (int v = 0; v < VW; v++) {
            row[v] = w + (j + (v < some ? v : 0)) * ldw;
            s[v] = ZERO;
        }
        for (int i = 0; i < n; i += VW) {
            const vec y = LOAD(g + i);
            UNROLL for (int v = 0; v < VW; v++) s[v] += y * LOAD(row[v] + i);
        }
        const vec t = OF(horizontal_add)(s);
        if (some == VW)
            STORE(dx + j, LOAD(dx + j) + t);
        else {
            R p[VW];
            STORE(p, t);
            for (int v = 0; v < some; v++)
                dx[j + v] += p[v];
        }
    }
}

static void OF(input_gradient)(void *dx_, ptrdiff_t lddx, const void *w_, ptrdiff_t ldw, int n, int m, int n_rows,
                               const void *g_, ptrdiff_t ldg, int in_order)
{
    R *dx = dx_;
    const R *w = w_, *g = g_;
    if (n_rows < 4 && !in_order) {
        for (int l = 0; l < n_rows; l++)
            OF(dots)(dx + l * lddx, w, ldw, n, m, g + l * ldg);
        return;
    }
    R panel[TRANSPOSED * PANEL * VW];
    const OF(finish) f = {0, NULL, 1};
    for (int j = 0; j < m; j += PANEL * VW) {
        const int some = m - j < PANEL * VW ? m - j : PANEL * VW, nv = (some + VW - 1) / VW, ld = nv * VW;
        for (int i = 0; i < n; i += TRANSPOSED) {
            const int depth = n - i < TRANSPOSED ? n - i : TRANSPOSED;
            for (int p = 0; p < depth; p += VW)
                for (int q = 0; q < nv; q++) {
                    vec s[VW];
                    UNROLL for (int v = 0; v < VW; v++)
                        s[v] = q * VW + v < some ? LOAD(w + (j + q * VW + v) * ldw + i + p) : ZERO;
                    OF(transpose_square)(s);
                    UNROLL for (int v = 0; v < VW; v++) STORE(panel + (p + v) * ld + q * VW, s[v]);
                }
            if (some == ld)
                OF(tiles)(dx + j, lddx, g + i, ldg, 1, panel, ld, n_rows, nv, depth, f);
            else
                for (int l = 0; l < n_rows; l += ROWS) { /* dx has no room beyond m */
                    const int rows = n_rows - l < ROWS ? n_rows - l : ROWS;
                    R part[ROWS * PANEL * VW] = {0};
                    OF(tiles)(part, ld, g + l * ldg + i, ldg, 1, panel, ld, rows, nv, depth, f);
                    for (int r = 0; r < rows; r++)
                        for (int q = 0; q < some; q++)
                            dx[(l + r) * lddx + j + q] += part[r * ld + q];
                }
        }
    }
}

/* --- narrow matrices that lie turned, a row for each output --- */

/* Some of the outputs at once, each as so many sums that the latency of one is hidden. */
INLINE void OF(narrow_dots)(R *out, const R *b, const R *w, ptrdiff_t ldw, const R *x, int m, const int outputs)
{
    const int sums = 8 / outputs;
    vec s[8];
    int j = 0;
    UNROLL for (int v = 0; v < 8; v++) s[v] = ZERO;
    for (; j + sums * VW <= m; j += sums * VW)
        UNROLL for (int u = 0; u < sums; u++) {
            const vec y = LOAD(x + j + u * VW);
            UNROLL for (int v = 0; v < outputs; v++) s[u * outputs + v] += y * LOAD(w + v * ldw + j + u * VW);
        }
    for (; j < m; j += VW) {
        const int some = m - j < VW ? m - j : VW;
        const vec y = LOAD_SOME(x + j, 0);
        UNROLL for (int v = 0; v < outputs; v++) s[v] += y * LOAD(w + v * ldw + j);
    }
    UNROLL for (int h = 4; h >= outputs; h /= 2)
        UNROLL for (int v = 0; v < h; v++) s[v] += s[v + h];
    UNROLL for (int v = 0; v < outputs; v++) out[v] = (b ? b[v] : 0) + OF(total)(s[v]);
}

/* `step` for the outputs from i on, 4, 2 or 1 at once. */
#define BY_OUTPUTS(step)                                                                                               \
    {                                                                                                                  \
        int i = 0;                                                                                                     \
        for (; i + 4 <= n; i += 4)                                                                                     \
            step(4);                                                                                                   \
        if (i + 2 <= n) {                                                                                              \
            step(2);                                                                                                   \
            i += 2;                                                                                                    \
        }                                                                                                              \
        if (i < n)                                                                                                     \
            step(1);                                                                                                   \
    }

static void OF(narrow_affine)(void *out_, const void *b_, const void *w_, ptrdiff_t ldw, int n, const void *x, int m)
{
    R *out = out_;
    const R *b = b_, *w = w_;
#define STEP(outputs) OF(narrow_dots)(out + i, b ? b + i : NULL, w + i * ldw, ldw, x, m, outputs)
    BY_OUTPUTS(STEP)
#undef STEP
}

static void OF(narrow_update)(void *w_, ptrdiff_t ldw, double scale, int n, const void *x_, int m, const void *g_)
{
    R *w = w_;
    const R *x = x_, *g = g_;
#define STEP(outputs)                                                                                                  \
    {                                                                                                                  \
        vec y[outputs];                                                                                                \
        UNROLL for (int v = 0; v < outputs; v++) y[v] = ZERO + (R)scale * g[i + v];                                    \
        VECTORS(j, m, {                                                                                                \
            const vec t = LOAD_SOME(x + j, 0);                                                                         \
            UNROLL for (int v = 0; v < outputs; v++)                                                                   \
            {                                                                                                          \
                R *p = w + (i + v) * ldw + j;                                                                          \
                STORE(p, LOAD(p) + y[v] * t);                                                                          \
            }                                                                                                          \
        })                                                                                                             \
    }
    BY_OUTPUTS(STEP)
#undef STEP
}
#undef BY_OUTPUTS
