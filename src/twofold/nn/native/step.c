/* The training step of a dense stack, and its application; compiled once per instruction set.
 *
 * The derivation, and its names, are those of `fused.py`. For pair i, with n rows in P panels,
 *
 *     e[i]    what it encodes: the batch, or the last hidden layer      [P][n_in][PW]
 *     h[i]    the gradient of what it gives, then what it decodes    2 x [P][n_out][PW]
 *     d[i]    the gradient of what it decodes to                        [P][n_in][PW]
 *     s[i]    e[i] and d[i] once more, row by row               [strips][2][P * PW][PW]
 *
 * with derivatives of activations, where these do not follow from outputs, beside the outputs,
 *
 * and the gradient of its matrix is the product of h[i] and s[i]: for a tied matrix one product over
 * both halves. Panels serve the products of the forward and the backward pass, where an output's
 * sums lie side by side for PW rows; strips those of the gradients, where they do for PW columns.
 * The batch is often blank in part (margins of images, levels of categories): inputs that are zero in
 * all rows of a panel, and rows that are zero in all columns of a strip, are listed as what is left.
 *
 * A shortcut is one more level, from the batch to the code: its h holds the code's gradient and the
 * code, its d the gradient of theta. The stack's own output is in `top` and, until its gradient takes
 * the place, in d[0].
 *
 * A phase's outputs form a grid of panels and tiles. Threads split it by panels where there are
 * enough (each takes its rows through the whole stack), else by tiles too, and meet after each
 * phase. Sums of losses are added up in the order of the grid, so results do not depend on threads.
 */

#include <math.h>

#include "apply.h"
#include "native.h"
#include "phase.h"
#include "speed.h"
#include "table.h"
#include "update.h"

/* Put rows into panels, and what the network sees of them into strips, some strips of each panel. */
static void gather(const share *me, long first_row) {
    run *at = me->run;
    level *bottom = &at->levels[0];
    const twofold_batches *from = at->batches;
    long width = at->width, strip_rows = 2 * at->n_panels * PW, n_seen = 0;
    long s0 = first(bottom->n_strips, me->part, me->n_parts);
    long s1 = first(bottom->n_strips, me->part + 1, me->n_parts);
    int apart = at->target != bottom->e;
    _Alignas(64) float wanted[PW * PW];
    for (long p = me->p0; p < me->p1; p++) {
        long n_rows = rows_in(at, p);
        for (long strip = s0; strip < s1; strip++) {
            long f0 = strip * PW, n = least(PW, width - f0);
            float *rows = bottom->s + strip * strip_rows * PW + p * PW * PW;
            uint32_t kept = 0;
            for (long r = 0; r < n_rows; r++) {
                long position = first_row + p * PW + r;
                if (from->rows)
                    position = from->rows[position];
                const float *x = from->given + position * from->stride + f0;
                float *to = rows + r * PW;
                if (apart) {
                    const float *y = (from->target ? from->target : from->given) +
                                     position * from->stride + f0;
                    memcpy(wanted + r * PW, y, (size_t)n * sizeof(float));
                    for (long j = 0; j < n; j++) {
                        to[j] = x[j] == x[j] ? x[j] : 0.0f;
                        n_seen += y[j] == y[j] && at->objective->counts[f0 + j] != 0.0f;
                    }
                } else {
                    memcpy(to, x, (size_t)n * sizeof(float));
                }
                memset(to + n, 0, (size_t)(PW - n) * sizeof(float));
                kept |= (uint32_t)any((load(to) != 0.0f) | (load(to + VL) != 0.0f)) << r;
            }
            at->kept_rows[strip * at->n_panels + p] = kept;
            memset(rows + n_rows * PW, 0, (size_t)((PW - n_rows) * PW) * sizeof(float));
            if (at->shortcut)
                memcpy(at->shortcut->s + (rows - bottom->s), rows, PW * PW * sizeof(float));
            transpose(rows, PW, PW, n, bottom->e + (p * width + f0) * PW, PW);
            if (apart) {
                memset(wanted + n_rows * PW, 0, (size_t)((PW - n_rows) * PW) * sizeof(float));
                transpose(wanted, PW, PW, n, at->target + (p * width + f0) * PW, PW);
            }
        }
    }
    if (at->masked) {
        atomic_fetch_add_explicit(&at->n_seen, n_seen, memory_order_relaxed);
        meet(me);
    } else {
        meet_in_phase(me);
    }
    for (long p = me->p0 + me->part; p < me->p1; p += me->n_parts)
        keep_inputs(&at->kept, bottom->e + p * width * PW, p, width);
    meet_in_phase(me);
}

