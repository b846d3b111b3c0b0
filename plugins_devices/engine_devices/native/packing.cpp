// Weights into panels, and rows back out of them.
#include "driver.h"
#include "pairs.h"
#include "panels.h"

using namespace engine;

extern "C" {

// A tensor [outputs][inputs] in rows of `stride` elements.
struct pack_piece {
    const void* weight;
    int64_t stride;
    int64_t outputs;
};

// Arguments of engine_pack_dense: pieces of `type`, one below the other → panels. All but the last have whole panels of outputs.
struct pack_args {
    const pack_piece* pieces;
    void* packed;
    int64_t count;
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

// Where a panel of a weight with so many inputs has one of them.
template <int TOGETHER>
int64_t place_of(int64_t inputs, int64_t i, int64_t row) {
    return TOGETHER == 2 ? 2 * pair_place(in_registers(inputs), i / 2, row) + i % 2 : i * PANEL + row;
}

// The panel's inputs from `start` on: [32][inputs] → pairs of inputs or single ones; what is missing becomes zero.
template <class E, int TOGETHER>
void pack_slowly(const E* from, int64_t stride, int64_t rows, int64_t inputs, int64_t start, E* to) {
    for (int64_t row = 0; row < PANEL; row++)
        for (int64_t i = start; i < round_up(inputs, 2); i++)
            to[place_of<TOGETHER>(inputs, i, row)] = row < rows && i < inputs ? from[row * stride + i] : E(0);
}

// Words as they come out of turn_panel: one float32 or a pair of bfloat16 is kept, a pair of float16 becomes single ones.
template <class E, int TOGETHER>
void put_lines(const uint32_t* lines, bool registers, E* to) {
    const int each = 4 / sizeof(E), half = PANEL / 2;
    if (each == TOGETHER && TOGETHER == 2 && registers) {
        for (int line = 0; line < LANES; line++, lines += PANEL)
            for (int part = 0; part < 2; part++) memcpy(to + pair_place(true, line, part * half) * 2, lines + part * half, half * 4);
        return;
    }
    if (each == TOGETHER) {
        memcpy(to, lines, LANES * PANEL * 4);
        return;
    }
    for (int line = 0; line < LANES; line++, lines += PANEL, to += each * PANEL)
        for (int i = 0; i < PANEL; i++) to[i] = E(lines[i]), to[PANEL + i] = E(lines[i] >> 16);
}

template <class E, int TOGETHER>
void pack_panel(const E* from, int64_t stride, int64_t rows, int64_t inputs, E* to) {
    const int64_t each = 4 / sizeof(E), whole = rows == PANEL ? inputs / (each * LANES) * (each * LANES) : 0;
    turn_panel(from, stride * int64_t(sizeof(E)), whole / each,
               [&](int64_t word, const uint32_t* lines) { put_lines<E, TOGETHER>(lines, in_registers(inputs), to + word * each * PANEL); });
    pack_slowly<E, TOGETHER>(from, stride, rows, inputs, whole, to);
}

template <class E, int TOGETHER>
void pack_all(const pack_args& a, int threads) {
    const int64_t size = round_up(a.inputs, 2) * PANEL;
    int64_t panels = 0;
    for (int64_t i = 0; i < a.count; i++) panels += (a.pieces[i].outputs + PANEL - 1) / PANEL;
    each_panel(panels, size * int64_t(sizeof(E)), threads, [&](int64_t panel) {
        const pack_piece* piece = a.pieces;
        int64_t row = panel * PANEL;
        for (; row >= piece->outputs; piece++) row -= piece->outputs;
        const int64_t left = piece->outputs - row;
        pack_panel<E, TOGETHER>(static_cast<const E*>(piece->weight) + row * piece->stride, piece->stride, left < PANEL ? left : PANEL,
                                a.inputs, static_cast<E*>(a.packed) + panel * size);
    });
}

inline int byte_of(const pack_quantized_args& a, int64_t row, int64_t i) {
    const uint8_t* from = static_cast<const uint8_t*>(a.values) + row * a.stride;
    const bool real = row < a.outputs && i < a.inputs;
    if (a.type == ENGINE_I4) return real ? from[i / 2] >> (4 * (i & 1)) & 0xf : 8;
    const int flip = a.type == ENGINE_I8 ? 0x80 : 0;  // value + 128
    return real ? from[i] ^ flip : flip;
}

// Four bytes of a row as the panel has them.
inline uint32_t packed_word(int type, uint32_t word) {
    if (type == ENGINE_I8) return word ^ 0x80808080u;
    if (type != ENGINE_I4) return word;
    // 8 inputs in turns, the first four of them in the lower halves of the bytes: two bits of their numbers change places twice.
    word = (word & 0xff0000ffu) | (word & 0x00ff0000u) >> 8 | (word & 0x0000ff00u) << 8;
    return (word & 0xf00ff00fu) | (word & 0x0f000f00u) >> 4 | (word & 0x00f000f0u) << 4;
}

void pack_quantized_panel(const pack_quantized_args& a, int64_t panel) {
    const bool halves = a.type == ENGINE_I4;
    const int64_t each = halves ? 8 : 4, whole = (panel + 1) * PANEL <= a.outputs ? a.inputs / (each * LANES) * (each * LANES) : 0;
    uint8_t* to = static_cast<uint8_t*>(a.packed) + panel * a.padded * PANEL / (halves ? 2 : 1);
    turn_panel(static_cast<const uint8_t*>(a.values) + panel * PANEL * a.stride, a.stride, whole / each,
               [&](int64_t, uint32_t* lines) {
                   for (int i = 0; i < LANES * PANEL; i++) lines[i] = packed_word(a.type, lines[i]);
                   memcpy(to, lines, LANES * PANEL * 4);
                   to += LANES * PANEL * 4;
               });
    for (int64_t i = whole; i < a.padded; i += each)
        for (int64_t row = panel * PANEL; row < (panel + 1) * PANEL; row++)
            for (int64_t j = i; j < i + 4; j++)
                *to++ = uint8_t(byte_of(a, row, j) | (halves ? byte_of(a, row, j + 4) << 4 : 0));
}

template <class E, int TOGETHER>
void gather_row(const gather_args& a, int64_t id, float (*widen)(E), float* row) {
    const E* panel = static_cast<const E*>(a.packed) + id / PANEL * round_up(a.inputs, 2) * PANEL;
    for (int64_t i = 0; i < a.inputs; i++) row[i] = widen(panel[place_of<TOGETHER>(a.inputs, i, id % PANEL)]);
}

// Pairs of 16-bit inputs as they are. A row is one word of each of its panel's lines, so the lines of the row that comes after this one are
// fetched meanwhile.
void move_pairs(const gather_args& a, int64_t index, int64_t step) {
    const int64_t id = a.ids[index], after = index + step < a.count ? a.ids[index + step] : id;
    const int64_t next = after < 0 || after >= a.outputs ? id : after;
    const auto panel = [&](int64_t row) { return static_cast<const uint32_t*>(a.packed) + row / PANEL * (a.inputs / 2) * PANEL; };
    const uint32_t *from = panel(id), *coming = panel(next);
    const bool registers = in_registers(a.inputs);
    char* to = static_cast<char*>(a.out) + index * a.out_stride * 2;
    for (int64_t i = 0; i < a.inputs / 2; i++) {
        __builtin_prefetch(coming + pair_place(registers, i, next % PANEL));
        memcpy(to + 4 * i, from + pair_place(registers, i, id % PANEL), 4);
    }
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

void engine_pack_dense(const void* arguments, int, int threads) {
    const pack_args& a = *static_cast<const pack_args*>(arguments);
    if (a.type == ENGINE_BF16) return pack_all<uint16_t, 2>(a, threads);
    if (a.type == ENGINE_F16) return pack_all<uint16_t, 1>(a, threads);
    pack_all<uint32_t, 1>(a, threads);
}

void engine_pack_quantized(const void* arguments, int, int threads) {
    const pack_quantized_args& a = *static_cast<const pack_quantized_args*>(arguments);
    const int64_t bytes = a.padded * PANEL / (a.type == ENGINE_I4 ? 2 : 1);
    each_panel((a.outputs + PANEL - 1) / PANEL, bytes, threads, [&](int64_t panel) { pack_quantized_panel(a, panel); });
}

void engine_gather(const void* arguments, int thread, int threads) {
    const gather_args& a = *static_cast<const gather_args*>(arguments);
    float* row = static_cast<float*>(thread_scratch(ROWS_SCRATCH, a.inputs * 4));
    const bool pairs = a.type == ENGINE_BF16 && a.out_type == ENGINE_BF16 && a.scale == 0 && a.inputs % 2 == 0;
    for (int64_t index = thread; index < a.count; index += threads) {
        const int64_t id = a.ids[index];
        const bool known = id >= 0 && id < a.outputs;
        if (known && pairs) {
            move_pairs(a, index, threads);
            continue;
        }
        if (!known)
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
