// Products of codes with activations as they are.
#include "codebook.h"

namespace engine {

namespace {

template <class Format, class S>
void run_form(const linear_args& a, int thread, int threads) {
#if defined(__AVX512BF16__)
    if (a.x_type == ENGINE_BF16) return run_kernel<DecodedKernel<Format, AsBF16, S>>(a, thread, threads);
#endif
    run_kernel<DecodedKernel<Format, AsFloats, S>>(a, thread, threads);
}

template <class S>
void run_format(const linear_args& a, int thread, int threads) {
    if (a.weight_type == ENGINE_C4) return run_form<Codes4, S>(a, thread, threads);
    run_form<Codes8, S>(a, thread, threads);
}

}  // namespace

void run_codebook(const linear_args& a, int thread, int threads) {
    if (a.scale_type == ENGINE_F16) return run_format<F16>(a, thread, threads);
    run_format<F32>(a, thread, threads);
}

}  // namespace engine
