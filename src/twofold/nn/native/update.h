/* From gradients to new weights: the products of h and s, and the optimizers. */

#ifndef TWOFOLD_UPDATE_H
#define TWOFOLD_UPDATE_H

#include <math.h>

#include "phase.h"

typedef struct {
    int kind, nesterov, decays;
    float rate, keep, momentum, decay; /* keep: 1 - rate * decay */
    float one_minus_beta1, beta2, one_minus_beta2, step, root; /* Adam */
} descent;

static descent descent_of(const twofold_update *update, long n_done, double rate, int is_matrix) {
    double decay = is_matrix ? update->weight_decay : 0.0, t = (double)(update->n_updates + n_done + 1);
    double beta1 = 0.9, beta2 = 0.999;
    return (descent){
        .kind = (int)update->kind,
        .nesterov = (int)update->nesterov,
        .decays = decay != 0,
        .rate = (float)rate,
        .keep = (float)(1.0 - rate * decay),
        .momentum = (float)update->momentum,
        .decay = (float)decay,
        .one_minus_beta1 = (float)(1.0 - beta1),
        .beta2 = (float)beta2,
        .one_minus_beta2 = (float)(1.0 - beta2),
        .step = (float)(rate / (1.0 - pow(beta1, t))),
        .root = (float)(1.0 / sqrt(1.0 - pow(beta2, t))),
    };
}

/* The formulas are PyTorch's, whose Adam is that of Kingma and Ba, 2015, algorithm 1. */
ALWAYS_INLINE void descend(const descent *by, float *restrict w, float *restrict m,
                           float *restrict v, const float *restrict g, long n) {
    if (by->kind == TWOFOLD_SGD && !m) {
        for (long j = 0; j < n; j++)
            w[j] = by->keep * w[j] - by->rate * g[j];
    } else if (by->kind == TWOFOLD_SGD) {
        for (long j = 0; j < n; j++) {
            float gradient = g[j] + by->decay * w[j];
            m[j] = by->momentum * m[j] + gradient;
            w[j] -= by->rate * (by->nesterov ? gradient + by->momentum * m[j] : m[j]);
        }
    } else {
        float coupled = by->kind == TWOFOLD_ADAM ? by->decay : 0.0f;
        float keep = by->kind == TWOFOLD_ADAMW ? by->keep : 1.0f;
        for (long j = 0; j < n; j++) {
            float gradient = g[j] + coupled * w[j];
            m[j] += by->one_minus_beta1 * (gradient - m[j]);
            v[j] = by->beta2 * v[j] + by->one_minus_beta2 * gradient * gradient;
            w[j] = keep * w[j] - by->step * m[j] / (sqrtf(v[j]) * by->root + 1e-8f);
        }
    }
}

static __attribute__((noinline)) void descend_tile(const descent *by, const twofold_parameter *to,
                                                   long ld, long place, const float *c, long mr,
                                                   long n) {
    for (long r = 0; r < mr; r++, place += ld, c += PW) {
        float *w = to->data + place, *m = to->first ? to->first + place : NULL;
        float *v = to->second ? to->second + place : NULL;
        if (n == PW)
            descend(by, w, m, v, c, PW);
        else
            descend(by, w, m, v, c, n);
    }
}

/* List the batch's rows that a strip's gradients are sums over, and return how many there are; or 0,
 * where all or nearly all are, or so few tiles need them that the list would take longer.
 */
static long keep_rows(const run *at, long block, long strip, int n_halves, batch_row *list) {
    const uint32_t *kept = at->kept_rows + strip * at->n_panels;
    long n = 0, n_blank = at->n;
    for (long p = 0; p < at->n_panels; p++)
        n_blank -= __builtin_popcount(kept[p]);
    if (8 * n_blank < at->n * n_halves)
        return 0;
    for (long p = 0; p < n_halves * at->n_panels; p++) {
        uint32_t rows = p < at->n_panels ? kept[p] : ~(uint32_t)0 >> (32 - rows_in(at, p - at->n_panels));
        for (; rows; rows &= rows - 1) {
            uint32_t r = (uint32_t)__builtin_ctz(rows);
            list[n++] = (batch_row){(uint32_t)(p * block) + r, (uint32_t)(p * PW * PW) + r * PW};
        }
    }
    return n;
}

