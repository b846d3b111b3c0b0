// 8-bit floats as bf16, which holds every one of them exactly, for products of bf16.
#pragma once
#include "lanes.h"

namespace codes {
namespace {

using namespace lanes;

#if defined(__AVX512BF16__) && defined(__AVX512F__)
// Bytes of the bf16 of every code without a sign.
template <int MANTISSA, int BIAS, bool INFINITE>
struct Table {
    alignas(64) uint8_t low[128], high[128];

    constexpr Table() : low(), high() {
        for (int code = 0; code < 128; code++) {
            const int bits = bf16_of(code);
            low[code] = uint8_t(bits & 255), high[code] = uint8_t(bits >> 8);
        }
    }
    static constexpr int bf16_of(int code) {
        const int one = 1 << MANTISSA;
        int exponent = code >> MANTISSA, fraction = code & (one - 1);
        if (INFINITE && exponent == 127 >> MANTISSA) return 0x7f80 | (fraction ? 0x40 : 0);
        if (!INFINITE && code == 127) return 0x7fc0;
        if (exponent == 0) {
            if (fraction == 0) return 0;
            for (exponent = 1; fraction < one; fraction *= 2) exponent--;
            fraction -= one;
        }
        return (exponent + 127 - BIAS) << 7 | fraction << (7 - MANTISSA);
    }
};

template <class C>
struct TableOf;
template <>
struct TableOf<e4m3> {
    static constexpr Table<3, 7, false> table{};
};
template <>
struct TableOf<e5m2> {
    static constexpr Table<2, 15, true> table{};
};

// Whether widen() may be called: one processor has products of bf16 and not this.
inline bool can_widen() { return __builtin_cpu_supports("avx512vbmi"); }

// Entry (code & 127) of a table for each byte. An instruction of its own, since the rest of the library does without AVX512-VBMI.
INLINE __m512i look_up(__m512i code, const uint8_t (&table)[128]) {
    const __m512i first = _mm512_load_si512(table), second = _mm512_load_si512(table + 64);
    asm("vpermi2b %2, %1, %0" : "+v"(code) : "v"(first), "v"(second));
    return code;
}

// 64 codes → the bf16 of the first eight of every sixteen, and of the second.
template <class C>
INLINE void widen(__m512i code, __m512i& first, __m512i& second) {
    const __m512i low = look_up(code, TableOf<C>::table.low);
    const __m512i high = _mm512_ternarylogic_epi32(look_up(code, TableOf<C>::table.high), code, _mm512_set1_epi8(-128), 0xf8);
    first = _mm512_unpacklo_epi8(low, high);
    second = _mm512_unpackhi_epi8(low, high);
}
#else
inline bool can_widen() { return false; }
#endif

}  // namespace
}  // namespace codes
