/* What cells of a number each cost, beyond Gaussian and Bernoulli ones: the loss and its derivative by
 * theta, as in `likelihoods.py`.
 */

#ifndef TWOFOLD_LIKELIHOOD_H
#define TWOFOLD_LIKELIHOOD_H

#include "native.h"
#include "vectors.h"

static const float FREEDOM = 4.0f;         /* degrees, of Student's t */
static const float LARGEST_LOG_RATE = 20.0f;
static const float LARGE_DISPERSION = 10.0f; /* from here on Stirling's series */

/* Inputs [f0, f1) of one column are modelled together. */
static int is_joint(int32_t likelihood) {
    return likelihood == TWOFOLD_CATEGORICAL || likelihood == TWOFOLD_HISTOGRAM;
}

/* log Gamma(z) for z > 0: Stirling's series (Abramowitz and Stegun, 1964, 6.1.41), and below 9 the
 * recurrence to [2, 3), where a polynomial is fitted to a relative 2e-9.
 */
static vec log_gamma(vec z) {
    vec large = choose(z >= 9.0f, z, splat(9.0f)), q = 1.0f / large;
    vec stirling = (large - 0.5f) * logarithm(large) - large + 0.918938533f +
                   q * (8.33333333e-2f - q * q * 2.77777778e-3f);
    vec over = splat(1.0f), under = splat(1.0f), x = choose(z >= 9.0f, splat(2.0f), z);
    for (int i = 0; i < 6; i++) {
        ivec above = x >= 3.0f;
        x = choose(above, x - 1.0f, x);
        over = choose(above, over * x, over);
    }
    for (int i = 0; i < 2; i++) {
        ivec below = x < 2.0f;
        under = choose(below, under * x, under);
        x = choose(below, x + 1.0f, x);
    }
    vec t = x - 2.0f, y = splat(1.18420833e-4f);
    y = y * t - 7.49018985e-4f;
    y = y * t + 2.58343234e-3f;
    y = y * t - 7.25995642e-3f;
    y = y * t + 2.05521297e-2f;
    y = y * t - 6.73490553e-2f;
    y = y * t + 3.22466894e-1f;
    y = y * t + 4.22784336e-1f;
    return choose(z >= 9.0f, stirling, y * t + logarithm(over / under));
}

/* log Gamma(r + count) - log Gamma(r), whose terms lose their digits where r is large. */
static vec log_rising(float r, vec count) {
    if (r <= LARGE_DISPERSION)
        return log_gamma(count + r) - log_gamma(splat(r));
    vec sum = count + r, q = 1.0f / sum;
    float p = 1.0f / r;
    vec rest = (q - p) * 8.33333333e-2f - (q * q * q - p * p * p) * 2.77777778e-3f;
    return count * (logarithm(sum) - 1.0f) + (r - 0.5f) * log1p_of(count * p) + rest;
}

/* The loss of cells whose theta is their mean or the logarithm of their rate. An input times its
 * unit, plus its centre, is the logarithm of a count.
 */
static __attribute__((noinline)) vec number_loss(int kind, vec theta, vec x, float center,
                                                 float unit, float spread, vec *derivative) {
    if (kind == TWOFOLD_STUDENT_T) {
        vec gap = theta - x, squares = gap * gap;
        float variance = FREEDOM * spread * spread;
        *derivative = (FREEDOM + 1) * gap / (squares + variance);
        return 0.5f * (FREEDOM + 1) * log1p_of(squares / variance);
    }
    vec log_count = x * unit + center, log_rate = theta * unit + center;
    ivec inside = ~(ivec)(log_rate > LARGEST_LOG_RATE);
    vec rate = exponential(choose(inside, log_rate, splat(LARGEST_LOG_RATE)));
    vec count = expm1_of(choose(log_count <= 0.0f, (vec){0}, log_count));
    vec below = expm1_of(choose(log_count <= 0.0f, -log_count, (vec){0}));
    vec loss = log_gamma(count + 1.0f) + below, slope = unit * (rate - count);
    if (kind == TWOFOLD_POISSON) {
        log_rate = choose(inside, log_rate, splat(LARGEST_LOG_RATE));
        loss += rate - count * log_rate;
    } else {
        vec share = rate / (rate + spread);
        share = choose(share < 1e-30f, splat(1e-30f), share);
        loss += spread * log1p_of(rate / spread) - count * logarithm(share) - log_rising(spread, count);
        slope *= spread / (rate + spread);
    }
    *derivative = where(inside, slope);
    return loss;
}

#endif