/* Items [from, to) of the matrix's grid, strip by strip within groups of strips. */
static void update_matrix(const share *me, const level *it, const twofold_parameter *matrix,
                          int half, int n_halves, const descent *by, long from, long to) {
    const run *at = me->run;
    long tiles = n_tiles(it->n_out), item = 0, most = 2 * at->capacity * PW, n_kept[GROUP];
    batch_row *lists = at->row_lists + me->thread * GROUP * most;
    long block = it->n_out * PW, strip = 2 * at->n_panels * PW * PW;
    long start = half * at->n_panels;
    int fits = 2 * at->n_panels * (block > PW * PW ? block : PW * PW) <= UINT32_MAX;
    int skips = half == 0 && tiles >= 4 && fits && (it == &at->levels[0] || it == at->shortcut);
    int plain = by->kind == TWOFOLD_SGD && !matrix->first;
    _Alignas(64) float c[MR * PW];
    for (long g = 0; g < it->n_strips && item < to; g += GROUP) {
        long g1 = least(g + GROUP, it->n_strips);
        if (item + tiles * (g1 - g) <= from) {
            item += tiles * (g1 - g);
            continue;
        }
        for (long s = g; s < g1; s++)
            n_kept[s - g] = skips ? keep_rows(at, block, s, n_halves, lists + (s - g) * most) : 0;
        for (long t = 0; t < tiles; t++) {
            long o = tile_start(t, it->n_out), mr = tile_start(t + 1, it->n_out) - o;
            for (long s = g; s < g1; s++, item++) {
                if (item < from || item >= to)
                    continue;
                long n = least(PW, it->n_in - s * PW), place = o * it->n_in + s * PW;
                int at_once = plain && n % VL == 0;
                target_rows to = {matrix->data + place, it->n_in, at_once, by->keep, by->rate};
                const float *h = it->h + start * block + o * PW;
                const float *v = it->s + s * strip + start * PW * PW;
                if (n_kept[s - g])
                    update_kept_tiles[mr - 1][n > VL](h, v, lists + (s - g) * most,
                                                      n_kept[s - g], c, &to);
                else
                    update_tiles[mr - 1][n > VL](h, block, v, n_halves * at->n_panels,
                                                 at->n_panels, at->tail, c, &to);
                if (!at_once)
                    descend_tile(by, matrix, it->n_in, place, c, mr, n);
            }
        }
    }
}

static void update_bias(const run *at, const twofold_parameter *bias, const float *panels, long n,
                        const descent *by, const share *me) {
    for (long f = first(n, me->thread, me->n_threads); f < first(n, me->thread + 1, me->n_threads);
         f++) {
        vec sum = {0};
        for (long p = 0; p < at->n_panels; p++)
            for (long v = 0; v < vectors_in(at, p); v++)
                sum += load(panels + (p * n + f) * PW + v * VL);
        float gradient = total(sum);
        descend(by, bias->data + f, bias->first ? bias->first + f : NULL,
                bias->second ? bias->second + f : NULL, &gradient, 1);
    }
}

static void update_gate(const run *at, const twofold_parameter *gate, const double *parts,
                        long n_parts, const descent *by) {
    double sum = 0;
    for (long i = 0; i < n_parts * at->n_panels; i++)
        sum += parts[i];
    float gradient = (float)sum;
    descend(by, gate->data, gate->first, gate->second, &gradient, 1);
}

/* One thread's part of a parameter of n numbers, in whole rows of PW. */
static void descend_gathered(const share *me, const descent *by, float factor,
                             const twofold_parameter *to, const twofold_parameter *gathered,
                             long n) {
    if (!to->data)
        return;
    long rows = ceil_div(n, PW);
    long r0 = first(rows, me->thread, me->n_threads), r1 = first(rows, me->thread + 1, me->n_threads);
    for (long r = r0; r < r1; r++) {
        float *g = gathered->data + r * PW;
        for (long j = 0; j < least(PW, n - r * PW); j++)
            g[j] *= factor;
        descend_tile(by, to, PW, r * PW, g, 1, least(PW, n - r * PW));
    }
}

