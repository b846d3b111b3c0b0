// Weights into panels, and rows back out of them.
#include "driver.h"

using namespace engine;

extern "C" {

// Arguments of engine_pack_dense: weight [outputs][inputs] in rows of `stride` elements of `type` → panels.
struct pack_args {
    const void* weight;
    void* packed;
    int64_t stride;
    int64_t outputs;
    int64_t inputs;
    int32_t type;
};

// Arguments of engine_pack_quantized: `type` i8 and float8: values [outputs][inputs] of a byte; i4: [outputs][(inputs + 1) / 2],
// two to a byte as value + 8, the even input low. Rows are `stride` bytes apart. Missing outputs and inputs become the value 0.
struct pack_quantized_args {
    const void* values;
    void* packed;
    int64_t stride;
    int64_t outputs;
    int64_t inputs;
    int64_t padded;  // inputs in the panels: a multiple of 8
    int32_t type;
};

// Arguments of engine_gather: out[i] = row ids[i] of a dense packed weight, times scale where that is not 0; ids outside
// [0, outputs) give zeros.
struct gather_args {
    const void* packed;
    const int64_t* ids;
    void* out;  // of out_type
    int64_t out_stride;
    int64_t count;
    int64_t outputs;
    int64_t inputs;
    int32_t type;
    int32_t out_type;
    float scale;
};
}

namespace {

// One panel: [32][inputs] → pairs of inputs ([inputs/2][32][2]) or single ones ([inputs][32]); what is missing becomes zero.
template <class E, int TOGETHER>
void pack_slowly(const E* from, int64_t stride, int64_t rows, int64_t inputs, int64_t start, E* to) {
    for (int64_t row = 0; row < PANEL; row++)
        for (int64_t i = start; i < round_up(inputs, 2); i++)
            to[i / TOGETHER * PANEL * TOGETHER + row * TOGETHER + i % TOGETHER] =
                row < rows && i < inputs ? from[row * stride + i] : E(0);
}

// U: the unit that moves, TOGETHER elements. A square of it is turned in the first-level cache, so that memory sees whole lines.
template <class E, class U, int TOGETHER>
void pack_panel(const E* from, int64_t stride, int64_t rows, int64_t inputs, E* to) {
    const int64_t SIDE = 16, step = SIDE * TOGETHER;
    const int64_t whole = rows == PANEL ? inputs / step * step : 0;
    U square[SIDE * PANEL];
    for (int64_t start = 0; start < whole; start += step) {
        for (int64_t row = 0; row < PANEL; row++) {
            U line[SIDE];
            memcpy(line, from + row * stride + start, sizeof line);
            for (int64_t k = 0; k < SIDE; k++) square[k * PANEL + row] = line[k];
        }
        memcpy(to + start * PANEL, square, sizeof square);
    }
    pack_slowly<E, TOGETHER>(from, stride, rows, inputs, whole, to);
}

template <class E, class U, int TOGETHER>
void pack_all(const pack_args& a) {
    const int64_t panels = (a.outputs + PANEL - 1) / PANEL, size = round_up(a.inputs, 2) * PANEL;
    for (int64_t panel; (panel = engine_claim(0, 1)) < panels;) {
        const int64_t left = a.outputs - panel * PANEL;
        pack_panel<E, U, TOGETHER>(static_cast<const E*>(a.weight) + panel * PANEL * a.stride, a.stride, left < PANEL ? left : PANEL,
                                   a.inputs, static_cast<E*>(a.packed) + panel * size);
    }
}

inline int byte_of(const pack_quantized_args& a, int64_t row, int64_t i) {
    const uint8_t* from = static_cast<const uint8_t*>(a.values) + row * a.stride;
    const bool real = row < a.outputs && i < a.inputs;
    if (a.type == ENGINE_I4) return real ? from[i / 2] >> (4 * (i & 1)) & 0xf : 8;
    const int flip = a.type == ENGINE_I8 ? 0x80 : 0;  // value + 128
    return real ? from[i] ^ flip : flip;
}

void pack_quantized_panel(const pack_quantized_args& a, int64_t panel) {
    const bool halves = a.type == ENGINE_I4;
    uint8_t* to = static_cast<uint8_t*>(a.packed) + panel * a.padded * PANEL / (halves ? 2 : 1);
    for (int64_t i = 0; i < a.padded; i += halves ? 8 : 4)
        for (int64_t row = panel * PANEL; row < (panel + 1) * PANEL; row++)
            for (int64_t j = i; j < i + 4; j++)
                *to++ = uint8_t(byte_of(a, row, j) | (halves ? byte_of(a, row, j + 4) << 4 : 0));
}

template <class E, int TOGETHER>
void gather_row(const gather_args& a, int64_t id, float (*widen)(E), float* row) {
    const E* panel = static_cast<const E*>(a.packed) + id / PANEL * round_up(a.inputs, 2) * PANEL + id % PANEL * TOGETHER;
    for (int64_t i = 0; i < a.inputs; i++) row[i] = widen(panel[i / TOGETHER * PANEL * TOGETHER + i % TOGETHER]);
}

void put_row(const gather_args& a, int64_t index, const float* row) {
    const int64_t offset = index * a.out_stride;
    const int count = int(a.inputs);
    if (a.out_type == ENGINE_BF16) return write_row<BF16>(a.out, offset, count, row);
    if (a.out_type == ENGINE_F16) return write_row<F16>(a.out, offset, count, row);
    write_row<F32>(a.out, offset, count, row);
}

}  // namespace

extern "C" {

void engine_pack_dense(const void* arguments, int, int) {
    const pack_args& a = *static_cast<const pack_args*>(arguments);
    if (a.type == ENGINE_BF16) return pack_all<uint16_t, uint32_t, 2>(a);
    if (a.type == ENGINE_F16) return pack_all<uint16_t, uint16_t, 1>(a);
    pack_all<uint32_t, uint32_t, 1>(a);
}

void engine_pack_quantized(const void* arguments, int, int) {
    const pack_quantized_args& a = *static_cast<const pack_quantized_args*>(arguments);
    for (int64_t panel; (panel = engine_claim(0, 1)) < (a.outputs + PANEL - 1) / PANEL;) pack_quantized_panel(a, panel);
}

void engine_gather(const void* arguments, int thread, int threads) {
    const gather_args& a = *static_cast<const gather_args*>(arguments);
    float* row = static_cast<float*>(thread_scratch(ROWS_SCRATCH, a.inputs * 4));
    for (int64_t index = thread; index < a.count; index += threads) {
        const int64_t id = a.ids[index];
        if (id < 0 || id >= a.outputs)
            memset(row, 0, size_t(a.inputs) * 4);
        else if (a.type == ENGINE_BF16)
            gather_row<uint16_t, 2>(a, id, [](uint16_t h) { return from_bf16(h); }, row);
        else if (a.type == ENGINE_F16)
            gather_row<uint16_t, 1>(a, id, [](uint16_t h) { return from_f16(h); }, row);
        else
            gather_row<float, 1>(a, id, [](float x) { return x; }, row);
        if (a.scale != 0)
            for (int64_t i = 0; i < a.inputs; i++) row[i] *= a.scale;
        put_row(a, index, row);
    }
}
}
