/* A run of steps, its memory, and the phases that its threads share: products with what follows them.
 */

#ifndef TWOFOLD_PHASE_H
#define TWOFOLD_PHASE_H

#include <stddef.h>

#include "activation.h"
#include "kernel.h"
#include "likelihood.h"
#include "threads.h"

enum {
    MOST_PAIRS = 64,
    ENCODE_INNER = VL == 16 ? 200 : 256, /* k at a time: so much of a panel stays in the first cache */
    DECODE_INNER = 128,                  /* and so many rows of a matrix */
    CHUNK = 4096,                 /* gradients whose squares are summed at a time */
    GROUP = 4,                    /* panels that share a tile's weights, and strips a tile's rows */
};

ALWAYS_INLINE long least(long a, long b) { return a < b ? a : b; }
ALWAYS_INLINE long ceil_div(long a, long b) { return (a + b - 1) / b; }

typedef struct {
    long n_in, n_out, n_strips;
    int up, down; /* activations after encode and after decode */
    const twofold_pair *pair;
    twofold_pair written; /* what gradients are applied to: the pair, or where they are gathered */
    float *e, *h, *d, *s;
    float *up_slope, *down_slope; /* derivatives after encode and after decode, where they are kept */
} level;

/* The inputs of each panel that are not zero in all of its rows. */
typedef struct {
    int32_t *at; /* [P][width] */
    long *n;     /* [P] */
} kept_inputs;

typedef struct {
    const twofold_stack *stack;
    const twofold_objective *objective;
    const twofold_update *update;
    const twofold_batches *batches;
    long n_levels, width, capacity; /* panels that there is room for */
    level levels[MOST_PAIRS + 1];
    level *shortcut; /* the last one, or NULL */
    float *top;
    float encoder_gate, decoder_gate;
    float *target; /* [P][width][PW], or e[0] */
    kept_inputs kept;
    uint32_t *kept_rows; /* [strips][P], a bit for each row of the panel that is not zero there */
    batch_row *row_lists; /* [threads][GROUP][2 P PW] */
    /* of each tile in each panel, and of each joint column: losses, and what gates' gradients sum up */
    double *losses, *encoder_gate_parts, *decoder_gate_parts;
    twofold_parameter written_gates[2];
    float *gradients; /* of all parameters, where they are clipped, else NULL */
    double *squares;  /* of each CHUNK of them */
    long n_gradients;
    int masked;
    long n_joint;
    atomic_long n_seen;
    atomic_int stops;
    twofold_barrier barrier;
    /* of the batch under way */
    long n, n_panels, tail;
} run;

/* What one thread does of every grid: panels [p0, p1), and share `part` of `n_parts` of the tiles. */
typedef struct {
    run *run;
    long p0, p1, part, n_parts, thread, n_threads;
} share;

static void meet(const share *me) { twofold_barrier_wait(&me->run->barrier); }
static void meet_in_phase(const share *me) {
    if (me->n_parts > 1)
        meet(me);
}

static long vectors_in(const run *at, long panel) {
    return panel == at->n_panels - 1 && at->tail <= VL ? 1 : 2;
}
static long rows_in(const run *at, long panel) {
    return panel == at->n_panels - 1 ? at->tail : PW;
}

/* Threads by panels where that leaves none of them idle for long, else by tiles as well. */
static void split(share *me) {
    long panels = me->run->n_panels, by_panels = 1;
    for (long n = me->n_threads; n > 1; n--) {
        if (me->n_threads % n == 0 && n <= panels && 8 * n * ceil_div(panels, n) <= 9 * panels) {
            by_panels = n;
            break;
        }
    }
    me->n_parts = me->n_threads / by_panels;
    me->part = me->thread % me->n_parts;
    long at = me->thread / me->n_parts;
    me->p0 = at * panels / by_panels;
    me->p1 = (at + 1) * panels / by_panels;
}

/* The cells that the batch's loss is a mean over. */
static double n_cells(const run *at) {
    long n = atomic_load_explicit(&at->n_seen, memory_order_relaxed);
    return n > 0 ? (double)n : 1.0;
}

/* Parts that a panel's loss is a sum of: of tiles, and of columns of several inputs. */
static long n_losses(const run *at) { return n_tiles(at->width) + at->n_joint; }

static long first(long n, long part, long n_parts) { return n * part / n_parts; }