/* Once all gradients are gathered: scale them down to a length of 1, where they are longer, and apply
 * them (Pascanu, Mikolov and Bengio, 2013, algorithm 1).
 */
static void descend_clipped(const share *me, const descent *matrices, const descent *biases) {
    run *at = me->run;
    long n_chunks = ceil_div(at->n_gradients, CHUNK);
    meet(me);
    for (long i = first(n_chunks, me->thread, me->n_threads);
         i < first(n_chunks, me->thread + 1, me->n_threads); i++) {
        vec sum = {0};
        for (long j = i * CHUNK; j < least((i + 1) * CHUNK, at->n_gradients); j += VL) {
            vec g = load(at->gradients + j);
            sum += g * g;
        }
        at->squares[i] = (double)total(sum);
    }
    meet(me);
    double squares = 0;
    for (long i = 0; i < n_chunks; i++)
        squares += at->squares[i];
    float factor = squares > 1 ? (float)(1 / sqrt(squares)) : 1.0f;
    for (long i = 0; i < at->n_levels + (at->shortcut != NULL); i++) {
        const level *it = &at->levels[i];
        const twofold_pair *to = it->pair, *from = &it->written;
        long n = it->n_in * it->n_out;
        descend_gathered(me, matrices, factor, &to->weight, &from->weight, n);
        descend_gathered(me, matrices, factor, &to->decoder_weight, &from->decoder_weight, n);
        descend_gathered(me, biases, factor, &to->encoder_bias, &from->encoder_bias, it->n_out);
        descend_gathered(me, biases, factor, &to->decoder_bias, &from->decoder_bias, it->n_in);
    }
    descend_gathered(me, biases, factor, &at->stack->encoder_gate, &at->written_gates[0], 1);
    descend_gathered(me, biases, factor, &at->stack->decoder_gate, &at->written_gates[1], 1);
}

static void update_all(const share *me, long n_done, double rate) {
    run *at = me->run;
    descent by_matrices = descent_of(at->update, n_done, rate, 1);
    descent by_biases = descent_of(at->update, n_done, rate, 0), matrices = by_matrices;
    if (at->gradients) /* w = 0 w + g */
        matrices = (descent){.kind = TWOFOLD_SGD, .rate = -1.0f};
    descent biases = at->gradients ? matrices : by_biases;
    long n_items = 0, n_levels = at->n_levels + (at->shortcut != NULL);
    for (long i = 0; i < n_levels; i++)
        n_items += n_tiles(at->levels[i].n_out) * at->levels[i].n_strips *
                   (at->levels[i].pair->decoder_weight.data ? 2 : 1);
    long from = first(n_items, me->thread, me->n_threads), item = 0;
    long to = first(n_items, me->thread + 1, me->n_threads);
    for (long i = 0; i < n_levels; i++) {
        level *it = &at->levels[i];
        long n = n_tiles(it->n_out) * it->n_strips;
        int untied = it->pair->decoder_weight.data != NULL;
        for (int half = 0; half <= untied; half++, item += n) {
            const twofold_parameter *matrix =
                half ? &it->written.decoder_weight : &it->written.weight;
            if (item < to && item + n > from)
                update_matrix(me, it, matrix, half, untied ? 1 : 2, &matrices, from - item,
                              to - item);
        }
        update_bias(at, &it->written.encoder_bias, it->h, it->n_out, &biases, me);
        update_bias(at, &it->written.decoder_bias, it->d, it->n_in, &biases, me);
    }
    if (at->shortcut && me->thread == 0) {
        update_gate(at, &at->written_gates[0], at->encoder_gate_parts,
                    n_tiles(at->shortcut->n_out), &biases);
        update_gate(at, &at->written_gates[1], at->decoder_gate_parts, n_losses(at), &biases);
    }
    if (at->gradients)
        descend_clipped(me, &by_matrices, &by_biases);
}

#endif
