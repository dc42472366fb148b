/* Threads that persist, and meet at a barrier that spins before it sleeps. */

#ifndef TWOFOLD_THREADS_H
#define TWOFOLD_THREADS_H

#include <stdatomic.h>

/* Meeting point of the threads of one job; each number on a cache line of its own. */
typedef struct {
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_int round;
    atomic_int n_asleep;
    int n;
} twofold_barrier;

void twofold_barrier_init(twofold_barrier *barrier, int n);
void twofold_barrier_wait(twofold_barrier *barrier);

typedef void (*twofold_job)(void *context, int thread, int n_threads);

/* Take up to `n` threads, the caller's among them, and return how many they are: one where another
 * caller has the others. Each claim ends with one `twofold_run` of so many.
 */
int twofold_claim(int n);
void twofold_run(twofold_job job, void *context, int n);

#endif
