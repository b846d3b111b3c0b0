// Integers of 2, 3, 5 and 6 bits: their products, and their packing.
#include "planes.h"

namespace engine {

namespace {

template <int BITS, class S>
void run_bits(const linear_args& a, int thread, int threads) {
    if (a.x_group) return run_kernel<PlanesKernel<BITS, S>>(a, thread, threads);
    run_decoded_as<Planes<BITS>, S>(a, thread, threads);
}

template <int BITS>
void run_scales(const linear_args& a, int thread, int threads) {
    if (a.scale_type == ENGINE_F16) return run_bits<BITS, F16>(a, thread, threads);
    run_bits<BITS, F32>(a, thread, threads);
}

}  // namespace

void run_planes(const linear_args& a, int thread, int threads) {
    switch (a.weight_type) {
        case ENGINE_I2: return run_scales<2>(a, thread, threads);
        case ENGINE_I3: return run_scales<3>(a, thread, threads);
        case ENGINE_I5: return run_scales<5>(a, thread, threads);
        default: return run_scales<6>(a, thread, threads);
    }
}

}  // namespace engine

using namespace engine;

extern "C" {

// Arguments of engine_pack_planes: signed integers of `bits` bits, one to a byte, rows `stride` bytes apart → panels. Missing outputs
// and inputs become the value 0.
struct pack_planes_args {
    const int8_t* values;
    uint8_t* packed;
    int64_t stride;
    int64_t outputs;
    int64_t inputs;
    int64_t padded;  // inputs in the panels: a multiple of 32
    int32_t bits;
};
}

namespace {

// Ors one value into a block at its place.
void put_fields(uint8_t* plane, int width, int input, int lane, int fields) {
    const int together = 8 / width, quad = input / 4;
    plane[(quad / together * PANEL + lane) * 4 + input % 4] |= uint8_t(fields << (width * (quad % together)));
}

void pack_block(const pack_planes_args& a, int64_t panel, int64_t first, uint8_t* block) {
    const int low = a.bits >= 4 ? 4 : 2, high = a.bits - low, offset = 1 << (a.bits - 1);
    for (int lane = 0; lane < PANEL; lane++) {
        const int64_t row = panel * PANEL + lane;
        for (int input = 0; input < BLOCK_INPUTS; input++) {
            const bool real = row < a.outputs && first + input < a.inputs;
            const int value = (real ? a.values[row * a.stride + first + input] : 0) + offset;
            put_fields(block, low, input, lane, value & ((1 << low) - 1));
            if (high) put_fields(block + low * PANEL * 4, high, input, lane, value >> low);
        }
    }
}

}  // namespace

extern "C" void engine_pack_planes(const void* arguments, int, int) {
    const pack_planes_args& a = *static_cast<const pack_planes_args*>(arguments);
    const int64_t block = PANEL * 4 * a.bits;
    for (int64_t panel; (panel = engine_claim(0, 1)) < (a.outputs + PANEL - 1) / PANEL;) {
        uint8_t* to = a.packed + panel * (a.padded / BLOCK_INPUTS) * block;
        memset(to, 0, size_t(a.padded / BLOCK_INPUTS * block));
        for (int64_t i = 0; i < a.padded; i += BLOCK_INPUTS, to += block) pack_block(a, panel, i, to);
    }
}
