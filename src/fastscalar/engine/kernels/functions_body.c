/* The functions of the operation table for vectors of doubles, see vectors.h.  Floats go through them too.
 *
 * Values are within 4 ulp of the function wherever that is a normal number.  Greatest errors found, in ulp: hypot 0.51,
 * pow 0.7, log, sin, cos 0.8, log1p, exp2, acos, atan2 1.1, atan, log2, erf, cosh, softplus 1.3, asinh, atanh 1.8, acosh,
 * log10 1.7, expm1, tan 2.0, sinh, asin 2.2, silu 3.0, erfc 3.1, ndtr 3.6, gelu 3.9.  Slopes are those of the formulas
 * d_* of the engine.  Each element is computed by itself, so that its bits depend neither on its place nor on how many
 * there are; what the short way does not reach (sines of more than 2^20, powers that over- and underflow) goes to the C
 * library, element by element.
 *
 * The series are Chebyshev's interpolations of the function named, within 2^-52 of the result at most, from mpmath:
 * chebyfit((2 atanh(s) / s - 2) / s^2) over s^2 <= ((sqrt(2) - 1) / (sqrt(2) + 1))^2, 7 terms, and so on.
 */

/* (2 atanh(s) / s - 2) / z, z = s^2 <= 0.0295 */
static const double in_log[] = {
    0.666666666666667, 0.3999999999989889, 0.28571428626253836, 0.22222211089379496, 0.1818289243253687,
    0.15331611722055008, 0.14617807153417325};
/* the same less 2 / 3, over z */
static const double in_pow[] = {
    0.4, 0.2857142857142937, 0.22222222221652765, 0.18181818336099848, 0.1538459488700718, 0.1333480879881234,
    0.11706126464563398, 0.11724327060846747};
/* (sin(r) / r - 1) / z, z = r^2 <= (pi / 4)^2 */
static const double in_sin[] = {
    -0.16666666666666666, 0.008333333333330948, -0.00019841269836756774, 2.7557316101617874e-06,
    -2.505113165023518e-08, 1.5918115263265974e-10};
/* (cos(r) - 1 + z / 2) / z^2 */
static const double in_cos[] = {
    0.041666666666666664, -0.0013888888888887398, 2.480158729876456e-05, -2.7557317271145144e-07,
    2.087614614655861e-09, -1.1382623647474604e-11};
/* (atan(t) / t - 1) / z, z = t^2 <= tan(pi / 8)^2 */
static const double in_atan[] = {
    -0.3333333333333333, 0.1999999999999548, -0.14285714284657894, 0.11111111014561013, -0.09090904549884611,
    0.07692182535116648, -0.06664502215671447, 0.058580687568615106, -0.05085030492810941, 0.03921955253255129,
    -0.019162068915902577};
/* (asin(t) / t - 1) / z, z = t^2 <= 1 / 4 */
static const double in_asin[] = {
    0.16666666666666669, 0.07499999999998433, 0.04464285714635543, 0.030381944138531247, 0.02237217294214989,
    0.017352392720869973, 0.013971212973552933, 0.011479177415184906, 0.01032281435018578, 0.005457506718640358,
    0.01740087944269402, -0.014851887071247204, 0.028757851367421566};
/* erf(x) / x - 1, by z = x^2 <= 1 */
static const double in_erf[] = {
    0.1283791670955126, -0.3761263890318375, 0.11283791670954879, -0.026866170645076792, 0.0052239776248180145,
    -0.000854832698083379, 0.0001205533111164271, -1.4925595266831182e-05, 1.6461000484121368e-06,
    -1.6350312701054695e-07, 1.4659775274047436e-08, -1.1372848856791674e-09, 5.957176147748911e-11};
/* cbrt(m), 1 <= m <= 2: a first guess */
static const double in_cbrt[] = {
    0.47514693623890253, 0.8317431442479309, -0.4602977267696209, 0.19665479701360078, -0.04831832068166114,
    0.005072953325277491};
/* ((1 + 2 x) exp(x^2) erfc(x) - 1) / (1 + t), x >= 0, by t = (x - 3.75) / (x + 3.75) */
static const double in_erfcx[] = {
    0.2375126308378276, -0.3777532294233746, 0.3813386449088395, -0.29906190641868974, 0.19025797627692215,
    -0.09795365511666321, 0.03926025652730712, -0.010897979106929788, 0.0011513995467633167, 0.0006042262966685475,
    -0.00031051262172745374, 2.0358579693926705e-05, 3.1290494349244584e-05, -8.906355823587831e-06,
    -2.5377500097954473e-06, 1.5643624930460329e-06, 1.8723734471233091e-07, -2.4464810544247007e-07,
    -1.4005353074201294e-08, 3.740388738724219e-08, 1.276092806152313e-09, -5.07428260388852e-09,
    -1.0652100892560516e-10, 4.270472427184967e-10};

