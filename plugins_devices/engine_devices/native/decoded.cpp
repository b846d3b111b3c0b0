// Quantized weights with activations as they are.
#include "decoded.h"

namespace engine {

namespace {

template <class S>
void run_format(const linear_args& a, int thread, int threads) {
    switch (a.weight_type) {
        case ENGINE_I8: return run_decoded_as<Bytes8, S>(a, thread, threads);
        case ENGINE_I4: return run_decoded_as<Nibbles4, S>(a, thread, threads);
        case ENGINE_F8_E4M3: return run_decoded_as<Float8E4M3, S>(a, thread, threads);
        case ENGINE_F8_E5M2: return run_decoded_as<Float8E5M2, S>(a, thread, threads);
    }
}

}  // namespace

void run_decoded(const linear_args& a, int thread, int threads) {
    if (a.scale_type == ENGINE_F16) return run_format<F16>(a, thread, threads);
    run_format<F32>(a, thread, threads);
}

}  // namespace engine
