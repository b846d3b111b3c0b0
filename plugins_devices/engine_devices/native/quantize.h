// Activations rounded to 8 bits: q = round(x / scale) with scale = max|x| / 127 over each block of `x_group` inputs.
#pragma once
#include "driver.h"

namespace engine {

// Bytes that four inputs take: with a byte dot product four; else eight, as 16-bit numbers in the order 0 2 | 1 3.
#if defined(__AVX512VNNI__)
const int QUAD_BYTES = 4;
#else
const int QUAD_BYTES = 8;
#endif

// What integers of that type are kept with added, so that none is negative.
inline int32_t integer_offset(int type) {
    switch (type) {
        case ENGINE_I2: return 2;
        case ENGINE_I3: return 4;
        case ENGINE_I4: return 8;
        case ENGINE_I5: return 16;
        case ENGINE_I6: return 32;
        default: return 128;
    }
}

// One row: scales and sums of each block, then the numbers.
struct QuantizedRow {
    const uint8_t* values;
    const float* scale;    // per block
    const int32_t* start;  // per piece, the smaller of block and weight group: minus the weights' offset times the sum of q
    const float* sum;      // per weight group: sum of scale · q
};

// Rows of x, `stride` bytes apart: their numbers, and where in a row its scales, starts and sums are.
struct QuantizedTile {
    const uint8_t* first;
    int64_t stride, scale, start, sum;
};

inline float largest(const float* x, int count) {
    vf most{};
    vf poison{};
    for (int i = 0; i < count; i += LANES) {
        const vf value = load_as<vf>(x + i);
        const vf size = vf(vi(value) & 0x7fffffff);
        most = select(size > most, size, most);
        poison += value * 0.0f;  // a NaN or infinity makes a NaN, which the comparison would not see
    }
    float parts[LANES], result = 0;
    store_as(parts, most);
    for (int i = 0; i < LANES; i++) result = parts[i] > result ? parts[i] : result;
    return result + sum(poison);
}

inline void put_quads(const int32_t* q, int count, uint8_t* to) {
    if (QUAD_BYTES == 4) {
        int8_t* bytes = reinterpret_cast<int8_t*>(to);
        for (int i = 0; i < count; i += LANES) store_as(bytes + i, __builtin_convertvector(load_as<vi>(q + i), vb));
        return;
    }
    int16_t* words = reinterpret_cast<int16_t*>(to);
    for (int i = 0; i < count; i += 4, words += 4) {
        words[0] = int16_t(q[i]);
        words[1] = int16_t(q[i + 2]);
        words[2] = int16_t(q[i + 1]);
        words[3] = int16_t(q[i + 3]);
    }
}

#if defined(__AVX512VNNI__)
// One block of `count` floats to bytes, as quantize_block() and put_quads() make them; sums of q over `piece` inputs each into `sums`.
inline void quantize_bytes(const float* x, int count, int piece, uint8_t* to, float* scale, int32_t* sums) {
    __m512i bits = _mm512_setzero_si512();  // of magnitudes: they are in the numbers' order, what is no number above all
    for (int i = 0; i < count; i += 16)
        bits = _mm512_max_epi32(bits, _mm512_and_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi32(0x7fffffff)));
    const int32_t largest = _mm512_reduce_max_epi32(bits);
    float most;
    memcpy(&most, &largest, 4);
    *scale = largest < 0x7f800000 ? most / 127.0f : __builtin_nanf("");
    const __m512 inverse = _mm512_set1_ps(most > 0 && most < 3e38f ? 127.0f / most : 0.0f);
    const __mmask16 usable = most > 0 && most < 3e38f ? 0xffff : 0;
    for (int begin = 0; begin < count; begin += piece, sums++) {
        __m512i sum = _mm512_setzero_si512();
        for (int i = begin; i < begin + piece; i += 16) {
            const __m512i q = _mm512_maskz_cvtps_epi32(usable, _mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm512_cvtepi32_epi8(q));
            sum = _mm512_add_epi32(sum, q);
        }
        *sums = _mm512_reduce_add_epi32(sum);
    }
}

// 128 numbers in bf16 to bytes, as quantize_bytes() makes them, in registers; returns the sum of q.
inline int32_t quantize_128(const uint16_t* x, uint8_t* to, float* scale) {
    __m512 part[8];
    __m512i bits = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        part[i] = __m512(BF16::load(x + 16 * i));
        bits = _mm512_max_epi32(bits, _mm512_and_si512(__m512i(part[i]), _mm512_set1_epi32(0x7fffffff)));
    }
    const int32_t largest = _mm512_reduce_max_epi32(bits);
    float most;
    memcpy(&most, &largest, 4);
    *scale = largest < 0x7f800000 ? most / 127.0f : __builtin_nanf("");
    const bool usable = most > 0 && most < 3e38f;
    const __m512 inverse = _mm512_set1_ps(usable ? 127.0f / most : 0.0f);
    __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        const __m512i q = _mm512_maskz_cvtps_epi32(usable ? 0xffff : 0, _mm512_mul_ps(part[i], inverse));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16 * i), _mm512_cvtepi32_epi8(q));
        sum = _mm512_add_epi32(sum, q);
    }
    return _mm512_reduce_add_epi32(sum);
}
#endif

