/* Trains and applies small stacks in the ways that the library knows.
 *
 * With the argument "all" it takes every one, for the sanitizers to watch; else each fifth, in which
 * any two of stack, batch, optimizer, tying, shortcut, mask, targets and threads still meet in all of
 * their values. What comes out is compared with one thread's bits only: the numbers themselves are the
 * Python tests' matter. Ends with status 1 where bits differ.
 */

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "native.h"

enum { MOST = 4, ROWS = 90 };

static unsigned state = 1;
static float drawn(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 24) - 0.5f;
}

static float *numbers(long n, float scale) {
    float *made = malloc((size_t)(n ? n : 1) * sizeof(float));
    for (long i = 0; i < n; i++)
        made[i] = scale * drawn();
    return made;
}

static twofold_parameter parameter(long n, int n_moments) {
    return (twofold_parameter){numbers(n, 0.3f), n_moments > 0 ? numbers(n, 0) : NULL,
                               n_moments > 1 ? numbers(n, 0) : NULL};
}

static void release(twofold_parameter it) {
    free(it.data);
    free(it.first);
    free(it.second);
}

/* One way to train: returns the codes of the trained stack. */
static float *codes(const long *widths, long n_pairs, int tied, int linear, int kind, double momentum,
                    int masked, int apart, int clips, long batch, long n_threads, long isa) {
    state = 7;
    int n_moments = kind != TWOFOLD_SGD ? 2 : momentum > 0 ? 1 : 0;
    twofold_pair pairs[MOST];
    for (long i = 0; i < n_pairs; i++) {
        long n_in = widths[i], n_out = widths[i + 1];
        pairs[i] = (twofold_pair){
            .n_in = n_in,
            .n_out = n_out,
            .encoder_activation = (i + kind + tied * 5) % 10,
            .decoder_activation = i ? (i + kind + tied * 5 + 3) % 10 : TWOFOLD_IDENTITY,
            .weight = parameter(n_in * n_out, n_moments),
            .encoder_bias = parameter(n_out, n_moments),
            .decoder_bias = parameter(n_in, n_moments),
        };
        if (!tied)
            pairs[i].decoder_weight = parameter(n_in * n_out, n_moments);
    }
    long width = widths[0];
    twofold_pair shortcut = {.n_in = width, .n_out = widths[n_pairs]};
    twofold_parameter gates[2] = {{NULL, NULL, NULL}, {NULL, NULL, NULL}};
    if (linear) {
        shortcut.weight = parameter(width * shortcut.n_out, n_moments);
        shortcut.encoder_bias = parameter(shortcut.n_out, n_moments);
        shortcut.decoder_bias = parameter(width, n_moments);
        if (!tied)
            shortcut.decoder_weight = parameter(width * shortcut.n_out, n_moments);
        gates[0] = parameter(1, n_moments);
        gates[1] = parameter(1, n_moments);
    }
    float *x = numbers(ROWS * width, 1), *y = numbers(ROWS * width, 1);
    for (long i = 0; i < ROWS * width; i++) /* with blank corners, some rows and inputs high */
        if ((i / width / 20 + i % width / 9) % 3 == 0)
            x[i] = 0;
    if (masked)
        for (long i = 0; i < ROWS * width; i += 7)
            x[i] = y[i] = NAN;
    int32_t *likelihood = malloc((size_t)width * sizeof(int32_t));
    float *scale = numbers(width, 0), *offset = numbers(width, 0), *counts = numbers(width, 0);
    float *unit = numbers(width, 0), *center = numbers(width, 0), *spread = numbers(width, 0);
    for (long i = 0; i < width; i++) {
        int joint = i / 5 % 2 ? TWOFOLD_HISTOGRAM : TWOFOLD_CATEGORICAL; /* of two inputs each */
        int single[] = {TWOFOLD_GAUSSIAN, TWOFOLD_BERNOULLI, TWOFOLD_STUDENT_T, TWOFOLD_POISSON,
                        TWOFOLD_NEGATIVE_BINOMIAL};
        likelihood[i] = i % 5 >= 3 ? joint : single[i % 7 % 5];
        scale[i] = likelihood[i] ? 1.0f : 1.5f;
        counts[i] = i % 5 != 4;
        unit[i] = likelihood[i] == TWOFOLD_CATEGORICAL ? 1.0f : 0.4f;
        center[i] = likelihood[i] == TWOFOLD_CATEGORICAL ? 0.0f : 0.5f;
        spread[i] = likelihood[i] == TWOFOLD_CATEGORICAL ? 0.0f : 1.5f + (float)(i % 5);
    }
    enum { N_STEPS = 3 };
    int64_t sizes[N_STEPS] = {batch, batch, batch / 2 + 1};
    double rates[N_STEPS] = {0.01, 0.02, 0.01}, losses[N_STEPS];
    int64_t rows[3 * ROWS];
    for (int i = 0; i < 3 * ROWS; i++)
        rows[i] = (i / 20 * 20 + i * 37 % 20) % ROWS;
    twofold_stack stack = {n_pairs,  pairs,     linear ? &shortcut : NULL, gates[0],
                           gates[1], n_threads, isa};
    /* The logarithms of shares may be any numbers: those of the offsets are zeros. */
    twofold_objective objective = {likelihood, scale, offset, counts, center, unit, spread, offset};
    twofold_update update = {kind, momentum > 0.5, clips, momentum, 0.01, 0};
    twofold_batches batches = {N_STEPS, width, masked, x, apart ? y : NULL,
                               rows,    sizes, rates,  losses};
    void *scratch = calloc(1, (size_t)twofold_train_bytes(&stack, &update, batch + 1));
    twofold_train(&stack, &objective, &update, &batches, scratch);
    free(scratch);
    for (long i = 0; i < ROWS * width; i++)
        x[i] = isnan(x[i]) ? 0 : x[i];
    float *code = malloc((size_t)(ROWS * widths[n_pairs]) * sizeof(float));
    float *theta = malloc((size_t)(ROWS * width) * sizeof(float));
    scratch = malloc((size_t)twofold_apply_bytes(&stack));
    twofold_apply(&stack, ROWS, x, code, theta, scratch);
    twofold_apply(&stack, ROWS, NULL, code, y, scratch);
    if (memcmp(theta, y, (size_t)(ROWS * width) * sizeof(float)))
        code[0] = NAN;
    free(scratch);
    free(theta);
    free(x);
    free(y);
    free(likelihood);
    free(scale);
    free(offset);
    free(counts);
    free(unit);
    free(center);
    free(spread);
    for (long i = 0; i < n_pairs; i++) {
        release(pairs[i].weight);
        release(pairs[i].decoder_weight);
        release(pairs[i].encoder_bias);
        release(pairs[i].decoder_bias);
    }
    release(shortcut.weight);
    release(shortcut.decoder_weight);
    release(shortcut.encoder_bias);
    release(shortcut.decoder_bias);
    release(gates[0]);
    release(gates[1]);
    return code;
}

