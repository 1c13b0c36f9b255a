/* 256-bit pieces that both x86 instruction sets use. */
#include <immintrin.h>

NK_TARGET NK_INLINE __m256 load_8(const void *row, int type, int64_t at) {
    if (type == NK_F32) return _mm256_loadu_ps((const float *)row + at);
    __m128i bits = _mm_loadu_si128((const __m128i *)((const uint16_t *)row + at));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
