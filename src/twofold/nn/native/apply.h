/* Applying a stack: rows in, codes and the likelihoods' parameters out, some panels at a time. */

#ifndef TWOFOLD_APPLY_H
#define TWOFOLD_APPLY_H

#include "phase.h"

typedef struct {
    const twofold_stack *stack;
    const float *x;
    float *code, *theta, *scratch;
    long n_rows, n_groups, room;
    atomic_long next;
} application;

enum { GROUP_ROWS = GROUP * PW, N_BUFFERS = 4 };

static long widest(const twofold_stack *stack) {
    long most = 0;
    for (long i = 0; i < stack->n_pairs; i++) {
        most = stack->pairs[i].n_in > most ? stack->pairs[i].n_in : most;
        most = stack->pairs[i].n_out > most ? stack->pairs[i].n_out : most;
    }
    return most;
}

/* Numbers of scratch memory for each thread, in whole lines of the cache: panels, and the lists of
 * what is not zero in them.
 */
static long room_of_thread(const twofold_stack *stack) {
    return (N_BUFFERS * PW * GROUP * widest(stack) + GROUP * widest(stack) + 15) & ~15L;
}

static void write_rows(const float *panels, long n, long n_rows, long row, float *to) {
    for (long p = 0; p * PW < n_rows; p++)
        transpose(panels + p * n * PW, PW, n, least(PW, n_rows - p * PW), to + (row + p * PW) * n,
                  n);
}

/* Panels of one group of rows, as the products of a stack need them. */
typedef struct {
    share me;
    run at;
    float *in, *out, *x, *code;
} group;

static void encode_group(group *it, const twofold_stack *stack) {
    if (stack->shortcut)
        memcpy(it->x, it->in, (size_t)(it->at.n_panels * stack->pairs[0].n_in * PW) * sizeof(float));
    for (long i = 0; i <= stack->n_pairs; i++) {
        int linear = i == stack->n_pairs;
        const twofold_pair *pair = linear ? stack->shortcut : &stack->pairs[i];
        if (!pair)
            return;
        product encode = {
            .tiles = encode_tiles,
            .kept = linear || i == 0 ? &it->at.kept : NULL,
            .matrix = pair->weight.data,
            .ld = pair->n_in,
            .n_inner = pair->n_in,
            .n_outer = pair->n_out,
            .in = linear ? it->x : it->in,
            .out = it->out,
            .finish = linear ? GATED : FORWARD_PASS,
            .activation = (int)pair->encoder_activation,
            .bias = pair->encoder_bias.data,
            .saved = it->in,
            .gate = linear ? *stack->encoder_gate.data : 0.0f,
        };
        multiply_phase(&it->me, &encode);
        float *swap = it->in;
        it->in = it->out;
        it->out = swap;
    }
}

static void decode_group(group *it, const twofold_stack *stack) {
    const twofold_pair *last = &stack->pairs[stack->n_pairs - 1];
    if (stack->shortcut)
        memcpy(it->code, it->in, (size_t)(it->at.n_panels * last->n_out * PW) * sizeof(float));
    for (long i = stack->n_pairs - 1; i >= -1; i--) {
        int linear = i < 0;
        const twofold_pair *pair = linear ? stack->shortcut : &stack->pairs[i];
        if (!pair)
            return;
        product decode = {
            .tiles = decode_tiles,
            .matrix = pair->decoder_weight.data ? pair->decoder_weight.data : pair->weight.data,
            .ld = pair->n_in,
            .n_inner = pair->n_out,
            .n_outer = pair->n_in,
            .in = linear ? it->code : it->in,
            .out = it->out,
            .finish = linear ? GATED : FORWARD_PASS,
            .activation = (int)pair->decoder_activation,
            .bias = pair->decoder_bias.data,
            .saved = it->in,
            .gate = linear ? *stack->decoder_gate.data : 0.0f,
        };
        multiply_phase(&it->me, &decode);
        float *swap = it->in;
        it->in = it->out;
        it->out = swap;
    }
}

static void apply_groups(void *context, int thread, int n_threads) {
    application *job = context;
    (void)n_threads;
    const twofold_stack *stack = job->stack;
    long n_in = stack->pairs[0].n_in, n_code = stack->pairs[stack->n_pairs - 1].n_out;
    float *scratch = job->scratch + thread * room_of_thread(stack);
    long n_kept[GROUP];
    for (;;) {
        long number = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (number >= job->n_groups)
            return;
        long row = number * GROUP_ROWS, n = least(GROUP_ROWS, job->n_rows - row);
        group it = {.at = {.n = n,
                           .n_panels = ceil_div(n, PW),
                           .kept = {(int32_t *)(scratch + N_BUFFERS * job->room), n_kept}},
                    .in = scratch,
                    .out = scratch + job->room,
                    .x = scratch + 2 * job->room,
                    .code = scratch + 3 * job->room};
        it.at.tail = n - (it.at.n_panels - 1) * PW;
        it.me = (share){.run = &it.at, .p1 = it.at.n_panels, .n_parts = 1};
        long width = job->x ? n_in : n_code;
        const float *from = (job->x ? job->x : job->code) + row * width;
        for (long p = 0; p < it.at.n_panels; p++) {
            long rows = rows_in(&it.at, p);
            float *panel = it.in + p * width * PW;
            transpose(from + p * PW * width, width, rows, width, panel, PW);
            for (long f = 0; rows < PW && f < width; f++)
                memset(panel + f * PW + rows, 0, (size_t)(PW - rows) * sizeof(float));
            if (job->x)
                keep_inputs(&it.at.kept, panel, p, width);
        }
        if (job->x) {
            encode_group(&it, stack);
            if (job->code)
                write_rows(it.in, n_code, n, row, job->code);
        }
        if (job->theta) {
            decode_group(&it, stack);
            write_rows(it.in, n_in, n, row, job->theta);
        }
    }
}

static int64_t apply_bytes(const twofold_stack *stack) {
    return 64 + stack->n_threads * room_of_thread(stack) * (int64_t)sizeof(float);
}

static void apply(const twofold_stack *stack, int64_t n_rows, const float *x, float *code,
                  float *theta, void *scratch) {
    application job = {
        .stack = stack,
        .x = x,
        .code = code,
        .theta = theta,
        .scratch = (float *)(((uintptr_t)scratch + 63) & ~(uintptr_t)63),
        .n_rows = n_rows,
        .n_groups = ceil_div(n_rows, GROUP_ROWS),
        .room = GROUP_ROWS * widest(stack),
    };
    int n = twofold_claim((int)least(stack->n_threads, job.n_groups));
    twofold_run(apply_groups, &job, n);
}

#endif
