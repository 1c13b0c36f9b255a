/* The inner loops of the decoder, written once; included behind tiles.h, whose vector operations they use.
 *
 * Besides those, the including file defines VI (WF 32-bit integers), vi_zero, vi_weights (2 WF weights, widened to 16
 * bits), vi_pair (two activations, in all lanes), NK_DOT (adds to VI the products of two pairs), vf_from_vi, vf_store_i16, vf_max, vf_sum_each, and
 * NK_DOT_ROWS, NK_DOT_VECTORS and NK_VALUE_PAIRS (what fits the registers: rows, vectors of outputs, pairs of vectors).
 */
#include "decoder.h"

/* ---- linear ---- */

/* `rows` rows against NK_DOT_VECTORS vectors of a panel's outputs. Sums of a group are exact in 32 bits: 64 * 127 * 2^15.
 * DOT(acc, w, x) is NK_DOT, or a better one of a CPU that has it. */
#define NK_DEFINE_PANEL(TARGET, NAME, DOT)                                                                             \
    NK_INLINE TARGET void NAME##_strip(const int rows, const char *w, const int first, int64_t groups,                 \
                                       const int16_t *x, int64_t x_stride, const float *x_scale, float *y,             \
                                       int64_t y_stride, int add) {                                                    \
        _Alignas(64) float sums[NK_DOT_ROWS][NK_PACK]; /* in memory: the registers are for a group's sums */                        \
        UNROLL                                                                                                         \
        for (int m = 0; m < rows; m++) UNROLL                                                                          \
        for (int s = 0; s < NK_DOT_VECTORS; s++) vf_store(sums[m] + s * WF, vf_set1(0.0f));                            \
        for (int64_t g = 0; g < groups; g++, w += NK_PACK_BYTES, x += NK_GROUP) {                                      \
            VI acc[NK_DOT_ROWS][NK_DOT_VECTORS];                                                                       \
            UNROLL                                                                                                     \
            for (int m = 0; m < rows; m++) UNROLL                                                                      \
            for (int s = 0; s < NK_DOT_VECTORS; s++) acc[m][s] = vi_zero();                                            \
            for (int k = 0; k < NK_GROUP / 2; k++) {                                                                   \
                const int8_t *line = (const int8_t *)w + k * 2 * NK_PACK;                                              \
                __builtin_prefetch((const char *)line + NK_DECODER_AHEAD, 0, 3);                                       \
                VI part[NK_DOT_VECTORS];                                                                               \
                UNROLL                                                                                                 \
                for (int s = 0; s < NK_DOT_VECTORS; s++) part[s] = vi_weights(line + (first + s) * 2 * WF);            \
                UNROLL                                                                                                 \
                for (int m = 0; m < rows; m++) {                                                                       \
                    VI pair = vi_pair(x + m * x_stride + 2 * k);                                                       \
                    UNROLL                                                                                             \
                    for (int s = 0; s < NK_DOT_VECTORS; s++) DOT(acc[m][s], part[s], pair);                            \
                }                                                                                                      \
            }                                                                                                          \
            const float *scales = (const float *)(w + NK_GROUP * NK_PACK) + first * WF;                                \
            UNROLL                                                                                                     \
            for (int m = 0; m < rows; m++) UNROLL                                                                      \
            for (int s = 0; s < NK_DOT_VECTORS; s++) {                                                                 \
                float *sum = sums[m] + s * WF;                                                                         \
                vf_store(sum, vf_fma(vf_from_vi(acc[m][s]), vf_load(scales + s * WF), vf_load(sum)));                  \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL                                                                                                         \
        for (int m = 0; m < rows; m++) {                                                                               \
            UNROLL                                                                                                     \
            for (int s = 0; s < NK_DOT_VECTORS; s++) {                                                                 \
                float *to = y + m * y_stride + (first + s) * WF;                                                       \
                VF before = add ? vf_load(to) : vf_set1(0.0f);                                                         \
                vf_store(to, vf_fma(vf_load(sums[m] + s * WF), vf_set1(x_scale[m]), before));                          \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    NK_INLINE TARGET void NAME##_rows(const int rows, const char *w, int64_t groups, const int16_t *x,                 \
                                      int64_t x_stride, const float *x_scale, float *y, int64_t y_stride, int add) {   \
        for (int first = 0; first < NK_PACK / WF; first += NK_DOT_VECTORS)                                             \
            NAME##_strip(rows, w, first, groups, x, x_stride, x_scale, y, y_stride, add);                              \
    }                                                                                                                  \
    TARGET static void NAME(int rows, const char *w, int64_t groups, const int16_t *x, int64_t x_stride,               \
                            const float *x_scale, float *y, int64_t y_stride, int add) {                               \
        switch (rows) {                                                                                                \
            NK_PANEL_CASE(NAME, 1)                                                                                     \
            NK_PANEL_CASE(NAME, 2)                                                                                     \
            NK_PANEL_CASE(NAME, 3)                                                                                     \
            NK_PANEL_CASE(NAME, 4)                                                                                     \
            NK_MORE_PANEL_CASES(NAME)                                                                                  \
        }                                                                                                              \
    }

#define NK_PANEL_CASE(NAME, R)                                                                                         \
    case R:                                                                                                            \
        NAME##_rows(R, w, groups, x, x_stride, x_scale, y, y_stride, add);                                             \
        break;
#if NK_DOT_ROWS > 4
#define NK_MORE_PANEL_CASES(NAME)                                                                                      \
    NK_PANEL_CASE(NAME, 5) NK_PANEL_CASE(NAME, 6) NK_PANEL_CASE(NAME, 7) NK_PANEL_CASE(NAME, 8)
#else
#define NK_MORE_PANEL_CASES(NAME)
#endif

/* ---- rows ---- */

HOT float sum_lanes(VF v) {
    float part[WF], sum = 0.0f;
    vf_store(part, v);
    for (int i = 0; i < WF; i++) sum += part[i];
    return sum;
}

HOT float max_lanes(VF v) {
    float part[WF], most;
    vf_store(part, v);
    most = part[0];
    for (int i = 1; i < WF; i++) most = part[i] > most ? part[i] : most;
    return most;
}

NK_TARGET static void decoder_norm(const float *from, const float *weight, int64_t count, double eps, float *to) {
    VF squares = vf_set1(0.0f);
    float sum;
    int64_t i = 0;
    for (; i + WF <= count; i += WF) squares = vf_fma(vf_load(from + i), vf_load(from + i), squares);
    sum = sum_lanes(squares);
    for (; i < count; i++) sum += from[i] * from[i];
    float factor = (float)(1.0 / sqrt((double)sum / (double)count + eps));
    for (i = 0; i + WF <= count; i += WF)
        vf_store(to + i, vf_mul(vf_mul(vf_load(from + i), vf_set1(factor)), vf_load(weight + i)));
    for (; i < count; i++) to[i] = from[i] * factor * weight[i];
}

NK_TARGET static float decoder_quantise(const float *from, int64_t count, int64_t padded, int16_t *to) {
    VF most = vf_set1(0.0f);
    float largest;
    int64_t i = 0;
    for (; i + WF <= count; i += WF) {
        VF v = vf_load(from + i);
        most = vf_max(most, vf_max(v, vf_sub(vf_set1(0.0f), v)));
    }
    largest = max_lanes(most);
    for (; i < count; i++) largest = fabsf(from[i]) > largest ? fabsf(from[i]) : largest;
    float factor = largest > 0.0f ? 32767.0f / largest : 0.0f;
    if (!(factor < INFINITY)) factor = 0.0f; /* what is that small counts as nothing */
    for (i = 0; i + WF <= count; i += WF) vf_store_i16(to + i, vf_mul(vf_load(from + i), vf_set1(factor)));
    for (; i < count; i++) to[i] = (int16_t)lrintf(from[i] * factor);
    for (; i < padded; i++) to[i] = 0;
    return largest / 32767.0f;
}

NK_TARGET static void decoder_swiglu(const float *gate, const float *up, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i += WF) /* the buffers are padded */
        vf_store(to + i, vf_mul(activate(vf_load(gate + i), NK_SILU), vf_load(up + i)));
}

NK_TARGET static void decoder_split(const float *from, int64_t dim, int64_t padded, float *to) {
    for (int64_t d0 = 0; d0 < padded; d0 += 2 * WF) {
        for (int i = 0; i < WF; i++) {
            int64_t d = d0 + 2 * i;
            to[d0 + i] = d < dim ? from[d] : 0.0f;
            to[d0 + WF + i] = d + 1 < dim ? from[d + 1] : 0.0f;
        }
    }
}

NK_TARGET static void decoder_join(const float *from, float factor, int64_t dim, float *to) {
    for (int64_t d = 0; d < dim; d++) {
        int64_t within = d % (2 * WF);
        to[d] = factor * from[d - within + within / 2 + (within % 2) * WF];
    }
}

NK_TARGET static void decoder_narrow(const float *from, int64_t dim, int64_t padded, uint16_t *to) {
    int64_t d = 0;
    for (; d + WF <= dim; d += WF) vf_store_bf16(to + d, vf_load(from + d));
    for (; d < dim; d++) to[d] = nk_to_bf16(from[d]);
    for (; d < padded; d++) to[d] = 0;
}

/* ---- attention ---- */

enum { KEYS_AHEAD = 16 }; /* keys that are fetched ahead: slots lie where no hardware looks ahead */

HOT void fetch_ahead(const uint16_t *rows, const int32_t *slots, int64_t at, int64_t count, const int64_t padded) {
    const uint16_t *row = rows + (int64_t)slots[at + KEYS_AHEAD < count ? at + KEYS_AHEAD : count - 1] * padded;
    UNROLL
    for (int64_t d = 0; d < padded; d += 32) __builtin_prefetch(row + d, 0, 3);
}

HOT void scores_of(const int queries, const int64_t padded, const uint16_t *keys, const int32_t *slots, int64_t count,
                   const float *q, float *out, int64_t out_stride) {
    for (int64_t j0 = 0; j0 < count; j0 += WF) {
        VF sums[NK_DECODER_QUERIES][WF];
        for (int j = 0; j < WF; j++) { /* beyond the last key it is read again */
            const uint16_t *key = keys + (int64_t)slots[j0 + j < count ? j0 + j : count - 1] * padded;
            fetch_ahead(keys, slots, j0 + j, count, padded);
            VF acc[NK_DECODER_QUERIES];
            UNROLL
            for (int i = 0; i < queries; i++) acc[i] = vf_set1(0.0f);
            UNROLL
            for (int64_t d = 0; d < padded; d += 2 * WF) {
                const uint32_t *words = (const uint32_t *)(key + d);
                VF low = vf_load_low(words), high = vf_load_high(words);
                UNROLL
                for (int i = 0; i < queries; i++) {
                    acc[i] = vf_fma(low, vf_load(q + i * padded + d), acc[i]);
                    acc[i] = vf_fma(high, vf_load(q + i * padded + d + WF), acc[i]);
                }
            }
            UNROLL
            for (int i = 0; i < queries; i++) sums[i][j] = acc[i];
        }
        UNROLL
        for (int i = 0; i < queries; i++) vf_store(out + i * out_stride + j0, vf_sum_each(sums[i]));
    }
}

/* Heads of 64 dimensions are the usual ones: their loops are unrolled. */
#define NK_QUERY_CASES(F, ...)                                                                                         \
    switch (padded == 64 ? queries : -queries) {                                                                       \
    case 1:                                                                                                            \
        F(1, 64, __VA_ARGS__);                                                                                         \
        break;                                                                                                         \
    case 2:                                                                                                            \
        F(2, 64, __VA_ARGS__);                                                                                         \
        break;                                                                                                         \
    case 3:                                                                                                            \
        F(3, 64, __VA_ARGS__);                                                                                         \
        break;                                                                                                         \
    case 4:                                                                                                            \
        F(4, 64, __VA_ARGS__);                                                                                         \
        break;                                                                                                         \
    case -1:                                                                                                           \
        F(1, padded, __VA_ARGS__);                                                                                     \
        break;                                                                                                         \
    case -2:                                                                                                           \
        F(2, padded, __VA_ARGS__);                                                                                     \
        break;                                                                                                         \
    case -3:                                                                                                           \
        F(3, padded, __VA_ARGS__);                                                                                     \
        break;                                                                                                         \
    default:                                                                                                           \
        F(4, padded, __VA_ARGS__);                                                                                     \
    }

NK_TARGET static void decoder_scores(const uint16_t *keys, const int32_t *slots, int64_t count, const float *q,
                                     int queries, int64_t padded, float *out, int64_t out_stride) {
    NK_QUERY_CASES(scores_of, keys, slots, count, q, out, out_stride)
}

NK_TARGET static float decoder_softmax(float *scores, int64_t count, float scale) {
    VF most = vf_set1(-INFINITY), sum = vf_set1(0.0f);
    int64_t i = 0, whole = count - count % WF;
    float largest, total;
    for (; i < whole; i += WF) most = vf_max(most, vf_load(scores + i));
    largest = max_lanes(most);
    for (; i < count; i++) largest = scores[i] > largest ? scores[i] : largest;
    if (whole < count) { /* the last vector is filled up with what weighs nothing */
        for (; i < whole + WF; i++) scores[i] = -INFINITY;
    }
    for (i = 0; i < count; i += WF) {
        VF weight = vf_mul(vf_sub(vf_load(scores + i), vf_set1(largest)), vf_set1(scale));
        weight = exp_of_floats(weight);
        vf_store(scores + i, weight);
        if (i < whole) sum = vf_add(sum, weight);
    }
    total = sum_lanes(sum);
    for (i = whole; i < count; i++) total += scores[i];
    return total;
}

/* In heads of a known size several pairs of vectors at a time: so many accumulators hide the multiplier's latency. */
HOT void values_of(const int queries, const int64_t padded, const uint16_t *values, const int32_t *slots, int64_t count,
                   const float *weights, int64_t weight_stride, float *acc) {
    const int pairs = __builtin_constant_p(padded) ? NK_VALUE_PAIRS : 1;
    for (int64_t d = 0; d < padded; d += pairs * 2 * WF) {
        VF sums[NK_DECODER_QUERIES][2 * NK_VALUE_PAIRS];
        UNROLL
        for (int i = 0; i < queries; i++) UNROLL
        for (int p = 0; p < 2 * pairs; p++) sums[i][p] = vf_load(acc + i * padded + d + p * WF);
        for (int64_t j = 0; j < count; j++) {
            const uint16_t *value = values + (int64_t)slots[j] * padded + d;
            VF even[NK_VALUE_PAIRS], odd[NK_VALUE_PAIRS];
            if (d == 0) fetch_ahead(values, slots, j, count, padded);
            UNROLL
            for (int p = 0; p < pairs; p++) {
                const uint32_t *words = (const uint32_t *)(value + p * 2 * WF);
                even[p] = vf_load_low(words);
                odd[p] = vf_load_high(words);
            }
            UNROLL
            for (int i = 0; i < queries; i++) {
                VF weight = vf_set1(weights[i * weight_stride + j]);
                UNROLL
                for (int p = 0; p < pairs; p++) {
                    sums[i][2 * p] = vf_fma(weight, even[p], sums[i][2 * p]);
                    sums[i][2 * p + 1] = vf_fma(weight, odd[p], sums[i][2 * p + 1]);
                }
            }
        }
        UNROLL
        for (int i = 0; i < queries; i++) UNROLL
        for (int p = 0; p < 2 * pairs; p++) vf_store(acc + i * padded + d + p * WF, sums[i][p]);
    }
}

NK_TARGET static void decoder_values(const uint16_t *values, const int32_t *slots, int64_t count, const float *weights,
                                     int64_t weight_stride, int queries, int64_t padded, float *acc) {
    NK_QUERY_CASES(values_of, values, slots, count, weights, weight_stride, acc)
}

NK_DEFINE_PANEL(NK_TARGET, decoder_panel, NK_DOT)

#define NK_DEFINE_DECODER(NAME, PANEL)                                                                                 \
    const nk_decoder_isa NAME = {NK_DOT_ROWS,   PANEL,         decoder_norm,   decoder_quantise, decoder_swiglu,       \
                                 decoder_split, decoder_join,  decoder_narrow, decoder_scores,   decoder_softmax,      \
                                 decoder_values};
