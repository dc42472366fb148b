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
 * the tile it is in nor on the thread that makes it. All loops over sums are unrolled, or compilers
 * keep the sums in memory at a third of the speed.
 */

#ifndef TWOFOLD_KERNEL_H
#define TWOFOLD_KERNEL_H

#include "vectors.h"

enum { AHEAD = 8 }; /* rows of a matrix that are fetched before they are needed */

ALWAYS_INLINE void multiply(const int mr, const int nv, const int strides, const float *a,
                            const long rs, const long cs, const float *b, long n, float *c,
                            int adds) {
    vec s[MR][2];
    UNROLL for (int r = 0; r < mr; r++) {
        UNROLL for (int v = 0; v < nv; v++)
            s[r][v] = adds ? load(c + r * PW + v * VL) : (vec){0};
    }
    for (long k = 0; k < n; k++) {
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

/* Blocks of rows: those of one panel in each, `tail` in the last one of `period`. */
ALWAYS_INLINE void multiply_blocks(const int mr, const int nv, const float *h, long block,
                                   const float *v, long n_blocks, long period, long tail,
                                   float *c, const target_rows *to) {
    vec s[MR][2];
    UNROLL for (int r = 0; r < mr; r++) {
        UNROLL for (int j = 0; j < nv; j++) __builtin_prefetch(to->w + r * to->ld + j * VL, 1);
    }
    UNROLL for (int r = 0; r < mr; r++) {
        UNROLL for (int j = 0; j < nv; j++) s[r][j] = (vec){0};
    }
    for (long i = 0; i < n_blocks; i++) {
        long n = (i + 1) % period ? PW : tail;
        const float *a = h + i * block, *b = v + i * PW * PW;
        for (long k = 0; k < n; k++) {
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

typedef void encode_tile(const float *w, long ld, const float *b, long n, float *c, int adds);
typedef void update_tile(const float *h, long block, const float *v, long n_blocks, long period,
                         long tail, float *c, const target_rows *to);

#define TILE(M, V)                                                                               \
    static __attribute__((noinline)) void encode_##M##_##V(const float *w, long ld,             \
                                                           const float *b, long n, float *c,    \
                                                           int adds) {                           \
        multiply(M, V, 0, w, ld, 1, b, n, c, adds);                                                 \
    }                                                                                            \
    static __attribute__((noinline)) void decode_##M##_##V(const float *w, long ld,             \
                                                           const float *b, long n, float *c,    \
                                                           int adds) {                           \
        multiply(M, V, 1, w, 1, ld, b, n, c, adds);                                                 \
    }                                                                                            \
    static __attribute__((noinline)) void update_##M##_##V(const float *h, long block,          \
                                                           const float *v, long n_blocks,       \
                                                           long period, long tail, float *c,    \
                                                           const target_rows *to) {              \
        multiply_blocks(M, V, h, block, v, n_blocks, period, tail, c, to);                       \
    }
#define TILES(M) TILE(M, 1) TILE(M, 2)

#if MR == 12
#define EACH(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#else
#define EACH(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif

EACH(TILES)

#define ENCODE_ENTRY(M) {encode_##M##_1, encode_##M##_2},
#define DECODE_ENTRY(M) {decode_##M##_1, decode_##M##_2},
#define UPDATE_ENTRY(M) {update_##M##_1, update_##M##_2},

/* By outputs and vectors, both less one. */
static encode_tile *const encode_tiles[MR][2] = {EACH(ENCODE_ENTRY)};
static encode_tile *const decode_tiles[MR][2] = {EACH(DECODE_ENTRY)};
static update_tile *const update_tiles[MR][2] = {EACH(UPDATE_ENTRY)};

/* Outputs are cut into tiles of nearly the same height, none of which has few sums. */
static inline long n_tiles(long n) { return (n + MR - 1) / MR; }
static inline long tile_start(long tile, long n) { return tile * n / n_tiles(n); }

#endif
