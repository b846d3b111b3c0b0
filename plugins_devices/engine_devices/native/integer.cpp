// Integer weights with activations rounded to 8 bits.
#include "integer.h"

#include "integer_tiles.h"

namespace engine {

namespace {

template <int BITS, class S>
void run_bits(const linear_args& a, int thread, int threads) {
#if defined(ENGINE_AMX)
    if (IntegerTiles<BITS, S>::takes(a)) return run_kernel<IntegerTiles<BITS, S>>(a, thread, threads);
#endif
    run_kernel<IntegerKernel<BITS, S>>(a, thread, threads);
}

}  // namespace

void run_integer(const linear_args& a, int thread, int threads) {
    const bool half = a.scale_type == ENGINE_F16;
    if (a.weight_type == ENGINE_I4) return half ? run_bits<4, F16>(a, thread, threads) : run_bits<4, F32>(a, thread, threads);
    half ? run_bits<8, F16>(a, thread, threads) : run_bits<8, F32>(a, thread, threads);
}

}  // namespace engine

using namespace engine;

// Bytes that a.quantized must have.
extern "C" int64_t engine_quantized_bytes(const void* arguments) {
    const linear_args& a = *static_cast<const linear_args*>(arguments);
    return a.rows * QuantizedRows(a).row_bytes;
}

// Fills a.quantized from a.x; an operation before engine_linear with the same arguments.
extern "C" void engine_quantize(const void* arguments, int, int) {
    const linear_args& a = *static_cast<const linear_args*>(arguments);
    QuantizedRows rows(a);
    rows.memory = static_cast<uint8_t*>(a.quantized);
    const int64_t claim = a.rows >= 64 ? 4 : 1;
    for (int64_t first; (first = engine_claim(0, claim)) < a.rows;)
        for (int64_t row = first; row < a.rows && row < first + claim; row++) rows.quantize(row, rows.row(row));
}
