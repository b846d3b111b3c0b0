// Integers of 2, 3, 5 and 6 bits: a plane of fields of 2 or 4 bits, and one of the upper 1 or 2 bits.
//
// Blocks of 32 inputs of a panel follow each other, each the lower plane, then the upper one. A plane of fields of `width` bits:
// [width][32][4 bytes]: byte j of dword d, field t (the first in the lowest bits): input 4 · (d · 8 / width + t) + j.
#pragma once
#include "decoded.h"
#include "integer.h"

namespace engine {

const int BLOCK_INPUTS = 32;

// Four inputs of LANES outputs of a plane, a byte each. `quad` counts within the block.
template <int WIDTH>
inline vu fields_of(const uint8_t* plane, int quad, int part) {
    const int together = 8 / WIDTH;
    const vu bytes = load_as<vu>(plane + (quad / together * PANEL + part * LANES) * 4);
    return (bytes >> (WIDTH * (quad % together))) & (((1u << WIDTH) - 1) * 0x01010101u);
}

template <int BITS>
inline vu planes_of(const uint8_t* block, int quad, int part) {
    const int low = BITS >= 4 ? 4 : 2, high = BITS - low;
    const vu bytes = fields_of<low>(block, quad, part);
    if (!high) return bytes;
    return bytes | (fields_of<high ? high : 1>(block + low * PANEL * 4, quad, part) << low);
}

template <int BITS>
struct Planes : Stateless {
    static const bool table = false;
    using Stateless::Stateless;
    static const int bits = BITS;
    static void read(const uint8_t* panel, int64_t quad, int part, vf (&out)[4]) {
        const vu four = planes_of<BITS>(panel + quad / 8 * (PANEL * 4 * BITS), int(quad % 8), part);
        for (int j = 0; j < 4; j++) out[j] = __builtin_convertvector(vi((four >> (8 * j)) & 0xff) - (1 << (BITS - 1)), vf);
    }
};

// A block as bytes, in the layout of 8 bits.
template <int BITS>
inline void unpack_planes(const uint8_t* from, int64_t inputs, Ahead& ahead, uint8_t* to) {
    for (int64_t k = 0; k < inputs; k += BLOCK_INPUTS, from += PANEL * 4 * BITS) {
        for (int i = 0; i < BITS; i++) ahead.fetch();
#pragma GCC unroll 8
        for (int quad = 0; quad < BLOCK_INPUTS / 4; quad++, to += PANEL * 4)
            for (int part = 0; part < PANEL / LANES; part++) store_as(to + part * LANES * 4, planes_of<BITS>(from, quad, part));
    }
}

// With activations rounded to 8 bits: bytes are made in the first-level cache and multiplied as 8-bit integers are.
template <int BITS, class S>
struct PlanesKernel : IntegerKernel<8, S> {
    typedef IntegerKernel<8, S> Bytes;
    using Bytes::a;
    using Bytes::count;
    using Bytes::x;

    explicit PlanesKernel(const linear_args& args) : Bytes(args) {}
    int64_t panel_bytes() const { return x.padded * PANEL * BITS / 8; }
    const uint8_t* weights(int64_t panel) const { return static_cast<const uint8_t*>(a.weight) + panel * panel_bytes(); }

    __attribute__((noinline)) void multiply(const Part& part, float* y) {
        const bool whole = count > Bytes::rows;
        const int64_t unit = this->unit(), fitting = PIECE_BYTES / PANEL / unit * unit;
        const int64_t step = whole ? part.end - part.begin : fitting ? fitting : unit;
        uint8_t* bytes = static_cast<uint8_t*>(thread_scratch(PANEL_SCRATCH, step * PANEL));
        const uint8_t* values = weights(part.panel) + part.begin * PANEL * BITS / 8;
        Ahead ahead = part.ahead, idle{values, 0};
        if (whole) ahead.step = (ahead.step * BITS + 7) / 8;
        for (int64_t i = part.begin; i < part.end; i += step, values += step * PANEL * BITS / 8) {
            const int64_t end = i + step < part.end ? i + step : part.end;
            if (!whole || part.row == 0) unpack_planes<BITS>(values, end - i, whole ? idle : ahead, bytes);
            run_bytes(part, i, end, bytes, whole ? ahead : idle, y);
        }
    }

    void run_bytes(const Part& part, int64_t begin, int64_t end, const uint8_t* bytes, Ahead ahead, float* y) const {
        const int64_t scales = part.panel * x.groups * PANEL * int64_t(sizeof(typename S::Element));
        const IntegerPart from{bytes, static_cast<const uint8_t*>(a.scale) + scales,
                               a.shift ? static_cast<const uint8_t*>(a.shift) + scales : nullptr,
                               begin, end, x.padded, a.group, a.x_group, ahead, a.factor};
        this->template run<8>(from, part.row, part.n, y);
    }
};

}  // namespace engine
