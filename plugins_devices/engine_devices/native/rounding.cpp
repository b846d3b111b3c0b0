// Activations as a quantization format rounds them before a product, and the smoothing factors before that.
#include "lanes.h"
#include "quantize.h"
#include "share.h"

using namespace engine;

extern "C" {

enum engine_rounding { ENGINE_ROUND_NONE = 0, ENGINE_ROUND_INT8 = 1, ENGINE_ROUND_E4M3 = 2, ENGINE_ROUND_E5M2 = 3, ENGINE_ROUND_E2M1 = 4 };
enum engine_scale_rounding { ENGINE_SCALE_PLAIN = 0, ENGINE_SCALE_E4M3 = 1, ENGINE_SCALE_E8M0 = 2 };

// Arguments of engine_round: out[r][i] = the kind's nearest to x / s, times s. s is `scale` (one for all) where `dynamic` is 0; else max|x|
// (at most `upper`, where that is not 0) / `top` of each run of `group` inputs of a row (0: of the whole row; -1: of all of x), which
// `scale_rounding` rounds after division by `scale`, if that is given, and multiplies by it again. `zero` (int8) is added to the
// quotient and taken off again; asymmetric: from the least and largest x. Where `factor` [size] is given, x is multiplied by that first
// and rounded to its type. ENGINE_ROUND_NONE does no more than that.
struct round_args {
    const void* x;
    const float* scale;
    const float* zero;
    const float* factor;
    void* out;
    int64_t x_stride;
    int64_t rows;
    int64_t size;
    int32_t type;
    int32_t out_type;
    int32_t kind;
    int32_t group;
    int32_t dynamic;
    int32_t asymmetric;
    int32_t scale_rounding;
    float top;
    float upper;
};

// Arguments of engine_round_integers: x of `linear` as 8-bit integers with one scale for a row (or for all: `scale`) into
// linear.quantized, for engine_linear with the same arguments.
struct round_integers_args {
    linear_args linear;
    const float* scale;  // null: max|x| / top of the row
    float top;
    float upper;
};
}

