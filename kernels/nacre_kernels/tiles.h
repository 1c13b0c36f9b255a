/* The inner loops, written once against a handful of vector operations that each isa_*.c defines.
 *
 * The including file defines NK_TARGET, types VF (WF floats) and VD (WD doubles), the vf_ and vd_ functions used below,
 * NK_TILE_ROWS and NK_WHOLE_ROWS (most rows in a linear tile, and most for which it takes all 32 outputs at once),
 * NK_SCORE_QUERIES, NK_VALUE_VECTORS, and transpose_words. Vectors run across outputs, so WF and WD never show in a
 * result.
 */
#include "kernels.h"

#include <math.h>
#include <string.h>

#define UNROLL _Pragma("GCC unroll 16")
#define HOT    NK_INLINE NK_TARGET

/* ---- linear ---- */

enum { HALF = NK_PANEL / 2, SUBS = HALF / WF };

/* Of WF words: fp32 weights, or those of input i of two, of which the first is in the high halves. */
HOT VF vf_weights(const int w_type, const int i, const char *words) {
    if (w_type == NK_F32) return vf_load((const float *)words);
    return i == 0 ? vf_load_high((const uint32_t *)words) : vf_load_low((const uint32_t *)words);
}

/* `rows` x (2 * subs) vectors of accumulators; sub s covers outputs s*WF.. and 16 + s*WF.. */
HOT void tile(const int rows, const int subs, const int w_type, const float *x, const void *w, int64_t depth, float *c,
              int first, nk_ahead ahead) {
    VF acc[NK_TILE_ROWS][2 * SUBS];
    UNROLL
    for (int m = 0; m < rows; m++) {
        UNROLL
        for (int s = 0; s < subs; s++) {
            acc[m][2 * s] = first ? vf_set1(0.0f) : vf_load(c + m * NK_PANEL + s * WF);
            acc[m][2 * s + 1] = first ? vf_set1(0.0f) : vf_load(c + m * NK_PANEL + HALF + s * WF);
        }
    }
    const int inputs = w_type == NK_BF16 ? 2 : 1; /* in a row of the panel */
    const char *p = w;
    for (int64_t k = 0; k < depth; k += inputs, p += NK_ROW_BYTES) {
        __builtin_prefetch(ahead.from, 0, 3);
        __builtin_prefetch(ahead.from + 64, 0, 3);
        ahead.from += ahead.step;
        UNROLL
        for (int s = 0; s < subs; s++) {
            UNROLL
            for (int i = 0; i < inputs; i++) {
                VF low = vf_weights(w_type, i, p + s * WF * 4), high = vf_weights(w_type, i, p + (HALF + s * WF) * 4);
                UNROLL
                for (int m = 0; m < rows; m++) {
                    VF value = vf_set1(x[m * NK_X_STRIDE + k + i]);
                    acc[m][2 * s] = vf_fma(value, low, acc[m][2 * s]);
                    acc[m][2 * s + 1] = vf_fma(value, high, acc[m][2 * s + 1]);
                }
            }
        }
    }
    UNROLL
    for (int m = 0; m < rows; m++) {
        UNROLL
        for (int s = 0; s < subs; s++) {
            vf_store(c + m * NK_PANEL + s * WF, acc[m][2 * s]);
            vf_store(c + m * NK_PANEL + HALF + s * WF, acc[m][2 * s + 1]);
        }
    }
}

/* Few rows take the whole panel at once; more rows take it in strips, as the registers allow. */
HOT void tile_of(const int rows, const int w_type, const float *x, const void *w, int64_t depth, float *c, int first,
                 nk_ahead ahead) {
    if (rows <= NK_WHOLE_ROWS) {
        tile(rows, SUBS, w_type, x, w, depth, c, first, ahead);
    } else {
        const int64_t steps = w_type == NK_BF16 ? (depth + 1) / 2 : depth;
        for (int s = 0; s < SUBS; s++) {
            nk_ahead part = {ahead.from + ahead.step * steps * s / SUBS, ahead.step / SUBS};
            tile(rows, 1, w_type, x, (const char *)w + s * WF * 4, depth, c + s * WF, first, part);
        }
    }
}

