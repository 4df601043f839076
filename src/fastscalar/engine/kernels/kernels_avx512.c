/* The kernels of arrays compiled for avx512; the bodies are in kernels.c. */
#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
#define FS_SET avx512
#define FS_SET_NAME "avx512"
#define FS_VECTOR 64
#include "kernels.c"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
