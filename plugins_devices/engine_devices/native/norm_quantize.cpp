// A norm whose rows are rounded to 8 bits at once: nobody else reads them.
#include "norm.h"
#include "quantize.h"
#include "share.h"

using namespace engine;

extern "C" {

// Arguments of engine_norm_quantize: of engine_rms_norm, whose `out` is not used, and of engine_quantize, whose `x` is that norm.
struct norm_quantize_args {
    engine_rows_arguments norm;
    linear_args linear;
};
}

namespace {

template <class A>
void norm_quantize(const norm_quantize_args& a) {
    linear_args linear = a.linear;
    A* normed = static_cast<A*>(thread_scratch(ROWS_SCRATCH, a.norm.size * int64_t(sizeof(A))));
    linear.x = normed;
    linear.x_stride = 0;
    QuantizedRows rows(linear);
    rows.memory = static_cast<uint8_t*>(linear.quantized);
    const int64_t claim = linear.rows >= 64 ? 4 : 1;
    for (int64_t first; (first = engine_claim(0, claim)) < linear.rows;)
        for (int64_t row = first; row < linear.rows && row < first + claim; row++) {
            rms_norm(normed_row<A>(a.norm, row), (const A*)a.norm.weight, normed, a.norm);
            rows.quantize(row, rows.row(row));
        }
}

}  // namespace

extern "C" void engine_norm_quantize(const void* arguments, int, int) {
    const norm_quantize_args& a = *static_cast<const norm_quantize_args*>(arguments);
    ENGINE_FOR_TYPE(a.norm.type, norm_quantize<A>(a))
}
