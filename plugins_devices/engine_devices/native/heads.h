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

// The norm as engine_rms_norm makes it, with its roundings.
template <class A>
INLINE void normalise(float* x, int count, const A* weight, float eps, float offset) {
    const F factor = all(inverse_rms(x, count, eps)), more = all(offset);
    for (int d = 0; d < count; d += 16) {
        const F v = load(x + d) * factor, w = take(weight + d, count - d);
        store(x + d, rounded<A>(offset == 0.0f ? rounded<A>(v) * w : v * (w + more)));
    }
}

// The first 2 · half elements turn by the angles of cos and sin, and are rounded to A.
template <class A>
INLINE void rotate(float* x, const A* cos, const A* sin, int half, bool interleaved) {
    if (!interleaved) {
        for (int i = 0; i < half; i += 16) {
            const int left = half - i;
            const F a = take(x + i, left), b = take(x + half + i, left), c = take(cos + i, left), s = take(sin + i, left);
            put(x + i, rounded<A>(a * c - b * s), left);
            put(x + half + i, rounded<A>(b * c + a * s), left);
        }
        return;
    }
    for (int i = 0; i < half; i += 16) {
        const int count = half - i < 16 ? half - i : 16;
        float even[16] = {}, odd[16] = {};
        for (int j = 0; j < count; j++) even[j] = x[2 * (i + j)], odd[j] = x[2 * (i + j) + 1];
        const F a = load(even), b = load(odd), c = take(cos + i, count), s = take(sin + i, count);
        store(even, rounded<A>(a * c - b * s));
        store(odd, rounded<A>(b * c + a * s));
        for (int j = 0; j < count; j++) x[2 * (i + j)] = even[j], x[2 * (i + j) + 1] = odd[j];
    }
}

// normalise() and rotate() of heads of N · 16 elements in registers, with the same bits: with a weight, if any, and the angles of all of
// its elements, if any, in halves. What heads share is read once: a store might change it, as far as the compiler knows.
template <class A, int N>
struct Turn {
    F weight[N], cos[N / 2], sin[N / 2];
    bool norms, turns;

    INLINE void take_weight(const A* from) {
        norms = from != nullptr;
        for (int i = 0; norms && i < N; i++) weight[i] = load(from + 16 * i);
    }
    INLINE void take_angles(const A* cosines, const A* sines) {
        turns = cosines != nullptr;
        for (int i = 0; turns && i < N / 2; i++) cos[i] = load(cosines + 16 * i), sin[i] = load(sines + 16 * i);
    }
    INLINE void apply(const A* from, float eps, float offset, A* to) const {
        F x[N];
        for (int i = 0; i < N; i++) x[i] = load(from + 16 * i);
        if (norms) {
            F sum = all(0), other = all(0);
            for (int i = 0; i < N; i += 2) sum = fma(x[i], x[i], sum), other = fma(x[i + 1], x[i + 1], other);
            const F factor = all(1.0f / __builtin_sqrtf(total(sum + other) / float(N * 16) + eps)), more = all(offset);
            for (int i = 0; i < N; i++) {
                const F v = x[i] * factor;
                x[i] = rounded<A>(offset == 0.0f ? rounded<A>(v) * weight[i] : v * (weight[i] + more));
            }
        }
        for (int i = 0; turns && i < N / 2; i++) {
            const F a = x[i], b = x[i + N / 2];
            x[i] = rounded<A>(a * cos[i] - b * sin[i]);
            x[i + N / 2] = rounded<A>(b * cos[i] + a * sin[i]);
        }
        for (int i = 0; i < N; i++) store(to + 16 * i, x[i]);
    }
};

}  // namespace
}  // namespace heads
