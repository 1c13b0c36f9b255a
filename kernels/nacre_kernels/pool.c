/* Worker threads, per-thread scratch memory and a known floating-point mode.
 *
 * Rule: results do not depend on any of this; a task's parts are independent. One call at a time uses the workers; a
 * second caller that comes meanwhile runs all its parts itself. Workers exist from the first call that asks for more
 * than one thread and die with the process; after a fork the child starts with none.
 */
#include "kernels.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { MAX_WORKERS = 63, SPINS = 4000 }; /* a worker spins for some tens of microseconds before it sleeps */

static pthread_mutex_t owner = PTHREAD_MUTEX_INITIALIZER; /* held by the call that uses the workers */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;  /* guards sleeping */
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER, finished = PTHREAD_COND_INITIALIZER;
static atomic_uint generation; /* counts the jobs */
static atomic_int unfinished;  /* workers that have not left the current job */
static int workers;
static nk_task job;
static void *job_context;
static int job_parts;

static void pause_briefly(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Round to nearest, subnormals kept: torch.set_flush_denormal and the like are per thread and would change bits. What a
 * task changes of the mode ends with its part. */
static void run_part(nk_task task, void *context, int part, int parts) {
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(0x1f80);
    task(context, part, parts);
    _mm_setcsr(before);
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    task(context, part, parts);
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
#else
    task(context, part, parts);
#endif
}

typedef struct {
    int index;
    unsigned seen;
} worker_start;

static void *worker_main(void *argument) {
    worker_start start = *(worker_start *)argument;
    free(argument);
    for (unsigned seen = start.seen;;) {
        for (int i = 0; i < SPINS && atomic_load(&generation) == seen; i++) pause_briefly();
        if (atomic_load(&generation) == seen) {
            pthread_mutex_lock(&lock);
            while (atomic_load(&generation) == seen) pthread_cond_wait(&wake, &lock);
            pthread_mutex_unlock(&lock);
        }
        seen++; /* no job starts before every worker has left the one before, so none is missed */
        if (start.index < job_parts) run_part(job, job_context, start.index, job_parts);
        if (atomic_fetch_sub(&unfinished, 1) == 1) {
            pthread_mutex_lock(&lock);
            pthread_cond_signal(&finished);
            pthread_mutex_unlock(&lock);
        }
    }
    return NULL;
}

static void forget_workers(void) { /* in the child of a fork only the forking thread lives */
    pthread_mutex_init(&owner, NULL);
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&wake, NULL);
    pthread_cond_init(&finished, NULL);
    workers = 0;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_workers); }

static void grow(int wanted) { /* as many as the system gives; the caller takes the parts that are left */
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    while (workers < wanted && workers < MAX_WORKERS) {
        worker_start *start = malloc(sizeof *start);
        pthread_t thread;
        if (!start) return;
        start->index = workers + 1; /* part 0 is the caller's */
        start->seen = atomic_load(&generation);
        if (pthread_create(&thread, NULL, worker_main, start) != 0) {
            free(start);
            return;
        }
        pthread_detach(thread);
        workers++;
    }
}

void nk_parallel(int threads, nk_task task, void *context) {
    if (threads <= 1 || pthread_mutex_trylock(&owner) != 0) {
        run_part(task, context, 0, 1);
        return;
    }
    grow(threads - 1);
    int parts = threads <= workers + 1 ? threads : workers + 1;
    job = task;
    job_context = context;
    job_parts = parts;
    atomic_store(&unfinished, workers);
    pthread_mutex_lock(&lock);
    atomic_fetch_add(&generation, 1);
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    run_part(task, context, 0, parts);
    for (int i = 0; i < SPINS && atomic_load(&unfinished) > 0; i++) pause_briefly();
    if (atomic_load(&unfinished) > 0) {
        pthread_mutex_lock(&lock);
        while (atomic_load(&unfinished) > 0) pthread_cond_wait(&finished, &lock);
        pthread_mutex_unlock(&lock);
    }
    pthread_mutex_unlock(&owner);
}

/* ---- scratch ---- */
typedef struct {
    void *memory;
    size_t bytes;
} scratch;

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;

static void free_scratch(void *held) {
    free(((scratch *)held)->memory);
    free(held);
}

static void make_scratch_key(void) { pthread_key_create(&scratch_key, free_scratch); }

void *nk_scratch(size_t bytes) {
    pthread_once(&scratch_once, make_scratch_key);
    scratch *held = pthread_getspecific(scratch_key);
    if (!held) {
        held = calloc(1, sizeof *held);
        if (!held || pthread_setspecific(scratch_key, held) != 0) {
            free(held);
            return NULL;
        }
    }
    if (held->bytes < bytes) {
        free(held->memory);
        held->bytes = 0;
        bytes = (bytes + bytes / 4 + 4095) & ~(size_t)4095; /* room to grow: contexts lengthen token by token */
        if (posix_memalign(&held->memory, 64, bytes) != 0) {
            held->memory = NULL;
            return NULL;
        }
        held->bytes = bytes;
    }
    return held->memory;
}