/* Panels once more as rows of strips. */
static void to_strips(const share *me, const level *it, const float *panels, int half) {
    const run *at = me->run;
    long strip_rows = 2 * at->n_panels * PW;
    long s0 = first(it->n_strips, me->part, me->n_parts);
    long s1 = first(it->n_strips, me->part + 1, me->n_parts);
    for (long p = me->p0; p < me->p1; p++)
        for (long strip = s0; strip < s1; strip++) {
            float *rows = it->s + (strip * strip_rows + (half * at->n_panels + p) * PW) * PW;
            long f0 = strip * PW;
            transpose(panels + (p * it->n_in + f0) * PW, PW, least(PW, it->n_in - f0),
                      rows_in(at, p), rows, PW);
        }
}

static float *decoded_from(const run *at, const level *it) {
    return it->h + at->n_panels * it->n_out * PW;
}

static const float *decoder_of(const level *it) {
    return it->pair->decoder_weight.data ? it->pair->decoder_weight.data : it->pair->weight.data;
}

/* What the derivative of what level `it` encodes to is made of, and of what it decodes to. */
static const float *saved_up(const run *at, const level *it) {
    if (it->up_slope)
        return it->up_slope;
    if (it + 1 < at->levels + at->n_levels)
        return it[1].e;
    return at->shortcut ? at->top : decoded_from(at, it);
}

static const float *saved_down(const run *at, const level *it) {
    return it->down_slope ? it->down_slope : decoded_from(at, it - 1);
}

static void forward(const share *me) {
    run *at = me->run;
    for (long i = 0; i < at->n_levels; i++) {
        level *it = &at->levels[i];
        product encode = {
            .tiles = encode_tiles,
            .kept = i == 0 ? &at->kept : NULL,
            .matrix = it->pair->weight.data,
            .ld = it->n_in,
            .n_inner = it->n_in,
            .n_outer = it->n_out,
            .in = it->e,
            .out = i + 1 < at->n_levels ? it[1].e
                   : at->shortcut       ? at->top
                                        : decoded_from(at, it),
            .finish = FORWARD_PASS,
            .activation = it->up,
            .bias = it->pair->encoder_bias.data,
            .slopes = it->up_slope,
        };
        multiply_phase(me, &encode);
    }
    const level *last = &at->levels[at->n_levels - 1], *linear = at->shortcut;
    if (linear) {
        product encode = {
            .tiles = encode_tiles,
            .kept = &at->kept,
            .matrix = linear->pair->weight.data,
            .ld = linear->n_in,
            .n_inner = linear->n_in,
            .n_outer = linear->n_out,
            .in = at->levels[0].e,
            .out = decoded_from(at, last),
            .finish = GATED,
            .bias = linear->pair->encoder_bias.data,
            .saved = at->top,
            .gate = at->encoder_gate,
            .copy = decoded_from(at, linear),
        };
        multiply_phase(me, &encode);
    }
    for (long i = at->n_levels - 1; i >= 0; i--) {
        level *it = &at->levels[i];
        product decode = {
            .tiles = decode_tiles,
            .matrix = decoder_of(it),
            .ld = it->n_in,
            .n_inner = it->n_out,
            .n_outer = it->n_in,
            .in = decoded_from(at, it),
            .out = i ? decoded_from(at, it - 1) : it->d,
            .finish = i || linear ? FORWARD_PASS : THETA,
            .activation = it->down,
            .bias = it->pair->decoder_bias.data,
            .slopes = it->down_slope,
        };
        multiply_phase(me, &decode);
    }
    if (linear) {
        product decode = {
            .tiles = decode_tiles,
            .matrix = decoder_of(linear),
            .ld = linear->n_in,
            .n_inner = linear->n_out,
            .n_outer = linear->n_in,
            .in = decoded_from(at, last),
            .out = linear->d,
            .finish = THETA,
            .bias = linear->pair->decoder_bias.data,
        };
        multiply_phase(me, &decode);
    }
    joint_phase(me);
}