#define LN_2 0.69314718055994530942
#define LN2_HIGH 0x1.62e42fee00000p-1 /* short: its products with k are exact */
#define LN2_LOW 0x1.a39ef35793c76p-33
#define LOG10_2_HIGH 0x1.3441350800000p-2
#define LOG10_2_LOW 0x1.f79fef311f12bp-34
#define ONE_OVER_LN_2 1.44269504088896340736
#define ONE_OVER_LN_10 0.43429448190325182765
#define PI_HIGH 0x1.921fb54442d18p+1
#define PI_LOW 0x1.1a62633145c07p-53
#define SQRT_HALF 0.70710678118654752440
#define TWO_OVER_SQRT_PI 1.12837916709551257390
#define ONE_OVER_SQRT_2PI 0.39894228040143267794
#define BITS_OF_ONE 0x3ff0000000000000
#define BITS_OF_SQRT_HALF 0x3fe6a09e667f3bcd
#define FRACTION 0x000fffffffffffff
#define ROUND 0x1.8p52 /* x + ROUND - ROUND is x rounded to a whole number, which stands in the last bits of the sum */

typedef uint64_t uvec_double __attribute__((vector_size(FS_VECTOR)));
#define uvec uvec_double

/* --- parts --- */

INLINE int any_double(ivec c)
{
#if FS_VECTOR == 64
    return _mm512_movepi64_mask((__m512i)c) != 0;
#elif FS_VECTOR == 32
    return _mm256_movemask_pd((__m256d)c) != 0;
#else
    int64_t some = 0;
    for (int i = 0; i < VW; i++)
        some |= c[i];
    return some != 0;
#endif
}

INLINE vec sqrt_double(vec x)
{
#if FS_VECTOR == 64
    return (vec)_mm512_sqrt_pd((__m512d)x);
#elif FS_VECTOR == 32
    return (vec)_mm256_sqrt_pd((__m256d)x);
#else
    for (int i = 0; i < VW; i++)
        x[i] = sqrt(x[i]);
    return x;
#endif
}

/* a * b, rounded before anything is added to it, and what that leaves out. */
INLINE vec times_double(vec a, vec b, vec *rest)
{
    vec p = a * b;
#if FS_VECTOR == 64
    __asm__("" : "+v"(p));
    *rest = (vec)_mm512_fmsub_pd((__m512d)a, (__m512d)b, (__m512d)p);
#elif FS_VECTOR == 32
    __asm__("" : "+x"(p));
    *rest = (vec)_mm256_fmsub_pd((__m256d)a, (__m256d)b, (__m256d)p);
#elif defined(__FP_FAST_FMA)
#ifdef __aarch64__
    __asm__("" : "+w"(p));
#endif
    for (int i = 0; i < VW; i++)
        (*rest)[i] = __builtin_fma(a[i], b[i], -p[i]);
#else /* Dekker's way: without fma nothing contracts */
    const vec s = a * 0x1p27 + a, t = b * 0x1p27 + b, ah = s - (s - a), bh = t - (t - b), al = a - ah, bl = b - bh;
    *rest = ((ah * bh - p) + ah * bl + al * bh) + al * bl;
#endif
    return p;
}

/* sum of c[i] * z^i, i < n: two short chains instead of a long one */
INLINE vec series_double(const double *c, const int n, vec z)
{
    const vec zz = z * z;
    vec even = ZERO + c[(n - 1) & ~1], odd = ZERO + c[(n - 2) | 1];
    UNROLL for (int i = ((n - 1) & ~1) - 2; i >= 0; i -= 2) even = even * zz + c[i];
    UNROLL for (int i = ((n - 2) | 1) - 2; i >= 1; i -= 2) odd = odd * zz + c[i];
    return even + z * odd;
}
#define SERIES(c, z) series_double(c, (int)(sizeof(c) / sizeof *(c)), z)

INLINE vec with_sign_double(vec x, vec of)
{
    return (vec)((ivec)OF(magnitude)(x) | ((ivec)of & (ivec)-ZERO));
}

