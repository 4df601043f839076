/* Vectors of FS_VECTOR bytes of numbers of type R; RI: whole numbers as wide. */

#ifdef __GNUC__
typedef R OF(vec) __attribute__((vector_size(FS_VECTOR)));
typedef R OF(mem) __attribute__((vector_size(FS_VECTOR), aligned(sizeof(R)), may_alias)); /* anywhere in an array */
typedef RI OF(ivec) __attribute__((vector_size(FS_VECTOR)));
#else
typedef R OF(vec);
typedef R OF(mem);
#endif
#define vec OF(vec)
#define ivec OF(ivec)
#define LOAD(p) ((vec) * (const OF(mem) *)(p))
#define STORE(p, v) (*(OF(mem) *)(p) = (v))
#define ZERO ((vec){0})
#define SPREAD(number) ((number)-ZERO) /* to all lanes; a sum with zero would lose the sign of -0.0 */
#define ONE (ZERO + 1)
