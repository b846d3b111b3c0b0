// Mixtures of experts: which rows go to which experts, the experts' products, the weighted sum of their results.
//
// A pair is a row and one of its experts: row · top_k + place. Pairs are put in the order of their experts, so that an expert's rows,
// and what becomes of them, lie together.
#include <string.h>

#include "lanes.h"
#include "linear.h"
#include "pool.h"
#include "share.h"

using namespace engine;

extern "C" {

void engine_linear(const void* arguments, int thread, int threads);

// Arguments of engine_route: logits [rows, experts] → each row's top_k experts, the best first, with float32 weights: softmax over all
// experts, then, where `renormalize`, divided by their sum.
struct route_args {
    const void* logits;
    float* weight;    // [rows, top_k]
    int32_t* chosen;  // [rows, top_k]
    int32_t* begin;   // [experts + 1]: where each expert's pairs begin
    int32_t* pairs;   // [rows · top_k] in the experts' order
    int32_t* place;   // [rows · top_k]: where a pair is among them
    int64_t logits_stride;
    int32_t rows;
    int32_t experts;
    int32_t top_k;
    int32_t type;
    int32_t renormalize;
};

// Arguments of engine_experts: for each expert its rows of x [.., inputs] times its weight → out [rows · top_k, ..], in the experts' order.
struct experts_args {
    const linear_args* layers;  // by expert; what a step decides (x, out, rows) is filled in here
    const void* x;
    void* out;
    const int32_t* begin;
    const int32_t* pairs;  // null: x is in the experts' order already
    int64_t x_stride;
    int64_t out_stride;
    int32_t experts;
    int32_t top_k;
};

// Arguments of engine_mix: out[row] = sum over its places of weight · x[place of the pair], summed in float32 in the places' order.
struct mix_args {
    const void* x;
    const float* weight;
    const int32_t* place;
    void* out;
    int64_t size;
    int32_t rows;
    int32_t top_k;
    int32_t type;
};
}

namespace {

// Products of one operation are cut so that each thread gets several pieces.
const int PIECES_PER_THREAD = 4;
const int PIECES = 1;  // the counter of pieces: products count in 0

int64_t element_bytes(int type) { return type == ENGINE_F32 ? 4 : 2; }

// Softmax of one row's logits; all NaN where one of them is.
template <class A>
void shares_of(const A* logits, int count, float* shares) {
    float most = -__builtin_inff(), sum = 0;
    for (int i = 0; i < count; i += 16) {
        const lanes::F part = lanes::take(logits + i, count - i);
        float x[16];
        lanes::store(x, part);
        for (int j = 0; j < 16 && i + j < count; j++) {
            shares[i + j] = x[j];
            most = x[j] > most ? x[j] : most;
        }
    }
    for (int i = 0; i < count; i++) sum += shares[i] = __builtin_expf(shares[i] - most);
    for (int i = 0; i < count; i++) shares[i] /= sum;
}

// The top_k largest, the first among equals. Shares that are no numbers are never larger, so that some valid experts are chosen.
void choose(const route_args& a, float* shares, int64_t row) {
    int32_t* chosen = a.chosen + row * a.top_k;
    float* weight = a.weight + row * a.top_k;
    float sum = 0;
    for (int place = 0; place < a.top_k; place++) {
        int best = 0;
        while (shares[best] == -1.0f) best++;
        for (int e = best + 1; e < a.experts; e++)
            if (shares[e] > shares[best]) best = e;
        chosen[place] = best;
        sum += weight[place] = shares[best];
        shares[best] = -1.0f;
    }
    for (int place = 0; a.renormalize && place < a.top_k; place++) weight[place] /= sum;
}

// Puts the pairs in the order of their experts, each expert's in the order of the rows.
void sort_pairs(const route_args& a) {
    const int32_t count = a.rows * a.top_k;
    memset(a.begin, 0, size_t(a.experts + 1) * sizeof(int32_t));
    for (int32_t pair = 0; pair < count; pair++) a.begin[a.chosen[pair] + 1]++;
    for (int32_t e = 0; e < a.experts; e++) a.begin[e + 1] += a.begin[e];
    // begin[e] runs to where the next expert begins, and is put back afterwards
    for (int32_t pair = 0; pair < count; pair++) {
        const int32_t place = a.begin[a.chosen[pair]]++;
        a.pairs[place] = pair;
        a.place[pair] = place;
    }
    memmove(a.begin + 1, a.begin, size_t(a.experts) * sizeof(int32_t));
    a.begin[0] = 0;
}

// An expert's rows of x, one below the other: as they are if it is one, else copied.
const void* rows_of(const experts_args& a, int64_t first, int64_t rows, int64_t row_bytes, int64_t* stride, int64_t element) {
    const char* x = static_cast<const char*>(a.x);
    *stride = a.x_stride;
    if (!a.pairs) return x + first * a.x_stride * element;
    if (rows == 1) return x + a.pairs[first] / a.top_k * a.x_stride * element;
    char* copies = static_cast<char*>(thread_scratch(EXPERT_SCRATCH, rows * row_bytes));
    for (int64_t i = 0; i < rows; i++)
        memcpy(copies + i * row_bytes, x + a.pairs[first + i] / a.top_k * a.x_stride * element, size_t(row_bytes));
    *stride = row_bytes / element;
    return copies;
}

// Panels [panel, panel + count) of one expert's product.
void multiply(const experts_args& a, int expert, int32_t panel, int32_t count) {
    linear_args layer = a.layers[expert];
    const int64_t first = a.begin[expert], element = element_bytes(layer.x_type);
    layer.rows = a.begin[expert + 1] - a.begin[expert];
    layer.x = rows_of(a, first, layer.rows, layer.inputs * element, &layer.x_stride, element);
    layer.out = static_cast<char*>(a.out) + first * a.out_stride * element_bytes(layer.out_type);
    layer.out_stride = a.out_stride;
    layer.first_unit = panel;
    layer.units = count;
    engine_linear(&layer, 0, 1);
}

template <class A>
void mix(const mix_args& a, int64_t row) {
    const A* x = static_cast<const A*>(a.x);
    A* out = static_cast<A*>(a.out) + row * a.size;
    const int32_t* place = a.place + row * a.top_k;
    const float* weight = a.weight + row * a.top_k;
    for (int64_t i = 0; i < a.size; i += 16) {
        lanes::F sum = lanes::all(0);
        for (int k = 0; k < a.top_k; k++) sum = sum + lanes::take(x + place[k] * a.size + i, a.size - i) * lanes::all(weight[k]);
        lanes::put(out + i, sum, a.size - i);
    }
}

}  // namespace

