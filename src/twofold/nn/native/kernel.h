/* The microkernel: a tile of outputs is a sum of products, kept in registers until it is done.
 *
 *     c[r][0 .. 2 VL) (+)= sum over k of a[r, k] * b[k][0 .. 2 VL)         r = 0 ... mr - 1 < MR
 *
 * Each k takes two loads of b and mr factors of a, for 2 mr multiplications with addition. b and c
 * are panels, [k][PW], and a is read where it lies:
 *
 *     encode   W (n_out, n_in) and rows of a panel:    a[r, k] = W[r][k]
 *     decode   the same matrix, the other way:         a[r, k] = W[k][r]
 *     update   deltas, and what they came from:        a[r, k] = H[r][k], k the rows of the batch
 *
 * An output's sum runs over k in order, in one register or through c, so its bits depend neither on
 * the tile it is in nor on the thread that makes it. What is zero in a whole panel, or in a row of a
 * strip, is left out: adding it would change no bit. All loops over sums are unrolled, or compilers
 * keep the sums in memory at a third of the speed.
 */

#ifndef TWOFOLD_KERNEL_H
#define TWOFOLD_KERNEL_H

#include <stddef.h>

#include "vectors.h"

enum { AHEAD = 8 }; /* rows of a matrix that are fetched before they are needed */

/* Over all k, or over those in `kept`. */
ALWAYS_INLINE void multiply(const int mr, const int nv, const int strides, const int32_t *kept,
                            const float *a, const long rs, const long cs, const float *b, long n,
                            float *c, int adds) {
    vec s[MR][2];
    UNROLL for (int r = 0; r < mr; r++) {
        UNROLL for (int v = 0; v < nv; v++)
            s[r][v] = adds ? load(c + r * PW + v * VL) : (vec){0};
    }
    for (long i = 0; kept && i < n; i++) {
        long k = kept[i];
        const float *from = b + k * PW;
        vec x[2];
        UNROLL for (int v = 0; v < nv; v++) x[v] = load(from + v * VL);
        UNROLL for (int r = 0; r < mr; r++) {
            vec w = splat(a[r * rs + k]);
            UNROLL for (int v = 0; v < nv; v++) s[r][v] += w * x[v];
        }
    }
    for (long k = 0; !kept && k < n; k++) {
        vec x[2];
        UNROLL for (int v = 0; v < nv; v++) x[v] = load(b + v * VL);
        if (strides) { /* each k is in another row, which no processor foresees */
            __builtin_prefetch(a + AHEAD * cs);
            __builtin_prefetch(a + AHEAD * cs + mr - 1);
        }
        UNROLL for (int r = 0; r < mr; r++) {
            vec w = splat(a[r * rs]);
            UNROLL for (int v = 0; v < nv; v++) s[r][v] += w * x[v];
        }
        a += cs;
        b += PW;
    }
    UNROLL for (int r = 0; r < mr; r++) {
        UNROLL for (int v = 0; v < nv; v++) store(c + r * PW + v * VL, s[r][v]);
    }
}

/* The rows of a matrix that a tile of gradients belongs to. If it `descends`, plain gradient descent
 * is done as the tile is: w = keep w - rate c. Otherwise the sums go to c.
 */
typedef struct {
    float *w;
    long ld;
    int descends;
    float keep, rate;
} target_rows;

/* A row of a batch: where it lies in the panels of h, and in a strip. */
typedef struct {
    uint32_t h, v;
} batch_row;

/* Over blocks of rows: those of one panel in each, `tail` in the last one of `period`. Or over the n
 * rows in `kept`.
 */