static void backward(const share *me) {
    run *at = me->run;
    const level *linear = at->shortcut;
    if (linear) {
        product back = {
            .tiles = encode_tiles,
            .matrix = decoder_of(linear),
            .ld = linear->n_in,
            .n_inner = linear->n_in,
            .n_outer = linear->n_out,
            .in = linear->d,
            .out = linear->h,
            .finish = NOTHING,
        };
        multiply_phase(me, &back);
    }
    for (long i = 0; i < at->n_levels; i++) {
        level *it = &at->levels[i];
        int last = i + 1 == at->n_levels;
        product back = {
            .tiles = encode_tiles,
            .matrix = decoder_of(it),
            .ld = it->n_in,
            .n_inner = it->n_in,
            .n_outer = it->n_out,
            .in = it->d,
            .out = !last ? it[1].d : linear ? linear->h : it->h,
            .finish = last && linear ? CODE_BACK : BACKWARD_PASS,
            .activation = last ? it->up : it[1].down,
            .saved = last ? saved_up(at, it) : saved_down(at, it + 1),
            .adds = last && linear,
        };
        multiply_phase(me, &back);
    }
    for (long i = at->n_levels - 1; i > 0; i--) {
        level *it = &at->levels[i];
        product back = {
            .tiles = decode_tiles,
            .matrix = it->pair->weight.data,
            .ld = it->n_in,
            .n_inner = it->n_out,
            .n_outer = it->n_in,
            .in = it->h,
            .out = it[-1].h,
            .finish = BACKWARD_PASS,
            .activation = it[-1].up,
            .saved = saved_up(at, it - 1),
        };
        multiply_phase(me, &back);
    }
    for (long i = 0; i < at->n_levels; i++) {
        if (i)
            to_strips(me, &at->levels[i], at->levels[i].e, 0);
        to_strips(me, &at->levels[i], at->levels[i].d, 1);
    }
    if (linear)
        to_strips(me, linear, linear->d, 1);
}

static void begin_batch(run *at, long step) {
    at->n = at->batches->sizes[step];
    at->n_panels = ceil_div(at->n, PW);
    at->tail = at->n - (at->n_panels - 1) * PW;
    long columns = 0;
    for (long f = 0; !at->masked && f < at->width; f++)
        columns += at->objective->counts[f] != 0.0f;
    atomic_store_explicit(&at->n_seen, at->n * columns, memory_order_relaxed);
    if (at->shortcut) {
        at->encoder_gate = *at->stack->encoder_gate.data;
        at->decoder_gate = *at->stack->decoder_gate.data;
    }
}

static void take_steps(void *context, int thread, int n_threads) {
    run *at = context;
    share me = {.run = at, .thread = thread, .n_threads = n_threads};
    for (long step = 0, row = 0; step < at->batches->n_steps; step++) {
        if (thread == 0)
            begin_batch(at, step);
        meet(&me);
        split(&me);
        gather(&me, row);
        forward(&me);
        backward(&me);
        meet(&me); /* until here the gradients needed the matrices as they were */
        update_all(&me, step, at->batches->rates[step]);
        row += at->n;
        meet(&me);
        if (thread == 0) {
            double loss = 0;
            for (long i = 0; i < n_losses(at) * at->n_panels; i++)
                loss += at->losses[i];
            at->batches->losses[step] = loss /= n_cells(at);
            if (!isfinite(loss))
                atomic_store_explicit(&at->stops, (int)(step + 1), memory_order_relaxed);
        }
        meet(&me);
        if (atomic_load_explicit(&at->stops, memory_order_relaxed))
            return;
    }
}