enum finish { FORWARD_PASS, THETA, BACKWARD_PASS, GATED, CODE_BACK, NOTHING };

/* A product and what is done to each of its tiles while it is near. */
typedef struct {
    forward_tile *const (*tiles)[2];
    const kept_inputs *kept; /* what counts of `in`, or NULL */
    const float *matrix;
    long ld, n_inner, n_outer;
    const float *in;
    float *out;
    enum finish finish;
    int activation;
    const float *bias, *saved; /* `saved` lies as `out` does, and so does `slopes` */
    float *slopes;             /* where derivatives are kept, or NULL */
    int adds;    /* to what is in `out` */
    float gate;  /* what `saved` counts in the sum */
    float *copy; /* of `out`, or NULL */
} product;

/* List the inputs of a panel `[width][PW]` that are not zero in all rows, unless its first row shows
 * that they are nearly all: looking at each costs a few percent of a small stack's time.
 */
static void keep_inputs(const kept_inputs *kept, const float *panel, long p, long width) {
    int32_t *at = kept->at + p * width;
    long n = 0, n_zeros = 0;
    for (long f = 0; f < width; f++)
        n_zeros += panel[f * PW] == 0.0f;
    for (long f = 0; 8 * n_zeros > width && f < width; f++) {
        at[n] = (int32_t)f;
        n += any((load(panel + f * PW) != 0.0f) | (load(panel + f * PW + VL) != 0.0f));
    }
    kept->n[p] = 8 * n_zeros > width ? n : width;
}

static void residual(const run *at, float *c, const float *bias, long t, long t0, long mr,
                     long panel);
static void add_gated(float *c, const float *bias, const float *saved, float gate, float *copy,
                      long mr, long nv);
static void split_code_gradient(const run *at, const product *it, float *c, long t, long place,
                                long mr, long panel);

static void multiply_phase(const share *me, const product *it) {
    run *at = me->run;
    long tiles = n_tiles(it->n_outer);
    long t0 = first(tiles, me->part, me->n_parts), t1 = first(tiles, me->part + 1, me->n_parts);
    long most = it->tiles == encode_tiles ? ENCODE_INNER : DECODE_INNER;
    for (long p0 = me->p0; p0 < me->p1; p0 += GROUP) {
        long p1 = least(p0 + GROUP, me->p1), n_inner = it->kept ? 1 : it->n_inner;
        for (long p = p0; it->kept && p < p1; p++)
            n_inner = it->kept->n[p] > n_inner ? it->kept->n[p] : n_inner;
        long n_blocks = ceil_div(n_inner, most);
        for (long block = 0; block < n_blocks; block++) {
            long k0 = it->n_inner * block / n_blocks, k1 = it->n_inner * (block + 1) / n_blocks;
            for (long t = t0; t < t1; t++) {
                long o = tile_start(t, it->n_outer), mr = tile_start(t + 1, it->n_outer) - o;
                const float *w = it->matrix;
                w += it->tiles == encode_tiles ? o * it->ld + k0 : k0 * it->ld + o;
                for (long p = p0; p < p1; p++) {
                    long nv = vectors_in(at, p), place = (p * it->n_outer + o) * PW;
                    float *c = it->out + place;
                    const float *in = it->in + p * it->n_inner * PW;
                    int adds = it->adds || block > 0;
                    if (it->kept && it->kept->n[p] < it->n_inner) {
                        long n = it->kept->n[p], i0 = n * block / n_blocks;
                        encode_kept_tiles[mr - 1][nv - 1](it->matrix + o * it->ld, it->ld,
                                                          it->kept->at + p * it->n_inner + i0, in,
                                                          n * (block + 1) / n_blocks - i0, c, adds);
                    } else {
                        it->tiles[mr - 1][nv - 1](w, it->ld, NULL, in + k0 * PW, k1 - k0, c, adds);
                    }
                    if (block < n_blocks - 1)
                        continue;
                    if (it->finish == FORWARD_PASS)
                        finish_forward(it->activation, c, it->bias + o,
                                       it->slopes ? it->slopes + place : NULL, mr, nv);
                    else if (it->finish == BACKWARD_PASS)
                        finish_backward(it->activation, c, it->saved + place, mr, nv);
                    else if (it->finish == THETA)
                        residual(at, c, it->bias + o, t, o, mr, p);
                    else if (it->finish == GATED)
                        add_gated(c, it->bias + o, it->saved + place, it->gate,
                                  it->copy ? it->copy + place : NULL, mr, nv);
                    else if (it->finish == CODE_BACK)
                        split_code_gradient(at, it, c, t, place, mr, p);
                }
            }
        }
    }
    meet_in_phase(me);
}

