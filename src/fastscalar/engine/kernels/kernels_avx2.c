/* The kernels of arrays compiled for avx2; the bodies are in kernels.c. */
#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define FS_SET avx2
#define FS_SET_NAME "avx2"
#define FS_VECTOR 32
#include "kernels.c"
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
