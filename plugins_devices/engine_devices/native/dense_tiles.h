// Products of bf16 with dense panels in the matrix unit.
#pragma once
#include "amx.h"
#include "driver.h"
#include "pairs.h"

#if defined(ENGINE_AMX)
namespace engine {

const int DEEP = REGISTER_INPUTS;  // inputs of one product of registers

// Rows of x as registers take them: the first sixteen (or fewer) of a group of up to 32, and the others. `step`: bytes to the next DEEP
// inputs.
struct TileRows {
    const uint8_t *upper, *lower;
    int64_t stride, upper_step, lower_step;
};

inline void fetch_lines(Ahead& ahead, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += amx::LINE) __builtin_prefetch(ahead.from + at, 0, 3);
    ahead.from += bytes;
}

// y[n][32] += x · panel over `inputs`, a multiple of DEEP; `first`: y is set instead. BOTH: more than sixteen rows. STREAM: as many bytes are
// fetched as are read, half of them before each register of weights (all before the first: 1.1 times the time).
template <bool BOTH, bool STREAM>
inline void multiply_tiles(const uint8_t* panel, TileRows x, int64_t inputs, Ahead ahead, bool first, float* y) {
    const int64_t line = PANEL * 4;
    float* lower = y + 16 * PANEL;
    if (first) {
        amx::clear<0>(), amx::clear<1>();
        if (BOTH) amx::clear<2>(), amx::clear<3>();
    } else {
        amx::load<0>(y, line), amx::load<1>(y + 16, line);
        if (BOTH) amx::load<2>(lower, line), amx::load<3>(lower + 16, line);
    }
    const int64_t fetched = STREAM ? amx::TILE : ahead.step * (DEEP / 2);  // of the next weights
    for (int64_t i = 0; i < inputs; i += DEEP, panel += DEEP * PANEL * 2) {
        fetch_lines(ahead, fetched);
        amx::load<6>(panel, amx::LINE);
        amx::load<4>(x.upper, x.stride);
        amx::multiply_bf16<0, 4, 6>();
        if (STREAM) fetch_lines(ahead, fetched);
        amx::load<7>(panel + amx::TILE, amx::LINE);
        amx::multiply_bf16<1, 4, 7>();
        x.upper += x.upper_step;
        if (!BOTH) continue;
        amx::load<5>(x.lower, x.stride);
        amx::multiply_bf16<2, 5, 6>();
        amx::multiply_bf16<3, 5, 7>();
        x.lower += x.lower_step;
    }
    amx::store<0>(y, line), amx::store<1>(y + 16, line);
    if (BOTH) amx::store<2>(lower, line), amx::store<3>(lower + 16, line);
}

// bf16 weights and activations whose inputs come in whole registers.
struct KernelTiles {
    static const int rows = amx::ROWS, width = PANEL * 2, input_bytes = 2;
    const linear_args& a;
    amx::Registers registers;
    const uint8_t* x = nullptr;  // the prepared rows
    bool turned = false;         // they stand as registers take them: for each group, DEEP inputs of its rows after the other

    static bool takes(const linear_args& a) { return a.x_type == ENGINE_BF16 && a.inputs % DEEP == 0; }

    explicit KernelTiles(const linear_args& args) : a(args) {}
    int64_t inputs() const { return a.inputs; }
    int64_t unit() const { return DEEP; }
    int64_t panel_bytes() const { return int64_t(a.inputs) * PANEL * 2; }
    const uint8_t* weights(int64_t panel) const { return static_cast<const uint8_t*>(a.weight) + panel * panel_bytes(); }

    // Lines of one register that lie a row of x apart would share few places of the first-level cache.
    void prepare(int64_t first, int64_t count) {
        x = static_cast<const uint8_t*>(a.x) + first * a.x_stride * 2;
        turned = count > rows && (a.units == 0 || a.units >= TURNED_PANELS);
        if (!turned) return;
        uint8_t* to = static_cast<uint8_t*>(thread_scratch(ROWS_SCRATCH, count * a.inputs * 2));
        const Groups groups(count, rows);
        for (int64_t group = 0; group < groups.count; group++) {
            const int64_t begin = groups.begin(group), end = groups.begin(group + 1);
            for (int64_t row = begin; row < end; row += 16) turn(row, end - row < 16 ? end - row : 16, to);
        }
        x = to;
    }

    void multiply(const Part& part, float* y) {
        registers.shape(part.n);
        const uint8_t* from = weights(part.panel) + part.begin * PANEL * 2;
        const int upper = part.n < 16 ? part.n : 16;
        TileRows part_rows;
        if (turned) {
            const uint8_t* first = x + part.row * a.inputs * 2;
            part_rows = {first + part.begin * 2 * upper, first + 16 * a.inputs * 2 + part.begin * 2 * (part.n - upper), 2 * DEEP,
                         2 * DEEP * upper, 2 * DEEP * (part.n - upper)};
        } else {
            const uint8_t* first = x + (part.row * a.x_stride + part.begin) * 2;
            part_rows = {first, first + 16 * a.x_stride * 2, 2 * a.x_stride, 2 * DEEP, 2 * DEEP};
        }
        const int64_t inputs = part.end - part.begin;
        if (part.ahead.step != LINES)
            upper < part.n ? multiply_tiles<true, false>(from, part_rows, inputs, part.ahead, !part.begin, y)
                           : multiply_tiles<false, false>(from, part_rows, inputs, part.ahead, !part.begin, y);
        else
            upper < part.n ? multiply_tiles<true, true>(from, part_rows, inputs, part.ahead, !part.begin, y)
                           : multiply_tiles<false, true>(from, part_rows, inputs, part.ahead, !part.begin, y);
    }

private:
    static const int TURNED_PANELS = 8;  // that make up for it

    void turn(int64_t row, int64_t count, uint8_t* to) const {
        const uint8_t* from = x + row * a.x_stride * 2;
        to += row * a.inputs * 2;
        for (int64_t r = 0; r < count; r++, from += a.x_stride * 2, to += 2 * DEEP) {
            for (int64_t i = 0; i < a.inputs; i += DEEP)
                _mm512_store_si512(to + i * 2 * count, _mm512_loadu_si512(from + 2 * i));
        }
    }
};

}  // namespace engine
#endif
