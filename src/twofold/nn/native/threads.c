/* A training step is over in less than a millisecond, and its threads meet a dozen times in it.
 * Threads that slept at each meeting would cost more than they compute; threads that spun for ever
 * would keep each other from the processor where another process has it. So they spin for some
 * microseconds, and then they sleep: whoever is late has lost its processor, and the system gives
 * it that of a thread that sleeps, not that of one that yields. Between jobs they sleep, too.
 */

#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>

#ifdef __linux__
#include <linux/futex.h>
#include <limits.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

enum { MOST = 256, CALIBRATION = 200 };

static const double SPIN_SECONDS = 30e-6;

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* How many pauses fill SPIN_SECONDS: between processors one differs fivefold in length. */
static int n_spins = 1000;

static void calibrate(void) {
    double start = now();
    for (int i = 0; i < CALIBRATION; i++)
        pause_briefly();
    double each = (now() - start) / CALIBRATION;
    double n = SPIN_SECONDS / (each > 1e-9 ? each : 1e-9);
    n_spins = n < 100 ? 100 : n > 20000 ? 20000 : (int)n;
}

/* Return once `word` is not `value` any more; whoever changes it calls `wake`. */
static void await_change(atomic_int *word, int value, atomic_int *n_asleep) {
    for (int spins = 0; spins < n_spins; spins++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value)
            return;
        pause_briefly();
    }
    while (atomic_load(word) == value) {
#ifdef __linux__
        atomic_fetch_add(n_asleep, 1);
        /* Not where the word has changed since. */
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
        atomic_fetch_sub(n_asleep, 1);
#else
        (void)n_asleep;
        sched_yield();
#endif
    }
}

static void wake(atomic_int *word, atomic_int *n_asleep) {
#ifdef __linux__
    if (atomic_load(n_asleep) > 0)
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#else
    (void)word, (void)n_asleep;
#endif
}

void twofold_barrier_init(twofold_barrier *barrier, int n) {
    atomic_init(&barrier->arrived, 0);
    atomic_init(&barrier->round, 0);
    atomic_init(&barrier->n_asleep, 0);
    barrier->n = n;
}

void twofold_barrier_wait(twofold_barrier *barrier) {
    if (barrier->n == 1)
        return;
    int round = atomic_load_explicit(&barrier->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&barrier->arrived, 1, memory_order_acq_rel) == barrier->n - 1) {
        atomic_store_explicit(&barrier->arrived, 0, memory_order_relaxed);
        atomic_store(&barrier->round, round + 1);
        wake(&barrier->round, &barrier->n_asleep);
        return;
    }
    await_change(&barrier->round, round, &barrier->n_asleep);
}

/* The pool. Whoever computes with it holds `owner`; `lock` guards the job. */
static pthread_mutex_t owner = PTHREAD_MUTEX_INITIALIZER, lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t called = PTHREAD_COND_INITIALIZER;
static atomic_uint n_jobs;
static atomic_int n_busy, n_asleep; /* who compute, and who wait for them */
static int n_workers, n_wanted;
static twofold_job job;
static void *job_context;
static unsigned jobs_before[MOST]; /* each thread was made */

static void *work(void *argument) {
    int thread = (int)(intptr_t)argument;
    unsigned seen = jobs_before[thread];
    for (;;) {
        int spins = 0;
        while (atomic_load_explicit(&n_jobs, memory_order_acquire) == seen && spins < n_spins) {
            spins++;
            pause_briefly();
        }
        pthread_mutex_lock(&lock);
        while (atomic_load_explicit(&n_jobs, memory_order_relaxed) == seen)
            pthread_cond_wait(&called, &lock);
        seen = atomic_load_explicit(&n_jobs, memory_order_relaxed);
        int n = n_wanted;
        twofold_job own = job;
        void *context = job_context;
        pthread_mutex_unlock(&lock);
        if (thread < n) {
            own(context, thread, n);
            if (atomic_fetch_sub(&n_busy, 1) == 1)
                wake(&n_busy, &n_asleep);
        }
    }
    return NULL;
}

/* After a fork the child has none of the threads, and nobody who would open the locks. */
static void start_over(void) {
    pthread_mutex_init(&owner, NULL);
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&called, NULL);
    atomic_store(&n_busy, 0);
    atomic_store(&n_asleep, 0);
    n_workers = 0;
}

static void prepare(void) {
    calibrate();
    pthread_atfork(NULL, NULL, start_over);
}

/* Make threads until there are `n` with the caller's, and return how many there are. */
static int grow(int n) {
    sigset_t all, before; /* signals are for the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (n_workers < n - 1) {
        pthread_t id;
        int thread = n_workers + 1;
        jobs_before[thread] = atomic_load_explicit(&n_jobs, memory_order_relaxed);
        if (pthread_create(&id, NULL, work, (void *)(intptr_t)thread))
            break; /* the system gives no more */
        pthread_detach(id);
        n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n_workers + 1 < n ? n_workers + 1 : n;
}

int twofold_claim(int n) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (n <= 1)
        return 1;
    pthread_once(&once, prepare);
    if (pthread_mutex_trylock(&owner))
        return 1;
    n = grow(n < MOST ? n : MOST);
    if (n == 1)
        pthread_mutex_unlock(&owner);
    return n;
}

void twofold_run(twofold_job what, void *context, int n) {
    if (n == 1) {
        what(context, 0, 1);
        return;
    }
    pthread_mutex_lock(&lock);
    job = what;
    job_context = context;
    n_wanted = n;
    atomic_store_explicit(&n_busy, n - 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&n_jobs, 1, memory_order_release);
    pthread_cond_broadcast(&called);
    pthread_mutex_unlock(&lock);
    what(context, 0, n);
    for (int left; (left = atomic_load_explicit(&n_busy, memory_order_acquire)) != 0;)
        await_change(&n_busy, left, &n_asleep);
    pthread_mutex_unlock(&owner);
}