namespace {

const float TOPS[] = {0.0f, 127.0f, 448.0f, 57344.0f, 6.0f};

// 16 floats to the nearest of an 8-bit type, back as floats.
template <class E>
void through(float* x) {
    E codes[16];
    lanes::store(codes, lanes::load(x));
    lanes::store(x, lanes::load(codes));
}

float e4m3_of(float x) {
    float values[16] = {x};
    through<lanes::e4m3>(values);
    return values[0];
}

float even(float x) { return x >= -4194304.0f && x <= 4194304.0f ? __builtin_rintf(x) : x; }

// To 0, 0.5, 1, 1.5, 2, 3, 4, 6; ties to the even code.
float e2m1_of(float x) {
    const float size = x < 0 ? -x : x;
    if (!(size == size)) return x;
    const float unit = size < 2.0f ? 0.5f : size < 4.0f ? 1.0f : 2.0f, near = even(size / unit) * unit;
    const float most = near < 6.0f ? near : 6.0f;
    return x < 0 ? -most : x > 0 ? most : 0.0f;
}

struct Scale {
    float scale, zero;
    bool shifted;
};

float limited(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

// The power of two not below a scale; NaN stays.
float power_above(float scale) {
    if (!(scale == scale)) return scale;
    if (scale < 0x1p-127f) scale = 0x1p-127f;
    if (scale > 0x1p127f) return 0x1p127f;
    int exponent;
    const float fraction = __builtin_frexpf(scale, &exponent);
    return __builtin_ldexpf(1.0f, fraction == 0.5f ? exponent - 1 : exponent);
}

struct Range {
    float least = 0, most = 0, largest = 0;
    bool poisoned = false;

    void see(const float* x, int64_t count) {
        for (int64_t i = 0; i < count; i++) {
            least = x[i] < least ? x[i] : least;
            most = x[i] > most ? x[i] : most;
            poisoned |= x[i] != x[i];
        }
        largest = most > -least ? most : -least;
    }
};

Scale scale_of(const round_args& a, const Range& range) {
    const float poison = range.poisoned ? __builtin_nanf("") : 0.0f;
    if (a.asymmetric) {
        const float scale = (range.most - range.least) / 255.0f + poison;
        const float floor = scale > 1.17549435e-38f ? scale : 1.17549435e-38f;
        return {scale, limited(even(-128.0f - range.least / floor), -128.0f, 127.0f), true};
    }
    float largest = range.largest + poison;
    if (a.upper != 0 && largest > a.upper) largest = a.upper;
    const float scale = largest / (a.top != 0 ? a.top : TOPS[a.kind]), outer = a.scale ? *a.scale : 1.0f;
    if (a.scale_rounding == ENGINE_SCALE_E4M3) return {e4m3_of(scale / outer > 448.0f ? 448.0f : scale / outer) * outer, 0, false};
    if (a.scale_rounding == ENGINE_SCALE_E8M0) return {power_above(scale / outer) * outer, 0, false};
    return {scale, 0, false};
}

// In place: count is a multiple of 16 in memory, what is beyond it is thrown away.
void round_run(const round_args& a, const Scale& s, float* x, int64_t count) {
    const float divisor = s.scale == 0 ? 1.0f : s.scale, top = TOPS[a.kind];
    for (int64_t i = 0; i < count; i++) x[i] /= divisor;
    switch (a.kind) {
        case ENGINE_ROUND_INT8:
            for (int64_t i = 0; i < count; i++) x[i] = limited(even(x[i]) + s.zero, -128.0f, 127.0f) - s.zero;
            break;
        case ENGINE_ROUND_E2M1:
            for (int64_t i = 0; i < count; i++) x[i] = e2m1_of(x[i]);
            break;
        default:
            for (int64_t i = 0; i < count; i += 16) {
                alignas(64) float part[16] = {};
                const int64_t left = count - i < 16 ? count - i : 16;
                for (int64_t k = 0; k < left; k++) part[k] = limited(x[i + k], -top, top);
                if (a.kind == ENGINE_ROUND_E4M3) through<lanes::e4m3>(part);
                else through<lanes::e5m2>(part);
                memcpy(x + i, part, size_t(left) * 4);
            }
    }
    for (int64_t i = 0; i < count; i++) x[i] *= s.scale;
}

void read_input(const round_args& a, int64_t row, float* x) {
    read_row(a.type, a.x, row * a.x_stride, int(a.size), x);
    if (!a.factor) return;
    for (int64_t i = 0; i < a.size; i++) {
        const float product = x[i] * a.factor[i];
        x[i] = a.type == ENGINE_BF16 ? from_bf16(to_bf16(product)) : a.type == ENGINE_F16 ? from_f16(to_f16(product)) : product;
    }
}

void round_row(const round_args& a, int64_t row, const Scale* all, float* x) {
    read_input(a, row, x);
    const int64_t group = a.group > 0 ? a.group : a.size;
    for (int64_t i = 0; a.kind != ENGINE_ROUND_NONE && i < a.size; i += group) {
        const int64_t count = a.size - i < group ? a.size - i : group;
        if (all) {
            round_run(a, *all, x + i, count);
            continue;
        }
        Range range;
        range.see(x + i, count);
        round_run(a, scale_of(a, range), x + i, count);
    }
    const int64_t offset = row * a.size;
    if (a.out_type == ENGINE_BF16) write_row<BF16>(a.out, offset, int(a.size), x);
    else if (a.out_type == ENGINE_F16) write_row<F16>(a.out, offset, int(a.size), x);
    else write_row<F32>(a.out, offset, int(a.size), x);
}

// `count` floats, a multiple of 16, divided, rounded and kept within 8 bits.
inline void divide(const float* x, float divisor, int count, int32_t* q) {
    const vf by = splat(divisor), low = splat(-128.0f), high = splat(127.0f), magic = splat(12582912.0f);
    for (int i = 0; i < count; i += LANES) {
        vf ratio = load_as<vf>(x + i) / by;
        ratio = select(ratio > high, high, select(ratio < low, low, ratio));
        store_as(q + i, vi(ratio + magic) - vi(magic));
    }
}

// q of one row of x at `scale`, in the form that QuantizedRows reads.
void put_integers(const QuantizedRows& rows, const float* x, float scale, const QuantizedRow& to) {
    const linear_args& a = rows.a;
    const int32_t offset = integer_offset(a.weight_type);
    const float divisor = scale == 0 ? 1.0f : scale;
    const bool number = scale == scale && scale <= 3e38f;
    float* sum = const_cast<float*>(to.sum);
    for (int64_t g = 0; g < rows.groups; g++) sum[g] = 0;
    for (int64_t i = 0; i < rows.padded; i += a.x_group) {
        alignas(64) int32_t q[128] = {};
        if (number) divide(x + i, divisor, a.x_group, q);
        const_cast<float*>(to.scale)[i / a.x_group] = number ? scale : __builtin_nanf("");
        put_quads(q, a.x_group, const_cast<uint8_t*>(to.values) + i / 4 * QUAD_BYTES);
        for (int64_t k = 0; k < a.x_group; k += rows.piece) {
            const int32_t total = sum_of(q + k, int(rows.piece));
            const_cast<int32_t*>(to.start)[(i + k) / rows.piece] = -offset * total;
            sum[(i + k) / a.group] += scale * float(total);
        }
    }
}

}  // namespace

extern "C" void engine_round(const void* arguments, int thread, int threads) {
    const round_args& a = *static_cast<const round_args*>(arguments);
    float* x = static_cast<float*>(thread_scratch(ROWS_SCRATCH, a.size * 4));
    Scale all{};
    const bool shared = !a.dynamic || a.group == -1;
    if (!a.dynamic && a.kind != ENGINE_ROUND_NONE) all = {*a.scale, a.zero ? *a.zero : 0.0f, a.zero != nullptr};
    if (a.dynamic && a.group == -1) {
        Range range;  // every thread looks at all of x: there is no barrier within an operation
        for (int64_t row = 0; row < a.rows; row++) {
            read_input(a, row, x);
            range.see(x, a.size);
        }
        all = scale_of(a, range);
    }
    const share::Share rows = share::of(a.rows, a.size, thread, threads);
    for (int64_t row = rows.begin; row < rows.end; row++) round_row(a, row, shared ? &all : nullptr, x);
}

extern "C" void engine_round_integers(const void* arguments, int, int) {
    const round_integers_args& a = *static_cast<const round_integers_args*>(arguments);
    QuantizedRows rows(a.linear);
    rows.memory = static_cast<uint8_t*>(a.linear.quantized);
    float* x = static_cast<float*>(thread_scratch(ROWS_SCRATCH, rows.padded * 4));
    for (int64_t row; (row = engine_claim(0, 1)) < a.linear.rows;) {
        read_row(a.linear.x_type, a.linear.x, row * a.linear.x_stride, a.linear.inputs, x);
        for (int64_t i = a.linear.inputs; i < rows.padded; i++) x[i] = 0;
        float most = largest(x, int(rows.padded));
        if (a.upper != 0 && most > a.upper) most = a.upper;
        put_integers(rows, x, a.scale ? *a.scale : most / a.top, rows.row(row));
    }
}