#define TILE(R)                                                                                                        \
    case R:                                                                                                            \
        if (w_type == NK_BF16)                                                                                         \
            tile_of(R, NK_BF16, x, w, depth, c, first, ahead);                                                         \
        else                                                                                                           \
            tile_of(R, NK_F32, x, w, depth, c, first, ahead);                                                          \
        break

NK_TARGET static void linear_tile(int rows, int w_type, const float *x, const void *w, int64_t depth, float *c,
                                  int first, nk_ahead ahead) {
    switch (rows) {
        TILE(1);
        TILE(2);
        TILE(3);
        TILE(4);
#if NK_TILE_ROWS > 4
        TILE(5);
        TILE(6);
#endif
#if NK_TILE_ROWS > 6
        TILE(7);
        TILE(8);
        TILE(9);
        TILE(10);
        TILE(11);
        TILE(12);
        TILE(13);
        TILE(14);
#endif
    }
}

NK_TARGET static void widen(const uint16_t *from, float *to, int64_t count) {
    int64_t i = 0;
    for (; i + WF <= count; i += WF) vf_store(to + i, vf_load_bf16(from + i));
    for (; i < count; i++) to[i] = nk_from_bf16(from[i]);
}

HOT void finish_as(const int y_type, const float *c, int64_t c_stride, const float *bias, void *y, int64_t columns) {
    int64_t column = 0;
    for (; column < columns; c += c_stride) {
        for (int i = 0; i < NK_PANEL && column < columns; i += WF, column += WF) {
            if (columns - column < WF) {
                for (; column < columns; i++, column++) {
                    float sum = bias ? c[i] + bias[column] : c[i];
                    if (y_type == NK_BF16)
                        ((uint16_t *)y)[column] = nk_to_bf16(sum);
                    else
                        ((float *)y)[column] = sum;
                }
                return;
            }
            VF sum = vf_load(c + i);
            if (bias) sum = vf_add(sum, vf_load(bias + column));
            if (y_type == NK_BF16)
                vf_store_bf16((uint16_t *)y + column, sum);
            else
                vf_store((float *)y + column, sum);
        }
    }
}

NK_TARGET static void finish(const float *c, int64_t c_stride, const float *bias, void *y, int y_type,
                             int64_t columns) {
    if (y_type == NK_BF16)
        finish_as(NK_BF16, c, c_stride, bias, y, columns);
    else
        finish_as(NK_F32, c, c_stride, bias, y, columns);
}

/* ---- attention ---- */

HOT void prefetch_rows(const void *rows, int type, int64_t slot_stride, const int32_t *slots, int count, int64_t dim) {
    size_t size = type == NK_BF16 ? 2 : 4;
    for (int i = 0; i < count; i++) {
        const char *row = (const char *)rows + (size_t)slots[i] * (size_t)slot_stride * size;
        for (size_t at = 0; at < (size_t)dim * size; at += 64) __builtin_prefetch(row + at, 0, 3);
    }
}

/* One dimension of a block of keys, widened: kt[key] = words[key] as floats. */
HOT void widen_keys(const float *keys, double *kt) {
    UNROLL
    for (int i = 0; i < NK_KEYS; i += WD) vd_store(kt + i, vd_load_f32(keys + i));
}

