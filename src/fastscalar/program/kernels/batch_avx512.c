/* The kernels of compiled programs for avx512; the bodies are in batch.c. */
#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma,avx2"))),                   \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,avx512bw,fma,avx2,prefer-vector-width=512")
#endif
#define FS_SET avx512
#define FS_SET_NAME "avx512"
#define FS_VECTOR 64
#include "batch.c"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