/* y where c does not hold, else f(x), element by element. */
static __attribute__((noinline, cold)) vec one_by_one_double(vec y, vec x, ivec c, double (*f)(double))
{
    for (int i = 0; i < VW; i++)
        if (c[i])
            y[i] = f(x[i]);
    return y;
}

static __attribute__((noinline, cold)) vec two_by_two_double(vec y, vec a, vec b, ivec c, double (*f)(double, double))
{
    for (int i = 0; i < VW; i++)
        if (c[i])
            y[i] = f(a[i], b[i]);
    return y;
}

/* --- logarithms --- */

/* x = m * 2^k with m between sqrt(1/2) and sqrt(2), of a normal x */
INLINE vec fraction_double(vec x, vec *k)
{
    const uvec t = (uvec)x + (uint64_t)(BITS_OF_ONE - BITS_OF_SQRT_HALF);
    *k = (vec)((t >> 52) | (uvec)(ZERO + 0x1p52)) - (0x1p52 + 1023);
    return (vec)((t & (uint64_t)FRACTION) + (uint64_t)BITS_OF_SQRT_HALF);
}

/* log(1 + f) is f less this; `more` is added to it */
INLINE vec log_rest_double(vec f, vec more)
{
    const vec s = f / (2 + f), z = s * s, half = 0.5 * f * f;
    return half - (s * (half + z * SERIES(in_log, z)) + more);
}

INLINE vec log_of_special_double(vec y, vec x, vec zero_at)
{
    y = SELECT(x == zero_at, ZERO - INFINITY, SELECT(x < zero_at, ZERO + NAN, y));
    return SELECT((x == INFINITY) | (x != x), x, y);
}

INLINE vec any_fraction_double(vec x, vec *k)
{
    const ivec small = x < 0x1p-1022;
    const vec m = fraction_double(SELECT(small, x * 0x1p54, x), k);
    *k -= SELECT(small, ZERO + 54, ZERO);
    return m;
}
#define LOG_PARTS                                                                                                      \
    vec k;                                                                                                             \
    const vec f = any_fraction_double(x, &k) - 1;                                                                      \
    const ivec special = ~((x > 0) & (x < INFINITY));

INLINE vec log_double(vec x)
{
    LOG_PARTS
    const vec y = k * LN2_HIGH - (log_rest_double(f, k * LN2_LOW) - f);
    return any_double(special) ? log_of_special_double(y, x, ZERO) : y;
}

INLINE vec log2_double(vec x)
{
    LOG_PARTS
    const vec y = k + (f - log_rest_double(f, ZERO)) * ONE_OVER_LN_2;
    return any_double(special) ? log_of_special_double(y, x, ZERO) : y;
}

INLINE vec log10_double(vec x)
{
    LOG_PARTS
    const vec y = k * LOG10_2_HIGH + (k * LOG10_2_LOW + (f - log_rest_double(f, ZERO)) * ONE_OVER_LN_10);
    return any_double(special) ? log_of_special_double(y, x, ZERO) : y;
}

INLINE vec log1p_double(vec x)
{
    vec k;
    const vec u = 1 + x, m = fraction_double(u, &k), lost = SELECT(x > 1, 1 - (u - x), x - (u - 1)) / u;
    const vec f = SELECT(k == 0, x, m - 1), c = SELECT(k == 0, ZERO, lost);
    const vec y = k * LN2_HIGH - (log_rest_double(f, k * LN2_LOW + c) - f);
    const ivec special = ~((x > -1) & (x < INFINITY) & (x != 0));
    return any_double(special) ? SELECT(x == 0, x, log_of_special_double(y, x, -ONE)) : y;
}

/* --- exponentials --- */

/* exp(x + more) is this times 2^k; within 0.6 ulp, and not rounded before the last step: 3^2 is 9. */
INLINE vec exp_part_double(vec x, vec more, vec *k)
{
    *k = (x * ONE_OVER_LN_2 + ROUND) - ROUND;
    const vec a = x - *k * LN2_HIGH, b = *k * LN2_LOW, r = (a - b) + more, low = ((a - r) - b) + more, one = 1 + r;
    return one + ((r - (one - 1)) + (low + exp_rest_double(r)));
}

/* 2^k in two steps: it may be subnormal or too great */
INLINE vec scaled_double(vec y, vec k)
{
    const vec half = (k * 0.5 + ROUND) - ROUND;
    return y * power_double(half) * power_double(k - half);
}

