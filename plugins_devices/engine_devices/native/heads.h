// One head's elements in float32: read, normalise, rotate, write.
#pragma once
#include "lanes.h"

namespace heads {
namespace {

using namespace lanes;

template <class A>
INLINE void read(const A* from, int count, float* to) {
    for (int d = 0; d < count; d += 16) store(to + d, take(from + d, count - d));
}

template <class A>
INLINE void write(A* to, int count, const float* from) {
    for (int d = 0; d < count; d += 16) put(to + d, load(from + d), count - d);
}

// 1 / sqrt(mean of squares + eps), summed in the order of engine_rms_norm; x has zeros up to a multiple of 16.
INLINE float inverse_rms(const float* x, int64_t count, float eps) {
    F sum = all(0), more = all(0);
    int64_t d = 0;
    for (; d + 32 <= count; d += 32) {
        const F a = load(x + d), b = load(x + d + 16);
        sum = fma(a, a, sum);
        more = fma(b, b, more);
    }
    for (; d < count; d += 16) sum = fma(load(x + d), load(x + d), sum);
    return 1.0f / __builtin_sqrtf(total(sum + more) / float(count) + eps);
}

// The value as it is in type A: what a separate layer would have handed on.
template <class A>
INLINE void round_to(float* x, int64_t count) {
    if (sizeof(A) == 4) return;
    for (int64_t d = 0; d < count; d += 16) {
        A rounded[16];
        store(rounded, load(x + d));
        store(x + d, load(rounded));
    }
}

// The norm as engine_rms_norm makes it, with its roundings.
template <class A>
INLINE void normalise(float* x, int count, const A* weight, float eps, float offset) {
    const F factor = all(inverse_rms(x, count, eps)), more = all(offset);
    for (int d = 0; d < count; d += 16) store(x + d, load(x + d) * factor);
    if (offset == 0.0f) round_to<A>(x, count);
    for (int d = 0; d < count; d += 16) store(x + d, load(x + d) * (take(weight + d, count - d) + more));
    round_to<A>(x, count);
}

// The first 2 · half elements turn by the angles of cos and sin.
INLINE void rotate(float* x, const float* cos, const float* sin, int half, bool interleaved) {
    if (interleaved) {
        for (int i = 0; i < half; i++) {
            const float a = x[2 * i], b = x[2 * i + 1];
            x[2 * i] = a * cos[i] - b * sin[i];
            x[2 * i + 1] = b * cos[i] + a * sin[i];
        }
        return;
    }
    int i = 0;
    for (; i + 16 <= half; i += 16) {
        const F a = load(x + i), b = load(x + half + i), c = load(cos + i), s = load(sin + i);
        store(x + i, a * c - b * s);
        store(x + half + i, b * c + a * s);
    }
    for (; i < half; i++) {
        const float a = x[i], b = x[half + i];
        x[i] = a * cos[i] - b * sin[i];
        x[half + i] = b * cos[i] + a * sin[i];
    }
}

}  // namespace
}  // namespace heads
