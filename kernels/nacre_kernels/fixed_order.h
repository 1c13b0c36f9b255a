/* The fp32 logarithm and exponential of nacre's sampling (fixed_order.py there), with the same bits: one IEEE operation
 * for each that is written there, in that order, never fused.
 */
#ifndef NACRE_FIXED_ORDER_H
#define NACRE_FIXED_ORDER_H

#include "kernels.h"

#include <math.h>

typedef union {
    float f;
    int32_t i;
} nk_float_bits;

NK_INLINE float ln_one_plus(float x, float exponent) {
    float y = x * 7.0376836292e-2f;
    y = (y + -1.1514610310e-1f) * x;
    y = (y + 1.1676998740e-1f) * x;
    y = (y + -1.2420140846e-1f) * x;
    y = (y + 1.4249322787e-1f) * x;
    y = (y + -1.6668057665e-1f) * x;
    y = (y + 2.0000714765e-1f) * x;
    y = (y + -2.4999993993e-1f) * x;
    y = y + 3.3333331174e-1f;
    float z = x * x;
    y = (y * x) * z;
    y = y + exponent * -2.12194440e-4f;
    y = y - z * 0.5f;
    return (x + y) + exponent * 0.693359375f;
}

NK_INLINE float split(float v, float *exponent) {
    nk_float_bits whole = {.f = v}, part;
    int32_t offset = whole.i - 0x3F3504F3;
    part.i = (offset & 0x007FFFFF) + 0x3F3504F3;
    *exponent = (float)(offset >> 23);
    return part.f - 1.0f;
}

NK_INLINE float ln32(float v) { /* v positive and normal */
    float exponent, x = split(v, &exponent);
    return ln_one_plus(x, exponent);
}

/* e^0 as a fixed-point integer: sums of such integers do not depend on their order. */
#define NK_MASS_UNIT 0x1p-40

NK_INLINE int64_t exp_mass(float d) { /* rint(e^d * 2^40), d <= 0 */
    d = d > -32.0f ? d : -32.0f;
    float n = rintf(d * 1.44269504088896341f);
    float x = (d - n * 0.693359375f) - n * -2.12194440e-4f;
    float y = x * 1.9875691500e-4f;
    y = (y + 1.3981999507e-3f) * x;
    y = (y + 8.3334519073e-3f) * x;
    y = (y + 4.1665795894e-2f) * x;
    y = (y + 1.6666665459e-1f) * x;
    y = y + 5.0000001201e-1f;
    y = (y * (x * x) + x) + 1.0f;
    nk_float_bits power_of_two = {.i = ((int32_t)n + (127 + 40)) << 23};
    return (int64_t)rintf(y * power_of_two.f);
}

#endif
