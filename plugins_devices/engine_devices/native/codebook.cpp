// Products of codes with activations as they are.
#include "codebook.h"

namespace engine {

namespace {

template <class S>
void run_format(const linear_args& a, int thread, int threads) {
    if (a.weight_type == ENGINE_C4) return run_decoded_as<Codes4, S>(a, thread, threads);
    run_decoded_as<Codes8, S>(a, thread, threads);
}

}  // namespace

void run_codebook(const linear_args& a, int thread, int threads) {
    if (a.scale_type == ENGINE_F16) return run_format<F16>(a, thread, threads);
    run_format<F32>(a, thread, threads);
}

}  // namespace engine
