/* The activations, in place over a tile of `mr` outputs and `nv` vectors, and their derivatives.
 *
 * Where the derivative does not follow from the output, as for what falls somewhere, it is made along
 * with the output, which shares its exponentials, and kept.
 */

#ifndef TWOFOLD_ACTIVATION_H
#define TWOFOLD_ACTIVATION_H

#include "native.h"
#include "vectors.h"

static const float SELU_SCALE = 1.0507009873554805f, SELU_ALPHA = 1.6732632423543772f;

ALWAYS_INLINE int keeps_slope(const int kind) { return kind >= TWOFOLD_GELU; }

/* The output, and in `slope` the derivative where that is kept. */
ALWAYS_INLINE vec activate(const int kind, vec a, vec *slope) {
    vec e;
    switch (kind) {
    case TWOFOLD_RELU:
        return (vec)((ivec)a & ~(ivec)(a <= 0.0f)); /* NaN stays */
    case TWOFOLD_LEAKY_RELU:
        return choose(a <= 0.0f, a * 0.01f, a);
    case TWOFOLD_ELU:
        return choose(a <= 0.0f, expm1_of(a), a);
    case TWOFOLD_SELU:
        return choose(a <= 0.0f, expm1_of(a) * (SELU_SCALE * SELU_ALPHA), a * SELU_SCALE);
    case TWOFOLD_TANH: {
        vec m = expm1_of(-2.0f * absolute(a));
        vec t = m / (m + 2.0f); /* -tanh |a| */
        return choose(a <= 0.0f, t, -t);
    }
    case TWOFOLD_SIGMOID:
        return logistic(a, &e);
    case TWOFOLD_GELU: {
        vec density, below = normal_below(a, &density);
        *slope = below + a * density;
        return a * below;
    }
    case TWOFOLD_SILU: {
        vec q = logistic(a, &e);
        *slope = q * (1.0f + a * (1.0f - q));
        return a * q;
    }
    case TWOFOLD_SOFTPLUS: {
        *slope = logistic(a, &e);
        return choose(a <= 0.0f, (vec){0}, a) + log1p_of(e);
    }
    default:
        return a;
    }
}

/* The derivative from the output h, or as it is kept. */
ALWAYS_INLINE vec slope(const int kind, vec delta, vec h) {
    switch (kind) {
    case TWOFOLD_RELU:
        return (vec)((ivec)delta & ~(ivec)(h <= 0.0f));
    case TWOFOLD_LEAKY_RELU:
        return choose(h <= 0.0f, delta * 0.01f, delta);
    case TWOFOLD_ELU:
        return choose(h <= 0.0f, delta * (h + 1.0f), delta);
    case TWOFOLD_SELU:
        return delta * choose(h <= 0.0f, h + SELU_SCALE * SELU_ALPHA, splat(SELU_SCALE));
    case TWOFOLD_TANH:
        return delta * (1.0f - h * h);
    case TWOFOLD_SIGMOID:
        return delta * (h * (1.0f - h));
    case TWOFOLD_GELU:
    case TWOFOLD_SILU:
    case TWOFOLD_SOFTPLUS:
        return delta * h;
    default:
        return delta;
    }
}

ALWAYS_INLINE void activate_rows(const int kind, float *c, const float *bias, float *slopes,
                                 long mr, long nv) {
    for (long r = 0; r < mr; r++)
        for (long v = 0; v < nv; v++) {
            long j = r * PW + v * VL;
            vec slope = {0};
            store(c + j, activate(kind, load(c + j) + splat(bias[r]), &slope));
            if (keeps_slope(kind) && slopes)
                store(slopes + j, slope);
        }
}

ALWAYS_INLINE void slope_rows(const int kind, float *c, const float *h, long mr, long nv) {
    for (long r = 0; r < mr; r++)
        for (long v = 0; v < nv; v++) {
            float *at = c + r * PW + v * VL;
            store(at, slope(kind, load(at), load(h + r * PW + v * VL)));
        }
}

#define EACH_ACTIVATION(DO)                                                                      \
    switch (kind) {                                                                              \
    case TWOFOLD_RELU: DO(TWOFOLD_RELU); break;                                                  \
    case TWOFOLD_LEAKY_RELU: DO(TWOFOLD_LEAKY_RELU); break;                                      \
    case TWOFOLD_ELU: DO(TWOFOLD_ELU); break;                                                    \
    case TWOFOLD_SELU: DO(TWOFOLD_SELU); break;                                                  \
    case TWOFOLD_TANH: DO(TWOFOLD_TANH); break;                                                  \
    case TWOFOLD_SIGMOID: DO(TWOFOLD_SIGMOID); break;                                            \
    case TWOFOLD_GELU: DO(TWOFOLD_GELU); break;                                                  \
    case TWOFOLD_SILU: DO(TWOFOLD_SILU); break;                                                  \
    case TWOFOLD_SOFTPLUS: DO(TWOFOLD_SOFTPLUS); break;                                          \
    default: DO(TWOFOLD_IDENTITY);                                                               \
    }

/* `slopes` is where kept derivatives go, or NULL. */
static __attribute__((noinline)) void finish_forward(int kind, float *c, const float *bias,
                                                     float *slopes, long mr, long nv) {
#define FORWARD(K) activate_rows(K, c, bias, slopes, mr, nv)
    EACH_ACTIVATION(FORWARD)
}

static __attribute__((noinline)) void finish_backward(int kind, float *c, const float *h, long mr,
                                                      long nv) {
#define BACKWARD(K) slope_rows(K, c, h, mr, nv)
    EACH_ACTIVATION(BACKWARD)
}

#endif