ALWAYS_INLINE void multiply_rows(const int mr, const int nv, const float *h, long block,
                                 const float *v, long n_blocks, long period, long tail,
                                 const batch_row *kept, long n, float *c,
                                 const target_rows *to) {
    vec s[MR][2];
    UNROLL for (int r = 0; r < mr; r++) {
        UNROLL for (int j = 0; j < nv; j++) __builtin_prefetch(to->w + r * to->ld + j * VL, 1);
    }
    UNROLL for (int r = 0; r < mr; r++) {
        UNROLL for (int j = 0; j < nv; j++) s[r][j] = (vec){0};
    }
    for (long k = 0; kept && k < n; k++) {
        const float *a = h + kept[k].h, *b = v + kept[k].v;
        vec x[2];
        UNROLL for (int j = 0; j < nv; j++) x[j] = load(b + j * VL);
        UNROLL for (int r = 0; r < mr; r++) {
            vec w = splat(a[r * PW]);
            UNROLL for (int j = 0; j < nv; j++) s[r][j] += w * x[j];
        }
    }
    for (long i = 0; !kept && i < n_blocks; i++) {
        const float *a = h + i * block, *b = v + i * PW * PW;
        for (long k = 0; k < ((i + 1) % period ? PW : tail); k++) {
            vec x[2];
            UNROLL for (int j = 0; j < nv; j++) x[j] = load(b + j * VL);
            UNROLL for (int r = 0; r < mr; r++) {
                vec w = splat(a[r * PW]);
                UNROLL for (int j = 0; j < nv; j++) s[r][j] += w * x[j];
            }
            a++;
            b += PW;
        }
    }
    if (to->descends) {
        vec keep = splat(to->keep), rate = splat(to->rate);
        float *w = to->w;
        UNROLL for (int r = 0; r < mr; r++) {
            UNROLL for (int j = 0; j < nv; j++)
                store(w + j * VL, keep * load(w + j * VL) - rate * s[r][j]);
            w += to->ld;
        }
    } else {
        UNROLL for (int r = 0; r < mr; r++) {
            UNROLL for (int j = 0; j < nv; j++) store(c + r * PW + j * VL, s[r][j]);
        }
    }
}

typedef void forward_tile(const float *w, long ld, const int32_t *kept, const float *b, long n,
                          float *c, int adds);
typedef void update_tile(const float *h, long block, const float *v, long n_blocks, long period,
                         long tail, float *c, const target_rows *to);
typedef void update_kept_tile(const float *h, const float *v, const batch_row *kept, long n,
                              float *c, const target_rows *to);

#define MULTIPLY(NAME, M, V, STRIDES, KEPT, RS, CS)                                               \
    static __attribute__((noinline)) void NAME##_##M##_##V(const float *w, long ld,             \
                                                           const int32_t *kept, const float *b, \
                                                           long n, float *c, int adds) {        \
        (void)kept;                                                                              \
        multiply(M, V, STRIDES, KEPT, w, RS, CS, b, n, c, adds);                                 \
    }
#define TILE(M, V)                                                                               \
    MULTIPLY(encode, M, V, 0, NULL, ld, 1)                                                        \
    MULTIPLY(encode_kept, M, V, 0, kept, ld, 1)                                                   \
    MULTIPLY(decode, M, V, 1, NULL, 1, ld)                                                        \
    static __attribute__((noinline)) void update_##M##_##V(                                     \
        const float *h, long block, const float *v, long n_blocks, long period, long tail,      \
        float *c, const target_rows *to) {                                                       \
        multiply_rows(M, V, h, block, v, n_blocks, period, tail, NULL, 0, c, to);                \
    }                                                                                            \
    static __attribute__((noinline)) void update_kept_##M##_##V(                                \
        const float *h, const float *v, const batch_row *kept, long n, float *c,                \
        const target_rows *to) {                                                                 \
        multiply_rows(M, V, h, 0, v, 0, 1, 0, kept, n, c, to);                                   \
    }
#define TILES(M) TILE(M, 1) TILE(M, 2)

#if MR == 12
#define EACH(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#else
#define EACH(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif

EACH(TILES)

#define ENCODE_ENTRY(M) {encode_##M##_1, encode_##M##_2},
#define ENCODE_KEPT_ENTRY(M) {encode_kept_##M##_1, encode_kept_##M##_2},
#define DECODE_ENTRY(M) {decode_##M##_1, decode_##M##_2},
#define UPDATE_ENTRY(M) {update_##M##_1, update_##M##_2},
#define UPDATE_KEPT_ENTRY(M) {update_kept_##M##_1, update_kept_##M##_2},

/* By outputs and vectors, both less one. */
static forward_tile *const encode_tiles[MR][2] = {EACH(ENCODE_ENTRY)};
static forward_tile *const encode_kept_tiles[MR][2] = {EACH(ENCODE_KEPT_ENTRY)};
static forward_tile *const decode_tiles[MR][2] = {EACH(DECODE_ENTRY)};
static update_tile *const update_tiles[MR][2] = {EACH(UPDATE_ENTRY)};
static update_kept_tile *const update_kept_tiles[MR][2] = {EACH(UPDATE_KEPT_ENTRY)};

/* Outputs are cut into tiles of nearly the same height, none of which has few sums. */
static inline long n_tiles(long n) { return (n + MR - 1) / MR; }
static inline long tile_start(long tile, long n) { return tile * n / n_tiles(n); }

#endif
