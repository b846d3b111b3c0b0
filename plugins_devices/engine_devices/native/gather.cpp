// Rows of quantized weights in panels, for embeddings; columns of activations in another order.
#include "driver.h"
#include "quantize.h"
#include "share.h"

using namespace engine;

extern "C" {

// Arguments of engine_gather_quantized: out[i] = row ids[i] of a weight as engine_linear has it, rounded to out_type; times `multiplier`
// and rounded again where that is not 0. Ids outside [0, outputs) give zeros.
struct gather_quantized_args {
    const void* weight;
    const void* scale;
    const void* shift;
    const float* table;
    const float* outer;
    const int64_t* ids;
    void* out;
    int64_t out_stride;
    int64_t count;
    int64_t outputs;
    int64_t inputs;
    int32_t weight_type;
    int32_t scale_type;
    int32_t out_type;
    int32_t group;
    float factor;
    float multiplier;
};

// Arguments of engine_columns: out[r][j] = x[r][order[j]], 0 where order[j] is -1. All of one type.
struct columns_args {
    const void* x;
    const int32_t* order;
    void* out;
    int64_t x_stride;
    int64_t rows;
    int64_t size;  // of order and of a row of out
    int32_t type;
};
}

namespace {

int bits_of(int type) {
    switch (type) {
        case ENGINE_I2: return 2;
        case ENGINE_I3: return 3;
        case ENGINE_I4:
        case ENGINE_C4: return 4;
        case ENGINE_I5: return 5;
        case ENGINE_I6: return 6;
        default: return 8;
    }
}

float float8_of(int bits, int mantissa, int bias, bool infinities) {
    const int size = bits & 0x7f, exponent = size >> mantissa, rest = size & ((1 << mantissa) - 1);
    const float sign = bits & 0x80 ? -1.0f : 1.0f;
    if (infinities ? size >= 0x7c : size == 0x7f) return infinities && size == 0x7c ? sign * __builtin_inff() : __builtin_nanf("");
    const float fraction = float(rest) / float(1 << mantissa) + (exponent ? 1.0f : 0.0f);
    return sign * __builtin_ldexpf(fraction, (exponent ? exponent : 1) - bias);
}

// Input i of one output's lane: its bits, unsigned.
struct Lane {
    const uint8_t* panel;
    int lane, bits;

    int fields(const uint8_t* plane, int width, int64_t i) const {
        const int together = 8 / width;
        const int64_t quad = i / 4;
        return plane[(quad / together * PANEL + lane) * 4 + i % 4] >> (width * int(quad % together)) & ((1 << width) - 1);
    }
    int get(int64_t i) const {
        if (bits == 8) return panel[(i / 4 * PANEL + lane) * 4 + i % 4];
        if (bits == 4) return fields(panel, 4, i);
        const int low = bits > 4 ? 4 : 2, high = bits - low;
        const uint8_t* block = panel + i / 32 * (PANEL * 4 * bits);
        const int value = fields(block, low, i % 32);
        return high ? value | fields(block + low * PANEL * 4, high, i % 32) << low : value;
    }
};

float value_of(const gather_quantized_args& a, int bits) {
    switch (a.weight_type) {
        case ENGINE_C4:
        case ENGINE_C8: return a.table[bits];
        case ENGINE_F8_E4M3: return float8_of(bits, 3, 7, false);
        case ENGINE_F8_E5M2: return float8_of(bits, 2, 15, true);
        default: return float(bits - integer_offset(a.weight_type));
    }
}

float scale_at(const gather_quantized_args& a, const void* scales, int64_t index) {
    if (a.scale_type == ENGINE_F16) return from_f16(static_cast<const uint16_t*>(scales)[index]);
    return static_cast<const float*>(scales)[index];
}

void gather_row(const gather_quantized_args& a, int64_t id, float* row) {
    const int bits = bits_of(a.weight_type);
    const int64_t padded = round_up(a.inputs, a.group), groups = padded / a.group;
    const Lane lane{static_cast<const uint8_t*>(a.weight) + id / PANEL * (padded * PANEL * bits / 8), int(id % PANEL), bits};
    const float outer = a.outer ? a.factor * a.outer[id] : a.factor;
    for (int64_t g = 0; g < groups; g++) {
        const int64_t place = (id / PANEL * groups + g) * PANEL + id % PANEL;
        const float scale = scale_at(a, a.scale, place) * outer, shift = a.shift ? scale_at(a, a.shift, place) * outer : 0.0f;
        const int64_t end = (g + 1) * a.group < a.inputs ? (g + 1) * a.group : a.inputs;
        for (int64_t i = g * a.group; i < end; i++) row[i] = value_of(a, lane.get(i)) * scale + shift;
    }
}

template <class T>
void put_row(const gather_quantized_args& a, int64_t index, const float* row) {
    typename T::Element* to = static_cast<typename T::Element*>(a.out) + index * a.out_stride;
    for (int64_t i = 0; i < a.inputs; i++) {
        T::put(to + i, row[i]);
        if (a.multiplier != 0) T::put(to + i, T::get(to + i) * a.multiplier);
    }
}

template <class E>
void move_columns(const columns_args& a, int64_t row) {
    const E* x = static_cast<const E*>(a.x) + row * a.x_stride;
    E* out = static_cast<E*>(a.out) + row * a.size;
    for (int64_t j = 0; j < a.size; j++) out[j] = a.order[j] < 0 ? E(0) : x[a.order[j]];
}

}  // namespace

extern "C" void engine_gather_quantized(const void* arguments, int thread, int threads) {
    const gather_quantized_args& a = *static_cast<const gather_quantized_args*>(arguments);
    float* row = static_cast<float*>(thread_scratch(ROWS_SCRATCH, a.inputs * 4));
    for (int64_t index = thread; index < a.count; index += threads) {
        const int64_t id = a.ids[index];
        if (id < 0 || id >= a.outputs) memset(row, 0, size_t(a.inputs) * 4);
        else gather_row(a, id, row);
        if (a.out_type == ENGINE_BF16) put_row<BF16>(a, index, row);
        else if (a.out_type == ENGINE_F16) put_row<F16>(a, index, row);
        else put_row<F32>(a, index, row);
    }
}

extern "C" void engine_columns(const void* arguments, int thread, int threads) {
    const columns_args& a = *static_cast<const columns_args*>(arguments);
    const share::Share rows = share::of(a.rows, a.size, thread, threads);
    for (int64_t row = rows.begin; row < rows.end; row++) {
        if (a.type == ENGINE_F32) move_columns<uint32_t>(a, row);
        else move_columns<uint16_t>(a, row);
    }
}
