/* The training step of a dense stack, and its application; compiled once per instruction set.
 *
 * The derivation, and its names, are those of `fused.py`. For pair i, with n rows in P panels,
 *
 *     e[i]    what it encodes: the batch, or the last hidden layer      [P][n_in][PW]
 *     h[i]    the gradient of what it gives, then what it decodes    2 x [P][n_out][PW]
 *     d[i]    the gradient of what it decodes to                        [P][n_in][PW]
 *     s[i]    e[i] and d[i] once more, row by row               [strips][2][P * PW][PW]
 *
 * and the gradient of its matrix is the product of h[i] and s[i]: for a tied matrix one product over
 * both halves. Panels serve the products of the forward and the backward pass, where an output's
 * sums lie side by side for PW rows; strips those of the gradients, where they do for PW columns.
 *
 * A phase's outputs form a grid of panels and tiles. Threads split it by panels where there are
 * enough (each takes its rows through the whole stack), else by tiles too, and meet after each
 * phase. Sums of losses are added up in the order of the grid, so results do not depend on threads.
 */

#include <math.h>
#include <stddef.h>

#include "native.h"
#include "speed.h"
#include "table.h"
#include "threads.h"

enum {
    MOST_PAIRS = 64,
    ENCODE_INNER = VL == 16 ? 200 : 256, /* k at a time: so much of a panel stays in the first cache */
    DECODE_INNER = 128,                  /* and so many rows of a matrix */
    GROUP = 4,                    /* panels that share a tile's weights, and strips a tile's rows */
};

static const float SELU_SCALE = 1.0507009873554805f, SELU_ALPHA = 1.6732632423543772f;

ALWAYS_INLINE long least(long a, long b) { return a < b ? a : b; }
ALWAYS_INLINE long ceil_div(long a, long b) { return (a + b - 1) / b; }

/* ---- activations, in place over a tile of `mr` outputs and `nv` vectors ---- */

ALWAYS_INLINE vec activate(const int kind, vec a) {
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
    case TWOFOLD_SIGMOID: {
        vec e;
        return logistic(a, &e);
    }
    default:
        return a;
    }
}

/* The derivative from the output h. */
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
    default:
        return delta;
    }
}

