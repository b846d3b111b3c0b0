// Weights that are places in a table of floats: 16 of them, looked up in registers, or 256.
#pragma once
#include "decoded.h"

namespace engine {

// The floats at LANES places of a table of 16.
inline vf pick16(const float* table, vu index) {
#if defined(__AVX512F__)
    return vf(_mm512_permutexvar_ps(__m512i(index), _mm512_loadu_ps(table)));
#elif defined(__AVX2__)
    const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), __m256i(index));
    const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), __m256i(index));
    return vf(_mm256_blendv_ps(low, high, __m256(index << 28)));
#else
    vf out;
    for (int i = 0; i < LANES; i++) out[i] = table[index[i]];
    return out;
#endif
}

inline vf pick256(const float* table, vu index) {
#if defined(__AVX512F__)
    return vf(_mm512_i32gather_ps(__m512i(index), table, 4));
#elif defined(__AVX2__)
    return vf(_mm256_i32gather_ps(table, __m256i(index), 4));
#else
    vf out;
    for (int i = 0; i < LANES; i++) out[i] = table[index[i]];
    return out;
#endif
}

// The table, its values rounded to bf16 where panels are decoded to that.
template <int CODES>
struct Table {
    alignas(64) float values[CODES];

    Table(const linear_args& a, bool narrow) {
        for (int i = 0; i < CODES; i++) values[i] = narrow ? from_bf16(to_bf16(a.table[i])) : a.table[i];
    }
};

struct Codes4 : Table<16> {
    static const bool table = true;
    static const int bits = 4;
    alignas(64) uint16_t narrow[32];  // twice: a fifth bit of an index is ignored

    Codes4(const linear_args& a, bool rounded) : Table(a, rounded) {
        for (int i = 0; i < 32; i++) narrow[i] = to_bf16(values[i & 15]);
    }
    void read(const uint8_t* panel, int64_t quad, int part, vf (&out)[4]) const {
        const vu bytes = load_as<vu>(panel + (quad / 2 * PANEL + part * LANES) * 4) >> (4 * (quad & 1));
        for (int j = 0; j < 4; j++) out[j] = pick16(values, (bytes >> (8 * j)) & 0xf);
    }
};

struct Codes8 : Table<256> {
    static const bool table = false;
    static const int bits = 8;
    using Table<256>::Table;
    void read(const uint8_t* panel, int64_t quad, int part, vf (&out)[4]) const {
        const vu bytes = load_as<vu>(panel + (quad * PANEL + part * LANES) * 4);
        for (int j = 0; j < 4; j++) out[j] = pick256(values, (bytes >> (8 * j)) & 0xff);
    }
};

#if defined(__AVX512BF16__)
inline const Codes4& codes_of(const Codes4& format) { return format; }
inline __m512i look_up(const Codes4& codes, __m512i index) {
    return _mm512_permutexvar_epi16(index, _mm512_load_si512(codes.narrow));
}
#endif

}  // namespace engine
