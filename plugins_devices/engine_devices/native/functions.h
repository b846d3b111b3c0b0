// Functions of sixteen float lanes: exponential, hyperbolic tangent, the normal distribution. Included by lanes.h.
#pragma once
#include "lanes.h"

namespace lanes {
namespace {

// e^x to about one unit in the last place; 0 below -87.3, infinity above 88.7.
INLINE vf exp_part(vf x) {
#if defined(__AVX512F__)
    const vf clamped = (vf)_mm512_min_ps(_mm512_set1_ps(89.0f), _mm512_max_ps(_mm512_set1_ps(-104.0f), (__m512)x));  // NaN stays
#else
    const vf low = spread(-87.33654f), high = spread(88.72283f);
    const vf clamped = x < low ? low : (x > high ? high : x);
#endif
    const vf n = (clamped * 1.44269504f + 12582912.0f) - 12582912.0f;
    vf r = clamped - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    vf y = r * 1.9841270e-4f + 1.3888889e-3f;
    y = y * r + 8.3333333e-3f;
    y = y * r + 4.1666667e-2f;
    y = y * r + 1.6666667e-1f;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
#if defined(__AVX512F__)
    return (vf)_mm512_scalef_ps((__m512)y, (__m512)n);
#else
    // 2^n in two factors: n may be 128.
    const vi whole = __builtin_convertvector(n, vi), first = whole >> 1;
    const vf scaled = (y * (vf)((first + 127) << 23)) * (vf)((whole - first + 127) << 23);
    return x < low ? vf{} : (x > high ? spread(__builtin_inff()) : scaled);
#endif
}

// x / (1 + e^-x).
INLINE vf silu_part(vf x) { return x / (1.0f + exp_part(0.0f - x)); }

// x · (1 + tanh u) / 2 = x / (1 + e^-2u), u = √(2/π) · (x + 0.044715 x³).
INLINE vf gelu_tanh_part(vf x) { return x / (1.0f + exp_part(0.0f - (x + x * x * x * 0.044715f) * 1.5957691f)); }

INLINE F exponential(const F& x) {
    F r;
#define STEP(i) r.p[i] = exp_part(x.p[i]);
    LANES_EACH(STEP)
#undef STEP
    return r;
}

INLINE vf tanh_part(vf x) {
    const vf square = x * x;
    vf near = square * 2.1869489e-2f - 5.3968254e-2f;
    near = near * square + 1.3333333e-1f;
    near = near * square - 3.3333333e-1f;
    near = near * square * x + x;
    const vf magnitude = x < 0.0f ? -x : x;
    const vf far = 1.0f - 2.0f / (exp_part(magnitude * 2.0f) + 1.0f);
    return magnitude < 0.25f ? near : (x < 0.0f ? -far : far);
}

INLINE F hyperbolic_tangent(const F& x) {
    F r;
#define STEP(i) r.p[i] = tanh_part(x.p[i]);
    LANES_EACH(STEP)
#undef STEP
    return r;
}

// 1 - erf(|x|) by a Chebyshev fit of its logarithm, relative error 2e-7 and what exp(-x²) adds.
INLINE vf erfc_part(vf x) {
    const vf z = x < 0.0f ? -x : x, t = 1.0f / (z * 0.5f + 1.0f);
    vf y = t * 0.17087277f - 0.82215223f;
    y = y * t + 1.48851587f;
    y = y * t - 1.13520398f;
    y = y * t + 0.27886807f;
    y = y * t - 0.18628806f;
    y = y * t + 0.09678418f;
    y = y * t + 0.37409196f;
    y = y * t + 1.00002368f;
    y = y * t - 1.26551223f;
    return t * exp_part(y - z * z);
}

// x · Φ(x), Φ the normal distribution's integral.
INLINE F gaussian_gate(const F& x) {
    F r;
#define STEP(i) { const vf tail = erfc_part(x.p[i] * 0.70710678f) * 0.5f; r.p[i] = x.p[i] * (x.p[i] < 0.0f ? tail : 1.0f - tail); }
    LANES_EACH(STEP)
#undef STEP
    return r;
}

}  // namespace
}  // namespace lanes
