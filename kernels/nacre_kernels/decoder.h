/* A whole Llama-shaped decoder in one call, for models whose bits decide nothing (draft models).
 *
 * Rule: fast before all; equal up to rounding, not to the bit. Weights are 8-bit integers with one scale per output and
 * NK_GROUP inputs, activations 16-bit integers with one scale per row, their products are summed exactly, and all else is
 * fp32. Keys and values are bf16.
 */
#ifndef NACRE_DECODER_H
#define NACRE_DECODER_H

#include "kernels.h"

enum {
    NK_GROUP = 64,                                              /* PUBLIC: inputs that share a scale */
    NK_PACK = 32,                                               /* outputs in a panel of 8-bit weights */
    NK_PACK_BYTES = NK_GROUP * NK_PACK + NK_PACK * 4,           /* weights of a group in a panel, then their scales */
    NK_DECODER_ROWS = 32,                                       /* most rows that go through the layers together */
    NK_DECODER_QUERIES = 4,                                     /* (row, head) pairs that share one pass over the keys */
    NK_DECODER_AHEAD = 4096                                     /* bytes that weights are read ahead */
};

/* PUBLIC: mirrored by _Layer, _Decoder and _Pass in decoder.py. Matrices are as nk_pack_8 leaves them; gate and up are one
 * matrix whose upper half begins at an output that is a multiple of NK_PACK. */
typedef struct {
    const void *qkv, *out, *gate_up, *down;
    const float *attention_norm, *mlp_norm;
} nk_decoder_layer;

typedef struct {
    const nk_decoder_layer *layers;
    const uint16_t *embedding; /* bf16 [vocab][hidden] */
    const float *final_norm;
    const void *head;
    const float *frequencies; /* [head_dim / 2] */
    uint16_t *kv;             /* bf16 [layers][kv_heads][keys, values][slots][padded head_dim] */
    int64_t layer_count, hidden, intermediate, heads, kv_heads, head_dim, vocab, slots;
    double eps, score_scale, rotary_scale;
} nk_decoder;

/* A row sees the first `prefix` slots of its sequence, then `ancestors` slots from ancestor_slots[ancestor] on, its own
 * last. Rows of one sequence lie together; a row's ancestors come before it. */
typedef struct {
    int32_t token, slot, sequence, prefix, ancestor, ancestors;
} nk_decoder_row;

typedef struct {
    const nk_decoder_row *rows;
    const int32_t *const *prefix_slots; /* by sequence */
    const int64_t *prefix_counts;       /* by sequence: slots there */
    const int32_t *ancestor_slots;
    const int32_t *keep; /* rows that want logits, ascending */
    float *logits;       /* [kept][vocab, rounded up to NK_PACK] */
    int64_t row_count, sequence_count, ancestor_count, keep_count;
    int64_t threads;
    int64_t bad_row; /* out: what a bad status is about */
} nk_decoder_pass;

/* PUBLIC: status of nk_decode */
enum { NK_DECODED = 0, NK_DECODE_NO_MEMORY = 1, NK_DECODE_BAD_TOKEN = 2, NK_DECODE_BAD_SLOT = 3, NK_DECODE_BAD_SPAN = 4 };

/* What an instruction set provides. `padded` counts are multiples of NK_GROUP (inputs) or 32 (head dimensions). */
typedef struct {
    int max_rows; /* rows of one panel call */
    /* y[rows][NK_PACK] = x · w, or added to what is there */
    void (*panel)(int rows, const char *w, int64_t groups, const int16_t *x, int64_t x_stride, const float *x_scale,
                  float *y, int64_t y_stride, int add);
    /* to = from * weight / sqrt(mean(from^2) + eps); `to` may be longer, padding is left alone */
    void (*norm)(const float *from, const float *weight, int64_t count, double eps, float *to);
    /* to = round(from * s); returns 1 / s. Zeroes to[count..padded). */
    float (*quantise)(const float *from, int64_t count, int64_t padded, int16_t *to);
    void (*swiglu)(const float *gate, const float *up, int64_t count, float *to);
    /* Queries and outputs have their dimensions in the order that pairs of bf16 fall apart into. */
    void (*split)(const float *from, int64_t dim, int64_t padded, float *to);
    void (*join)(const float *from, float factor, int64_t dim, float *to);
    void (*narrow)(const float *from, int64_t dim, int64_t padded, uint16_t *to); /* fp32 -> bf16, zero behind */
    /* out[query][key], for 1..NK_DECODER_QUERIES queries; writes up to 15 keys more */
    void (*scores)(const uint16_t *keys, const int32_t *slots, int64_t count, const float *q, int queries, int64_t padded,
                   float *out, int64_t out_stride);
    float (*softmax)(float *scores, int64_t count, float scale); /* in place; returns the sum of the weights */
    /* acc[query][padded] += weights[query][key] · values[key] */
    void (*values)(const uint16_t *values, const int32_t *slots, int64_t count, const float *weights,
                   int64_t weight_stride, int queries, int64_t padded, float *acc);
} nk_decoder_isa;

const nk_decoder_isa *nk_current_decoder_isa(void);
extern const nk_decoder_isa nk_decoder_portable;
#if defined(__x86_64__)
extern const nk_decoder_isa nk_decoder_avx2, nk_decoder_avx512, nk_decoder_avx512_vnni;
#endif

#endif
