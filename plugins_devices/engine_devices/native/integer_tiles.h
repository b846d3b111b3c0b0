// Products of integer panels with many rows rounded to 8 bits, in the matrix unit. They are those of IntegerKernel to the bit: a block's
// are summed in integers, and its scales come in the same order.
#pragma once
#include "amx.h"
#include "integer.h"

#if defined(ENGINE_AMX)
namespace engine {

const int DEEP_BYTES = 64;  // inputs of one product of registers

// sums[32][32] = q · w over BLOCK inputs: `panel` has bytes, `x` rows of them, `stride` bytes apart. BOTH: more than sixteen rows.
template <bool BOTH>
inline void sum_block(const uint8_t* panel, const uint8_t* x, int64_t stride, int32_t* sums) {
    const int64_t line = PANEL * 4;
    amx::clear<0>(), amx::clear<1>();
    if (BOTH) amx::clear<2>(), amx::clear<3>();
    for (int i = 0; i < BLOCK; i += DEEP_BYTES, panel += DEEP_BYTES * PANEL, x += DEEP_BYTES) {
        amx::load<6>(panel, line), amx::load<7>(panel + amx::LINE, line);
        amx::load<4>(x, stride);
        amx::multiply_bytes<0, 4, 6>(), amx::multiply_bytes<1, 4, 7>();
        if (!BOTH) continue;
        amx::load<5>(x + 16 * stride, stride);
        amx::multiply_bytes<2, 5, 6>(), amx::multiply_bytes<3, 5, 7>();
    }
    amx::store<0>(sums, line), amx::store<1>(sums + 16, line);
    if (BOTH) amx::store<2>(sums + 16 * PANEL, line), amx::store<3>(sums + 16 * PANEL + 16, line);
}

// y[n][32] += those sums times the scales of the activations' block and, unless WHOLE, of the weight's; `first`: y is set.
template <class S, bool WHOLE>
inline void add_block(const int32_t* sums, int n, const QuantizedTile& rows, int64_t block, bool first, const typename S::Element* weight,
                      float* y) {
    const vf low = WHOLE ? vf{} : S::load(weight), high = WHOLE ? vf{} : S::load(weight + LANES);
    const uint8_t* row = rows.first + 4 * block;
    for (int r = 0; r < n; r++, row += rows.stride, sums += PANEL, y += PANEL) {
        const vi start = all_of(*reinterpret_cast<const int32_t*>(row + rows.start));
        const vf factor = all_of(*reinterpret_cast<const float*>(row + rows.scale));
        const vf left = scaled<WHOLE>(load_as<vi>(sums) + start, factor, low);
        const vf right = scaled<WHOLE>(load_as<vi>(sums + LANES) + start, factor, high);
        store_as(y, load_unless(first, y) + left);
        store_as(y + LANES, load_unless(first, y + LANES) + right);
    }
}

template <int BITS, class S>
struct IntegerTiles {
    typedef typename S::Element Scale;
    static const int rows = amx::ROWS, width = PANEL, input_bytes = 1;
    static const int MOST_STREAMED_ROWS = 8;  // which vectors multiply as fast as weights come from memory
    const linear_args& a;
    QuantizedRows x;
    amx::Registers registers;
    int64_t count = 0;

    static bool takes(const linear_args& a) { return a.rows > MOST_STREAMED_ROWS && whole_blocks(a); }

    explicit IntegerTiles(const linear_args& args) : a(args), x(args) {}
    int64_t inputs() const { return x.padded; }
    int64_t unit() const { return BLOCK; }
    int64_t panel_bytes() const { return x.padded * PANEL * BITS / 8; }
    const uint8_t* weights(int64_t panel) const { return static_cast<const uint8_t*>(a.weight) + panel * panel_bytes(); }
    void prepare(int64_t first, int64_t number) { x.prepare(first, count = number); }

    void multiply(const Part& part, float* y) {
        registers.shape(part.n);
        if (a.group == BLOCK)
            multiply_part<false>(part, y);
        else
            multiply_part<true>(part, y);
    }

private:
    alignas(64) int32_t sums[2][amx::ROWS * PANEL];
    alignas(64) uint8_t bytes[2][BITS == 4 ? BLOCK * PANEL : 64];

    // The weights of a block as bytes. Of many rows the first ones unpack four bits for all.
    const uint8_t* block_bytes(const uint8_t* from, const Part& part, int64_t block) {
        if (BITS == 8) return from;
        uint8_t* to = bytes[block % 2];
        if (count > rows) {
            to = static_cast<uint8_t*>(thread_scratch(PANEL_SCRATCH, (part.end - part.begin) * PANEL)) + (block * BLOCK - part.begin) * PANEL;
            if (part.row) return to;
        }
        unpack_nibbles(from, BLOCK, to);
        return to;
    }

    // A block's sums are scaled while the next one's are made.
    template <bool WHOLE>
    void multiply_part(const Part& part, float* y) {
        const QuantizedTile from = x.tile(part.row);
        const Scale* scale = static_cast<const Scale*>(a.scale) + part.panel * x.groups * PANEL;
        const uint8_t* panel = weights(part.panel) + part.begin * PANEL * BITS / 8;
        const int64_t begin = part.begin / BLOCK, end = part.end / BLOCK, fetched = part.ahead.step * (BLOCK / 4) * BITS / 8;
        const uint8_t* ahead = part.ahead.from;
        const auto add = [&](int64_t block) {
            add_block<S, WHOLE>(sums[block % 2], part.n, from, block, !block, WHOLE ? nullptr : scale + block * PANEL, y);
        };
        for (int64_t block = begin; block < end; block++, panel += BLOCK * PANEL * BITS / 8) {
            for (int64_t i = 0; i < fetched; i += 64) __builtin_prefetch(ahead + i, 0, 3);
            ahead += fetched;
            const uint8_t* values = from.first + block * BLOCK;
            if (part.n > 16)
                sum_block<true>(block_bytes(panel, part, block), values, from.stride, sums[block % 2]);
            else
                sum_block<false>(block_bytes(panel, part, block), values, from.stride, sums[block % 2]);
            if (block > begin) add(block - 1);
        }
        add(end - 1);
        if (part.end == x.padded)
            for (int i = 0; i < PANEL / LANES; i++) finish<WHOLE>(part, from, scale, i * LANES, y + i * LANES);
    }

    template <bool WHOLE>
    void finish(const Part& part, const QuantizedTile& from, const Scale* scale, int64_t at, float* y) const {
        const Scale* shift = a.shift ? static_cast<const Scale*>(a.shift) + part.panel * x.groups * PANEL + at : nullptr;
        const vf whole = S::load(scale + at);
        const uint8_t* row = from.first + from.sum;
        for (int r = 0; r < part.n; r++, row += from.stride, y += PANEL)
            finish_blocks<S, WHOLE>(whole, shift, reinterpret_cast<const float*>(row), x.groups, a.factor, y);
    }
};

}  // namespace engine
#endif