/* From theta to the loss and its gradient: (mean - x) / cells, and nothing where no cell is. */
static __attribute__((noinline)) void residual(const run *at, float *c, const float *bias, long t,
                                               long t0, long mr, long panel) {
    const twofold_objective *objective = at->objective;
    const float *x = at->target + (panel * at->width + t0) * PW;
    long n_rows = rows_in(at, panel), nv = vectors_in(at, panel);
    float share = (float)(1.0 / n_cells(at));
    ivec row[2];
    for (int v = 0; v < 2; v++)
        for (int i = 0; i < VL; i++)
            row[v][i] = v * VL + i < n_rows ? -1 : 0;
    vec sum = {0}, factors = splat(1.0f), gate_sum = {0};
    vec gate = splat(at->decoder_gate);
    float *stacked = at->shortcut ? at->levels[0].d + (panel * at->width + t0) * PW : NULL;
    for (long r = 0; r < mr; r++) {
        vec scale = splat(objective->scale[t0 + r]), gain = scale * share;
        vec offset = splat(objective->offset[t0 + r]), b = splat(bias[r]);
        int kind = objective->likelihood[t0 + r], waits = is_joint(kind); /* for its other inputs */
        for (long v = 0; v < nv; v++) {
            float *place = c + r * PW + v * VL;
            vec theta = load(place) + b, target = load(x + r * PW + v * VL), g = {0};
            if (stacked) {
                g = load(stacked + r * PW + v * VL);
                theta += gate * g;
            }
            if (waits) {
                store(place, theta);
                continue;
            }
            ivec counts = row[v];
            if (at->masked) {
                counts &= target == target;
                target = where(counts, target);
            }
            vec delta, cell;
            if (kind == TWOFOLD_BERNOULLI) {
                /* max(theta, 0) - x theta + log(1 + e^-|theta|): the logarithms of a tile are one
                 * of a product, at most 2 to the power of 2 MR. */
                vec e, p = logistic(theta, &e);
                delta = p - target;
                cell = where(~(ivec)(theta <= 0.0f), theta) - target * theta;
                factors *= where(counts, e) + 1.0f;
            } else if (kind == TWOFOLD_GAUSSIAN) {
                delta = theta - target;
                cell = 0.5f * delta * delta * scale;
            } else {
                cell = number_loss(kind, theta, target, objective->center[t0 + r],
                                   objective->unit[t0 + r], objective->spread[t0 + r], &delta);
            }
            sum += where(counts, cell + offset);
            delta = where(counts, delta * gain);
            store(place, delta);
            if (stacked) {
                gate_sum += where(counts, delta * g);
                store(stacked + r * PW + v * VL, delta * gate);
            }
        }
    }
    at->losses[t * at->n_panels + panel] = (double)total(sum) + (double)total(logarithm(factors));
    if (stacked)
        at->decoder_gate_parts[t * at->n_panels + panel] = (double)total(gate_sum);
}

/* What input f of a column counts in a cell, and nothing where it is missing. */
ALWAYS_INLINE vec weight_of(const twofold_objective *by, long f, ivec row, vec x) {
    return where(row & (x == x), x * by->unit[f] + by->center[f]);
}

/* The inputs [f0, f1) of one column, once all their thetas are there: the levels of a category, or the
 * knots of a histogram. With p the probabilities, w the weights of a cell, W their sum, k the knots'
 * places and m = sum p k, the loss and its gradient are
 *
 *     W off^2 - sum w log p      off = sum (p - w) k
 *     W p (1 + 2 off (k - m)) - w
 *
 * Levels have no places, which leaves cross-entropy; they weigh 1, or 0 where the cell is missing.
 */
