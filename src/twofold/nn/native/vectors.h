/* Vectors of the instruction set that this is compiled for, and functions of them.
 *
 * exp, expm1 and log are Moshier's (Cephes Mathematical Library, 1992: expf.c, logf.c): reduced by
 * powers of two, then a polynomial. They are right to about one unit in the last place, and pass NaN
 * on, so that a run that diverges is noticed.
 */

#ifndef TWOFOLD_VECTORS_H
#define TWOFOLD_VECTORS_H

#include <stdint.h>
#include <string.h>

/* VL: numbers per vector. MR: outputs per tile, so that MR x 2 sums, two operands and one factor fit
 * into the registers: 32 of them with AVX-512 and on ARM, else 16.
 */
#if defined(__AVX512F__)
#define VL 16
#define MR 12
#define ISA avx512
#elif defined(__AVX2__)
#define VL 8
#define MR 6
#define ISA avx2
#elif defined(__aarch64__)
#define VL 4
#define MR 12
#define ISA neon
#else
#define VL 4
#define MR 6
#define ISA baseline
#endif

#define PW (2 * VL) /* rows per panel, and columns per strip */

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

typedef float vec __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef float vec8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t ivec8 __attribute__((vector_size(32)));

ALWAYS_INLINE vec splat(float value) { return value - (vec){0}; }
ALWAYS_INLINE vec load(const float *at) { return *(const vec *)at; }
ALWAYS_INLINE void store(float *at, vec value) { *(vec *)at = value; }

/* `yes` where the mask is all ones, `no` where it is all zeros. */
ALWAYS_INLINE vec choose(ivec mask, vec yes, vec no) {
    return (vec)((mask & (ivec)yes) | (~mask & (ivec)no));
}
ALWAYS_INLINE vec where(ivec mask, vec yes) { return (vec)(mask & (ivec)yes); }
ALWAYS_INLINE vec absolute(vec x) { return (vec)((ivec)x & 0x7fffffff); }

/* Whether a mask has a one. */
ALWAYS_INLINE int any(ivec mask) {
    int32_t found = 0;
    UNROLL for (int i = 0; i < VL; i++) found |= mask[i];
    return found != 0;
}

ALWAYS_INLINE float total(vec x) {
    float sum = 0;
    UNROLL for (int i = 0; i < VL; i++) sum += x[i];
    return sum;
}

/* x = n log 2 + r with |r| <= log 2 / 2: returns e^r - 1, and 2^n in `power`. */
ALWAYS_INLINE vec reduced_expm1(vec x, vec *power) {
    const vec magic = splat(12582912.0f); /* 1.5 * 2^23: what is added to it loses its fraction */
    x = choose(x > 88.0f, splat(88.0f), x);
    x = choose(x < -87.0f, splat(-87.0f), x);
    vec shifted = x * 1.44269504f + magic;
    vec n = shifted - magic;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    *power = (vec)(((ivec)shifted - 0x4b400000 + 127) << 23);
    return y * (r * r) + r;
}

ALWAYS_INLINE vec exponential(vec x) {
    vec power, m = reduced_expm1(x, &power);
    return m * power + power;
}

ALWAYS_INLINE vec expm1_of(vec x) {
    vec power, m = reduced_expm1(x, &power);
    return m * power + (power - 1.0f);
}

/* The natural logarithm of positive normal numbers. */
ALWAYS_INLINE vec logarithm(vec x) {
    ivec bits = (ivec)x - 0x3f3504f3; /* sqrt(1/2) */
    ivec e = bits >> 23;
    vec m = (vec)((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    vec n = __builtin_convertvector(e, vec);
    vec z = m * m, y = splat(7.0376836292e-2f);
    y = y * m - 1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m - 1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m - 1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m - 2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * z - n * 2.12194440e-4f - 0.5f * z;
    return m + y + n * 0.693359375f;
}

/* 1 / (1 + e^-x), and e^-|x| in `e`; neither loses digits on either side. */
ALWAYS_INLINE vec logistic(vec x, vec *e) {
    vec t = exponential(-absolute(x));
    *e = t;
    vec q = 1.0f / (1.0f + t);
    return choose(x >= 0.0f, q, t * q);
}

/* log(1 + x) for x >= 0: what the sum rounds off is made good (Kahan, in Goldberg, 1991, "What Every
 * Computer Scientist Should Know About Floating-Point Arithmetic", theorem 4).
 */
ALWAYS_INLINE vec log1p_of(vec x) {
    vec more = x + 1.0f, kept = more - 1.0f;
    return choose(kept == 0.0f, x, logarithm(more) * (x / kept));
}

/* The standard normal distribution: what lies below x, and its density there.
 *
 * The tail beyond |x| is the density times Mills' ratio, a polynomial in 1 / (1 + 0.34 |x|) as in
 * Abramowitz and Stegun, 1964, 26.2.17, fitted to a relative 3e-8.
 */
ALWAYS_INLINE vec normal_below(vec x, vec *density) {
    vec d = exponential(-0.5f * x * x) * 0.398942280f, t = 1.0f / (1.0f + 0.34f * absolute(x));
    vec y = splat(-6.54733888e-2f);
    y = y * t + 3.49668826e-1f;
    y = y * t - 6.84632923e-1f;
    y = y * t + 5.06786274e-1f;
    y = y * t - 1.12085426e-1f;
    y = y * t + 2.89159606e-1f;
    y = y * t + 2.88758429e-1f;
    y = y * t + 3.41182585e-1f;
    y = y * t + 3.39950194e-1f;
    vec tail = d * y * t;
    *density = d;
    return choose(x <= 0.0f, tail, 1.0f - tail);
}

#if defined(__clang__) || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (ivec8){__VA_ARGS__})
#endif

ALWAYS_INLINE void transpose8(const float *from, long step, float *to, long to_step) {
    vec8 a[8], b[8];
    UNROLL for (int i = 0; i < 8; i++) a[i] = *(const vec8 *)(from + i * step);
    UNROLL for (int i = 0; i < 8; i += 2) {
        b[i] = SHUFFLE(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        b[i + 1] = SHUFFLE(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (int i = 0; i < 8; i += 4) {
        a[i] = SHUFFLE(b[i], b[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        a[i + 1] = SHUFFLE(b[i], b[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        a[i + 2] = SHUFFLE(b[i + 1], b[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        a[i + 3] = SHUFFLE(b[i + 1], b[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        b[i] = SHUFFLE(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        b[i + 4] = SHUFFLE(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    UNROLL for (int i = 0; i < 8; i++) *(vec8 *)(to + i * to_step) = b[i];
}

/* (n_rows, n_columns) -> (n_columns, n_rows) */
static void transpose(const float *from, long step, long n_rows, long n_columns, float *to,
                      long to_step) {
    long rows = n_rows & ~7L, columns = n_columns & ~7L;
    for (long j = 0; j < columns; j += 8)
        for (long i = 0; i < rows; i += 8)
            transpose8(from + i * step + j, step, to + j * to_step + i, to_step);
    for (long j = 0; j < n_columns; j++)
        for (long i = j < columns ? rows : 0; i < n_rows; i++)
            to[j * to_step + i] = from[i * step + j];
}

#endif
