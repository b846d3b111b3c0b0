// The entry points of linear layers: which kernel multiplies which weight.
#include "linear.h"

#include <stdlib.h>

#include "dense.h"
#include "dense_tiles.h"
#include "driver.h"

namespace engine {

namespace {

struct Memory {
    void* memory = nullptr;
    int64_t bytes = 0;
    ~Memory() { free(memory); }

    void* grow(int64_t wanted) {
        if (bytes >= wanted) return memory;
        free(memory);
        bytes = round_up(wanted, 4096);
        if (posix_memalign(&memory, 64, size_t(bytes)) != 0) abort();
        return memory;
    }
};

thread_local Memory scratches[SCRATCHES];

int bits_of(int type) {
    switch (type) {
        case ENGINE_F32: return 32;
        case ENGINE_BF16:
        case ENGINE_F16: return 16;
        case ENGINE_I4:
        case ENGINE_C4: return 4;
        case ENGINE_I2: return 2;
        case ENGINE_I3: return 3;
        case ENGINE_I5: return 5;
        case ENGINE_I6: return 6;
        default: return 8;
    }
}

}  // namespace

void* thread_scratch(int slot, int64_t bytes) { return scratches[slot].grow(bytes); }

bool beginning_of(const linear_args& a, int threads, Beginning& first, int64_t& step) {
    if (!a.once || a.rows > MOST_BEGUN_ROWS || a.units) return false;
    const int bits = bits_of(a.weight_type);
    const int64_t panel = round_up(a.inputs, bits < 16 ? a.group : 2) * PANEL * bits / 8;
    const int64_t panels = (a.outputs + PANEL - 1) / PANEL, units = a.gate ? panels / 2 : panels;
    const int64_t own = Units(units, 1, a.rows, 0, threads).end;
    first.from = static_cast<const uint8_t*>(a.weight);
    first.other = a.gate ? first.from + units * panel : nullptr;
    first.bytes = a.gate ? panel : own * panel;
    step = own * panel;
    return own > 0;
}

}  // namespace engine

using namespace engine;

extern "C" void engine_linear(const void* arguments, int thread, int threads) {
    const linear_args& a = *static_cast<const linear_args*>(arguments);
    if (a.rows <= 0 || a.outputs <= 0) return;
    switch (a.weight_type) {
        case ENGINE_F32: return run_kernel<FloatKernel<PairsF32>>(a, thread, threads);
        case ENGINE_F16: return run_kernel<FloatKernel<PairsF16>>(a, thread, threads);
        case ENGINE_BF16:
#if defined(ENGINE_AMX)
            if (KernelTiles::takes(a)) return run_kernel<KernelTiles>(a, thread, threads);
            if (in_registers(a.inputs)) return run_kernel<FloatKernel<PairsInRegisters>>(a, thread, threads);
#endif
#if defined(__AVX512BF16__)
            if (a.x_type == ENGINE_BF16) return run_kernel<KernelBF16>(a, thread, threads);
#endif
            return run_kernel<FloatKernel<PairsBF16>>(a, thread, threads);
        case ENGINE_C4:
        case ENGINE_C8: return run_codebook(a, thread, threads);
        case ENGINE_I2:
        case ENGINE_I3:
        case ENGINE_I5:
        case ENGINE_I6: return run_planes(a, thread, threads);
        default: return a.x_group ? run_integer(a, thread, threads) : run_decoded(a, thread, threads);
    }
}
