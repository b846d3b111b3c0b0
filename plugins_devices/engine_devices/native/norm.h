// One row's sum and root-mean-square norm.
#pragma once
#include "lanes.h"
#include "rows.h"

namespace {

using namespace lanes;

template <class A>
const A* row_of(const void* base, int64_t outer, int64_t inner, int64_t row, int64_t inners) {
    return (const A*)base + row / inners * outer + row % inners * inner;
}

// x + y of one row into `sum`.
template <class A>
void add_row(const A* x, const A* y, A* sum, int64_t size) {
    for (int64_t i = 0; i < size; i += 16) put(sum + i, take(x + i, size - i) + take(y + i, size - i), size - i);
}

template <class A, class STEP>
INLINE float sum_over(const A* x, int64_t size, STEP step) {
    F sums[2] = {all(0), all(0)};
    int64_t i = 0;
    for (; i + 32 <= size; i += 32) {
        sums[0] = step(load(x + i), sums[0], 16);
        sums[1] = step(load(x + i + 16), sums[1], 16);
    }
    for (; i < size; i += 16) sums[0] = step(take(x + i, size - i), sums[0], size - i);
    return total(sums[0] + sums[1]);
}

template <class A>
void rms_norm(const A* x, const A* weight, A* out, const engine_rows_arguments& a) {
    const float squares = sum_over(x, a.size, [](const F& v, const F& sum, int64_t) { return fma(v, v, sum); });
    const F factor = all(1.0f / __builtin_sqrtf(squares / float(a.size) + a.eps)), offset = all(a.offset);
    for (int64_t i = 0; i < a.size; i += 16) {
        const int64_t left = a.size - i;
        const F v = take(x + i, left) * factor, w = take(weight + i, left);
        put(out + i, a.offset == 0.0f ? rounded<A>(v) * w : v * (w + offset), left);
    }
}

// A row of x; with y, of x + y, which is written to `sum`.
template <class A>
const A* normed_row(const engine_rows_arguments& a, int64_t row) {
    const A* x = row_of<A>(a.x, a.x_outer, a.x_inner, row, a.inner);
    if (!a.y) return x;
    A* sum = (A*)a.sum + row * a.size;
    add_row(x, row_of<A>(a.y, a.y_outer, a.y_inner, row, a.inner), sum, a.size);
    return sum;
}

}  // namespace
