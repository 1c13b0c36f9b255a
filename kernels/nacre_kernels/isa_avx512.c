/* AVX-512: 16 floats, 8 doubles, 32 registers. */
#if defined(__x86_64__)
#include "kernels.h"

#define NK_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#include "isa_x86.h"

#define OP NK_TARGET NK_INLINE
typedef __m512 VF;
typedef __m512d VD;
enum { WF = 16, WD = 8 };
#define NK_TILE_ROWS     14
#define NK_WHOLE_ROWS    14
#define NK_SCORE_QUERIES 4
#define NK_VALUE_VECTORS 2

OP VF vf_set1(float a) { return _mm512_set1_ps(a); }
OP VF vf_load(const float *p) { return _mm512_loadu_ps(p); }
OP void vf_store(float *p, VF a) { _mm512_storeu_ps(p, a); }
OP VF vf_add(VF a, VF b) { return _mm512_add_ps(a, b); }
OP VF vf_fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
OP VF vf_sub(VF a, VF b) { return _mm512_sub_ps(a, b); }
OP VF vf_mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
OP VF vf_div(VF a, VF b) { return _mm512_div_ps(a, b); }
OP VF vf_clamp(VF a, float low, float high) {
    return _mm512_max_ps(_mm512_min_ps(a, _mm512_set1_ps(high)), _mm512_set1_ps(low));
}
OP VF vf_scale_by_low_bits(VF a, VF bits) {
    __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(bits), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), exponent));
}
OP VF vf_load_low(const uint32_t *p) { /* the low halves of words, as bf16 */
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
OP VF vf_load_high(const uint32_t *p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000)));
}
OP VF vf_load_bf16(const uint16_t *p) {
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}
OP VF vf_round_bf16(VF a) {
    __m512i bits = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    bits = _mm512_and_si512(bits, _mm512_set1_epi32((int)0xffff0000));
    return _mm512_castsi512_ps(
        _mm512_mask_mov_epi32(bits, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000)));
}
OP void vf_store_bf16(uint16_t *p, VF a) {
    __m512i bits = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    bits = _mm512_mask_mov_epi32(bits, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc0));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(bits));
}

OP VD vd_set1(double a) { return _mm512_set1_pd(a); }
OP VD vd_load(const double *p) { return _mm512_loadu_pd(p); }
OP void vd_store(double *p, VD a) { _mm512_storeu_pd(p, a); }
OP VD vd_add(VD a, VD b) { return _mm512_add_pd(a, b); }
OP VD vd_sub(VD a, VD b) { return _mm512_sub_pd(a, b); }
OP VD vd_mul(VD a, VD b) { return _mm512_mul_pd(a, b); }
OP VD vd_div(VD a, VD b) { return _mm512_div_pd(a, b); }
OP VD vd_fma(VD a, VD b, VD c) { return _mm512_fmadd_pd(a, b, c); }
OP VD vd_max(VD a, VD b) { return _mm512_max_pd(a, b); }
OP VD vd_abs(VD a) { return _mm512_abs_pd(a); }
OP VD vd_copysign(VD magnitude, VD sign) {
    VD bit = _mm512_set1_pd(-0.0);
    return _mm512_or_pd(_mm512_andnot_pd(bit, magnitude), _mm512_and_pd(bit, sign));
}
OP void vd_store_f32(float *p, VD a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a)); }
OP VD vd_load_f32(const float *p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
OP VD vd_load_bf16(const uint16_t *p) { return _mm512_cvtps_pd(load_8(p, NK_BF16, 0)); }
OP VD vd_scale_by_low_bits(VD a, VD bits) {
    __m512i exponent = _mm512_slli_epi64(_mm512_castpd_si512(bits), 52);
    return _mm512_castsi512_pd(_mm512_add_epi64(_mm512_castpd_si512(a), exponent));
}
OP VD vd_zero_where_below(VD x, double bound, VD value) { /* NaN where x is NaN */
    value = _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(x, _mm512_set1_pd(bound), _CMP_NLT_UQ), value);
    return _mm512_mask_mov_pd(value, _mm512_cmp_pd_mask(x, x, _CMP_UNORD_Q), x);
}

/* One lane of 128 bits holds four words of one row; a zmm register rows i, i + 4, i + 8, i + 12. */
OP __m512i four_rows(const char *const rows[NK_KEYS], int i, size_t at) {
    __m512i a = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(rows[i] + at)));
    a = _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)(rows[i + 4] + at)), 1);
    a = _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)(rows[i + 8] + at)), 2);
    return _mm512_inserti32x4(a, _mm_loadu_si128((const __m128i *)(rows[i + 12] + at)), 3);
}
/* to[w][key] = 32-bit word w of the 16 bytes at `at` in every row */
OP void transpose_words(const char *const rows[NK_KEYS], size_t at, uint32_t to[4][NK_KEYS]) {
    __m512i a = four_rows(rows, 0, at), b = four_rows(rows, 1, at), c = four_rows(rows, 2, at),
            d = four_rows(rows, 3, at);
    __m512i ab0 = _mm512_unpacklo_epi32(a, b), ab1 = _mm512_unpackhi_epi32(a, b);
    __m512i cd0 = _mm512_unpacklo_epi32(c, d), cd1 = _mm512_unpackhi_epi32(c, d);
    _mm512_storeu_si512(to[0], _mm512_unpacklo_epi64(ab0, cd0));
    _mm512_storeu_si512(to[1], _mm512_unpackhi_epi64(ab0, cd0));
    _mm512_storeu_si512(to[2], _mm512_unpacklo_epi64(ab1, cd1));
    _mm512_storeu_si512(to[3], _mm512_unpackhi_epi64(ab1, cd1));
}

