/* Any CPU: compiler vectors of 4 floats and 2 doubles, fused multiply-add lane by lane (one instruction at best). */
#include "kernels.h"

#include <math.h>
#include <string.h>

#define NK_TARGET
#define OP NK_INLINE
typedef float VF __attribute__((vector_size(16)));
typedef double VD __attribute__((vector_size(16)));
typedef uint32_t VU __attribute__((vector_size(16)));
typedef uint64_t VL __attribute__((vector_size(16)));
enum { WF = 4, WD = 2 };
#define NK_TILE_ROWS     4
#define NK_WHOLE_ROWS    1
#define NK_SCORE_QUERIES 1
#define NK_VALUE_VECTORS 1

OP VF vf_set1(float a) { return (VF){a, a, a, a}; }
OP VF vf_load(const float *p) {
    VF a;
    memcpy(&a, p, sizeof a);
    return a;
}
OP void vf_store(float *p, VF a) { memcpy(p, &a, sizeof a); }
OP VF vf_add(VF a, VF b) { return a + b; }
OP VF vf_fma(VF a, VF b, VF c) {
    return (VF){fmaf(a[0], b[0], c[0]), fmaf(a[1], b[1], c[1]), fmaf(a[2], b[2], c[2]), fmaf(a[3], b[3], c[3])};
}
OP VF vf_sub(VF a, VF b) { return a - b; }
OP VF vf_mul(VF a, VF b) { return a * b; }
OP VF vf_div(VF a, VF b) { return a / b; }
OP VF vf_clamp(VF a, float low, float high) { /* NaN becomes a bound, as in the other files */
    for (int i = 0; i < WF; i++) {
        float below = a[i] < high ? a[i] : high;
        a[i] = below > low ? below : low;
    }
    return a;
}
OP VF vf_scale_by_low_bits(VF a, VF bits) { return (VF)((VU)a + ((VU)bits << 23)); }
OP VF vf_load_low(const uint32_t *p) { return (VF)((VU)vf_load((const float *)p) << 16); }
OP VF vf_load_high(const uint32_t *p) { return (VF)((VU)vf_load((const float *)p) & 0xffff0000u); }
OP VF vf_load_bf16(const uint16_t *p) {
    return (VF){nk_from_bf16(p[0]), nk_from_bf16(p[1]), nk_from_bf16(p[2]), nk_from_bf16(p[3])};
}
OP VF vf_round_bf16(VF a) {
    for (int i = 0; i < WF; i++) a[i] = nk_from_bf16(nk_to_bf16(a[i]));
    return a;
}
OP void vf_store_bf16(uint16_t *p, VF a) {
    for (int i = 0; i < WF; i++) p[i] = nk_to_bf16(a[i]);
}

OP VD vd_set1(double a) { return (VD){a, a}; }
OP VD vd_load(const double *p) {
    VD a;
    memcpy(&a, p, sizeof a);
    return a;
}
OP void vd_store(double *p, VD a) { memcpy(p, &a, sizeof a); }
OP VD vd_add(VD a, VD b) { return a + b; }
OP VD vd_sub(VD a, VD b) { return a - b; }
OP VD vd_mul(VD a, VD b) { return a * b; }
OP VD vd_div(VD a, VD b) { return a / b; }
OP VD vd_fma(VD a, VD b, VD c) { return (VD){fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1])}; }
OP VD vd_max(VD a, VD b) { return (VD){a[0] > b[0] ? a[0] : b[0], a[1] > b[1] ? a[1] : b[1]}; }
OP VD vd_abs(VD a) { return (VD){fabs(a[0]), fabs(a[1])}; }
OP VD vd_copysign(VD magnitude, VD sign) {
    return (VD){copysign(magnitude[0], sign[0]), copysign(magnitude[1], sign[1])};
}
OP void vd_store_f32(float *p, VD a) {
    for (int i = 0; i < WD; i++) p[i] = (float)a[i];
}
OP VD vd_load_f32(const float *p) { return (VD){p[0], p[1]}; }
OP VD vd_load_bf16(const uint16_t *p) { return (VD){nk_from_bf16(p[0]), nk_from_bf16(p[1])}; }
OP VD vd_scale_by_low_bits(VD a, VD bits) { return (VD)((VL)a + ((VL)bits << 52)); }
OP VD vd_zero_where_below(VD x, double bound, VD value) { /* NaN where x is NaN */
    for (int i = 0; i < WD; i++) value[i] = x[i] != x[i] ? x[i] : x[i] < bound ? 0.0 : value[i];
    return value;
}
/* to[w][key] = 32-bit word w of the 16 bytes at `at` in every row */
OP void transpose_words(const char *const rows[NK_KEYS], size_t at, uint32_t to[4][NK_KEYS]) {
    for (int i = 0; i < NK_KEYS; i++)
        for (int w = 0; w < 4; w++) memcpy(&to[w][i], rows[i] + at + 4 * w, 4);
}

#define NK_DOT_ROWS    4
#define NK_DOT_VECTORS 2
#define NK_VALUE_PAIRS 1
typedef int32_t VI __attribute__((vector_size(16)));
typedef int16_t VS __attribute__((vector_size(16)));
OP VI vi_zero(void) { return (VI){0, 0, 0, 0}; }
OP VI vi_weights(const int8_t *p) { return (VI)(VS){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]}; }
OP VI vi_pair(const int16_t *x) {
    int32_t pair;
    memcpy(&pair, x, sizeof pair);
    return (VI){pair, pair, pair, pair};
}
/* The high halves by an arithmetic shift, the low ones shifted up first. */
#define NK_DOT(ACC, W, X) ACC += (((W) << 16) >> 16) * (((X) << 16) >> 16) + ((W) >> 16) * ((X) >> 16)
OP VF vf_from_vi(VI a) { return (VF){(float)a[0], (float)a[1], (float)a[2], (float)a[3]}; }
OP void vf_store_i16(int16_t *p, VF a) {
    for (int i = 0; i < WF; i++) p[i] = (int16_t)lrintf(a[i]);
}
OP VF vf_max(VF a, VF b) {
    for (int i = 0; i < WF; i++) a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
OP VF vf_sum_each(const VF v[4]) { /* lane i: the sum of v[i] */
    VF sums;
    for (int i = 0; i < WF; i++) sums[i] = (v[i][0] + v[i][1]) + (v[i][2] + v[i][3]);
    return sums;
}

#include "tiles.h"
NK_DEFINE_ISA(nk_isa_portable, NULL)

#include "decoder_tiles.h"
NK_DEFINE_DECODER(nk_decoder_portable, decoder_panel)