INLINE vec closer_exp_double(vec x)
{
    vec k;
    x = SELECT(x < -746, ZERO - 746, x);
    x = SELECT(x > 710, ZERO + 710, x);
    const vec y = exp_part_double(x, ZERO, &k);
    return scaled_double(y, k);
}

INLINE vec exp2_double(vec x)
{
    x = SELECT(x < -1080, ZERO - 1080, x);
    x = SELECT(x > 1024, ZERO + 1024, x);
    const vec k = (x + ROUND) - ROUND;
    return scaled_double(1 + expm1_near_double((x - k) * LN_2), k);
}

INLINE vec expm1_double(vec a)
{
    vec k, x = SELECT(a < -60, ZERO - 60, a);
    x = SELECT(x > 710, ZERO + 710, x);
    const vec y = expm1_part_double(x, &k), half = (k * 0.5 + ROUND) - ROUND;
    const vec p = power_double(half), q = power_double(k - half), s = p * q;
    return SELECT(a == 0, a, SELECT(k > 60, (1 + y) * p * q, s * y + (s - 1)));
}

INLINE vec sinh_double(vec a)
{
    const vec x = OF(magnitude)(a), t = expm1_double(x), y = with_sign_double(0.5 * (t + t / (t + 1)), a);
    const ivec special = x > 709;
    return any_double(special) ? one_by_one_double(y, a, special, sinh) : y;
}

INLINE vec cosh_double(vec a)
{
    const vec x = OF(magnitude)(a), e = exp_double(x), y = 0.5 * e + 0.5 / e;
    const ivec special = x > 709;
    return any_double(special) ? one_by_one_double(y, a, special, cosh) : y;
}

/* Of x >= 0 that is not beyond 1e150: log1p of what is added to 1 */
INLINE vec asinh_double(vec a)
{
    const vec x = OF(magnitude)(a), xx = x * x, y = with_sign_double(log1p_double(x + xx / (1 + sqrt_double(1 + xx))), a);
    const ivec special = x > 1e150;
    return any_double(special) ? one_by_one_double(y, a, special, asinh) : y;
}

INLINE vec acosh_double(vec x)
{
    const vec t = SELECT(x < 1, ZERO + NAN, x - 1), y = log1p_double(t + sqrt_double(2 * t + t * t));
    const ivec special = x > 1e150;
    return any_double(special) ? one_by_one_double(y, x, special, acosh) : y;
}

INLINE vec atanh_double(vec a)
{
    const vec x = OF(magnitude)(a);
    return with_sign_double(0.5 * log1p_double(2 * x / (1 - x)), a);
}

INLINE vec softplus_double(vec a)
{
    return SELECT(a <= 0, ZERO, a) + log1p_double(exp_double(-OF(magnitude)(a)));
}

/* --- circular functions --- */

/* sin and cos of what x is more than a multiple n of pi / 2; n */
INLINE uvec turned_double(vec x, vec *sine, vec *cosine)
{
    const vec q = x * (2 / 3.14159265358979323846) + ROUND, k = q - ROUND;
    const vec a = x - k * 0x1.921fb54400000p+0, b = k * 0x1.0b4611a600000p-34, c = k * 0x1.3198a2e000000p-69;
    const vec u = a - b, v = u - c; /* all products are exact */
    const vec ub = u - a, vc = v - u;
    const vec rest = ((a - (u - ub)) - (b + ub)) + ((u - (v - vc)) - (c + vc)) - k * 0x1.b839a252049c1p-104;
    const vec r = v + rest, low = rest - (r - v), z = r * r, rz = r * z, half = 0.5 * z, one = 1 - half;
    const vec p = SERIES(in_sin, z), t = SERIES(in_cos, z);
    *sine = r + (rz * p + low * one);
    *cosine = one + (((1 - one) - half) + (z * z * t - r * low));
    return (uvec)q;
}
#define FAR(x) (~(OF(magnitude)(x) < 0x1p20))

/* Of a number of quarter turns n: sin for n = 0, cos for n = 1 and so on */
INLINE vec quarter_double(uvec n, vec sine, vec cosine)
{
    const ivec odd = (ivec)(n & 1) != 0;
    return (vec)((uvec)SELECT(odd, cosine, sine) ^ ((n & 2) << 62));
}

INLINE vec sin_double(vec x)
{
    vec s, c;
    const uvec n = turned_double(x, &s, &c);
    const vec y = SELECT(x == 0, x, quarter_double(n, s, c));
    return any_double(FAR(x)) ? one_by_one_double(y, x, FAR(x), sin) : y;
}