// One block of `count` floats. A block with a NaN or infinity gets a NaN as its scale.
inline void quantize_block(const float* x, int count, int32_t* q, float* scale) {
    const float most = largest(x, count);
    *scale = most / 127.0f;
    const bool usable = most > 0 && most < 3e38f;
    const vf inverse = splat(usable ? 127.0f / most : 0.0f), magic = splat(12582912.0f);
    for (int i = 0; i < count; i += LANES) {
        vf ratio = load_as<vf>(x + i) * inverse;
#if defined(__x86_64__)
        asm("" : "+x"(ratio));  // rounded on every machine, not fused with the addition where there is such an instruction
#endif
        store_as(q + i, usable ? vi(ratio + magic) - vi(magic) : vi{});
    }
}

inline int32_t sum_of(const int32_t* q, int count) {
    vi total{};
    for (int i = 0; i < count; i += LANES) total += load_as<vi>(q + i);
    int32_t parts[LANES], result = 0;
    store_as(parts, total);
    for (int i = 0; i < LANES; i++) result += parts[i];
    return result;
}

// x quantized: in `a.quantized` by an operation before this one, or by the thread that multiplies it.
struct QuantizedRows {
    const linear_args& a;
    int64_t padded, blocks, groups, piece, row_bytes;
    uint8_t* memory = nullptr;

    explicit QuantizedRows(const linear_args& args)
        : a(args), padded(round_up(args.inputs, args.group)), blocks(padded / args.x_group), groups(padded / args.group) {
        piece = args.group < args.x_group ? args.group : args.x_group;
        row_bytes = values_bytes() + round_up(blocks * 4, 64) + round_up(padded / piece * 4, 64) + round_up(groups * 4, 64);
    }

    int64_t values_bytes() const { return round_up(padded / 4 * QUAD_BYTES, 64); }

    QuantizedRow row(int64_t index) const {
        const uint8_t* base = memory + index * row_bytes;
        const uint8_t* scale = base + values_bytes();
        const uint8_t* start = scale + round_up(blocks * 4, 64);
        const uint8_t* sum = start + round_up(padded / piece * 4, 64);
        return {base, reinterpret_cast<const float*>(scale), reinterpret_cast<const int32_t*>(start),
                reinterpret_cast<const float*>(sum)};
    }

    QuantizedTile tile(int64_t index) const {
        const int64_t scale = values_bytes(), start = scale + round_up(blocks * 4, 64);
        return {memory + index * row_bytes, row_bytes, scale, start, start + round_up(padded / piece * 4, 64)};
    }

    void prepare(int64_t first, int64_t count) {
        if (a.quantized) {
            memory = static_cast<uint8_t*>(a.quantized) + first * row_bytes;
            return;
        }
        memory = static_cast<uint8_t*>(thread_scratch(ROWS_SCRATCH, count * row_bytes));
        for (int64_t index = 0; index < count; index++) quantize(first + index, row(index));
    }

    void quantize(int64_t number, const QuantizedRow& to) const {
        const int32_t offset = integer_offset(a.weight_type);
        alignas(64) float part[128];
        alignas(64) int32_t q[128];
        float* sum = const_cast<float*>(to.sum);
        for (int64_t g = 0; g < groups; g++) sum[g] = 0;
#if defined(__AVX512VNNI__)
        if (a.x_type == ENGINE_BF16 && a.x_group == 128 && piece == 128 && a.inputs == padded) {
            const uint16_t* x = static_cast<const uint16_t*>(a.x) + number * a.x_stride;
            for (int64_t block = 0, inside = 0; block < blocks; block++) {
                float* scale = const_cast<float*>(to.scale) + block;
                const int32_t total = quantize_128(x + 128 * block, const_cast<uint8_t*>(to.values) + 128 * block, scale);
                const_cast<int32_t*>(to.start)[block] = -offset * total;
                *sum += *scale * float(total);
                inside += 128;
                if (inside == a.group) inside = 0, sum++;
            }
            return;
        }
#endif
        for (int64_t i = 0; i < padded; i += a.x_group) {
            const int known = int(a.inputs - i < 0 ? 0 : a.inputs - i < a.x_group ? a.inputs - i : a.x_group);
            if (known) read_row(a.x_type, a.x, number * a.x_stride + i, known, part);
            for (int k = known; k < a.x_group; k++) part[k] = 0;
            float* scale = const_cast<float*>(to.scale) + i / a.x_group;
            uint8_t* values = const_cast<uint8_t*>(to.values) + i / 4 * QUAD_BYTES;
#if defined(__AVX512VNNI__)
            quantize_bytes(part, a.x_group, int(piece), values, scale, q);
#else
            quantize_block(part, a.x_group, q, scale);
            put_quads(q, a.x_group, values);
#endif
            for (int64_t k = 0; k < a.x_group; k += piece) {
#if defined(__AVX512VNNI__)
                const int32_t total = q[k / piece];
#else
                const int32_t total = sum_of(q + k, int(piece));
#endif
                const_cast<int32_t*>(to.start)[(i + k) / piece] = -offset * total;
                sum[(i + k) / a.group] += *scale * float(total);
            }
        }
    }
};

}  // namespace engine