int main(int n_given, char **given) {
    int each = n_given > 1 && !strcmp(given[1], "all") ? 1 : 5;
    static const long stacks[][5] = {{1, 1, 1, 0, 0}, {5, 3, 2, 0, 0}, {33, 17, 40, 9, 0},
                                     {70, 53, 6, 0, 0}};
    static const long n_pairs[] = {2, 2, 3, 2}, batches[] = {1, 7, 32, 80}, threads[] = {2, 3, 16};
    long n_ways = 0;
    for (long isa = 0; twofold_isa_name(isa); isa++) {
        if (!twofold_isa_available(isa))
            continue;
        for (int way = 0; way < 4 * 4 * 4 * 2 * 2; way += each, n_ways++) {
            int s = way % 4, b = way / 4 % 4, kind = way / 16 % 4, tied = way / 64 % 2, linear = way / 128;
            double momentum = kind == 3 ? 0.9 : 0;
            int optimizer = kind % 3, masked = (s + b) % 2, apart = (s + b + kind) % 3 == 0;
            int clips = (s + kind + tied) % 2;
            float *one = codes(stacks[s], n_pairs[s], tied, linear, optimizer, momentum, masked,
                               apart, clips, batches[b], 1, isa);
            long n_bytes = ROWS * stacks[s][n_pairs[s]] * (long)sizeof(float);
            float *more = codes(stacks[s], n_pairs[s], tied, linear, optimizer, momentum, masked,
                                apart, clips, batches[b], threads[n_ways % 3], isa);
            if (isnan(one[0]) || memcmp(one, more, (size_t)n_bytes)) {
                fprintf(stderr, "%s: way %d differs\n", twofold_isa_name(isa), way);
                return 1;
            }
            free(one);
            free(more);
        }
    }
    printf("%ld ways to train gave the same bits with one thread and with several\n", n_ways);
    return 0;
}