/* Cut `scratch` into what a run needs, and return how many bytes that is. */
static int64_t lay_out(run *at, const twofold_stack *stack, const twofold_update *update,
                       long n_rows, void *scratch) {
    long capacity = ceil_div(n_rows, PW);
    uintptr_t start = ((uintptr_t)scratch + 63) & ~(uintptr_t)63, free = start;
#define TAKE(TYPE, COUNT)                                                                        \
    (TYPE *)free;                                                                                \
    free += ((uintptr_t)(COUNT) * sizeof(TYPE) + 63) & ~(uintptr_t)63
#define GATHER(PARAMETER, COUNT)                                                                 \
    if ((PARAMETER).data) {                                                                      \
        float *gathered = TAKE(float, COUNT);                                                    \
        (PARAMETER) = (twofold_parameter){.data = gathered};                                     \
    }
    at->stack = stack;
    at->n_levels = stack->n_pairs;
    at->width = stack->pairs[0].n_in;
    at->capacity = capacity;
    at->shortcut = stack->shortcut ? &at->levels[at->n_levels] : NULL;
    for (long i = 0; i < at->n_levels + (at->shortcut != NULL); i++) {
        level *it = &at->levels[i];
        it->pair = i < at->n_levels ? &stack->pairs[i] : stack->shortcut;
        it->n_in = it->pair->n_in;
        it->n_out = it->pair->n_out;
        it->up = (int)it->pair->encoder_activation;
        it->down = (int)it->pair->decoder_activation;
        it->written = *it->pair;
        it->n_strips = ceil_div(it->n_in, PW);
        it->e = TAKE(float, capacity * it->n_in * PW);
        it->h = TAKE(float, 2 * capacity * it->n_out * PW);
        it->d = TAKE(float, capacity * it->n_in * PW);
        it->s = TAKE(float, it->n_strips * 2 * capacity * PW * PW);
        it->up_slope = it->down_slope = NULL;
        if (keeps_slope(it->up)) {
            it->up_slope = TAKE(float, capacity * it->n_out * PW);
        }
        if (keeps_slope(it->down)) {
            it->down_slope = TAKE(float, capacity * it->n_in * PW);
        }
    }
    long most_losses = n_tiles(at->width) + at->width;
    at->target = TAKE(float, capacity * at->width * PW);
    at->kept.at = TAKE(int32_t, capacity * at->width);
    at->kept.n = TAKE(long, capacity);
    at->kept_rows = TAKE(uint32_t, capacity * at->levels[0].n_strips);
    at->row_lists = TAKE(batch_row, stack->n_threads * GROUP * 2 * capacity * PW);
    at->losses = TAKE(double, most_losses * capacity);
    at->top = NULL;
    if (at->shortcut) {
        long n_code = at->shortcut->n_out;
        at->top = TAKE(float, capacity * n_code * PW);
        at->encoder_gate_parts = TAKE(double, n_tiles(n_code) * capacity);
        at->decoder_gate_parts = TAKE(double, most_losses * capacity);
    }
    at->written_gates[0] = stack->encoder_gate;
    at->written_gates[1] = stack->decoder_gate;
    at->gradients = NULL;
    if (update->clips) {
        at->gradients = (float *)free;
        for (long i = 0; i < at->n_levels + (at->shortcut != NULL); i++) {
            level *it = &at->levels[i];
            long n = it->n_in * it->n_out;
            GATHER(it->written.weight, n);
            GATHER(it->written.decoder_weight, n);
            GATHER(it->written.encoder_bias, it->n_out);
            GATHER(it->written.decoder_bias, it->n_in);
        }
        GATHER(at->written_gates[0], 1);
        GATHER(at->written_gates[1], 1);
        at->n_gradients = (float *)free - at->gradients;
        at->squares = TAKE(double, ceil_div(at->n_gradients, CHUNK));
    }
    return (int64_t)(free - start) + 64;
}

static int64_t train_bytes(const twofold_stack *stack, const twofold_update *update,
                           int64_t n_rows) {
    run at;
    return lay_out(&at, stack, update, n_rows, NULL);
}

static int64_t train(const twofold_stack *stack, const twofold_objective *objective,
                     const twofold_update *update, const twofold_batches *batches, void *scratch) {
    run at = {.objective = objective, .update = update, .batches = batches};
    long most = 1;
    for (long i = 0; i < batches->n_steps; i++)
        most = batches->sizes[i] > most ? batches->sizes[i] : most;
    lay_out(&at, stack, update, most, scratch);
    if (at.gradients)
        memset(at.gradients, 0, (size_t)at.n_gradients * sizeof(float));
    at.masked = (int)batches->masked;
    for (long f = 0; f < at.width; f++)
        at.n_joint += is_joint(objective->likelihood[f]) && objective->counts[f] != 0.0f;
    if (!at.masked && !batches->target)
        at.target = at.levels[0].e;
    int n = twofold_claim((int)stack->n_threads);
    twofold_barrier_init(&at.barrier, n);
    twofold_run(take_steps, &at, n);
    int stopped = atomic_load(&at.stops);
    return stopped ? stopped : batches->n_steps;
}

#define JOIN(A, B) A##B
#define NAMED(A, B) JOIN(A, B)
const twofold_table NAMED(twofold_, ISA) = {train_bytes, train, apply_bytes,
                                            apply,       peak,  kernel_speed};
