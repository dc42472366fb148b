/* Calls go to the code that was compiled for the instruction set that they name. */

#include <stddef.h>

#include "native.h"
#include "table.h"

#if defined(__x86_64__)
extern const twofold_table twofold_baseline, twofold_avx2, twofold_avx512;
static const struct {
    const char *name;
    const twofold_table *table;
} sets[] = {{"baseline", &twofold_baseline}, {"avx2", &twofold_avx2}, {"avx512", &twofold_avx512}};
#elif defined(__aarch64__)
extern const twofold_table twofold_neon;
static const struct {
    const char *name;
    const twofold_table *table;
} sets[] = {{"neon", &twofold_neon}};
#else
extern const twofold_table twofold_baseline;
static const struct {
    const char *name;
    const twofold_table *table;
} sets[] = {{"baseline", &twofold_baseline}};
#endif

enum { N_SETS = sizeof sets / sizeof sets[0] };

const char *twofold_isa_name(int64_t isa) {
    return isa >= 0 && isa < N_SETS ? sets[isa].name : NULL;
}

int64_t twofold_isa_available(int64_t isa) {
    if (isa < 0 || isa >= N_SETS)
        return 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (isa == 1)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (isa == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return 1;
}

int64_t twofold_train_bytes(const twofold_stack *stack, const twofold_update *update,
                            int64_t n_rows) {
    return sets[stack->isa].table->train_bytes(stack, update, n_rows);
}

int64_t twofold_train(const twofold_stack *stack, const twofold_objective *objective,
                      const twofold_update *update, const twofold_batches *batches,
                      void *scratch) {
    return sets[stack->isa].table->train(stack, objective, update, batches, scratch);
}

int64_t twofold_apply_bytes(const twofold_stack *stack) {
    return sets[stack->isa].table->apply_bytes(stack);
}

void twofold_apply(const twofold_stack *stack, int64_t n_rows, const float *x, float *code,
                   float *theta, void *scratch) {
    sets[stack->isa].table->apply(stack, n_rows, x, code, theta, scratch);
}

double twofold_peak(int64_t isa, double seconds) { return sets[isa].table->peak(seconds); }

double twofold_kernel_speed(int64_t isa, int64_t n_outputs, int64_t n_inner, double seconds) {
    return sets[isa].table->kernel_speed(n_outputs, n_inner, seconds);
}
