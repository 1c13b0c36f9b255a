/* 256-bit pieces that both x86 instruction sets use. */
#include <immintrin.h>

NK_TARGET NK_INLINE __m256 load_8(const void *row, int type, int64_t at) {
    if (type == NK_F32) return _mm256_loadu_ps((const float *)row + at);
    __m128i bits = _mm_loadu_si128((const __m128i *)((const uint16_t *)row + at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

/* An 8 x 8 transpose: to[i][0..8) = rows[0..8)[at + i], widened to fp64; to's rows are NK_KEYS apart. */
NK_TARGET NK_INLINE void load_8_keys(const char *const rows[8], int type, int64_t at, double *to) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i++) a[i] = load_8(rows[i], type, at);
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) { /* now in each half: 4 keys of one dimension */
        a[4 * i] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
        a[4 * i + 1] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0xee);
        a[4 * i + 2] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
        a[4 * i + 3] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_pd(to + i * NK_KEYS, _mm256_cvtps_pd(_mm256_castps256_ps128(a[i])));
        _mm256_storeu_pd(to + i * NK_KEYS + 4, _mm256_cvtps_pd(_mm256_castps256_ps128(a[i + 4])));
        _mm256_storeu_pd(to + (i + 4) * NK_KEYS, _mm256_cvtps_pd(_mm256_extractf128_ps(a[i], 1)));
        _mm256_storeu_pd(to + (i + 4) * NK_KEYS + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(a[i + 4], 1)));
    }
}