NK_TARGET static void load_keys(const void *keys, int type, int64_t slot_stride, const int32_t *slots, int count,
                                int ahead, int64_t dim, double *kt) {
    size_t size = type == NK_BF16 ? 2 : 4;
    const char *rows[NK_KEYS]; /* beyond the last key its row is read again */
    union {
        uint32_t words[4][NK_KEYS];
        float keys[4][NK_KEYS];
    } turned;
    float split[2][NK_KEYS];
    int64_t d = 0;
    prefetch_rows(keys, type, slot_stride, slots + count, ahead, dim);
    for (int i = 0; i < NK_KEYS; i++)
        rows[i] = (const char *)keys + (size_t)slots[i < count ? i : count - 1] * (size_t)slot_stride * size;
    if (type == NK_BF16) { /* a word holds two dimensions */
        for (; d + 8 <= dim; d += 8) {
            transpose_words(rows, (size_t)d * 2, turned.words);
            for (int w = 0; w < 4; w++) {
                UNROLL
                for (int i = 0; i < NK_KEYS; i += WF) {
                    vf_store(split[0] + i, vf_load_low(turned.words[w] + i));
                    vf_store(split[1] + i, vf_load_high(turned.words[w] + i));
                }
                widen_keys(split[0], kt + (d + 2 * w) * NK_KEYS);
                widen_keys(split[1], kt + (d + 2 * w + 1) * NK_KEYS);
            }
        }
        for (; d < dim; d++)
            for (int i = 0; i < NK_KEYS; i++) kt[d * NK_KEYS + i] = nk_from_bf16(((const uint16_t *)rows[i])[d]);
    } else {
        for (; d + 4 <= dim; d += 4) {
            transpose_words(rows, (size_t)d * 4, turned.words);
            for (int w = 0; w < 4; w++) widen_keys(turned.keys[w], kt + (d + w) * NK_KEYS);
        }
        for (; d < dim; d++)
            for (int i = 0; i < NK_KEYS; i++) kt[d * NK_KEYS + i] = ((const float *)rows[i])[d];
    }
}

/* Products of two fp32 numbers are exact in fp64: each step rounds once, fused or not. */
NK_TARGET static void score_block(const double *kt, const double *qt, int64_t dim, double scores[4][NK_KEYS]) {
    enum { VECTORS = NK_KEYS / WD };
    for (int q0 = 0; q0 < 4; q0 += NK_SCORE_QUERIES) {
        VD acc[NK_SCORE_QUERIES][VECTORS];
        UNROLL
        for (int q = 0; q < NK_SCORE_QUERIES; q++) UNROLL
        for (int i = 0; i < VECTORS; i++) acc[q][i] = vd_set1(0.0);
        for (int64_t d = 0; d < dim; d++) {
            UNROLL
            for (int q = 0; q < NK_SCORE_QUERIES; q++) {
                VD value = vd_set1(qt[d * 4 + q0 + q]);
                UNROLL
                for (int i = 0; i < VECTORS; i++)
                    acc[q][i] = vd_fma(value, vd_load(kt + d * NK_KEYS + i * WD), acc[q][i]);
            }
        }
        UNROLL
        for (int q = 0; q < NK_SCORE_QUERIES; q++) UNROLL
        for (int i = 0; i < VECTORS; i++) vd_store(scores[q0 + q] + i * WD, acc[q][i]);
    }
}

