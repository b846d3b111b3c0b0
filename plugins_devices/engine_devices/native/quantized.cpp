// Which kernel multiplies which quantized weight. Not with the dense ones in one file: the compiler takes them side by side.
#include "linear.h"

#include "decoded.h"
#include "integer.h"

namespace engine {

namespace {

template <class Format, class S>
void run_decoded(const linear_args& a, int threads) {
#if defined(__AVX512BF16__)
    if (a.x_type == ENGINE_BF16) return run_kernel<DecodedKernel<Format, AsBF16, S>>(a, threads);
#endif
    run_kernel<DecodedKernel<Format, AsFloats, S>>(a, threads);
}

template <class S>
void run_scaled(const linear_args& a, int threads) {
    switch (a.weight_type) {
        case ENGINE_I8:
            if (a.x_group) return run_kernel<IntegerKernel<8, S>>(a, threads);
            return run_decoded<Bytes8, S>(a, threads);
        case ENGINE_I4:
            if (a.x_group) return run_kernel<IntegerKernel<4, S>>(a, threads);
            return run_decoded<Nibbles4, S>(a, threads);
        case ENGINE_F8_E4M3: return run_decoded<Float8E4M3, S>(a, threads);
        case ENGINE_F8_E5M2: return run_decoded<Float8E5M2, S>(a, threads);
    }
}

}  // namespace

void run_quantized(const linear_args& a, int threads) {
    if (a.scale_type == ENGINE_F16) return run_scaled<F16>(a, threads);
    run_scaled<F32>(a, threads);
}

}  // namespace engine
