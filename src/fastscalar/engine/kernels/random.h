/* Random numbers by counter: each is a function of what it is for, and nothing is kept between two of them.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).  The key is made of
 * seed, epoch, call site and the loops around it; the counter is the row of the data set and the occurrence in the row.
 * A block of the generator has two numbers, so that occurrences 2k and 2k + 1 share one.
 *
 * It is compiled once (engine/_random), whatever the kernel set, so that all sets give the same bits.
 */
#ifndef FASTSCALAR_RANDOM_H
#define FASTSCALAR_RANDOM_H

#include <math.h>
#include <stdint.h>

enum { FS_UNIFORM, FS_NORMAL, FS_BERNOULLI };

static inline void fs_philox(uint32_t c[4], uint64_t key)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53u * c[0], q = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t c0 = (uint32_t)(q >> 32) ^ c[1] ^ k0, c2 = (uint32_t)(p >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)q;
        c[3] = (uint32_t)p;
        c[0] = c0;
        c[2] = c2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static inline void fs_philox_block(uint64_t out[2], uint64_t key, uint64_t low, uint64_t high)
{
    uint32_t c[4] = {(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high, (uint32_t)(high >> 32)};
    fs_philox(c, key);
    out[0] = c[0] | (uint64_t)c[1] << 32;
    out[1] = c[2] | (uint64_t)c[3] << 32;
}

/* What four numbers have for a key: all 256 bits of them count. */
static inline uint64_t fs_random_key(uint64_t seed, uint64_t epoch, uint64_t site, uint64_t scope)
{
    uint64_t c[2], d[2];
    fs_philox_block(c, seed, site, scope);
    fs_philox_block(d, epoch, c[0], c[1]);
    return d[0];
}

/* Above 0 and below 1, both by at least 2^-53, in steps of 2^-52: 1 - u is exact, and one of them too. */
static inline double fs_unit(uint64_t bits)
{
    return ((double)(bits >> 12) + 0.5) * 0x1p-52;
}

static inline double fs_ratio(const double *p, const double *q, double r)
{
    double a = p[7], b = q[6];
    for (int k = 6; k >= 0; k--) {
        a = a * r + p[k];
        b = b * r + (k ? q[k - 1] : 1.0);
    }
    return a / b;
}

/* The inverse of the normal distribution's cumulative function: Wichura, "Algorithm AS 241", Applied Statistics 37
 * (1988), about 1 part in 10^16.  Odd about 1/2 to the bit. */
static inline double fs_normal_quantile(double u)
{
    static const double A[8] = {3.3871328727963666080e0, 1.3314166789178437745e+2, 1.9715909503065514427e+3,
                                1.3731693765509461125e+4, 4.5921953931549871457e+4, 6.7265770927008700853e+4,
                                3.3430575583588128105e+4, 2.5090809287301226727e+3};
    static const double B[7] = {4.2313330701600911252e+1, 6.8718700749205790830e+2, 5.3941960214247511077e+3,
                                2.1213794301586595867e+4, 3.9307895800092710610e+4, 2.8729085735721942674e+4,
                                5.2264952788528545610e+3};
    static const double C[8] = {1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
                                3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
                                2.27238449892691845833e-2, 7.74545014278341407640e-4};
    static const double D[7] = {2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
                                1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
                                1.05075007164441684324e-9};
    static const double E[8] = {6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
                                2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                2.71155556874348757815e-5, 2.01033439929228813265e-7};
    static const double F[7] = {5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
                                7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
                                2.04426310338993978564e-15};
    double q = u - 0.5, r, z;
    if (fabs(q) <= 0.425)
        return q * fs_ratio(A, B, 0.180625 - q * q);
    r = sqrt(-log(q < 0.0 ? u : 1.0 - u));
    z = r <= 5.0 ? fs_ratio(C, D, r - 1.6) : fs_ratio(E, F, r - 5.0);
    return q < 0.0 ? -z : z;
}

/* n numbers, from `first` on.  antithetic: rows 2k and 2k + 1 have the same one, mirrored: u and 1 - u, z and -z. */
static inline void fs_random_numbers(double *out, int n, int kind, double p, uint64_t key, int64_t row, uint64_t first,
                                     int antithetic)
{
    uint64_t block[2], low = (uint64_t)(antithetic ? row & ~(int64_t)1 : row);
    for (int k = 0; k < n; k++) {
        uint64_t occurrence = first + (uint64_t)k;
        if (k == 0 || !(occurrence & 1))
            fs_philox_block(block, key, low, occurrence >> 1);
        double u = fs_unit(block[occurrence & 1]);
        if (antithetic && row & 1)
            u = 1.0 - u;
        out[k] = kind == FS_UNIFORM ? u : kind == FS_NORMAL ? fs_normal_quantile(u) : u < p ? 1.0 : 0.0;
    }
}

#endif
