/* The kernels of compiled programs, see batch.h.  FS_SET names the set that this object file holds; the bodies are in
 * batch_body.c (with batch_dense.c, batch_steps.c, and of engine/kernels/ exp_body.c and, for double, functions_body.c),
 * included once for double and once for float.
 *
 * Tried and lost (784 x 256 float, 149 of the inputs not zero, 64 rows, AVX-512):
 * - dense products from a copy of w or g in panels: 240 us against 219; the rows as they lie are fetched in time;
 * - sums in blocks of 64, 128, 256 rows of w, to keep them near: 239, 229, 224 us against 219 in one go;
 * - few rows (1, 4, 8) of dense_update by tiles: 20, 29, 42 us against 10, 21, 37 row by row;
 * - sparse_affine with w in blocks of 24 KB, all rows over each: 1.27 to 1.6 us a sample against 1.37, which is what
 *   the L2 cache delivers; 20 % longer at 16 rows;
 * - sparse_update from g as it lies: parts of rows 1 KB apart share half of the L1 cache, 1.05 us a sample against 0.88
 *   from a copy; passes of 4 or 16 vectors instead of 8: 0.99, 1.07 us;
 * - exp and tanh of the C library: 2.2 and 11.6 us for 1024 floats against 0.35 each (double: 5.3, 10.2; 0.9, 0.95);
 * - compress by 8 numbers at a time: 220 ns for 784 against 100 (double: 250, 210).
 */
#include "batch.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__) && defined(__x86_64__)
#define FS_X86_SETS 1
#endif

#ifndef FS_SET
#define FS_SET baseline
#define FS_SET_NAME "baseline"
#define FS_VECTOR 16
#define FS_HAS_SELECT 1
#endif

#define FS_JOIN2(a, b) a##b
#define FS_JOIN(a, b) FS_JOIN2(a, b)

/* In registers: of a dense product a tile of ROWS rows by PANEL vectors, of a sparse one GATHER vectors of sums. */
#if FS_VECTOR == 64
#define ROWS 6
#define PANEL 4
#define GATHER 16
#elif FS_VECTOR == 32
#define ROWS 6
#define PANEL 2
#define GATHER 8
#else
#define ROWS 2
#define PANEL 4
#define GATHER 8
#endif
#define DEPTH 1024 /* the length of the sums between two visits of the result */
#define UPDATED 256 /* rows of a batch at once: of wide matrices they lie pages apart and share parts of the caches */
#define TRANSPOSED 256 /* the like of a matrix that is transposed on the way */
#define CACHE (32768 / (int)sizeof(R)) /* R in the L1 cache */
#define CHUNK 256 /* elements of a temporary */

#include "vectors.h"

/* Lists of indices for SHUFFLE. */
#define LIST2(f, i, h) f(i, h), f(i + 1, h)
#define LIST4(f, i, h) LIST2(f, i, h), LIST2(f, i + 2, h)
#define LIST8(f, i, h) LIST4(f, i, h), LIST4(f, i + 4, h)
#define LIST16(f, i, h) LIST8(f, i, h), LIST8(f, i + 8, h)
/* FIRST and SECOND swap blocks of h elements between two vectors, PARTNER the neighbouring blocks of one. */
#define FIRST(i, h) ((i) & (h) ? VW + (i) - (h) : (i))
#define SECOND(i, h) ((i) & (h) ? VW + (i) : (i) + (h))
#define PARTNER(i, h) ((i) ^ (h))

#define R double
#define BEYOND 1e158
#define RI int64_t
#define WIDE 1
#define OF(name) name##_double
#define MATH(name) name
#ifdef __GNUC__
#define VW (FS_VECTOR / 8)
#else
#define VW 1
#endif
#include "batch_body.c"
#undef R
#undef BEYOND
#undef RI
#undef WIDE
#undef OF
#undef MATH
#undef VW

#define R float
#define BEYOND 1e20f
#define RI int32_t
#define WIDE 0
#define OF(name) name##_float
#define MATH(name) name##f
#ifdef __GNUC__
#define VW (FS_VECTOR / 4)
#else
#define VW 1
#endif
#include "batch_body.c"

#ifdef FS_HAS_SELECT
extern const fs_batch fs_batch_avx2_double, fs_batch_avx2_float, fs_batch_avx512_double, fs_batch_avx512_float;

const fs_batch *fs_batch_select(const char *name, int is_double)
{
#ifdef FS_X86_SETS
    __builtin_cpu_init();
    int avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    int avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    if (avx512 && (name == NULL || strcmp(name, "avx512") == 0))
        return is_double ? &fs_batch_avx512_double : &fs_batch_avx512_float;
    if (avx2 && (name == NULL || strcmp(name, "avx2") == 0))
        return is_double ? &fs_batch_avx2_double : &fs_batch_avx2_float;
#endif
    if (name != NULL && strcmp(name, "baseline") != 0)
        return NULL;
    return is_double ? &fs_batch_baseline_double : &fs_batch_baseline_float;
}
#endif