static void joint_residual(const run *at, long f0, long f1, long slot, long panel) {
    const twofold_objective *by = at->objective;
    float *c = at->levels[0].d, *stacked = NULL;
    if (at->shortcut) {
        stacked = c + panel * at->width * PW;
        c = at->shortcut->d;
    }
    c += panel * at->width * PW;
    const float *x = at->target + panel * at->width * PW;
    long n_rows = rows_in(at, panel), nv = vectors_in(at, panel);
    vec share = splat((float)(1.0 / n_cells(at))), gate = splat(at->decoder_gate);
    vec loss = {0}, gate_sum = {0};
    for (long v = 0; v < nv; v++) {
        ivec row;
        for (int i = 0; i < VL; i++)
            row[i] = v * VL + i < n_rows ? -1 : 0;
        vec most = load(c + f0 * PW + v * VL) + by->log_share[f0];
        vec sum = {0}, known = {0}, linear = {0}, mean = {0}, place = {0};
        for (long f = f0 + 1; f < f1; f++) {
            vec theta = load(c + f * PW + v * VL) + by->log_share[f];
            most = choose(theta > most, theta, most);
        }
        for (long f = f0; f < f1; f++) {
            float *at_theta = c + f * PW + v * VL;
            vec theta = load(at_theta) + by->log_share[f] - most, e = exponential(theta);
            vec weight = weight_of(by, f, row, load(x + f * PW + v * VL));
            store(at_theta, e);
            sum += e;
            known += weight;
            linear += weight * theta;
            mean += e * by->spread[f];
            place += weight * by->spread[f];
        }
        mean /= sum;
        vec off = mean - place;
        loss += where(row, known * (off * off + logarithm(sum)) - linear);
        vec scale = share * known / sum;
        for (long f = f0; f < f1; f++) {
            float *to = c + f * PW + v * VL;
            vec weight = weight_of(by, f, row, load(x + f * PW + v * VL));
            vec gain = scale * (1.0f + 2.0f * off * (by->spread[f] - mean));
            vec delta = where(row, load(to) * gain - weight * share);
            store(to, delta);
            if (stacked) {
                vec g = load(stacked + f * PW + v * VL);
                gate_sum += where(row, delta * g);
                store(stacked + f * PW + v * VL, delta * gate);
            }
        }
    }
    at->losses[slot * at->n_panels + panel] = (double)total(loss);
    if (stacked)
        at->decoder_gate_parts[slot * at->n_panels + panel] = (double)total(gate_sum);
}

static void joint_phase(const share *me) {
    const run *at = me->run;
    if (!at->n_joint)
        return;
    const twofold_objective *objective = at->objective;
    long found = 0, slot = n_tiles(at->width);
    for (long f0 = 0, f1; f0 < at->width; f0 = f1) {
        for (f1 = f0 + 1; f1 < at->width && objective->counts[f1] == 0.0f; f1++)
            ;
        if (!is_joint(objective->likelihood[f0]))
            continue;
        if (found % me->n_parts == me->part) {
            for (long p = me->p0; p < me->p1; p++)
                joint_residual(at, f0, f1, slot + found, p);
        }
        found++;
    }
    meet_in_phase(me);
}

/* What the shortcut makes, and its gate's share of what the stack does. */
static __attribute__((noinline)) void add_gated(float *c, const float *bias, const float *saved,
                                                float gate, float *copy, long mr, long nv) {
    for (long r = 0; r < mr; r++)
        for (long v = 0; v < nv; v++) {
            long j = r * PW + v * VL;
            vec sum = load(c + j) + splat(bias[r]) + gate * load(saved + j);
            store(c + j, sum);
            if (copy)
                store(copy + j, sum);
        }
}

/* The code's gradient goes on to the stack through its gate, whose own gradient it makes. */
static __attribute__((noinline)) void split_code_gradient(const run *at, const product *it,
                                                          float *c, long t, long place, long mr,
                                                          long panel) {
    const float *top = at->top + place;
    float *down = at->levels[at->n_levels - 1].h + place;
    vec gate = splat(at->encoder_gate), sum = {0};
    long nv = vectors_in(at, panel), n_rows = rows_in(at, panel);
    for (long r = 0; r < mr; r++)
        for (long v = 0; v < nv; v++) {
            long j = r * PW + v * VL;
            vec delta = load(c + j);
            ivec row;
            for (int i = 0; i < VL; i++)
                row[i] = v * VL + i < n_rows ? -1 : 0;
            sum += where(row, delta * load(top + j));
            store(down + j, delta * gate);
        }
    finish_backward(it->activation, down, it->saved + place, mr, nv);
    at->encoder_gate_parts[t * at->n_panels + panel] = (double)total(sum);
}

#endif
