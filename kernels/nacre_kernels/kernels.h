/* Declarations shared by the kernels' C files; the Python side mirrors what is marked PUBLIC.
 *
 * The rule of the whole library: every output element is computed by one fixed sequence of IEEE operations that depends
 * on nothing but its own inputs. Vectors run across independent outputs, never along a sum; wherever a sum has several
 * chains, their number is part of the definition. So tile shapes, thread counts and instruction sets are free to
 * differ.
 */
#ifndef NACRE_KERNELS_H
#define NACRE_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(_WIN32)
#define NK_PUBLIC __attribute__((visibility("default")))
#define NK_INLINE static inline __attribute__((always_inline))
#else
#error "the kernels need gcc or clang on a POSIX system; without them the torch reference is used"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "packed bf16 pairs assume a little-endian CPU; without the kernels the torch reference is used"
#endif

#define NK_ABI_VERSION 6 /* PUBLIC: raise it with every change of a signature, here and in library.py */

enum { NK_F32 = 0, NK_BF16 = 1 };       /* PUBLIC: element types */
enum { NK_SILU = 0, NK_GELU_TANH = 1 }; /* PUBLIC: activations */

/* ---- linear: shapes of the packed weight ---- */
enum {
    NK_PANEL = 32,               /* outputs in a panel */
    NK_DEPTH = 256,              /* inputs in a block; accumulators pause in memory between blocks */
    NK_ROW_BYTES = 128,          /* of a panel: its weights of one input in fp32, of two inputs in bf16 */
    NK_X_STRIDE = NK_DEPTH + 16, /* floats between widened rows: no two rows fall on the same cache set */
    NK_PAIR_STRIDE = NK_DEPTH / 2 + 16, /* the same for rows of pairs, in words */
    NK_ROWS = 128,               /* most rows in a chunk: the widened chunk stays in the L2 cache */
    NK_GROUP_FLOATS = 1 << 16,   /* accumulators of a group of panels */
    NK_AHEAD_BYTES = 8192,       /* how far a lone tile reads ahead */
    NK_FINISH = 8                /* panels rounded and stored together */
};

/* ---- attention ---- */
enum {
    NK_KEYS = 16,              /* keys in a widened block */
    NK_QUERIES = 32,           /* (row, head) pairs that share one pass over the keys */
    NK_CHAINS = 8,             /* chains of the softmax's sum: part of the definition of the result */
    NK_SCORE_DOUBLES = 1 << 17 /* scores of a tile; a single row may need more */
};

/* PUBLIC: status of nk_attention; attention.py words them */
enum { NK_OK = 0, NK_NO_MEMORY = 1, NK_BAD_LENGTH = 2, NK_BAD_PREFIX = 3, NK_BAD_ANCESTORS = 4, NK_BAD_SLOT = 5 };

/* PUBLIC: mirrored by _Call in attention.py */
typedef struct {
    const void *q, *k, *v;
    void *out;
    const float *sinks;
    const int32_t *prefix_offset, *prefix_length, *ancestor_offset, *ancestor_length;
    const int32_t *prefix_slots, *ancestor_slots;
    int64_t prefix_slot_count, ancestor_slot_count;
    int64_t rows, heads, kv_heads, dim, value_dim, slots;
    int64_t q_row_stride, q_head_stride, k_slot_stride, v_slot_stride; /* elements */
    int64_t window;                                                    /* 0: none */
    int64_t bad_row, bad_value;                                        /* out: what a bad status is about */
    int32_t q_type, k_type, v_type, threads;
    double scale, softcap; /* softcap 0: none */
} nk_attention_call;

/* Memory to prefetch while a tile runs: `step` bytes further with every row of the panel. */
typedef struct {
    const char *from;
    int64_t step;
} nk_ahead;

