/* Activations and norms: every element, every row by the same instructions wherever it lies in the tensor. */
#include "kernels.h"

#include <stdatomic.h>

enum { SHARE = 4096 }; /* elements that a thread takes at a time; less is not worth waking one */

typedef struct {
    const void *gate, *up;
    void *out;
    int type, kind;
    int64_t count;
} gate_call;

static void run_gate(void *context, int part, int parts) {
    const gate_call *c = context;
    size_t size = c->type == NK_BF16 ? 2 : 4;
    int64_t shares = (c->count + SHARE - 1) / SHARE;
    int64_t begin = shares * part / parts * SHARE, end = shares * (part + 1) / parts * SHARE;
    const char *gate = c->gate, *up = c->up;
    if (end > c->count) end = c->count;
    if (begin >= end) return;
    nk_current_isa()->gate(c->type, c->kind, gate + (size_t)begin * size, up ? up + (size_t)begin * size : NULL,
                           (char *)c->out + (size_t)begin * size, end - begin);
}

NK_PUBLIC void nk_gate(const void *gate, const void *up, void *out, int type, int kind, int64_t count, int threads) {
    gate_call c = {gate, up, out, type, kind, count};
    int64_t shares = (count + SHARE - 1) / SHARE;
    nk_parallel(shares < threads ? (int)shares : threads, run_gate, &c);
}

typedef struct {
    const void *x;
    const float *weight;
    void *out;
    int type, late;
    int64_t rows, dim;
    double eps;
    atomic_int failed;
} norm_call;

static void run_norm(void *context, int part, int parts) {
    norm_call *c = context;
    size_t bytes = (size_t)c->dim * (c->type == NK_BF16 ? 2 : 4);
    float *wide = nk_scratch((size_t)(c->dim + 32) * sizeof(float));
    if (!wide) {
        atomic_store(&c->failed, 1);
        return;
    }
    for (int64_t r = c->rows * part / parts; r < c->rows * (part + 1) / parts; r++)
        nk_current_isa()->norm_row(c->type, (const char *)c->x + (size_t)r * bytes, c->weight, c->late, c->eps, c->dim,
                                   (char *)c->out + (size_t)r * bytes, wide);
}

NK_PUBLIC int nk_rms_norm(const void *x, const float *weight, void *out, int type, int late, int64_t rows, int64_t dim,
                          double eps, int threads) {
    norm_call c = {x, weight, out, type, late, rows, dim, eps, 0};
    int64_t shares = (rows * dim + SHARE - 1) / SHARE;
    nk_parallel(shares < threads ? (int)shares : threads, run_norm, &c);
    return atomic_load(&c.failed);
}
