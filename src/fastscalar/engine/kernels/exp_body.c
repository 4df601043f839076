/* The exponential function and what is made of it, for vectors of numbers of type R, see vectors.h.
 *
 * exp(x) = 2^k * exp(r) with |r| <= log(2) / 2, and exp(r) by its Taylor series, whose rest is below 0.1 ulp.  Without
 * a branch; overflows to infinity, underflows by way of the subnormal numbers, NaN stays.  Greatest errors found, in
 * ulp: exp 1.1, sigmoid 2.4, tanh 2.6.
 */

#if FS_VECTOR == 32
#if WIDE
static const RI OF(edge)[2 * VW] = {-1, -1, -1, -1}; /* from VW - some on: `some` times -1, then zeros */
#else
static const RI OF(edge)[2 * VW] = {-1, -1, -1, -1, -1, -1, -1, -1};
#endif
#define MASK(some) _mm256_loadu_si256((const __m256i *)(OF(edge) + VW - (some)))
#endif

/* The first `some` numbers at p, and others as `fill`; likewise stored. */
INLINE vec OF(load_some)(const R *p, int some, R fill)
{
#if FS_VECTOR == 64 && WIDE
    return (vec)_mm512_mask_loadu_pd(_mm512_set1_pd(fill), (__mmask8)((1u << some) - 1), p);
#elif FS_VECTOR == 64
    return (vec)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << some) - 1), p);
#elif FS_VECTOR == 32 && WIDE
    return SELECT(MASK(some), (vec)_mm256_maskload_pd(p, MASK(some)), ZERO + fill);
#elif FS_VECTOR == 32
    return SELECT(MASK(some), (vec)_mm256_maskload_ps(p, MASK(some)), ZERO + fill);
#else
    R t[VW];
    for (int i = 0; i < VW; i++)
        t[i] = i < some ? p[i] : fill;
    return LOAD(t);
#endif
}

INLINE void OF(store_some)(R *p, int some, vec v)
{
#if FS_VECTOR == 64 && WIDE
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << some) - 1), (__m512d)v);
#elif FS_VECTOR == 64
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << some) - 1), (__m512)v);
#elif FS_VECTOR == 32 && WIDE
    _mm256_maskstore_pd(p, MASK(some), (__m256d)v);
#elif FS_VECTOR == 32
    _mm256_maskstore_ps(p, MASK(some), (__m256)v);
#else
    R t[VW];
    STORE(t, v);
    for (int i = 0; i < some; i++)
        p[i] = t[i];
#endif
}

/* `body` for each vector of n numbers; the last one may be a part. */
#define VECTORS(i, n, ...)                                                                                             \
    {                                                                                                                  \
        ptrdiff_t i = 0;                                                                                               \
        for (const int some = VW; i + VW <= (n); i += VW)                                                              \
            __VA_ARGS__;                                                                                               \
        if (VW > 1 && i < (n)) {                                                                                       \
            const int some = (int)((n)-i);                                                                             \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
     }
#define LOAD_SOME(p, fill) (some == VW ? LOAD(p) : OF(load_some)(p, some, fill))
#define STORE_SOME(p, v)                                                                                               \
    do {                                                                                                               \
        if (some == VW)                                                                                                \
            STORE(p, v);                                                                                               \
        else                                                                                                           \
            OF(store_some)(p, some, v);                                                                                \
        } while (0)

#undef MASK
#if FS_OWN_FUNCTIONS

INLINE vec OF(magnitude)(vec x)
{
    return (vec)((ivec)x & ~(ivec)-ZERO);
}

#if WIDE
/* x + SHIFTER - SHIFTER is x rounded to a whole number, which stands in the last bits of the sum. */
#define SHIFTER 0x1.8p52
#define MANTISSA 52
#define BIAS 1023
#define LN2_HIGH 6.93147180369123816490e-01 /* short: its products with k are exact */
#define LN2_LOW 1.90821492927058770002e-10
#define TERMS 12
#else
#define SHIFTER 0x1.8p23f
#define MANTISSA 23
#define BIAS 127
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define TERMS 6
#endif

/* exp(r) - 1 - r, r not beyond log(2) / 2 */
INLINE vec OF(exp_rest)(vec r)
{
    static const R term[] = {(R)(1 / 2.0),        (R)(1 / 6.0),         (R)(1 / 24.0),       (R)(1 / 120.0),
                             (R)(1 / 720.0),      (R)(1 / 5040.0),      (R)(1 / 40320.0),    (R)(1 / 362880.0),
                             (R)(1 / 3628800.0),  (R)(1 / 39916800.0),  (R)(1 / 479001600.), (R)(1 / 6227020800.0)};
    const vec rr = r * r;
    vec even = ZERO + term[TERMS - 2], odd = ZERO + term[TERMS - 1]; /* two short chains instead of a long one */
    UNROLL for (int i = TERMS - 4; i >= 0; i -= 2) {
        even = even * rr + term[i];
        odd = odd * rr + term[i + 1];
    }
    return rr * (even + r * odd);
}

INLINE vec OF(expm1_near)(vec r)
{
    return r + OF(exp_rest)(r);
}

/* exp(r) - 1, and k */
INLINE vec OF(expm1_part)(vec x, vec *k)
{
    *k = (x * (R)1.44269504088896340736 + SHIFTER) - SHIFTER;
    return OF(expm1_near)((x - *k * LN2_HIGH) - *k * LN2_LOW);
}

/* 2^k, a normal number */
INLINE vec OF(power)(vec k)
{
    return (vec)(((ivec)(k + SHIFTER) + BIAS) << MANTISSA);
}

INLINE vec OF(exp)(vec x)
{
    const R low = WIDE ? -746 : -104, high = WIDE ? 710 : 89;
    vec k;
    x = SELECT(x < low, ZERO + low, x);
    x = SELECT(x > high, ZERO + high, x);
    const vec y = 1 + OF(expm1_part)(x, &k), half = (k * (R)0.5 + SHIFTER) - SHIFTER;
    return y * OF(power)(half) * OF(power)(k - half); /* in two steps: 2^k may be subnormal or too great */
}

INLINE vec OF(tanh)(vec a)
{
    vec k, x = -2 * OF(magnitude)(a);
    x = SELECT(x < -60, ZERO - 60, x);
    const vec y = OF(expm1_part)(x, &k), s = OF(power)(k), e = s * y + (s - 1); /* exp(-2 |a|) - 1 */
    return (vec)((ivec)OF(magnitude)(e / (2 + e)) | ((ivec)a & (ivec)-ZERO));
}

#undef SHIFTER
#undef MANTISSA
#undef BIAS
#undef LN2_HIGH
#undef LN2_LOW
#undef TERMS

#else /* by the C library, number by number */

#define EACH_OF(v, f)                                                                                                  \
    {                                                                                                                  \
        R t[VW];                                                                                                       \
        STORE(t, v);                                                                                                   \
        for (int i = 0; i < VW; i++)                                                                                   \
            t[i] = MATH(f)(t[i]);                                                                                      \
        return LOAD(t);                                                                                                \
     }
INLINE vec OF(magnitude)(vec x) EACH_OF(x, fabs)
INLINE vec OF(exp)(vec x) EACH_OF(x, exp)
INLINE vec OF(tanh)(vec x) EACH_OF(x, tanh)
#undef EACH_OF
#endif

INLINE vec OF(sigmoid)(vec a)
{
    const vec e = OF(exp)(-OF(magnitude)(a)); /* never overflows */
    return SELECT(a >= 0, ZERO + 1, e) / (1 + e);
}