INLINE vec cos_double(vec x)
{
    vec s, c;
    const uvec n = turned_double(x, &s, &c);
    const vec y = quarter_double(n + 1, s, c);
    return any_double(FAR(x)) ? one_by_one_double(y, x, FAR(x), cos) : y;
}

INLINE vec tan_double(vec x)
{
    vec s, c;
    const ivec odd = (ivec)(turned_double(x, &s, &c) & 1) != 0;
    const vec y = SELECT(x == 0, x, SELECT(odd, -c, s) / SELECT(odd, s, c));
    return any_double(FAR(x)) ? one_by_one_double(y, x, FAR(x), tan) : y;
}

/* atan(a / b), a and b >= 0 */
INLINE vec angle_double(vec a, vec b)
{
    const ivec steep = a > 2.41421356237309504880 * b, slanted = a > 0.41421356237309504880 * b;
    const vec t = SELECT(steep, -b, SELECT(slanted, a - b, a)) / SELECT(steep, a, SELECT(slanted, a + b, b)), z = t * t;
    const vec turn = SELECT(steep, ZERO + 0.5, SELECT(slanted, ZERO + 0.25, ZERO));
    return turn * PI_HIGH + (t + (t * z * SERIES(in_atan, z) + turn * PI_LOW));
}

INLINE vec atan_double(vec x)
{
    return with_sign_double(angle_double(OF(magnitude)(x), ONE), x);
}

INLINE vec atan2_double(vec y, vec x)
{
    const vec a = OF(magnitude)(y), b = OF(magnitude)(x), r = angle_double(a, b);
    const vec angle = with_sign_double(SELECT(x < 0, PI_HIGH - (r - PI_LOW), r), y);
    const ivec usual = (a < 0x1p1000) & (b < 0x1p1000) & ((a > 0x1p-1000) | (b > 0x1p-1000));
    return any_double(~usual) ? two_by_two_double(angle, y, x, ~usual, atan2) : angle;
}

/* asin of s, which is x or, beyond 1/2, the sine of half of what x lacks to a quarter turn */
INLINE vec half_asin_double(vec a)
{
    const ivec far = a > 0.5;
    const vec z = SELECT(far, 0.5 * (1 - a), a * a), s = SELECT(far, sqrt_double(z), a);
    return s + s * z * SERIES(in_asin, z);
}

INLINE vec asin_double(vec x)
{
    const vec a = OF(magnitude)(x), h = half_asin_double(a);
    return with_sign_double(SELECT(a > 0.5, 0.5 * PI_HIGH - (2 * h - 0.5 * PI_LOW), h), x);
}

INLINE vec acos_double(vec x)
{
    const vec a = OF(magnitude)(x), h = half_asin_double(a), signed_h = with_sign_double(h, x);
    const vec far = SELECT(x > 0, 2 * h, PI_HIGH - (2 * h - PI_LOW));
    return SELECT(a > 0.5, far, 0.5 * PI_HIGH - (signed_h - 0.5 * PI_LOW));
}

/* --- the normal distribution --- */

/* exp(-scale * x^2) is e - e * low, scale a power of two: x^2 as two numbers, for where it is large */
INLINE vec square_exp_double(vec x, double scale, vec *low)
{
    x = SELECT(OF(magnitude)(x) > 40, ZERO + 40, x);
    const vec e = exp_double(-scale * times_double(x, x, low));
    *low *= scale;
    return e;
}

INLINE vec bell_double(vec x, double scale)
{
    vec low;
    const vec e = square_exp_double(x, scale, &low);
    return e - e * low;
}

/* (e - e * low) * exp(x^2) * erfc(x), x >= 0 */
INLINE vec tail_double(vec e, vec low, vec x)
{
    x = SELECT(x > 1e6, ZERO + 1e6, x);
    const vec d = x + 3.75, w = 2 * x / d * SERIES(in_erfcx, (x - 3.75) / d);
    return (e + e * (w - low * (1 + w))) / (1 + 2 * x);
}

INLINE vec erfc_of_size_double(vec x)
{
    vec low;
    const vec e = square_exp_double(x, 1, &low);
    return tail_double(e, low, x);
}

INLINE vec erfc_double(vec a)
{
    const vec y = erfc_of_size_double(OF(magnitude)(a));
    return SELECT(a < 0, 2 - y, y);
}

