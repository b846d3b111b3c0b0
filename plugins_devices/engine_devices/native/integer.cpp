// Integer weights with activations rounded to 8 bits.
#include "integer.h"

namespace engine {

void run_integer(const linear_args& a, int threads) {
    const bool half = a.scale_type == ENGINE_F16;
    if (a.weight_type == ENGINE_I4) {
        if (half) return run_kernel<IntegerKernel<4, F16>>(a, threads);
        return run_kernel<IntegerKernel<4, F32>>(a, threads);
    }
    if (half) return run_kernel<IntegerKernel<8, F16>>(a, threads);
    run_kernel<IntegerKernel<8, F32>>(a, threads);
}

}  // namespace engine
