// Norms, sums, activations and gates of rows. Each rounds where the separate torch operations would.
#include "rows.h"

#include "heads.h"
#include "lanes.h"
#include "norm.h"
#include "share.h"

namespace {

using namespace lanes;

// Lanes from `left` on become 0.
INLINE F first_lanes(const F& x, int64_t left) {
    if (left >= 16) return x;
    float lane[16];
    store(lane, x);
    for (int64_t i = left; i < 16; i++) lane[i] = 0.0f;
    return load(lane);
}

template <class A>
void layer_norm(const A* x, const A* weight, A* out, const engine_rows_arguments& a) {
    const float mean = sum_over(x, a.size, [](const F& v, const F& sum, int64_t) { return sum + v; }) / float(a.size);
    const F middle = all(mean);
    const float squares = sum_over(x, a.size, [&](const F& v, const F& sum, int64_t left) {
        const F off = first_lanes(v - middle, left);
        return fma(off, off, sum);
    });
    const F factor = all(1.0f / __builtin_sqrtf(squares / float(a.size) + a.eps));
    const A* bias = (const A*)a.bias;
    for (int64_t i = 0; i < a.size; i += 16) {
        const int64_t left = a.size - i;
        F v = (take(x + i, left) - middle) * factor;
        if (weight) v = v * take(weight + i, left);
        if (bias) v = v + take(bias + i, left);
        put(out + i, v, left);
    }
}

template <class A>
void norm_rows(const engine_rows_arguments& a, bool layer, int thread, int threads) {
    const share::Share rows = share::of(a.outer * a.inner, a.size, thread, threads);
    for (int64_t row = rows.begin; row < rows.end; row++) {
        const A* x = normed_row<A>(a, row);
        A* out = (A*)a.out + row * a.size;
        if (layer) layer_norm(x, (const A*)a.weight, out, a);
        else rms_norm(x, (const A*)a.weight, out, a);
    }
}

template <class ONE>
INLINE F each(const F& x, ONE one) {
    F r;
#define STEP(i) r.p[i] = one(x.p[i]);
    LANES_EACH(STEP)
#undef STEP
    return r;
}

INLINE F sigmoid(const F& x) { return all(1.0f) / (all(1.0f) + exponential(all(0.0f) - x)); }

template <int FUNCTION>
INLINE F apply(const F& x, float cap) {
    switch (FUNCTION) {
        case ENGINE_SILU: return each(x, silu_part);
        case ENGINE_GELU: return gaussian_gate(x);
        case ENGINE_GELU_TANH: return each(x, gelu_tanh_part);
        case ENGINE_GELU_QUICK: return x * sigmoid(x * all(1.702f));
        case ENGINE_RELU: return larger(x, all(0.0f));
        case ENGINE_RELU2: return larger(x, all(0.0f)) * larger(x, all(0.0f));
        case ENGINE_TANH: return hyperbolic_tangent(x);
        case ENGINE_SIGMOID: return sigmoid(x);
        default: return hyperbolic_tangent(x / all(cap)) * all(cap);
    }
}

// Rows in pieces of columns, so that one long row is shared too.
template <class A, class PIECE>
void in_pieces(const engine_rows_arguments& a, int thread, int threads, PIECE piece) {
    const int64_t columns = share::LEAST, pieces = (a.size + columns - 1) / columns;
    const int64_t size = a.size < columns ? a.size : columns;
    const share::Share units = share::of(a.outer * a.inner * pieces, size, thread, threads);
    for (int64_t unit = units.begin; unit < units.end; unit++) {
        const int64_t row = unit / pieces, begin = unit % pieces * columns;
        const int64_t end = begin + columns < a.size ? begin + columns : a.size;
        piece(row_of<A>(a.x, a.x_outer, a.x_inner, row, a.inner), (A*)a.out + row * a.size, row, begin, end);
    }
}

template <class A, int FUNCTION>
void activate(const engine_rows_arguments& a, bool gate, int thread, int threads) {
    in_pieces<A>(a, thread, threads, [&](const A* x, A* out, int64_t, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i += 16) {
            F v = apply<FUNCTION>(take(x + i, end - i), a.cap);
            if (gate) v = rounded<A>(v) * take(x + a.size + i, end - i);
            put(out + i, v, end - i);
        }
    });
}

template <class A>
void activate_any(const engine_rows_arguments& a, bool gate, int thread, int threads) {
    switch (a.function) {
        case ENGINE_SILU: return activate<A, ENGINE_SILU>(a, gate, thread, threads);
        case ENGINE_GELU: return activate<A, ENGINE_GELU>(a, gate, thread, threads);
        case ENGINE_GELU_TANH: return activate<A, ENGINE_GELU_TANH>(a, gate, thread, threads);
        case ENGINE_GELU_QUICK: return activate<A, ENGINE_GELU_QUICK>(a, gate, thread, threads);
        case ENGINE_RELU: return activate<A, ENGINE_RELU>(a, gate, thread, threads);
        case ENGINE_RELU2: return activate<A, ENGINE_RELU2>(a, gate, thread, threads);
        case ENGINE_TANH: return activate<A, ENGINE_TANH>(a, gate, thread, threads);
        case ENGINE_SIGMOID: return activate<A, ENGINE_SIGMOID>(a, gate, thread, threads);
        default: return activate<A, ENGINE_SOFT_CAP>(a, gate, thread, threads);
    }
}

template <class A>
void add(const engine_rows_arguments& a, int thread, int threads) {
    in_pieces<A>(a, thread, threads, [&](const A* x, A* out, int64_t row, int64_t begin, int64_t end) {
        add_row(x + begin, row_of<A>(a.y, a.y_outer, a.y_inner, row, a.inner) + begin, out + begin, end - begin);
    });
}

const engine_rows_arguments& rows_in(const void* arguments) { return *(const engine_rows_arguments*)arguments; }

}  // namespace

extern "C" {

void engine_rms_norm(const void* arguments, int thread, int threads) {
    const engine_rows_arguments& a = rows_in(arguments);
    ENGINE_FOR_TYPE(a.type, norm_rows<A>(a, false, thread, threads))
}

void engine_layer_norm(const void* arguments, int thread, int threads) {
    const engine_rows_arguments& a = rows_in(arguments);
    ENGINE_FOR_TYPE(a.type, norm_rows<A>(a, true, thread, threads))
}

void engine_add(const void* arguments, int thread, int threads) {
    const engine_rows_arguments& a = rows_in(arguments);
    ENGINE_FOR_TYPE(a.type, add<A>(a, thread, threads))
}

void engine_activate(const void* arguments, int thread, int threads) {
    const engine_rows_arguments& a = rows_in(arguments);
    ENGINE_FOR_TYPE(a.type, activate_any<A>(a, false, thread, threads))
}

void engine_gate(const void* arguments, int thread, int threads) {
    const engine_rows_arguments& a = rows_in(arguments);
    ENGINE_FOR_TYPE(a.type, activate_any<A>(a, true, thread, threads))
}

}  // extern "C"