/* exp(x) for x <= 0: 2^n · e^r, |r| <= ln 2 / 2, Taylor to r^13 (error below 1e-17); 0 below -708; NaN stays NaN. */
HOT VD exp_of(VD x) {
    static const double inverse_factorials[14] = {
        1.0,        1.0,         1.0 / 2,      1.0 / 6,       1.0 / 24,       1.0 / 120,       1.0 / 720,
        1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
    const VD shifter = vd_set1(0x1.8p52); /* adding it rounds to an integer, which then lies in the low bits */
    VD shifted = vd_fma(x, vd_set1(0x1.71547652b82fep+0), shifter);
    VD n = vd_sub(shifted, shifter);
    VD r = vd_fma(n, vd_set1(-0x1.62e42fefa39efp-1), x);
    r = vd_fma(n, vd_set1(-0x1.abc9e3b39803fp-56), r);
    VD sum = vd_set1(inverse_factorials[13]);
    UNROLL
    for (int i = 12; i >= 0; i--) sum = vd_fma(sum, r, vd_set1(inverse_factorials[i]));
    return vd_zero_where_below(x, -708.0, vd_scale_by_low_bits(sum, shifted));
}

/* c · tanh(s / c) by way of e = exp(-2 |s / c|): (1 - e) / (1 + e) with the sign of s. */
HOT VD cap_of(VD s, double softcap) {
    VD ratio = vd_div(s, vd_set1(softcap));
    VD e = exp_of(vd_mul(vd_abs(ratio), vd_set1(-2.0)));
    VD t = vd_div(vd_sub(vd_set1(1.0), e), vd_add(vd_set1(1.0), e));
    return vd_mul(vd_copysign(t, s), vd_set1(softcap));
}

NK_TARGET static double softmax(double *scores, int64_t count, double scale, double softcap, const float *sink) {
    enum { VECTORS = NK_CHAINS / WD };
    VD lanes[VECTORS];
    double part[NK_CHAINS], largest = sink ? (double)*sink : -INFINITY;
    for (int64_t i = count; i % NK_CHAINS; i++) scores[i] = -INFINITY;
    UNROLL
    for (int i = 0; i < VECTORS; i++) lanes[i] = vd_set1(largest);
    for (int64_t j = 0; j < count; j += NK_CHAINS) {
        UNROLL
        for (int i = 0; i < VECTORS; i++) {
            VD s = vd_mul(vd_load(scores + j + i * WD), vd_set1(scale));
            if (softcap > 0.0) s = cap_of(s, softcap);
            vd_store(scores + j + i * WD, s);
        }
        for (int64_t i = count; i < j + NK_CHAINS; i++) scores[i] = -INFINITY; /* a cap or scale moved the padding */
        UNROLL
        for (int i = 0; i < VECTORS; i++) lanes[i] = vd_max(lanes[i], vd_load(scores + j + i * WD));
    }
    UNROLL
    for (int i = 0; i < VECTORS; i++) vd_store(part + i * WD, lanes[i]);
    for (int i = 0; i < NK_CHAINS; i++) largest = part[i] > largest ? part[i] : largest;
    UNROLL
    for (int i = 0; i < VECTORS; i++) lanes[i] = vd_set1(0.0);
    for (int64_t j = 0; j < count; j += NK_CHAINS) {
        UNROLL
        for (int i = 0; i < VECTORS; i++) {
            VD weight = exp_of(vd_sub(vd_load(scores + j + i * WD), vd_set1(largest)));
            vd_store(scores + j + i * WD, weight);
            lanes[i] = vd_add(lanes[i], weight);
        }
    }
    UNROLL
    for (int i = 0; i < VECTORS; i++) vd_store(part + i * WD, lanes[i]);
    double sum = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
    if (sink) {
        vd_store(part, exp_of(vd_set1((double)*sink - largest)));
        sum += part[0];
    }
    return sum;
}

NK_TARGET static void load_values(const void *values, int type, int64_t slot_stride, const int32_t *slots, int count,
                                  int ahead, int64_t value_dim, double *vb) {
    int64_t padded = (value_dim + NK_CHAINS - 1) / NK_CHAINS * NK_CHAINS;
    prefetch_rows(values, type, slot_stride, slots + count, ahead, value_dim);
    for (int j = 0; j < count; j++, vb += padded) {
        int64_t at = (int64_t)slots[j] * slot_stride, d = 0;
        const uint16_t *v16 = (const uint16_t *)values + at;
        const float *v32 = (const float *)values + at;
        if (type == NK_BF16)
            for (; d + WD <= value_dim; d += WD) vd_store(vb + d, vd_load_bf16(v16 + d));
        else
            for (; d + WD <= value_dim; d += WD) vd_store(vb + d, vd_load_f32(v32 + d));
        for (; d < value_dim; d++) vb[d] = type == NK_BF16 ? nk_from_bf16(v16[d]) : v32[d];
        for (; d < padded; d++) vb[d] = 0.0;
    }
}

/* `vectors` vectors of columns for `queries` queries: one chain over the keys per element. */
HOT void add_columns(const int queries, const int vectors, const double *vb, int count, int64_t padded_dim,
                     const double *weights, int64_t weight_stride, double *acc) {
    VD sums[8][8];
    UNROLL
    for (int q = 0; q < queries; q++) UNROLL
    for (int i = 0; i < vectors; i++) sums[q][i] = vd_load(acc + q * padded_dim + i * WD);
    for (int j = 0; j < count; j++, vb += padded_dim) {
        UNROLL
        for (int q = 0; q < queries; q++) {
            VD weight = vd_set1(weights[q * weight_stride + j]);
            UNROLL
            for (int i = 0; i < vectors; i++) sums[q][i] = vd_fma(weight, vd_load(vb + i * WD), sums[q][i]);
        }
    }
    UNROLL
    for (int q = 0; q < queries; q++) UNROLL
    for (int i = 0; i < vectors; i++) vd_store(acc + q * padded_dim + i * WD, sums[q][i]);
}

HOT void add_all(const int queries, const double *vb, int count, int64_t padded_dim, const double *weights,
                 int64_t weight_stride, double *acc) {
    const int vectors = queries <= 2 ? 4 * NK_VALUE_VECTORS : queries <= 4 ? 2 * NK_VALUE_VECTORS : NK_VALUE_VECTORS;
    int64_t column = 0;
    for (; column + vectors * WD <= padded_dim; column += vectors * WD)
        add_columns(queries, vectors, vb + column, count, padded_dim, weights, weight_stride, acc + column);
    for (; column < padded_dim; column += WD)
        add_columns(queries, 1, vb + column, count, padded_dim, weights, weight_stride, acc + column);
}

#define ADD(Q)                                                                                                         \
    case Q:                                                                                                            \
        add_all(Q, vb, count, padded_dim, weights, weight_stride, acc);                                                \
        break

NK_TARGET static void add_values(const double *vb, int count, int64_t padded_dim, const double *weights,
                                 int64_t weight_stride, double *acc, int queries) {
    switch (queries) {
        ADD(1);
        ADD(2);
        ADD(3);
        ADD(4);
        ADD(5);
        ADD(6);
        ADD(7);
        ADD(8);
    }
}

/* ---- row-wise ---- */

/* exp(x) in fp32: 2^n · e^r, |r| <= ln 2 / 2, Taylor to r^7 (error below 6e-9). */
HOT VF exp_of_floats(VF x) {
    static const float inverse_factorials[8] = {1.0f,      1.0f,       1.0f / 2,   1.0f / 6,
                                                1.0f / 24, 1.0f / 120, 1.0f / 720, 1.0f / 5040};
    const VF shifter = vf_set1(0x1.8p23f);
    VF shifted, n, r, sum = vf_set1(inverse_factorials[7]);
    x = vf_clamp(x, -87.0f, 88.0f);
    shifted = vf_fma(x, vf_set1(0x1.715476p+0f), shifter);
    n = vf_sub(shifted, shifter);
    r = vf_fma(n, vf_set1(-0x1.62e400p-1f), x); /* ln 2 in two pieces, the first short enough for an exact product */
    r = vf_fma(n, vf_set1(-0x1.7f7d1cp-20f), r);
    UNROLL
    for (int i = 6; i >= 0; i--) sum = vf_fma(sum, r, vf_set1(inverse_factorials[i]));
    return vf_scale_by_low_bits(sum, shifted);
}

/* silu: x / (1 + exp(-x)). gelu by tanh: x (1 + tanh z) / 2 = x / (1 + exp(-2z)), z = sqrt(2/pi) (x + 0.044715 x^3) */
HOT VF activate(VF x, const int kind) {
    VF exponent = vf_sub(vf_set1(0.0f), x);
    if (kind == NK_GELU_TANH) {
        VF cubic = vf_fma(vf_mul(x, x), vf_set1(0.044715f), vf_set1(1.0f));
        exponent = vf_mul(vf_mul(x, cubic), vf_set1(-0x1.988454p+0f)); /* -2 sqrt(2 / pi) */
    }
    return vf_div(x, vf_add(vf_set1(1.0f), exp_of_floats(exponent)));
}

HOT VF load_as(const void *p, int64_t at, const int type) {
    return type == NK_BF16 ? vf_load_bf16((const uint16_t *)p + at) : vf_load((const float *)p + at);
}

HOT void store_as(void *p, int64_t at, VF value, const int type) {
    if (type == NK_BF16)
        vf_store_bf16((uint16_t *)p + at, value);
    else
        vf_store((float *)p + at, value);
}

HOT VF rounded_to(VF value, const int type) { return type == NK_BF16 ? vf_round_bf16(value) : value; }

HOT void gate_as(const int type, const int kind, const void *gate, const void *up, void *out, int64_t count) {
    int64_t i = 0;
    for (; i + WF <= count; i += WF) {
        VF value = activate(load_as(gate, i, type), kind);
        if (up) value = vf_mul(rounded_to(value, type), load_as(up, i, type));
        store_as(out, i, value, type);
    }
    if (i < count) { /* the last few go through the same instructions, padded */
        const size_t size = type == NK_BF16 ? 2 : 4, bytes = (size_t)(count - i) * size;
        float pad[3][WF] = {{0}};
        memcpy(pad[0], (const char *)gate + (size_t)i * size, bytes);
        if (up) memcpy(pad[1], (const char *)up + (size_t)i * size, bytes);
        VF value = activate(load_as(pad[0], 0, type), kind);
        if (up) value = vf_mul(rounded_to(value, type), load_as(pad[1], 0, type));
        store_as(pad[2], 0, value, type);
        memcpy((char *)out + (size_t)i * size, pad[2], bytes);
    }
}

NK_TARGET static void gate(int type, int kind, const void *gate, const void *up, void *out, int64_t count) {
    if (type == NK_BF16 && kind == NK_SILU) gate_as(NK_BF16, NK_SILU, gate, up, out, count);
    if (type == NK_F32 && kind == NK_SILU) gate_as(NK_F32, NK_SILU, gate, up, out, count);
    if (type == NK_BF16 && kind == NK_GELU_TANH) gate_as(NK_BF16, NK_GELU_TANH, gate, up, out, count);
    if (type == NK_F32 && kind == NK_GELU_TANH) gate_as(NK_F32, NK_GELU_TANH, gate, up, out, count);
}

/* The mean of the squares: NK_CHAINS fp64 chains, element i in chain i mod NK_CHAINS. x is padded with zeros. */
HOT double mean_square(const float *x, int64_t dim) {
    enum { VECTORS = NK_CHAINS / WD };
    VD sums[VECTORS];
    double part[NK_CHAINS];
    UNROLL
    for (int i = 0; i < VECTORS; i++) sums[i] = vd_set1(0.0);
    for (int64_t d = 0; d < dim; d += NK_CHAINS) {
        UNROLL
        for (int i = 0; i < VECTORS; i++) {
            VD value = vd_load_f32(x + d + i * WD);
            sums[i] = vd_fma(value, value, sums[i]);
        }
    }
    UNROLL
    for (int i = 0; i < VECTORS; i++) vd_store(part + i * WD, sums[i]);
    return (((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]))) / (double)dim;
}