INLINE vec erf_double(vec a)
{
    const vec x = OF(magnitude)(a), far = 1 - erfc_of_size_double(x);
    return SELECT(x < 1, a + a * SERIES(in_erf, x * x), with_sign_double(far, a));
}

INLINE vec ndtr_double(vec a)
{
    vec low;
    const vec e = square_exp_double(a, 0.5, &low), y = tail_double(0.5 * e, low, SQRT_HALF * OF(magnitude)(a));
    return SELECT(a > 0, 1 - y, y);
}

INLINE vec gelu_double(vec a)
{
    return SELECT(a < -1e3, -ZERO, a * ndtr_double(a));
}

/* ndtr(a) is v / a, but where v may be subnormal or is infinite */
INLINE vec gelu_partial_double(vec a, vec v)
{
    const vec size = OF(magnitude)(a), side = a * (ONE_OVER_SQRT_2PI * bell_double(a, 0.5));
    const vec below = SELECT(size < 1e-30, ZERO + 0.5, SELECT(a > 1e3, ONE, v / a));
    return below + SELECT(size > 1e3, ZERO, side);
}

INLINE vec silu_double(vec a)
{
    return SELECT(a < -1e3, -ZERO, a * sigmoid_double(a));
}

INLINE vec silu_partial_double(vec a)
{
    const vec s = sigmoid_double(a);
    return SELECT(OF(magnitude)(a) > 1e3, s, s * (1 + a * (1 - s)));
}

/* --- powers --- */

INLINE vec cbrt_double(vec a)
{
    const vec x = OF(magnitude)(a);
    const ivec special = ~((x >= 0x1p-1022) & (x < INFINITY));
    const uvec bits = (uvec)x;
    const vec e = (vec)((bits >> 52) | (uvec)(ZERO + 0x1p52)) - (0x1p52 + 1023);
    const vec third = ((e - 1) * (1 / 3.0) + ROUND) - ROUND, left = e - 3 * third; /* 0, 1 or 2 */
    const vec f = (vec)((bits & (uint64_t)FRACTION) | (uint64_t)BITS_OF_ONE);
    const vec m = f * SELECT(left > 1, ZERO + 4, SELECT(left > 0, ZERO + 2, ONE));
    const vec guess = SERIES(in_cbrt, f) * SELECT(left > 1, ZERO + 0x1.965fea53d6e3dp+0,
                                                  SELECT(left > 0, ZERO + 0x1.428a2f98d728bp+0, ONE));
    const vec cube = guess * guess * guess, root = guess + guess * ((m - cube) / (2 * cube + m)); /* Halley's step */
    const vec y = with_sign_double(root * power_double(third), a);
    return any_double(special) ? one_by_one_double(y, a, special, cbrt) : y;
}

/* log(x) of a normal x > 0 as a sum of two numbers: 2 s + 2 / 3 s^3 + ..., the first terms to twice the digits */
INLINE vec log_in_two_double(vec x, vec *low)
{
    vec k, zl, tl, ul, e;
    const vec m = fraction_double(x, &k), f = m - 1, d = m + 1, part = 1 / d, s = f * part;
    const vec p = times_double(s, d, &e), sl = (((f - p) - e) - s * (m - (d - 1))) * part;
    const vec z = times_double(s, s, &zl), w = z * SERIES(in_pow, z), c = w + 2 / 3.0;
    const vec cl = ((2 / 3.0 - c) + w) + 0x1.5555555555555p-55;
    const vec t = times_double(s, z, &tl), u = times_double(t, c, &ul);
    tl += s * (zl + 2 * s * sl) + sl * z;
    ul += t * cl + tl * c;
    const vec whole = k * LN2_HIGH, a = whole + 2 * s, al = 2 * s - (a - whole), b = a + u, bl = u - (b - a);
    const vec rest = al + bl + (2 * sl + ul + k * LN2_LOW), h = b + rest;
    *low = rest - (h - b);
    return h;
}

INLINE vec pow_double(vec a, vec b)
{
    vec low, rest, k;
    const vec x = OF(magnitude)(a), size = OF(magnitude)(b);
    const vec h = log_in_two_double(x, &low), t = times_double(b, h, &rest);
    const vec y = exp_part_double(t, rest + b * low, &k) * power_double(k);
    const ivec usual = (x >= 0x1p-1022) & (x < 0x1p1000) & (OF(magnitude)(t) < 700) & (size < 0x1p900);
    if (!any_double(~(usual & (a > 0))))
        return y;
    const vec whole = (size + 0x1p52) - 0x1p52, half = 0.5 * size;
    const ivec odd = half != (half + 0x1p52) - 0x1p52, signed_too = (a > 0) | ((size == whole) & (size < 0x1p51));
    return two_by_two_double(SELECT((a < 0) & odd, -y, y), a, b, ~(usual & signed_too), pow);
}