#define NK_DOT_ROWS    8
#define NK_DOT_VECTORS 2
#define NK_VALUE_PAIRS 2
typedef __m512i VI;
OP VI vi_zero(void) { return _mm512_setzero_si512(); }
OP VI vi_weights(const int8_t *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)); }
OP VI vi_pair(const int16_t *x) { return _mm512_set1_epi32(*(const int32_t *)x); }
#define NK_DOT(ACC, W, X) ACC = _mm512_add_epi32(ACC, _mm512_madd_epi16(W, X))
OP VF vf_from_vi(VI a) { return _mm512_cvtepi32_ps(a); }
OP void vf_store_i16(int16_t *p, VF a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a)));
}
OP VF vf_max(VF a, VF b) { return _mm512_max_ps(a, b); }
/* Four vectors' sums within each 128 bits. */
OP VF vf_sum_four(VF a, VF b, VF c, VF d) {
    VF ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    VF cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
}
OP VF vf_sum_each(const VF v[16]) { /* lane i: the sum of v[i] */
    VF a = vf_sum_four(v[0], v[1], v[2], v[3]), b = vf_sum_four(v[4], v[5], v[6], v[7]);
    VF c = vf_sum_four(v[8], v[9], v[10], v[11]), d = vf_sum_four(v[12], v[13], v[14], v[15]);
    VF ab = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    VF cd = _mm512_add_ps(_mm512_shuffle_f32x4(c, d, 0x88), _mm512_shuffle_f32x4(c, d, 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

#include "tiles.h"
NK_DEFINE_ISA(nk_isa_avx512, NULL)

/* Two fused multiply-adds, the high halves' first, with subnormals as zeros: the definition of linear.c, as this
 * instruction is specified and as measured. In place: gcc's intrinsic copies every accumulator in every step. */
#define DOT_BF16(ACC, W, X) __asm__("vdpbf16ps %2, %1, %0" : "+v"(ACC) : "v"(W), "v"(X))

HOT void pairs_of(const int rows, const uint32_t *x, const void *w, int64_t pairs, float *c, int first,
                  nk_ahead ahead) {
    VF acc[NK_TILE_ROWS][2];
    UNROLL
    for (int m = 0; m < rows; m++) {
        acc[m][0] = first ? vf_set1(0.0f) : vf_load(c + m * NK_PANEL);
        acc[m][1] = first ? vf_set1(0.0f) : vf_load(c + m * NK_PANEL + HALF);
    }
    const char *p = w;
    for (int64_t k = 0; k < pairs; k++, p += NK_ROW_BYTES) {
        __builtin_prefetch(ahead.from, 0, 3);
        __builtin_prefetch(ahead.from + 64, 0, 3);
        ahead.from += ahead.step;
        __m512i low = _mm512_loadu_si512(p), high = _mm512_loadu_si512(p + HALF * 4);
        UNROLL
        for (int m = 0; m < rows; m++) {
            __m512i value = _mm512_set1_epi32((int)x[m * NK_PAIR_STRIDE + k]);
            DOT_BF16(acc[m][0], low, value);
            DOT_BF16(acc[m][1], high, value);
        }
    }
    UNROLL
    for (int m = 0; m < rows; m++) {
        vf_store(c + m * NK_PANEL, acc[m][0]);
        vf_store(c + m * NK_PANEL + HALF, acc[m][1]);
    }
}

#define PAIRS(R)                                                                                                       \
    case R:                                                                                                            \
        pairs_of(R, x, w, pairs, c, first, ahead);                                                                     \
        break

NK_TARGET static void pair_tile(int rows, const uint32_t *x, const void *w, int64_t pairs, float *c, int first,
                                nk_ahead ahead) {
    switch (rows) {
        PAIRS(1);
        PAIRS(2);
        PAIRS(3);
        PAIRS(4);
        PAIRS(5);
        PAIRS(6);
        PAIRS(7);
        PAIRS(8);
        PAIRS(9);
        PAIRS(10);
        PAIRS(11);
        PAIRS(12);
        PAIRS(13);
        PAIRS(14);
    }
}
NK_DEFINE_ISA(nk_isa_avx512_bf16, pair_tile)

#include "decoder_tiles.h"
NK_DEFINE_DECODER(nk_decoder_avx512, decoder_panel)

#define VNNI __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")))
/* In place: gcc's intrinsic copies every accumulator in every step. */
#define DOT_VNNI(ACC, W, X) __asm__("vpdpwssd %2, %1, %0" : "+v"(ACC) : "v"(W), "v"(X))
NK_DEFINE_PANEL(VNNI, decoder_panel_vnni, DOT_VNNI)
NK_DEFINE_DECODER(nk_decoder_avx512_vnni, decoder_panel_vnni)
#else
typedef int nk_no_avx512; /* an empty file is not C */
#endif