HOT void norm_row_as(const int type, const void *x, const float *weight, int late, double eps, int64_t dim, void *out,
                     float *wide) {
    const int64_t padded = (dim + 15) & ~(int64_t)15;
    const size_t size = type == NK_BF16 ? 2 : 4;
    memset(wide + (padded - 16), 0, 16 * sizeof(float));
    if (type == NK_BF16)
        widen(x, wide, dim);
    else
        memcpy(wide, x, (size_t)dim * sizeof(float));
    const double factor = 1.0 / sqrt(mean_square(wide, dim) + eps);
    for (int64_t d = 0; d < padded; d += WD) vd_store_f32(wide + d, vd_mul(vd_load_f32(wide + d), vd_set1(factor)));
    for (int64_t d = 0; d < dim; d += WF) {
        VF value = vf_load(wide + d);
        float last[WF] = {0};
        int64_t left = dim - d < WF ? dim - d : WF;
        if (weight) {
            if (left < WF) memcpy(last, weight + d, (size_t)left * sizeof(float));
            if (!late) value = rounded_to(value, type);
            value = vf_mul(value, left < WF ? vf_load(last) : vf_load(weight + d));
        }
        if (left == WF) {
            store_as(out, d, value, type);
        } else {
            store_as(last, 0, value, type);
            memcpy((char *)out + (size_t)d * size, last, (size_t)left * size);
        }
    }
}

NK_TARGET static void norm_row(int type, const void *x, const float *weight, int late, double eps, int64_t dim,
                               void *out, float *wide) {
    if (type == NK_BF16)
        norm_row_as(NK_BF16, x, weight, late, eps, dim, out, wide);
    else
        norm_row_as(NK_F32, x, weight, late, eps, dim, out, wide);
}

#define NK_DEFINE_ISA(NAME, PAIR_TILE)                                                                                 \
    const nk_isa NAME = {NK_TILE_ROWS, linear_tile, PAIR_TILE,   widen,      finish, load_keys,                        \
                         score_block,  softmax,     load_values, add_values, gate,   norm_row};
