/* What each instruction set's copy of the code offers. */

#ifndef TWOFOLD_TABLE_H
#define TWOFOLD_TABLE_H

#include "native.h"

typedef struct {
    int64_t (*train_bytes)(const twofold_stack *, const twofold_update *, int64_t);
    int64_t (*train)(const twofold_stack *, const twofold_objective *, const twofold_update *,
                     const twofold_batches *, void *);
    int64_t (*apply_bytes)(const twofold_stack *);
    void (*apply)(const twofold_stack *, int64_t, const float *, float *, float *, void *);
    double (*peak)(double);
    double (*kernel_speed)(int64_t, int64_t, double);
} twofold_table;

#endif
