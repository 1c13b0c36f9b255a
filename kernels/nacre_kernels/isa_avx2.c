/* AVX2 and FMA: 8 floats, 4 doubles, 16 registers. */
#if defined(__x86_64__)
#include "kernels.h"

#define NK_TARGET __attribute__((target("avx2,fma")))
#include "isa_x86.h"

#define OP NK_TARGET NK_INLINE
typedef __m256 VF;
typedef __m256d VD;
enum { WF = 8, WD = 4 };
#define NK_TILE_ROWS     6
#define NK_WHOLE_ROWS    3
#define NK_SCORE_QUERIES 2
#define NK_VALUE_VECTORS 1

OP VF vf_set1(float a) { return _mm256_set1_ps(a); }
OP VF vf_load(const float *p) { return _mm256_loadu_ps(p); }
OP void vf_store(float *p, VF a) { _mm256_storeu_ps(p, a); }
OP VF vf_add(VF a, VF b) { return _mm256_add_ps(a, b); }
OP VF vf_fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
OP VF vf_sub(VF a, VF b) { return _mm256_sub_ps(a, b); }
OP VF vf_mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
OP VF vf_div(VF a, VF b) { return _mm256_div_ps(a, b); }
OP VF vf_clamp(VF a, float low, float high) {
    return _mm256_max_ps(_mm256_min_ps(a, _mm256_set1_ps(high)), _mm256_set1_ps(low));
}
OP VF vf_scale_by_low_bits(VF a, VF bits) {
    __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(bits), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), exponent));
}
OP VF vf_load_low(const uint32_t *p) { /* the low halves of words, as bf16 */
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)p), 16));
}
OP VF vf_load_high(const uint32_t *p) {
    __m256i words = _mm256_loadu_si256((const __m256i *)p);
    return _mm256_castsi256_ps(_mm256_and_si256(words, _mm256_set1_epi32((int)0xffff0000)));
}
OP VF vf_load_bf16(const uint16_t *p) { return load_8(p, NK_BF16, 0); }
OP VF vf_round_bf16(VF a) {
    __m256i bits = _mm256_castps_si256(a);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    bits = _mm256_and_si256(bits, _mm256_set1_epi32((int)0xffff0000));
    __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    return _mm256_blendv_ps(_mm256_castsi256_ps(bits), nan, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
OP void vf_store_bf16(uint16_t *p, VF a) {
    __m256i bits = _mm256_castps_si256(a);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    bits = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x7fc0), nan);
    _mm_storeu_si128((__m128i *)p, _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1)));
}

OP VD vd_set1(double a) { return _mm256_set1_pd(a); }
OP VD vd_load(const double *p) { return _mm256_loadu_pd(p); }
OP void vd_store(double *p, VD a) { _mm256_storeu_pd(p, a); }
OP VD vd_add(VD a, VD b) { return _mm256_add_pd(a, b); }
OP VD vd_sub(VD a, VD b) { return _mm256_sub_pd(a, b); }
OP VD vd_mul(VD a, VD b) { return _mm256_mul_pd(a, b); }
OP VD vd_div(VD a, VD b) { return _mm256_div_pd(a, b); }
OP VD vd_fma(VD a, VD b, VD c) { return _mm256_fmadd_pd(a, b, c); }
OP VD vd_max(VD a, VD b) { return _mm256_max_pd(a, b); }
OP VD vd_abs(VD a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }
OP VD vd_copysign(VD magnitude, VD sign) {
    VD bit = _mm256_set1_pd(-0.0);
    return _mm256_or_pd(_mm256_andnot_pd(bit, magnitude), _mm256_and_pd(bit, sign));
}
OP void vd_store_f32(float *p, VD a) { _mm_storeu_ps(p, _mm256_cvtpd_ps(a)); }
OP VD vd_load_f32(const float *p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
OP VD vd_load_bf16(const uint16_t *p) {
    __m128i bits = _mm_cvtepu16_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_cvtps_pd(_mm_castsi128_ps(_mm_slli_epi32(bits, 16)));
}
OP VD vd_scale_by_low_bits(VD a, VD bits) {
    __m256i exponent = _mm256_slli_epi64(_mm256_castpd_si256(bits), 52);
    return _mm256_castsi256_pd(_mm256_add_epi64(_mm256_castpd_si256(a), exponent));
}
OP VD vd_zero_where_below(VD x, double bound, VD value) { /* NaN where x is NaN */
    value = _mm256_and_pd(value, _mm256_cmp_pd(x, _mm256_set1_pd(bound), _CMP_NLT_UQ));
    return _mm256_blendv_pd(value, x, _mm256_cmp_pd(x, x, _CMP_UNORD_Q));
}

/* One lane of 128 bits holds four words of one row; a ymm register rows i and i + 4. */
OP __m256i two_rows(const char *const rows[NK_KEYS], int i, size_t at) {
    __m256i a = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(rows[i] + at)));
    return _mm256_inserti128_si256(a, _mm_loadu_si128((const __m128i *)(rows[i + 4] + at)), 1);
}
/* to[w][key] = 32-bit word w of the 16 bytes at `at` in every row */
OP void transpose_words(const char *const rows[NK_KEYS], size_t at, uint32_t to[4][NK_KEYS]) {
    for (int h = 0; h < NK_KEYS; h += 8) {
        __m256i a = two_rows(rows, h, at), b = two_rows(rows, h + 1, at);
        __m256i c = two_rows(rows, h + 2, at), d = two_rows(rows, h + 3, at);
        __m256i ab0 = _mm256_unpacklo_epi32(a, b), ab1 = _mm256_unpackhi_epi32(a, b);
        __m256i cd0 = _mm256_unpacklo_epi32(c, d), cd1 = _mm256_unpackhi_epi32(c, d);
        _mm256_storeu_si256((__m256i *)(to[0] + h), _mm256_unpacklo_epi64(ab0, cd0));
        _mm256_storeu_si256((__m256i *)(to[1] + h), _mm256_unpackhi_epi64(ab0, cd0));
        _mm256_storeu_si256((__m256i *)(to[2] + h), _mm256_unpacklo_epi64(ab1, cd1));
        _mm256_storeu_si256((__m256i *)(to[3] + h), _mm256_unpackhi_epi64(ab1, cd1));
    }
}

#define NK_DOT_ROWS    4
#define NK_DOT_VECTORS 2
#define NK_VALUE_PAIRS 1
typedef __m256i VI;
OP VI vi_zero(void) { return _mm256_setzero_si256(); }
OP VI vi_weights(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)); }
OP VI vi_pair(const int16_t *x) { return _mm256_set1_epi32(*(const int32_t *)x); }
#define NK_DOT(ACC, W, X) ACC = _mm256_add_epi32(ACC, _mm256_madd_epi16(W, X))
OP VF vf_from_vi(VI a) { return _mm256_cvtepi32_ps(a); }
OP void vf_store_i16(int16_t *p, VF a) {
    __m256i whole = _mm256_cvtps_epi32(a);
    _mm_storeu_si128((__m128i *)p,
                     _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1)));
}
OP VF vf_max(VF a, VF b) { return _mm256_max_ps(a, b); }
OP VF vf_sum_each(const VF v[8]) { /* lane i: the sum of v[i] */
    VF a = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    VF b = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

#include "tiles.h"
NK_DEFINE_ISA(nk_isa_avx2, NULL)

#include "decoder_tiles.h"
NK_DEFINE_DECODER(nk_decoder_avx2, decoder_panel)
#else
typedef int nk_no_avx2; /* an empty file is not C */
#endif
