// Words of a tile, as they lie in pages, times broadcast values: one step of scores, or of sums of values.
#pragma once
#include "attention_codes.h"
#include "lanes.h"

namespace tiles {
namespace {

using namespace lanes;

#if defined(__AVX512BF16__) && defined(__AVX512F__)
constexpr bool HAS_DOT = true;
#else
constexpr bool HAS_DOT = false;
#endif

// Elements of a word of a tile.
template <class C>
struct Pairing {
    static const int step = 1;
};
template <>
struct Pairing<bf16> {
    static const int step = 2;
};
template <>
struct Pairing<e4m3> {
    static const int step = 4;
};
template <>
struct Pairing<e5m2> {
    static const int step = 4;
};

// Sixteen sums while they grow: `parts` registers.
template <class C, bool DOT>
struct Sums {
    static const int parts = 1;
    static INLINE F whole(const F* sums) { return *sums; }
};

// Adds products of R broadcast values with T registers of elements from `from[t]`, one step of S elements.
template <class C, bool DOT, int R, int T>
struct Multiply {  // elements one by one, in float32
    static INLINE void step(F (&sum)[R][T], const char* const (&from)[T], const float* const (&x)[R], int i) {
        F k[T];
        for (int t = 0; t < T; t++) k[t] = load((const C*)from[t]);
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++) sum[r][t] = fma(all(x[r][i]), k[t], sum[r][t]);
    }
};

template <class C, int R, int T>
struct MultiplyBytes {  // four of 8 bits in a word, widened
    static INLINE void step(F (&sum)[R][T], const char* const (&from)[T], const float* const (&x)[R], int i) {
        U w[T];
        for (int t = 0; t < T; t++) w[t] = words(from[t]);
        for (int byte = 0; byte < 4; byte++) {
            F k[T];
            for (int t = 0; t < T; t++) k[t] = widen_bytes<C>(w[t], byte);
            for (int r = 0; r < R; r++)
                for (int t = 0; t < T; t++) sum[r][t] = fma(all(x[r][4 * i + byte]), k[t], sum[r][t]);
        }
    }
};
template <int R, int T>
struct Multiply<e4m3, false, R, T> : MultiplyBytes<e4m3, R, T> {};
template <int R, int T>
struct Multiply<e5m2, false, R, T> : MultiplyBytes<e5m2, R, T> {};

template <int R, int T>
struct Multiply<bf16, false, R, T> {  // two bf16 in a word, widened
    static INLINE void step(F (&sum)[R][T], const char* const (&from)[T], const float* const (&x)[R], int i) {
        F even[T], odd[T];
        for (int t = 0; t < T; t++) {
            const U w = words(from[t]);
#define STEP(n) even[t].p[n] = (vf)(w.p[n] << 16), odd[t].p[n] = (vf)(w.p[n] & 0xffff0000u);
            LANES_EACH(STEP)
#undef STEP
        }
        for (int r = 0; r < R; r++)
            for (int t = 0; t < T; t++)
                sum[r][t] = fma(all(x[r][2 * i + 1]), odd[t], fma(all(x[r][2 * i]), even[t], sum[r][t]));
    }
};

#if defined(__AVX512BF16__) && defined(__AVX512F__)
template <int R, int T>
struct Multiply<bf16, true, R, T> {  // two bf16 in a word, multiplied as they are
    static INLINE void step(F (&sum)[R][T], const char* const (&from)[T], const float* const (&x)[R], int i) {
        __m512i k[T];
        for (int t = 0; t < T; t++) k[t] = _mm512_loadu_si512(from[t]);
        for (int r = 0; r < R; r++) {
            int32_t pair;
            memcpy(&pair, x[r] + i, 4);
            const __m512i both = _mm512_set1_epi32(pair);
            for (int t = 0; t < T; t++)
                sum[r][t].p[0] = (vf)_mm512_dpbf16_ps((__m512)sum[r][t].p[0], (__m512bh)both, (__m512bh)k[t]);
        }
    }
};

// Four of 8 bits in a word become two registers of bf16: columns 0, 1, 4, 5, 8 … and 2, 3, 6, 7, 10 … of the sixteen, each with two
// pairs side by side, whose sums stay apart until the end.
struct SumsOfBytes {
    static const int parts = 2;
    static INLINE F whole(const F* sums) {
        const __m512 a = (__m512)sums[0].p[0], b = (__m512)sums[1].p[0];
        F r;
        r.p[0] = (vf)_mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
        return r;
    }
};
template <>
struct Sums<e4m3, true> : SumsOfBytes {};
template <>
struct Sums<e5m2, true> : SumsOfBytes {};

template <class C, int R, int T>
struct MultiplyCodes {
    static INLINE void step(F (&sum)[R][2 * T], const char* const (&from)[T], const float* const (&x)[R], int i) {
        __m512i k[2 * T];
        for (int t = 0; t < T; t++) codes::widen<C>(_mm512_loadu_si512(from[t]), k[2 * t], k[2 * t + 1]);
        for (int r = 0; r < R; r++) {
            int64_t pairs;
            memcpy(&pairs, x[r] + 2 * i, 8);
            const __m512i both = _mm512_set1_epi64(pairs);
            for (int t = 0; t < 2 * T; t++)
                sum[r][t].p[0] = (vf)_mm512_dpbf16_ps((__m512)sum[r][t].p[0], (__m512bh)both, (__m512bh)k[t]);
        }
    }
};
template <int R, int T>
struct Multiply<e4m3, true, R, T> : MultiplyCodes<e4m3, R, T> {};
template <int R, int T>
struct Multiply<e5m2, true, R, T> : MultiplyCodes<e5m2, R, T> {};
#endif

}  // namespace
}  // namespace tiles