ALWAYS_INLINE void activate_rows(const int kind, float *c, const float *bias, long mr, long nv) {
    for (long r = 0; r < mr; r++)
        for (long v = 0; v < nv; v++) {
            float *at = c + r * PW + v * VL;
            store(at, activate(kind, load(at) + splat(bias[r])));
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
    default: DO(TWOFOLD_IDENTITY);                                                               \
    }

static __attribute__((noinline)) void finish_forward(int kind, float *c, const float *bias,
                                                     long mr, long nv) {
#define FORWARD(K) activate_rows(K, c, bias, mr, nv)
    EACH_ACTIVATION(FORWARD)
}

static __attribute__((noinline)) void finish_backward(int kind, float *c, const float *h, long mr,
                                                      long nv) {
#define BACKWARD(K) slope_rows(K, c, h, mr, nv)
    EACH_ACTIVATION(BACKWARD)
}

/* ---- one run of steps ---- */

typedef struct {
    long n_in, n_out, n_strips;
    int up, down; /* activations after encode and after decode */
    const twofold_pair *pair;
    float *e, *h, *d, *s;
} level;

typedef struct {
    const twofold_stack *stack;
    const twofold_objective *objective;
    const twofold_update *update;
    const twofold_batches *batches;
    long n_levels, width, capacity; /* panels that there is room for */
    level levels[MOST_PAIRS];
    float *target; /* [P][width][PW], or e[0] */
    double *losses; /* of each tile of theta in each panel */
    int masked;
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

static long first(long n, long part, long n_parts) { return n * part / n_parts; }

enum finish { FORWARD_PASS, THETA, BACKWARD_PASS };

/* A product and what is done to each of its tiles while it is near. */
typedef struct {
    encode_tile *const (*tiles)[2];
    const float *matrix;
    long ld, n_inner, n_outer;
    const float *in;
    float *out;
    enum finish finish;
    int activation;
    const float *bias, *saved; /* `saved` lies as `out` does */
} product;

static void residual(const run *at, float *c, const float *bias, long t0, long mr, long panel,
                     double *loss);

static void multiply_phase(const share *me, const product *it) {
    run *at = me->run;
    long tiles = n_tiles(it->n_outer);
    long t0 = first(tiles, me->part, me->n_parts), t1 = first(tiles, me->part + 1, me->n_parts);
    long most = it->tiles == encode_tiles ? ENCODE_INNER : DECODE_INNER;
    long n_blocks = ceil_div(it->n_inner, most);
    for (long p0 = me->p0; p0 < me->p1; p0 += GROUP) {
        long p1 = least(p0 + GROUP, me->p1);
        for (long block = 0; block < n_blocks; block++) {
            long k0 = it->n_inner * block / n_blocks, k1 = it->n_inner * (block + 1) / n_blocks;
            for (long t = t0; t < t1; t++) {
                long o = tile_start(t, it->n_outer), mr = tile_start(t + 1, it->n_outer) - o;
                const float *w = it->matrix;
                w += it->tiles == encode_tiles ? o * it->ld + k0 : k0 * it->ld + o;
                for (long p = p0; p < p1; p++) {
                    long nv = vectors_in(at, p), place = (p * it->n_outer + o) * PW;
                    float *c = it->out + place;
                    it->tiles[mr - 1][nv - 1](w, it->ld, it->in + (p * it->n_inner + k0) * PW,
                                              k1 - k0, c, block > 0);
                    if (block < n_blocks - 1)
                        continue;
                    if (it->finish == FORWARD_PASS)
                        finish_forward(it->activation, c, it->bias + o, mr, nv);
                    else if (it->finish == BACKWARD_PASS)
                        finish_backward(it->activation, c, it->saved + place, mr, nv);
                    else
                        residual(at, c, it->bias + o, o, mr, p,
                                 at->losses + t * at->n_panels + p);
                }
            }
        }
    }
    meet_in_phase(me);
}

/* From theta to the loss and its gradient: (mean - x) / cells, and nothing where no cell is. */
static __attribute__((noinline)) void residual(const run *at, float *c, const float *bias, long t0,
                                               long mr, long panel, double *loss) {
    const twofold_objective *objective = at->objective;
    const float *x = at->target + (panel * at->width + t0) * PW;
    long n_rows = rows_in(at, panel), nv = vectors_in(at, panel);
    float share = (float)(1.0 / n_cells(at));
    ivec row[2];
    for (int v = 0; v < 2; v++)
        for (int i = 0; i < VL; i++)
            row[v][i] = v * VL + i < n_rows ? -1 : 0;
    vec sum = {0}, factors = splat(1.0f);
    for (long r = 0; r < mr; r++) {
        vec scale = splat(objective->scale[t0 + r]), gain = scale * share;
        vec offset = splat(objective->offset[t0 + r]), b = splat(bias[r]);
        int bernoulli = objective->likelihood[t0 + r] == TWOFOLD_BERNOULLI;
        for (long v = 0; v < nv; v++) {
            float *place = c + r * PW + v * VL;
            vec theta = load(place) + b, target = load(x + r * PW + v * VL);
            ivec counts = row[v];
            if (at->masked) {
                counts &= target == target;
                target = where(counts, target);
            }
            vec delta, cell;
            if (bernoulli) {
                /* max(theta, 0) - x theta + log(1 + e^-|theta|): the logarithms of a tile are one
                 * of a product, at most 2 to the power of 2 MR. */
                vec e, p = logistic(theta, &e);
                delta = p - target;
                cell = where(~(ivec)(theta <= 0.0f), theta) - target * theta;
                factors *= where(counts, e) + 1.0f;
            } else {
                delta = theta - target;
                cell = 0.5f * delta * delta * scale;
            }
            sum += where(counts, cell + offset);
            store(place, where(counts, delta * gain));
        }
    }
    *loss = (double)total(sum) + (double)total(logarithm(factors));
}

/* ---- the batch comes in ---- */

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
            }
            memset(rows + n_rows * PW, 0, (size_t)((PW - n_rows) * PW) * sizeof(float));
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

/* ---- the update ---- */

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
        .root = (float)sqrt(1.0 - pow(beta2, t)),
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
            w[j] = keep * w[j] - by->step * m[j] / (sqrtf(v[j]) / by->root + 1e-8f);
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

/* Items [from, to) of the matrix's grid, strip by strip within groups of strips. */
static void update_matrix(const run *at, const level *it, const twofold_parameter *matrix,
                          int half, int n_halves, const descent *by, long from, long to) {
    long tiles = n_tiles(it->n_out), item = 0;
    long block = it->n_out * PW, strip = 2 * at->n_panels * PW * PW;
    long start = half * at->n_panels;
    int plain = by->kind == TWOFOLD_SGD && !matrix->first;
    _Alignas(64) float c[MR * PW];
    for (long g = 0; g < it->n_strips && item < to; g += GROUP) {
        long g1 = least(g + GROUP, it->n_strips);
        if (item + tiles * (g1 - g) <= from) {
            item += tiles * (g1 - g);
            continue;
        }
        for (long t = 0; t < tiles; t++) {
            long o = tile_start(t, it->n_out), mr = tile_start(t + 1, it->n_out) - o;
            for (long s = g; s < g1; s++, item++) {
                if (item < from || item >= to)
                    continue;
                long n = least(PW, it->n_in - s * PW), place = o * it->n_in + s * PW;
                int at_once = plain && n % VL == 0;
                target_rows to = {matrix->data + place, it->n_in, at_once, by->keep, by->rate};
                update_tiles[mr - 1][n > VL](it->h + start * block + o * PW, block,
                                             it->s + s * strip + start * PW * PW,
                                             n_halves * at->n_panels, at->n_panels, at->tail, c,
                                             &to);
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

static void update_all(const share *me, long n_done, double rate) {
    run *at = me->run;
    descent matrices = descent_of(at->update, n_done, rate, 1);
    descent biases = descent_of(at->update, n_done, rate, 0);
    long n_items = 0;
    for (long i = 0; i < at->n_levels; i++)
        n_items += n_tiles(at->levels[i].n_out) * at->levels[i].n_strips *
                   (at->levels[i].pair->decoder_weight.data ? 2 : 1);
    long from = first(n_items, me->thread, me->n_threads), item = 0;
    long to = first(n_items, me->thread + 1, me->n_threads);
    for (long i = 0; i < at->n_levels; i++) {
        level *it = &at->levels[i];
        long n = n_tiles(it->n_out) * it->n_strips;
        int untied = it->pair->decoder_weight.data != NULL;
        for (int half = 0; half <= untied; half++, item += n) {
            const twofold_parameter *matrix =
                half ? &it->pair->decoder_weight : &it->pair->weight;
            if (item < to && item + n > from)
                update_matrix(at, it, matrix, half, untied ? 1 : 2, &matrices, from - item,
                              to - item);
        }
        update_bias(at, &it->pair->encoder_bias, it->h, it->n_out, &biases, me);
        update_bias(at, &it->pair->decoder_bias, it->d, it->n_in, &biases, me);
    }
}

/* ---- a step, and many ---- */

static float *decoded_from(const run *at, const level *it) {
    return it->h + at->n_panels * it->n_out * PW;
}

static const float *decoder_of(const level *it) {
    return it->pair->decoder_weight.data ? it->pair->decoder_weight.data : it->pair->weight.data;
}

static void forward(const share *me) {
    run *at = me->run;
    for (long i = 0; i < at->n_levels; i++) {
        level *it = &at->levels[i];
        product encode = {
            .tiles = encode_tiles,
            .matrix = it->pair->weight.data,
            .ld = it->n_in,
            .n_inner = it->n_in,
            .n_outer = it->n_out,
            .in = it->e,
            .out = i + 1 < at->n_levels ? it[1].e : decoded_from(at, it),
            .finish = FORWARD_PASS,
            .activation = it->up,
            .bias = it->pair->encoder_bias.data,
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
            .finish = i ? FORWARD_PASS : THETA,
            .activation = it->down,
            .bias = it->pair->decoder_bias.data,
        };
        multiply_phase(me, &decode);
    }
}

static void backward(const share *me) {
    run *at = me->run;
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
            .out = last ? it->h : it[1].d,
            .finish = BACKWARD_PASS,
            .activation = last ? it->up : it[1].down,
            .saved = decoded_from(at, it),
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
            .saved = it->e,
        };
        multiply_phase(me, &back);
    }
    for (long i = 0; i < at->n_levels; i++) {
        if (i)
            to_strips(me, &at->levels[i], at->levels[i].e, 0);
        to_strips(me, &at->levels[i], at->levels[i].d, 1);
    }
}

static void begin_batch(run *at, long step) {
    at->n = at->batches->sizes[step];
    at->n_panels = ceil_div(at->n, PW);
    at->tail = at->n - (at->n_panels - 1) * PW;
    long columns = 0;
    for (long f = 0; !at->masked && f < at->width; f++)
        columns += at->objective->counts[f] != 0.0f;
    atomic_store_explicit(&at->n_seen, at->n * columns, memory_order_relaxed);
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
            for (long i = 0; i < n_tiles(at->width) * at->n_panels; i++)
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
static int64_t lay_out(run *at, const twofold_stack *stack, long n_rows, void *scratch) {
    long capacity = ceil_div(n_rows, PW);
    uintptr_t start = ((uintptr_t)scratch + 63) & ~(uintptr_t)63, free = start;
#define TAKE(TYPE, COUNT)                                                                        \
    (TYPE *)free;                                                                                \
    free += ((uintptr_t)(COUNT) * sizeof(TYPE) + 63) & ~(uintptr_t)63
    at->stack = stack;
    at->n_levels = stack->n_pairs;
    at->width = stack->pairs[0].n_in;
    at->capacity = capacity;
    for (long i = 0; i < at->n_levels; i++) {
        level *it = &at->levels[i];
        it->pair = &stack->pairs[i];
        it->n_in = it->pair->n_in;
        it->n_out = it->pair->n_out;
        it->up = (int)it->pair->encoder_activation;
        it->down = (int)it->pair->decoder_activation;
        it->n_strips = ceil_div(it->n_in, PW);
        it->e = TAKE(float, capacity * it->n_in * PW);
        it->h = TAKE(float, 2 * capacity * it->n_out * PW);
        it->d = TAKE(float, capacity * it->n_in * PW);
        it->s = TAKE(float, it->n_strips * 2 * capacity * PW * PW);
    }
    at->target = TAKE(float, capacity * at->width * PW);
    at->losses = TAKE(double, n_tiles(at->width) * capacity);
    return (int64_t)(free - start) + 64;
}

static int64_t train_bytes(const twofold_stack *stack, int64_t n_rows) {
    run at;
    return lay_out(&at, stack, n_rows, NULL);
}

static int64_t train(const twofold_stack *stack, const twofold_objective *objective,
                     const twofold_update *update, const twofold_batches *batches, void *scratch) {
    run at = {.objective = objective, .update = update, .batches = batches};
    long most = 1;
    for (long i = 0; i < batches->n_steps; i++)
        most = batches->sizes[i] > most ? batches->sizes[i] : most;
    lay_out(&at, stack, most, scratch);
    at.masked = (int)batches->masked;
    if (!at.masked && !batches->target)
        at.target = at.levels[0].e;
    /* Columns beyond a matrix take part in the last strip's sums. */
    for (long i = 0; i < at.n_levels; i++) {
        level *it = &at.levels[i];
        memset(it->s, 0, (size_t)(it->n_strips * 2 * at.capacity * PW * PW) * sizeof(float));
    }
    int n = twofold_claim((int)stack->n_threads);
    twofold_barrier_init(&at.barrier, n);
    twofold_run(take_steps, &at, n);
    int stopped = atomic_load(&at.stops);
    return stopped ? stopped : batches->n_steps;
}

/* ---- applying a stack ---- */

typedef struct {
    const twofold_stack *stack;
    const float *x;
    float *code, *theta, *scratch;
    long n_rows, n_groups, room;
    atomic_long next;
} application;

enum { GROUP_ROWS = GROUP * PW };

static long widest(const twofold_stack *stack) {
    long most = 0;
    for (long i = 0; i < stack->n_pairs; i++) {
        most = stack->pairs[i].n_in > most ? stack->pairs[i].n_in : most;
        most = stack->pairs[i].n_out > most ? stack->pairs[i].n_out : most;
    }
    return most;
}

static void write_rows(const float *panels, long n, long n_rows, long row, float *to) {
    for (long p = 0; p * PW < n_rows; p++)
        transpose(panels + p * n * PW, PW, n, least(PW, n_rows - p * PW), to + (row + p * PW) * n,
                  n);
}

static void apply_groups(void *context, int thread, int n_threads) {
    application *job = context;
    (void)n_threads;
    const twofold_stack *stack = job->stack;
    float *in = job->scratch + thread * 2 * job->room, *out = in + job->room;
    for (;;) {
        long group = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (group >= job->n_groups)
            return;
        long row = group * GROUP_ROWS, n = least(GROUP_ROWS, job->n_rows - row);
        run at = {.n = n, .n_panels = ceil_div(n, PW)};
        at.tail = n - (at.n_panels - 1) * PW;
        share me = {.run = &at, .p0 = 0, .p1 = at.n_panels, .part = 0, .n_parts = 1};
        long width = job->x ? stack->pairs[0].n_in : stack->pairs[stack->n_pairs - 1].n_out;
        const float *from = (job->x ? job->x : job->code) + row * width;
        for (long p = 0; p < at.n_panels; p++) {
            long rows = rows_in(&at, p);
            float *panel = in + p * width * PW;
            transpose(from + p * PW * width, width, rows, width, panel, PW);
            for (long f = 0; rows < PW && f < width; f++)
                memset(panel + f * PW + rows, 0, (size_t)(PW - rows) * sizeof(float));
        }
        for (long i = 0; job->x && i < stack->n_pairs; i++) {
            const twofold_pair *pair = &stack->pairs[i];
            product encode = {encode_tiles, pair->weight.data, pair->n_in, pair->n_in,
                              pair->n_out,  in,                out,        FORWARD_PASS,
                              (int)pair->encoder_activation,   pair->encoder_bias.data, NULL};
            multiply_phase(&me, &encode);
            float *swap = in;
            in = out;
            out = swap;
        }
        if (job->x && job->code)
            write_rows(in, stack->pairs[stack->n_pairs - 1].n_out, n, row, job->code);
        for (long i = stack->n_pairs - 1; job->theta && i >= 0; i--) {
            const twofold_pair *pair = &stack->pairs[i];
            const float *matrix =
                pair->decoder_weight.data ? pair->decoder_weight.data : pair->weight.data;
            product decode = {decode_tiles, matrix, pair->n_in, pair->n_out,
                              pair->n_in,   in,     out,        FORWARD_PASS,
                              (int)pair->decoder_activation, pair->decoder_bias.data, NULL};
            multiply_phase(&me, &decode);
            float *swap = in;
            in = out;
            out = swap;
        }
        if (job->theta)
            write_rows(in, stack->pairs[0].n_in, n, row, job->theta);
    }
}

static int64_t apply_bytes(const twofold_stack *stack) {
    return 64 + stack->n_threads * 2 * GROUP_ROWS * widest(stack) * (int64_t)sizeof(float);
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

#define JOIN(A, B) A##B
#define NAMED(A, B) JOIN(A, B)
const twofold_table NAMED(twofold_, ISA) = {train_bytes, train, apply_bytes,
                                            apply,       peak,  kernel_speed};