static double pow_partial_of(double a, double b)
{
    return b == 0 ? 0 : b * pow(a, b - 1);
}

/* b * pow(a, b - 1), v = pow(a, b) */
INLINE vec pow_partial_double(vec a, vec b, vec v)
{
    const vec size = OF(magnitude)(v), y = b * (v / a);
    const ivec usual = (size >= 0x1p-1000) & (size < 0x1p1000) & (OF(magnitude)(a) >= 0x1p-1022) & (a - a == 0);
    return any_double(~usual) ? two_by_two_double(y, a, b, ~usual, pow_partial_of) : y;
}

INLINE vec hypot_double(vec a, vec b)
{
    const vec x = OF(magnitude)(a), y = OF(magnitude)(b), most = SELECT(x > y, x, y), least = SELECT(x > y, y, x);
    vec pl, ql, hl;
    const vec p = times_double(most, most, &pl), q = times_double(least, least, &ql), s = p + q, root = sqrt_double(s);
    const vec rest = (s - times_double(root, root, &hl)) - hl, more = ((p - s) + q) + (pl + ql);
    const vec h = root + (rest + more) / (2 * root); /* Newton's step from what roundings left out */
    const ivec usual = (most < 0x1p400) & (most > 0x1p-400);
    return any_double(~usual) ? two_by_two_double(h, a, b, ~usual, hypot) : h;
}

INLINE vec hypot_partial_double(vec a, vec b, vec v, int left)
{
    const ivec endless = OF(magnitude)(v) == INFINITY, mine = OF(magnitude)(a) == INFINITY;
    const ivec other = left ? mine ^ mine : OF(magnitude)(b) == INFINITY; /* the first that is infinite outweighs */
    const vec far = SELECT(mine & ~other, with_sign_double(ONE, a), ZERO);
    return SELECT(endless, far, SELECT(v == 0, ZERO, a / v));
}

/* b / (a^2 + b^2) */
INLINE vec atan2_partial_double(vec a, vec b)
{
    const ivec steep = OF(magnitude)(a) > OF(magnitude)(b);
    const vec most = SELECT(steep, a, b), r = SELECT(steep, b, a) / most, d = 1 + r * r;
    return SELECT((a == 0) & (b == 0), ZERO, SELECT(steep, r, ONE) / d / most);
}

/* --- all of them: the value of x; the partial, by x and the value v --- */

#define FUNCTIONS(DO)                                                                                                  \
    DO(LOG, log_double(x), 1 / x)                                                                                      \
    DO(EXP2, exp2_double(x), v * LN_2)                                                                                 \
    DO(EXPM1, expm1_double(x), v + 1)                                                                                  \
    DO(LOG2, log2_double(x), 1 / (x * LN_2))                                                                           \
    DO(LOG10, log10_double(x), 1 / (x * (1 / ONE_OVER_LN_10)))                                                         \
    DO(LOG1P, log1p_double(x), 1 / (1 + x))                                                                            \
    DO(CBRT, cbrt_double(x), 1 / (3 * v * v))                                                                          \
    DO(SIN, sin_double(x), cos_double(x))                                                                              \
    DO(COS, cos_double(x), -sin_double(x))                                                                             \
    DO(TAN, tan_double(x), 1 + v * v)                                                                                  \
    DO(ASIN, asin_double(x), 1 / sqrt_double((1 - x) * (1 + x)))                                                       \
    DO(ACOS, acos_double(x), -1 / sqrt_double((1 - x) * (1 + x)))                                                      \
    DO(ATAN, atan_double(x), 1 / (1 + x * x))                                                                          \
    DO(SINH, sinh_double(x), cosh_double(x))                                                                           \
    DO(COSH, cosh_double(x), sinh_double(x))                                                                           \
    DO(ASINH, asinh_double(x), 1 / SELECT(OF(magnitude)(x) < 1e150, sqrt_double(x * x + 1), OF(magnitude)(x)))         \
    DO(ACOSH, acosh_double(x), 1 / (sqrt_double(x - 1) * sqrt_double(x + 1)))                                          \
    DO(ATANH, atanh_double(x), 1 / ((1 - x) * (1 + x)))                                                                \
    DO(ERF, erf_double(x), TWO_OVER_SQRT_PI * bell_double(x, 1))                                                       \
    DO(ERFC, erfc_double(x), -(TWO_OVER_SQRT_PI * bell_double(x, 1)))                                                  \
    DO(NDTR, ndtr_double(x), ONE_OVER_SQRT_2PI * bell_double(x, 0.5))                                                  \
    DO(SOFTPLUS, softplus_double(x), sigmoid_double(x))                                                                \
    DO(SILU, silu_double(x), silu_partial_double(x))                                                                   \
    DO(GELU, gelu_double(x), gelu_partial_double(x, v))

