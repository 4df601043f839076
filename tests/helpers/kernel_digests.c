/* Digests of what the baseline kernels give: one line for each, the same on every processor (test_processors.py). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "kernels.h"

#define ROWS 5
#define N 64
#define M 37

static uint64_t state = 88172645463325252u;

static double number(void) /* -2 to 2, the same everywhere: whole numbers and one division */
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (double)(int64_t)(state >> 40) / 4194304.0 - 2.0;
}

static void say(const char *type, const char *what, const void *bytes, size_t size)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < size; i++)
        h = (h ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
    printf("%s %s %016llx\n", type, what, (unsigned long long)h);
}

static void *room(size_t size)
{
    void *p = aligned_alloc(64, (size + 127) / 64 * 64);
    memset(p, 0, (size + 127) / 64 * 64);
    return p;
}

#define TYPE(R, name, wide)                                                                                            \
    static void of_##name(void)                                                                                        \
    {                                                                                                                  \
        const fs_batch *k = fs_batch_select("baseline", wide);                                                         \
        R *x = room(ROWS * N * sizeof(R)), *w = room(M * N * sizeof(R)), *b = room(N * sizeof(R));                      \
        R *out = room(ROWS * N * sizeof(R)), *y = room(ROWS * N * sizeof(R)), *lse = room(ROWS * sizeof(R));            \
        for (int i = 0; i < ROWS * N; i++)                                                                             \
            x[i] = (R)number();                                                                                        \
        for (int i = 0; i < M * N; i++)                                                                                \
            w[i] = (R)number();                                                                                        \
        for (int i = 0; i < N; i++)                                                                                    \
            b[i] = (R)number();                                                                                        \
        k->dense_affine(out, N, b, w, N, N, ROWS, x, N, M, 0);                                                         \
        say(#name, "dense_affine", out, ROWS * N * sizeof(R));                                                         \
        k->softmax(y, N, lse, out, N, N, ROWS);                                                                        \
        say(#name, "softmax", y, ROWS * N * sizeof(R));                                                                \
        say(#name, "logsumexp", lse, ROWS * sizeof(R));                                                                \
        k->dense_update(w, N, 1.0, 0.25, N, ROWS, x, N, M, y, N);                                                      \
        say(#name, "dense_update", w, M * N * sizeof(R));                                                              \
        k->input_gradient(out, N, w, N, N, M, ROWS, y, N, 0);                                                          \
        say(#name, "input_gradient", out, ROWS * N * sizeof(R));                                                       \
        double total[2] = {k->sum(x, ROWS * N), k->dot(x, y, ROWS * N)};                                               \
        say(#name, "sums", total, sizeof total);                                                                       \
        for (int op = 0; op < FS_N_OPERATIONS; op++) {                                                                 \
            const char *operation = fs_operation_name(op);                                                             \
            char what[64];                                                                                             \
            const int two = op < FS_NEG;                                                                               \
            if (!operation)                                                                                            \
                continue;                                                                                              \
            memset(out, 0, ROWS * N * sizeof(R));                                                                      \
            memset(y, 0, ROWS * N * sizeof(R));                                                                        \
            if (two)                                                                                                   \
                k->binary(op, FS_VECTORS, out, x, x + N, ROWS * N - N);                                                \
            else                                                                                                       \
                k->unary(op, out, x, ROWS * N);                                                                        \
            for (int i = 0; i < ROWS * N; i++)                                                                         \
                if (out[i] != out[i])                                                                                  \
                    out[i] = 0; /* the sign of a NaN is the processor's */                                             \
            snprintf(what, sizeof what, "value of %s", operation);                                                     \
            say(#name, what, out, ROWS * N * sizeof(R));                                                               \
            if (two)                                                                                                   \
                k->binary_backward(op, FS_VECTORS, y, NULL, x, x + N, out, w, ROWS * N - N);                           \
            else                                                                                                       \
                k->unary_backward(op, y, x, out, w, ROWS * N);                                                         \
            for (int i = 0; i < ROWS * N; i++)                                                                         \
                if (y[i] != y[i])                                                                                      \
                    y[i] = 0;                                                                                          \
            snprintf(what, sizeof what, "slope of %s", operation);                                                     \
            say(#name, what, y, ROWS * N * sizeof(R));                                                                 \
        }                                                                                                              \
    }

TYPE(double, double, 1)
TYPE(float, float, 0)

int main(void)
{
    const fs_kernels *k = fs_kernels_select("baseline");
    double w[M * 40], b[40], out[40], x[M], packed[M], dx[M];
    int row[M];
    for (int i = 0; i < M * 40; i++)
        w[i] = number();
    for (int i = 0; i < 40; i++)
        b[i] = number();
    for (int i = 0; i < M; i++)
        x[i] = i % 3 ? number() : 0.0;
    int count = k->compress(row, packed, x, 1, M);
    k->affine(out, b, w, 40, row, packed, count);
    say("engine", "affine", out, sizeof out);
    k->step_outer(w, 0.1, row, packed, count, out, 40);
    say("engine", "step_outer", w, sizeof w);
    memset(dx, 0, sizeof dx);
    k->add_input_gradient(dx, w, out, M, 40);
    say("engine", "add_input_gradient", dx, sizeof dx);
    of_double();
    of_float();
    return 0;
}
