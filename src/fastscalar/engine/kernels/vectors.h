/* Vectors of the compiler's own, for the kernels of arrays and of programs. */
#ifndef FS_VECTORS_H
#define FS_VECTORS_H

#if defined(__GNUC__) && !defined(__i386__) /* whose registers may be wider than the type */
#define FS_OWN_FUNCTIONS 1
#else
#define FS_OWN_FUNCTIONS 0
#endif

#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define EACH(i, n) _Pragma("clang loop vectorize(assume_safety)") for (ptrdiff_t i = 0; i < (n); i++)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define UNROLL _Pragma("GCC unroll 16")
#define EACH(i, n) _Pragma("GCC ivdep") for (ptrdiff_t i = 0; i < (n); i++)
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec){__VA_ARGS__})
#endif
#else
#define INLINE static inline
#define UNROLL
#define EACH(i, n) for (ptrdiff_t i = 0; i < (n); i++)
#endif

/* c ? x : y, of which c is a comparison */
#ifdef __GNUC__
#define SELECT(c, x, y) ((vec)(((ivec)(x) & (ivec)(c)) | ((ivec)(y) & ~(ivec)(c))))
#else
#define SELECT(c, x, y) ((c) ? (x) : (y))
#endif

#endif