/* Functions of their own: in one switch they would take each other's registers. */
#define PARTS(i, n) for (ptrdiff_t i = 0, some = VW; i < (n) && (some = (n) - i < VW ? (n) - i : VW, 1); i += VW)
#define PART_OF(p, fill) (some == VW ? LOAD((p) + i) : load_some_double((p) + i, (int)some, fill))
#define PUT_PART(p, v)                                                                                                 \
    do {                                                                                                               \
        if (some == VW)                                                                                                \
            STORE((p) + i, v);                                                                                         \
        else                                                                                                           \
            store_some_double((p) + i, (int)some, v);                                                                  \
    } while (0)
#define BODIES(name, value, partial)                                                                                   \
    static __attribute__((noinline)) void value_##name(double *out, const double *a, ptrdiff_t n)                      \
    {                                                                                                                  \
        PARTS(i, n)                                                                                                    \
        {                                                                                                              \
            const vec x = PART_OF(a, 0.75);                                                                            \
            PUT_PART(out, value);                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static __attribute__((noinline)) void partial_##name(double *to, const double *a, const double *v_, const double *g, \
                                                       ptrdiff_t n)                                                    \
    {                                                                                                                  \
        PARTS(i, n)                                                                                                    \
        {                                                                                                              \
            const vec x = PART_OF(a, 0.75), v = PART_OF(v_, 0.75);                                                     \
            (void)x, (void)v;                                                                                                 \
            PUT_PART(to, PART_OF(to, 0) + PART_OF(g, 0) * (partial));                                                  \
        }                                                                                                              \
    }
FUNCTIONS(BODIES)
#undef BODIES

/* Of two numbers: the value, and the partials by the first and by the second. */
#define FUNCTIONS_OF_TWO(DO)                                                                                           \
    DO(POW, pow_double(x, y), pow_partial_double(x, y, v),                                                             \
       SELECT(x > 0, v * log_double(x), SELECT((x == 0) & (y >= 0), ZERO, ZERO + NAN)))                                \
    DO(ATAN2, atan2_double(x, y), atan2_partial_double(x, y), -atan2_partial_double(y, x))                             \
    DO(HYPOT, hypot_double(x, y), hypot_partial_double(x, y, v, 1), hypot_partial_double(y, x, v, 0))

#define BODIES(name, value, left, right)                                                                               \
    static __attribute__((noinline)) void value_##name(double *out, const double *a, const double *b, ptrdiff_t n)     \
    {                                                                                                                  \
        PARTS(i, n)                                                                                                    \
        {                                                                                                              \
            const vec x = PART_OF(a, 0.75), y = PART_OF(b, 0.75);                                                      \
            PUT_PART(out, value);                                                                                      \
        }                                                                                                              \
    }                                                                                                                  \
    static __attribute__((noinline)) void partial_##name(int by_right, double *to, const double *a, const double *b,   \
                                                       const double *v_, const double *g, ptrdiff_t n)                 \
    {                                                                                                                  \
        PARTS(i, n)                                                                                                    \
        {                                                                                                              \
            const vec x = PART_OF(a, 0.75), y = PART_OF(b, 0.75), v = PART_OF(v_, 0.75);                               \
            (void)v;                                                                                                   \
            PUT_PART(to, PART_OF(to, 0) + PART_OF(g, 0) * (by_right ? (right) : (left)));                              \
        }                                                                                                              \
    }
FUNCTIONS_OF_TWO(BODIES)
#undef BODIES
#undef PARTS
#undef PART_OF
#undef PUT_PART
#undef SERIES
#undef LOG_PARTS
#undef FAR
#undef LN2_HIGH
#undef LN2_LOW
#undef ROUND
#undef uvec
