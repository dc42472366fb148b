/* What the library offers: plain structures and functions, called through ctypes.
 *
 * All memory is the caller's. Matrices are row-major float; a row of data is `stride` numbers after
 * the one before it. Missing cells are NaN.
 */

#ifndef TWOFOLD_NATIVE_H
#define TWOFOLD_NATIVE_H

#include <stdint.h>

#define TWOFOLD_API __attribute__((visibility("default")))

enum twofold_activation {
    TWOFOLD_IDENTITY,
    TWOFOLD_RELU,
    TWOFOLD_LEAKY_RELU,
    TWOFOLD_ELU,
    TWOFOLD_SELU,
    TWOFOLD_TANH,
    TWOFOLD_SIGMOID,
    TWOFOLD_GELU,
    TWOFOLD_SILU,
    TWOFOLD_SOFTPLUS
};

enum twofold_likelihood {
    TWOFOLD_GAUSSIAN,
    TWOFOLD_BERNOULLI,
    TWOFOLD_CATEGORICAL,
    TWOFOLD_HISTOGRAM,
    TWOFOLD_STUDENT_T,
    TWOFOLD_POISSON,
    TWOFOLD_NEGATIVE_BINOMIAL
};

enum twofold_optimizer { TWOFOLD_SGD, TWOFOLD_ADAM, TWOFOLD_ADAMW };

/* A parameter and what its optimizer remembers of past gradients; NULL where there is none. */
typedef struct {
    float *data, *first, *second;
} twofold_parameter;

/* One level of the stack: `weight` is (n_out, n_in), `decoder_weight` too, NULL where tied. */
typedef struct {
    int64_t n_in, n_out;
    int64_t encoder_activation, decoder_activation;
    twofold_parameter weight, decoder_weight, encoder_bias, decoder_bias;
} twofold_pair;

/* A dense stack, from the input to the code, and what computes with it.
 *
 * shortcut: a linear pair from the input to the code and back, or NULL. The code is what it encodes
 *           to plus `encoder_gate` times what the stack does, theta likewise with `decoder_gate`.
 * isa:      one of `twofold_isa_name`
 */
typedef struct {
    int64_t n_pairs;
    const twofold_pair *pairs, *shortcut;
    twofold_parameter encoder_gate, decoder_gate;
    int64_t n_threads, isa;
} twofold_stack;

/* What training lowers: the mean over all cells of each input's loss, `scale` times it.
 *
 * likelihood:   (width,), one of `twofold_likelihood`; a category's levels and a histogram's knots are
 *               inputs in a row
 * scale:        (width,), one over the variance of Gaussian inputs, 1 for the others
 * offset:       (width,), what each known input adds to the loss
 * counts:       (width,), 1 for the first input of each column, 0 for its others
 * center, unit: (width,), an input times its unit, plus its centre, is the logarithm of a count, the
 *               weight of a knot, or the input of a level itself
 * spread:       (width,), Student's scale, the negative binomial's dispersion, the place of a knot in
 *               standard deviations, or 0 for levels
 * log_share:    (width,), what theta adds to: the logarithm of a knot's share in all rows, 0 for levels
 */
typedef struct {
    const int32_t *likelihood;
    const float *scale, *offset, *counts, *center, *unit, *spread, *log_share;
} twofold_objective;

typedef struct {
    int64_t kind, nesterov, clips; /* whether a gradient longer than 1 is scaled down to that */
    double momentum, weight_decay; /* the latter of matrices alone */
    int64_t n_updates;             /* before this call */
} twofold_update;

/* The batches of one call.
 *
 * given:  what the network sees, (any, width); target: what it has to give back, or NULL where that
 *         is the same
 * rows:   the positions of all batches' rows, one after another, or NULL for 0, 1, 2, ...
 * masked: whether cells may be missing
 * sizes, rates, losses: (n_steps,), rows of each batch, its learning rate, and where its loss goes
 */
typedef struct {
    int64_t n_steps, stride, masked;
    const float *given, *target;
    const int64_t *rows, *sizes;
    const double *rates;
    double *losses;
} twofold_batches;

/* Bytes of scratch memory that `twofold_train` needs for batches of at most `n_rows` rows. */
TWOFOLD_API int64_t twofold_train_bytes(const twofold_stack *stack, const twofold_update *update,
                                        int64_t n_rows);

/* Take the steps, until a loss is not finite; return how many were taken.
 *
 * `scratch` is zeros before the first call. Where a matrix does not fill its last strip, sums are made
 * of what lies beyond it, and left: they are nothing's gradient, but odd numbers would take long.
 */
TWOFOLD_API int64_t twofold_train(const twofold_stack *stack, const twofold_objective *objective,
                                  const twofold_update *update, const twofold_batches *batches,
                                  void *scratch);

/* Rows in, codes and the likelihoods' parameters out; either may be NULL, and so may `x`: then the
 * codes come in. */
TWOFOLD_API int64_t twofold_apply_bytes(const twofold_stack *stack);
TWOFOLD_API void twofold_apply(const twofold_stack *stack, int64_t n_rows, const float *x,
                               float *code, float *theta, void *scratch);

/* Instruction sets, from the least to the most: the name, NULL after the last one, and whether this
 * processor has it.
 */
TWOFOLD_API const char *twofold_isa_name(int64_t isa);
TWOFOLD_API int64_t twofold_isa_available(int64_t isa);


/* Billions of multiplications and additions per second that one thread reaches in registers, and in
 * the microkernel on operands of `n_outputs` x `n_inner` in its nearest cache.
 */
TWOFOLD_API double twofold_peak(int64_t isa, double seconds);
TWOFOLD_API double twofold_kernel_speed(int64_t isa, int64_t n_outputs, int64_t n_inner,
                                        double seconds);

#endif