/* ---- what an instruction set provides (isa_*.c) ---- */
typedef struct {
    int max_rows; /* rows of x that one linear tile takes */
    /* c[rows][32] = (first ? 0 : c) + x[rows][depth] · w[depth][32], sequential over depth */
    void (*linear_tile)(int rows, int w_type, const float *x, const void *w, int64_t depth, float *c, int first,
                        nk_ahead ahead);
    /* The same of bf16 inputs and weights, `pairs` of them, in instructions that take pairs; NULL: none. */
    void (*pair_tile)(int rows, const uint32_t *x, const void *w, int64_t pairs, float *c, int first, nk_ahead ahead);
    void (*widen)(const uint16_t *from, float *to, int64_t count); /* bf16 -> fp32 */
    /* y[columns] = round(c + bias) for one row; its panels lie c_stride floats apart, the last one may be partial */
    void (*finish)(const float *c, int64_t c_stride, const float *bias, void *y, int y_type, int64_t columns);
    /* kt[dim][NK_KEYS] = keys of `count` slots, widened; lanes beyond hold anything; prefetches `ahead` more slots */
    void (*load_keys)(const void *keys, int type, int64_t slot_stride, const int32_t *slots, int count, int ahead,
                      int64_t dim, double *kt);
    /* scores[query][key] for four queries qt[dim][4] and one block of keys */
    void (*score_block)(const double *kt, const double *qt, int64_t dim, double scores[4][NK_KEYS]);
    /* in place: scores -> weights; pads to a multiple of NK_CHAINS; returns the sum of the weights (and the sink's) */
    double (*softmax)(double *scores, int64_t count, double scale, double softcap, const float *sink);
    /* vb[key][padded dim] = values of `count` slots, widened, zero beyond value_dim; prefetches `ahead` more slots */
    void (*load_values)(const void *values, int type, int64_t slot_stride, const int32_t *slots, int count, int ahead,
                        int64_t value_dim, double *vb);
    /* acc[query][padded dim] += weights[query][key] * vb[key][padded dim], keys in order; 1..8 queries */
    void (*add_values)(const double *vb, int count, int64_t padded_dim, const double *weights, int64_t weight_stride,
                       double *acc, int queries);
    /* out[count] = round(act(gate)), times up and rounded again where up is given */
    void (*gate)(int type, int kind, const void *gate, const void *up, void *out, int64_t count);
    /* out[dim] = x / sqrt(mean(x^2) + eps) in fp32; rounded (not if late), times weight, rounded */
    void (*norm_row)(int type, const void *x, const float *weight, int late, double eps, int64_t dim, void *out,
                     float *wide);
} nk_isa;

enum { NK_PORTABLE = 0, NK_AVX2 = 1, NK_AVX512 = 2, NK_AVX512_BF16 = 3 };
int nk_get_isa(void);
const nk_isa *nk_current_isa(void);
extern const nk_isa nk_isa_portable;
#if defined(__x86_64__)
extern const nk_isa nk_isa_avx2, nk_isa_avx512, nk_isa_avx512_bf16;
#endif

/* ---- threads and scratch (pool.c) ---- */
typedef void (*nk_task)(void *context, int part, int parts);
void nk_parallel(int threads, nk_task task, void *context); /* runs every part once, on up to `threads` threads */
void *nk_scratch(size_t bytes); /* this thread's, 64-byte aligned, kept for the next call; NULL: no memory */

/* ---- the race noise of single ids (race.c) ---- */
void nk_log_noise(int count, const uint32_t *ids, uint64_t key, uint64_t position, float *to); /* ln S at one position */

/* ---- bf16 ---- */
NK_INLINE float nk_from_bf16(uint16_t bits) {
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)bits << 16};
    return v.f;
}

NK_INLINE uint16_t nk_to_bf16(float value) { /* to nearest, ties to even; every NaN becomes 0x7fc0 as in torch */
    union {
        float f;
        uint32_t u;
    } v = {value};
    if (value != value) return 0x7fc0;
    return (uint16_t)((v.u + 0x7fff + ((v.u >> 16) & 1)) >> 16);
}

#endif
