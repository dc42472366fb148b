/* How fast this processor multiplies: in registers, and in the microkernel. */

#ifndef TWOFOLD_SPEED_H
#define TWOFOLD_SPEED_H

#include <time.h>

#include "kernel.h"

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static __attribute__((noinline)) float spin_in_registers(long n, float start) {
    vec s[12], a = splat(start), b = splat(1.0f - start);
    UNROLL for (int i = 0; i < 12; i++) s[i] = splat(start * (float)(i + 1));
    for (long k = 0; k < n; k++) {
        UNROLL for (int i = 0; i < 12; i++) s[i] = s[i] * b + a;
    }
    vec sum = s[0];
    UNROLL for (int i = 1; i < 12; i++) sum += s[i];
    return total(sum);
}

/* The best of many stretches within `seconds`, in GFLOP/s. */
static double peak(double seconds) {
    static volatile float sink;
    double end = seconds_now() + seconds, best = 0;
    const long n = 20000;
    do {
        double start = seconds_now();
        sink = spin_in_registers(n, 1e-3f);
        double speed = 2.0 * 12 * VL * (double)n / (seconds_now() - start) / 1e9;
        best = speed > best ? speed : best;
    } while (seconds_now() < end);
    (void)sink;
    return best;
}

static double kernel_speed(int64_t n_outputs, int64_t n_inner, double seconds) {
    enum { MOST = 16384 };
    static _Thread_local _Alignas(64) float w[MOST], x[MOST], c[MR * PW];
    if (n_outputs > MR)
        n_outputs = MR;
    if (n_inner * PW > MOST)
        n_inner = MOST / PW;
    for (int i = 0; i < MOST; i++)
        w[i] = x[i] = 1.0f / (float)(i + 1);
    double end = seconds_now() + seconds, best = 0;
    do {
        double start = seconds_now();
        for (int i = 0; i < 20; i++)
            encode_tiles[n_outputs - 1][1](w, n_inner, NULL, x, n_inner, c, 0);
        double flop = 20.0 * 2 * PW * (double)(n_outputs * n_inner);
        double speed = flop / (seconds_now() - start) / 1e9;
        best = speed > best ? speed : best;
    } while (seconds_now() < end);
    return best;
}

#endif