extern "C" void engine_route(const void* arguments, int thread, int threads) {
    const route_args& a = *static_cast<const route_args*>(arguments);
    const share::Share rows = share::of(a.rows, a.experts * 16, thread, threads);
    float* shares = static_cast<float*>(thread_scratch(ROWS_SCRATCH, a.experts * int64_t(sizeof(float))));
    for (int64_t row = rows.begin; row < rows.end; row++) {
        ENGINE_FOR_TYPE(a.type, shares_of(static_cast<const A*>(a.logits) + row * a.logits_stride, a.experts, shares))
        choose(a, shares, row);
    }
    // Whoever comes last sees what all others wrote.
    if (engine_claim(0, 1) == threads - 1) sort_pairs(a);
}

extern "C" void engine_experts(const void* arguments, int thread, int threads) {
    (void)thread;
    const experts_args& a = *static_cast<const experts_args*>(arguments);
    int32_t busy = 0;
    for (int e = 0; e < a.experts; e++) busy += a.begin[e + 1] > a.begin[e];
    if (!busy) return;
    const int32_t panels = (a.layers[0].outputs + PANEL - 1) / PANEL, units = a.layers[0].gate ? panels / 2 : panels;
    int32_t pieces = (threads * PIECES_PER_THREAD + busy - 1) / busy;
    pieces = threads == 1 ? 1 : pieces < units ? pieces : units;
    int expert = 0, before = 0;  // busy experts below `expert`
    for (int64_t piece = engine_claim(PIECES, 1); piece < int64_t(busy) * pieces; piece = engine_claim(PIECES, 1)) {
        for (; before < piece / pieces || a.begin[expert + 1] == a.begin[expert]; expert++) before += a.begin[expert + 1] > a.begin[expert];
        const int32_t part = int32_t(piece % pieces), from = units * part / pieces;
        multiply(a, expert, from, units * (part + 1) / pieces - from);
    }
}

extern "C" void engine_mix(const void* arguments, int thread, int threads) {
    const mix_args& a = *static_cast<const mix_args*>(arguments);
    const share::Share rows = share::of(a.rows, a.size * a.top_k, thread, threads);
    for (int64_t row = rows.begin; row < rows.end; row++) { ENGINE_FOR_TYPE(a.type, mix<A>(a, row)) }
}
